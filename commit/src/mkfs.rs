//! A new repository: keys, whitelist, storage, first revision.
//!
//! In this order, so that an interrupted run leaves no registered repository behind: keys (new ones,
//! or those of an earlier repository of that name), storage (a directory, or a part of a bucket) with `.cvmfs_master_replica`, an empty
//! root catalog, certificate, meta information, tags, reflog, whitelist, manifest; the
//! configuration last, which registers it.
//!
//! Never touches a storage or keys that are there already, unless told where the keys are.

mod storage;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use formats::catalog::{CatalogError, CatalogWriter, Counters, Counts, Role, Row, Stamp};
use formats::entry::{Entry, Kind, Mtime, Xattrs};
use formats::hash::{Algorithm, Hash};
use formats::history::Head as TagHead;
use formats::manifest::Manifest;
use formats::object::{Compression, ObjectKind};
use formats::path::{PathHash, RepoPath};
use formats::reflog::{RefKind, Reference};
use formats::trust::{
    Certificate, PrivateKey, TrustError, generate_keys, sign_manifest, sign_whitelist,
};
use formats::whitelist::Whitelist;
use formats::{manifest::ManifestError, meta_info};
use store::{Injected, ObjectStore, StoreError, failpoint};

use crate::catalogs::CatalogsError;
use crate::catalogs::finish::store_file;
use crate::home::{HomeError, KeyFile, RepoHome, check_name, replace_file};
use crate::place::BucketError;
use crate::records::{self, RecordsError};
use crate::stratum0::{MANIFEST, seconds};
use storage::Site;

pub use storage::NewStorage;

/// For how long a new whitelist is valid.
pub const WHITELIST_VALID: Duration = Duration::from_secs(30 * 24 * 3600);
/// The whitelist's name in the storage's root.
pub(crate) const WHITELIST: &str = ".cvmfswhitelist";

/// What a new repository is like.
#[derive(Clone, Debug)]
pub struct NewRepository {
    /// Its fully qualified name.
    pub name: String,
    /// Its storage; a directory below the state directory if none.
    pub storage: Option<NewStorage>,
    /// A directory with the keys to use, `NAME.{masterkey,key,crt,pub}`; new ones if none.
    pub keys: Option<PathBuf>,
    /// How objects are named.
    pub algorithm: Algorithm,
    /// How objects are compressed.
    pub compression: Compression,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// Where clients find it, unless it is in a bucket, which says so itself.
    pub url: String,
    /// More lines of `server.conf`, or other values for those written by default.
    pub settings: Vec<(String, String)>,
}

/// Why no repository was made.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    /// It is there already.
    #[error(
        "{name} exists already ({path}); remove it with `prepub rmfs {name}`, or choose another name"
    )]
    Exists {
        /// Its name.
        name: String,
        /// What was found.
        path: PathBuf,
    },
    /// The storage holds something.
    #[error(
        "{place} is not empty; give an empty or new directory, or another prefix, with --storage"
    )]
    StorageInUse {
        /// Where.
        place: String,
    },
    /// A bucket's address or configuration.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Its places.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A file or directory.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys and signatures.
    #[error("the keys of {name}")]
    Trust {
        /// Of which repository.
        name: String,
        /// Why.
        source: TrustError,
    },
    /// The storage.
    #[error("the new storage {place}")]
    Storage {
        /// Where.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// The first catalog.
    #[error("the first catalog")]
    Catalog(#[source] CatalogError),
    /// Storing it.
    #[error(transparent)]
    Catalogs(#[from] CatalogsError),
    /// Tags and reflog.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The manifest.
    #[error("the first manifest")]
    Manifest(#[source] ManifestError),
    /// A setting that cannot be written.
    #[error("server.conf")]
    Conf(#[source] formats::server_conf::ServerConfError),
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// Makes a repository below `state_dir`.
///
/// # Errors
/// [`MkfsError`]; then no repository is registered.
pub fn mkfs(
    state_dir: &Path,
    wanted: &NewRepository,
    now: SystemTime,
) -> Result<RepoHome, MkfsError> {
    check_name(&wanted.name)?;
    let home = RepoHome::embedded(state_dir, &wanted.name)?;
    if home.exists() {
        return Err(MkfsError::Exists {
            name: wanted.name.clone(),
            path: home.conf_file.clone(),
        });
    }
    make_dirs(&home)?;
    let site = Site::choose(state_dir, &home, wanted)?;
    site.claim()?;
    failpoint::pass("mkfs::claimed")?;
    let keys = place_keys(&home, wanted, now)?;
    failpoint::pass("mkfs::keys")?;
    let storage = site.make()?;
    failpoint::pass("mkfs::storage")?;
    first_revision(&home, wanted, &keys, storage.as_ref(), now)?;
    failpoint::pass("mkfs::revision")?;
    let conf = render_conf(&home, wanted, &site)?;
    replace_file(&home.conf_file, conf.as_bytes(), 0o644)?;
    failpoint::pass("mkfs::registered")?;
    site.registered()?;
    Ok(home)
}

fn absolute(dir: &Path) -> Result<PathBuf, MkfsError> {
    std::path::absolute(dir).map_err(|source| MkfsError::Io {
        action: "find",
        path: dir.to_path_buf(),
        source,
    })
}

fn io_error<'p>(action: &'static str, path: &'p Path) -> impl Fn(io::Error) -> MkfsError + 'p {
    move |source| MkfsError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

fn make_dirs(home: &RepoHome) -> Result<(), MkfsError> {
    use std::os::unix::fs::DirBuilderExt;
    let conf_dir = home.conf_file.parent().unwrap_or(Path::new("/"));
    for (dir, mode) in [
        (conf_dir, 0o755),
        (&home.spool_dir, 0o755),
        (&home.keys_dir, 0o700),
    ] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(dir)
            .map_err(|source| MkfsError::Io {
                action: "create",
                path: dir.to_path_buf(),
                source,
            })?;
    }
    Ok(())
}

struct Keys {
    master_key: PrivateKey,
    key: PrivateKey,
    certificate: Certificate,
}

fn place_keys(home: &RepoHome, wanted: &NewRepository, now: SystemTime) -> Result<Keys, MkfsError> {
    let trust = |source| MkfsError::Trust {
        name: wanted.name.clone(),
        source,
    };
    let files = match &wanted.keys {
        Some(dir) => {
            let read = |which: KeyFile| {
                let given = RepoHome {
                    keys_dir: dir.clone(),
                    ..home.clone()
                };
                let path = given.key_file(which);
                fs::read(&path).map_err(|source| MkfsError::Io {
                    action: "read",
                    path,
                    source,
                })
            };
            [
                (KeyFile::MasterKey, read(KeyFile::MasterKey)?),
                (KeyFile::Key, read(KeyFile::Key)?),
                (KeyFile::Certificate, read(KeyFile::Certificate)?),
                (KeyFile::Public, read(KeyFile::Public)?),
            ]
        }
        None => {
            let ring = generate_keys(&wanted.name, now).map_err(trust)?;
            [
                (KeyFile::MasterKey, ring.master_key),
                (KeyFile::Key, ring.key),
                (KeyFile::Certificate, ring.certificate),
                (KeyFile::Public, ring.public),
            ]
        }
    };
    for (which, bytes) in &files {
        let is_private = matches!(which, KeyFile::MasterKey | KeyFile::Key);
        let mode = if is_private { 0o400 } else { 0o444 };
        replace_file(&home.key_file(*which), bytes, mode)?;
    }
    let keys = Keys {
        master_key: home.private_key(KeyFile::MasterKey)?,
        key: home.private_key(KeyFile::Key)?,
        certificate: home.certificate()?,
    };
    keys.certificate.verify_key(&keys.key).map_err(trust)?;
    Ok(keys)
}

/// A signed whitelist that lists one certificate.
pub(crate) fn new_whitelist(
    name: &str,
    certificate: &Certificate,
    algorithm: Algorithm,
    master_key: &PrivateKey,
    now: SystemTime,
    valid: Duration,
) -> Result<Vec<u8>, TrustError> {
    let fingerprint = certificate.fingerprint(algorithm);
    let whitelist = Whitelist::new(name, vec![fingerprint], now, valid);
    Ok(sign_whitelist(whitelist, algorithm, master_key)?.to_bytes())
}

fn first_revision(
    home: &RepoHome,
    wanted: &NewRepository,
    keys: &Keys,
    storage: &dyn ObjectStore,
    now: SystemTime,
) -> Result<(), MkfsError> {
    let (name, algorithm) = (wanted.name.as_str(), wanted.algorithm);
    let work = tempfile::tempdir_in(&home.spool_dir).map_err(|source| MkfsError::Io {
        action: "write in",
        path: home.spool_dir.clone(),
        source,
    })?;
    let timestamp = seconds(now).cast_signed();
    let (root, root_bytes) = first_catalog(wanted, storage, work.path(), timestamp)?;
    let object = |kind, bytes: &[u8]| records::store_bytes(storage, algorithm, kind, bytes);
    let certificate = object(ObjectKind::Certificate, keys.certificate.pem())?;
    let meta_info = object(ObjectKind::MetaInfo, meta_info::SKELETON.as_bytes())?;
    let head = TagHead {
        hash: root,
        size: root_bytes,
        revision: FIRST_REVISION,
        timestamp,
    };
    let mut tags = records::Tags::open(storage, name, None, work.path())?;
    tags.writer
        .set_trunk(&head)
        .map_err(RecordsError::History)?;
    let history = tags.store(storage, algorithm)?;
    storage
        .sync()
        .map_err(|source| storage_error(storage, source))?;
    let references = [
        (root, RefKind::Catalog),
        (certificate, RefKind::Certificate),
        (history, RefKind::History),
        (meta_info, RefKind::MetaInfo),
    ]
    .map(|(hash, kind)| Reference {
        hash,
        kind,
        timestamp,
    });
    let spool = &home.spool_dir;
    let reflog = records::create_reflog(storage, name, spool, algorithm, &references, work.path())?;
    let manifest = Manifest {
        revision: FIRST_REVISION,
        certificate: Some(certificate),
        history: Some(history),
        published: seconds(now),
        meta_info: Some(meta_info),
        reflog: Some(reflog),
        ..Manifest::new(name, root, root_bytes)
    };
    write_head(manifest, algorithm, keys, storage, now)
}

/// Whitelist and manifest: from here on the repository can be read.
fn write_head(
    manifest: Manifest,
    algorithm: Algorithm,
    keys: &Keys,
    storage: &dyn ObjectStore,
    now: SystemTime,
) -> Result<(), MkfsError> {
    let name = manifest.name.clone();
    let trust = |source| MkfsError::Trust {
        name: name.clone(),
        source,
    };
    let (certificate, master_key) = (&keys.certificate, &keys.master_key);
    let valid = WHITELIST_VALID;
    let whitelist =
        new_whitelist(&name, certificate, algorithm, master_key, now, valid).map_err(trust)?;
    let bytes = sign_manifest(manifest, algorithm, &keys.key)
        .map_err(trust)?
        .to_bytes()
        .map_err(MkfsError::Manifest)?;
    for (file, bytes) in [(WHITELIST, whitelist), (MANIFEST, bytes)] {
        storage
            .write_root(file, &bytes)
            .map_err(|source| storage_error(storage, source))?;
    }
    Ok(())
}

fn storage_error(storage: &dyn ObjectStore, source: StoreError) -> MkfsError {
    MkfsError::Storage {
        place: format!("{storage:?}"),
        source,
    }
}

/// Clients take a manifest only if its revision exceeds the one they have, so that 0 is no good.
const FIRST_REVISION: u64 = 1;

fn first_catalog(
    wanted: &NewRepository,
    storage: &dyn ObjectStore,
    work: &Path,
    now: i64,
) -> Result<(Hash, u64), MkfsError> {
    let file = work.join("root.catalog");
    let root = RepoPath::root();
    let mut writer = CatalogWriter::create(&file, &root).map_err(MkfsError::Catalog)?;
    let row = Row {
        path: root.path_hash(),
        parent: PathHash::NONE,
        name: Vec::new(),
        entry: Entry {
            kind: Kind::Directory { size: 4096 },
            perm: 0o755,
            uid: wanted.uid,
            gid: wanted.gid,
            mtime: Mtime {
                secs: now,
                nanos: None,
            },
            xattrs: Xattrs::new(),
        },
        linkcount: 2,
        link_group: 0,
        role: Role::Plain,
        hidden: false,
    };
    writer.put(&row).map_err(MkfsError::Catalog)?;
    let counters = Counters {
        self_: Counts::of(&row),
        subtree: Counts::default(),
    };
    writer.set_counters(&counters).map_err(MkfsError::Catalog)?;
    let finished = writer
        .finish(Stamp {
            revision: FIRST_REVISION,
            previous: None,
            last_modified: now,
            ttl: Some(Manifest::new("", Hash::null(), 0).ttl_seconds),
        })
        .map_err(MkfsError::Catalog)?;
    let (hash, _, _) = store_file(&file, wanted.algorithm, ObjectKind::Catalog, storage)?;
    Ok((hash, finished.size))
}

fn render_conf(home: &RepoHome, wanted: &NewRepository, site: &Site) -> Result<String, MkfsError> {
    let url = site.url.as_ref().unwrap_or(&wanted.url);
    let compression = match wanted.compression {
        Compression::Zlib => "default",
        Compression::None => "none",
    };
    let mut conf =
        formats::server_conf::ServerConf::parse(HEADER.as_bytes()).map_err(MkfsError::Conf)?;
    let settings = [
        ("CVMFS_CREATOR_VERSION", "143".to_owned()),
        ("CVMFS_REPOSITORY_NAME", wanted.name.clone()),
        ("CVMFS_REPOSITORY_TYPE", "stratum0".to_owned()),
        (
            "CVMFS_SPOOL_DIR",
            home.spool_dir.to_string_lossy().into_owned(),
        ),
        ("CVMFS_STRATUM0", url.clone()),
        ("CVMFS_UPSTREAM_STORAGE", site.place.upstream()),
        ("CVMFS_USE_FILE_CHUNKING", "true".to_owned()),
        ("CVMFS_MIN_CHUNK_SIZE", "4194304".to_owned()),
        ("CVMFS_AVG_CHUNK_SIZE", "8388608".to_owned()),
        ("CVMFS_MAX_CHUNK_SIZE", "16777216".to_owned()),
        ("CVMFS_HASH_ALGORITHM", wanted.algorithm.name().to_owned()),
        ("CVMFS_COMPRESSION_ALGORITHM", compression.to_owned()),
        ("CVMFS_INCLUDE_XATTRS", "true".to_owned()),
        ("CVMFS_AUTO_TAG", "false".to_owned()),
        ("CVMFS_GARBAGE_COLLECTION", "false".to_owned()),
        ("CVMFS_AUTOCATALOGS", "false".to_owned()),
        ("CVMFS_IGNORE_XDIR_HARDLINKS", "true".to_owned()),
    ];
    let extra = wanted.settings.iter().map(|(k, v)| (k.as_str(), v.clone()));
    for (key, value) in settings.into_iter().chain(extra) {
        conf.set(key, &value).map_err(MkfsError::Conf)?;
    }
    Ok(conf.render())
}

const HEADER: &str = "\
# Parameters of this repository, read afresh at every commit, in CernVM-FS's own keys.
";

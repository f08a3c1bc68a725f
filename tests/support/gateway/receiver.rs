//! What a receiver does for the gateway: it keeps what a pack holds, and makes a commit of two root
//! catalogs.
//!
//! A commit, step by step: read the published manifest, merge, tag, reflog, sign, publish, empty
//! `client.local`. Whatever fails leaves behind what was done before it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use commit::RepoHome;
use commit::home::KeyFile;
use formats::compress::{compress, decompress};
use formats::history::Head as TagHead;
use formats::trust::sign_manifest;
use formats::{
    Algorithm, Certificate, Compression, Hash, HistoryWriter, Manifest, ObjectKind, ObjectName,
    PrivateKey, RefKind, Reference, ReflogWriter, Tag,
};
use store::{ObjectStore, Repository};

use super::halt::Halt;
use super::leases::date_and_clock;
use super::merge::{Merge, Scope};
use super::node::Stored;
use super::output::Output;
use super::pack::Unpacked;

type Result<T, E = Halt> = std::result::Result<T, E>;

/// Something the receiver needs was not as it must be.
const MISCELLANEOUS: Halt = Halt::Refused("miscellaneous");
const MISSING_REFLOG: Halt = Halt::Refused("missing_reflog");

/// A repository, and where its keys and records are.
pub struct Receiver {
    pub home: RepoHome,
    storage: Arc<dyn ObjectStore>,
    repository: Arc<Repository>,
    algorithm: Algorithm,
    work: tempfile::TempDir,
}

/// What a commit was asked for.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub struct Wish {
    pub old_root_hash: String,
    pub new_root_hash: String,
    pub tag_name: String,
    pub tag_description: String,
}

impl Receiver {
    pub fn new(home: RepoHome) -> Self {
        let storage = home.storage().unwrap();
        let work = tempfile::tempdir().unwrap();
        let keys = home.public_keys().unwrap();
        let (name, cache) = (home.name.clone(), work.path().join("cache"));
        let repository = Repository::new(name, storage.clone(), keys, cache, Default::default());
        Self {
            algorithm: home.params().unwrap().algorithm,
            repository: Arc::new(repository.unwrap()),
            home,
            storage,
            work,
        }
    }

    /// The file that a publisher's base is pinned in.
    pub fn client_local(&self) -> PathBuf {
        self.home.spool_dir.join("client.local")
    }

    fn reflog_checksum(&self) -> PathBuf {
        self.home.spool_dir.join("reflog.chksum")
    }

    /// Keeps the objects of a pack.
    pub fn keep_all(&self, pack: &Unpacked<'_>) -> Result<()> {
        for (name, bytes) in &pack.objects {
            store::put_whole(self.storage.as_ref(), name, bytes)
                .map_err(|_| Halt::Refused("uploader_error"))?;
        }
        if pack.crashed {
            Err(Halt::Crash)
        } else {
            Ok(())
        }
    }

    /// Keeps the objects of a pack in a storage that becomes full: what was begun has its name
    /// already, and nobody ever looks at how long it is.
    pub fn keep_what_fits(&self, pack: &Unpacked<'_>) -> Result<()> {
        let storage = self.home.storage_dir().unwrap();
        for (at, (name, bytes)) in pack.objects.iter().enumerate() {
            let file = storage.join(name.storage_path());
            let fitting = [bytes.len(), bytes.len() / 2].get(at).copied();
            if !file.exists() {
                fs::write(file, &bytes[..fitting.unwrap_or(0)]).unwrap();
            }
        }
        Err(Halt::Refused("uploader_error"))
    }

    /// Compresses and keeps one object.
    pub fn keep(&self, kind: ObjectKind, bytes: &[u8]) -> Result<Hash> {
        let stored = compress(Compression::Zlib, bytes);
        let hash = Hash::of(self.algorithm, &stored);
        let name = ObjectName::new(hash, kind);
        store::put_whole(self.storage.as_ref(), &name, &stored).map_err(|_| Halt::Crash)?;
        Ok(hash)
    }

    /// Publishes; the new revision's number. `scope` is the lease's path without the slash at its
    /// beginning. With `stop` it is over before the manifest is replaced.
    pub fn commit(
        &self,
        scope: &[u8],
        wish: &Wish,
        now: SystemTime,
        stop: Option<Halt>,
    ) -> Result<u64> {
        let roots = [
            catalog_hash(&wish.old_root_hash)?,
            catalog_hash(&wish.new_root_hash)?,
        ];
        let work = tempfile::tempdir_in(self.work.path()).unwrap();
        let head = self.repository.head(now).map_err(|_| MISCELLANEOUS)?;
        let manifest = head.manifest().clone();
        let output = Output::open(&self.repository, &manifest.root_catalog, work.path().into())?;
        let merge = Merge::new(
            Scope(scope),
            &self.repository,
            [&roots[0], &roots[1]],
            output,
        )?;
        let seconds = unix_seconds(now);
        let root = merge.run()?.store(self, seconds.cast_signed())?;
        let history = self.tag(&manifest, &root, wish, now, work.path().join("tags"))?;
        let (certificate, key) = self.signing_keys()?;
        let mut next = Manifest {
            root_catalog: root.hash,
            catalog_bytes: root.bytes,
            ttl_seconds: root.ttl_seconds,
            revision: root.revision,
            garbage_collectable: self.params()?.garbage_collection,
            alt_paths: false,
            history: Some(history),
            published: seconds,
            ..manifest
        };
        let reflog = self.reflog(work.path().join("reflog"))?;
        next.certificate = Some(self.keep(ObjectKind::Certificate, certificate.pem())?);
        next.reflog = Some(self.refer(reflog, &next, roots[1])?);
        if let Some(stop) = stop {
            return Err(stop);
        }
        self.publish(next, &key)?;
        // emptied, never made
        let emptied = fs::File::options()
            .write(true)
            .truncate(true)
            .open(self.client_local());
        emptied.map_err(|_| MISCELLANEOUS)?;
        Ok(root.revision)
    }

    fn params(&self) -> Result<formats::server_conf::Params> {
        self.home.params().map_err(|_| MISCELLANEOUS)
    }

    /// The tag database with the new revision in it.
    fn tag(
        &self,
        published: &Manifest,
        root: &Stored,
        wish: &Wish,
        now: SystemTime,
        file: PathBuf,
    ) -> Result<Hash> {
        let broken = |_| MISCELLANEOUS;
        let mut tags = match published.history {
            Some(hash) => {
                self.fetch(ObjectName::new(hash, ObjectKind::History), &file)?;
                HistoryWriter::open_update(&file).map_err(broken)?
            }
            None => HistoryWriter::create(&file, &self.home.name).map_err(broken)?,
        };
        let mut name = wish.tag_name.clone();
        if name.starts_with("generic-") {
            let [date, clock] = date_and_clock(unix_seconds(now));
            let millis = now
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .subsec_millis();
            name = format!("generic-{date}T{clock}.{millis:03}Z");
        }
        if name.contains(' ') || name == "trunk" || name == "trunk-previous" {
            return Err(MISCELLANEOUS);
        }
        let head = TagHead {
            hash: root.hash,
            size: root.bytes,
            revision: root.revision,
            timestamp: unix_seconds(now).cast_signed(),
        };
        if !name.is_empty() {
            tags.insert(&Tag {
                name,
                hash: head.hash,
                size: head.size,
                revision: head.revision,
                timestamp: head.timestamp,
                description: wish.tag_description.clone(),
                branch: String::new(),
            })
            .map_err(broken)?;
        }
        tags.set_trunk(&head).map_err(broken)?;
        let previous = published.history.unwrap_or(Hash::null());
        tags.set_previous_revision(&previous).map_err(broken)?;
        tags.finish().map_err(broken)?;
        self.keep(ObjectKind::History, &fs::read(file).unwrap())
    }

    fn fetch(&self, name: ObjectName, file: &std::path::Path) -> Result<()> {
        let stored =
            store::get(self.storage.as_ref(), &name, 1 << 30).map_err(|_| MISCELLANEOUS)?;
        let mut target = fs::File::create(file).unwrap();
        let mut plain = decompress(Compression::Zlib, stored.as_slice());
        std::io::copy(&mut plain, &mut target).map_err(|_| MISCELLANEOUS)?;
        Ok(())
    }

    /// The reflog, if it is what its checksum says.
    fn reflog(&self, file: PathBuf) -> Result<(ReflogWriter, PathBuf)> {
        let checksum = fs::read_to_string(self.reflog_checksum()).map_err(|_| MISSING_REFLOG)?;
        let checksum: Hash = checksum.trim().parse().map_err(|_| MISSING_REFLOG)?;
        let bytes = self.storage.read_root(".cvmfsreflog");
        if checksum.is_null() && bytes.is_ok() {
            return Err(MISCELLANEOUS);
        }
        let bytes = bytes.map_err(|_| MISSING_REFLOG)?;
        if Hash::of(checksum.algorithm(), &bytes) != checksum {
            return Err(MISSING_REFLOG);
        }
        fs::write(&file, bytes).unwrap();
        let writer = ReflogWriter::open_update(&file).map_err(|_| MISCELLANEOUS)?;
        Ok((writer, file))
    }

    /// Adds to the reflog what a garbage collection has to know of: the publisher's own root
    /// catalog too, which nothing else refers to.
    fn refer(&self, reflog: (ReflogWriter, PathBuf), next: &Manifest, made: Hash) -> Result<Hash> {
        let (mut writer, file) = reflog;
        let references = [
            (Some(next.root_catalog), RefKind::Catalog),
            (next.certificate, RefKind::Certificate),
            (next.history, RefKind::History),
            (next.meta_info, RefKind::MetaInfo),
            (Some(made), RefKind::Catalog),
        ];
        for (hash, kind) in references {
            let Some(hash) = hash else { continue };
            let timestamp = next.published.cast_signed();
            let reference = Reference {
                hash,
                kind,
                timestamp,
            };
            writer.add(&reference).map_err(|_| MISCELLANEOUS)?;
        }
        writer.finish().map_err(|_| MISCELLANEOUS)?;
        let bytes = fs::read(file).unwrap();
        let hash = Hash::of(self.algorithm, &bytes);
        let written = self.storage.write_root(".cvmfsreflog", &bytes);
        written.map_err(|_| MISCELLANEOUS)?;
        fs::write(self.reflog_checksum(), hash.to_string()).unwrap();
        Ok(hash)
    }

    fn signing_keys(&self) -> Result<(Certificate, PrivateKey)> {
        let broken = |_| MISCELLANEOUS;
        let certificate = self.home.certificate().map_err(broken)?;
        let key = self.home.private_key(KeyFile::Key).map_err(broken)?;
        let matches = certificate.verify_key(&key);
        matches.map_err(|_| MISCELLANEOUS)?;
        Ok((certificate, key))
    }

    fn publish(&self, next: Manifest, key: &PrivateKey) -> Result<()> {
        let signed = sign_manifest(next, self.algorithm, key).map_err(|_| MISCELLANEOUS)?;
        let bytes = signed.to_bytes().map_err(|_| MISCELLANEOUS)?;
        let written = self.storage.write_root(".cvmfspublished", &bytes);
        written.map_err(|_| MISCELLANEOUS)
    }
}

/// A catalog's name; anything else is more than the receiver survives.
fn catalog_hash(text: &str) -> Result<Hash> {
    match text.parse::<ObjectName>() {
        Ok(name) if name.kind == ObjectKind::Catalog => Ok(name.hash),
        _ => Err(Halt::Crash),
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

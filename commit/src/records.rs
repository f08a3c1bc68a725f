//! What a repository remembers beside its catalogs: the tag database and the reflog.
//!
//! ```text
//! tags     object of kind H, its hash in the manifest; a new one with every change
//! reflog   root file .cvmfsreflog, edited in place; its hash in SPOOL/reflog.chksum and in the manifest
//! ```
//!
//! The reflog's checksum lies in another file than the reflog. So that a crash between the two
//! writes blocks nobody, the checksum to come is written to `reflog.chksum.next` first.
//!
//! Nothing here signs, and nothing decides which tags there are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use formats::compress::decompress;
use formats::hash::{Algorithm, Hash};
use formats::history::{History, HistoryError, HistoryWriter};
use formats::object::{Compression, ObjectKind, ObjectName};
use formats::reflog::{Reference, ReflogError, ReflogWriter};
use store::{Injected, ObjectStore, StoreError, failpoint};

use crate::home::{HomeError, replace_file};

/// The reflog's name in the storage's root.
pub(crate) const REFLOG: &str = ".cvmfsreflog";
const CHECKSUM: &str = "reflog.chksum";
const NEXT_CHECKSUM: &str = "reflog.chksum.next";
/// Largest tag database that is read: millions of tags.
const HISTORY_BYTES_MAX: u64 = 1 << 30;

/// Why tags or reflog cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The storage.
    #[error("cannot {what} {name}")]
    Storage {
        /// What was done.
        what: &'static str,
        /// With which object or root file.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// A file outside the storage.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The checksum file.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The tag database.
    #[error("tag database")]
    History(#[source] HistoryError),
    /// The reflog.
    #[error("reflog")]
    Reflog(#[source] ReflogError),
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] Injected),
    /// The reflog is not the one that was written last.
    #[error(
        "the reflog hashes to {found}, {checksum_file} says {expected}: another program changed it; `cvmfs_server check -r` or `prepub check` says more"
    )]
    Mismatch {
        /// What it hashes to.
        found: Hash,
        /// What was expected.
        expected: String,
        /// The file that says so.
        checksum_file: PathBuf,
    },
}

fn storage_error(
    what: &'static str,
    name: impl ToString,
) -> impl FnOnce(StoreError) -> RecordsError {
    let name = name.to_string();
    move |source| RecordsError::Storage { what, name, source }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> RecordsError + '_ {
    move |source| RecordsError::File {
        path: path.to_path_buf(),
        source,
    }
}

/// Copies a tag database out of the storage into `file`.
pub(crate) fn fetch_history(
    storage: &dyn ObjectStore,
    hash: &Hash,
    file: &Path,
) -> Result<(), RecordsError> {
    let name = ObjectName::new(*hash, ObjectKind::History);
    let stored =
        store::get(storage, &name, HISTORY_BYTES_MAX).map_err(storage_error("read", name))?;
    let mut target = fs::File::create_new(file).map_err(file_error(file))?;
    io::copy(
        &mut decompress(Compression::Zlib, stored.as_slice()),
        &mut target,
    )
    .map_err(file_error(file))?;
    Ok(())
}

/// The published tags; none if there is no tag database yet.
pub(crate) fn read_history(
    storage: &dyn ObjectStore,
    hash: Option<Hash>,
    work: &Path,
) -> Result<Option<History>, RecordsError> {
    let Some(hash) = hash else {
        return Ok(None);
    };
    let file = work.join(format!("{hash}.tags"));
    if !file.exists() {
        fetch_history(storage, &hash, &file)?;
    }
    History::open(&file)
        .map(Some)
        .map_err(RecordsError::History)
}

/// A tag database that is being changed, in a directory of its own.
pub(crate) struct Tags {
    pub(crate) writer: HistoryWriter,
    file: PathBuf,
    previous: Option<Hash>,
}

impl Tags {
    /// A copy of the published one, or a new one.
    pub(crate) fn open(
        storage: &dyn ObjectStore,
        repo: &str,
        previous: Option<Hash>,
        work: &Path,
    ) -> Result<Self, RecordsError> {
        let file = work.join("tags.new");
        let writer = match previous {
            Some(hash) => {
                fetch_history(storage, &hash, &file)?;
                HistoryWriter::open_update(&file)
            }
            None => HistoryWriter::create(&file, repo),
        }
        .map_err(RecordsError::History)?;
        Ok(Self {
            writer,
            file,
            previous,
        })
    }

    /// Stores it as it is now.
    pub(crate) fn store(
        mut self,
        storage: &dyn ObjectStore,
        algorithm: Algorithm,
    ) -> Result<Hash, RecordsError> {
        self.writer
            .set_previous_revision(&self.previous.unwrap_or_else(Hash::null))
            .map_err(RecordsError::History)?;
        self.writer.finish().map_err(RecordsError::History)?;
        let bytes = fs::read(&self.file).map_err(file_error(&self.file))?;
        fs::remove_file(&self.file).map_err(file_error(&self.file))?;
        store_bytes(storage, algorithm, ObjectKind::History, &bytes)
    }
}

/// Compresses and stores a small object.
pub(crate) fn store_bytes(
    storage: &dyn ObjectStore,
    algorithm: Algorithm,
    kind: ObjectKind,
    bytes: &[u8],
) -> Result<Hash, RecordsError> {
    let stored = formats::compress::compress(Compression::Zlib, bytes);
    let hash = Hash::of(algorithm, &stored);
    let name = ObjectName::new(hash, kind);
    store::put_whole(storage, &name, &stored).map_err(storage_error("write", name))?;
    Ok(hash)
}

/// Checks that the reflog is the one that was written last, and returns its bytes.
pub(crate) fn read_reflog(
    storage: &dyn ObjectStore,
    spool: &Path,
    algorithm: Algorithm,
    in_manifest: Option<Hash>,
) -> Result<Vec<u8>, RecordsError> {
    let bytes = storage
        .read_root(REFLOG)
        .map_err(storage_error("read", REFLOG))?;
    let checksum_file = spool.join(CHECKSUM);
    let expected = match read_checksum(&checksum_file)? {
        Some(text) => text,
        None => match in_manifest {
            Some(hash) => hash.to_string(),
            None => return Ok(bytes),
        },
    };
    let expected_algorithm = expected
        .parse::<Hash>()
        .map_or(algorithm, |hash| hash.algorithm());
    let found = Hash::of(expected_algorithm, &bytes);
    if found.to_string() == expected {
        return Ok(bytes);
    }
    let next_file = spool.join(NEXT_CHECKSUM);
    if let Some(next) = read_checksum(&next_file)?
        && let Ok(next) = next.parse::<Hash>()
        && Hash::of(next.algorithm(), &bytes) == next
    {
        replace_file(&checksum_file, next.to_string().as_bytes(), 0o644)?;
        return Ok(bytes);
    }
    Err(RecordsError::Mismatch {
        found,
        expected,
        checksum_file,
    })
}

/// What the reflog should hash to by the record outside the storage; none where there is no record.
/// A record that a crash left behind the reflog is brought up to date first.
///
/// # Errors
/// When the record or the reflog cannot be read. A reflog that is another than the record says is
/// no error here.
pub fn reflog_checksum(
    storage: &dyn ObjectStore,
    spool: &Path,
) -> Result<Option<Hash>, RecordsError> {
    match read_reflog(storage, spool, Algorithm::Sha1, None) {
        Ok(_) | Err(RecordsError::Mismatch { .. }) => {}
        Err(RecordsError::Storage { source, .. }) if source.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let recorded = read_checksum(&spool.join(CHECKSUM))?;
    Ok(recorded.and_then(|text| text.parse().ok()))
}

fn read_checksum(file: &Path) -> Result<Option<String>, RecordsError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(file)(error)),
    }
}

/// Adds references to the reflog and publishes it; yields its hash.
pub(crate) fn append_reflog(
    storage: &dyn ObjectStore,
    spool: &Path,
    algorithm: Algorithm,
    in_manifest: Option<Hash>,
    references: &[Reference],
    work: &Path,
) -> Result<Hash, RecordsError> {
    let file = work.join("reflog.new");
    let bytes = read_reflog(storage, spool, algorithm, in_manifest)?;
    fs::write(&file, bytes).map_err(file_error(&file))?;
    let writer = ReflogWriter::open_update(&file).map_err(RecordsError::Reflog)?;
    write_reflog(writer, &file, storage, spool, algorithm, references)
}

/// Makes the first reflog of a repository; yields its hash.
pub(crate) fn create_reflog(
    storage: &dyn ObjectStore,
    repo: &str,
    spool: &Path,
    algorithm: Algorithm,
    references: &[Reference],
    work: &Path,
) -> Result<Hash, RecordsError> {
    let file = work.join("reflog.new");
    let writer = ReflogWriter::create(&file, repo).map_err(RecordsError::Reflog)?;
    write_reflog(writer, &file, storage, spool, algorithm, references)
}

fn write_reflog(
    mut writer: ReflogWriter,
    file: &Path,
    storage: &dyn ObjectStore,
    spool: &Path,
    algorithm: Algorithm,
    references: &[Reference],
) -> Result<Hash, RecordsError> {
    for reference in references {
        writer.add(reference).map_err(RecordsError::Reflog)?;
    }
    writer.finish().map_err(RecordsError::Reflog)?;
    let bytes = fs::read(file).map_err(file_error(file))?;
    fs::remove_file(file).map_err(file_error(file))?;
    let hash = Hash::of(algorithm, &bytes);
    let text = hash.to_string();
    replace_file(&spool.join(NEXT_CHECKSUM), text.as_bytes(), 0o644)?;
    storage
        .write_root(REFLOG, &bytes)
        .map_err(storage_error("write", REFLOG))?;
    failpoint::pass("records::before_checksum")?;
    replace_file(&spool.join(CHECKSUM), text.as_bytes(), 0o644)?;
    let next = spool.join(NEXT_CHECKSUM);
    fs::remove_file(&next).map_err(file_error(&next))?;
    Ok(hash)
}

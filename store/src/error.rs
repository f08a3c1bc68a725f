//! What can go wrong in a store, told apart where the way out differs.
//!
//! An error carries the path or object it is about. It can be cloned, so that everybody who waited
//! for one fetch is told the same.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::{Hash, ObjectName};

use crate::failpoint::Injected;
use crate::s3::S3Error;

/// Shorthand of this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The object is not there.
    #[error("object {name} is not in {place}")]
    NotFound {
        /// Which object.
        name: ObjectName,
        /// Where it was looked for.
        place: String,
    },
    /// The root file is not there.
    #[error("{file} is not in {place}")]
    RootNotFound {
        /// Which file.
        file: String,
        /// Where it was looked for.
        place: String,
    },
    /// A root file's name with a slash, empty, or a dot name.
    #[error("not the name of a file in a storage's root: {0:?}")]
    BadRootName(String),
    /// The bytes are not those the name promises.
    #[error("object {name} in {place} is damaged: its bytes hash to {actual}")]
    Corrupt {
        /// Which object.
        name: ObjectName,
        /// Where it lies.
        place: String,
        /// The hash of what was read.
        actual: Hash,
    },
    /// It has its name, and not all of its bytes.
    #[error(
        "object {name} in {place} has {found} bytes instead of {wanted}: something cut it off, such as a full disk; remove it there and try again"
    )]
    CutOff {
        /// Which object.
        name: ObjectName,
        /// The store.
        place: String,
        /// Bytes there are.
        found: u64,
        /// Bytes it has.
        wanted: u64,
    },
    /// A link, directory or device stands where an object belongs.
    #[error("{path} is a {what}, not an object; move it away and try again")]
    Occupied {
        /// The object's place.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// The directory is no storage.
    #[error(
        "{path} is not a storage directory: {missing} is missing; create it with `prepub mkfs`, or check the path"
    )]
    NotAStorage {
        /// The directory.
        path: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
    /// ENOSPC.
    #[error(
        "no space left on the filesystem of {path}; free some space or enlarge it, then try again"
    )]
    NoSpace {
        /// What could not be written.
        path: PathBuf,
    },
    /// EDQUOT.
    #[error(
        "disk quota exceeded at {path}; raise the quota of the storage's owner or free some space"
    )]
    Quota {
        /// What could not be written.
        path: PathBuf,
    },
    /// EACCES or EPERM.
    #[error(
        "permission denied: {action} {path}; check owner and mode of the storage, or run as its owner"
    )]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// EROFS.
    #[error("{path} is on a read-only filesystem; remount it writable")]
    ReadOnlyFilesystem {
        /// What could not be written.
        path: PathBuf,
    },
    /// Any other error of the operating system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The server's answer was not a success, and no retry helped.
    #[error("{url}: the server answered {status}")]
    HttpStatus {
        /// What was asked for.
        url: String,
        /// Status code and text.
        status: String,
    },
    /// The server could not be reached, or the answer broke off, and no retry helped.
    #[error("{url}: {what}")]
    Http {
        /// What was asked for.
        url: String,
        /// What failed.
        what: &'static str,
        /// What the HTTP library said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A bucket.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// More bytes than this kind of file may have.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: String,
        /// What is allowed.
        limit: u64,
    },
    /// The store cannot do this by its nature.
    #[error("{place} cannot {action}")]
    Unsupported {
        /// Which store.
        place: String,
        /// What was asked.
        action: &'static str,
    },
    /// A fault a test asked for.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl StoreError {
    /// Sorts an error of the operating system into the variants above.
    #[must_use]
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        use rustix::io::Errno;
        let path = path.as_ref().to_path_buf();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC) => Self::NoSpace { path },
            Some(Errno::DQUOT) => Self::Quota { path },
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied { action, path },
            Some(Errno::ROFS) => Self::ReadOnlyFilesystem { path },
            _ => match source.kind() {
                io::ErrorKind::StorageFull => Self::NoSpace { path },
                io::ErrorKind::QuotaExceeded => Self::Quota { path },
                io::ErrorKind::PermissionDenied => Self::Denied { action, path },
                io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnlyFilesystem { path },
                _ => Self::Io {
                    action,
                    path,
                    source: Arc::new(source),
                },
            },
        }
    }

    /// True where the thing asked for simply is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::RootNotFound { .. })
    }

    /// True where space or quota ran out.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::Quota { .. } => true,
            Self::S3(error) => error.is_out_of_space(),
            _ => false,
        }
    }

    /// The `io::ErrorKind` nearest to this, for a `Read` or `Write` that has to pass it on.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NotFound { .. } | Self::RootNotFound { .. } => io::ErrorKind::NotFound,
            Self::NoSpace { .. } => io::ErrorKind::StorageFull,
            Self::Quota { .. } => io::ErrorKind::QuotaExceeded,
            Self::Denied { .. } => io::ErrorKind::PermissionDenied,
            Self::ReadOnlyFilesystem { .. } => io::ErrorKind::ReadOnlyFilesystem,
            Self::Corrupt { .. } => io::ErrorKind::InvalidData,
            Self::Io { source, .. } => source.kind(),
            Self::S3(error) if error.is_out_of_space() => io::ErrorKind::StorageFull,
            Self::S3(error) if error.is_denied() => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// An error and all it stems from, on one line, outermost first.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

//! What an operation may fail with, and the errno of each: the one place where that is decided.

use std::io;
use std::path::PathBuf;

use formats::path::PathError;
use store::{ContentError, RepoError};

use crate::journal::JournalError;

/// Shorthand.
pub type Result<T, E = FsError> = std::result::Result<T, E>;

/// Why an operation was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// ENOENT.
    #[error("no such file or directory")]
    NotFound,
    /// EEXIST.
    #[error("file exists")]
    Exists,
    /// ENOTDIR.
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR.
    #[error("is a directory")]
    IsDirectory,
    /// ENOTEMPTY.
    #[error("directory not empty")]
    NotEmpty,
    /// ENAMETOOLONG.
    #[error("name too long")]
    NameTooLong,
    /// EINVAL, and why.
    #[error("invalid: {0}")]
    Invalid(&'static str),
    /// EPERM, and why.
    #[error("not permitted: {0}")]
    NotPermitted(&'static str),
    /// EACCES.
    #[error("permission denied")]
    Access,
    /// EXDEV: rename or link across repositories.
    #[error("not within one repository")]
    CrossRepository,
    /// ESTALE: the inode is not known any more.
    #[error("inode {0} is not known any more")]
    Stale(u64),
    /// EBADF.
    #[error("no such open file")]
    BadHandle,
    /// ENODATA: no such extended attribute.
    #[error("no such extended attribute")]
    NoAttribute,
    /// E2BIG: an extended attribute's value.
    #[error("extended attribute too large")]
    AttributeTooBig,
    /// ENOSPC.
    #[error("no space left in the state directory")]
    NoSpace,
    /// ENOSPC, however much room there is: all attributes of one file may take so much only.
    #[error("the extended attributes take too much")]
    AttributesFull,
    /// ENFILE.
    #[error("too many files are open in this repository")]
    TooManyOpen,
    /// EDQUOT.
    #[error("the repository's quota is used up")]
    Quota,
    /// EFBIG.
    #[error("file too large")]
    TooBig,
    /// EMLINK.
    #[error("too many links")]
    TooManyLinks,
    /// ENXIO: no data or hole beyond that offset.
    #[error("nothing beyond that offset")]
    NoSeekTarget,
    /// EOPNOTSUPP.
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// EBUSY.
    #[error("busy")]
    Busy,
    /// EIO, ENOSPC, EDQUOT, or ENFILE where descriptors have run out: a file of the stage.
    #[error("staged file {path}")]
    Backing {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// EIO: the published tree cannot be read.
    #[error("published tree")]
    Lower(#[source] RepoError),
    /// EIO: the bytes of a published or sealed file cannot be read. ENOSPC where they are one large
    /// object, and there is no room to unpack it.
    #[error("content of a file")]
    Content(#[source] ContentError),
    /// EIO or ENOSPC: the change could not be recorded and was not made.
    #[error("the stage's journal")]
    Journal(#[source] JournalError),
}

impl FsError {
    /// The errno that answers the kernel.
    #[must_use]
    pub fn to_errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::Invalid(_) => libc::EINVAL,
            Self::NotPermitted(_) => libc::EPERM,
            Self::Access => libc::EACCES,
            Self::CrossRepository => libc::EXDEV,
            Self::Stale(_) => libc::ESTALE,
            Self::BadHandle => libc::EBADF,
            Self::NoAttribute => libc::ENODATA,
            Self::AttributeTooBig => libc::E2BIG,
            Self::NoSpace | Self::AttributesFull => libc::ENOSPC,
            Self::TooManyOpen => libc::ENFILE,
            Self::Quota => libc::EDQUOT,
            Self::TooBig => libc::EFBIG,
            Self::TooManyLinks => libc::EMLINK,
            Self::NoSeekTarget => libc::ENXIO,
            Self::NotSupported(_) => libc::EOPNOTSUPP,
            Self::Busy => libc::EBUSY,
            Self::Backing { source, .. } => match source.raw_os_error() {
                Some(errno @ (libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EINVAL)) => errno,
                Some(libc::EOPNOTSUPP) => libc::EOPNOTSUPP,
                // it is not the caller who has too many
                Some(libc::EMFILE | libc::ENFILE) => libc::ENFILE,
                _ => libc::EIO,
            },
            Self::Journal(source) if source.is_no_space() => libc::ENOSPC,
            Self::Content(source) if source.is_out_of_space() => libc::ENOSPC,
            Self::Lower(_) | Self::Content(_) | Self::Journal(_) => libc::EIO,
        }
    }

    /// True where more space on this machine is the way out.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        self.to_errno() == libc::ENOSPC && !matches!(self, Self::AttributesFull)
    }

    /// True where the log should have it: the fault is ours or the machine's, not the caller's.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Backing { .. } | Self::Lower(_) | Self::Content(_) | Self::Journal(_)
        )
    }
}

impl From<PathError> for FsError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::NameTooLong(_) => Self::NameTooLong,
            PathError::BadName(_) | PathError::BadPath(_) => Self::Invalid("not a file name"),
        }
    }
}

impl From<RepoError> for FsError {
    fn from(source: RepoError) -> Self {
        Self::Lower(source)
    }
}

impl From<ContentError> for FsError {
    fn from(source: ContentError) -> Self {
        Self::Content(source)
    }
}

impl From<JournalError> for FsError {
    fn from(source: JournalError) -> Self {
        Self::Journal(source)
    }
}

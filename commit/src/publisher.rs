//! The seam between a commit and whoever makes it visible.
//!
//! A publisher stores objects ahead of time, grants a lease on the newest revision, and makes a new
//! root catalog visible at one instant. How, with which locks and through which service, is its own
//! affair; what is published is not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::changeset::ChangeSet;
use formats::hash::Hash;
use formats::path::RepoPath;
use formats::server_conf::Params;
use serde::{Deserialize, Serialize};
use store::{Head, ObjectStore, Repository};

/// Why a publisher could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum PublisherError {
    /// Somebody else publishes.
    #[error("{repo} is busy: {what}; try again when that is done")]
    Busy {
        /// Which repository.
        repo: String,
        /// What is going on.
        what: String,
    },
    /// Somebody has a transaction of `cvmfs_server` open.
    #[error("cvmfs_server has a transaction of {repo} open")]
    Transaction {
        /// Which repository.
        repo: String,
        /// Who opened it.
        uid: u32,
        /// Since when it has been open.
        since: SystemTime,
    },
    /// The repository's places: configuration, keys, storage.
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    /// The published head cannot be read or verified.
    #[error("the published revision of {repo} cannot be used")]
    Head {
        /// Which repository.
        repo: String,
        /// Why.
        source: store::HeadError,
    },
    /// A revision that the published one was built on cannot be read.
    #[error("cannot find out whether a revision of {repo} was published")]
    Chain {
        /// Which repository.
        repo: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The head is good, but the whitelist ends too soon to publish.
    #[error("the whitelist of {repo} has expired; renew it with `prepub resign {repo}`")]
    WhitelistExpired {
        /// Which repository.
        repo: String,
    },
    /// An object or root file.
    #[error("the storage of {repo}: cannot {what}")]
    Storage {
        /// Which repository.
        repo: String,
        /// What was done.
        what: &'static str,
        /// Why.
        source: store::StoreError,
    },
    /// The tags.
    #[error("the tags of {repo}")]
    Tags {
        /// Which repository.
        repo: String,
        /// Why.
        source: formats::history::HistoryError,
    },
    /// A tag that cannot be set.
    #[error(
        "the tag {name:?} exists already, on revision {revision}; choose another name, or remove it with `prepub tag remove`"
    )]
    TagExists {
        /// Its name.
        name: String,
        /// What it points at.
        revision: u64,
    },
    /// The directory that shows the tags.
    #[error("/.cvmfs of {repo}")]
    VirtualDir {
        /// Which repository.
        repo: String,
        /// Why.
        source: Box<crate::catalogs::CatalogsError>,
    },
    /// The reflog.
    #[error("the reflog of {repo}")]
    Reflog {
        /// Which repository.
        repo: String,
        /// Why.
        source: crate::records::RecordsError,
    },
    /// Signing.
    #[error("cannot sign for {repo}")]
    Sign {
        /// Which repository.
        repo: String,
        /// Why.
        source: formats::trust::TrustError,
    },
    /// The manifest that would be published cannot be.
    #[error("the new manifest of {repo}")]
    Manifest {
        /// Which repository.
        repo: String,
        /// Why.
        source: formats::manifest::ManifestError,
    },
    /// A gateway.
    #[error("the gateway of {repo}")]
    Gateway {
        /// Which repository.
        repo: String,
        /// Why.
        source: Box<crate::gateway::GatewayError>,
    },
    /// `cvmfs_server`, or what it published.
    #[error("cvmfs_server and {repo}")]
    Server {
        /// Which repository.
        repo: String,
        /// Why.
        source: Box<crate::cvmfs_server::ServerError>,
    },
    /// The last step failed, and is known to be over. Where nothing became visible, it may be tried
    /// anew, from a new lease on.
    #[error("the gateway of {repo} did not publish")]
    NotDone {
        /// Which repository.
        repo: String,
        /// Why.
        source: Box<crate::gateway::GatewayError>,
    },
    /// The published directories that the changes stand in come and go.
    #[error("the directories above {path} in {repo} keep changing; try again")]
    Unsteady {
        /// Which repository.
        repo: String,
        /// What could not be leased.
        path: RepoPath,
    },
    /// Changes that this publisher has no way to make.
    #[error(
        "{} of {repo} cannot be published in this way; undo them, or publish them with the publisher stratum0, where the storage and the keys are",
        count(.named.len() as u64 + .more)
    )]
    Refused {
        /// Which repository.
        repo: String,
        /// What, up to a limit.
        named: Vec<Refused>,
        /// How many more there are.
        more: u64,
    },
    /// The caller's own record could not be written.
    #[error("cannot record the progress of the commit")]
    Record(#[source] crate::txn::TxnError),
}

impl PublisherError {
    /// What stands in the way of a repository's tags or reflog.
    pub(crate) fn records(repo: &str, source: crate::records::RecordsError) -> Self {
        let repo = repo.to_owned();
        match source {
            crate::records::RecordsError::History(source) => Self::Tags { repo, source },
            source => Self::Reflog { repo, source },
        }
    }
}

impl From<store::Injected> for PublisherError {
    fn from(fault: store::Injected) -> Self {
        Self::Record(fault.into())
    }
}

fn count(changes: u64) -> String {
    match changes {
        1 => "1 change".to_owned(),
        n => format!("{n} changes"),
    }
}

/// A change that a publisher cannot make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where.
    pub path: RepoPath,
    /// Why not.
    pub why: RefusedWhy,
}

/// Why a publisher cannot make a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedWhy {
    /// A gateway's receiver drops fifos, sockets and devices silently.
    SpecialFile,
    /// A gateway's receiver gives up at a published file with hard links that is changed or removed.
    HardLink,
    /// A gateway's receiver crashes where a directory that has directories becomes anything else.
    DirectoryReplaced,
    /// Neither a gateway's receiver nor `cvmfs_server` looks at the root directory's own row.
    RootAttributes,
    /// `cvmfs_server` takes it for what a file is made of.
    GraftName,
    /// The union that `cvmfs_server` mounts takes it for a sign of its own.
    UnionsOwn,
    /// `cvmfs_server` says these two of all files of a publication, or of none.
    ExternalFile,
    /// Whoever is not root makes no devices.
    NeedsRoot,
    /// Whoever is not root makes files of nobody else.
    OtherOwner,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self.why {
            RefusedWhy::SpecialFile => "a fifo, socket or device is or was here",
            RefusedWhy::HardLink => "published with hard links, which cannot be changed or removed",
            RefusedWhy::DirectoryReplaced => {
                "a directory with directories in it cannot become something else at once; commit its removal first"
            }
            RefusedWhy::RootAttributes => "mode, owner and times of the root directory stay",
            RefusedWhy::GraftName => {
                "cvmfs_server takes a file of such a name for the content of another"
            }
            RefusedWhy::UnionsOwn => {
                "a device 0:0 and attributes trusted.overlay.* mean something to overlayfs"
            }
            RefusedWhy::ExternalFile => "external data and direct I/O stay what they are",
            RefusedWhy::NeedsRoot => "devices are made by root alone; run prepub as root",
            RefusedWhy::OtherOwner => {
                "it belongs to another user or group, and only root can give it away; run prepub as root, or chown it"
            }
        };
        write!(f, "{}: {why}", self.path)
    }
}

/// A new root catalog, stored and ready to become visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRevision {
    /// The root catalog.
    pub root_hash: Hash,
    /// The length of its file.
    pub root_bytes: u64,
    /// Its revision number.
    pub revision: u64,
    /// The root catalog it was made from.
    pub previous_root: Hash,
    /// Its `last_modified`.
    pub timestamp: i64,
    /// How long clients may go without looking again.
    pub ttl_seconds: u64,
    /// A tag to set on it.
    pub tag: Option<String>,
    /// The tag's description.
    pub message: String,
}

/// Who makes revisions visible.
pub trait Publisher: Send + Sync {
    /// The repository's name.
    fn name(&self) -> &str;

    /// Reads what is published, verified.
    fn repository(&self) -> &Arc<Repository>;

    /// The parameters, read afresh.
    ///
    /// # Errors
    /// When the configuration cannot be read or makes no sense.
    fn params(&self) -> Result<Params, PublisherError>;

    /// Where objects go before the lease.
    fn storage(&self) -> &Arc<dyn ObjectStore>;

    /// Where catalogs go under it; what is published and stored can be read there, too.
    fn catalogs(&self) -> &Arc<dyn ObjectStore> {
        self.storage()
    }

    /// The published head, verified, and for how long its whitelist is valid.
    ///
    /// # Errors
    /// When it cannot be verified, or its whitelist has expired.
    fn head(&self, now: SystemTime) -> Result<(Head, Duration), PublisherError>;

    /// Refuses changes that cannot be made this way, before anything is stored.
    ///
    /// # Errors
    /// [`PublisherError::Refused`]; when what is published there cannot be read.
    fn fits(&self, _change_set: &ChangeSet, _head: &Head) -> Result<(), PublisherError> {
        Ok(())
    }

    /// Sees to it that all that was put into [`Publisher::storage`] is published with the next
    /// revision, as far as that takes time and no lease on what changes.
    ///
    /// # Errors
    /// [`PublisherError::Busy`]; when it cannot be brought there.
    fn deliver(&self) -> Result<(), PublisherError> {
        Ok(())
    }

    /// A commit begins, perhaps beside others.
    fn begins(&self) {}

    /// A commit that began is over, whatever became of it: what it alone needed can go.
    fn ended(&self) {}

    /// Keeps all others from publishing what `change_set` touches, from now until the lease is dropped.
    ///
    /// # Errors
    /// [`PublisherError::Busy`], [`PublisherError::Transaction`] if another publisher is at work.
    fn lease<'a>(
        &'a self,
        change_set: &ChangeSet,
        now: SystemTime,
    ) -> Result<Box<dyn Lease + 'a>, PublisherError>;

    /// True if a lease takes long and is in others' way, so that a commit that changes nothing had better
    /// not take one.
    fn is_lease_costly(&self) -> bool {
        false
    }

    /// Gives back what a process that died held against others; nothing, if there is nothing, or
    /// somebody still uses it.
    ///
    /// # Errors
    /// When it cannot be.
    fn give_back(&self) -> Result<(), PublisherError> {
        Ok(())
    }

    /// The revision that made `revision` visible: itself, or what the publisher made of it. It is the
    /// published one, or one that the published one was built on. None: it is not visible.
    ///
    /// # Errors
    /// When the published revision cannot be read.
    fn landed(
        &self,
        revision: &NewRevision,
        now: SystemTime,
    ) -> Result<Option<NewRevision>, PublisherError>;
}

/// A called-back record of what is about to become visible.
pub type Record<'r> = &'r mut dyn FnMut(&NewRevision) -> Result<(), crate::txn::TxnError>;

/// The right to publish, until dropped.
pub trait Lease {
    /// The newest revision, read after the lease was granted.
    fn head(&self) -> &Head;

    /// Where the publisher merges rows into catalogs of its own: the path that it looks at. None: our
    /// catalogs are published as they are.
    fn merged_below(&self) -> Option<&RepoPath> {
        None
    }

    /// Checks what can be checked of a tag before anything is made.
    ///
    /// # Errors
    /// [`PublisherError::TagExists`].
    fn check_tag(&self, name: &str) -> Result<(), PublisherError>;

    /// Makes a revision visible, or what the publisher makes of it: the one returned. `record` is
    /// called, with what is known of it, once nothing but the last step is left; it is visible at some
    /// instant after that.
    ///
    /// # Errors
    /// Before the last step nothing is visible. If the last step itself fails, ask
    /// [`Publisher::landed`]; after [`PublisherError::NotDone`] it is over.
    fn submit(
        self: Box<Self>,
        revision: NewRevision,
        now: SystemTime,
        record: Record<'_>,
    ) -> Result<NewRevision, PublisherError>;
}

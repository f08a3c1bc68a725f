//! Publishing by `cvmfs_server`: on the machine of a repository that it made, as its owner or as root.
//!
//! ```text
//! fits        what a transaction has no way to make is refused
//! store       objects go into the repository's storage where that is writable here
//! lease       `cvmfs_server transaction`; the base is the newest revision, read after that
//! (catalogs)  ours are never published: they say what has to come out
//! submit      the difference is applied to the mount, files as grafts; `cvmfs_server publish`; what was
//!             published is compared with ours
//! dropped     `cvmfs_server abort -f`
//! ```
//!
//! So it is `cvmfs_server` that writes catalogs, tags and manifest, with its hooks and its settings, and
//! the transaction is open for as long as that takes: what differs has to be written out, file by file,
//! and read again. A moved directory is removed and made anew. The whole repository is in transaction,
//! for a path in it means nothing to `cvmfs_server` where it writes the storage itself.
//!
//! A transaction of somebody else is never touched. One of ours whose process died is known by a record
//! ([`ours`]), and aborted by the next commit or mount. As root, everything gets the owner that was
//! staged; the repository's owner can give away nothing ([`fits`]).
//!
//! Only [`tool`] runs the program, only [`tree`] changes anything below the mount.

mod apply;
mod compare;
mod error;
mod fits;
mod lease;
mod ours;
mod shelf;
mod tool;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::changeset::ChangeSet;
use formats::server_conf::{Params, Upstream};
use store::{Head, ObjectStore, Repository, StoreError, failpoint};

pub use compare::Difference;
pub use error::ServerError;

use crate::home::RepoHome;
use crate::publisher::{Lease, NewRevision, Publisher, PublisherError};
use crate::stratum0::mounts::Mounts;
use crate::{head, landed};
use ours::Ours;
use shelf::Shelf;
use tool::Tool;

/// What the union of a transaction is, unless said otherwise.
const OVERLAYFS: &str = "overlayfs";

/// What is needed besides the repository's own configuration.
#[derive(Debug)]
pub struct CvmfsServerOptions {
    /// What is published, as it can be read from here.
    pub published: Arc<dyn ObjectStore>,
    /// The same storage, where objects can be put into it from here.
    pub storage: Option<Arc<dyn ObjectStore>>,
    /// `cvmfs_server`: a path, or a name that is looked for on `PATH`.
    pub program: PathBuf,
    /// Where a transaction of ours is noted.
    pub spool_dir: PathBuf,
}

/// Publishes by `cvmfs_server`.
#[derive(Debug)]
pub struct CvmfsServer {
    home: RepoHome,
    repository: Arc<Repository>,
    /// What is published, and our catalogs.
    shelf: Arc<Shelf>,
    catalogs: Arc<dyn ObjectStore>,
    /// Where objects of files go: the repository's storage, or the shelf.
    storage: Arc<dyn ObjectStore>,
    are_stored: bool,
    tool: Tool,
    ours: Ours,
    mounts: Mounts,
    /// The union is a mount of its own.
    needs_mount: bool,
    work_dir: PathBuf,
}

impl CvmfsServer {
    /// Opens a repository for publishing by `cvmfs_server`, which is not run yet. `cache_dir` keeps
    /// catalogs, and files in the making.
    ///
    /// # Errors
    /// When keys or cache cannot be used; for a repository that this is not for.
    pub fn open(
        home: RepoHome,
        options: CvmfsServerOptions,
        cache_dir: &Path,
    ) -> Result<Self, PublisherError> {
        let name = home.name.clone();
        let work_dir = cache_dir.join("publish");
        let conf = home.conf()?;
        let unfit = match conf.upstream() {
            Ok(Upstream::Gateway { .. }) => Some(ServerError::ThroughGateway),
            _ if home.params()?.external_data => Some(ServerError::ExternalData),
            _ => None,
        };
        if let Some(source) = unfit {
            return Err(PublisherError::Server {
                repo: name,
                source: Box::new(source),
            });
        }
        let failed = |what| {
            let repo = name.clone();
            move |source| PublisherError::Storage { repo, what, source }
        };
        let are_stored = options.storage.is_some();
        let shelf = Shelf::open(options.published, !are_stored, &work_dir.join("shelf"));
        let shelf = Arc::new(shelf.map_err(failed("lay catalogs over"))?);
        let catalogs: Arc<dyn ObjectStore> = Arc::clone(&shelf) as _;
        let repository = Repository::new(
            name.clone(),
            Arc::clone(&catalogs),
            home.public_keys()?,
            cache_dir.join("catalogs"),
            store::Limits::default(),
        )
        .map_err(failed("open the catalog cache of"))?;
        let union = conf.get("CVMFS_UNION_FS_TYPE").unwrap_or(OVERLAYFS);
        Ok(Self {
            repository: Arc::new(repository),
            shelf,
            are_stored,
            storage: options.storage.unwrap_or_else(|| Arc::clone(&catalogs)),
            catalogs,
            tool: Tool::new(options.program, name, work_dir.clone()),
            ours: Ours::new(&home, options.spool_dir),
            mounts: Mounts::of(&home),
            needs_mount: union == OVERLAYFS,
            work_dir,
            home,
        })
    }

    /// The repository's places.
    #[must_use]
    pub fn home(&self) -> &RepoHome {
        &self.home
    }

    /// True if objects are stored ahead of a transaction, which then takes no bytes.
    #[must_use]
    pub fn stores_ahead(&self) -> bool {
        self.are_stored
    }

    /// Where changes are made.
    #[must_use]
    pub fn union(&self) -> &Path {
        self.mounts.union()
    }

    /// True if the union is mounted, or needs not be.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        !self.needs_mount || self.mounts.is_there()
    }

    /// Refuses to be anybody but root and the repository's owner.
    ///
    /// # Errors
    /// [`ServerError::NotOwner`]; when the spool directory cannot be looked at.
    pub fn require_owner(&self) -> Result<(), PublisherError> {
        let owner = crate::stratum0::beside(&self.home)?.owner;
        let me = rustix::process::geteuid();
        match me.is_root() || me.as_raw() == owner {
            true => Ok(()),
            false => Err(self.error(ServerError::NotOwner {
                owner,
                me: me.as_raw(),
            })),
        }
    }

    fn error(&self, source: ServerError) -> PublisherError {
        PublisherError::Server {
            repo: self.home.name.clone(),
            source: Box::new(source),
        }
    }

    fn storage_error(&self, what: &'static str, source: StoreError) -> PublisherError {
        PublisherError::Storage {
            repo: self.home.name.clone(),
            what,
            source,
        }
    }
}

impl Publisher for CvmfsServer {
    fn name(&self) -> &str {
        &self.home.name
    }

    fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Without what a union cannot carry, hard links in groups, and the directory that shows tags,
    /// which `cvmfs_server` makes.
    fn params(&self) -> Result<Params, PublisherError> {
        Ok(Params {
            hardlink_groups: false,
            virtual_dir: false,
            ..self.home.params()?
        })
    }

    fn storage(&self) -> &Arc<dyn ObjectStore> {
        &self.storage
    }

    fn catalogs(&self) -> &Arc<dyn ObjectStore> {
        &self.catalogs
    }

    fn head(&self, now: SystemTime) -> Result<(Head, Duration), PublisherError> {
        head::verified(&self.repository, now)
    }

    fn fits(&self, change_set: &ChangeSet, _head: &Head) -> Result<(), PublisherError> {
        self.require_owner()?;
        self.refuse(change_set)
    }

    fn begins(&self) {
        self.shelf.begins();
    }

    fn ended(&self) {
        if let Err(error) = self.shelf.ended() {
            tracing::warn!(repo = self.home.name, %error, "cannot remove catalogs that nobody needs");
        }
    }

    fn lease<'a>(
        &'a self,
        _change_set: &ChangeSet,
        now: SystemTime,
    ) -> Result<Box<dyn Lease + 'a>, PublisherError> {
        Ok(Box::new(self.open_lease(now)?))
    }

    /// A transaction is a second of remounting.
    fn is_lease_costly(&self) -> bool {
        true
    }

    fn give_back(&self) -> Result<(), PublisherError> {
        self.end_leftover()
    }

    fn landed(
        &self,
        revision: &NewRevision,
        now: SystemTime,
    ) -> Result<Option<NewRevision>, PublisherError> {
        failpoint::pass("server::asked")?;
        // a publication that may still be under way has to end first
        match self.end_leftover() {
            Err(error @ PublisherError::Server { .. }) => {
                // it has ended; its transaction is in others' way, not in ours
                tracing::warn!(repo = self.home.name, %error, "cannot abort our transaction");
            }
            ended => ended?,
        }
        let head = head::visible(&self.repository, now)?;
        let found = landed::find(&self.repository, head.manifest().root_catalog, revision)?;
        self.shelf.is_settled(&revision.root_hash);
        Ok(found)
    }
}

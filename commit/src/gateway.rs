//! Publishing through a repository gateway: `cvmfs_gateway`, and the `cvmfs_receiver` behind it.
//!
//! ```text
//! fits        what the receiver cannot carry is refused
//! store       objects go into the gateway's own storage where that is writable here, else into an
//!             outbox; what the Stratum 0 has stays
//! deliver     the outbox is sent and looked for at the Stratum 0, under a lease that nobody wants
//! lease       the narrowest path; the base is the newest revision, read after it was granted
//! (catalogs)
//! submit      catalogs follow; the receiver replays their difference to the base on what is published
//! ```
//!
//! So the lease on what changes is held for catalogs alone, however many bytes there are. A commit's
//! answer may be lost, or be an error after it became visible: the manifest decides ([`landed`]).
//!
//! One commit at a time: one that goes on beside others has one [`Gateway::beside`] theirs. Only
//! [`client`] speaks HTTP.

mod client;
mod duration;
mod error;
mod key;
mod lease;
mod leases;
mod look;
mod outbox;
mod pack;
mod scope;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::changeset::ChangeSet;
use formats::server_conf::Params;
use store::{Head, ObjectStore, Repository};

pub use error::GatewayError;
pub use key::{Key, KeyError};
pub use look::{Standing, Terms};

use crate::home::RepoHome;
use crate::publisher::{Lease, NewRevision, Publisher, PublisherError};
use crate::{head, landed};
use client::Client;
use leases::Leases;
use outbox::Outbox;

/// A repository's gateway, and how it is reached.
#[derive(Debug)]
pub struct GatewayOptions {
    /// The API's URL, as in `http://gateway.example.org:4929/api/v1`.
    pub url: String,
    /// The key that the gateway knows, from a `.gw` file.
    pub key: Key,
    /// The Stratum 0 as clients see it: what is published is read there, and what was sent is looked
    /// for there. No cache may stand in between.
    pub stratum0: Arc<dyn ObjectStore>,
    /// The gateway's storage, where it can be written from here.
    pub storage: Option<Arc<dyn ObjectStore>>,
    /// What the gateway says of who holds a lease.
    pub hostname: String,
    /// Where tokens of leases are kept, so that none is left over.
    pub spool_dir: PathBuf,
}

/// Publishes through a gateway.
#[derive(Debug)]
pub struct Gateway {
    home: RepoHome,
    repository: Arc<Repository>,
    stratum0: Arc<dyn ObjectStore>,
    /// The gateway's storage, or the outbox.
    storage: Arc<dyn ObjectStore>,
    outbox: Option<Outbox>,
    leases: Arc<Leases>,
    work_dir: PathBuf,
}

impl Gateway {
    /// Opens a repository for publishing through its gateway, which is not asked yet. `cache_dir`
    /// keeps catalogs, and files in the making; `home` is where the repository's parameters and public
    /// key are.
    ///
    /// # Errors
    /// When keys, URL or cache cannot be used.
    pub fn open(
        home: RepoHome,
        options: GatewayOptions,
        cache_dir: &Path,
    ) -> Result<Self, PublisherError> {
        let name = home.name.clone();
        let work_dir = cache_dir.join("publish");
        let client =
            Client::new(&options.url, &name, options.key, &options.hostname).map_err(|source| {
                PublisherError::Gateway {
                    repo: name.clone(),
                    source: Box::new(source),
                }
            })?;
        let read = options.storage.as_ref().unwrap_or(&options.stratum0);
        let repository = Repository::new(
            name.clone(),
            Arc::clone(read),
            home.public_keys()?,
            cache_dir.join("catalogs"),
            store::Limits::default(),
        )
        .map_err(|source| PublisherError::Storage {
            repo: name.clone(),
            what: "open the catalog cache of",
            source,
        })?;
        let (storage, outbox) = match options.storage {
            Some(storage) => (storage, None),
            None => {
                let outbox = Outbox::new(Arc::clone(&options.stratum0), work_dir.clone());
                let storage: Arc<dyn ObjectStore> = Arc::new(outbox.clone());
                (storage, Some(outbox))
            }
        };
        Ok(Self {
            repository: Arc::new(repository),
            stratum0: options.stratum0,
            storage,
            outbox,
            leases: Arc::new(Leases::new(client, &name, &options.spool_dir)),
            work_dir,
            home,
        })
    }

    /// Another one for the same repository, with an outbox of its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        let mut storage = Arc::clone(&self.storage);
        let outbox = self.outbox.as_ref().map(|_| {
            let own = Outbox::new(Arc::clone(&self.stratum0), self.work_dir.clone());
            storage = Arc::new(own.clone());
            own
        });
        Self {
            home: self.home.clone(),
            repository: Arc::clone(&self.repository),
            stratum0: Arc::clone(&self.stratum0),
            storage,
            outbox,
            leases: Arc::clone(&self.leases),
            work_dir: self.work_dir.clone(),
        }
    }

    /// The repository's places.
    #[must_use]
    pub fn home(&self) -> &RepoHome {
        &self.home
    }

    /// The published revision that the lease path is chosen by.
    fn revision(&self, head: &Head) -> Result<Arc<store::Revision>, PublisherError> {
        self.repository
            .revision_of(head)
            .map_err(|e| self.unreadable(e))
    }

    fn unreadable(&self, source: store::RepoError) -> PublisherError {
        PublisherError::Chain {
            repo: self.home.name.clone(),
            source: source.into(),
        }
    }
}

impl Publisher for Gateway {
    fn name(&self) -> &str {
        &self.home.name
    }

    fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Without what a receiver cannot do: hard links in groups, and the directory that shows tags.
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

    fn head(&self, now: SystemTime) -> Result<(Head, Duration), PublisherError> {
        head::verified(&self.repository, now)
    }

    fn fits(&self, change_set: &ChangeSet, head: &Head) -> Result<(), PublisherError> {
        let (revision, params) = (self.revision(head)?, self.params()?);
        let path = scope::lease_path(change_set, &params, &revision);
        let unfit = path
            .and_then(|path| scope::unfit(change_set, &params, &revision, &path))
            .map_err(|e| self.unreadable(e))?;
        if unfit.named.is_empty() {
            return Ok(());
        }
        Err(PublisherError::Refused {
            repo: self.home.name.clone(),
            named: unfit.named,
            more: unfit.more,
        })
    }

    fn deliver(&self) -> Result<(), PublisherError> {
        match &self.outbox {
            Some(outbox) => self.send_early(outbox),
            None => Ok(()),
        }
    }

    fn ended(&self) {
        if let Some(outbox) = &self.outbox {
            outbox.clear();
        }
    }

    fn give_back(&self) -> Result<(), PublisherError> {
        self.leases.drop_leftovers()
    }

    fn lease<'a>(
        &'a self,
        change_set: &ChangeSet,
        now: SystemTime,
    ) -> Result<Box<dyn Lease + 'a>, PublisherError> {
        Ok(Box::new(self.lease_narrowly(change_set, now)?))
    }

    fn landed(
        &self,
        revision: &NewRevision,
        now: SystemTime,
    ) -> Result<Option<NewRevision>, PublisherError> {
        // a commit that may still be under way has to end first
        self.leases.drop_leftovers()?;
        let head = head::visible(&self.repository, now)?;
        landed::find(&self.repository, head.manifest().root_catalog, revision)
    }
}

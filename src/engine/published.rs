//! One repository without its stage: what is published, and who publishes it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use commit::publisher::Publisher;
use commit::{CvmfsServer, Gateway, RepoHome, Stratum0};
use formats::Hash;
use parking_lot::Mutex;
use store::{Head, Repository};

use crate::clock;
use crate::config::{PublisherKind, Settings};
use crate::report::{Failure, Kind, Result};
use crate::repositories;
use crate::state::State;

/// What was last read of the published head, for whoever must not wait for it to be read.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What stood there; none: nothing could be read so far.
    pub head: Option<KnownHead>,
    /// What was wrong when it was last tried.
    pub trouble: Option<String>,
}

/// A head that was read.
#[derive(Clone, Debug)]
pub struct KnownHead {
    /// Its number.
    pub revision: u64,
    /// Its root catalog.
    pub root: Hash,
    /// When it was published.
    pub published: u64,
    /// When its whitelist ends.
    pub whitelist_ends: SystemTime,
    /// When it was read.
    pub read: SystemTime,
}

/// A repository without its stage.
pub struct Published {
    /// Its name.
    pub name: String,
    /// Its places.
    pub home: RepoHome,
    kind: PublisherKind,
    publisher: Arc<dyn Publisher>,
    stratum0: Option<Arc<Stratum0>>,
    gateway: Option<Arc<Gateway>>,
    server: Option<Arc<CvmfsServer>>,
    known: Mutex<Known>,
}

impl Published {
    /// Opens storage and keys. Nothing published is read yet.
    ///
    /// # Errors
    /// [`Kind::Usage`] if prepub does not serve it; whatever of it is missing.
    pub fn open(state: &State, settings: &Settings, name: &str) -> Result<Self> {
        let home = repositories::home(state, settings, name)?;
        let cache = state.cache(name);
        let kind = settings.repository(name).publisher;
        let (mut stratum0, mut gateway, mut server) = (None, None, None);
        let publisher: Arc<dyn Publisher> = match kind {
            PublisherKind::Stratum0 => {
                let opened = Arc::new(Stratum0::open(home.clone(), &cache)?);
                stratum0 = Some(Arc::clone(&opened));
                opened
            }
            PublisherKind::Gateway => {
                let options = super::gateway::options(state, settings, &home)?;
                let opened = Arc::new(Gateway::open(home.clone(), options, &cache)?);
                gateway = Some(Arc::clone(&opened));
                opened
            }
            PublisherKind::CvmfsServer => {
                let options = super::server::options(state, &home)?;
                let opened = Arc::new(CvmfsServer::open(home.clone(), options, &cache)?);
                server = Some(Arc::clone(&opened));
                opened
            }
        };
        Ok(Self {
            name: name.to_owned(),
            home,
            kind,
            publisher,
            stratum0,
            gateway,
            server,
            known: Mutex::default(),
        })
    }

    /// Who publishes it.
    #[must_use]
    pub fn publisher(&self) -> &dyn Publisher {
        self.publisher.as_ref()
    }

    /// Who publishes it, for a commit that may go on beside others.
    #[must_use]
    pub fn for_a_commit(&self) -> Arc<dyn Publisher> {
        match &self.gateway {
            Some(gateway) => Arc::new(gateway.beside()),
            None => Arc::clone(&self.publisher),
        }
    }

    /// The publisher, if it signs the repository itself: what `verb` does needs its keys.
    ///
    /// # Errors
    /// [`Kind::Usage`] for publishers that hand changes to somebody else.
    pub fn stratum0(&self, verb: &str) -> Result<&Stratum0> {
        self.stratum0.as_deref().ok_or_else(|| {
            Failure::usage(format!(
                "`prepub {verb}` cannot be done through the publisher {:?} of {}",
                self.kind.name(),
                self.name
            ))
            .hint("do it on the machine that has the repository's keys and storage, with prepub or cvmfs_server there")
        })
    }

    /// The gateway, if that is who publishes it.
    #[must_use]
    pub fn gateway(&self) -> Option<&Gateway> {
        self.gateway.as_deref()
    }

    /// `cvmfs_server`, if that is who publishes it.
    #[must_use]
    pub fn server(&self) -> Option<&CvmfsServer> {
        self.server.as_deref()
    }

    /// The number of the revision with this root catalog, if that can be read.
    #[must_use]
    pub fn number_of(&self, root: &Hash) -> Option<u64> {
        let catalog = self.repository().catalog(root, None).ok()?;
        catalog.with(|catalog| Ok(catalog.revision())).ok()
    }

    /// Reads what is published.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        self.publisher.repository()
    }

    /// The published head: verified, but for a whitelist that has run out, which ends publishing
    /// and not reading. The failure then says so.
    ///
    /// # Errors
    /// A head that cannot be read, or that nobody vouches for.
    pub fn head(&self, now: SystemTime) -> Result<(Head, Option<Failure>)> {
        let read = self.read_head(now);
        let mut known = self.known.lock();
        match &read {
            Ok((head, expired)) => {
                known.head = Some(KnownHead::of(head));
                known.trouble = expired.as_ref().map(ToString::to_string);
            }
            Err(failure) => known.trouble = Some(failure.to_string()),
        }
        read
    }

    /// A commit made this the published revision, unless a later one is known already.
    pub fn made(&self, revision: u64, root: Hash) {
        let now = clock::wall();
        if let Some(head) = &mut self.known.lock().head
            && head.revision < revision
        {
            head.revision = revision;
            head.root = root;
            head.published = clock::since_1970(now);
            head.read = now;
        }
    }

    /// What is known of the head without reading it.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known.lock().clone()
    }

    fn read_head(&self, now: SystemTime) -> Result<(Head, Option<Failure>)> {
        match self.repository().head(now) {
            Ok(head) => Ok((head, None)),
            Err(error) if error.is_expired() => {
                let head = self.repository().unverified_head()?;
                let keys = self.home.public_keys()?;
                // validity is counted in whole hours: two hours before its end it held
                let before = head.whitelist().ends() - Duration::from_secs(7200);
                head.verify(&self.name, &keys, before)?;
                let failure = Failure::new(
                    Kind::Expired,
                    format!("the whitelist of {} has expired", self.name),
                )
                .hint(format!("`prepub resign {}` renews it", self.name));
                Ok((head, Some(failure)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl KnownHead {
    fn of(head: &Head) -> Self {
        let manifest = head.manifest();
        Self {
            revision: manifest.revision,
            root: manifest.root_catalog,
            published: manifest.published,
            whitelist_ends: head.whitelist().ends(),
            read: clock::wall(),
        }
    }
}

//! A lease at work: objects that go ahead of it, catalogs under it, and the commit that ends it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use formats::changeset::ChangeSet;
use formats::hash::Hash;
use formats::object::{ObjectKind, ObjectName};
use formats::path::RepoPath;
use store::{Head, ObjectStore, StoreError, failpoint};

use super::client::Commit;
use super::error::GatewayError;
use super::leases::Held;
use super::outbox::{Outbox, is_whole};
use super::pack::{self, Item, OBJECT_BYTES_MAX, Pack};
use super::{Gateway, scope};
use crate::publisher::{Lease, NewRevision, Publisher, PublisherError, Record};
use crate::stratum0::seconds;
use crate::{head, landed};

/// How often a path is leased anew because the directory above it has gone meanwhile.
const MOVES_MAX: u32 = 3;
/// Threads that look for objects at the Stratum 0: each waits for an answer most of the time.
const LOOKERS: usize = 8;
/// How often the head is read after a commit, where a cache may still show the one before.
const LOOKS_MAX: u32 = 10;
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// What is leased where payloads cannot have their own path.
const ALL: &str = "the whole repository";
/// A tag's name that the receiver completes with the time [CVMFS `repository_tag.cc:SetGenericName`].
const AUTO_TAG: &str = "generic-";

/// The right to publish below a path.
pub(super) struct GatewayLease<'a> {
    publisher: &'a Gateway,
    held: Held<'a>,
    head: Head,
    path: RepoPath,
}

impl Gateway {
    /// Leases the narrowest path that will do, and then reads the newest head.
    pub(super) fn lease_narrowly(
        &self,
        change_set: &ChangeSet,
        now: SystemTime,
    ) -> Result<GatewayLease<'_>, PublisherError> {
        let params = self.params()?;
        let (mut head, _) = self.head(now)?;
        let mut path = RepoPath::root();
        for _ in 0..MOVES_MAX {
            let revision = self.revision(&head)?;
            path = scope::lease_path(change_set, &params, &revision)
                .map_err(|e| self.unreadable(e))?;
            let text = scope::text(&path);
            let held = self.leases.acquire(&text, &text)?;
            (head, _) = self.head(now)?;
            let revision = self.revision(&head)?;
            if scope::may_be_leased(&path, &revision).map_err(|e| self.unreadable(e))? {
                return Ok(GatewayLease {
                    publisher: self,
                    held,
                    head,
                    path,
                });
            }
        }
        Err(PublisherError::Unsteady {
            repo: self.home.name.clone(),
            path,
        })
    }

    /// Sends what waits before the lease proper is taken. Payloads belong to no path, so a lease on
    /// one that nobody has does for them [CVMFS `payload_processor.cc`].
    pub(super) fn send_early(&self, outbox: &Outbox) -> Result<(), PublisherError> {
        let items = outbox.items();
        if items.is_empty() {
            return Ok(());
        }
        require_small(&items).map_err(|e| self.leases.error(e))?;
        let mut held: Option<Held<'_>> = None;
        for pack in pack::packs(items) {
            if held
                .as_ref()
                .is_some_and(|held| held.require_time().is_err())
            {
                held = None;
            }
            let at_work = match held.take() {
                Some(held) => held,
                None => self.lease_for_payloads()?,
            };
            if let Err(error) = self.send(outbox, &at_work, &pack) {
                tracing::warn!(repo = self.home.name, %error, "sending a pack of objects once more");
                drop(at_work);
                let again = self.lease_for_payloads()?;
                self.send(outbox, &again, &pack)?;
                held = Some(again);
            } else {
                held = Some(at_work);
            }
        }
        Ok(())
    }

    /// A lease on a path for payloads alone.
    pub(super) fn lease_for_payloads(&self) -> Result<Held<'_>, PublisherError> {
        self.leases.acquire(&self.upload_path()?, ALL)
    }

    /// A path for payloads alone, where our key may lease.
    fn upload_path(&self) -> Result<String, PublisherError> {
        let own = self.standing()?.path;
        // a key for `/x/` is good for exactly that [gw/backend/access.go]
        if own != "/" && own.ends_with('/') {
            return Ok(own);
        }
        let mut random = [0; 8];
        openssl::rand::rand_bytes(&mut random)
            .map_err(|e| self.leases.error(GatewayError::Hmac(e)))?;
        let random = u64::from_le_bytes(random);
        Ok(format!(
            "{}/.prepub-upload-{random:016x}",
            own.trim_end_matches('/')
        ))
    }

    /// Sends a pack, and looks for each of its objects: that it was accepted proves nothing.
    fn send(&self, outbox: &Outbox, held: &Held<'_>, pack: &Pack) -> Result<(), PublisherError> {
        let failed = |e| self.leases.error(e);
        let left = held.require_time().map_err(failed)?;
        let store: Arc<dyn ObjectStore> = Arc::new(outbox.clone());
        let client = &self.leases.client;
        failpoint::pass("gateway::before_payload")?;
        client
            .payload(held.token(), pack, &store, left)
            .map_err(failed)?;
        failpoint::pass("gateway::after_payload")?;
        self.look_for(pack.items())?;
        outbox.sent(pack.items());
        Ok(())
    }

    fn look_for(&self, items: &[Item]) -> Result<(), PublisherError> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<PublisherError>> = Mutex::new(None);
        let look = || {
            while let Some((name, bytes)) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                let error = match is_whole(&*self.stratum0, name, *bytes) {
                    Ok(true) => continue,
                    Ok(false) => self.leases.error(GatewayError::NotStored {
                        name: *name,
                        place: format!("{:?}", self.stratum0),
                    }),
                    Err(source) => self.storage_error("look for an object in", source),
                };
                failed
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .get_or_insert(error);
                next.store(items.len(), Ordering::Relaxed);
                return;
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..LOOKERS.min(items.len()) {
                scope.spawn(look);
            }
        });
        match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn storage_error(&self, what: &'static str, source: StoreError) -> PublisherError {
        PublisherError::Storage {
            repo: self.home.name.clone(),
            what,
            source,
        }
    }

    /// The revision of the number that the receiver gave it.
    fn as_published(
        &self,
        revision: &NewRevision,
        number: u64,
        now: SystemTime,
    ) -> Result<NewRevision, PublisherError> {
        for look in 0..LOOKS_MAX {
            if look > 0 {
                std::thread::sleep(LOOK_PAUSE);
            }
            let head = head::visible(&self.repository, now)?;
            let root = head.manifest().root_catalog;
            if let Some(found) = landed::numbered(&self.repository, root, revision, number)? {
                return Ok(found);
            }
        }
        Err(PublisherError::Chain {
            repo: self.home.name.clone(),
            source: format!(
                "revision {number} was committed, and {:?} does not show it",
                self.stratum0
            )
            .into(),
        })
    }
}

fn require_small(items: &[Item]) -> Result<(), GatewayError> {
    match items.iter().find(|(_, bytes)| *bytes > OBJECT_BYTES_MAX) {
        Some((name, bytes)) => Err(GatewayError::ObjectTooLarge {
            name: *name,
            bytes: *bytes,
        }),
        None => Ok(()),
    }
}

/// A root catalog as a commit names it: without its suffix the receiver gives up.
fn root_name(hash: Hash) -> String {
    ObjectName::new(hash, ObjectKind::Catalog).to_string()
}

impl GatewayLease<'_> {
    /// Catalogs, and whatever else came up under the lease.
    fn bring_the_rest(&self) -> Result<(), PublisherError> {
        let publisher = self.publisher;
        let Some(outbox) = &publisher.outbox else {
            let synced = publisher.storage.sync();
            return synced.map_err(|e| publisher.storage_error("sync", e));
        };
        let items = outbox.items();
        require_small(&items).map_err(|e| publisher.leases.error(e))?;
        for pack in pack::packs(items) {
            publisher.send(outbox, &self.held, &pack)?;
        }
        Ok(())
    }

    fn not_done(&self, source: GatewayError) -> PublisherError {
        PublisherError::NotDone {
            repo: self.publisher.home.name.clone(),
            source: Box::new(source),
        }
    }

    fn tag(&self, revision: &NewRevision) -> Result<String, PublisherError> {
        if let Some(tag) = &revision.tag {
            return Ok(tag.clone());
        }
        let wanted = self.publisher.params()?.auto_tag;
        Ok(if wanted { AUTO_TAG } else { "" }.to_owned())
    }
}

impl Lease for GatewayLease<'_> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn merged_below(&self) -> Option<&RepoPath> {
        Some(&self.path)
    }

    fn check_tag(&self, name: &str) -> Result<(), PublisherError> {
        let publisher = self.publisher;
        head::require_free_tag(&publisher.repository, &self.head, name, &publisher.work_dir)
    }

    fn submit(
        mut self: Box<Self>,
        revision: NewRevision,
        now: SystemTime,
        record: Record<'_>,
    ) -> Result<NewRevision, PublisherError> {
        let publisher = self.publisher;
        self.bring_the_rest().map_err(|error| match error {
            // nothing was committed yet
            PublisherError::Gateway { repo, source } => PublisherError::NotDone { repo, source },
            other => other,
        })?;
        failpoint::pass("gateway::brought")?;
        let tag = self.tag(&revision)?;
        let left = self.held.require_time().map_err(|e| self.not_done(e))?;
        record(&revision).map_err(PublisherError::Record)?;
        let commit = Commit {
            old_root: root_name(revision.previous_root),
            new_root: root_name(revision.root_hash),
            tag: &tag,
            message: &revision.message,
        };
        let client = &publisher.leases.client;
        tracing::debug!(
            repo = publisher.home.name,
            at = seconds(now),
            "committing below {} at {}",
            self.path,
            client.url()
        );
        failpoint::pass("gateway::before_commit")?;
        let said = client
            .commit(self.held.token(), &commit, left)
            .and_then(|number| {
                failpoint::pass("gateway::after_commit")?;
                Ok(number)
            });
        match said {
            Ok(number) => {
                self.held.was_committed();
                publisher.as_published(&revision, number, now)
            }
            // the gateway drops the lease when a commit on it is over, one way or the other
            Err(source) => match self.held.release() {
                Ok(()) => Err(self.not_done(source)),
                Err(_) => Err(publisher.leases.error(source)),
            },
        }
    }
}

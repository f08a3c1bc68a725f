//! A transaction of ours: opened, used, and ended on every path.

use std::time::{Duration, Instant, SystemTime};

use formats::changeset::ChangeSet;
use store::{Head, ObjectStore, failpoint};

use super::CvmfsServer;
use super::apply::Apply;
use super::compare::Compare;
use super::error::ServerError;
use super::fits::Maker;
use super::ours::{Held, Record};
use super::tool;
use crate::difference;
use crate::publisher::{self, Lease, NewRevision, PublisherError};
use crate::stratum0::locks;
use crate::{head, landed};

/// `EBUSY`, `EEXIST` [CVMFS `publish/cmd_transaction.cc`].
const PATH_IS_LEASED: i32 = 16;
const IS_OPEN: i32 = 17;
/// How long we wait for what a prepub that died left running: it ends by itself, one way or the other.
const ORPHANS_MAX: Duration = Duration::from_secs(300);
const ORPHANS_LOOK: Duration = Duration::from_millis(200);

/// A transaction; aborted when it is dropped before it was published.
pub(super) struct Transaction<'a> {
    publisher: &'a CvmfsServer,
    record: Record,
    is_over: bool,
    _held: Held,
}

/// The right to publish.
pub(super) struct ServerLease<'a> {
    publisher: &'a CvmfsServer,
    transaction: Transaction<'a>,
    head: Head,
}

impl CvmfsServer {
    fn busy(&self, what: &str) -> PublisherError {
        PublisherError::Busy {
            repo: self.home.name.clone(),
            what: what.to_owned(),
        }
    }

    /// Ends a transaction of ours whose process has died; nothing, where another process has one.
    pub(super) fn end_leftover(&self) -> Result<(), PublisherError> {
        if self.ours.noted()?.is_none() {
            return Ok(());
        }
        match self.ours.hold()? {
            Some(held) => self.end_noted(&held),
            None => Ok(()),
        }
    }

    fn end_noted(&self, _held: &Held) -> Result<(), PublisherError> {
        let Some(record) = self.ours.noted()? else {
            return Ok(());
        };
        let begun = Instant::now();
        while tool::is_running(&record.mark) {
            if begun.elapsed() > ORPHANS_MAX {
                return Err(self.busy("cvmfs_server still works for a prepub that was killed"));
            }
            std::thread::sleep(ORPHANS_LOOK);
        }
        if self.ours.is_open(&record)? {
            tracing::info!(
                repo = self.home.name,
                "aborting a transaction that was left behind"
            );
            let aborted = self.tool.abort(&record.mark).and_then(tool::Ended::done);
            aborted.map_err(|e| self.error(e))?;
        }
        Ok(self.ours.forget()?)
    }

    /// Opens a transaction.
    fn open_transaction(&self, now: SystemTime) -> Result<Transaction<'_>, PublisherError> {
        let held = self.ours.hold()?;
        let held = held.ok_or_else(|| self.busy("another commit has its transaction open"))?;
        self.end_noted(&held)?;
        locks::theirs(&self.home)?;
        let record = Record {
            mark: new_mark(now),
            sign: None,
        };
        self.ours.note(&record)?;
        // from here on it is ended by whatever way this is left
        let mut transaction = Transaction {
            publisher: self,
            record,
            is_over: false,
            _held: held,
        };
        failpoint::pass("server::noted")?;
        let ended = self.tool.transaction(&transaction.record.mark);
        let ended = ended.map_err(|e| self.error(e))?;
        failpoint::pass("server::opened")?;
        match ended.code() {
            Some(0) => {}
            Some(IS_OPEN) => {
                locks::theirs(&self.home)?;
                return Err(self.busy("cvmfs_server had a transaction open"));
            }
            Some(PATH_IS_LEASED) => return Err(self.busy("the path is leased")),
            _ => return Err(self.error(ended.refusal())),
        }
        transaction.record.sign = self.ours.sign()?;
        if transaction.record.sign.is_none() {
            return Err(self.error(ServerError::Taken));
        }
        self.ours.note(&transaction.record)?;
        failpoint::pass("server::noted_open")?;
        Ok(transaction)
    }

    pub(super) fn open_lease(&self, now: SystemTime) -> Result<ServerLease<'_>, PublisherError> {
        let transaction = self.open_transaction(now)?;
        let (head, _) = head::verified(&self.repository, now)?;
        // a publication replaces whatever came after the revision that is mounted
        if self
            .mounts
            .shown()
            .is_some_and(|shown| shown != head.manifest().root_catalog)
        {
            return Err(self.busy("cvmfs_server has another revision than the newest mounted"));
        }
        if self.needs_mount && !self.mounts.is_writable() {
            return Err(self.error(ServerError::NotWritable {
                union: self.mounts.union().to_path_buf(),
                repo: self.home.name.clone(),
            }));
        }
        Ok(ServerLease {
            publisher: self,
            transaction,
            head,
        })
    }

    /// Refuses changes that cannot be made, before anything is.
    pub(super) fn refuse(&self, change_set: &ChangeSet) -> Result<(), PublisherError> {
        use formats::changeset::Op;
        let root = change_set.changes.iter().find(|change| {
            change.path.is_root() && matches!(change.op, Op::Put { explicit: true, .. })
        });
        let entries = change_set.changes.iter().filter_map(|change| {
            let Op::Put { entry, .. } = &change.op else {
                return None;
            };
            (!change.path.is_root()).then_some((&change.path, entry))
        });
        let mut unfit = Maker::this_process().refuses(entries);
        if let Some(root) = root {
            unfit.named.push(publisher::Refused {
                path: root.path.clone(),
                why: publisher::RefusedWhy::RootAttributes,
            });
        }
        self.refused(unfit)
    }

    fn refused(&self, unfit: super::fits::Unfit) -> Result<(), PublisherError> {
        match unfit.named.is_empty() {
            true => Ok(()),
            false => Err(PublisherError::Refused {
                repo: self.home.name.clone(),
                named: unfit.named,
                more: unfit.more,
            }),
        }
    }
}

impl Transaction<'_> {
    /// Refuses to go on with a transaction that is not ours any more.
    fn require(&self) -> Result<(), PublisherError> {
        let publisher = self.publisher;
        match publisher.ours.is_open(&self.record)? {
            true => Ok(()),
            false => Err(publisher.error(ServerError::Taken)),
        }
    }

    fn end(&self) -> Result<(), PublisherError> {
        let publisher = self.publisher;
        failpoint::pass("server::before_abort")?;
        if publisher.ours.is_open(&self.record)? {
            let aborted = publisher.tool.abort(&self.record.mark);
            let aborted = aborted.and_then(tool::Ended::done);
            aborted.map_err(|e| publisher.error(e))?;
        }
        failpoint::pass("server::aborted")?;
        Ok(publisher.ours.forget()?)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Err(error) = self.end() {
            tracing::warn!(
                repo = self.publisher.home.name,
                %error,
                "cannot abort our transaction now; the next commit or mount does"
            );
        }
    }
}

impl ServerLease<'_> {
    /// Makes the changes in the transaction, and lets `cvmfs_server` publish it.
    fn publish(
        &mut self,
        revision: &NewRevision,
        record: publisher::Record<'_>,
    ) -> Result<Vec<difference::Step>, PublisherError> {
        let publisher = self.publisher;
        let unreadable = |source| publisher.error(ServerError::Revisions(source));
        let repository = &publisher.repository;
        let base = repository.revision(&revision.previous_root);
        let base = base.map_err(unreadable)?;
        let wanted = repository.revision(&revision.root_hash);
        let wanted = wanted.map_err(unreadable)?;
        let steps = difference::between(&base, &wanted, usize::MAX).map_err(unreadable)?;
        let made = steps
            .iter()
            .filter_map(|step| Some((&step.path, step.now.as_ref()?)));
        publisher.refused(Maker::this_process().refuses(made))?;
        let synced = publisher.shelf.sync();
        let synced = synced.and_then(|()| publisher.storage.sync());
        synced.map_err(|e| publisher.storage_error("sync", e))?;
        let apply = Apply {
            union: publisher.mounts.union(),
            wanted: &wanted,
            objects: publisher.shelf.as_ref(),
            are_stored: publisher.are_stored,
        };
        apply.all(&steps).map_err(|e| publisher.error(e))?;
        failpoint::pass("server::applied")?;
        self.transaction.require()?;
        record(revision).map_err(PublisherError::Record)?;
        publisher.shelf.doubts(revision.root_hash);
        failpoint::pass("server::before_publish")?;
        let mark = &self.transaction.record.mark;
        let tag = revision.tag.as_deref();
        let published = publisher.tool.publish(mark, tag, &revision.message);
        published
            .and_then(tool::Ended::done)
            .map_err(|e| publisher.error(e))?;
        failpoint::pass("server::published")?;
        Ok(steps)
    }

    /// What is published, which has to be what was staged.
    fn confirm(
        &self,
        revision: &NewRevision,
        steps: &[difference::Step],
        now: SystemTime,
    ) -> Result<NewRevision, PublisherError> {
        let publisher = self.publisher;
        let repository = &publisher.repository;
        let head = head::visible(repository, now)?;
        let newest = head.manifest().root_catalog;
        let numbered = |number| landed::numbered(repository, newest, revision, number);
        // the directory that shows the tags is a revision on top
        let found = match publisher.home.params()?.virtual_dir {
            true => numbered(revision.revision.saturating_add(1))?,
            false => None,
        };
        let found = match found {
            Some(found) => found,
            None => numbered(revision.revision)?.ok_or_else(|| PublisherError::Chain {
                repo: publisher.home.name.clone(),
                source: format!(
                    "cvmfs_server published, and {:?} does not show revision {}",
                    publisher.shelf, revision.revision
                )
                .into(),
            })?,
        };
        let unreadable = |source| publisher.error(ServerError::Revisions(source));
        let open = |root| repository.revision(root).map_err(unreadable);
        let compare = Compare {
            wanted: &*open(&revision.root_hash)?,
            published: &*open(&found.root_hash)?,
            objects: publisher.shelf.as_ref(),
        };
        let compared = compare.all(steps, found.revision);
        compared.map_err(|e| publisher.error(e))?;
        Ok(found)
    }
}

impl Lease for ServerLease<'_> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn check_tag(&self, name: &str) -> Result<(), PublisherError> {
        let publisher = self.publisher;
        head::require_free_tag(&publisher.repository, &self.head, name, &publisher.work_dir)
    }

    fn submit(
        mut self: Box<Self>,
        revision: NewRevision,
        now: SystemTime,
        record: publisher::Record<'_>,
    ) -> Result<NewRevision, PublisherError> {
        let steps = self.publish(&revision, record)?;
        self.transaction.is_over = true;
        self.publisher.ours.forget()?;
        let found = self.confirm(&revision, &steps, now)?;
        self.publisher.shelf.is_settled(&revision.root_hash);
        Ok(found)
    }
}

/// What runs of one commit are marked with: no two processes have one number at one time.
fn new_mark(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    format!("{}-{}", std::process::id(), since.as_nanos())
}

//! What a site does that allows no inbound connection: it asks for work, takes what it lacks, and says
//! what it has.
//!
//! Whoever serves HTTP hands in whom the certificate names; a site gets to see its own work alone. That
//! it has what it says it kept is believed: it is asked nothing in return.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use formats::object::ObjectName;
use formats::warm::bundle::Encoder;
use formats::warm::identity::{NodeName, PeerIdentity};
use formats::warm::list::list_bytes;
use formats::warm::{Listed, Missing, Role};
use serde::Serialize;

use super::board::lock;
use super::push::{Fate, Push};
use super::registry::Way;
use super::seen::Seen;
use super::site::Site;
use super::transfer::{BUNDLE_BYTES, BUNDLE_OBJECTS};
use super::warmer::Warmer;

/// A site that pulls has asked within this time, if it is there: it waits at most a minute for work.
pub(super) const PULLS_WITHIN: Duration = Duration::from_secs(120);

/// What is remembered of a receiver's name for itself.
const INSTANCE_MAX: usize = 64;

/// What a site has yet to take of a push, and the sizes.
pub(super) type Left = BTreeMap<ObjectName, u64>;

/// What there is for a site to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// What it may lack.
    pub transactions: Vec<Offered>,
    /// What became visible, and it has.
    pub published: Vec<Announced>,
    /// What came to nothing.
    pub given_up: Vec<GivenUp>,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offered {
    /// The repository.
    pub repo: String,
    /// The transaction's name.
    pub txn: String,
    /// How many objects it is about.
    pub objects: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// A transaction that a site may forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GivenUp {
    /// The repository.
    pub repo: String,
    /// The transaction's name.
    pub txn: String,
}

/// A visible revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Announced {
    /// The repository.
    pub repo: String,
    /// The transaction's name.
    pub txn: String,
    /// The revision's root catalog.
    pub root_hash: String,
    /// Its number.
    pub revision: u64,
    /// Since when, in the form of RFC 3339.
    pub published_at: String,
}

impl Work {
    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.published.is_empty() && self.given_up.is_empty()
    }
}

/// Why a site does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Its certificate is not the one that a site which pulls has now.
    #[error("the certificate of {0} is not good here (any more)")]
    NotASite(NodeName),
    /// Another receiver asks by the same name.
    #[error(
        "another receiver asks as {0} already; each needs an enrolment of its own (`prepub site add`)"
    )]
    Duplicate(NodeName),
    /// There is no such transaction for it.
    #[error("there is no such transaction")]
    Unknown,
    /// It answers what was not asked, or asks for what was not offered.
    #[error("that does not fit the transaction")]
    Unfit,
    /// What is sent cannot be read.
    #[error("the transaction's objects cannot be read")]
    Read(#[source] io::Error),
}

/// A site that asks.
pub struct Pulling<'w> {
    warmer: &'w Warmer,
    site: Arc<Site>,
}

impl Warmer {
    /// The site whose certificate this is, if it may pull.
    ///
    /// # Errors
    /// [`PullError::NotASite`].
    pub fn pulling(&self, peer: &PeerIdentity) -> Result<Pulling<'_>, PullError> {
        let is_its = |site: &Arc<Site>| {
            site.entry.serial == peer.serial && site.entry.way == Way::Pull && !site.is_gone()
        };
        let site = self.site_of(&peer.name).filter(is_its);
        let site = site
            .filter(|_| peer.role == Role::Site)
            .ok_or_else(|| PullError::NotASite(peer.name.clone()))?;
        Ok(Pulling { warmer: self, site })
    }
}

/// Who asked in a site's name, and when last.
#[derive(Debug)]
pub(super) struct Asker {
    instance: String,
    pub(super) at: Instant,
}

impl Pulling<'_> {
    /// It asks for work, and says which receiver of that name it is; one that does not say only looks.
    /// Two that have one enrolment would take each other's objects for their own.
    ///
    /// # Errors
    /// [`PullError::Duplicate`], while the other one is there.
    pub fn arrives(&self, instance: Option<&str>) -> Result<(), PullError> {
        let Some(instance) = instance else {
            return Ok(());
        };
        let name = self.name();
        let mut asked = lock(&self.warmer.asked);
        let other = asked.get(name).filter(|asker| asker.instance != instance);
        if other.is_some_and(|asker| asker.at.elapsed() < PULLS_WITHIN) {
            let error = PullError::Duplicate(name.clone());
            self.site
                .note(|seen| seen.failed(format!("pulls twice: {error}")));
            return Err(error);
        }
        let asker = Asker {
            instance: instance.chars().take(INSTANCE_MAX).collect(),
            at: Instant::now(),
        };
        asked.insert(name.clone(), asker);
        Ok(())
    }

    /// What there is to do now.
    #[must_use]
    pub fn work(&self) -> Work {
        let pushes: Vec<_> = self.warmer.board.pushes().values().cloned().collect();
        let mut work = Work::default();
        for push in pushes {
            let state = push.state();
            let Some(progress) = state.sites.get(self.name()) else {
                continue;
            };
            match (&state.fate, progress.has_all()) {
                (Fate::Open, true) => {}
                (Fate::GivenUp, _) => work.given_up.push(GivenUp {
                    repo: push.repo.clone(),
                    txn: push.txn.clone(),
                }),
                (_, false) => work.transactions.push(Offered {
                    repo: push.repo.clone(),
                    txn: push.txn.clone(),
                    objects: push.objects,
                    bytes: push.bytes,
                }),
                (Fate::Visible(told), true) => work.published.push(Announced {
                    repo: push.repo.clone(),
                    txn: push.txn.clone(),
                    root_hash: told.root_hash.clone(),
                    revision: told.revision,
                    published_at: told.published_at.clone(),
                }),
            }
        }
        work.transactions.sort_by_key(|offered| offered.bytes);
        work
    }

    fn name(&self) -> &NodeName {
        &self.site.entry.name
    }

    fn push(&self, repo: &str, txn: &str) -> Result<Arc<Push>, PullError> {
        let push = self.warmer.board.pushes().get(txn).cloned();
        let push = push.ok_or(PullError::Unknown)?;
        if let Some(asker) = lock(&self.warmer.asked).get_mut(self.name()) {
            asker.at = Instant::now();
        }
        let is_its = push.repo == repo && push.state().sites.contains_key(self.name());
        is_its.then_some(push).ok_or(PullError::Unknown)
    }

    /// The transaction's list, and its length in bytes.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn objects(&self, repo: &str, txn: &str) -> Result<(File, u64), PullError> {
        let push = self.push(repo, txn)?;
        let file = push.list_file().map_err(PullError::Read)?;
        Ok((file, list_bytes(push.objects)))
    }

    fn key(&self, txn: &str) -> (NodeName, String) {
        (self.name().clone(), txn.to_owned())
    }

    /// The site says what it lacks.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn missing(&self, repo: &str, txn: &str, missing: &Missing) -> Result<(), PullError> {
        let push = self.push(repo, txn)?;
        if missing.absent.len() != push.objects {
            return Err(PullError::Unfit);
        }
        let list = push
            .list()
            .map_err(|e| PullError::Read(io::Error::other(e)))?;
        let absent = missing.absent.ones().map(|at| list[at as usize]);
        let left: Left = absent.map(|listed| (listed.name, listed.bytes)).collect();
        let sums = (left.len() as u64, left.values().sum());
        if let Some(progress) = push.state().sites.get_mut(self.name()) {
            progress.missing = Some(sums);
        }
        let is_all = left.is_empty();
        if lock(&self.warmer.pulling)
            .insert(self.key(txn), left)
            .is_none()
        {
            self.site.note(Seen::begins);
        }
        if is_all {
            self.has_all(&push);
        }
        self.warmer.board.tell();
        Ok(())
    }

    fn has_all(&self, push: &Push) {
        self.takes_no_more(&push.txn);
        self.warmer.board.has_all(push, self.name());
    }

    fn takes_no_more(&self, txn: &str) {
        let left = lock(&self.warmer.pulling).remove(&self.key(txn));
        if left.is_some() {
            self.site.note(Seen::ends);
        }
    }

    /// Objects that the site wants of those it lacks, one after another; as many as go at once.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn bundle(
        &self,
        repo: &str,
        txn: &str,
        wanted: impl Iterator<Item = ObjectName>,
    ) -> Result<Box<dyn Read + Send>, PullError> {
        let push = self.push(repo, txn)?;
        let mut bundle = Vec::new();
        let mut bytes = 0_u64;
        {
            let pulling = lock(&self.warmer.pulling);
            let left = pulling.get(&self.key(txn)).ok_or(PullError::Unfit)?;
            for name in wanted.take(BUNDLE_OBJECTS) {
                let size = *left.get(&name).ok_or(PullError::Unfit)?;
                bytes = bytes.saturating_add(size);
                if bytes > BUNDLE_BYTES && !bundle.is_empty() {
                    break;
                }
                bundle.push(Listed { name, bytes: size });
            }
        }
        let source = Arc::clone(&push.source);
        let encoder = Encoder::new(bundle, move |name: &ObjectName| source.open(name));
        let encoder = encoder.map_err(|e| PullError::Read(io::Error::other(e)))?;
        let rest = Rest {
            input: self.site.pace.limit(encoder),
            site: Arc::clone(&self.site),
        };
        Ok(Box::new(rest))
    }

    /// The site has kept objects, verified.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn kept(
        &self,
        repo: &str,
        txn: &str,
        names: impl Iterator<Item = ObjectName>,
    ) -> Result<(), PullError> {
        let push = self.push(repo, txn)?;
        let (mut objects, mut bytes) = (0, 0);
        let is_all = {
            let mut pulling = lock(&self.warmer.pulling);
            let left = pulling.get_mut(&self.key(txn)).ok_or(PullError::Unfit)?;
            for name in names {
                // said twice, it counts once
                if let Some(size) = left.remove(&name) {
                    objects += 1;
                    bytes += size;
                }
            }
            left.is_empty()
        };
        self.site.note(|seen| seen.took(objects, bytes));
        if let Some(progress) = push.state().sites.get_mut(self.name()) {
            progress.objects += objects;
            progress.bytes += bytes;
            if let Some((left, left_bytes)) = &mut progress.missing {
                *left = left.saturating_sub(objects);
                *left_bytes = left_bytes.saturating_sub(bytes);
            }
        }
        if is_all {
            self.has_all(&push);
        }
        self.warmer.board.tell();
        Ok(())
    }

    /// The site knows how it ended.
    ///
    /// # Errors
    /// [`PullError::Unknown`].
    pub fn seen(&self, repo: &str, txn: &str) -> Result<(), PullError> {
        let push = self.push(repo, txn)?;
        let is_over = {
            let state = push.state();
            let progress = state.sites.get(self.name());
            match state.fate {
                Fate::Open => false,
                Fate::Visible(_) => progress.is_some_and(|progress| progress.has_all()),
                Fate::GivenUp => true,
            }
        };
        if !is_over {
            return Err(PullError::Unfit);
        }
        self.takes_no_more(txn);
        self.warmer.board.knows_end(&push, self.name());
        Ok(())
    }
}

/// The rest of a bundle, for as long as the one who asked for it is a site under that certificate.
struct Rest<R> {
    input: R,
    site: Arc<Site>,
}

impl<R: Read> Read for Rest<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.site.is_gone() {
            true => Err(io::Error::other("no site any more")),
            false => self.input.read(buffer),
        }
    }
}

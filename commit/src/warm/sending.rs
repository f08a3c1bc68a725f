//! A commit's objects on their way to the sites: as many pushes as it takes, waited for together.
//!
//! A push is of a bounded size, so that neither end holds more of a list in memory than that. Their names
//! are TXN, TXN.2, TXN.3 and so on; what ends one of them ends all. A site has a commit's objects when it has
//! those of each push.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use formats::warm::Listed;
use formats::warm::identity::NodeName;
use store::{ObjectStore, failpoint};

use super::board::lock;
use super::outcome::SiteOutcome;
use super::policy::{Policy, Verdict};
use super::push::{Claim, Progress, Push};
use super::site::Site;
use super::transfer::Sources;
use super::warmer::{HEARING, WarmError, Warmer};

/// See the module's head.
#[derive(Debug)]
pub struct Sending {
    /// By which name [`Warmer::visible`] and [`Warmer::give_up`] know it.
    pub commit: String,
    pushes: Vec<Arc<Push>>,
}

/// What all pushes of one have in common.
struct Begun<'a> {
    repo: &'a str,
    commit: String,
    places: Vec<Arc<dyn ObjectStore>>,
    sites: Vec<Arc<Site>>,
    now: SystemTime,
    claim: Option<&'a Claim>,
}

impl Sending {
    /// How every site stands, by name.
    #[must_use]
    pub fn outcomes(&self, reach_within: Duration) -> Vec<SiteOutcome> {
        let mut sites: BTreeMap<String, SiteOutcome> = BTreeMap::new();
        for outcome in self.pushes.iter().flat_map(|p| p.outcomes(reach_within)) {
            let joint = match sites.remove(&outcome.site) {
                Some(known) => known.and(outcome),
                None => outcome,
            };
            sites.insert(joint.site.clone(), joint);
        }
        sites.into_values().collect()
    }

    /// Whether waiting is over.
    fn judge(&self, policy: &Policy) -> Option<Verdict> {
        // who has everything, and who may have it yet
        let mut sites: BTreeMap<NodeName, (bool, bool)> = BTreeMap::new();
        for push in &self.pushes {
            for (name, progress) in &push.state().sites {
                let (has, may_have) = sites.entry(name.clone()).or_insert((true, true));
                *has &= progress.has_all();
                *may_have &= progress.has_all() || !progress.is_hopeless(policy.reach_within);
            }
        }
        let is_met = |wanted: &dyn Fn(&(bool, bool)) -> bool| {
            let such = sites.iter().filter(|(_, site)| wanted(site));
            let names: BTreeSet<&NodeName> = such.map(|(name, _)| name).collect();
            policy.quorum.is_met(&names, sites.len())
        };
        if is_met(&|(has, _)| *has) {
            return Some(Verdict::Met);
        }
        // whoever publishes all the same may as well have those who can
        let is_due = |(has, may_have): &(bool, bool)| !has && *may_have;
        let goes_on = policy.commit_anyway && sites.values().any(is_due);
        (!goes_on && !is_met(&|(_, may_have)| *may_have)).then_some(Verdict::Impossible)
    }
}

impl Warmer {
    /// Begins to bring a commit's objects to the sites that take its repository, from `places`, looked
    /// through in their order. None: there is no such site.
    ///
    /// # Errors
    /// [`WarmError::Record`], and what the list says; then each site hears that it came to nothing.
    pub fn begin(
        &self,
        repo: &str,
        list: impl Iterator<Item = Result<Listed, WarmError>>,
        places: Vec<Arc<dyn ObjectStore>>,
        claim: &Claim,
    ) -> Result<Option<Sending>, WarmError> {
        self.begin_all(repo, list, places, Some(claim))
    }

    /// As [`Warmer::begin`], for objects that no commit has yet: nobody waits for it, and
    /// [`Warmer::end_early`] is its end.
    ///
    /// # Errors
    /// As [`Warmer::begin`].
    pub fn begin_early(
        &self,
        repo: &str,
        list: &[Listed],
        places: Vec<Arc<dyn ObjectStore>>,
    ) -> Result<Option<Sending>, WarmError> {
        self.begin_all(repo, list.iter().copied().map(Ok), places, None)
    }

    fn begin_all(
        &self,
        repo: &str,
        mut list: impl Iterator<Item = Result<Listed, WarmError>>,
        places: Vec<Arc<dyn ObjectStore>>,
        claim: Option<&Claim>,
    ) -> Result<Option<Sending>, WarmError> {
        let mut sites: Vec<Arc<Site>> = lock(&self.sites).values().cloned().collect();
        // what comes early is a kindness: whoever is away gets it with the commit
        sites.retain(|site| site.entry.takes(repo) && !(claim.is_none() && site.is_down()));
        if sites.is_empty() {
            return Ok(None);
        }
        self.expire();
        let now = self.board.now();
        let begun = Begun {
            repo,
            commit: self.new_name(now, claim)?,
            places,
            sites,
            now,
            claim,
        };
        let mut pushes = Vec::new();
        loop {
            let some = list.by_ref().take(self.options.objects_per_push);
            let push = match some.collect::<Result<Vec<_>, _>>() {
                // a commit of no objects is told of as well
                Ok(some) if some.is_empty() && !pushes.is_empty() => break,
                Ok(some) => self.begin_one(&begun, pushes.len(), some),
                Err(error) => Err(error),
            };
            match push {
                Ok(push) => pushes.push(push),
                // a stop that a test asks for
                Err(error @ WarmError::Injected(_)) => return Err(error),
                Err(error) => {
                    let _ = self.give_up(&begun.commit);
                    return Err(error);
                }
            }
        }
        let commit = begun.commit;
        Ok(Some(Sending { commit, pushes }))
    }

    fn new_name(&self, now: SystemTime, claim: Option<&Claim>) -> Result<String, WarmError> {
        let mut random = [0; 8];
        openssl::rand::rand_bytes(&mut random).map_err(|e| self.unrecorded(e.into()))?;
        let kind = if claim.is_none() { "e" } else { "c" };
        let (since, random) = (crate::stratum0::seconds(now), u64::from_le_bytes(random));
        Ok(format!("{kind}{since:x}-{random:016x}"))
    }

    fn begin_one(
        &self,
        begun: &Begun<'_>,
        before: usize,
        list: Vec<Listed>,
    ) -> Result<Arc<Push>, WarmError> {
        let txn = match before {
            0 => begun.commit.clone(),
            more => format!("{}.{}", begun.commit, more + 1),
        };
        let progress = |site: &Arc<Site>| (site.entry.name.clone(), Progress::new(site.is_down()));
        let push = Push::begin(
            &self.pushes_dir(),
            (begun.repo, &txn),
            list,
            Sources(begun.places.clone()),
            begun.now,
            begun.claim,
            begun.sites.iter().map(progress).collect(),
        );
        let push = Arc::new(push.map_err(|e| self.unrecorded(e))?);
        failpoint::pass("warm::begun")?;
        self.board.pushes().insert(txn, Arc::clone(&push));
        if let Some(link) = self.board.link() {
            link.announce(&push);
        }
        for site in &begun.sites {
            let name = &site.entry.name;
            // it may have been revoked meanwhile, or have another certificate
            match self.site_of(name) {
                Some(site) => site.enqueue(&push),
                None => self.board.knows_end(&push, name),
            }
        }
        self.board.tell();
        Ok(push)
    }

    pub(super) fn unrecorded(&self, source: io::Error) -> WarmError {
        let path = self.pushes_dir();
        WarmError::Record { path, source }
    }

    /// Waits for as many sites as the policy asks for.
    pub fn wait(
        &self,
        sending: &Sending,
        policy: &Policy,
        called_off: &AtomicBool,
        hear: &dyn Fn(&SiteOutcome),
    ) -> Verdict {
        let begun = Instant::now();
        let mut told: BTreeMap<String, SiteOutcome> = BTreeMap::new();
        let mut seen = 0;
        loop {
            for outcome in sending.outcomes(policy.reach_within) {
                let is_new = told.get(&outcome.site).is_none_or(|old| {
                    (old.objects, old.state, old.missing_objects)
                        != (outcome.objects, outcome.state, outcome.missing_objects)
                });
                if is_new {
                    hear(&outcome);
                    told.insert(outcome.site.clone(), outcome);
                }
            }
            if let Some(verdict) = sending.judge(policy) {
                return verdict;
            }
            if called_off.load(Ordering::Relaxed) {
                return Verdict::CalledOff;
            }
            let left = policy.deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Verdict::Late;
            }
            seen = self.board.wait(seen, left.min(HEARING));
        }
    }
}

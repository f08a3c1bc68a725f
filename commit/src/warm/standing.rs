//! How the sites, and the broker, stand.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::board::lock;
use super::pull::PULLS_WITHIN;
use super::push::{Fate, Push};
use super::registry::{SiteEntry, Way};
use super::site::Site;
use super::warmer::Warmer;

/// How a site stands, for people and for a metrics endpoint: [`Warmer::status`] without asking costs nothing.
#[derive(Clone, Debug)]
pub struct SiteStatus {
    /// The site.
    pub entry: SiteEntry,
    /// It answered when it was last asked; none: not asked yet.
    pub connected: Option<bool>,
    /// Visible revisions whose objects it does not have all.
    pub behind_revisions: u64,
    /// Objects of these that it lacks.
    pub behind_objects: u64,
    /// Their bytes.
    pub behind_bytes: u64,
    /// Bytes a second, of what was sent last.
    pub rate: Option<u64>,
    /// Objects that it has taken, since this process serves it under its certificate.
    pub objects_sent: u64,
    /// Their bytes, as stored.
    pub bytes_sent: u64,
    /// How often something went wrong with it, in the same time.
    pub failures: u64,
    /// By how many seconds its clock is ahead of ours, as it said when it was last asked.
    pub clock_ahead: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Warmer {
    /// How the broker stands: why it is not connected, and how many messages did not count. None:
    /// there is none.
    #[must_use]
    pub fn broker(&self) -> Option<(Option<String>, u64)> {
        let link = self.board.link()?;
        Some((link.trouble(), link.refused()))
    }

    /// How each site stands. With `ask`, those that are not being sent anything are asked whether they
    /// are there.
    #[must_use]
    pub fn status(&self, ask: bool) -> Vec<SiteStatus> {
        let sites: Vec<_> = lock(&self.sites).values().cloned().collect();
        if ask {
            std::thread::scope(|scope| {
                for site in &sites {
                    scope.spawn(|| site.probe());
                }
            });
        }
        let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        sites
            .iter()
            .map(|site| self.status_of(site, &pushes))
            .collect()
    }

    fn status_of(&self, site: &Site, pushes: &[Arc<Push>]) -> SiteStatus {
        let seen = site.seen();
        let asked = lock(&self.asked)
            .get(&site.entry.name)
            .map(|asker| asker.at);
        let mut status = SiteStatus {
            entry: site.entry.clone(),
            connected: match site.entry.way {
                Way::Push { .. } => seen.connected,
                Way::Pull => Some(
                    asked.is_some_and(|asked| asked.elapsed() < PULLS_WITHIN)
                        || (self.board.link()).is_some_and(|link| link.is_online(&site.entry.name)),
                ),
            },
            behind_revisions: 0,
            behind_objects: 0,
            behind_bytes: 0,
            rate: seen.rate,
            objects_sent: seen.objects_sent,
            bytes_sent: seen.bytes_sent,
            failures: seen.failures,
            clock_ahead: seen.clock_ahead,
            last_error: seen.last_error,
        };
        let mut commits = BTreeSet::new();
        for push in pushes.iter().filter(|push| !push.is_early) {
            let state = push.state();
            let Some(progress) = state.sites.get(&site.entry.name) else {
                continue;
            };
            if progress.has_all() || !matches!(state.fate, Fate::Visible(_)) {
                continue;
            }
            let whole = (u64::from(push.objects), push.bytes);
            let (objects, bytes) = progress.missing.unwrap_or(whole);
            commits.insert(push.commit());
            status.behind_objects += objects;
            status.behind_bytes += bytes;
        }
        status.behind_revisions = commits.len() as u64;
        status
    }
}

//! The Stratum 1s' part of a commit: between stored and leased, and after it is visible.
//!
//! Whatever goes wrong with sites is a matter for the policy: it decides whether the commit goes on
//! without them. Nothing here is an error of the publisher.

use std::sync::{Arc, Mutex, PoisonError};

use formats::warm::Listed;
use formats::warm::list::may_travel;
use store::ObjectStore;

use super::{Commit, CommitError, Outcome};
use crate::objects;
use crate::warm::{Sending, SiteOutcome, Verdict, WarmError, Warming};

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Warmed {
    /// By which name those who are to be told know the commit.
    pub(super) push: Option<String>,
    /// How each site stood.
    pub(super) sites: Vec<SiteOutcome>,
}

/// The name by which the sites know a commit, until its fate is known.
#[derive(Default)]
pub(super) struct Begun(Mutex<Option<String>>);

impl Begun {
    fn set(&self, commit: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(commit.to_owned());
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Commit<'_> {
    /// Brings the objects to the sites, and waits for as many as the policy asks for.
    pub(super) fn warm(&self) -> Result<Option<Warmed>, CommitError> {
        let Some(warming) = &self.request.warm else {
            return Ok(None);
        };
        let places: Vec<Arc<dyn ObjectStore>> = vec![
            Arc::clone(&self.request.objects),
            Arc::clone(self.publisher.storage()),
        ];
        let begun = self.begin(warming, places);
        let sending: Sending = match begun {
            Ok(Some(sending)) => sending,
            Ok(None) => return Ok(None),
            // a stop that a test asks for
            Err(WarmError::Injected(fault)) => return Err(fault.into()),
            Err(error) if warming.policy.commit_anyway => {
                tracing::error!(%error, "publishing without warming the sites");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.begun.set(&sending.commit);
        let hear = |outcome: &SiteOutcome| self.progress.site(outcome);
        let called_off = &self.request.called_off;
        let verdict = warming
            .warmer
            .wait(&sending, &warming.policy, called_off, &hear);
        let sites = sending.outcomes(warming.policy.reach_within);
        self.accept(warming, verdict, &sites)?;
        Ok(Some(Warmed {
            push: Some(sending.commit),
            sites,
        }))
    }

    fn accept(
        &self,
        warming: &Warming,
        verdict: Verdict,
        sites: &[SiteOutcome],
    ) -> Result<(), CommitError> {
        let repo = self.publisher.name().to_owned();
        match verdict {
            Verdict::Met => Ok(()),
            Verdict::CalledOff => Err(CommitError::CalledOff { repo }),
            Verdict::Impossible | Verdict::Late if warming.policy.commit_anyway => {
                tracing::warn!(repo, ?verdict, "publishing although sites are not warm");
                Ok(())
            }
            Verdict::Impossible | Verdict::Late => Err(CommitError::Quorum {
                repo,
                is_late: verdict == Verdict::Late,
                sites: sites.to_vec(),
            }),
        }
    }

    /// Begins to send every object of the changed files.
    fn begin(
        &self,
        warming: &Warming,
        places: Vec<Arc<dyn ObjectStore>>,
    ) -> Result<Option<Sending>, WarmError> {
        let set = &self.request.change_set;
        let names = objects::needed(set)?.into_iter();
        let looked_in = places.clone();
        let listed = names
            .filter(|(name, _)| may_travel(name))
            .map(move |(name, change)| {
                let bytes = objects::size(&name, &set.changes[change].path, &looked_in)?;
                Ok(Listed { name, bytes })
            });
        let repo = self.publisher.name();
        warming.warmer.begin(repo, listed, places, &warming.claim)
    }

    /// Tells the sites how the commit ended, as far as that is known.
    pub(super) fn tell_sites(
        &self,
        outcome: &Result<Outcome, CommitError>,
        is_known: bool,
    ) -> Result<(), CommitError> {
        let (Some(commit), Some(warming)) = (self.begun.take(), &self.request.warm) else {
            return Ok(());
        };
        let told = match outcome {
            Ok(Outcome::Visible(visible)) => {
                failpoint_told()?;
                let revision = (visible.root_hash.to_string(), visible.revision);
                warming.warmer.visible(&commit, revision, self.now())
            }
            Ok(Outcome::Nothing) => warming.warmer.give_up(&commit),
            Err(_) if is_known => warming.warmer.give_up(&commit),
            // that is found out later, and said by whoever does
            Err(_) => Ok(()),
        };
        match told {
            Err(WarmError::Injected(fault)) => Err(fault.into()),
            // whoever comes next finds it, and how the commit ended
            Err(error) => {
                tracing::warn!(commit, %error, "the sites do not hear how it ended yet");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

fn failpoint_told() -> Result<(), store::Injected> {
    store::failpoint::pass("warm::before_published")
}

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
use crate::warm::push::Push;
use crate::warm::{SiteOutcome, Verdict, WarmError, Warming};

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Warmed {
    /// The push whose sites are to be told.
    pub(super) push: Option<String>,
    /// How each site stood.
    pub(super) sites: Vec<SiteOutcome>,
}

/// The push of a commit, until its fate is known.
#[derive(Default)]
pub(super) struct Begun(Mutex<Option<Arc<Push>>>);

impl Begun {
    fn set(&self, push: Arc<Push>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(push);
    }

    fn take(&self) -> Option<Arc<Push>> {
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
        let begun = self.list(&places).and_then(|list| {
            let repo = self.publisher.name();
            warming.warmer.begin(repo, &list, places.clone())
        });
        let push = match begun {
            Ok(Some(push)) => push,
            Ok(None) => return Ok(None),
            // a stop that a test asks for
            Err(WarmError::Injected(fault)) => return Err(fault.into()),
            Err(error) if warming.policy.commit_anyway => {
                tracing::error!(%error, "publishing without warming the sites");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.begun.set(Arc::clone(&push));
        let hear = |outcome: &SiteOutcome| self.progress.site(outcome);
        let called_off = &self.request.called_off;
        let verdict = warming
            .warmer
            .wait(&push, &warming.policy, called_off, &hear);
        let sites = push.outcomes(warming.policy.reach_within);
        self.accept(warming, verdict, &sites)?;
        Ok(Some(Warmed {
            push: Some(push.txn.clone()),
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

    /// What the sites are told of: every object of the changed files, and its size.
    fn list(&self, places: &[Arc<dyn ObjectStore>]) -> Result<Vec<Listed>, WarmError> {
        let set = &self.request.change_set;
        let names = objects::needed(set)?.into_iter();
        let listed = names
            .filter(|(name, _)| may_travel(name))
            .map(|(name, change)| {
                let bytes = objects::size(&name, &set.changes[change].path, places)?;
                Ok(Listed { name, bytes })
            });
        listed.collect()
    }

    /// Tells the sites how the commit ended, as far as that is known.
    pub(super) fn tell_sites(
        &self,
        outcome: &Result<Outcome, CommitError>,
        is_known: bool,
    ) -> Result<(), CommitError> {
        let (Some(push), Some(warming)) = (self.begun.take(), &self.request.warm) else {
            return Ok(());
        };
        let told = match outcome {
            Ok(Outcome::Visible(visible)) => {
                failpoint_told()?;
                let revision = (visible.root_hash.to_string(), visible.revision);
                warming.warmer.visible(&push.txn, revision, self.now())
            }
            Ok(Outcome::Nothing) => warming.warmer.give_up(&push.txn),
            Err(_) if is_known => warming.warmer.give_up(&push.txn),
            Err(_) => {
                warming.warmer.leave(&push);
                Ok(())
            }
        };
        match told {
            Err(WarmError::Injected(fault)) => Err(fault.into()),
            // whoever comes next finds it, and how the commit ended
            Err(error) => {
                tracing::warn!(txn = push.txn, %error, "the sites do not hear how it ended yet");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

fn failpoint_told() -> Result<(), store::Injected> {
    store::failpoint::pass("warm::before_published")
}

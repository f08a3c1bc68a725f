//! How a site stood with a commit, as whoever made it is told.

use serde::{Deserialize, Serialize};

/// How a site stands with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteState {
    /// It has everything.
    Warm,
    /// It is still taking, or not reached: it gets the rest later.
    Behind,
    /// It cannot be given it now; that is tried again later.
    Failed,
}

/// How a site stood with a commit when that went on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteOutcome {
    /// Which.
    pub site: String,
    /// How it stood.
    pub state: SiteState,
    /// Objects that it took.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that it lacked still, where that is known.
    pub missing_objects: u64,
    /// Their bytes.
    pub missing_bytes: u64,
    /// How long that took, in seconds.
    pub seconds: f64,
    /// What went wrong last.
    pub error: Option<String>,
}

impl SiteOutcome {
    /// Of two pushes of one commit.
    pub(super) fn and(self, other: Self) -> Self {
        let rank = |state| match state {
            SiteState::Warm => 0,
            SiteState::Behind => 1,
            SiteState::Failed => 2,
        };
        Self {
            state: match rank(self.state) >= rank(other.state) {
                true => self.state,
                false => other.state,
            },
            objects: self.objects + other.objects,
            bytes: self.bytes + other.bytes,
            missing_objects: self.missing_objects + other.missing_objects,
            missing_bytes: self.missing_bytes + other.missing_bytes,
            seconds: self.seconds.max(other.seconds),
            error: self.error.or(other.error),
            site: self.site,
        }
    }
}

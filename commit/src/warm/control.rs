//! How a site is told what there is, and answers what it lacks.
//!
//! Over HTTPS the receiver itself is asked (`client.rs`). Another way, a broker's, is another
//! implementation of the one trait here; the objects themselves travel over HTTPS either way.

use std::time::Duration;

use formats::warm::Missing;
use formats::warm::identity::NodeName;

use super::push::{Push, Told};

/// Why something did not work with a site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It does not answer, or not any more.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// A certificate is not valid at its time, or at ours.
    #[error("cannot be reached at its time, or ours: {0}; compare its clock with ours")]
    Clock(String),
    /// It has too much to do.
    #[error("is busy")]
    Busy {
        /// When to come again, as it says.
        after: Option<Duration>,
    },
    /// It does not know what was announced any more: announce again.
    #[error("has forgotten what was announced")]
    Stale,
    /// It has no room.
    #[error("has no room: {needed} bytes are needed, {room} are there")]
    Full {
        /// Bytes.
        needed: u64,
        /// Bytes.
        room: u64,
    },
    /// It does not want what it is given.
    #[error("refuses: {0}")]
    Refused(String),
    /// What it answers makes no sense.
    #[error("answers nonsense: {0}")]
    Nonsense(&'static str),
    /// It said that it kept what it does not have.
    #[error("says that it kept objects, {0} of them, and does not have them")]
    Lies(u32),
    /// Objects arrive there damaged, again and again.
    #[error("receives objects damaged, {0} of them, again and again")]
    Corrupts(u32),
    /// Somebody else answers in its place.
    #[error("somebody else answers: {0}")]
    NotThem(String),
    /// Its certificate ran out.
    #[error("has a certificate that has expired; `prepub site add {0}` issues another")]
    Expired(NodeName),
    /// An object that we cannot read.
    #[error("cannot be sent an object: {0}")]
    Ours(String),
    /// It is no site any more, or nobody wants the objects any more.
    #[error("is not sent them any more")]
    Over,
}

/// What OpenSSL says when a certificate's term has not begun or is over, and what an end says to whom it is so.
/// One that has not begun is to the other end a bad one [OpenSSL, `ssl_x509err2alert`].
const OF_TIME: [&str; 4] = [
    "certificate is not yet valid",
    "certificate has expired",
    store::peer::EXPIRED_ALERT,
    "alert bad certificate",
];

impl Trouble {
    /// It does not answer, for this reason.
    pub(super) fn unreachable(why: String) -> Self {
        match OF_TIME.iter().any(|sign| why.contains(sign)) {
            true => Self::Clock(why),
            false => Self::Unreachable(why),
        }
    }

    /// True if trying again within moments makes sense.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Busy { .. } | Self::Stale)
    }
}

/// A way to talk to a site.
pub(super) trait Control: Send + Sync {
    /// Says which objects there are, and hears which of them the site lacks.
    fn announce(&self, push: &Push) -> Result<Missing, Trouble>;

    /// Says that their revision is visible.
    fn published(&self, push: &Push, told: &Told) -> Result<(), Trouble>;

    /// Says that it never will be.
    fn give_up(&self, push: &Push) -> Result<(), Trouble>;
}

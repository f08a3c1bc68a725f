//! What a publisher and a Stratum 1's receiver say to one another before a revision is visible.
//!
//! A [`list`] names the objects that a transaction is about, and its answer which of them are absent;
//! a [`bundle`] carries objects; [`message`]s and [`topic`]s are the control plane over a broker, in
//! the forms that sites have from prepub's predecessor. Who is who says an [`identity`], and an
//! [`enrolment`] makes a receiver a publisher's site. Objects that may travel are those of files:
//! a replica that is given a catalog takes everything below it for present [CVMFS
//! `swissknife_pull.cc`].

pub mod bundle;
pub mod enrolment;
pub mod identity;
pub mod list;
pub mod message;
mod record;
pub mod topic;

pub use bundle::{BundleError, BundleReader, Encoder};
pub use enrolment::{Enrolment, EnrolmentError};
pub use identity::{IdentityError, NodeName, PeerIdentity, Role, Serial};
pub use list::{Bits, ListError, ListReader, Listed, Missing};
pub use message::{Announce, MessageError, Presence, Published, Ready};
pub use topic::{Topic, TopicError};

/// Most names in one transaction: 29 MB of list, and a bitmap of 125 kB.
pub const NAMES_MAX: u32 = 1_000_000;

/// Longest name of a transaction, in bytes.
pub const TRANSACTION_NAME_MAX: usize = 128;

/// True for what may name a transaction: it becomes a file's name, and part of a URL and of a topic.
#[must_use]
pub fn is_transaction_name(name: &str) -> bool {
    (1..=TRANSACTION_NAME_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

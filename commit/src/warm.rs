//! Stratum 1s have a revision's objects before it is visible.
//!
//! ```text
//! STATE/sites/                  0700
//!   ca.crt, ca.key              the publisher's authority, made with the first site
//!   publisher.crt, publisher.key
//!   sites.toml                  who is a site now, and by which certificate
//!   revoked                     serials that are not good any more, a line each: serial, since when
//!   crl.pem                     the same for programs that do not read sites.toml (a broker)
//!   pushes/REPO/TXN/            a push that some site has not seen the end of (push.rs)
//! ```
//!
//! In reading order: who the sites are ([`registry`]); what is asked of them for a commit
//! ([`policy`]); what is sent, on disk until every site has it ([`push`]); how one site gets it
//! (`transfer`, over `client` and `lanes`; what is known of it is `seen`); who does all this beside a commit,
//! and after it ([`warmer`], over a `board`; `sending`, `ending`, `standing`); what a site does that allows no inbound connection ([`pull`]); and what goes over a
//! broker, where there is one (`broker`).
//!
//! Nothing a site does or fails to do reaches a commit but through its policy. Only `client.rs` speaks
//! HTTP. Catalogs, tags and manifests never travel.

pub mod policy;
pub mod pull;
pub mod push;
pub mod registry;
pub mod warmer;

mod address;
mod board;
mod broker;
mod client;
mod control;
mod ending;
mod lanes;
mod outcome;
mod seen;
mod sending;
mod site;
mod standing;
mod transfer;

pub use board::Clock;
pub use broker::BrokerAddress;
pub use outcome::{SiteOutcome, SiteState};
pub use policy::{Policy, Quorum, Verdict};
pub use push::Claim;
pub use registry::{NewSite, Registry, RegistryError, SiteEntry, Us, Way};
pub use sending::Sending;
pub use standing::SiteStatus;
pub use warmer::{OBJECTS_PER_PUSH, Options, WarmError, Warmer, Warming};

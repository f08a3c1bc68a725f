//! The Stratum 1 side: take objects, verify them, keep them.
//!
//! A publisher announces the objects of a transaction; the answer says which are absent; bundles bring
//! them; and once the revision that needs them is visible they are the replica's. What never becomes
//! visible expires. Only the objects of files come here, and each gets its name after its bytes were
//! verified and are durable: no catalog, tag or manifest is ever taken, and no wrong object is in
//! the replica's storage at any instant, a power loss included.
//!
//! In reading order: what a site is configured for ([`config`], [`replica`]) and whom it knows
//! ([`trust`]); what a transaction is ([`ledger`], [`names`]) and how its objects come in ([`vault`],
//! [`headroom`]); how they go again ([`expiry`], [`age`]); all of it behind one door ([`site`]), at which
//! publishers knock ([`api`]), which goes and asks ([`pull`]), or which hears a
//! [`broker`]; and what is around it: [`snapshot`],
//! [`metrics`], [`local`], [`doctor`], [`daemon`].
//!
//! Whatever way an announcement is heard, [`site::Site`] is what it is passed to. Nothing here prints,
//! reads the environment or looks at the clock: time comes in as a [`Clock`].

#![forbid(unsafe_code)]

pub mod age;
pub mod api;
pub mod broker;
pub mod config;
#[cfg(test)]
mod corpus;
pub mod daemon;
pub mod doctor;
pub mod expiry;
pub mod headroom;
pub mod ledger;
pub mod local;
pub mod metrics;
pub mod names;
pub mod pull;
pub mod refusal;
pub mod replica;
pub mod site;
pub mod snapshot;
pub mod trust;
pub mod vault;

pub use age::Clock;

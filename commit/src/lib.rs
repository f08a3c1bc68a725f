//! A change set in, a visible revision out.
//!
//! In reading order: the straight way ([`publish`]) and its durable states ([`txn`]); what a
//! publisher has to offer ([`publisher`]), the one that is built in ([`stratum0`]), the one that asks
//! a repository gateway ([`gateway`]) and the one that runs `cvmfs_server` ([`cvmfs_server`]); how changes become catalogs ([`catalogs`]), what of them is published at all ([`policy`]) and what collides
//! ([`conflicts`]); a look ahead ([`preview`]) and a judgement ([`check`]); where a repository keeps its things ([`home`]), and
//! the verbs that make, mend and end one.
//!
//! Nothing here knows of a mount or of a daemon, and only `gateway/client.rs` of a network; nothing
//! prints, and the time comes
//! in as a parameter.

#![forbid(unsafe_code)]

pub mod publish;
pub mod txn;

pub mod cvmfs_server;
pub mod gateway;
pub mod publisher;
pub mod stratum0;

pub mod catalogs;
pub mod conflicts;
pub mod policy;

pub mod check;
pub mod preview;

pub mod home;
pub mod mkfs;
pub mod place;
pub mod records;
pub mod resign;
pub mod rmfs;
pub mod rollback;
pub mod tags;

mod content;
#[cfg(test)]
mod corpus;
mod difference;
mod head;
mod landed;
mod objects;
mod virtual_dir;
pub mod warm;

pub use conflicts::{Conflict, ConflictKind, Conflicts};
pub use content::ContentError;
pub use cvmfs_server::{CvmfsServer, CvmfsServerOptions, ServerError};
pub use gateway::{Gateway, GatewayError, GatewayOptions};
pub use home::{HomeError, RepoHome};
pub use mkfs::{MkfsError, NewRepository, NewStorage, mkfs};
pub use objects::ObjectsError;
pub use place::{BucketError, BucketPlace, NewBucket, Place};
pub use preview::{PathPreview, Preview, What, preview};
pub use publish::{
    CommitError, NoProgress, OnConflict, Outcome, Progress, Queue, Request, Resumed, Seconds, Step,
    Visible, give_back, publish, resume,
};
pub use publisher::{Lease, NewRevision, Publisher, PublisherError};
pub use stratum0::Stratum0;

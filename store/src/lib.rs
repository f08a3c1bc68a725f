//! Where objects and root files lie, and how a published revision is read from there.
//!
//! One blocking trait ([`ObjectStore`]) and its implementations: a directory ([`dir`]), a web
//! server, read only ([`http`]), a bucket ([`s3`]), memory ([`memory`]), and a decorator that makes any of them fail on
//! demand ([`faulty`]). Over it a [`repository`] is verified, its [`revision`]s are read and so is
//! the [`content`] of its files. What both ends of warming use to reach one another is here too: HTTPS with
//! certificates on both ends ([`peer`]), and the [`broker`] that they are connected to; and how both show their [`figures`]. Nothing here knows about
//! staging or committing, prints, reads the environment or looks at the clock.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod broker;
pub mod content;
pub mod dir;
pub mod error;
pub mod failpoint;
pub mod faulty;
pub mod figures;
pub mod http;
pub mod memory;
pub mod object_store;
pub mod peer;
pub mod repository;
pub mod revision;
pub mod s3;

mod apart;
mod fetch;
mod flight;
mod lru;
mod owner;
mod sync;

pub use apart::place_apart;
pub use broker::{Broker, BrokerError, BrokerOptions, BrokerTls, Saying, Speaker};
pub use content::{ContentCache, ContentError, ContentFile, ContentLimits};
pub use dir::{DirStore, Durability};
pub use error::{Result, StoreError, chain};
pub use failpoint::Injected;
pub use faulty::FaultyStore;
pub use fetch::ObjectFault;
pub use http::{HttpOptions, HttpStore};
pub use memory::MemoryStore;
pub use object_store::{
    ObjectStore, Pending, Stored, get, put, put_whole, read_error, same_device, transfer, verify,
    write_error,
};
pub use owner::Owner;
pub use repository::{CatalogFault, CatalogFile, Head, HeadError, Limits, RepoError, Repository};
pub use revision::{Revision, Walk};
pub use s3::{S3Error, S3Store};
pub use sync::sync_filesystem;

//! Every byte that leaves a process: CernVM-FS's formats, and prepub's own.
//!
//! Bytes in, values out. There is no network here, no thread, no clock, no configuration and no
//! printing; a function may use the local files it is handed (a catalog is a SQLite file). Time and
//! keys come in as arguments. Every parser takes hostile bytes and answers with an error.
//!
//! In reading order: what things are called ([`hash`], [`path`]), what a path is ([`entry`],
//! [`object`]), what a change is ([`changeset`]); how content becomes objects ([`chunk`],
//! [`compress`]); what a repository is made of ([`catalog`], [`manifest`], [`whitelist`], [`trust`],
//! [`history`], [`reflog`], [`meta_info`]) and what rules it ([`server_conf`], [`s3_conf`], [`limit`],
//! [`dirtab`]); how sizes and durations are written in configurations ([`units`]); and what publishers
//! and Stratum 1s say to one another ([`warm`]).

#![forbid(unsafe_code)]

mod calendar;
pub mod catalog;
pub mod changeset;
pub mod chunk;
pub mod compress;
pub mod dirtab;
pub mod entry;
pub mod hash;
pub mod history;
mod letter;
pub mod limit;
pub mod manifest;
pub mod meta_info;
pub mod object;
pub mod path;
pub mod reflog;
pub mod s3_conf;
pub mod server_conf;
mod sqlite;
pub mod trust;
pub mod units;
pub mod warm;
pub mod whitelist;

pub use catalog::{
    Catalog, CatalogError, CatalogWriter, Counters, Counts, NestedRef, Role, Row, Stamp,
};
pub use changeset::{Change, ChangeSet, Children, Op, Source};
pub use chunk::{ChunkSizes, Xor32};
pub use compress::{Compressor, compress, decompress};
pub use entry::{Entry, Kind, Mtime, Regular, Xattrs};
pub use hash::{Algorithm, Hash, Hasher};
pub use history::{Head, History, HistoryWriter, Tag};
pub use letter::LetterError;
pub use limit::{LimitExceeded, LimitKind};
pub use manifest::{Manifest, SignedManifest};
pub use object::{Chunk, Compression, Content, ObjectKind, ObjectName};
pub use path::{Name, PathHash, RepoPath};
pub use reflog::{RefKind, Reference, Reflog, ReflogWriter};
pub use s3_conf::{AccessKey, CannedAcl, S3Conf, S3ConfError};
pub use trust::{Certificate, PrivateKey, PublicKey};
pub use whitelist::{Fingerprint, SignedWhitelist, Whitelist};

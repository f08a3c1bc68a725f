//! The control API: what can be asked, and what is answered. CLI and daemon share these types.
//!
//! ```text
//! POST /v1/VERB   {"repo": ..., ...}      verbs and fields: [`Request`]
//!   -> 200 application/x-ndjson, one event a line:
//!      {"progress": {"step": "seal", "done": 3, "total": 10, "unit": "files"}}   any number
//!      {"note": "..."}                                                           any number
//!      {"done": {...}}  or  {"error": {"kind": ..., "message": ..., "hint": ...}}   the last
//! ```
//!
//! Paths are text: any byte that is not UTF-8 is written `\xNN`, a backslash `\\`; the root is `/`.

mod event;
mod path_text;
pub mod reply;
mod request;

/// What the address of a bucket begins with.
pub const BUCKET_SCHEME: &str = "s3://";

pub use event::{Event, Progress, Step, Unit, Watch};
pub use path_text::PathText;
pub use request::{
    At, Check, Commit, Diff, Drain, Gc, LogLevel, Mkfs, Repo, Request, Resign, Rollback, SiteAdd,
    SiteBroker, SiteRevoke, Staged, Status, TagAdd, TagRemove, Unmount,
};

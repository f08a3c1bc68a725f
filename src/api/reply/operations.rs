//! What the operator does to a daemon and its state: `drain`, `reload`, `log-level`, `gc`.

use serde::{Deserialize, Serialize};

/// `drain`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// No commit is let in.
    pub drained: bool,
    /// Commits that run or wait for their turn.
    pub running: u64,
}

/// `reload`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file; none where the defaults hold.
    pub file: Option<String>,
    /// Keys that changed, and hold from now on.
    pub changed: Vec<String>,
    /// Keys that changed and hold after a restart.
    pub restart: Vec<String>,
    /// Repositories that are served from now on.
    pub opened: Vec<String>,
}

/// `log-level`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// What is logged.
    pub filter: String,
    /// What the configuration says.
    pub configured: String,
}

/// `gc`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Nothing was removed.
    pub dry_run: bool,
    /// What was, or would be.
    pub freed: Vec<Freed>,
    /// The sum.
    pub bytes: u64,
    /// What was left where it is, and why.
    pub kept: Vec<String>,
}

/// Something that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// What sort: `objects`, `catalogs`, `content`, `transactions`, `scratch`, `retired`.
    pub kind: String,
    /// Of which repository; none: of no one.
    pub repo: Option<String>,
    /// How many.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

//! What comes back, line by line: how far it is, what is worth saying, the answer.

use serde::{Deserialize, Serialize};

use crate::report::Failure;

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// How far it is.
    Progress(Progress),
    /// Something worth saying on the way.
    Note(String),
    /// The answer.
    Done(serde_json::Value),
    /// Why there is none.
    Error(Failure),
}

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// So much is done.
    pub done: u64,
    /// Of so much; 0 where that is not known.
    pub total: u64,
    /// What is counted.
    pub unit: Unit,
    /// At which Stratum 1, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Repositories are opened and their stages recovered.
    Recover,
    /// Files are sealed.
    Seal,
    /// Objects go into the storage.
    Store,
    /// Objects go to Stratum 1s.
    Warm,
    /// Catalogs are written.
    Catalogs,
    /// Tags, reflog and manifest.
    Submit,
    /// Catalogs and objects are checked.
    Check,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Repositories.
    Repositories,
    /// Files.
    Files,
    /// Objects.
    Objects,
    /// Catalogs.
    Catalogs,
    /// Steps.
    Steps,
}

/// Hears how far something is. Called from several threads.
pub trait Watch: Send + Sync {
    /// So far.
    fn progress(&self, progress: Progress);
    /// Something worth saying.
    fn note(&self, text: &str);
}

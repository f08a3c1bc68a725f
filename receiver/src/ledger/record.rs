//! What is known of a transaction, as it is kept.

use serde::{Deserialize, Serialize};

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its objects come, or may come.
    Open,
    /// Its revision is visible: what it brought is the replica's.
    Published,
    /// What it brought is to go.
    GivenUp,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Who announced it, for people.
    pub publisher: String,
    /// What bundles must show.
    pub session: String,
    /// When it was first announced, in seconds since 1970, by this machine's clock.
    pub opened: u64,
    /// When it was last announced or ended.
    pub touched: u64,
    /// What has become of it.
    pub state: State,
    /// Since when it is so, unless it is open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<u64>,
}

impl Record {
    /// Of a new one.
    #[must_use]
    pub fn new(publisher: &str, session: String, now: u64) -> Self {
        Self {
            publisher: publisher.to_owned(),
            session,
            opened: now,
            touched: now,
            state: State::Open,
            ended: None,
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(super) fn render(&self) -> Vec<u8> {
        // text and numbers only: nothing that JSON has no form for
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

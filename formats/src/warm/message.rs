//! What is said on a broker, as JSON, in both spellings that sites have.
//!
//! prepub's predecessor names a transaction `payload_id` and a receiver's readiness `bloom_ready` in
//! its code, `txn` and `ready` in its manual. Both are written; either is read, and where both stand
//! they must agree. Fields that nobody knows are passed over, as newer peers may have more.

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{NAMES_MAX, is_transaction_name};
use crate::calendar::{DAY, civil_of};
use crate::hash::Hash;
use crate::object::ObjectName;
use crate::path::is_repository_name;

/// The largest message, in bytes: a million names, their quotes and commas, and the rest.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Longest text in a message, in bytes.
const TEXT_MAX: usize = 2048;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// More than any message takes.
    #[error("a message of {0} bytes; at most {MESSAGE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not JSON, or not this message's.
    #[error("no message of ours")]
    Json(#[from] serde_json::Error),
    /// The two spellings of a field say different things, or neither is there.
    #[error("a message whose {0} is missing or contradicts itself")]
    Field(&'static str),
    /// A field's text.
    #[error("a message whose {0} cannot be one")]
    Text(&'static str),
}

/// A message.
pub trait Message: Serialize + DeserializeOwned {
    /// What the types alone do not say.
    ///
    /// # Errors
    /// [`MessageError::Text`].
    fn check(&self) -> Result<(), MessageError>;

    /// The message's bytes.
    ///
    /// # Errors
    /// What [`Message::check`] finds.
    fn render(&self) -> Result<Vec<u8>, MessageError> {
        self.check()?;
        Ok(serde_json::to_vec(self)?)
    }

    /// What the bytes say.
    ///
    /// # Errors
    /// [`MessageError`].
    fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge(bytes.len()));
        }
        let message: Self = serde_json::from_slice(bytes)?;
        message.check()?;
        Ok(message)
    }
}

/// Objects are about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RawAnnounce", try_from = "RawAnnounce")]
pub struct Announce {
    /// The transaction.
    pub payload_id: String,
    /// Whom to answer.
    pub publisher_id: String,
    /// Of which repository they are.
    pub repo: String,
    /// Which. The predecessor's lists have catalogs too, which never travel.
    pub hashes: Vec<ObjectName>,
    /// Their sizes in the same order, in bytes as stored; empty where the publisher does not say.
    pub sizes: Vec<u64>,
    /// The sum.
    pub total_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct RawAnnounce {
    payload_id: Option<String>,
    txn: Option<String>,
    publisher_id: Option<String>,
    repo: String,
    #[serde(with = "names")]
    hashes: Vec<ObjectName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sizes: Vec<u64>,
    #[serde(default)]
    total_bytes: u64,
}

impl From<Announce> for RawAnnounce {
    fn from(announce: Announce) -> Self {
        Self {
            payload_id: Some(announce.payload_id.clone()),
            txn: Some(announce.payload_id),
            publisher_id: Some(announce.publisher_id),
            repo: announce.repo,
            hashes: announce.hashes,
            sizes: announce.sizes,
            total_bytes: announce.total_bytes,
        }
    }
}

impl TryFrom<RawAnnounce> for Announce {
    type Error = MessageError;

    fn try_from(raw: RawAnnounce) -> Result<Self, MessageError> {
        let payload_id = either("payload_id", raw.payload_id, raw.txn)?;
        Ok(Self {
            publisher_id: raw
                .publisher_id
                .unwrap_or_else(|| format!("pub-{payload_id}")),
            payload_id,
            repo: raw.repo,
            hashes: raw.hashes,
            sizes: raw.sizes,
            total_bytes: raw.total_bytes,
        })
    }
}

impl Message for Announce {
    fn check(&self) -> Result<(), MessageError> {
        transaction(&self.payload_id)?;
        text("publisher_id", &self.publisher_id)?;
        repository(&self.repo)?;
        if !self.sizes.is_empty() && self.sizes.len() != self.hashes.len() {
            return Err(MessageError::Field("sizes"));
        }
        Ok(())
    }
}

/// A site's answer to an announcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RawReady", try_from = "RawReady")]
pub struct Ready {
    /// Which site.
    pub node_id: String,
    /// Which transaction; where it is not said, the topic says it.
    pub payload_id: Option<String>,
    /// What proves, with the bundles that follow, that they belong to this answer.
    pub session_token: String,
    /// Where the objects go; empty: the site comes for them.
    pub data_url: String,
    /// Which of the objects it lacks.
    pub absent_hashes: Vec<ObjectName>,
    /// Why it takes no part, if so.
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RawReady {
    node_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<String>,
    #[serde(default)]
    session_token: String,
    #[serde(default)]
    data_url: String,
    #[serde(default, with = "names")]
    absent_hashes: Vec<ObjectName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Ready> for RawReady {
    fn from(ready: Ready) -> Self {
        Self {
            node_id: ready.node_id,
            payload_id: ready.payload_id.clone(),
            txn: ready.payload_id,
            session_token: ready.session_token,
            data_url: ready.data_url,
            absent_hashes: ready.absent_hashes,
            error: ready.error,
        }
    }
}

impl TryFrom<RawReady> for Ready {
    type Error = MessageError;

    fn try_from(raw: RawReady) -> Result<Self, MessageError> {
        let payload_id = match (raw.payload_id, raw.txn) {
            (None, None) => None,
            (one, other) => Some(either("payload_id", one, other)?),
        };
        Ok(Self {
            node_id: raw.node_id,
            payload_id,
            session_token: raw.session_token,
            data_url: raw.data_url,
            absent_hashes: raw.absent_hashes,
            // the predecessor leaves an empty one where there is none
            error: raw.error.filter(|error| !error.is_empty()),
        })
    }
}

impl Message for Ready {
    fn check(&self) -> Result<(), MessageError> {
        text("node_id", &self.node_id)?;
        if let Some(payload) = &self.payload_id {
            transaction(payload)?;
        }
        short("session_token", &self.session_token)?;
        short("data_url", &self.data_url)?;
        short("error", self.error.as_deref().unwrap_or_default())
    }
}

/// A revision is visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Of which repository.
    pub repo: String,
    /// Its root catalog.
    pub new_root_hash: Hash,
    /// Since when, as [`rfc3339`] writes it.
    pub published_at: String,
    /// Its number, where the publisher says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The transactions that brought its objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payload_ids: Vec<String>,
    /// Objects that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "names")]
    pub hashes: Vec<ObjectName>,
}

impl Message for Published {
    fn check(&self) -> Result<(), MessageError> {
        repository(&self.repo)?;
        short("published_at", &self.published_at)?;
        self.payload_ids.iter().try_for_each(|id| transaction(id))
    }
}

/// A site is there, or no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RawPresence", try_from = "RawPresence")]
pub struct Presence {
    /// Which site.
    pub node_id: String,
    /// The repositories that it takes objects of.
    pub repos: Vec<String>,
    /// Where objects go; empty: it comes for them.
    pub data_url: String,
    /// Where it is asked what it lacks; empty: by the broker only.
    pub control_url: String,
    /// False in its last will.
    pub online: bool,
    /// It knows what it has.
    pub ready: bool,
}

#[derive(Serialize, Deserialize)]
struct RawPresence {
    node_id: String,
    #[serde(default)]
    repos: Vec<String>,
    #[serde(default)]
    data_url: String,
    #[serde(default)]
    control_url: String,
    online: bool,
    bloom_ready: Option<bool>,
    ready: Option<bool>,
}

impl From<Presence> for RawPresence {
    fn from(presence: Presence) -> Self {
        Self {
            node_id: presence.node_id,
            repos: presence.repos,
            data_url: presence.data_url,
            control_url: presence.control_url,
            online: presence.online,
            bloom_ready: Some(presence.ready),
            ready: Some(presence.ready),
        }
    }
}

impl TryFrom<RawPresence> for Presence {
    type Error = MessageError;

    fn try_from(raw: RawPresence) -> Result<Self, MessageError> {
        let ready = match (raw.bloom_ready, raw.ready) {
            (None, None) => false,
            (one, other) => either("ready", one, other)?,
        };
        Ok(Self {
            node_id: raw.node_id,
            repos: raw.repos,
            data_url: raw.data_url,
            control_url: raw.control_url,
            online: raw.online,
            ready,
        })
    }
}

impl Message for Presence {
    fn check(&self) -> Result<(), MessageError> {
        text("node_id", &self.node_id)?;
        self.repos.iter().try_for_each(|repo| repository(repo))?;
        short("data_url", &self.data_url)?;
        short("control_url", &self.control_url)
    }
}

/// A moment in UTC as the messages have it: `2026-11-25T08:30:00Z`.
#[must_use]
pub fn rfc3339(unix_seconds: i64) -> String {
    let (days, second) = (unix_seconds.div_euclid(DAY), unix_seconds.rem_euclid(DAY));
    let (year, month, day) = civil_of(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// What a field in two spellings says.
fn either<T: PartialEq>(
    field: &'static str,
    one: Option<T>,
    other: Option<T>,
) -> Result<T, MessageError> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Err(MessageError::Field(field)),
        (one, other) => one.or(other).ok_or(MessageError::Field(field)),
    }
}

fn transaction(name: &str) -> Result<(), MessageError> {
    match is_transaction_name(name) {
        true => Ok(()),
        false => Err(MessageError::Text("payload_id")),
    }
}

fn repository(name: &str) -> Result<(), MessageError> {
    match is_repository_name(name) {
        true => Ok(()),
        false => Err(MessageError::Text("repo")),
    }
}

fn text(field: &'static str, value: &str) -> Result<(), MessageError> {
    if value.is_empty() || value.contains(['/', '+', '#', '\0']) {
        return Err(MessageError::Text(field));
    }
    short(field, value)
}

fn short(field: &'static str, value: &str) -> Result<(), MessageError> {
    match value.len() <= TEXT_MAX {
        true => Ok(()),
        false => Err(MessageError::Text(field)),
    }
}

/// Lists of objects' names, which end at [`NAMES_MAX`].
mod names {
    use super::{Deserialize, Deserializer, NAMES_MAX, ObjectName, SeqAccess, Serializer, Visitor};

    pub(super) fn serialize<S: Serializer>(
        names: &[ObjectName],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ObjectName>, D::Error> {
        // an empty list of Go's is null
        Ok(Option::<List>::deserialize(deserializer)?
            .unwrap_or_default()
            .0)
    }

    #[derive(Default)]
    struct List(Vec<ObjectName>);

    impl<'de> Deserialize<'de> for List {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_seq(Names).map(List)
        }
    }

    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<ObjectName>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {NAMES_MAX} names of objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            use serde::de::Error;
            let mut names = Vec::new();
            while let Some(text) = seq.next_element::<std::borrow::Cow<'_, str>>()? {
                if names.len() == NAMES_MAX as usize {
                    return Err(A::Error::invalid_length(names.len() + 1, &Names));
                }
                names.push(text.parse().map_err(A::Error::custom)?);
            }
            Ok(names)
        }
    }
}

#[cfg(test)]
mod tests;

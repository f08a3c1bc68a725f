//! Where on a broker what is said, as sites have it from prepub's predecessor.
//!
//! ```text
//! cvmfs/repos/REPO/announce                            publisher -> sites
//! cvmfs/publishers/PUBLISHER/ready/PAYLOAD/NODE        site -> publisher
//! cvmfs/repos/REPO/published                           publisher -> sites, retained
//! cvmfs/receivers/NODE/presence                        site -> all, retained, and its last will
//! ```

use std::fmt;
use std::str::FromStr;

/// Longest part of a topic, in bytes.
pub const SEGMENT_MAX: usize = 255;

/// What every site that takes any repository hears of announcements.
pub const ALL_ANNOUNCEMENTS: &str = "cvmfs/repos/+/announce";
/// What shows every publication.
pub const ALL_PUBLISHED: &str = "cvmfs/repos/+/published";
/// What shows every site's presence.
pub const ALL_PRESENCE: &str = "cvmfs/receivers/+/presence";

/// Why a text is none of our topics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It is somebody else's.
    #[error("no topic of ours: {0:?}")]
    Unknown(String),
    /// A part that cannot be one.
    #[error(
        "{0:?} cannot be part of a topic: 1 to {SEGMENT_MAX} bytes without /, +, # and control characters"
    )]
    Segment(String),
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A transaction's objects are about to be sent.
    Announce {
        /// Of which repository.
        repo: String,
    },
    /// A site says what it lacks.
    Ready {
        /// To whom.
        publisher: String,
        /// Of which transaction.
        payload: String,
        /// Which site.
        node: String,
    },
    /// A revision is visible.
    Published {
        /// Of which repository.
        repo: String,
    },
    /// A site is there, or no more.
    Presence {
        /// Which.
        node: String,
    },
}

impl Topic {
    /// What a publisher subscribes to, to hear every site's answer to one transaction.
    ///
    /// # Errors
    /// [`TopicError::Segment`].
    pub fn answers(publisher: &str, payload: &str) -> Result<String, TopicError> {
        let (publisher, payload) = (segment(publisher)?, segment(payload)?);
        Ok(format!("cvmfs/publishers/{publisher}/ready/{payload}/+"))
    }

    /// The topic's text.
    ///
    /// # Errors
    /// [`TopicError::Segment`]: what comes from outside must not name another topic.
    pub fn render(&self) -> Result<String, TopicError> {
        for part in self.parts() {
            segment(part)?;
        }
        Ok(self.to_string())
    }

    fn parts(&self) -> Vec<&str> {
        match self {
            Self::Announce { repo } | Self::Published { repo } => vec![repo],
            Self::Ready {
                publisher,
                payload,
                node,
            } => vec![publisher, payload, node],
            Self::Presence { node } => vec![node],
        }
    }
}

/// Of parts that were not looked at; send what [`Topic::render`] gives.
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announce { repo } => write!(f, "cvmfs/repos/{repo}/announce"),
            Self::Ready {
                publisher,
                payload,
                node,
            } => write!(f, "cvmfs/publishers/{publisher}/ready/{payload}/{node}"),
            Self::Published { repo } => write!(f, "cvmfs/repos/{repo}/published"),
            Self::Presence { node } => write!(f, "cvmfs/receivers/{node}/presence"),
        }
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(topic: &str) -> Result<Self, TopicError> {
        let parts: Vec<&str> = topic.split('/').take(7).collect();
        let text = |part: &str| segment(part).map(str::to_owned);
        match parts[..] {
            ["cvmfs", "repos", repo, "announce"] => Ok(Self::Announce { repo: text(repo)? }),
            ["cvmfs", "repos", repo, "published"] => Ok(Self::Published { repo: text(repo)? }),
            ["cvmfs", "receivers", node, "presence"] => Ok(Self::Presence { node: text(node)? }),
            ["cvmfs", "publishers", publisher, "ready", payload, node] => Ok(Self::Ready {
                publisher: text(publisher)?,
                payload: text(payload)?,
                node: text(node)?,
            }),
            _ => Err(TopicError::Unknown(shortened(topic))),
        }
    }
}

fn segment(part: &str) -> Result<&str, TopicError> {
    let bad = |c: char| matches!(c, '/' | '+' | '#') || c.is_control();
    if part.is_empty() || part.len() > SEGMENT_MAX || part.contains(bad) {
        return Err(TopicError::Segment(shortened(part)));
    }
    Ok(part)
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_there_and_back() {
        for text in [
            "cvmfs/repos/sft.example.org/announce",
            "cvmfs/repos/sft.example.org/published",
            "cvmfs/receivers/stratum1-a/presence",
            "cvmfs/publishers/pub-17/ready/17/stratum1-a",
        ] {
            let topic: Topic = text.parse().unwrap();
            assert_eq!(topic.render().unwrap(), text);
        }
        let answers = Topic::answers("pub-17", "17").unwrap();
        assert_eq!(answers, "cvmfs/publishers/pub-17/ready/17/+");
    }

    #[test]
    fn nobody_s_name_reaches_another_topic() {
        for node in ["", "a/b", "+", "#", "a\0b", &"n".repeat(SEGMENT_MAX + 1)] {
            let topic = Topic::Presence { node: node.into() };
            assert!(matches!(topic.render(), Err(TopicError::Segment(_))));
            assert!(topic.to_string().parse::<Topic>().is_err());
            assert!(Topic::answers("p", node).is_err());
        }
        let error = "home/lamp".parse::<Topic>().unwrap_err();
        assert!(matches!(error, TopicError::Unknown(_)));
    }
}

//! The control plane over a broker: said to all sites at once, answered by each.
//!
//! ```text
//! announce   all sites hear which objects there are          ready      one says which of them it lacks
//! published  all sites, and whoever listens, hear of it      presence   who is there
//! ```
//! A broker saves a site its open port for questions, and a publisher one question to each site; it is
//! never needed. Whatever it loses, delays or repeats, a site that does not answer in time is asked
//! over HTTPS, or asks itself; and objects travel over HTTPS only, where both ends show who they are.
//! So the worst that a forged message does is to have objects sent that are there, or not at once.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use formats::warm::identity::NodeName;
use formats::warm::list::Bits;
use formats::warm::message::{Announce, Message, Presence, Published, Ready};
use formats::warm::topic::{ALL_PRESENCE, Topic};
use formats::warm::{MessageError, Missing, TopicError};
use store::{Broker, BrokerError, BrokerOptions, BrokerTls, Saying, Speaker};

use super::board::lock;
use super::client::Client;
use super::control::{Control, Trouble};
use super::push::{Push, Told};
use super::registry::OwnCredentials;

/// Objects that are announced over a broker: a message of five million bytes. For more, sites are asked
/// one by one.
const ANNOUNCED_MAX: u32 = 100_000;
/// The largest message, either way: so many names, their sizes, and the rest.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// How long a site has to answer before it is asked otherwise.
const ANSWER: Duration = Duration::from_secs(10);
/// An announcement that was said within this time is not said again.
const SAID_AGAIN: Duration = Duration::from_secs(1);
/// Announcements that may still be answered; older ones were, or sites were asked otherwise.
const SAID_MAX: usize = 32;
/// Sites whose presence is remembered.
const ONLINE_MAX: usize = 1_000;

/// A broker that publisher and sites are connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// `mqtts://HOST:PORT`.
    pub url: String,
    /// The authority that its certificate is of, `BEGIN CERTIFICATE`; none: the publisher's own.
    pub ca: Option<String>,
}

/// The publisher's connection.
pub(super) struct Link {
    broker: Broker,
    us: NodeName,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
    /// Messages that made no sense, or that nobody waits for.
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Announcements that may be answered, the oldest first, and when each was said last.
    said: VecDeque<(String, Instant)>,
    answers: HashMap<(String, NodeName), Ready>,
    online: BTreeMap<NodeName, Presence>,
}

/// Why what was heard does not count.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("{0} speaks in another's place")]
    NotThem(String),
    #[error("nothing was asked that this answers")]
    NotAsked,
}

impl Link {
    /// Connects in the publisher's name.
    pub(super) fn connect(
        address: &BrokerAddress,
        us: &NodeName,
        own: &OwnCredentials,
    ) -> Result<Self, BrokerError> {
        let ca = address.ca.as_ref().map(|ca| ca.clone().into_bytes());
        let options = BrokerOptions {
            url: address.url.clone(),
            client_id: format!("prepub-{us}"),
            tls: BrokerTls {
                ca: ca.unwrap_or_else(|| own.ca.clone()),
                certificate: own.certificate.clone(),
                key: own.key.clone(),
            },
            subscriptions: vec![
                format!("cvmfs/publishers/{us}/ready/+/+"),
                ALL_PRESENCE.to_owned(),
            ],
            greeting: None,
            will: None,
            message_bytes_max: MESSAGE_BYTES_MAX,
        };
        let heard = Arc::new(Heard::default());
        let (hearing, name) = (heard.clone(), us.clone());
        let hear = move |_: &Speaker, topic: &str, payload: &[u8]| {
            if let Err(refused) = hearing.hear(&name, topic, payload) {
                hearing.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%refused, "a message over the broker does not count");
            }
        };
        Ok(Self {
            broker: Broker::connect(options, hear)?,
            us: us.clone(),
            heard,
        })
    }

    /// Why it is not connected, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        self.broker.trouble()
    }

    /// How many messages did not count, or came faster than they could be listened to.
    pub(super) fn refused(&self) -> u64 {
        self.heard.refused.load(Ordering::Relaxed) + self.broker.dropped()
    }

    /// True if the site said that it is there, and was not reported gone.
    pub(super) fn is_online(&self, site: &NodeName) -> bool {
        let state = lock(&self.heard.state);
        state.online.get(site).is_some_and(|p| p.online)
    }

    /// Says to all sites which objects there are; false: they are to be asked otherwise.
    pub(super) fn announce(&self, push: &Push) -> bool {
        if push.objects > ANNOUNCED_MAX || !self.broker.is_connected() {
            return false;
        }
        {
            let mut state = lock(&self.heard.state);
            let said = state.said.iter().find(|(txn, _)| *txn == push.txn);
            if said.is_some_and(|(_, at)| at.elapsed() < SAID_AGAIN) {
                return true;
            }
            state.may_answer(&push.txn);
        }
        let said = self
            .announcement(push)
            .and_then(|saying| self.broker.say(saying).map_err(|e| e.to_string()));
        if let Err(error) = &said {
            tracing::warn!(txn = push.txn, error, "not announced over the broker");
        }
        said.is_ok()
    }

    fn announcement(&self, push: &Push) -> Result<Saying, String> {
        let list = push.list().map_err(|e| e.to_string())?;
        let announce = Announce {
            payload_id: push.txn.clone(),
            publisher_id: self.us.to_string(),
            repo: push.repo.clone(),
            hashes: list.iter().map(|listed| listed.name).collect(),
            sizes: list.iter().map(|listed| listed.bytes).collect(),
            total_bytes: push.bytes,
        };
        let topic = Topic::Announce {
            repo: push.repo.clone(),
        };
        Ok(Saying {
            topic: topic.render().map_err(|e| e.to_string())?,
            payload: announce.render().map_err(|e| e.to_string())?,
            retain: false,
        })
    }

    /// What a site answers to an announcement, which is said unless it was just now; none: nothing, in
    /// time.
    fn ask(&self, push: &Push, site: &NodeName) -> Option<Ready> {
        if !self.is_online(site) || !self.announce(push) {
            return None;
        }
        let key = (push.txn.clone(), site.clone());
        let deadline = Instant::now() + ANSWER;
        let mut state = lock(&self.heard.state);
        loop {
            if let Some(answer) = state.answers.remove(&key) {
                return Some(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !state.online.get(site).is_some_and(|p| p.online) {
                return None;
            }
            let waited = self.heard.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Says to all sites, and whoever else listens, that a revision is visible.
    pub(super) fn published(&self, repo: &str, txns: Vec<String>, told: &Told) {
        let said = || {
            let published = Published {
                repo: repo.to_owned(),
                new_root_hash: told.root_hash.parse().map_err(|_| "no root hash")?,
                published_at: told.published_at.clone(),
                revision: Some(told.revision),
                payload_ids: txns,
                hashes: Vec::new(),
            };
            let topic = Topic::Published {
                repo: repo.to_owned(),
            };
            let saying = Saying {
                topic: topic.render().map_err(|_| "no topic")?,
                payload: published.render().map_err(|_| "no message")?,
                retain: true,
            };
            self.broker.say(saying).map_err(|_| "not reachable")
        };
        if let Err(error) = said() {
            tracing::warn!(repo, error, "not told over the broker");
        }
    }
}

impl Heard {
    fn hear(&self, us: &NodeName, topic: &str, payload: &[u8]) -> Result<(), Refused> {
        let name = |node: &str| -> Result<NodeName, Refused> {
            node.parse().map_err(|_| Refused::NotThem(node.to_owned()))
        };
        match topic.parse::<Topic>()? {
            Topic::Ready {
                publisher,
                payload: txn,
                node,
            } => {
                let ready = Ready::parse(payload)?;
                let is_of_it = ready.payload_id.as_ref().is_none_or(|id| *id == txn);
                if publisher != us.as_str() || ready.node_id != node || !is_of_it {
                    return Err(Refused::NotThem(ready.node_id));
                }
                let mut state = lock(&self.state);
                if !state.said.iter().any(|(said, _)| *said == txn) {
                    return Err(Refused::NotAsked);
                }
                state.answers.insert((txn, name(&node)?), ready);
            }
            Topic::Presence { node } => {
                let presence = Presence::parse(payload)?;
                if presence.node_id != node {
                    return Err(Refused::NotThem(presence.node_id));
                }
                let mut state = lock(&self.state);
                let name = name(&node)?;
                if state.online.len() < ONLINE_MAX || state.online.contains_key(&name) {
                    state.online.insert(name, presence);
                }
            }
            Topic::Announce { .. } | Topic::Published { .. } => return Err(Refused::NotAsked),
        }
        self.changed.notify_all();
        Ok(())
    }
}

impl State {
    /// An announcement is about to be said.
    fn may_answer(&mut self, txn: &str) {
        self.said.retain(|(said, _)| said != txn);
        self.said.push_back((txn.to_owned(), Instant::now()));
        while self.said.len() > SAID_MAX {
            if let Some((old, _)) = self.said.pop_front() {
                self.answers.retain(|(txn, _), _| *txn != old);
            }
        }
    }
}

/// A site that is asked over the broker first, and over HTTPS where that brings nothing. Whether it
/// has everything in the end is asked over HTTPS: an answer that the broker held back would be of
/// another time.
pub(super) struct OverBroker<'a> {
    pub(super) link: &'a Link,
    pub(super) client: &'a Client,
    pub(super) site: &'a NodeName,
}

impl Control for OverBroker<'_> {
    fn announce(&self, push: &Push) -> Result<Missing, Trouble> {
        match self.link.ask(push, self.site) {
            Some(ready) => missing(push, ready),
            None => self.client.announce(push),
        }
    }

    fn published(&self, push: &Push, told: &Told) -> Result<(), Trouble> {
        self.client.published(push, told)
    }

    fn give_up(&self, push: &Push) -> Result<(), Trouble> {
        self.client.give_up(push)
    }
}

/// What a site's answer says of a push.
fn missing(push: &Push, ready: Ready) -> Result<Missing, Trouble> {
    if let Some(error) = ready.error {
        return Err(Trouble::Refused(error));
    }
    let list = push.list().map_err(|e| Trouble::Ours(e.to_string()))?;
    let mut lacking: HashSet<_> = ready.absent_hashes.into_iter().collect();
    let mut absent = Bits::none_of(push.objects);
    for (at, listed) in (0..).zip(&list) {
        if lacking.remove(&listed.name) {
            absent.set(at);
        }
    }
    if !lacking.is_empty() {
        return Err(Trouble::Nonsense("objects that were not announced"));
    }
    Ok(Missing {
        session: ready.session_token,
        room: None,
        absent,
    })
}

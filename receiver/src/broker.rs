//! For a publisher that announces over a broker: what is announced is answered there, and what is
//! published heard.
//!
//! ```text
//! announce   which objects there are     ready      which of them are absent, and the session's token
//! published  a revision is visible       presence   we are here; the broker says when we are not
//! ```
//! The same doors are gone through as where a publisher calls ([`crate::site`]). Who speaks is for the
//! broker to see to, by certificates and an access list; a message that somebody forged opens a
//! transaction, or starts a snapshot, and brings no byte: objects come over HTTPS, from publishers that
//! show who they are.

use std::sync::Arc;
use std::time::Duration;

use formats::warm::list::{may_travel, write_list};
use formats::warm::message::{Announce, Message, Presence, Published, Ready};
use formats::warm::topic::{ALL_ANNOUNCEMENTS, ALL_PUBLISHED, Topic};
use formats::warm::{Listed, MessageError, TopicError};
use store::{Broker, BrokerError, BrokerOptions, BrokerTls, Saying, Speaker, chain};
use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::site::{self, Site};
use crate::trust::{Enrolled, ForEach};

/// How often new enrolments are looked for.
const LOOK: Duration = Duration::from_secs(2);
/// The largest message: an announcement of a hundred thousand objects, and the rest.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Why a message does not count.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("it is said of another repository than its topic is of")]
    Elsewhere,
    #[error("the answer is not taken")]
    Unsaid(#[from] BrokerError),
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

/// Stays connected to every broker that an enrolment names, until `stop` says so.
pub async fn run(site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let mut connected = ForEach::default();
    let mut interval = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let gone = connected.follow(&site.trust(), |who| {
            let url = who.enrolment.broker.as_ref()?;
            connect(&site, who, url)
                .inspect_err(|error| {
                    tracing::error!("the broker of {}: {}", who.file.display(), chain(error));
                })
                .ok()
        });
        part(gone).await;
    }
    part(connected.into_all()).await;
}

/// Says that we go; that takes a moment.
async fn part(connected: Vec<Broker>) {
    if !connected.is_empty() {
        let _ = tokio::task::spawn_blocking(move || drop(connected)).await;
    }
}

fn connect(site: &Arc<Site>, who: &Arc<Enrolled>, url: &str) -> Result<Broker, Refused> {
    let enrolment = &who.enrolment;
    let node = enrolment.site.to_string();
    let presence = |online| {
        let presence = Presence {
            node_id: node.clone(),
            repos: site
                .repos()
                .keys()
                .filter(|repo| who.may_send(repo))
                .cloned()
                .collect(),
            data_url: data_url(site, who),
            control_url: data_url(site, who),
            online,
            ready: online,
        };
        let topic = Topic::Presence { node: node.clone() };
        Ok::<_, Refused>(Saying {
            topic: topic.render()?,
            payload: presence.render()?,
            retain: true,
        })
    };
    let ca = enrolment.broker_ca.as_ref().unwrap_or(&enrolment.ca);
    let options = BrokerOptions {
        url: url.to_owned(),
        client_id: format!("{node}-receiver"),
        tls: BrokerTls {
            ca: ca.clone().into_bytes(),
            certificate: enrolment.certificate.clone().into_bytes(),
            key: enrolment.key.clone().into_bytes(),
        },
        subscriptions: vec![ALL_ANNOUNCEMENTS.to_owned(), ALL_PUBLISHED.to_owned()],
        greeting: Some(presence(true)?),
        will: Some(presence(false)?),
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let (site, who) = (Arc::clone(site), Arc::clone(who));
    let broker = Broker::connect(options, move |speaker, topic, payload| {
        if let Err(refused) = hear(&site, &who, speaker, topic, payload) {
            site.metrics.messages_refused.one();
            tracing::warn!(%refused, "a message over the broker does not count");
        }
    })?;
    Ok(broker)
}

/// Where publishers call; nowhere, if we come for the objects.
fn data_url(site: &Site, who: &Enrolled) -> String {
    match &who.enrolment.publisher_url {
        Some(_) => String::new(),
        None => site.config.url.clone().unwrap_or_default(),
    }
}

fn hear(
    site: &Site,
    who: &Arc<Enrolled>,
    speaker: &Speaker,
    topic: &str,
    payload: &[u8],
) -> Result<(), Refused> {
    match topic.parse::<Topic>()? {
        Topic::Announce { repo } => {
            // all sites hear of all repositories
            if !site.repos().contains_key(&repo) || !who.may_send(&repo) {
                return Ok(());
            }
            let announce = Announce::parse(payload)?;
            if announce.repo != repo {
                return Err(Refused::Elsewhere);
            }
            site.metrics.messages.one();
            let ready = answer(site, who, &announce);
            let topic = Topic::Ready {
                publisher: announce.publisher_id,
                payload: announce.payload_id,
                node: ready.node_id.clone(),
            };
            speaker.say(Saying {
                topic: topic.render()?,
                payload: ready.render()?,
                retain: false,
            })?;
        }
        Topic::Published { repo } => {
            if !site.repos().contains_key(&repo) || !who.may_send(&repo) {
                return Ok(());
            }
            let published = Published::parse(payload)?;
            if published.repo != repo {
                return Err(Refused::Elsewhere);
            }
            site.metrics.messages.one();
            let told = site::Published {
                root_hash: published.new_root_hash,
                revision: published.revision,
                published_at: published.published_at.into(),
            };
            let mut txns = published.payload_ids;
            if txns.is_empty() {
                // a publisher that names no transaction has a snapshot made all the same
                txns.push("unnamed".to_owned());
            }
            for txn in txns {
                site.published(&site.visit(who, &repo, &txn)?, &told)?;
            }
        }
        Topic::Ready { .. } | Topic::Presence { .. } => {}
    }
    Ok(())
}

/// What we lack of an announcement, or why we take no part.
fn answer(site: &Site, who: &Arc<Enrolled>, announce: &Announce) -> Ready {
    let mut ready = Ready {
        node_id: who.enrolment.site.to_string(),
        payload_id: Some(announce.payload_id.clone()),
        session_token: String::new(),
        data_url: data_url(site, who),
        absent_hashes: Vec::new(),
        error: None,
    };
    match absent(site, who, announce) {
        Ok((session, absent)) => {
            ready.session_token = session;
            ready.absent_hashes = absent;
        }
        Err(refusal) => ready.error = Some(chain(&refusal)),
    }
    ready
}

fn absent(
    site: &Site,
    who: &Arc<Enrolled>,
    announce: &Announce,
) -> Result<(String, Vec<formats::ObjectName>), Refusal> {
    let visit = site.visit(who, &announce.repo, &announce.payload_id)?;
    if announce.sizes.is_empty() && !announce.hashes.is_empty() {
        return Err(Refusal::Malformed(
            "an announcement without `sizes`: this receiver takes objects in bundles, which name them"
                .into(),
        ));
    }
    let objects: Vec<Listed> = announce
        .hashes
        .iter()
        .zip(&announce.sizes)
        // catalogs and the like come with a snapshot, after all that they name
        .filter(|(name, _)| may_travel(name))
        .map(|(name, bytes)| Listed {
            name: *name,
            bytes: *bytes,
        })
        .collect();
    let mut list = Vec::new();
    write_list(&mut list, objects.iter().copied())?;
    let missing = site.announce(&visit, list.as_slice())?;
    let absent = missing.absent.ones().map(|at| objects[at as usize].name);
    Ok((missing.session, absent.collect()))
}

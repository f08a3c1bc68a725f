//! The connection itself, on its thread: made, lost and made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttc::{AsyncClient, Event, EventLoop, Outgoing, Packet, QoS, SubscribeFilter};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Saying;
use crate::backoff::{doubled, jittered};

/// The pause after a connection failed, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted so long was one. The broker ends a client's when another comes by the same name;
/// where two have one name, each ends the other's as soon as it is back.
const STEADY: Duration = Duration::from_secs(30);
/// So many in a row that did not last are told of.
const SHORT_TOLD: u32 = 3;
/// How long the end waits for the last words to be sent.
const FAREWELL: Duration = Duration::from_secs(2);

/// How it stands, for whoever asks.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) connected: AtomicBool,
    pub(super) dropped: AtomicU64,
    pub(super) trouble: Mutex<Option<String>>,
    /// Connections in a row that did not last.
    short: AtomicU32,
}

impl Shared {
    fn short(&self) -> u32 {
        self.short.load(Ordering::Relaxed)
    }
}

/// A message that came.
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

/// What its thread has.
pub(super) struct Link {
    pub(super) url: String,
    pub(super) client_id: String,
    pub(super) client: AsyncClient,
    pub(super) shared: Arc<Shared>,
    pub(super) subscriptions: Vec<String>,
    pub(super) greeting: Option<Saying>,
    pub(super) farewell: Option<Saying>,
    pub(super) heard: SyncSender<Heard>,
}

impl Link {
    /// Returns when it is told to stop, and the last words are said.
    pub(super) async fn run(self, mut events: EventLoop, mut stopped: oneshot::Receiver<()>) {
        let mut failures = 0;
        let mut since: Option<Instant> = None;
        loop {
            if self.shared.short() > 0 && since.is_some_and(|since| since.elapsed() >= STEADY) {
                self.lasts();
            }
            let event = tokio::select! {
                event = events.poll() => event,
                _ = &mut stopped => return self.end(&mut events).await,
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    failures = 0;
                    since = Some(Instant::now());
                    self.begin();
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.pass_on(publish),
                Ok(_) => {}
                Err(error) => {
                    if since.take().is_some_and(|since| since.elapsed() < STEADY) {
                        self.shared.short.fetch_add(1, Ordering::Relaxed);
                    }
                    self.lost(&error);
                    let times = failures.max(self.shared.short().saturating_sub(1));
                    let pause = jittered(doubled(BACKOFF_FIRST, times, BACKOFF_MAX));
                    failures = failures.saturating_add(1);
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = &mut stopped => return,
                    }
                }
            }
        }
    }

    /// There is a connection, maybe with a broker that has forgotten us.
    fn begin(&self) {
        tracing::info!(broker = self.url, "connected");
        let filters = self
            .subscriptions
            .iter()
            .map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
        // what waited before the connection was taken out of the channel when that was lost
        let mut sent = match self.subscriptions.is_empty() {
            true => Ok(()),
            false => self.client.try_subscribe_many(filters).map_err(Box::new),
        };
        if let (Ok(()), Some(greeting)) = (&sent, &self.greeting) {
            sent = say(&self.client, greeting.clone());
        }
        if let Err(error) = sent {
            tracing::warn!(broker = self.url, %error, "cannot subscribe");
        }
        if self.shared.short() < SHORT_TOLD {
            *self.shared.trouble.lock() = None;
        }
        self.shared.connected.store(true, Ordering::Release);
    }

    /// This one is a connection.
    fn lasts(&self) {
        self.shared.short.store(0, Ordering::Relaxed);
        *self.shared.trouble.lock() = None;
    }

    fn lost(&self, error: &rumqttc::ConnectionError) {
        self.shared.connected.store(false, Ordering::Release);
        let why = match self.shared.short() {
            short if short >= SHORT_TOLD => format!(
                "the connection is lost as soon as it stands, again and again; somebody else may be connected as {}",
                self.client_id
            ),
            _ => error.to_string(),
        };
        let mut trouble = self.shared.trouble.lock();
        // a broker that is down for a night is one line, not a thousand
        if trouble.as_ref() != Some(&why) {
            tracing::warn!(broker = self.url, why, "not connected");
        }
        *trouble = Some(why);
    }

    fn pass_on(&self, publish: rumqttc::Publish) {
        let heard = Heard {
            topic: publish.topic,
            payload: publish.payload,
        };
        if self.heard.try_send(heard).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(broker = self.url, "more is said than can be listened to");
        }
    }

    /// The last words, which the broker would otherwise say itself; then the connection ends.
    async fn end(self, events: &mut EventLoop) {
        let connected = self.shared.connected.load(Ordering::Acquire);
        if let Some(farewell) = self.farewell.filter(|_| connected) {
            let _ = say(&self.client, farewell);
        }
        if self.client.try_disconnect().is_err() || !connected {
            return;
        }
        let sent = async {
            while let Ok(event) = events.poll().await {
                if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                    return;
                }
            }
        };
        let _ = timeout(FAREWELL, sent).await;
    }
}

/// Says something, now or when the connection is back.
pub(super) fn say(client: &AsyncClient, saying: Saying) -> Result<(), Box<rumqttc::ClientError>> {
    client
        .try_publish(
            saying.topic,
            QoS::AtLeastOnce,
            saying.retain,
            saying.payload,
        )
        .map_err(Box::new)
}

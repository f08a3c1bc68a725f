//! A broker that publishers and receivers are connected to, over MQTT 3.1.1.
//!
//! One connection, on a thread of its own, that comes back whenever it is lost: with its session, its
//! subscriptions and its greeting. What is said arrives at least once, or not at all where the broker
//! forgot; whoever waits for an answer asks again. Two clients of one name end each other's connections:
//! the pauses grow, and that is told of. What is heard is handed to one more thread, so that
//! a slow listener costs messages, which are counted, and never the connection. Nothing here knows
//! what is said.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use native_tls::{Certificate, Identity, Protocol, TlsConnector};
use parking_lot::Mutex;
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS, SubscribeFilter,
    TlsConfiguration, Transport,
};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::backoff::{doubled, jittered};

/// Where MQTT over TLS is spoken unless the URL says otherwise.
const PORT: u16 = 8883;
/// Silence after which the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The pause after a connection failed, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted so long was one. The broker ends a client's when another comes by the same name;
/// where two have one name, each ends the other's as soon as it is back.
const STEADY: Duration = Duration::from_secs(30);
/// So many in a row that did not last are told of.
const SHORT_TOLD: u32 = 3;
/// What is said and not sent yet; beyond, saying fails.
const UNSENT_MAX: usize = 64;
/// What is heard and not listened to yet; beyond, it is dropped and counted.
const UNHEARD_MAX: usize = 16;
/// What comes before a message's payload in its packet: its topic, mostly.
const PACKET_HEAD: usize = 64 << 10;
/// How long the end waits for the last words to be sent.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a broker is not used.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No URL of a broker.
    #[error("{0:?} is no broker: mqtts://HOST[:PORT]")]
    Url(String),
    /// The certificates.
    #[error("the certificate or key for the broker {url}")]
    Tls {
        /// Which broker.
        url: String,
        /// Why.
        source: native_tls::Error,
    },
    /// The system.
    #[error("no thread can be started for the broker")]
    Thread(#[source] std::io::Error),
    /// Larger than anybody reads.
    #[error("a message of {bytes} bytes; at most {most} go over the broker")]
    TooLarge {
        /// How large.
        bytes: usize,
        /// How large it may be.
        most: usize,
    },
    /// It is not connected, and more waits already than is kept.
    #[error("the broker {url} is not reachable: {why}")]
    Unreachable {
        /// Which.
        url: String,
        /// Since its last failure.
        why: String,
    },
}

/// Something said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Kept by the broker for whoever comes later.
    pub retain: bool,
}

/// Who connects, and how.
#[derive(Clone)]
pub struct BrokerOptions {
    /// `mqtts://HOST[:PORT]`.
    pub url: String,
    /// The session's name: no two clients of a broker have the same.
    pub client_id: String,
    /// Whom to trust, who it is, and its key.
    pub tls: BrokerTls,
    /// What to hear.
    pub subscriptions: Vec<String>,
    /// Said at every connection.
    pub greeting: Option<Saying>,
    /// What the broker says when the connection is lost; and what is said at the end.
    pub will: Option<Saying>,
    /// The largest message, in bytes, either way.
    pub message_bytes_max: usize,
}

impl fmt::Debug for BrokerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerOptions")
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// PEM of a client of a broker.
#[derive(Clone)]
pub struct BrokerTls {
    /// The authority that the broker's certificate is of.
    pub ca: Vec<u8>,
    /// The client's certificate.
    pub certificate: Vec<u8>,
    /// Its key, as PKCS #8.
    pub key: Vec<u8>,
}

/// A connection to a broker; dropping it says the last words.
pub struct Broker {
    speaker: Speaker,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// What says something through a connection; there may be any number of one.
#[derive(Clone)]
pub struct Speaker {
    url: String,
    message_bytes_max: usize,
    client: AsyncClient,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connected: AtomicBool,
    dropped: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// Connections in a row that did not last.
    short: AtomicU32,
}

impl Shared {
    fn short(&self) -> u32 {
        self.short.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("url", &self.speaker.url)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Begins to connect; whether that works shows in [`Broker::trouble`]. `hear` gets topic and
    /// payload of what comes, one after another, on a thread of its own, and what to answer with.
    ///
    /// # Errors
    /// [`BrokerError::Url`], [`BrokerError::Tls`], [`BrokerError::Thread`].
    pub fn connect(
        options: BrokerOptions,
        mut hear: impl FnMut(&Speaker, &str, &[u8]) + Send + 'static,
    ) -> Result<Self, BrokerError> {
        let mqtt = mqtt_options(&options)?;
        let (client, events) = AsyncClient::new(mqtt, UNSENT_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BrokerError::Thread)?;
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let (heard, to_hear): (SyncSender<Heard>, Receiver<Heard>) = sync_channel(UNHEARD_MAX);
        let link = Link {
            url: options.url.clone(),
            client_id: options.client_id,
            client: client.clone(),
            shared: shared.clone(),
            subscriptions: options.subscriptions,
            greeting: options.greeting,
            farewell: options.will,
            heard,
        };
        let connection = spawn("broker", move || {
            runtime.block_on(link.run(events, stopped));
        })?;
        let speaker = Speaker {
            url: options.url,
            message_bytes_max: options.message_bytes_max,
            client,
            shared,
        };
        let answering = speaker.clone();
        let listener = spawn("broker-hears", move || {
            for Heard { topic, payload } in to_hear {
                hear(&answering, &topic, &payload);
            }
        })?;
        Ok(Self {
            speaker,
            stop: Some(stop),
            threads: vec![connection, listener],
        })
    }

    /// As [`Speaker::say`].
    ///
    /// # Errors
    /// Those of [`Speaker::say`].
    pub fn say(&self, saying: Saying) -> Result<(), BrokerError> {
        self.speaker.say(saying)
    }

    /// True while there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.speaker.shared.connected.load(Ordering::Acquire)
    }

    /// Why there is none; or that it is lost again and again.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.speaker.shared.trouble.lock().clone()
    }

    /// How many messages came faster than they were listened to, and were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.speaker.shared.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Speaker({})", self.url)
    }
}

impl Speaker {
    /// Says something, now or when the connection is back.
    ///
    /// # Errors
    /// [`BrokerError::TooLarge`], [`BrokerError::Unreachable`].
    pub fn say(&self, saying: Saying) -> Result<(), BrokerError> {
        let bytes = saying.payload.len();
        if bytes > self.message_bytes_max {
            return Err(BrokerError::TooLarge {
                bytes,
                most: self.message_bytes_max,
            });
        }
        say(&self.client, saying).map_err(|_| BrokerError::Unreachable {
            url: self.url.clone(),
            why: self
                .shared
                .trouble
                .lock()
                .clone()
                .unwrap_or_else(|| "it takes nothing more".to_owned()),
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Heard {
    topic: String,
    payload: Bytes,
}

/// What the connection's thread has.
struct Link {
    url: String,
    client_id: String,
    client: AsyncClient,
    shared: Arc<Shared>,
    subscriptions: Vec<String>,
    greeting: Option<Saying>,
    farewell: Option<Saying>,
    heard: SyncSender<Heard>,
}

impl Link {
    async fn run(self, mut events: EventLoop, mut stopped: oneshot::Receiver<()>) {
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

fn say(client: &AsyncClient, saying: Saying) -> Result<(), Box<rumqttc::ClientError>> {
    client
        .try_publish(
            saying.topic,
            QoS::AtLeastOnce,
            saying.retain,
            saying.payload,
        )
        .map_err(Box::new)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BrokerError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(BrokerError::Thread)
}

fn mqtt_options(options: &BrokerOptions) -> Result<MqttOptions, BrokerError> {
    let (host, port) = endpoint(&options.url)?;
    let mut mqtt = MqttOptions::new(options.client_id.clone(), host, port);
    mqtt.set_keep_alive(KEEP_ALIVE)
        .set_clean_session(false)
        .set_max_packet_size(
            options.message_bytes_max + PACKET_HEAD,
            options.message_bytes_max + PACKET_HEAD,
        );
    if let Some(will) = &options.will {
        let Saying {
            topic,
            payload,
            retain,
        } = will.clone();
        mqtt.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, retain));
    }
    let connector = connector(&options.tls).map_err(|source| BrokerError::Tls {
        url: options.url.clone(),
        source,
    })?;
    let tls = TlsConfiguration::NativeConnector(connector);
    mqtt.set_transport(Transport::tls_with_config(tls));
    Ok(mqtt)
}

fn connector(tls: &BrokerTls) -> native_tls::Result<TlsConnector> {
    TlsConnector::builder()
        .min_protocol_version(Some(Protocol::Tlsv12))
        // the broker is the site's own: no other authority has a say in who it is
        .disable_built_in_roots(true)
        .add_root_certificate(Certificate::from_pem(&tls.ca)?)
        .identity(Identity::from_pkcs8(&tls.certificate, &tls.key)?)
        .build()
}

/// Host and port; the other schemes are those of prepub's predecessor.
fn endpoint(url: &str) -> Result<(String, u16), BrokerError> {
    let bad = || BrokerError::Url(url.to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    if !matches!(scheme, "mqtts" | "ssl" | "tls") {
        return Err(bad());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
        _ => (rest, PORT),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        return Err(bad());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_brokers() {
        let known = [
            ("mqtts://b.example.org", ("b.example.org", 8883)),
            ("ssl://localhost:1884/", ("localhost", 1884)),
            ("tls://[::1]:8884", ("::1", 8884)),
            ("mqtts://[::1]", ("::1", 8883)),
        ];
        for (url, (host, port)) in known {
            assert_eq!(endpoint(url).unwrap(), (host.to_owned(), port));
        }
        for url in [
            "b.example.org",
            "https://b",
            "mqtt://b",
            "mqtts://",
            "mqtts://b:x",
            "mqtts://u@b",
            "mqtts://b/path",
        ] {
            let error = endpoint(url).unwrap_err();
            assert!(matches!(error, BrokerError::Url(_)), "{url}");
        }
    }
}

//! A broker that publishers and receivers are connected to, over MQTT 3.1.1.
//!
//! One connection, on a thread of its own, that comes back whenever it is lost: with its session, its
//! subscriptions and its greeting. What is said arrives at least once, or not at all where the broker
//! forgot; whoever waits for an answer asks again. Two clients of one name end each other's connections:
//! the pauses grow, and that is told of. What is heard is handed to one more thread, so that
//! a slow listener costs messages, which are counted, and never the connection. Nothing here knows
//! what is said.

mod link;
mod options;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rumqttc::AsyncClient;
use tokio::sync::oneshot;

use link::{Heard, Link, Shared};
pub use options::{BrokerOptions, BrokerTls};

/// What is said and not sent yet; beyond, saying fails.
const UNSENT_MAX: usize = 64;
/// What is heard and not listened to yet; beyond, it is dropped and counted.
const UNHEARD_MAX: usize = 16;

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
        let mqtt = options.mqtt()?;
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
        link::say(&self.client, saying).map_err(|_| BrokerError::Unreachable {
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

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BrokerError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(BrokerError::Thread)
}

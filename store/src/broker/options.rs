//! Who connects to which broker, and as whom.

use std::fmt;
use std::time::Duration;

use native_tls::{Certificate, Identity, Protocol, TlsConnector};
use rumqttc::{LastWill, MqttOptions, QoS, TlsConfiguration, Transport};

use super::{BrokerError, Saying};

/// Where MQTT over TLS is spoken unless the URL says otherwise.
const PORT: u16 = 8883;
/// Silence after which the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// What comes before a message's payload in its packet: its topic, mostly.
const PACKET_HEAD: usize = 64 << 10;

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

impl BrokerOptions {
    /// The same, as the library has it.
    pub(super) fn mqtt(&self) -> Result<MqttOptions, BrokerError> {
        let (host, port) = endpoint(&self.url)?;
        let mut mqtt = MqttOptions::new(self.client_id.clone(), host, port);
        mqtt.set_keep_alive(KEEP_ALIVE)
            .set_clean_session(false)
            .set_max_packet_size(
                self.message_bytes_max + PACKET_HEAD,
                self.message_bytes_max + PACKET_HEAD,
            );
        if let Some(will) = &self.will {
            let Saying {
                topic,
                payload,
                retain,
            } = will.clone();
            mqtt.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, retain));
        }
        let connector = connector(&self.tls).map_err(|source| BrokerError::Tls {
            url: self.url.clone(),
            source,
        })?;
        let tls = TlsConfiguration::NativeConnector(connector);
        mqtt.set_transport(Transport::tls_with_config(tls));
        Ok(mqtt)
    }
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

//! The file that makes a receiver a publisher's site: one file, everything in it.
//!
//! ```toml
//! site = "cern"
//! publisher = "stratum0.example.org"
//! publisher_url = "https://stratum0.example.org:8444"   # only for a site that pulls
//! repositories = ["sw.example.org"]                     # empty: all that the receiver is configured for
//! broker = "mqtts://broker.example.org:8883"            # only where there is one
//! broker_ca = """-----BEGIN CERTIFICATE-----..."""      # where its certificate is not the publisher's authority's
//! ca = """-----BEGIN CERTIFICATE-----..."""
//! certificate = """-----BEGIN CERTIFICATE-----..."""
//! key = """-----BEGIN PRIVATE KEY-----..."""
//! ```
//!
//! It holds a secret: whoever writes it gives it mode 0600. An enrolment that was read is consistent:
//! the certificate is the site's, the authority's, and the key's.

use std::fmt;
use std::fmt::Write as _;

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use serde::Deserialize;

use crate::path::is_repository_name;

use super::identity::{self, IdentityError, NodeName, PeerIdentity, Role};

/// The longest file that is read: three PEM blocks take three thousand bytes, the rest is names.
pub const ENROLMENT_BYTES_MAX: usize = 256 << 10;

/// Why a text is no enrolment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnrolmentError {
    /// Too long to be one.
    #[error("{0} bytes are no enrolment")]
    TooLong(usize),
    /// No TOML, a field that is missing or one that is not known. The text is not repeated: it may hold a key.
    #[error("no enrolment: {0}")]
    Syntax(String),
    /// A field that does not hold what it should.
    #[error("in the enrolment's field {field}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The certificate is another node's.
    #[error("the enrolment is for the site {site}, but its certificate is the {role} {name}'s")]
    WrongCertificate {
        /// Whose file it is.
        site: NodeName,
        /// What the certificate says.
        role: Role,
        /// Whose certificate it is.
        name: NodeName,
    },
    /// A repository that cannot be one.
    #[error("repositories: {0:?} is no repository's name")]
    BadRepository(String),
    /// A URL that nothing can be fetched from.
    #[error("publisher_url {0:?} does not begin with https://")]
    BadUrl(String),
    /// A broker's authority without a broker.
    #[error("broker_ca stands without broker")]
    NoBroker,
}

/// What a site knows of one publisher.
#[derive(Clone)]
pub struct Enrolment {
    /// The site's name.
    pub site: NodeName,
    /// The publisher's name.
    pub publisher: NodeName,
    /// Where the site asks for work, if it pulls: `https://HOST:PORT`.
    pub publisher_url: Option<String>,
    /// Repositories that the publisher may send; empty: all that the receiver is configured for.
    pub repositories: Vec<String>,
    /// The broker that both are connected to, if any: `mqtts://HOST:PORT`.
    pub broker: Option<String>,
    /// The authority that its certificate is of, `BEGIN CERTIFICATE`; none: the publisher's.
    pub broker_ca: Option<String>,
    /// The publisher's authority, `BEGIN CERTIFICATE`.
    pub ca: String,
    /// The site's certificate.
    pub certificate: String,
    /// Its key, `BEGIN PRIVATE KEY`.
    pub key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    site: String,
    publisher: String,
    publisher_url: Option<String>,
    #[serde(default)]
    repositories: Vec<String>,
    broker: Option<String>,
    broker_ca: Option<String>,
    ca: String,
    certificate: String,
    key: String,
}

/// An enrolment's certificates and key, ready for TLS.
pub struct Credentials {
    /// The publisher's authority.
    pub ca: X509,
    /// The site's certificate.
    pub certificate: X509,
    /// Its key.
    pub key: PKey<Private>,
}

impl Enrolment {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`EnrolmentError`].
    pub fn parse(text: &str) -> Result<Self, EnrolmentError> {
        if text.len() > ENROLMENT_BYTES_MAX {
            return Err(EnrolmentError::TooLong(text.len()));
        }
        let read: Text =
            toml::from_str(text).map_err(|e| EnrolmentError::Syntax(e.message().to_owned()))?;
        let name = |field, text: &str| {
            let parsed: Result<NodeName, _> = text.parse();
            parsed.map_err(|source| EnrolmentError::Field { field, source })
        };
        if let Some(url) = read
            .publisher_url
            .as_ref()
            .filter(|url| !url.starts_with("https://"))
        {
            return Err(EnrolmentError::BadUrl(url.chars().take(200).collect()));
        }
        if let Some(repo) = read
            .repositories
            .iter()
            .find(|repo| !is_repository_name(repo))
        {
            return Err(EnrolmentError::BadRepository(
                repo.chars().take(80).collect(),
            ));
        }
        match (&read.broker, &read.broker_ca) {
            (None, Some(_)) => return Err(EnrolmentError::NoBroker),
            (_, Some(ca)) => identity::certificate(ca.as_bytes())
                .map(drop)
                .map_err(|source| EnrolmentError::Field {
                    field: "broker_ca",
                    source,
                })?,
            (_, None) => {}
        }
        let enrolment = Self {
            site: name("site", &read.site)?,
            publisher: name("publisher", &read.publisher)?,
            publisher_url: read.publisher_url,
            repositories: read.repositories,
            broker: read.broker,
            broker_ca: read.broker_ca,
            ca: read.ca,
            certificate: read.certificate,
            key: read.key,
        };
        enrolment.credentials()?;
        Ok(enrolment)
    }

    /// The certificates and the key, checked against one another.
    ///
    /// # Errors
    /// [`EnrolmentError::Field`], [`EnrolmentError::WrongCertificate`].
    pub fn credentials(&self) -> Result<Credentials, EnrolmentError> {
        let wrong = |field| move |source| EnrolmentError::Field { field, source };
        let ca = identity::certificate(self.ca.as_bytes()).map_err(wrong("ca"))?;
        let certificate =
            identity::certificate(self.certificate.as_bytes()).map_err(wrong("certificate"))?;
        let key = identity::private_key(self.key.as_bytes()).map_err(wrong("key"))?;
        let PeerIdentity { role, name, .. } =
            identity::peer(&certificate).map_err(wrong("certificate"))?;
        if role != Role::Site || name != self.site {
            let site = self.site.clone();
            return Err(EnrolmentError::WrongCertificate { site, role, name });
        }
        if !PeerIdentity::issued_by(&certificate, &ca) {
            return Err(wrong("certificate")(IdentityError::NotIssued(name)));
        }
        let public = certificate.public_key();
        if !public.is_ok_and(|public| public.public_eq(&key)) {
            return Err(wrong("key")(IdentityError::KeyMismatch(name)));
        }
        Ok(Credentials {
            ca,
            certificate,
            key,
        })
    }

    /// The file's text. It holds the key.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "# Makes the receiver that reads it the site {} of the publisher {}. It holds a secret key.\n",
            self.site, self.publisher
        );
        let quoted = |value: &str| toml::Value::from(value).to_string();
        let fields = [
            ("site", self.site.as_str()),
            ("publisher", self.publisher.as_str()),
        ];
        let urls = [
            ("publisher_url", &self.publisher_url),
            ("broker", &self.broker),
        ];
        let urls = urls
            .into_iter()
            .filter_map(|(field, url)| Some((field, url.as_deref()?)));
        for (field, value) in fields.into_iter().chain(urls) {
            let _ = writeln!(text, "{field} = {}", quoted(value));
        }
        let names: Vec<_> = self.repositories.iter().map(|name| quoted(name)).collect();
        let _ = writeln!(text, "repositories = [{}]", names.join(", "));
        let pems = [
            ("broker_ca", self.broker_ca.as_ref()),
            ("ca", Some(&self.ca)),
            ("certificate", Some(&self.certificate)),
            ("key", Some(&self.key)),
        ];
        let pems = pems
            .into_iter()
            .filter_map(|(field, pem)| Some((field, pem?)));
        for (field, pem) in pems {
            let _ = writeln!(text, "{field} = \"\"\"\n{}\n\"\"\"", pem.trim());
        }
        text
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enrolment({} of {})", self.site, self.publisher)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests;

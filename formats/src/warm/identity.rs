//! Who speaks: a publisher's own certificate authority, and the certificates that it issues.
//!
//! ```text
//! publisher's CA --issues--> the publisher's certificate    URI:prepub:publisher/NAME
//!                --issues--> a site's certificate           URI:prepub:site/NAME
//!                --signs---> a list of revoked serials      for programs that know no registry: a broker
//! ```
//!
//! A certificate's name stands in its common name and, with the role, in a URI among its alternative
//! names [RFC 5280, 4.2.1.6]; both must agree. So a site's certificate never acts as a publisher, nor
//! as another site. That a certificate leads to the authority is checked by TLS, or by
//! [`PeerIdentity::issued_by`]; whether its serial is (still) the one under its name, by whoever keeps
//! the registry. A certificate's term is checked by TLS: this module reads no clock.

mod authority;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref, X509VerifyResult};

pub use authority::{Authority, Issued, Subject};

/// The longest common name that X.509 has room for [RFC 5280, `ub-common-name`].
pub const NAME_BYTES_MAX: usize = 64;

/// The longest serial that certificates may have, in hex digits [RFC 5280, 4.1.2.2].
const SERIAL_DIGITS_MAX: usize = 40;

/// What begins the URI with a certificate's role and name.
const URI_SCHEME: &str = "prepub:";

/// Why a certificate is no good, or none can be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IdentityError {
    /// A name that cannot be a node's.
    #[error(
        "{0:?} is no node's name: 1 to 64 letters, digits, dots, dashes and underscores, and no dot or dash first"
    )]
    BadName(String),
    /// A serial that no certificate has.
    #[error("{0:?} is no certificate's serial")]
    BadSerial(String),
    /// The bytes are no PEM of the kind wanted, or encrypted.
    #[error("not {wanted} in PEM form")]
    NotPem {
        /// What was wanted.
        wanted: &'static str,
        /// What OpenSSL says.
        source: ErrorStack,
    },
    /// A certificate that says no role, several, or another name beside it.
    #[error("the certificate names no node: {0}")]
    Nameless(&'static str),
    /// The private key does not belong to the certificate.
    #[error("the key does not belong to the certificate of {0}")]
    KeyMismatch(NodeName),
    /// A certificate of another authority.
    #[error("the certificate of {0} was not issued by this authority")]
    NotIssued(NodeName),
    /// OpenSSL cannot do what must work.
    #[error("OpenSSL failed to {doing}")]
    OpenSsl {
        /// What it was asked to do.
        doing: &'static str,
        /// What it says.
        source: ErrorStack,
    },
}

fn failed(doing: &'static str) -> impl Fn(ErrorStack) -> IdentityError {
    move |source| IdentityError::OpenSsl { doing, source }
}

fn not_pem(wanted: &'static str) -> impl Fn(ErrorStack) -> IdentityError {
    move |source| IdentityError::NotPem { wanted, source }
}

/// A node's name: a site's, or a publisher's. It fits a common name, a file name and a level of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let first = text.bytes().next();
        if text.len() > NAME_BYTES_MAX
            || !text.bytes().all(good)
            || matches!(first, None | Some(b'.' | b'-'))
        {
            return Err(IdentityError::BadName(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node may act as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A Stratum 1 with a receiver.
    Site,
    /// The one who publishes.
    Publisher,
    /// What carries messages between them: nobody who may do anything, so [`peer`] knows no such one.
    Broker,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Publisher => "publisher",
            Self::Broker => "broker",
        }
    }

    fn uri(self, name: &NodeName) -> String {
        format!("{URI_SCHEME}{}/{name}", self.word())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A certificate's serial number, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(String);

impl Serial {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(certificate: &X509Ref) -> Result<Self, IdentityError> {
        let digits = || {
            Ok(certificate
                .serial_number()
                .to_bn()?
                .to_hex_str()?
                .to_lowercase())
        };
        digits().map_err(failed("read a serial"))?.parse()
    }
}

impl FromStr for Serial {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.is_empty() || text.len() > SERIAL_DIGITS_MAX || !text.bytes().all(digit) {
            return Err(IdentityError::BadSerial(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a certificate says its holder is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// What it may act as.
    pub role: Role,
    /// Its name.
    pub name: NodeName,
    /// Which of the certificates under that name it has.
    pub serial: Serial,
}

impl PeerIdentity {
    /// Checks that `authority` issued this certificate; nothing else is looked at.
    #[must_use]
    pub fn issued_by(certificate: &X509Ref, authority: &X509Ref) -> bool {
        let signed = || certificate.verify(&*authority.public_key()?);
        authority.issued(certificate) == X509VerifyResult::OK && signed().unwrap_or(false)
    }
}

/// Reads whose certificate it is. What TLS checks (the chain, the term) is not checked here.
///
/// # Errors
/// [`IdentityError::Nameless`] and those of a name and a serial.
pub fn peer(certificate: &X509Ref) -> Result<PeerIdentity, IdentityError> {
    let alternatives = certificate
        .subject_alt_names()
        .ok_or(IdentityError::Nameless("it has no alternative names"))?;
    let mut said = alternatives
        .iter()
        .filter_map(|name| name.uri()?.strip_prefix(URI_SCHEME));
    let uri = said
        .next()
        .ok_or(IdentityError::Nameless("no URI says its role"))?;
    if said.next().is_some() {
        return Err(IdentityError::Nameless("it has several roles"));
    }
    let (role, name) = match uri.split_once('/') {
        Some(("site", name)) => (Role::Site, name),
        Some(("publisher", name)) => (Role::Publisher, name),
        _ => return Err(IdentityError::Nameless("its role is unknown")),
    };
    let mut common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    let same = |entry: &openssl::x509::X509NameEntryRef| entry.data().as_slice() == name.as_bytes();
    if !common.next().is_some_and(same) || common.next().is_some() {
        return Err(IdentityError::Nameless("its common name is another"));
    }
    Ok(PeerIdentity {
        role,
        name: name.parse()?,
        serial: Serial::of(certificate)?,
    })
}

/// Reads a certificate out of PEM; of several, the first.
///
/// # Errors
/// [`IdentityError::NotPem`].
pub fn certificate(pem: &[u8]) -> Result<X509, IdentityError> {
    X509::from_pem(pem).map_err(not_pem("a certificate"))
}

/// Reads a private key out of PEM, unencrypted.
///
/// # Errors
/// [`IdentityError::NotPem`].
pub fn private_key(pem: &[u8]) -> Result<PKey<Private>, IdentityError> {
    // OpenSSL would ask for a passphrase on the terminal
    let no_passphrase = |_: &mut [u8]| Err(ErrorStack::get());
    PKey::private_key_from_pem_callback(pem, no_passphrase)
        .map_err(not_pem("an unencrypted private key"))
}

/// When a certificate's term ends.
///
/// # Errors
/// [`IdentityError::OpenSsl`] for a time that is none.
pub fn not_after(certificate: &X509Ref) -> Result<SystemTime, IdentityError> {
    system_time(certificate.not_after()).map_err(failed("read a time"))
}

/// When a certificate's term begins.
///
/// # Errors
/// As [`not_after`].
pub fn not_before(certificate: &X509Ref) -> Result<SystemTime, IdentityError> {
    system_time(certificate.not_before()).map_err(failed("read a time"))
}

fn system_time(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    let ago = Duration::from_secs(seconds.unsigned_abs());
    Ok(if seconds < 0 {
        SystemTime::UNIX_EPOCH - ago
    } else {
        SystemTime::UNIX_EPOCH + ago
    })
}

#[cfg(test)]
mod tests;

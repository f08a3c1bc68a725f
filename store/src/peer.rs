//! What publisher and Stratum 1 have in common on the wire: HTTPS where each side shows a certificate.
//!
//! [`Credentials`] are one relation of trust: an authority, and our own certificate from it. A
//! listener may have several, one a publisher; which certificate it shows is decided by the name that
//! the client asks for. Whoever connects must show a certificate that leads to one of the
//! authorities, and a service is then made for that [`Peer`]. What a peer may do is the service's
//! affair: nothing here knows roles, names or registers.
//!
//! TLS follows the system's policy for OpenSSL, from 1.2 on. Sessions are not resumed: a certificate
//! that was withdrawn since would not be looked at again.

mod listen;

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use formats::warm::enrolment::Credentials;
use formats::warm::identity::{self, IdentityError, PeerIdentity};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::{
    NameType, SniError, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef,
    SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Ref};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

pub use listen::{Host, ListenLimits, listen};

/// Below which the names lie that ask for an authority's certificate; nobody has it [RFC 6761, 6.4].
const ASKED_BELOW: &str = "prepub.invalid";

/// Why there is no listener, or no connection.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// OpenSSL refuses the set-up.
    #[error("TLS cannot be set up")]
    Setup(#[from] ErrorStack),
    /// Nothing to show and nobody to trust.
    #[error("no certificate to show and no authority to trust")]
    Empty,
    /// The handshake took too long.
    #[error("the handshake took longer than {0:?}")]
    Slow(Duration),
    /// The handshake failed: a foreign, expired or missing certificate, or no TLS at all.
    #[error("the handshake failed: {0}")]
    Handshake(openssl::ssl::Error),
    /// The handshake failed for the time: either clock may be wrong.
    #[error(
        "the handshake failed: {what}; compare this machine's clock with the other's, then the certificates' terms ({source})"
    )]
    Term {
        /// Whose certificate, and how.
        what: &'static str,
        /// What OpenSSL says.
        source: openssl::ssl::Error,
    },
    /// A connection without a verified chain; the handshake should not have let it through.
    #[error("no verified certificate")]
    Unverified,
    /// No connection at all.
    #[error("{to}: cannot be connected")]
    Connect {
        /// Host and port.
        to: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate that the authority issued, and that names no node.
    #[error("the certificate is no node's")]
    Identity(#[from] IdentityError),
}

/// SHA-256 of a certificate: names an authority.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this certificate.
    ///
    /// # Errors
    /// When OpenSSL cannot hash.
    pub fn of(certificate: &X509Ref) -> Result<Self, ErrorStack> {
        let digest = certificate.digest(MessageDigest::sha256())?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&digest);
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Sets up one end with our certificate; who is trusted is the caller's affair.
///
/// # Errors
/// [`PeerError::Setup`].
pub fn show(context: &mut SslContextBuilder, ours: &Credentials) -> Result<(), PeerError> {
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_certificate(&ours.certificate)?;
    context.set_private_key(&ours.key)?;
    context.check_private_key()?;
    Ok(())
}

/// Takes handshakes. Clones share it.
#[derive(Clone)]
pub struct Acceptor(SslContext);

impl Acceptor {
    /// For these relations; where a client asks for no host of them, the first is shown.
    ///
    /// # Errors
    /// [`PeerError::Empty`], [`PeerError::Setup`].
    pub fn new(credentials: &[Credentials]) -> Result<Self, PeerError> {
        let (first, rest) = credentials.split_first().ok_or(PeerError::Empty)?;
        let mut others = Vec::new();
        for other in rest {
            let context = context(other, credentials)?.build();
            others.push((asked_as(&other.ca)?, other.certificate.clone(), context));
        }
        let shown = (asked_as(&first.ca)?, first.certificate.clone());
        let mut main = context(first, credentials)?;
        main.set_servername_callback(move |ssl, _| choose(ssl, &shown, &others));
        Ok(Self(main.build()))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// [`PeerError::Slow`], [`PeerError::Handshake`], [`PeerError::Unverified`].
    pub async fn accept(
        &self,
        socket: TcpStream,
        wait: Duration,
    ) -> Result<(SslStream<TcpStream>, Peer), PeerError> {
        let from = socket.peer_addr().ok();
        let mut stream = SslStream::new(Ssl::new(&self.0)?, socket)?;
        let shaken = tokio::time::timeout(wait, Pin::new(&mut stream).accept()).await;
        let shaken = shaken.map_err(|_| PeerError::Slow(wait))?;
        shaken.map_err(|error| broke(stream.ssl(), error))?;
        let peer = Peer::of(stream.ssl(), from)?;
        Ok((stream, peer))
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

fn context(ours: &Credentials, all: &[Credentials]) -> Result<SslContextBuilder, PeerError> {
    let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
    show(&mut context, ours)?;
    let mut trusted = X509StoreBuilder::new()?;
    for Credentials { ca, .. } in all {
        trusted.add_cert(ca.clone())?;
        context.add_client_ca(ca)?;
    }
    context.set_cert_store(trusted.build());
    context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_options(SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION);
    Ok(context)
}

/// The host name by which a client asks for the certificate that an authority of its issued: the
/// sites of two publishers may be one host, which then has two certificates and one name.
///
/// # Errors
/// When OpenSSL cannot hash.
pub fn asked_as(authority: &X509Ref) -> Result<String, ErrorStack> {
    let name = Fingerprint::of(authority)?.to_string();
    // half of it: a label has 63 letters at most
    Ok(format!("{}.{ASKED_BELOW}", &name[..32]))
}

/// Shows the certificate that is asked for: by its authority, or by one of its hosts.
fn choose(
    ssl: &mut SslRef,
    first: &(String, X509),
    others: &[(String, X509, SslContext)],
) -> Result<(), SniError> {
    let Some(host) = ssl.servername(NameType::HOST_NAME) else {
        return Ok(());
    };
    if *host == first.0 {
        return Ok(());
    }
    let by_authority = others.iter().find(|(name, ..)| name == host);
    let by_host = || {
        let mut others = others.iter();
        others.find(|(_, shown, _)| !is_for(&first.1, host) && is_for(shown, host))
    };
    match by_authority.or_else(by_host) {
        Some((_, _, context)) => {
            let context = context.clone();
            ssl.set_ssl_context(&context)
                .map_err(|_| SniError::ALERT_FATAL)
        }
        None => Ok(()),
    }
}

fn is_for(certificate: &X509, host: &str) -> bool {
    certificate.subject_alt_names().is_some_and(|names| {
        names.iter().any(|name| {
            name.dnsname()
                .is_some_and(|dns| dns.eq_ignore_ascii_case(host))
        })
    })
}

/// Why a handshake failed.
fn broke(ssl: &SslRef, source: openssl::ssl::Error) -> PeerError {
    // numbers of OpenSSL's x509_vfy.h, which have no names in the binding
    const NOT_YET_VALID: i32 = 9;
    const HAS_EXPIRED: i32 = 10;
    let what = match ssl.verify_result().as_raw() {
        NOT_YET_VALID => "the other end's certificate is not valid yet, by this machine's clock",
        HAS_EXPIRED => "the other end's certificate has expired, by this machine's clock",
        _ if source.to_string().contains(EXPIRED_ALERT) => {
            "our certificate has expired, by the other end's clock"
        }
        _ => return PeerError::Handshake(source),
    };
    PeerError::Term { what, source }
}

/// What OpenSSL calls the alert by which an end says so [RFC 8446, 6.2].
pub const EXPIRED_ALERT: &str = "alert certificate expired";

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who its certificate says it is.
    pub identity: PeerIdentity,
    /// Who issued that.
    pub authority: Fingerprint,
    /// From where it connects; none if it is gone already.
    pub from: Option<SocketAddr>,
}

impl Peer {
    fn of(ssl: &SslRef, from: Option<SocketAddr>) -> Result<Self, PeerError> {
        let certificate = ssl.peer_certificate().ok_or(PeerError::Unverified)?;
        let chain = ssl.verified_chain().ok_or(PeerError::Unverified)?;
        let root = chain.iter().last().ok_or(PeerError::Unverified)?;
        Ok(Self {
            authority: Fingerprint::of(root)?,
            identity: identity::peer(&certificate)?,
            from,
        })
    }
}

/// The addresses of a host, or the one that it is.
///
/// # Errors
/// Those of the system, and of a name that nobody has.
pub async fn addresses(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.collect())
}

/// Connects to a host. Who must be there is told by the identity in [`Peer`], which the caller looks
/// at: a name that the publisher gave is worth more than one that a resolver did.
///
/// # Errors
/// [`PeerError`].
pub async fn connect(
    ours: &Credentials,
    host: &str,
    port: u16,
    wait: Duration,
) -> Result<(SslStream<TcpStream>, Peer), PeerError> {
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    show(&mut context, ours)?;
    let mut trusted = X509StoreBuilder::new()?;
    trusted.add_cert(ours.ca.clone())?;
    context.set_cert_store(trusted.build());
    context.set_verify(SslVerifyMode::PEER);
    let mut ssl = Ssl::new(&context.build())?;
    ssl.set_hostname(&asked_as(&ours.ca)?)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let shaken = async {
        let socket = TcpStream::connect((host, port)).await;
        let socket = socket.map_err(|source| PeerError::Connect {
            to: format!("{host}:{port}"),
            source,
        })?;
        let _ = socket.set_nodelay(true);
        let to = socket.peer_addr().ok();
        let mut stream = SslStream::new(ssl, socket)?;
        let shaken = Pin::new(&mut stream).connect().await;
        shaken.map_err(|error| broke(stream.ssl(), error))?;
        let peer = Peer::of(stream.ssl(), to)?;
        Ok((stream, peer))
    };
    let shaken = tokio::time::timeout(wait, shaken).await;
    shaken.map_err(|_| PeerError::Slow(wait))?
}

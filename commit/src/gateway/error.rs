//! What can go wrong with a gateway, told apart where the way out differs.
//!
//! No message and no source holds a lease's URL, which is its token.

use std::time::Duration;

use formats::object::ObjectName;

use super::client::API_VERSION;

/// Why a gateway did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The URL or the HTTP library.
    #[error("cannot speak to a gateway at {url}")]
    Client {
        /// The API's URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// OpenSSL makes no HMAC.
    #[error("cannot sign requests to the gateway")]
    Hmac(#[source] openssl::error::ErrorStack),
    /// Nobody answers there: the request was never made.
    #[error("the gateway at {url} cannot be reached; check that cvmfs_gateway runs there")]
    Unreachable {
        /// The API's URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The request may or may not have arrived.
    #[error("the gateway did not answer when asked to {what}")]
    NoReply {
        /// What was asked.
        what: &'static str,
        /// Why.
        source: reqwest::Error,
    },
    /// The answer makes no sense.
    #[error("the gateway answered {status} {text:?} when asked to {what}; is this its API's URL?")]
    Strange {
        /// What was asked.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// How the answer begins.
        text: String,
    },
    /// Somebody has a lease that overlaps.
    #[error("{path} is leased to somebody else{}", for_how_long(.left))]
    Busy {
        /// The path that was wanted.
        path: String,
        /// When that lease ends at the latest.
        left: Option<Duration>,
    },
    /// The lease has expired, was dropped, or never was.
    #[error("the lease has expired")]
    InvalidLease,
    /// Unknown key, or wrong secret.
    #[error(
        "the gateway does not accept key {id:?}; compare the key file with the gateway's own and repo.json"
    )]
    InvalidKey {
        /// The key's id.
        id: String,
    },
    /// The gateway has no such repository.
    #[error(
        "the gateway does not serve {repo}; add it to repo.json there and restart cvmfs_gateway"
    )]
    UnknownRepository {
        /// Which.
        repo: String,
    },
    /// It speaks a newer protocol only, or an older one.
    #[error(
        "the gateway speaks another protocol than prepub, whose version is {API_VERSION}: {reason}"
    )]
    Protocol {
        /// The gateway's words.
        reason: String,
    },
    /// The repository is switched off there.
    #[error("{repo} is disabled on the gateway; enable it there")]
    Disabled {
        /// Which.
        repo: String,
    },
    /// The key is for other paths.
    #[error("key {id:?} may not publish below {path}")]
    PathNotAllowed {
        /// The key's id.
        id: String,
        /// The path that was wanted.
        path: String,
    },
    /// The receiver, or whatever else the gateway reports.
    #[error("the gateway failed to {what}: {reason}")]
    Failed {
        /// What was asked.
        what: &'static str,
        /// The gateway's words.
        reason: String,
    },
    /// Too long for the receiver.
    #[error("object {name} has {bytes} bytes, and a payload carries less than 4 GiB of one object")]
    ObjectTooLarge {
        /// Which.
        name: ObjectName,
        /// Its stored size.
        bytes: u64,
    },
    /// The gateway took an object and does not have it.
    #[error("the gateway accepted object {name}, and it is not at {place}")]
    NotStored {
        /// Which.
        name: ObjectName,
        /// The Stratum 0.
        place: String,
    },
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] store::Injected),
    /// Not begun, for it could not end in time.
    #[error("the lease ends in {} s, too soon to begin", .left.as_secs())]
    TooLate {
        /// What is left of it.
        left: Duration,
    },
}

fn for_how_long(left: &Option<Duration>) -> String {
    left.map_or_else(String::new, |left| {
        format!(", for {} s at most", left.as_secs())
    })
}

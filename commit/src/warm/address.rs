//! Where a site is called, and by which name it is asked for.
//!
//! A Stratum 1 may serve several publishers: it is one host then, with a certificate of each. So it is asked
//! by a name that says whose certificate is wanted (`store::peer::asked_as`), at the address that the
//! site has. That it is the site that was meant is told by its certificate, not by a host's name.

use std::sync::Arc;

use formats::warm::identity::{self, IdentityError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::registry::OwnCredentials;

/// See the module's head.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// `https://NAME:PORT`.
    pub(super) url: String,
    host: Arc<str>,
}

impl Address {
    /// Of `https://HOST:PORT`, for those who trust this authority.
    pub(super) fn new(url: &str, own: &OwnCredentials) -> Result<Self, IdentityError> {
        let bad = || IdentityError::Nameless("its URL has no host");
        let parsed = reqwest::Url::parse(url).map_err(|_| bad())?;
        let host = parsed.host_str().ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = parsed.port_or_known_default().ok_or_else(bad)?;
        let ca = identity::certificate(&own.ca)?;
        let name = store::peer::asked_as(&ca).map_err(|source| IdentityError::OpenSsl {
            doing: "hash a certificate",
            source,
        })?;
        Ok(Self {
            url: format!("https://{name}:{port}"),
            host: host.into(),
        })
    }
}

impl Resolve for Address {
    fn resolve(&self, _: Name) -> Resolving {
        let host = Arc::clone(&self.host);
        Box::pin(async move {
            let found = store::peer::addresses(&host).await;
            found
                .map(|addresses| Box::new(addresses.into_iter()) as Addrs)
                .map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
        })
    }
}

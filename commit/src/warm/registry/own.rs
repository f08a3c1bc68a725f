//! What the publisher itself shows to its sites.

use std::time::{Duration, SystemTime};

use formats::warm::enrolment::Credentials;
use formats::warm::identity::{self, Authority, IdentityError, NodeName, Role, Subject};
use store::failpoint;

use super::{CA_CERTIFICATE, Registry, RegistryError, Us, host_of};
use crate::home::replace_file;

const OWN_CERTIFICATE: &str = "publisher.crt";
const OWN_KEY: &str = "publisher.key";

/// Our own certificate is renewed when it has less than this left: sites trust the authority, and
/// notice nothing.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * 86_400);

impl Registry {
    /// What the publisher shows and trusts, renewed where its end is near; none before the first
    /// site.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn credentials(
        &self,
        us: &Us,
        now: SystemTime,
    ) -> Result<Option<OwnCredentials>, RegistryError> {
        if self.read(CA_CERTIFICATE)?.is_none() {
            return Ok(None);
        }
        let authority = self.authority(now)?;
        let (certificate, key) = self.own(&authority, us, now)?;
        let ca = authority.certificate_pem().map_err(self.identity())?;
        Ok(Some(OwnCredentials {
            ca,
            certificate,
            key,
        }))
    }

    /// Our own certificate and key; new ones where there are none, they end soon, or say another
    /// name or address.
    pub(super) fn own(
        &self,
        authority: &Authority,
        us: &Us,
        now: SystemTime,
    ) -> Result<(Vec<u8>, Vec<u8>), RegistryError> {
        let host = us.url.as_deref().map(host_of).transpose()?;
        if let (Some(certificate), Some(key)) = (self.read(OWN_CERTIFICATE)?, self.read(OWN_KEY)?)
            && is_good(&certificate, &key, &us.name, host, now)
        {
            return Ok((certificate, key));
        }
        let subject = Subject {
            role: Role::Publisher,
            name: &us.name,
            hosts: &host.into_iter().collect::<Vec<_>>(),
        };
        let issued = authority.issue(subject, now).map_err(self.identity())?;
        replace_file(&self.dir.join(OWN_KEY), &issued.key, 0o600)?;
        failpoint::pass("sites::own")?;
        replace_file(&self.dir.join(OWN_CERTIFICATE), &issued.certificate, 0o644)?;
        Ok((issued.certificate, issued.key))
    }
}

/// What the publisher shows and trusts, as PEM.
#[derive(Clone)]
pub struct OwnCredentials {
    /// The authority.
    pub ca: Vec<u8>,
    /// Our certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

impl OwnCredentials {
    /// The same, ready for TLS.
    ///
    /// # Errors
    /// [`IdentityError::NotPem`].
    pub fn parsed(&self) -> Result<Credentials, IdentityError> {
        Ok(Credentials {
            ca: identity::certificate(&self.ca)?,
            certificate: identity::certificate(&self.certificate)?,
            key: identity::private_key(&self.key)?,
        })
    }
}

impl std::fmt::Debug for OwnCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnCredentials")
    }
}

fn is_good(
    certificate: &[u8],
    key: &[u8],
    name: &NodeName,
    host: Option<&str>,
    now: SystemTime,
) -> bool {
    let good = || {
        let (certificate, key) = (
            identity::certificate(certificate)?,
            identity::private_key(key)?,
        );
        let peer = identity::peer(&certificate)?;
        let fits = certificate
            .public_key()
            .is_ok_and(|public| public.public_eq(&key));
        // one that has not begun was made while the clock was ahead
        let lasts = identity::not_before(&certificate)? <= now
            && identity::not_after(&certificate)? > now + RENEW_BEFORE;
        let names = certificate.subject_alt_names();
        let address = host.and_then(|host| host.parse::<std::net::IpAddr>().ok());
        let address = address.map(|address| match address {
            std::net::IpAddr::V4(four) => four.octets().to_vec(),
            std::net::IpAddr::V6(six) => six.octets().to_vec(),
        });
        let is_there = host.is_none()
            || names.is_some_and(|names| {
                names.iter().any(|one| {
                    one.dnsname() == host
                        || (address.is_some() && one.ipaddress() == address.as_deref())
                })
            });
        Ok::<_, IdentityError>(fits && lasts && is_there && peer.name == *name)
    };
    good().unwrap_or(false)
}

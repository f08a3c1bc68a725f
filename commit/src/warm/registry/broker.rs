//! What a broker for the sites is set up with: its certificate, whom it lets in, and who may say what.

use std::time::SystemTime;

use formats::warm::identity::{NodeName, Role, Subject};

use super::{REVOCATIONS, Registry, RegistryError, Us};

/// For mosquitto, which reads its files where they name them.
const CONFIGURATION: &str = include_str!("../../../../packaging/mosquitto/prepub.conf");
const ACCESS: &str = include_str!("../../../../packaging/mosquitto/prepub.acl");

/// Whom the access list's example lets announce.
const EXAMPLE: &str = "stratum0.example.org";

/// The name in a broker's certificate; it says nowhere else what it may do.
const NAME: &str = "broker";

/// A file of a broker's.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerFile {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: String,
    /// Nobody else may read it.
    pub is_secret: bool,
}

impl std::fmt::Debug for BrokerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BrokerFile({})", self.name)
    }
}

impl Registry {
    /// Issues a certificate for a broker on these hosts, and everything else that it needs. The key is
    /// kept nowhere here.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn broker(
        &self,
        hosts: &[&str],
        us: &Us,
        now: SystemTime,
    ) -> Result<Vec<BrokerFile>, RegistryError> {
        let authority = self.authority(now)?;
        let name: NodeName = NAME.parse().map_err(self.identity())?;
        let subject = Subject {
            role: Role::Broker,
            name: &name,
            hosts,
        };
        let issued = authority.issue(subject, now).map_err(self.identity())?;
        let revoked = match self.read(REVOCATIONS)? {
            Some(list) => list,
            // a broker that is told to look at one must have one
            None => authority.revocations(&[], now).map_err(self.identity())?,
        };
        let ca = authority.certificate_pem().map_err(self.identity())?;
        let file = |name, text: Vec<u8>, is_secret| BrokerFile {
            name,
            text: String::from_utf8_lossy(&text).into_owned(),
            is_secret,
        };
        let access = ACCESS.replace(EXAMPLE, us.name.as_str());
        Ok(vec![
            file("prepub.conf", CONFIGURATION.into(), false),
            file("prepub.acl", access.into(), false),
            file("ca.crt", ca, false),
            file("crl.pem", revoked, false),
            file("broker.crt", issued.certificate, false),
            file("broker.key", issued.key, true),
        ])
    }
}

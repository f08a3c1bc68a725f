//! What can be known of a gateway from here, without doing harm: nothing is published or stored, and the
//! one lease that is taken is dropped at once.

use std::time::{Duration, SystemTime};

use super::Gateway;
use crate::publisher::PublisherError;

/// The manifest's file.
const MANIFEST: &str = ".cvmfspublished";
/// How often two places are compared before they count as different: a revision may be published
/// between two looks.
const COMPARED_MAX: u32 = 3;

/// What a gateway says of our key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Below which path it may publish; `/` for all.
    pub path: String,
    /// What time it was there when it answered, to the second; none if it did not say.
    pub time: Option<SystemTime>,
}

/// On what terms a gateway grants a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The version of its protocol that it agreed to; none if it did not say.
    pub version: Option<u64>,
    /// How long leases last.
    pub lifetime: Duration,
}

impl Gateway {
    /// Asks whether the gateway serves the repository and knows our key's id.
    ///
    /// # Errors
    /// Why not; that it cannot be reached.
    pub fn standing(&self) -> Result<Standing, PublisherError> {
        let leases = &self.leases;
        leases.client.standing().map_err(|e| leases.error(e))
    }

    /// Asks whether our key may publish, by a lease on a path that nobody uses.
    ///
    /// # Errors
    /// Why not; [`PublisherError::Busy`] if somebody has leased the whole repository.
    pub fn try_lease(&self) -> Result<Terms, PublisherError> {
        let mut held = self.lease_for_payloads()?;
        let terms = held.terms();
        held.release().map_err(|e| self.leases.error(e))?;
        Ok(terms)
    }

    /// True if the Stratum 0 shows what is in the storage that we write; none where we write none.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn is_storage_shown(&self) -> Result<Option<bool>, PublisherError> {
        if self.outbox.is_some() {
            return Ok(None);
        }
        let unreadable = |source| PublisherError::Storage {
            repo: self.home.name.clone(),
            what: "read the manifest in",
            source,
        };
        for _ in 0..COMPARED_MAX {
            let stored = self.storage.read_root(MANIFEST).map_err(unreadable)?;
            let shown = self.stratum0.read_root(MANIFEST).map_err(unreadable)?;
            if stored == shown {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }
}

//! `[metrics]`: what is shown to this machine's monitoring.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Serve `/metrics` and `/health` over plain HTTP while mounted.
    pub enabled: bool,
    /// Where. If the port is taken, they are not served, and the log says so.
    pub listen: SocketAddr,
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 9102)),
        }
    }
}

//! Stratum 1s: `site add`, `site revoke`, `site list`, `site broker`.

use serde::{Deserialize, Serialize};

/// A site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub site: String,
    /// Where its receiver is; none: it pulls.
    pub url: Option<String>,
    /// Repositories that it takes; empty: all.
    pub repositories: Vec<String>,
    /// Its certificate.
    pub serial: String,
    /// For how many more days that is valid.
    pub certificate_days: f64,
    /// Most bytes a second that are sent there.
    pub bandwidth: Option<u64>,
}

/// `site add`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteAdded {
    /// Which.
    pub site: String,
    /// The enrolment file's text. It holds the site's key, which nobody else has.
    pub enrolment: String,
}

impl std::fmt::Debug for SiteAdded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SiteAdded({})", self.site)
    }
}

/// `site list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sites {
    /// By name.
    pub sites: Vec<Site>,
}

/// `site broker`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerFiles {
    /// What it is set up with.
    pub files: Vec<BrokerFile>,
}

/// A file of a broker's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Nobody else may read it.
    pub secret: bool,
}

impl std::fmt::Debug for BrokerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BrokerFile({})", self.name)
    }
}

//! `[warm]`: Stratum 1s that get a revision's objects before it is visible.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::Span;

/// `[warm]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmSection {
    /// By which name sites know this publisher; absent: the host's.
    pub name: Option<String>,
    /// Which sites a commit waits for.
    pub quorum: Quorum,
    /// For how long.
    pub deadline: Span,
    /// A site that cannot be reached for so long is not waited for.
    pub reach_within: Span,
    /// Publish all the same where the quorum is not met.
    pub commit_anyway: bool,
    /// When objects are sent.
    pub push: Push,
    /// Connections to a site.
    pub connections: usize,
    /// For how long sites that are behind are offered what they lack.
    pub keep: Span,
    /// Where sites that pull ask for work; absent: nowhere.
    pub listen: Option<SocketAddr>,
    /// The same as they see it: `https://HOST:PORT`.
    pub url: Option<String>,
    /// The broker that this publisher and its sites are connected to: `mqtts://HOST:PORT`; absent: none.
    pub broker: Option<String>,
    /// The authority that the broker's certificate is of; absent: this publisher's own.
    pub broker_ca: Option<PathBuf>,
}

impl Default for WarmSection {
    fn default() -> Self {
        Self {
            name: None,
            quorum: Quorum::All,
            deadline: Span(Duration::from_secs(600)),
            reach_within: Span(Duration::from_secs(30)),
            commit_anyway: true,
            push: Push::Commit,
            connections: 4,
            keep: Span(Duration::from_secs(7 * 86_400)),
            listen: None,
            url: None,
            broker: None,
            broker_ca: None,
        }
    }
}

/// `[repository."NAME".warm]`: what of it holds for one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmOverride {
    /// As in `[warm]`.
    pub quorum: Option<Quorum>,
    /// As in `[warm]`.
    pub deadline: Option<Span>,
    /// As in `[warm]`.
    pub commit_anyway: Option<bool>,
    /// As in `[warm]`.
    pub push: Option<Push>,
}

/// When objects are sent to the sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Push {
    /// Never.
    Off,
    /// With the commit.
    #[default]
    Commit,
    /// As soon as they are sealed, and the rest with the commit.
    Eager,
}

/// Which sites a commit waits for: `"all"`, `"60%"`, `3`, or names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    /// Each.
    #[default]
    All,
    /// So many of a hundred.
    Percent(u8),
    /// So many.
    Number(u32),
    /// These.
    Named(BTreeSet<String>),
}

impl<'de> Deserialize<'de> for Quorum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Text(String),
            Names(BTreeSet<String>),
        }
        let wrong = || {
            serde::de::Error::custom(
                "a quorum is \"all\", a percentage such as \"60%\", a number, or a list of sites",
            )
        };
        match Written::deserialize(deserializer).map_err(|_| wrong())? {
            Written::Number(number) => Ok(Self::Number(number)),
            Written::Names(names) if !names.is_empty() => Ok(Self::Named(names)),
            Written::Names(_) => Err(wrong()),
            Written::Text(text) if text == "all" => Ok(Self::All),
            Written::Text(text) => {
                let percent = text.strip_suffix('%').and_then(|n| n.trim().parse().ok());
                let percent = percent.filter(|n| (1..=100).contains(n));
                percent.map(Self::Percent).ok_or_else(wrong)
            }
        }
    }
}

impl Serialize for Quorum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Percent(percent) => serializer.collect_str(&format_args!("{percent}%")),
            Self::Number(number) => serializer.serialize_u32(*number),
            Self::Named(names) => serializer.collect_seq(names),
        }
    }
}

/// What holds for one repository.
#[derive(Clone, Debug)]
pub struct WarmSettings {
    /// Which sites a commit waits for.
    pub quorum: Quorum,
    /// For how long.
    pub deadline: Duration,
    /// Publish all the same.
    pub commit_anyway: bool,
    /// When objects are sent.
    pub push: Push,
}

impl WarmSection {
    /// What holds where these keys stand over the section's.
    pub fn with(&self, own: Option<&WarmOverride>) -> WarmSettings {
        WarmSettings {
            quorum: own
                .and_then(|o| o.quorum.clone())
                .unwrap_or_else(|| self.quorum.clone()),
            deadline: own.and_then(|o| o.deadline).unwrap_or(self.deadline).0,
            commit_anyway: own
                .and_then(|o| o.commit_anyway)
                .unwrap_or(self.commit_anyway),
            push: own.and_then(|o| o.push).unwrap_or(self.push),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<WarmSection, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn quorums() {
        let names = ["cern", "ral"].map(str::to_owned).into_iter().collect();
        for (text, quorum) in [
            ("\"all\"", Quorum::All),
            ("\"60%\"", Quorum::Percent(60)),
            ("3", Quorum::Number(3)),
            ("[\"ral\", \"cern\"]", Quorum::Named(names)),
        ] {
            let section = read(&format!("quorum = {text}")).unwrap();
            assert_eq!(section.quorum, quorum);
            let again = read(&toml::to_string(&section).unwrap()).unwrap();
            assert_eq!(again, section);
        }
        for wrong in ["\"most\"", "\"0%\"", "\"101%\"", "[]", "-1", "0.5", "true"] {
            let error = read(&format!("quorum = {wrong}")).unwrap_err();
            assert!(error.message().contains("percentage"), "{error}");
        }
    }

    #[test]
    fn a_repository_s_own() {
        let own: WarmOverride = toml::from_str("quorum = 1\npush = \"eager\"").unwrap();
        let section = WarmSection::default();
        let both = section.with(Some(&own));
        assert_eq!((both.quorum, both.push), (Quorum::Number(1), Push::Eager));
        assert!(both.commit_anyway);
        assert_eq!(section.with(None).push, Push::Commit);
    }
}

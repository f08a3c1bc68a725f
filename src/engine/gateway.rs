//! What a gateway's publisher needs, out of prepub's configuration and the repository's own.

use std::sync::Arc;

use commit::gateway::Key;
use commit::{GatewayOptions, Place, RepoHome};
use formats::server_conf::Upstream;
use store::{HttpOptions, HttpStore};

use crate::config::{GatewaySection, Settings};
use crate::report::{Context, Failure, Result};
use crate::state::State;

/// The gateway's storage, where the configuration says that it can be written from here.
#[must_use]
pub fn storage_place(settings: &Settings, name: &str) -> Option<Place> {
    let said = settings.repository(name).gateway?.storage.as_deref()?;
    let place = Upstream::parse(said).and_then(Place::of);
    Some(place.unwrap_or_else(|| Place::Directory(said.into())))
}

/// Finds gateway, key, Stratum 0 and storage of a repository.
///
/// # Errors
/// [`crate::report::Kind::Usage`] for what is said nowhere; a key or storage that cannot be used.
pub fn options(state: &State, settings: &Settings, home: &RepoHome) -> Result<GatewayOptions> {
    let nothing = GatewaySection::default();
    let said = settings.repository(&home.name).gateway.unwrap_or(&nothing);
    let conf = home.conf()?;
    let missing = |key: &str, conf_key: &str| {
        Failure::usage(format!(
            "the gateway of {}: neither `{key}` nor {conf_key} says where",
            home.name
        ))
        .hint(format!(
            "write {key} = \"...\" below [repository.\"{}\".gateway] in {}, or {conf_key} into {}",
            home.name,
            settings.config_file().display(),
            home.conf_file.display()
        ))
    };
    let url = match (&said.url, conf.upstream()) {
        (Some(url), _) => url.clone(),
        (None, Ok(Upstream::Gateway { url, .. })) => url,
        (None, _) => return Err(missing("url", "CVMFS_UPSTREAM_STORAGE=gw,...")),
    };
    let stratum0 = said.stratum0.as_deref().or(conf.get("CVMFS_STRATUM0"));
    let stratum0 = stratum0.ok_or_else(|| missing("stratum0", "CVMFS_STRATUM0"))?;
    let beside = || home.keys_dir.join(format!("{}.gw", home.name));
    let key = Key::read(&said.key.clone().unwrap_or_else(beside))
        .context(format_args!("the gateway of {}", home.name))?;
    let storage = storage_place(settings, &home.name);
    let storage = storage.map(|place| place.open(&home.name));
    Ok(GatewayOptions {
        url,
        key,
        stratum0: Arc::new(HttpStore::new(stratum0, HttpOptions::default())?),
        storage: storage.transpose()?,
        hostname: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        // ours even where the repository's places are those of cvmfs_server
        spool_dir: state.dir().join("spool").join(&home.name),
    })
}

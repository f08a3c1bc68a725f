//! The secrets that a configuration and a state lead to, so that none of them gets out with a log.
//!
//! They are read and never shown. What cannot be read is not ours to leak.

use std::fs;
use std::path::{Path, PathBuf};

use formats::server_conf::Upstream;

use crate::config::Settings;
use crate::redact::{Secrets, is_telling, passwords};
use crate::repositories;
use crate::state::State;

/// Larger files hold no secrets of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All that is known.
pub fn known(settings: &Settings) -> Secrets {
    let mut secrets = Secrets::default();
    for (name, value) in std::env::vars() {
        passwords(&value).iter().for_each(|word| secrets.add(word));
        if is_telling(&name) {
            secrets.add(&value);
        }
    }
    if let Some(home) = std::env::var_os("HOME") {
        settings_file(&PathBuf::from(home).join(".aws/credentials"), &mut secrets);
    }
    let config = settings.config_file();
    settings_file(&config, &mut secrets);
    settings_file(&config.with_file_name("environment"), &mut secrets);
    let dir = &settings.state_dir;
    for keys in [dir.join("keys"), dir.join("sites")] {
        files(&keys)
            .iter()
            .for_each(|file| key_file(file, &mut secrets));
    }
    if let Ok(state) = State::open(dir) {
        of_repositories(&state, settings, &mut secrets);
    }
    secrets
}

fn of_repositories(state: &State, settings: &Settings, secrets: &mut Secrets) {
    for name in repositories::names(state, settings).unwrap_or_default() {
        let spool = state.dir().join("spool").join(&name);
        for token in files(&spool.join("leases")) {
            all_words(&token, secrets);
        }
        let registered = state.dir().join("repositories").join(&name);
        for file in files(&registered) {
            settings_file(&file, secrets);
        }
        let own = settings.file.repository.get(&name);
        if let Some(key) = own.and_then(|own| own.gateway.key.as_ref()) {
            all_words(key, secrets);
        }
        let Ok(home) = repositories::home(state, settings, &name) else {
            continue;
        };
        settings_file(&home.conf_file, secrets);
        for dir in [state.dir().join("keys"), PathBuf::from("/etc/cvmfs/keys")] {
            all_words(&dir.join(format!("{name}.gw")), secrets);
        }
        if let Ok(conf) = home.conf()
            && let Ok(Upstream::S3 { config, .. }) = conf.upstream()
        {
            settings_file(Path::new(&config), secrets);
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn text(path: &Path) -> String {
    let is_small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= FILE_BYTES_MAX);
    let bytes = is_small.then(|| fs::read(path).ok()).flatten();
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// `NAME=value`, with or without blanks and quotes; passwords in URLs.
fn settings_file(path: &Path, secrets: &mut Secrets) {
    let text = text(path);
    passwords(&text).iter().for_each(|word| secrets.add(word));
    for line in text.lines() {
        if let Some((name, value)) = line.split_once('=')
            && is_telling(name)
        {
            secrets.add(value.trim().trim_matches(['"', '\'']));
        }
    }
}

/// A key as PEM has it, line by line.
fn key_file(path: &Path, secrets: &mut Secrets) {
    let text = text(path);
    if text.contains("PRIVATE KEY-----") {
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        lines.for_each(|line| secrets.add(line));
    }
}

/// A token, or `plain_text ID SECRET`.
fn all_words(path: &Path, secrets: &mut Secrets) {
    let text = text(path);
    let words = text.split_ascii_whitespace();
    words
        .filter(|word| *word != "plain_text")
        .for_each(|word| secrets.add(word));
}

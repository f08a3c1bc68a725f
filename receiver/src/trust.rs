//! Whom this site knows: one enrolment file for each publisher, in one directory.
//!
//! A publisher is let in if its certificate leads to the authority of an enrolment, says that it is a
//! publisher, and has the name that the enrolment gives it. What it may send are the repositories that
//! both the enrolment and the configuration name. A file that cannot be used is a problem that is told
//! of; the others count all the same.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use formats::warm::enrolment::{Credentials, ENROLMENT_BYTES_MAX, Enrolment};
use formats::warm::{PeerIdentity, Role};
use store::chain;
use store::peer::{Fingerprint, Peer};

/// A publisher.
#[derive(Debug)]
pub struct Enrolled {
    /// What its file says.
    pub enrolment: Enrolment,
    /// The same, for TLS.
    pub credentials: Credentials,
    /// Of its authority.
    pub authority: Fingerprint,
    /// The file.
    pub file: PathBuf,
}

impl Enrolled {
    /// True if it may send this repository, as far as its enrolment says.
    #[must_use]
    pub fn may_send(&self, repo: &str) -> bool {
        let named = &self.enrolment.repositories;
        named.is_empty() || named.iter().any(|name| name == repo)
    }

    /// True if that is the publisher.
    #[must_use]
    pub fn is(&self, peer: &Peer) -> bool {
        let PeerIdentity { role, name, .. } = &peer.identity;
        self.authority == peer.authority
            && *role == Role::Publisher
            && *name == self.enrolment.publisher
    }

    /// When the site's certificate, and its authority's, begin.
    ///
    /// # Errors
    /// A time that is none.
    pub fn begins(&self) -> Result<SystemTime, formats::warm::IdentityError> {
        let own = formats::warm::identity::not_before(&self.credentials.certificate)?;
        Ok(own.max(formats::warm::identity::not_before(&self.credentials.ca)?))
    }

    /// When the site's certificate ends.
    ///
    /// # Errors
    /// A time that is none.
    pub fn ends(&self) -> Result<SystemTime, formats::warm::IdentityError> {
        formats::warm::identity::not_after(&self.credentials.certificate)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Trust {
    /// By file name.
    pub enrolled: Vec<Arc<Enrolled>>,
    /// Files that do not count, and why.
    pub problems: Vec<(PathBuf, String)>,
    /// What the directory looked like.
    seen: HashSet<Seen>,
}

/// A file changes when any of these does.
type Seen = (PathBuf, u64, i64, i64, u64);

impl Trust {
    /// Reads the directory.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let mut trust = Self::default();
        let files = match files(dir) {
            Ok(files) => files,
            Err(e) => {
                trust.problems.push((dir.to_path_buf(), e.to_string()));
                return trust;
            }
        };
        trust.seen = files.iter().filter_map(|file| seen(file)).collect();
        for file in files {
            match read(&file) {
                Ok(enrolled) => trust.add(enrolled),
                Err(problem) => trust.problems.push((file, problem)),
            }
        }
        trust
    }

    /// True if the directory looks as it did when this was read.
    #[must_use]
    pub fn is_current(&self, dir: &Path) -> bool {
        files(dir).is_ok_and(|files| {
            let now: HashSet<Seen> = files.iter().filter_map(|file| seen(file)).collect();
            now == self.seen
        })
    }

    /// Who that is.
    #[must_use]
    pub fn admit(&self, peer: &Peer) -> Option<&Arc<Enrolled>> {
        self.enrolled.iter().find(|enrolled| enrolled.is(peer))
    }

    /// What a listener shows and trusts.
    #[must_use]
    pub fn credentials(&self) -> Vec<Credentials> {
        let all = self.enrolled.iter();
        all.filter_map(|enrolled| enrolled.enrolment.credentials().ok())
            .collect()
    }

    fn add(&mut self, new: Enrolled) {
        let same = |known: &&Arc<Enrolled>| known.authority == new.authority;
        match self.enrolled.iter().find(same) {
            Some(known) => {
                let problem = format!(
                    "{} is the same publisher's; remove the older of the two",
                    known.file.display()
                );
                self.problems.push((new.file, problem));
            }
            None => self.enrolled.push(Arc::new(new)),
        }
    }
}

/// Something for each publisher that is enrolled, as long as it is.
#[derive(Debug)]
pub struct ForEach<T>(BTreeMap<String, (Arc<Enrolled>, T)>);

impl<T> Default for ForEach<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> ForEach<T> {
    /// Makes what is new of those that are wanted, where that works; what is not enrolled (any more, or
    /// as it was) is handed out.
    pub fn follow(
        &mut self,
        trust: &Trust,
        mut make: impl FnMut(&Arc<Enrolled>) -> Option<T>,
    ) -> Vec<T> {
        let is_current = |who: &Arc<Enrolled>| trust.enrolled.iter().any(|e| Arc::ptr_eq(e, who));
        let gone = self.0.extract_if(.., |_, (who, _)| !is_current(who));
        let gone = gone.map(|(_, (_, thing))| thing).collect();
        for who in &trust.enrolled {
            let name = who.authority.to_string();
            if !self.0.contains_key(&name)
                && let Some(thing) = make(who)
            {
                self.0.insert(name, (Arc::clone(who), thing));
            }
        }
        gone
    }

    /// All of them, at the end.
    pub fn into_all(self) -> Vec<T> {
        self.0.into_values().map(|(_, thing)| thing).collect()
    }
}

/// By name; what editors and package managers leave behind does not count.
fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|x| x == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn seen(file: &Path) -> Option<Seen> {
    let meta = fs::metadata(file).ok()?;
    Some((
        file.to_path_buf(),
        meta.ino(),
        meta.ctime(),
        meta.ctime_nsec(),
        meta.len(),
    ))
}

fn read(file: &Path) -> Result<Enrolled, String> {
    let meta = fs::metadata(file).map_err(|e| chain(&e))?;
    if meta.mode() & 0o007 != 0 {
        return Err("others may read the key in it; `chmod 600` it".into());
    }
    if meta.len() > ENROLMENT_BYTES_MAX as u64 {
        return Err("too long for an enrolment".into());
    }
    let text = fs::read_to_string(file).map_err(|e| chain(&e))?;
    let enrolment = Enrolment::parse(&text).map_err(|e| chain(&e))?;
    let credentials = enrolment.credentials().map_err(|e| chain(&e))?;
    let authority = Fingerprint::of(&credentials.ca).map_err(|e| chain(&e))?;
    Ok(Enrolled {
        enrolment,
        credentials,
        authority,
        file: file.to_path_buf(),
    })
}

//! What is sent to the sites for one commit, and how far each of them is.
//!
//! ```text
//! PUSHES/REPO/TXN/objects      the list, as it is announced
//! PUSHES/REPO/TXN/state.json   whose fate is known or not, and which sites are not through with it
//! ```
//! It is there, durably, before the first site hears of it, so that whoever comes after a crash can tell
//! each of them how it ended; and it goes when the last of them knows. A push without a record was
//! not begun: it is removed.
//!
//! A commit of many objects has several, named TXN, TXN.2, TXN.3 and so on (sending.rs). An early one is
//! nobody's commit: it is given up when its objects went another way.
//!
//! | fate | what a restart owes |
//! | --- | --- |
//! | open | find out whether the commit became visible |
//! | visible | bring each site what it lacks, and tell it |
//! | given up | tell each site |
//!
//! Nothing here talks to a site.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use formats::warm::identity::NodeName;
use formats::warm::list::{ListReader, write_list};
use formats::warm::{ListError, Listed};
use serde::{Deserialize, Serialize};

use super::control::Trouble;
use super::outcome::{SiteOutcome, SiteState};
use super::transfer::Sources;
use crate::home::replace_file;

const LIST_FILE: &str = "objects";
const RECORD_FILE: &str = "state.json";
/// Of the record; a newer one is left alone.
const FORMAT: u32 = 1;

/// A visible revision, as sites are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its root catalog.
    pub root_hash: String,
    /// Its number.
    pub revision: u64,
    /// Since when, in the form of RFC 3339.
    pub published_at: String,
}

/// What became of the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    Open,
    Visible(Told),
    GivenUp,
}

/// A commit that will say how its pushes end. When nothing of this is left it did not, and whoever
/// settles interrupted commits does.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<()>);

impl Claim {
    pub(super) fn held(&self) -> Weak<()> {
        Arc::downgrade(&self.0)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    repo: String,
    txn: String,
    /// Seconds since 1970.
    begun: u64,
    objects: u32,
    bytes: u64,
    fate: Fate,
    #[serde(default)]
    early: bool,
    sites: Vec<String>,
}

/// See the module's head.
#[derive(Debug)]
pub struct Push {
    /// The repository.
    pub repo: String,
    /// The transaction's name.
    pub txn: String,
    /// How many objects it is about.
    pub objects: u32,
    /// Their bytes, as stored.
    pub bytes: u64,
    /// Since when.
    pub begun: SystemTime,
    pub(super) source: Arc<Sources>,
    /// No commit has its objects yet.
    pub(super) is_early: bool,
    dir: PathBuf,
    over: Arc<AtomicBool>,
    state: Mutex<State>,
    /// One writer of the record at a time.
    writing: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) fate: Fate,
    pub(super) sites: BTreeMap<NodeName, Progress>,
    /// The commit of this process that decides its fate.
    pub(super) claim: Weak<()>,
}

impl State {
    /// A commit of this process decides its fate.
    pub(super) fn is_live(&self) -> bool {
        self.fate == Fate::Open && self.claim.strong_count() > 0
    }
}

/// How far a site is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) since: Instant,
    /// How long it took, once it has everything.
    pub(super) took: Option<Duration>,
    /// Somebody serves it at this moment.
    pub(super) is_busy: bool,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// None: not known yet.
    pub(super) missing: Option<(u64, u64)>,
    pub(super) trouble: Option<Trouble>,
    /// Since when it could not be reached, with nothing between.
    pub(super) unreachable_since: Option<Instant>,
    /// It could not be reached before this push either: it has one chance.
    pub(super) was_down: bool,
}

impl Progress {
    pub(super) fn new(was_down: bool) -> Self {
        Self {
            since: Instant::now(),
            took: None,
            is_busy: false,
            objects: 0,
            bytes: 0,
            missing: None,
            trouble: None,
            unreachable_since: None,
            was_down,
        }
    }

    pub(super) fn has_all(&self) -> bool {
        self.took.is_some()
    }

    /// True if a commit need not wait for it.
    pub(super) fn is_hopeless(&self, reach_within: Duration) -> bool {
        match (&self.trouble, self.unreachable_since) {
            (None, _) => false,
            (Some(Trouble::Unreachable(_)), since) => {
                self.was_down || since.is_some_and(|since| since.elapsed() >= reach_within)
            }
            (Some(trouble), _) => !trouble.may_pass(),
        }
    }

    pub(super) fn outcome(&self, site: &NodeName, reach_within: Duration) -> SiteOutcome {
        let state = match self.has_all() {
            true => SiteState::Warm,
            false if self.is_hopeless(reach_within) => SiteState::Failed,
            false => SiteState::Behind,
        };
        let (missing_objects, missing_bytes) = self.missing.unwrap_or_default();
        SiteOutcome {
            site: site.to_string(),
            state,
            objects: self.objects,
            bytes: self.bytes,
            missing_objects,
            missing_bytes,
            seconds: self
                .took
                .unwrap_or_else(|| self.since.elapsed())
                .as_secs_f64(),
            error: match state {
                SiteState::Warm => None,
                _ => self.trouble.as_ref().map(ToString::to_string),
            },
        }
    }
}

impl Push {
    /// Begins one for these sites: its list is written, in the order of [`Listed::key`] and each once, and its
    /// record. An early one has no claim.
    pub(super) fn begin(
        pushes: &Path,
        (repo, txn): (&str, &str),
        mut list: Vec<Listed>,
        source: Sources,
        begun: SystemTime,
        claim: Option<&Claim>,
        sites: BTreeMap<NodeName, Progress>,
    ) -> io::Result<Self> {
        list.sort_unstable_by_key(Listed::key);
        list.dedup_by_key(|listed| listed.name);
        let dir = pushes.join(repo).join(txn);
        fs::create_dir_all(&dir)?;
        let path = dir.join(LIST_FILE);
        let mut file = BufWriter::new(File::create(&path)?);
        write_list(&mut file, list.iter().copied()).map_err(io::Error::other)?;
        file.flush()?;
        if claim.is_some() {
            file.get_ref().sync_all()?;
            for made in [&dir, &pushes.join(repo), &pushes.to_path_buf()] {
                File::open(made)?.sync_all()?;
            }
        }
        let push = Self {
            repo: repo.to_owned(),
            txn: txn.to_owned(),
            objects: list.len() as u32,
            bytes: list.iter().map(|listed| listed.bytes).sum(),
            begun,
            source: Arc::new(source),
            is_early: claim.is_none(),
            dir,
            over: Arc::default(),
            state: Mutex::new(State {
                fate: Fate::Open,
                sites,
                claim: claim.map(Claim::held).unwrap_or_default(),
            }),
            writing: Mutex::new(()),
        };
        push.record()?;
        Ok(push)
    }

    /// The name that all pushes of one commit have in common.
    pub(super) fn commit(&self) -> &str {
        self.txn.split('.').next().unwrap_or_default()
    }

    /// One that an earlier process left; none where there is no record of one, and what is there of it
    /// is removed. One of a newer program is an error, and stays.
    pub(super) fn found(dir: &Path, source: Sources) -> io::Result<Option<Self>> {
        let bytes = match fs::read(dir.join(RECORD_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_dir_all(dir)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let record: Record = serde_json::from_slice(&bytes)?;
        if record.format > FORMAT {
            return Err(io::Error::other("written by a newer prepub"));
        }
        let names = record.sites.iter().filter_map(|name| name.parse().ok());
        let progress = |name: NodeName| (name, Progress::new(false));
        Ok(Some(Self {
            repo: record.repo,
            txn: record.txn,
            objects: record.objects,
            bytes: record.bytes,
            begun: SystemTime::UNIX_EPOCH + Duration::from_secs(record.begun),
            source: Arc::new(source),
            is_early: record.early,
            dir: dir.to_owned(),
            over: Arc::default(),
            state: Mutex::new(State {
                fate: record.fate,
                sites: names.map(progress).collect(),
                claim: Weak::new(),
            }),
            writing: Mutex::new(()),
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // every change is a single one, so what a panic leaves is whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Set when nobody wants the objects at the sites any more.
    pub(super) fn over_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    pub(super) fn call_off(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The list, as it is announced.
    pub(super) fn list_file(&self) -> io::Result<File> {
        File::open(self.dir.join(LIST_FILE))
    }

    /// The list's objects, in the order of [`Listed::key`].
    pub(super) fn list(&self) -> Result<Vec<Listed>, ListError> {
        let file = self.list_file().map_err(ListError::Io)?;
        ListReader::new(BufReader::new(file))?.collect()
    }

    /// Writes the record; when this returns it survives power loss.
    pub(super) fn record(&self) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = {
            let state = self.state();
            Record {
                format: FORMAT,
                repo: self.repo.clone(),
                txn: self.txn.clone(),
                begun: crate::stratum0::seconds(self.begun),
                objects: self.objects,
                bytes: self.bytes,
                fate: state.fate.clone(),
                early: self.is_early,
                sites: state.sites.keys().map(ToString::to_string).collect(),
            }
        };
        let text = serde_json::to_vec_pretty(&record)?;
        replace_file(&self.dir.join(RECORD_FILE), &text, 0o600).map_err(io::Error::other)
    }

    /// Forgets it: every site knows its end, or need not.
    pub(super) fn remove(&self) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // a list without its record is removed by whoever finds it
        match fs::remove_file(self.dir.join(RECORD_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::remove_dir_all(&self.dir)
    }

    /// How every site stands, by name.
    pub(crate) fn outcomes(&self, reach_within: Duration) -> Vec<SiteOutcome> {
        let state = self.state();
        let sites = state.sites.iter();
        sites
            .map(|(name, progress)| progress.outcome(name, reach_within))
            .collect()
    }
}

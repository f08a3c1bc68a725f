//! What a workload did, call by call, and what a power loss may leave of it.
//!
//! A call that has returned is done; one that had begun may be. The rules that are checked:
//!
//! - Names, and which of them are one file, are those after some call, and no earlier one than the
//!   last fsync of anything.
//! - A file that is not in doubt has the very bytes it had at some moment since its last fsync.
//! - A file that was not changed after its fsync is not in doubt.
//! - Bytes that were fsynced and not changed since are there, in doubt or not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file, by whatever name.
pub type File = usize;

pub type Content = Arc<Vec<u8>>;

/// Names below the repository's root: a file, or none for a directory.
pub type Names = BTreeMap<String, Option<File>>;

/// What a call did.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Names alone.
    Names,
    /// Bytes of a file, in this range, or all that is beyond it.
    Data(Range<usize>),
    /// An fsync; of a file that is vouched for then, unless it is a log.
    Sync(File, bool),
    /// An fsync of a directory.
    SyncDir,
}

#[derive(Clone)]
struct Call {
    begun: u64,
    done: u64,
    effect: Effect,
    /// After it.
    names: Arc<Names>,
}

/// A file's bytes after the calls that changed them; before all calls, after none.
#[derive(Clone, Default)]
struct History {
    versions: Vec<(Option<usize>, Content)>,
    /// It was in doubt from the beginning.
    in_doubt: bool,
}

/// What is found after a power loss.
#[derive(Debug, Default)]
pub struct Found {
    /// Files and their bytes; none where these cannot be read. Directories without.
    pub files: BTreeMap<String, Option<Vec<u8>>>,
    /// Inode numbers of files: names with the same one are one file.
    pub inodes: BTreeMap<String, u64>,
    pub dirs: BTreeSet<String>,
    /// Named by `status`.
    pub in_doubt: BTreeSet<String>,
}

/// See the module's head.
pub struct Model {
    pub clock: Arc<AtomicU64>,
    start: Arc<Names>,
    names: Arc<Names>,
    calls: Vec<Call>,
    files: Vec<History>,
    /// All bytes that a path ever had.
    ever: HashMap<String, HashSet<Content>>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            clock: Arc::new(AtomicU64::new(1)),
            start: Arc::default(),
            names: Arc::default(),
            calls: Vec::new(),
            files: Vec::new(),
            ever: HashMap::new(),
        }
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn content(&self, file: File) -> &Content {
        &self.files[file].versions.last().unwrap().1
    }

    pub fn is_in_doubt(&self, file: File) -> bool {
        self.files[file].in_doubt
    }

    /// Some file was in doubt at the beginning.
    pub fn has_doubt(&self) -> bool {
        self.files.iter().any(|file| file.in_doubt)
    }

    /// What was in doubt of it is gone.
    pub fn no_more_doubt(&mut self, file: File) {
        self.files[file].in_doubt = false;
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn call<T>(&mut self, effect: Effect, names: Arc<Names>, call: impl FnOnce() -> T) -> T {
        let begun = self.tick();
        self.calls.push(Call {
            begun,
            done: u64::MAX,
            effect,
            names,
        });
        let value = call();
        let done = self.tick();
        self.calls.last_mut().unwrap().done = done;
        value
    }

    /// A call that changes names: `names` are those after it.
    pub fn rename<T>(&mut self, names: Names, call: impl FnOnce() -> T) -> T {
        let names = Arc::new(names);
        self.names = Arc::clone(&names);
        for (path, file) in names.iter() {
            if let Some(file) = file {
                let content = Arc::clone(self.content(*file));
                self.ever.entry(path.clone()).or_default().insert(content);
            }
        }
        self.call(Effect::Names, names, call)
    }

    /// A file that is about to be made.
    pub fn new_file(&mut self) -> File {
        self.files.push(History {
            versions: vec![(None, Content::default())],
            in_doubt: false,
        });
        self.files.len() - 1
    }

    /// A call that changes bytes of a file.
    pub fn change<T>(
        &mut self,
        file: File,
        range: Range<usize>,
        content: Vec<u8>,
        call: impl FnOnce() -> T,
    ) -> T {
        let content = Arc::new(content);
        let paths = self.names.iter().filter(|(_, f)| **f == Some(file));
        for path in paths.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            let ever = self.ever.entry(path).or_default();
            ever.insert(Arc::clone(&content));
        }
        let at = self.calls.len();
        self.files[file].versions.push((Some(at), content));
        let names = Arc::clone(&self.names);
        self.call(Effect::Data(range), names, call)
    }

    pub fn sync<T>(&mut self, effect: Effect, call: impl FnOnce() -> T) -> T {
        let names = Arc::clone(&self.names);
        self.call(effect, names, call)
    }

    /// The power went at this moment: what began later was not.
    fn forget_after(&mut self, clock: u64) {
        let begun = self.calls.partition_point(|call| call.begun < clock);
        self.calls.truncate(begun);
        for file in &mut self.files {
            file.versions
                .retain(|(at, _)| at.is_none_or(|at| at < begun));
        }
    }

    /// Checks what was found after the power went at `clock`, and goes on from there.
    pub fn go_on(&mut self, clock: u64, found: &Found) -> Result<(), String> {
        self.forget_after(clock);
        let names = self.check(clock, found)?;
        self.adopt(&names, found);
        Ok(())
    }

    /// The names that were found, and whose they are.
    fn check(&self, clock: u64, found: &Found) -> Result<Arc<Names>, String> {
        let done = |call: &&Call| call.done < clock;
        let is_sync = |call: &Call| matches!(call.effect, Effect::Sync(..) | Effect::SyncDir);
        let synced = self
            .calls
            .iter()
            .rposition(|call| is_sync(call) && done(&call));
        let since = &self.calls[synced.unwrap_or(0)..];
        let first = synced.is_none().then_some(&self.start);
        let candidates = first
            .into_iter()
            .chain(since.iter().map(|call| &call.names));
        let mut problems: Vec<String> = Vec::new();
        let mut last: Option<&Arc<Names>> = None;
        for names in candidates {
            if last.is_some_and(|last| Arc::ptr_eq(last, names)) {
                continue;
            }
            last = Some(names);
            if !same_names(names, found) {
                continue;
            }
            match self.check_files(clock, names, found) {
                Ok(()) => return Ok(Arc::clone(names)),
                Err(error) => problems.push(error),
            }
        }
        problems.dedup();
        Err(match problems.is_empty() {
            true => self.about_names(synced, found),
            false => problems.join("or, with the names of another moment, "),
        })
    }

    fn about_names(&self, synced: Option<usize>, found: &Found) -> String {
        let durable = synced.map_or(&self.start, |at| &self.calls[at].names);
        let there: BTreeSet<&String> = found.files.keys().chain(&found.dirs).collect();
        let lacking: Vec<_> = durable.keys().filter(|n| !there.contains(n)).collect();
        let more: Vec<_> = there
            .iter()
            .filter(|n| !durable.contains_key(**n))
            .collect();
        format!(
            "no moment since the last fsync (call {synced:?} of {}) had these names: durable but absent {lacking:?}, there but not durable {more:?}",
            self.calls.len()
        )
    }

    fn check_files(&self, clock: u64, names: &Names, found: &Found) -> Result<(), String> {
        for (path, file) in names {
            let Some(file) = file else {
                continue;
            };
            let content = found.files.get(path).and_then(Option::as_ref);
            let in_doubt = found.in_doubt.contains(path);
            self.check_file(clock, *file, content, in_doubt)
                .map_err(|error| {
                    let all = names_of(names, *file, found);
                    format!("{path} (in doubt: {in_doubt}; by name and inode {all:?}): {error}")
                })?;
        }
        Ok(())
    }

    fn check_file(
        &self,
        clock: u64,
        file: File,
        content: Option<&Vec<u8>>,
        in_doubt: bool,
    ) -> Result<(), String> {
        let history = &self.files[file];
        let of_file = |call: &Call| match &call.effect {
            Effect::Sync(f, vouches) if *f == file && call.done < clock => Some(*vouches),
            _ => None,
        };
        let calls = self.calls.iter().enumerate();
        let mut syncs = calls.filter_map(|(at, call)| Some((at, of_file(call)?)));
        let last_sync = syncs.next_back();
        let synced = history
            .versions
            .iter()
            .rposition(|(at, _)| at.is_none() || *at < last_sync.map(|(sync, _)| sync))
            .unwrap_or(0);
        let later = &history.versions[synced + 1..];
        let vouched = match last_sync {
            // what it was at the beginning was on disk, or in doubt
            None => !history.in_doubt && history.versions[0].0.is_none() && synced == 0,
            Some((_, vouches)) => vouches,
        };
        if in_doubt && vouched && later.is_empty() && !history.versions[0].1.is_empty() {
            return Err("it was synced and not changed since, and is in doubt".to_owned());
        }
        let nothing = Vec::new();
        let content = match content {
            Some(content) => content,
            None if in_doubt => &nothing,
            None => return Err("its bytes cannot be read".to_owned()),
        };
        let exact = history.versions[synced..]
            .iter()
            .any(|(_, version)| **version == *content);
        if !in_doubt && !exact {
            return Err(format!(
                "{} bytes that it did not have since its last fsync: {}",
                content.len(),
                self.tell(file, content)
            ));
        }
        if exact || (last_sync.is_none() && history.in_doubt) {
            return Ok(());
        }
        self.check_synced_bytes(&history.versions[synced].1, later, content)
            .map_err(|error| format!("{error}: {}", self.tell(file, content)))
    }

    /// What happened to a file, for people.
    fn tell(&self, file: File, content: &[u8]) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (at, version) in &self.files[file].versions {
            let same = version
                .iter()
                .zip(content)
                .take_while(|(a, b)| a == b)
                .count();
            let call = at.map(|at| (at, &self.calls[at].effect, self.calls[at].done));
            let _ = writeln!(text, "{} bytes, {same} alike, by {call:?}", version.len());
        }
        for (at, call) in self.calls.iter().enumerate() {
            if matches!(call.effect, Effect::Sync(f, _) if f == file) {
                let _ = writeln!(
                    text,
                    "synced by call {at} {:?} done {}",
                    call.effect, call.done
                );
            }
        }
        text
    }

    /// Bytes that were synced and not touched since are there.
    fn check_synced_bytes(
        &self,
        synced: &[u8],
        later: &[(Option<usize>, Content)],
        content: &[u8],
    ) -> Result<(), String> {
        let mut untouched = vec![true; synced.len()];
        for (at, _) in later {
            let call = at.and_then(|at| self.calls.get(at));
            if let Some(Effect::Data(range)) = call.map(|call| &call.effect) {
                let (begin, end) = (range.start.min(synced.len()), range.end.min(synced.len()));
                untouched[begin..end].fill(false);
            }
        }
        let lost =
            (0..synced.len()).find(|at| untouched[*at] && content.get(*at) != synced.get(*at));
        match lost {
            Some(at) => Err(format!(
                "byte {at} of {} was synced and not touched since, and is not there ({} bytes are)",
                synced.len(),
                content.len()
            )),
            None => Ok(()),
        }
    }

    /// What was found is on disk: the next workload begins with it.
    fn adopt(&mut self, names: &Names, found: &Found) {
        let mut files: BTreeMap<File, History> = BTreeMap::new();
        for (path, file) in names {
            if let Some(file) = file {
                let content = found.files[path].clone().unwrap_or_default();
                let content = Arc::new(content);
                self.ever
                    .entry(path.clone())
                    .or_default()
                    .insert(Arc::clone(&content));
                let history = files.entry(*file).or_default();
                history.versions = vec![(None, content)];
                history.in_doubt |= found.in_doubt.contains(path);
            }
        }
        let numbers: HashMap<File, File> = files.keys().copied().zip(0..).collect();
        self.files = files.into_values().collect();
        let names = names
            .iter()
            .map(|(path, file)| (path.clone(), file.map(|file| numbers[&file])));
        self.names = Arc::new(names.collect());
        self.start = Arc::clone(&self.names);
        self.calls.clear();
        self.clock.store(1, Ordering::SeqCst);
    }

    /// All that was staged is gone: what is published has only bytes that were there once.
    pub fn go_on_with_published(&mut self, found: &Found) -> Result<(), String> {
        for (path, content) in &found.files {
            let content = content.as_ref().ok_or(format!("{path} cannot be read"))?;
            let ever = self.ever.get(path);
            if !ever.is_some_and(|ever| ever.contains(content)) {
                return Err(format!(
                    "{path} is published with {} bytes that it never had",
                    content.len()
                ));
            }
        }
        // a commit publishes each name of a file on its own; on the mount they are still one
        let mut by_inode: HashMap<u64, File> = HashMap::new();
        let mut names = Names::new();
        for path in found.files.keys() {
            let next = by_inode.len();
            let file = *by_inode.entry(found.inodes[path]).or_insert(next);
            names.insert(path.clone(), Some(file));
        }
        names.extend(found.dirs.iter().map(|dir| (dir.clone(), None)));
        self.adopt(&names, found);
        Ok(())
    }
}

/// All names of a file, and the inodes that they are found to be.
fn names_of(names: &Names, file: File, found: &Found) -> Vec<(String, Option<u64>)> {
    let of_file = names.iter().filter(|(_, f)| **f == Some(file));
    of_file
        .map(|(path, _)| (path.clone(), found.inodes.get(path).copied()))
        .collect()
}

/// What was found has these names, and those of one file are one inode. Moments with the same names
/// are told apart by that: one of two names may have become another file's in between.
fn same_names(names: &Names, found: &Found) -> bool {
    let (mut inodes, mut files) = (HashMap::new(), HashMap::new());
    names.len() == found.files.len() + found.dirs.len()
        && names.iter().all(|(path, file)| match file {
            Some(file) => found.inodes.get(path).is_some_and(|inode| {
                *inodes.entry(*file).or_insert(*inode) == *inode
                    && *files.entry(*inode).or_insert(*file) == *file
            }),
            None => found.dirs.contains(path),
        })
}

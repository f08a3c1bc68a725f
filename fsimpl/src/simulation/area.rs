//! A part of the tree that one thread alone changes, and what it was at each moment.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lot::Lot;
use crate::support::{Bench, ROOT};
use crate::types::FileType;

/// What stands at each path: a directory (none) or a file's bytes, which are text.
pub(super) type State = BTreeMap<String, Option<String>>;

/// Numbers moments. The system's own: looking at it is no point of the schedule.
#[derive(Default)]
pub(super) struct Moments(AtomicU64);

impl Moments {
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// What an area is from some moment in an operation on.
pub(super) struct Version {
    /// The operation's begin and end.
    pub(super) begun: u64,
    pub(super) ended: u64,
    pub(super) state: State,
}

/// See the module's head.
pub(super) struct Area {
    /// Names in the root: directories, all that is the area's.
    pub(super) tops: &'static [&'static str],
    pub(super) history: Vec<Version>,
    lot: Lot,
    written: u64,
}

/// Names below the tops: few, so that they meet.
const NAMES: &[&str] = &["a", "b", "c"];
/// Depth of the deepest name below the root.
const DEPTH: usize = 4;

/// True if the path lies in one of these directories of the root, or is one.
pub(super) fn is_below(path: &str, tops: &[&str]) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    first.is_some_and(|first| tops.contains(&first))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Area {
    /// An area whose first top is published with these files.
    pub(super) fn new(tops: &'static [&'static str], lot: Lot, published: State) -> Self {
        let first = Version {
            begun: 0,
            ended: 0,
            state: published,
        };
        Self {
            tops,
            history: vec![first],
            lot,
            written: 0,
        }
    }

    pub(super) fn now(&self) -> &State {
        &self.history.last().expect("it begins with one").state
    }

    /// An operation drawn by lot; what it does is clear beforehand.
    pub(super) fn step(&mut self, bench: &Bench, moments: &Moments) {
        let mut state = self.now().clone();
        let begun = moments.next();
        match self.lot.below(10) {
            0..4 => self.write(bench, &mut state),
            4..7 => self.rename(bench, &mut state),
            7 => self.remove(bench, &mut state),
            8 => self.make_dir(bench, &mut state),
            _ => self.read(bench, &state),
        }
        let ended = moments.next();
        self.history.push(Version {
            begun,
            ended,
            state,
        });
    }

    /// Drops what is staged. Only for an area of one top, which then is as published.
    pub(super) fn abort(&mut self, bench: &Bench, moments: &Moments) {
        let [top] = self.tops else {
            panic!("an area of one top")
        };
        let begun = moments.next();
        let before = bench.stage().base_root();
        let done = bench.stage().abort(&format!("/{top}").parse().unwrap());
        match done {
            Ok(_) => {}
            Err(crate::AbortError::Frozen(_)) => return,
            Err(error) => panic!("{error:?}"),
        }
        bench.stage().wait_told();
        let state = observed(bench, self.tops);
        if bench.stage().base_root() == before {
            let published = super::snapshots::published(&bench.published, &before, self.tops);
            assert_eq!(state, published, "dropped: /{top} is as published");
        }
        let ended = moments.next();
        self.history.push(Version {
            begun,
            ended,
            state,
        });
    }

    fn place(&mut self, state: &State) -> String {
        let dirs: Vec<&String> = state
            .iter()
            .filter(|(path, what)| what.is_none() && path.split('/').count() < DEPTH)
            .map(|(path, _)| path)
            .collect();
        if dirs.is_empty() {
            return format!("/{}", self.lot.pick(self.tops));
        }
        let dir = *self.lot.pick(&dirs);
        format!("{dir}/{}", self.lot.pick(NAMES))
    }

    fn any(&mut self, state: &State) -> Option<String> {
        let paths: Vec<&String> = state.keys().collect();
        (!paths.is_empty()).then(|| (*self.lot.pick(&paths)).clone())
    }

    fn text(&mut self) -> String {
        self.written += 1;
        match self.lot.below(6) {
            0 => String::new(),
            // the same in other areas: equal content is sealed once
            1 => "the same everywhere".to_owned(),
            _ => format!("{} {}", self.tops[0], self.written),
        }
    }

    fn write(&mut self, bench: &Bench, state: &mut State) {
        let path = self.place(state);
        if state.get(&path).is_some_and(Option::is_none) || path.split('/').count() < 3 {
            return;
        }
        let text = self.text();
        let in_place = self.lot.below(3) == 0;
        match state.get_mut(&path) {
            Some(Some(before)) if in_place => {
                let handle = bench.open_write(&path);
                bench.fs.write(&ROOT, handle, 0, text.as_bytes()).unwrap();
                bench.fs.release(handle).unwrap();
                let over = text.len().min(before.len());
                before.replace_range(..over, &text);
            }
            _ => {
                bench.write(&path, text.as_bytes());
                state.insert(path, Some(text));
            }
        }
    }

    fn rename(&mut self, bench: &Bench, state: &mut State) {
        let Some(from) = self.any(state) else {
            return;
        };
        let to_top = state[&from].is_none() && self.tops.len() > 1 && self.lot.below(2) == 0;
        let to = if to_top {
            format!("/{}", self.lot.pick(self.tops))
        } else {
            self.place(state)
        };
        let within = |path: &str, dir: &str| {
            path.strip_prefix(dir)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_dir = state[&from].is_none();
        let stands = !parent(&to).is_empty() && !state.contains_key(parent(&to));
        let filled = |at: &str| state.keys().any(|path| path != at && within(path, at));
        let fits = match state.get(&to) {
            None => is_dir || to.split('/').count() > 2,
            Some(None) => is_dir && !filled(&to),
            Some(Some(_)) => !is_dir,
        };
        if within(&to, &from) || within(&from, &to) || stands || !fits {
            return;
        }
        bench.rename(&from, &to).unwrap();
        let moved: Vec<String> = state.keys().filter(|p| within(p, &from)).cloned().collect();
        for path in moved {
            let what = state.remove(&path).unwrap();
            state.insert(format!("{to}{}", &path[from.len()..]), what);
        }
    }

    fn remove(&mut self, bench: &Bench, state: &mut State) {
        let Some(path) = self.any(state) else {
            return;
        };
        if state[&path].is_some() {
            bench.unlink(&path).unwrap();
        } else if state.keys().any(|other| parent(other) == path) {
            assert!(matches!(bench.rmdir(&path), Err(crate::FsError::NotEmpty)));
            return;
        } else {
            bench.rmdir(&path).unwrap();
        }
        state.remove(&path);
    }

    fn make_dir(&mut self, bench: &Bench, state: &mut State) {
        let path = self.place(state);
        if let Entry::Vacant(free) = state.entry(path) {
            bench.mkdir(free.key()).unwrap();
            free.insert(None);
        }
    }

    fn read(&mut self, bench: &Bench, state: &State) {
        let Some(path) = self.any(state) else {
            return;
        };
        if let Some(text) = &state[&path] {
            assert_eq!(bench.read(&path), text.as_bytes(), "{path}");
        }
    }
}

/// What stands below these directories of the root.
pub(super) fn observed(bench: &Bench, tops: &[&str]) -> State {
    let mut state = State::new();
    for top in tops {
        let path = format!("/{top}");
        if bench.exists(&path) {
            visit(bench, path, &mut state);
        }
    }
    state
}

fn visit(bench: &Bench, path: String, state: &mut State) {
    if bench.find(&path).unwrap().kind != FileType::Directory {
        let text = String::from_utf8(bench.read(&path)).unwrap();
        state.insert(path, Some(text));
        return;
    }
    for name in bench.list(&path) {
        visit(bench, format!("{path}/{name}"), state);
    }
    state.insert(path, None);
}

//! Snapshots as they were handed out, and which moment they show.

use std::collections::BTreeSet;
use std::io::Read as _;

use formats::{Hash, Regular};
use store::ObjectStore;

use super::area::{Area, State, is_below};
use crate::Frozen;
use crate::support::Published;
use crate::support::published::Tree;

/// What a snapshot shows below its targets, and when it was made.
pub(super) struct Snapshot {
    /// Directories of the root that it shows.
    pub(super) tops: Vec<&'static str>,
    pub(super) state: State,
    /// Files left out, which it shows otherwise.
    pub(super) skipped: Vec<String>,
    /// What is published, if files were left out: they are shown as that, at their old names.
    left_behind: BTreeSet<String>,
    /// Moments before it was asked for and after it was there.
    pub(super) asked: u64,
    pub(super) made: u64,
}

impl Snapshot {
    /// What it makes of the revision that the stage is based upon.
    pub(super) fn of(
        frozen: &Frozen,
        (published, base): (&Published, &Hash),
        tops: Vec<&'static str>,
        (asked, made): (u64, u64),
    ) -> Self {
        let tree = published.applied(base, &frozen.change_set);
        let stores = [&*frozen.objects, &*published.store];
        Self {
            state: state_of(&tree, &stores, &tops),
            left_behind: if frozen.skipped.is_empty() {
                BTreeSet::new()
            } else {
                let published = state_of(&published.tree(base), &stores, &tops);
                published.into_values().flatten().collect()
            },
            tops,
            skipped: frozen
                .skipped
                .iter()
                .map(|file| file.path.to_string())
                .collect(),
            asked,
            made,
        }
    }

    /// There is one moment, while it was made, at which all areas were what it shows.
    pub(super) fn require_a_moment(&self, areas: &[Area]) {
        let mut candidates = vec![self.asked];
        let mut shown = Vec::new();
        for area in areas {
            let tops: Vec<&str> = self
                .tops
                .iter()
                .copied()
                .filter(|top| area.tops.contains(top))
                .collect();
            if tops.is_empty() {
                continue;
            }
            let times = self.times(area, &tops);
            assert!(
                !times.is_empty(),
                "the snapshot without {:?} shows {:#?}, which {tops:?} never was; lately {:#?}",
                self.skipped,
                self.part(&self.state, &tops),
                area.history
                    .iter()
                    .filter(|version| version.ended >= self.asked)
                    .map(|version| self.part(&version.state, &tops))
                    .collect::<Vec<_>>(),
            );
            candidates.extend(times.iter().map(|time| time.0));
            shown.push((tops, times));
        }
        let holds = |moment: &u64| {
            let at =
                |times: &Vec<(u64, u64)>| times.iter().any(|t| t.0 <= *moment && *moment <= t.1);
            shown.iter().all(|(_, times)| at(times))
        };
        assert!(
            candidates.iter().any(holds),
            "what the snapshot shows was there, but not at one moment: {shown:?}"
        );
    }

    /// When, while the snapshot was made, the area may have been what it shows.
    fn times(&self, area: &Area, tops: &[&str]) -> Vec<(u64, u64)> {
        let shown = self.part(&self.state, tops);
        let mut times = Vec::new();
        for (n, version) in area.history.iter().enumerate() {
            let end = area.history.get(n + 1).map_or(u64::MAX, |next| next.ended);
            let (from, to) = (version.begun.max(self.asked), end.min(self.made));
            if from <= to && self.shows(&shown, &self.part(&version.state, tops)) {
                times.push((from, to));
            }
        }
        times
    }

    fn shows(&self, shown: &State, was: &State) -> bool {
        let is_left_behind = |text: &Option<String>| {
            let text = text.as_ref();
            text.is_some_and(|text| self.left_behind.contains(text))
        };
        let all_was = shown.iter().all(|(path, what)| match was.get(path) {
            Some(was) => was == what,
            None => is_left_behind(what),
        });
        all_was && was.keys().all(|path| shown.contains_key(path))
    }

    fn part(&self, state: &State, tops: &[&str]) -> State {
        let part = state
            .iter()
            .filter(|(path, _)| is_below(path, tops) && !self.skipped.contains(path));
        part.map(|(path, what)| (path.clone(), what.clone()))
            .collect()
    }
}

/// What a revision shows below these directories of the root.
pub(super) fn published(published: &Published, root: &Hash, tops: &[&str]) -> State {
    state_of(&published.tree(root), &[&*published.store], tops)
}

fn state_of(tree: &Tree, stores: &[&dyn ObjectStore], tops: &[&str]) -> State {
    let entries = tree
        .iter()
        .map(|(path, entry)| (path.to_string(), entry))
        .filter(|(path, _)| is_below(path, tops));
    entries
        .map(|(path, entry)| {
            let bytes = entry.regular().map(|regular| {
                let bytes = bytes_of(regular, stores);
                assert_eq!(bytes.len() as u64, regular.size, "{path}");
                String::from_utf8(bytes).unwrap()
            });
            (path, bytes)
        })
        .collect()
}

fn bytes_of(regular: &Regular, stores: &[&dyn ObjectStore]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in regular.content.objects() {
        let stored = stores.iter().find_map(|store| store.open(&name).ok());
        let stored = stored.unwrap_or_else(|| panic!("{name:?} is nowhere"));
        formats::compress::decompress(regular.compression, stored)
            .read_to_end(&mut bytes)
            .unwrap();
    }
    bytes
}

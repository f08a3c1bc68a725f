//! Changes at random, the same for the same seed.

use formats::Kind;

use super::draft::{Draft, MTIME, path};
use crate::support::dice::Dice;

const NAMES: [&str; 6] = ["a", "B", "c.d", "e%", "f_", "\u{e4}"];

/// Where changes come from.
pub struct Chance {
    pub dice: Dice,
    /// Changes too that the receiver does not carry over, or only in part.
    has_gaps: bool,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed * 0x9e37_79b9),
            has_gaps: false,
        }
    }

    pub fn with_gaps(seed: u64) -> Self {
        Self {
            has_gaps: true,
            ..Self::new(seed)
        }
    }

    /// A directory that a draft has; `""` for the root.
    pub fn directory(&mut self, draft: &Draft) -> String {
        let dirs = draft.rows().iter().filter(|(_, row)| row.entry.is_dir());
        let dirs: Vec<_> = dirs.map(|(path, _)| path.as_bytes().to_vec()).collect();
        let at = self.dice.next(dirs.len() as u64) as usize;
        String::from_utf8(dirs[at].clone()).unwrap()
    }

    /// Some changes; `revision` keeps their times apart from those of others.
    pub fn change(&mut self, draft: &mut Draft, revision: i64) {
        for step in 0..=self.dice.next(12) {
            let stamp = MTIME + revision * 100 + step.cast_signed();
            self.change_one(draft, stamp);
        }
    }

    fn change_one(&mut self, draft: &mut Draft, stamp: i64) {
        let parent = self.directory(draft);
        let at = format!("{parent}/{}", NAMES[self.dice.next(6) as usize]);
        let exists = draft.rows().contains_key(&path(&at));
        let what = self.dice.next(if self.has_gaps { 14 } else { 10 });
        // the receiver does not survive that such a directory becomes a file
        if matches!(what, 0..=2 | 11 | 12) && draft.held_directories(&at) {
            draft.remove(&at);
            return;
        }
        match what {
            0 | 1 => {
                draft.remove(&at);
                draft.file(&at, at.as_bytes()).entry.mtime.secs = stamp;
            }
            2 => {
                draft.remove(&at);
                let row = draft.chunked(&at, &[at.as_bytes(), b"more"]);
                row.entry.mtime.secs = stamp;
            }
            3..=5 if at.len() < 40 => {
                draft.remove(&at);
                draft.dir(&at).entry.mtime.secs = stamp;
            }
            6 if exists => {
                let entry = &mut draft.row(&at).entry;
                (entry.mtime.secs, entry.gid) = (stamp, 12);
                let value = stamp.to_string().into_bytes();
                entry.xattrs.insert(b"user.stamp".to_vec(), value);
            }
            7 => draft.remove(&at),
            8 if !parent.is_empty() => draft.nest(&parent),
            9 if !parent.is_empty() => draft.unnest(&parent),
            10 if exists => draft.row(&at).entry.uid = 77,
            11 => {
                draft.remove(&at);
                draft.other(&at, Kind::Fifo);
            }
            12 => {
                draft.remove(&at);
                let row = draft.file(&at, b"shared");
                (row.linkcount, row.link_group) = (2, 1);
            }
            13 if exists => {
                let value = stamp.to_string().into_bytes();
                let xattrs = &mut draft.row(&at).entry.xattrs;
                xattrs.insert(b"user.unseen".to_vec(), value);
            }
            _ => {}
        }
    }
}

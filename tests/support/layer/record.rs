//! What was done to a filesystem since all of it was synced, and what a power loss leaves of it.
//!
//! Two sets of rules, each weaker than what it is named after:
//!
//! | | ordered (ext4, XFS) | weak (POSIX) |
//! | --- | --- | --- |
//! | names, cuts, modes | those up to some moment, no later ones | any of those not synced, each on its own |
//! | fsync of a file | its bytes, and all names so far | its bytes and size; its name is not |
//! | fsync of a directory | all names so far | the names in it |
//! | unsynced bytes | each page as of some moment of its own | the same |
//! | unsynced size | as far as pages were written; holes read as zeros | also larger than that |
//!
//! A rename is one change in both: it is never half there. Bytes tear at 4 KiB.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::tree::{Names, Node, Number, PAGE, Tree};
use crate::support::dice::Dice;

/// A change, or a promise that changes are durable.
#[derive(Clone, Debug)]
enum Op {
    Names(Names),
    Write(Number, u64, Arc<[u8]>),
    Zero(Number, u64, u64),
    /// A cut, or room made at the end.
    Size(Number, u64),
    Attr(Number, u32, u32, u32),
    Mtime(Number, SystemTime),
    Sync(Number),
    SyncDir(Number),
}

/// What a power loss may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Ordered,
    Weak,
}

/// See the module's head. A copy costs little.
#[derive(Clone)]
pub struct Record {
    /// Everything that is durable for certain.
    base: Tree,
    /// What happened since.
    log: Vec<Op>,
    /// What everybody sees.
    live: Tree,
    next: Number,
    /// Inodes made since, as they were made.
    made: HashMap<Number, Node>,
}

impl Record {
    /// A filesystem that holds what another was left with.
    pub fn over(tree: Tree) -> Self {
        Self {
            next: tree.last() + 1,
            live: tree.clone(),
            base: tree,
            log: Vec::new(),
            made: HashMap::new(),
        }
    }

    pub fn live(&self) -> &Tree {
        &self.live
    }

    /// Changes since everything was synced.
    pub fn unsynced(&self) -> usize {
        self.log.len()
    }

    /// A new inode; it has no name yet.
    pub fn make(&mut self, node: Node) -> Number {
        let number = self.next;
        self.next += 1;
        self.live.insert(number, node.clone());
        self.made.insert(number, node);
        number
    }

    pub fn names(&mut self, names: Names) {
        self.live.rename(&names);
        self.log.push(Op::Names(names));
    }

    pub fn write(&mut self, number: Number, at: u64, bytes: &[u8]) {
        self.push(Op::Write(number, at, bytes.into()));
        self.touch(number, SystemTime::now());
    }

    pub fn zero(&mut self, number: Number, at: u64, length: u64) {
        self.push(Op::Zero(number, at, length));
        self.touch(number, SystemTime::now());
    }

    pub fn set_size(&mut self, number: Number, size: u64) {
        self.push(Op::Size(number, size));
        self.touch(number, SystemTime::now());
    }

    pub fn set_attr(&mut self, number: Number, perm: u32, uid: u32, gid: u32) {
        self.push(Op::Attr(number, perm, uid, gid));
    }

    pub fn touch(&mut self, number: Number, mtime: SystemTime) {
        self.push(Op::Mtime(number, mtime));
    }

    fn push(&mut self, op: Op) {
        apply(&mut self.live, &op);
        self.log.push(op);
    }

    pub fn sync(&mut self, number: Number) {
        self.log.push(Op::Sync(number));
    }

    pub fn sync_dir(&mut self, number: Number) {
        self.log.push(Op::SyncDir(number));
    }

    pub fn sync_all(&mut self) {
        self.base = self.live.clone();
        self.log.clear();
        self.made.clear();
    }

    /// What a power loss leaves.
    pub fn image(&self, rules: Rules, dice: &mut Dice) -> Tree {
        let mut tree = self.base.clone();
        for (number, node) in &self.made {
            tree.insert(*number, node.clone());
        }
        // how much of what need not be there is there, in sixths: often nothing, often everything
        let luck = dice.next(7);
        let kept_names = self.kept_names(rules, luck, dice);
        for (at, op) in self.log.iter().enumerate() {
            if let Op::Names(names) = op
                && kept_names[at]
            {
                tree.rename(names);
            }
        }
        let mut by_file: HashMap<Number, Vec<usize>> = HashMap::new();
        for (at, op) in self.log.iter().enumerate() {
            if let Some(number) = op.file() {
                by_file.entry(number).or_default().push(at);
            }
        }
        // in this order, so that a seed always means the same
        let mut files: Vec<(Number, Vec<usize>)> = by_file.into_iter().collect();
        files.sort_unstable();
        for (number, ops) in files {
            let luck = if dice.next(3) == 0 {
                dice.next(7)
            } else {
                luck
            };
            let kept = Kept::new(self, rules, number, &ops, &kept_names, luck, dice);
            kept.apply(self, &mut tree, dice);
        }
        tree.prune();
        tree
    }

    /// Which changes of names, and under ordered rules of sizes and modes, are there.
    fn kept_names(&self, rules: Rules, luck: u64, dice: &mut Dice) -> Vec<bool> {
        let length = self.log.len();
        match rules {
            Rules::Ordered => {
                let synced = self.log.iter().rposition(Op::is_sync);
                let least = synced.map_or(0, |at| at + 1);
                let more = share((length - least) as u64, luck, dice);
                let until = least + usize::try_from(more).unwrap();
                (0..length).map(|at| at < until).collect()
            }
            Rules::Weak => {
                let mut kept = vec![false; length];
                let mut synced: Vec<Number> = Vec::new();
                for (at, op) in self.log.iter().enumerate().rev() {
                    match op {
                        Op::SyncDir(dir) => synced.push(*dir),
                        Op::Names(names) => {
                            let durable = synced.iter().any(|dir| names.touches(*dir));
                            kept[at] = durable || dice.next(6) < luck;
                        }
                        _ => {}
                    }
                }
                kept
            }
        }
    }
}

/// Some of `most`, by luck.
fn share(most: u64, luck: u64, dice: &mut Dice) -> u64 {
    match luck {
        0 => 0,
        6 => most,
        _ => dice.next(most + 1),
    }
}

impl Op {
    fn is_sync(&self) -> bool {
        matches!(self, Self::Sync(_) | Self::SyncDir(_))
    }

    /// The file whose bytes or attributes it changes.
    fn file(&self) -> Option<Number> {
        match self {
            Self::Write(number, ..)
            | Self::Zero(number, ..)
            | Self::Size(number, _)
            | Self::Attr(number, ..)
            | Self::Mtime(number, _) => Some(*number),
            Self::Names(_) | Self::Sync(_) | Self::SyncDir(_) => None,
        }
    }
}

fn apply(tree: &mut Tree, op: &Op) {
    match op {
        Op::Write(number, at, bytes) => {
            if let Some(file) = tree.file_mut(*number) {
                file.write(*at, bytes);
            }
        }
        Op::Zero(number, at, length) => {
            if let Some(file) = tree.file_mut(*number) {
                file.zero(*at, *length);
            }
        }
        Op::Size(number, size) => {
            if let Some(file) = tree.file_mut(*number) {
                file.set_size(*size);
            }
        }
        Op::Attr(number, perm, uid, gid) => {
            if let Some(node) = tree.node_mut(*number) {
                (node.perm, node.uid, node.gid) = (*perm, *uid, *gid);
            }
        }
        Op::Mtime(number, mtime) => {
            if let Some(node) = tree.node_mut(*number) {
                node.mtime = *mtime;
            }
        }
        Op::Names(_) | Op::Sync(_) | Op::SyncDir(_) => {}
    }
}

/// What is kept of one file.
struct Kept<'a> {
    number: Number,
    ops: &'a [usize],
    /// Up to here everything is.
    synced: usize,
    /// Before here all attributes, cuts and growths are.
    attributes: usize,
    /// No bytes from here on can be: the file was cut before, and that is not there.
    barrier: usize,
    rules: Rules,
    luck: u64,
}

impl<'a> Kept<'a> {
    fn new(
        record: &Record,
        rules: Rules,
        number: Number,
        ops: &'a [usize],
        kept_names: &[bool],
        luck: u64,
        dice: &mut Dice,
    ) -> Self {
        let length = record.log.len();
        let is_sync = |op: &Op| matches!(op, Op::Sync(n) if *n == number);
        let synced = record.log.iter().rposition(is_sync).map_or(0, |at| at + 1);
        let attributes = match rules {
            Rules::Ordered => kept_names.iter().position(|kept| !kept).unwrap_or(length),
            Rules::Weak => {
                let more = share((length - synced) as u64, luck, dice);
                synced + usize::try_from(more).unwrap()
            }
        };
        let cut = |at: &&usize| **at >= attributes && matches!(record.log[**at], Op::Size(..));
        let barrier = ops.iter().find(cut).copied().unwrap_or(length);
        Self {
            number,
            ops,
            synced,
            attributes: attributes.max(synced),
            barrier: barrier.max(synced),
            rules,
            luck,
        }
    }

    fn apply(&self, record: &Record, tree: &mut Tree, dice: &mut Dice) {
        let mut until: HashMap<u64, usize> = HashMap::new();
        // the size that attributes and pages that are there account for
        let mut size = tree.file(self.number).map_or(0, |file| file.size);
        let mut logical = size;
        for at in self.ops {
            let op = &record.log[*at];
            match op {
                Op::Write(_, from, bytes) => {
                    let end = from + bytes.len() as u64;
                    logical = logical.max(end);
                    let pages = self.pages_kept(*at, (*from, end), &mut until, dice);
                    let Some(file) = tree.file_mut(self.number) else {
                        return;
                    };
                    for (begin, end) in pages {
                        let part = within(begin - from)..within(end - from);
                        file.write(begin, &bytes[part]);
                        size = size.max(end);
                    }
                    // the size may be on disk before the bytes are
                    if self.rules == Rules::Weak && *at < self.attributes {
                        size = size.max(logical);
                    }
                }
                Op::Zero(_, from, length) => {
                    let pages = self.pages_kept(*at, (*from, from + length), &mut until, dice);
                    let Some(file) = tree.file_mut(self.number) else {
                        return;
                    };
                    for (begin, end) in pages {
                        file.zero(begin, end - begin);
                    }
                }
                Op::Size(_, to) if *at < self.attributes => {
                    apply(tree, op);
                    (size, logical) = (*to, *to);
                }
                Op::Size(_, to) => logical = *to,
                Op::Attr(..) | Op::Mtime(..) if *at < self.attributes => apply(tree, op),
                _ => {}
            }
            if let Some(file) = tree.file_mut(self.number) {
                file.set_size(size);
            }
        }
    }

    /// The parts of a change, page by page, that are there.
    fn pages_kept(
        &self,
        at: usize,
        (from, end): (u64, u64),
        until: &mut HashMap<u64, usize>,
        dice: &mut Dice,
    ) -> Vec<(u64, u64)> {
        let mut kept = Vec::new();
        let mut here = from;
        while here < end {
            let next = ((here / PAGE + 1) * PAGE).min(end);
            // a page is written out whole, as it is at some moment
            let last = *until.entry(here / PAGE).or_insert_with(|| {
                let more = share((self.barrier - self.synced) as u64, self.luck, dice);
                self.synced + usize::try_from(more).unwrap()
            });
            if at < last {
                kept.push((here, next));
            }
            here = next;
        }
        kept
    }
}

fn within(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

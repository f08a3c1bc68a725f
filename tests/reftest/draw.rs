//! What draws operations. The choice looks at the model, so that most of them find something to do.

use super::model::Model;
use super::ops::{Fill, How, MARKER, Making, Moving, Op, Path, SLOTS, Setting, Space, Writers};

/// Reproducible random numbers (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.index(from.len());
        &from[at]
    }
}

/// What a subject can be asked.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Commit, abort, restart, seal.
    pub stage: bool,
    /// `kill -9`.
    pub kill: bool,
    /// Owners can be changed, modes cannot lock us out.
    pub root: bool,
    /// Device nodes.
    pub devices: bool,
    /// What is committed or aborted can be named in any bytes and at any length, not only as text
    /// that can be a path.
    pub any_target: bool,
}

const NAMES: [&[u8]; 9] = [
    b"a",
    b"b",
    b"c",
    b"d.x",
    b"e e",
    b".h",
    b"\xff\xfe",
    b"n\n",
    b"a.b",
];
const XATTRS: [&str; 3] = ["user.one", "user.two", "user.three"];
const OWNERS: [u32; 4] = [0, 1000, 65_534, 4_294_967_294];
/// None of them is near the time when the test runs.
const TIMES: [i64; 6] = [-2_000_000_000, -1, 0, 1, 1_000_000_000, 4_102_444_800];
const NANOS: [u32; 4] = [0, 1, 500_000_000, 999_999_999];
/// Beyond this many names, more is removed than made.
const CROWDED: usize = 90;

/// Draws operations.
pub struct Generator {
    pub dice: Dice,
    can: Abilities,
    tag: u32,
    /// The directory that was moved last: its old place and its new one.
    moved: Option<(Path, Path)>,
}

impl Generator {
    pub fn new(seed: u64, can: Abilities) -> Self {
        Self {
            dice: Dice::new(seed),
            can,
            tag: 0,
            moved: None,
        }
    }

    pub fn next(&mut self, model: &Model) -> Op {
        let paths = model.paths();
        let mut draw = Draw {
            dirs: model.directories(),
            paths,
            own: self,
        };
        draw.op()
    }
}

/// One draw, with what exists.
struct Draw<'a> {
    own: &'a mut Generator,
    paths: Vec<Path>,
    dirs: Vec<Path>,
}

impl Draw<'_> {
    fn op(&mut self) -> Op {
        if self.own.can.stage && self.dice().one_in(15) {
            return self.stage_op();
        }
        if self.paths.len() > CROWDED && self.dice().one_in(2) {
            return self.remove();
        }
        match self.dice().below(100) {
            0..=11 => self.put(),
            12..=19 => self.open(),
            20..=46 => self.on_open_file(),
            47..=55 => Op::Mkdir {
                path: self.new_path(),
                perm: self.perm(true) & 0o777,
            },
            56..=62 => self.remove(),
            63..=76 => self.rename(),
            77..=80 => Op::Link {
                from: self.some_path(),
                to: self.new_path(),
            },
            81..=82 => self.symlink(),
            83..=84 => self.mknod(),
            85..=91 => self.attributes(),
            92..=94 => Op::Truncate {
                path: self.some_path(),
                size: self.offset(),
            },
            95..=98 => self.xattr(),
            _ => self.mark(),
        }
    }

    fn stage_op(&mut self) -> Op {
        match self.dice().below(20) {
            0..=11 => Op::Commit {
                paths: self.targets(),
                writers: if self.dice().one_in(2) {
                    Writers::Fail
                } else {
                    Writers::Skip
                },
            },
            12..=14 => Op::Abort {
                path: if self.dice().one_in(5) {
                    Path::root()
                } else {
                    self.target()
                },
            },
            15..=16 => Op::Seal,
            17..=18 if self.own.can.kill => Op::Kill,
            _ => Op::Restart,
        }
    }

    fn put(&mut self) -> Op {
        let path = if self.dice().one_in(3) {
            self.some_path()
        } else {
            self.new_path()
        };
        Op::Put {
            path,
            fill: self.fill(),
        }
    }

    /// Makes a directory the root of a catalog; not the repository's root, which is one anyway.
    fn mark(&mut self) -> Op {
        let dir = self.dir();
        if dir == Path::root() {
            return self.put();
        }
        Op::Put {
            path: dir.join(MARKER),
            fill: Fill { tag: 1, length: 0 },
        }
    }

    fn open(&mut self) -> Op {
        let dice = self.dice();
        let (read, write) = *dice.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        let how = How {
            read,
            write,
            create: dice.one_in(2),
            exclusive: dice.one_in(8),
            // O_TRUNC without write access is not defined
            truncate: write && dice.one_in(5),
            append: write && dice.one_in(6),
        };
        let how = How {
            exclusive: how.exclusive && how.create,
            ..how
        };
        let path = if how.create && self.dice().one_in(2) {
            self.new_path()
        } else {
            self.some_path()
        };
        Op::Open {
            slot: self.dice().index(SLOTS),
            path,
            how,
            perm: self.perm(false) & 0o777,
        }
    }

    fn on_open_file(&mut self) -> Op {
        let slot = self.dice().index(SLOTS);
        match self.dice().below(20) {
            0..=8 => Op::Write {
                slot,
                offset: self.offset(),
                fill: self.fill_of_at_least_one(),
            },
            9..=12 => Op::Read {
                slot,
                offset: self.offset(),
                length: 1 + self.dice().index(30_000),
            },
            13 => Op::Resize {
                slot,
                size: self.offset(),
            },
            14 => Op::Space {
                slot,
                offset: self.offset(),
                length: 1 + self.offset(),
                how: *self.dice().pick(&[
                    Space::Allocate,
                    Space::KeepSize,
                    Space::Punch,
                    Space::Punch,
                ]),
            },
            15..=16 => {
                let whole = self.dice().one_in(3);
                Op::Copy {
                    from: slot,
                    from_offset: if whole { 0 } else { self.offset() },
                    to: self.dice().index(SLOTS),
                    to_offset: if whole { 0 } else { self.offset() },
                    length: if whole { 1 << 20 } else { 1 + self.offset() },
                }
            }
            17 => Op::Sync { slot },
            _ => Op::Close { slot },
        }
    }

    fn remove(&mut self) -> Op {
        let path = self.some_path();
        if self.dirs.contains(&path) != self.dice().one_in(12) {
            Op::Rmdir { path }
        } else {
            Op::Unlink { path }
        }
    }

    fn rename(&mut self) -> Op {
        let how = *self.dice().pick(&[
            Moving::Replace,
            Moving::Replace,
            Moving::Replace,
            Moving::NoReplace,
            Moving::Exchange,
        ]);
        let from = self.some_path();
        let to = if how == Moving::Exchange || self.dice().one_in(3) {
            self.some_path()
        } else {
            self.new_path()
        };
        // nothing else takes a marker's name
        let is_marker = |path: &Path| path.split().is_some_and(|(_, name)| name == MARKER);
        if is_marker(&to) || how == Moving::Exchange && is_marker(&from) {
            return self.remove();
        }
        if self.dirs.contains(&from) {
            self.own.moved = Some((from.clone(), to.clone()));
        }
        Op::Rename { from, to, how }
    }

    fn symlink(&mut self) -> Op {
        // a path through any of these ends nowhere, so that no walk needs to follow one
        let mut target = b"/prepub-nowhere/".to_vec();
        let length = *self.dice().pick(&[0, 5, 40, 300, 4079]);
        target.resize(target.len() + length, b't');
        if self.dice().one_in(4) {
            target.extend_from_slice(b"$(VAR)");
            target.truncate(4095);
        }
        Op::Symlink {
            path: self.new_path(),
            target,
        }
    }

    fn mknod(&mut self) -> Op {
        let mut choice = vec![Making::Regular, Making::Fifo, Making::Socket];
        if self.own.can.devices {
            // (8, 1) and (259, 70000)
            choice.extend([Making::BlockDevice(0x801), Making::CharDevice(0x1101_0370)]);
        }
        Op::Mknod {
            path: self.new_path(),
            perm: self.perm(false) & 0o777,
            what: *self.dice().pick(&choice),
        }
    }

    fn attributes(&mut self) -> Op {
        let path = if self.dice().one_in(30) {
            Path::root()
        } else {
            self.some_path()
        };
        match self.dice().below(5) {
            0..=1 => Op::Chmod {
                perm: self.perm(self.dirs.contains(&path)),
                path,
            },
            2 if self.own.can.root => Op::Chown {
                path,
                uid: *self.dice().pick(&OWNERS),
                gid: *self.dice().pick(&OWNERS),
            },
            _ => Op::Utimens {
                path,
                secs: *self.dice().pick(&TIMES),
                nanos: *self.dice().pick(&NANOS),
            },
        }
    }

    fn xattr(&mut self) -> Op {
        let path = self.some_path();
        let name = *self.dice().pick(&XATTRS);
        if self.dice().one_in(3) {
            return Op::Removexattr { path, name };
        }
        // 255 bytes is the most that is published
        let length = *self.dice().pick(&[0, 1, 20, 255]);
        let value = Fill {
            tag: self.tag(),
            length,
        };
        Op::Setxattr {
            path,
            name,
            value: value.bytes(),
            how: *self.dice().pick(&[
                Setting::Any,
                Setting::Any,
                Setting::Create,
                Setting::Replace,
            ]),
        }
    }

    fn dice(&mut self) -> &mut Dice {
        &mut self.own.dice
    }

    fn tag(&mut self) -> u32 {
        // few contents, so that some come again
        self.own.tag += 1;
        if self.dice().one_in(4) {
            return 7;
        }
        self.own.tag
    }

    fn fill(&mut self) -> Fill {
        let length = match self.dice().below(12) {
            0 => 0,
            1..=7 => self.dice().index(3_000),
            8..=10 => self.dice().index(40_000),
            _ => self.dice().index(150_000),
        };
        Fill {
            tag: self.tag(),
            length,
        }
    }

    fn fill_of_at_least_one(&mut self) -> Fill {
        let fill = self.fill();
        Fill {
            length: fill.length.max(1),
            ..fill
        }
    }

    fn offset(&mut self) -> u64 {
        match self.dice().below(8) {
            0..=1 => 0,
            2..=5 => self.dice().below(6_000),
            6 => self.dice().below(60_000),
            _ => 4096 * self.dice().below(12),
        }
    }

    fn perm(&mut self, dir: bool) -> u16 {
        let perm: u16 = *self.dice().pick(&[
            0o755, 0o644, 0o700, 0o777, 0o640, 0o000, 0o2775, 0o6755, 0o1711, 0o2644,
        ]);
        match (dir, self.own.can.root) {
            (true, true) => perm,
            (true, false) => perm | 0o700,
            // without root, set-group-ID depends on which groups the caller is in
            (false, true) => perm,
            (false, false) => (perm | 0o600) & 0o777,
        }
    }

    fn dir(&mut self) -> Path {
        let at = self.own.dice.index(self.dirs.len());
        self.dirs[at].clone()
    }

    /// Something that exists, mostly; never the root.
    fn some_path(&mut self) -> Path {
        if self.paths.is_empty() || self.dice().one_in(12) {
            return self.new_path();
        }
        let at = self.own.dice.index(self.paths.len());
        self.paths[at].clone()
    }

    /// What is committed in one go.
    fn targets(&mut self) -> Vec<Path> {
        match self.dice().below(8) {
            0..=2 => vec![Path::root()],
            3..=5 => vec![self.target()],
            _ => {
                let mut paths: Vec<Path> = Vec::new();
                for _ in 0..3 {
                    let path = self.target();
                    // one within another is refused, or taken for said twice
                    if !paths
                        .iter()
                        .any(|p| p.is_within(&path) || path.is_within(p))
                    {
                        paths.push(path);
                    }
                }
                paths
            }
        }
    }

    /// Something that can be committed or aborted; often one side of a move, or a part of it.
    fn target(&mut self) -> Path {
        let mut path = self.some_path();
        if let Some((from, to)) = self.own.moved.clone()
            && self.dice().one_in(2)
        {
            let above = |path: &Path| path.split().map_or_else(Path::root, |(dir, _)| dir);
            let below: Vec<Path> = self
                .paths
                .iter()
                .filter(|p| p.is_within(&to))
                .cloned()
                .collect();
            path = match self.dice().below(6) {
                0 => from,
                1 => above(&from),
                2 => to,
                3 => above(&to),
                _ if below.is_empty() => to,
                _ => self.dice().pick(&below).clone(),
            };
        }
        let can_be = path.names().all(|name| name.len() <= 255);
        match self.own.can.any_target || can_be && std::str::from_utf8(&path.0).is_ok() {
            true => path,
            false => Path::root(),
        }
    }

    /// A name in a directory that exists, mostly; often it does not exist yet.
    fn new_path(&mut self) -> Path {
        let mut dir = self.dir();
        if dir.names().count() > 5 {
            dir = Path::root();
        }
        match self.dice().below(60) {
            // below something that is perhaps no directory
            0 if !self.paths.is_empty() => {
                let at = self.own.dice.index(self.paths.len());
                dir = self.paths[at].clone();
            }
            1 => dir = dir.join(b"missing"),
            2 => return dir.join(&[b'L'; 255]),
            3 => return dir.join(&[b'L'; 256]),
            _ => {}
        }
        let name = *self.own.dice.pick(&NAMES);
        dir.join(name)
    }
}

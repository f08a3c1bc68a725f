//! Runs operations on a model and on a subject, compares, and makes a failing list short.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use super::draw::{Abilities, Generator};
use super::model::{Expected, Face, Id, Kind, Model, Rules, Stamp, Verdict};
use super::ops::{Answer, Op, Path, SLOTS, digest};

/// A file at a path, as a subject shows it.
#[derive(Clone, Debug)]
pub struct Observed {
    pub kind: Kind,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// 0 where there is none, as in a catalog.
    pub ino: u64,
}

/// What can be tested against the model.
pub trait Subject {
    /// Does it. `slot`s are the subject's own affair.
    fn apply(&mut self, op: &Op) -> Answer;

    /// Everything visible, the root included.
    fn tree(&mut self) -> BTreeMap<Path, Observed>;

    /// What an open file shows: its bytes (where it may be read) and its link count.
    fn handle(&mut self, slot: usize, readable: bool) -> (Vec<u8>, u32);

    /// The number of the published revision and what is in it; none if nothing is published.
    fn published(&mut self) -> Option<(u64, BTreeMap<Path, Observed>)>;

    /// What is wrong with the repository, and with the stage where nothing is staged.
    fn complaints(&mut self, clean: bool) -> Vec<String>;
}

/// How a subject is tested.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub can: Abilities,
    pub rules: Rules,
    /// Operations between two comparisons of everything.
    pub stride: usize,
    /// Directories are of 4096 bytes.
    pub dir_sizes: bool,
    /// How long a failing list may be made shorter.
    pub shrink: Duration,
}

/// Operations of a run that failed, and why.
struct Failure {
    done: Vec<Op>,
    why: String,
}

/// Draws `count` operations from `seed` and runs them; panics with what failed.
pub fn explore<S: Subject>(seed: u64, count: usize, terms: &Terms, fresh: &dyn Fn(u64) -> S) {
    let mut generator = Generator::new(seed, terms.can);
    let mut run = Run::new(fresh(seed), terms);
    let mut failure = None;
    for _ in 0..count {
        let op = generator.next(&run.model);
        if let Err(why) = guarded(|| run.step(op)) {
            failure = Some(why);
            break;
        }
    }
    let failure = failure.or_else(|| guarded(|| run.compare_all()).err());
    let Some(why) = failure else { return };
    let done = std::mem::take(&mut run.done);
    // the subject goes before another is made: two daemons on one machine disturb each other
    drop(run);
    let failure = shorten(Failure { done, why }, terms, &|| fresh(seed));
    panic!(
        "seed {seed} (PREPUB_SEED={seed} runs it alone){}",
        tell(&failure)
    );
}

/// Runs a list of operations; what failed.
fn replay<S: Subject>(ops: &[Op], terms: &Terms, subject: S) -> Option<Failure> {
    // a comparison after each operation tells which of them did it
    let terms = Terms {
        stride: 1,
        ..*terms
    };
    let mut run = Run::new(subject, &terms);
    let mut steps = ops.iter();
    let failure = steps.find_map(|op| guarded(|| run.step(op.clone())).err());
    let why = failure.or_else(|| guarded(|| run.compare_all()).err())?;
    let done = std::mem::take(&mut run.done);
    Some(Failure { done, why })
}

/// A panic on the way is a failure like others, and its list is made short too.
fn guarded(act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("  panicked: {}", text.unwrap_or_default()))
    })
}

/// Delta debugging: leaves out ever smaller parts as long as it fails.
fn shorten<S: Subject>(first: Failure, terms: &Terms, fresh: &dyn Fn() -> S) -> Failure {
    let until = Instant::now() + terms.shrink;
    let mut best = first;
    let Some(again) = replay(&best.done, terms, fresh()) else {
        best.why.push_str("\n(does not fail when replayed)");
        return best;
    };
    best = again;
    let mut part = best.done.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < best.done.len() {
            if Instant::now() > until {
                return best;
            }
            let mut fewer = best.done.clone();
            fewer.drain(at..(at + part).min(fewer.len()));
            match replay(&fewer, terms, fresh()) {
                Some(failure) => best = failure,
                None => at += part,
            }
        }
        part /= 2;
    }
    best
}

fn tell(failure: &Failure) -> String {
    let mut text = format!(": {} operations\n", failure.done.len());
    for op in &failure.done {
        let line = format!("{op:?}");
        let short: String = line.chars().take(300).collect();
        writeln!(text, "  {short}").unwrap();
    }
    text + &failure.why
}

/// A model and a subject, side by side.
struct Run<'a, S> {
    model: Model,
    subject: S,
    terms: &'a Terms,
    done: Vec<Op>,
    /// Which number the subject has given to an inode.
    inos: BTreeMap<Id, u64>,
    revision: Option<u64>,
    /// Times that follow from this run are not older.
    started: SystemTime,
}

impl<'a, S: Subject> Run<'a, S> {
    fn new(mut subject: S, terms: &'a Terms) -> Self {
        let started = SystemTime::now() - Duration::from_secs(5);
        let root = subject.tree().remove(&Path::root()).expect("a root");
        let root = Face {
            kind: root.kind,
            perm: root.perm,
            uid: root.uid,
            gid: root.gid,
            stamp: Stamp::Any,
            xattrs: root.xattrs,
        };
        let revision = subject.published().map(|(revision, _)| revision);
        Self {
            model: Model::new(terms.rules, root),
            subject,
            terms,
            done: Vec::new(),
            inos: BTreeMap::new(),
            revision,
            started,
        }
    }

    fn step(&mut self, op: Op) -> Result<(), String> {
        let was_clean = self.model.clean;
        self.done.push(op.clone());
        let wanted = match self.model.apply(&op) {
            Verdict::Answer(wanted) => wanted,
            Verdict::LeaveOut => {
                self.done.pop();
                return Ok(());
            }
        };
        let got = self.subject.apply(&op);
        if wanted != got {
            return Err(format!(
                "{op:?}\n  has to answer {wanted:?}\n  but answers   {got:?}"
            ));
        }
        match op {
            Op::Commit { .. } if got == Answer::Done => {
                self.compare_published(was_clean)?;
                self.compare_all()
            }
            Op::Restart | Op::Kill => {
                // a number is kept as long as somebody may know it
                self.inos.clear();
                self.compare_all()
            }
            Op::Abort { .. } => self.compare_all(),
            _ if self.done.len().is_multiple_of(self.terms.stride) => self.compare_all(),
            _ => Ok(()),
        }
    }

    /// Compares everything that is visible.
    fn compare_all(&mut self) -> Result<(), String> {
        let got = self.subject.tree();
        let wanted = self.model.tree();
        let mut problems = names_differ(&wanted, &got);
        for (path, wanted) in &wanted {
            let Some(got) = got.get(path) else { continue };
            let about = |what: String| format!("{path:?}: {what}");
            problems.extend(self.differences(wanted, got).into_iter().map(about));
        }
        problems.extend(number(&mut self.inos, &wanted, &got));
        for slot in 0..SLOTS {
            let Some((readable, bytes, nlink)) = self.model.handle(slot) else {
                continue;
            };
            let (got, got_nlink) = self.subject.handle(slot, readable);
            if readable && got != bytes {
                problems.push(format!("open file {slot}: {}", bytes_differ(bytes, &got)));
            }
            if got_nlink != nlink {
                problems.push(format!("open file {slot}: {nlink} links, not {got_nlink}"));
            }
        }
        problems.extend(self.subject.complaints(self.model.clean));
        verdict(&problems)
    }

    fn compare_published(&mut self, was_clean: bool) -> Result<(), String> {
        let Some((revision, got)) = self.subject.published() else {
            return Ok(());
        };
        let mut problems = Vec::new();
        if was_clean && self.revision != Some(revision) {
            problems.push(format!(
                "nothing was staged, but revision {revision} was made"
            ));
        }
        self.revision = Some(revision);
        let wanted: BTreeMap<Path, Expected<'_>> = self
            .model
            .published()
            .iter()
            .map(|(path, published)| {
                let face = &published.face;
                let nlink = match face.is_dir() {
                    true => 2 + self.model.published_subdirs(path),
                    false => 1,
                };
                (path.clone(), Expected { id: 0, face, nlink })
            })
            .collect();
        problems.extend(names_differ(&wanted, &got));
        for (path, wanted) in &wanted {
            let Some(got) = got.get(path) else { continue };
            let about = |what: String| format!("{path:?}: {what}");
            problems.extend(self.differences(wanted, got).into_iter().map(about));
        }
        verdict(&problems).map_err(|text| format!("published revision {revision}:\n{text}"))
    }

    fn differences(&self, wanted: &Expected<'_>, got: &Observed) -> Vec<String> {
        let mut problems = Vec::new();
        let face = wanted.face;
        let mut check = |what: &str, wanted: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug| {
            let (wanted, got) = (format!("{wanted:?}"), format!("{got:?}"));
            if wanted != got {
                problems.push(format!("{what} has to be {wanted}, but is {got}"));
            }
        };
        check("the mode", &face.perm, &got.perm);
        check("the owner", &(face.uid, face.gid), &(got.uid, got.gid));
        check("the link count", &wanted.nlink, &got.nlink);
        if face.xattrs != got.xattrs {
            check("extended attributes", &face.xattrs, &got.xattrs);
        }
        let size = match &face.kind {
            Kind::Regular(bytes) => bytes.len() as u64,
            Kind::Symlink(target) => target.len() as u64,
            Kind::Directory if self.terms.dir_sizes => 4096,
            Kind::Directory => got.size,
            _ => 0,
        };
        check("the size", &size, &got.size);
        match (&face.kind, &got.kind) {
            (Kind::Regular(wanted), Kind::Regular(got)) if wanted != got => {
                problems.push(bytes_differ(wanted, got));
            }
            (Kind::Regular(_), Kind::Regular(_)) => {}
            (wanted, got) if wanted != got => {
                problems.push(format!("the type has to be {wanted:?}, but is {got:?}"));
            }
            _ => {}
        }
        if !self.right_time(face.stamp, got.mtime) {
            problems.push(format!(
                "the modification time has to be {:?}, but is {:?}",
                face.stamp, got.mtime
            ));
        }
        problems
    }

    fn right_time(&self, stamp: Stamp, got: (i64, u32)) -> bool {
        match stamp {
            Stamp::Any => true,
            Stamp::At(secs, nanos) => got == (secs, nanos),
            Stamp::Published(secs, nanos) => got == (secs, nanos) || got == (secs, 0),
            Stamp::Recent => {
                let since = |time: SystemTime| {
                    let passed = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    i64::try_from(passed.as_secs()).unwrap()
                };
                (since(self.started)..=since(SystemTime::now()) + 1).contains(&got.0)
            }
        }
    }
}

/// Names that one side has alone.
fn names_differ(
    wanted: &BTreeMap<Path, Expected<'_>>,
    got: &BTreeMap<Path, Observed>,
) -> Vec<String> {
    let missing = wanted.keys().filter(|path| !got.contains_key(path));
    let extra = got.keys().filter(|path| !wanted.contains_key(path));
    missing
        .map(|path| format!("{path:?} is missing"))
        .chain(extra.map(|path| format!("{path:?} has no business here")))
        .collect()
}

/// An inode keeps its number, and no other has it.
fn number(
    known: &mut BTreeMap<Id, u64>,
    wanted: &BTreeMap<Path, Expected<'_>>,
    got: &BTreeMap<Path, Observed>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut owners: BTreeMap<u64, Id> = BTreeMap::new();
    let present: Vec<Id> = wanted.values().map(|e| e.id).collect();
    known.retain(|id, _| present.contains(id));
    for (path, expected) in wanted {
        let Some(got) = got.get(path).filter(|got| got.ino != 0) else {
            continue;
        };
        let before = *known.entry(expected.id).or_insert(got.ino);
        if before != got.ino {
            problems.push(format!("{path:?}: inode {before} has become {}", got.ino));
            known.insert(expected.id, got.ino);
        }
        if *owners.entry(got.ino).or_insert(expected.id) != expected.id {
            problems.push(format!("{path:?}: inode {} is another's too", got.ino));
        }
    }
    problems
}

fn bytes_differ(wanted: &[u8], got: &[u8]) -> String {
    let first = wanted.iter().zip(got).position(|(a, b)| a != b);
    let first = first.unwrap_or(wanted.len().min(got.len()));
    format!(
        "the content has to be {} bytes {}, but is {} bytes {}; they differ from byte {first} on",
        wanted.len(),
        digest(wanted),
        got.len(),
        digest(got)
    )
}

fn verdict(problems: &[String]) -> Result<(), String> {
    match problems.len() {
        0 => Ok(()),
        all => {
            let mut shown = problems[..all.min(12)].join("\n  ");
            if all > 12 {
                write!(shown, "\n  and {} more", all - 12).unwrap();
            }
            Err(format!("  {shown}"))
        }
    }
}

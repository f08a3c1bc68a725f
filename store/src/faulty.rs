//! A decorator that makes any store fail on demand, and counts what is asked of it.
//!
//! Without a rule it passes everything through unchanged. Rules are looked at in the order they
//! were added; the first that fits the call decides. It holds no state of the store's own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use formats::ObjectName;
use parking_lot::Mutex;

use crate::error::{Result, StoreError};
use crate::failpoint::Injected;
use crate::object_store::{ObjectStore, Pending, Stored};

/// What can be asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`ObjectStore::has`] and [`ObjectStore::stored_size`].
    Look,
    /// [`ObjectStore::open`].
    Open,
    /// Each read from what `open` returned.
    Read,
    /// [`ObjectStore::begin`].
    Begin,
    /// Each write to a pending object.
    Write,
    /// [`Pending::keep`].
    Keep,
    /// [`ObjectStore::delete`].
    Delete,
    /// [`ObjectStore::read_root`].
    ReadRoot,
    /// [`ObjectStore::write_root`].
    WriteRoot,
    /// [`ObjectStore::remove_root`].
    RemoveRoot,
    /// [`ObjectStore::for_each`].
    ForEach,
    /// [`ObjectStore::sync`].
    Sync,
    /// [`ObjectStore::adopt`].
    Adopt,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Open => "open",
            Self::Read => "read",
            Self::Begin => "begin",
            Self::Write => "write",
            Self::Keep => "keep",
            Self::Delete => "delete",
            Self::ReadRoot => "read_root",
            Self::WriteRoot => "write_root",
            Self::RemoveRoot => "remove_root",
            Self::ForEach => "for_each",
            Self::Sync => "sync",
            Self::Adopt => "adopt",
        }
    }
}

/// Which calls of an operation a rule is for. Calls are counted from 1, from the rule's making on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every one.
    Always,
    /// That one alone.
    Nth(u64),
    /// That one and all after it.
    From(u64),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and an error returned.
    Fail,
    /// As [`Fault::Fail`], with the error of a full disk.
    NoSpace,
    /// It is done, and an error returned all the same: the answer got lost.
    ApplyThenFail,
    /// What is read ends after so many bytes, as if that were all. For `Open` and `ReadRoot`.
    Truncate(u64),
    /// One bit is turned over in the byte at this offset. For `Open` and `ReadRoot`.
    Flip(u64),
    /// It takes longer.
    Delay(Duration),
}

/// See the module. Clones share rules and counters.
#[derive(Clone)]
pub struct FaultyStore(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan(Mutex<State>);

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    calls: HashMap<Op, u64>,
}

struct Rule {
    op: Op,
    when: When,
    fault: Fault,
    seen: u64,
}

impl FaultyStore {
    /// A decorator that does nothing yet.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        let plan = Arc::default();
        Self(Arc::new(Inner { store, plan }))
    }

    /// Adds a rule.
    pub fn fail(&self, op: Op, when: When, fault: Fault) {
        let rule = Rule {
            op,
            when,
            fault,
            seen: 0,
        };
        self.0.plan.0.lock().rules.push(rule);
    }

    /// Drops all rules.
    pub fn heal(&self) {
        self.0.plan.0.lock().rules.clear();
    }

    /// How often an operation was asked for.
    #[must_use]
    pub fn calls(&self, op: Op) -> u64 {
        self.0.plan.0.lock().calls.get(&op).copied().unwrap_or(0)
    }
}

impl Plan {
    /// What is to happen to this call.
    fn next(&self, op: Op) -> Option<Fault> {
        let fault = {
            let mut state = self.0.lock();
            *state.calls.entry(op).or_default() += 1;
            let mut chosen = None;
            for rule in state.rules.iter_mut().filter(|rule| rule.op == op) {
                rule.seen += 1;
                let fits = match rule.when {
                    When::Always => true,
                    When::Nth(n) => rule.seen == n,
                    When::From(n) => rule.seen >= n,
                };
                if fits && chosen.is_none() {
                    chosen = Some(rule.fault);
                }
            }
            chosen
        };
        if let Some(Fault::Delay(time)) = fault {
            std::thread::sleep(time);
        }
        fault
    }

    fn around<T>(&self, op: Op, call: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.next(op) {
            Some(Fault::Fail) => Err(StoreError::Injected(Injected(op.name()))),
            Some(Fault::NoSpace) => Err(StoreError::NoSpace {
                path: op.name().into(),
            }),
            Some(Fault::ApplyThenFail) => {
                call()?;
                Err(StoreError::Injected(Injected(op.name())))
            }
            _ => call(),
        }
    }
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.store.fmt(f)
    }
}

impl ObjectStore for FaultyStore {
    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        let plan = &self.0.plan;
        plan.around(Op::Look, || self.0.store.stored_size(name))
    }

    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>> {
        let fault = self.0.plan.next(Op::Open);
        let error = StoreError::Injected(Injected(Op::Open.name()));
        let reader: Box<dyn Read + Send> = match fault {
            Some(Fault::Fail | Fault::ApplyThenFail) => return Err(error),
            Some(Fault::NoSpace) => {
                return Err(StoreError::NoSpace {
                    path: "open".into(),
                });
            }
            Some(Fault::Truncate(bytes)) => Box::new(self.0.store.open(name)?.take(bytes)),
            Some(Fault::Flip(at)) => Box::new(Flipping {
                inner: self.0.store.open(name)?,
                left: Some(at),
            }),
            Some(Fault::Delay(_)) | None => self.0.store.open(name)?,
        };
        Ok(Box::new(FaultyReader {
            inner: reader,
            plan: Arc::clone(&self.0.plan),
        }))
    }

    fn begin(&self) -> Result<Box<dyn Pending>> {
        let inner = self.0.plan.around(Op::Begin, || self.0.store.begin())?;
        Ok(Box::new(FaultyPending {
            inner,
            plan: Arc::clone(&self.0.plan),
        }))
    }

    fn delete(&self, name: &ObjectName) -> Result<bool> {
        self.0.plan.around(Op::Delete, || self.0.store.delete(name))
    }

    fn read_root(&self, file: &str) -> Result<Vec<u8>> {
        let fault = self.0.plan.next(Op::ReadRoot);
        let mut bytes = match fault {
            Some(Fault::Fail | Fault::ApplyThenFail) => {
                return Err(StoreError::Injected(Injected(Op::ReadRoot.name())));
            }
            _ => self.0.store.read_root(file)?,
        };
        match fault {
            Some(Fault::Truncate(to)) => {
                bytes.truncate(usize::try_from(to).unwrap_or(usize::MAX));
            }
            Some(Fault::Flip(at)) => {
                if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 1;
                }
            }
            _ => {}
        }
        Ok(bytes)
    }

    fn write_root(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let plan = &self.0.plan;
        plan.around(Op::WriteRoot, || self.0.store.write_root(file, bytes))
    }

    fn remove_root(&self, file: &str) -> Result<bool> {
        let plan = &self.0.plan;
        plan.around(Op::RemoveRoot, || self.0.store.remove_root(file))
    }

    fn for_each(&self, visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        let plan = &self.0.plan;
        plan.around(Op::ForEach, || self.0.store.for_each(visit))
    }

    fn sync(&self) -> Result<()> {
        self.0.plan.around(Op::Sync, || self.0.store.sync())
    }

    fn clean_leftovers(&self) -> Result<u64> {
        self.0.store.clean_leftovers()
    }

    fn forget(&self) {
        self.0.store.forget();
    }

    fn writers(&self) -> Option<usize> {
        self.0.store.writers()
    }

    fn local_dir(&self) -> Option<&Path> {
        self.0.store.local_dir()
    }

    fn available_bytes(&self) -> Result<Option<u64>> {
        self.0.store.available_bytes()
    }

    fn adopt(&self, file: &Path, name: &ObjectName) -> Result<Option<Stored>> {
        let plan = &self.0.plan;
        plan.around(Op::Adopt, || self.0.store.adopt(file, name))
    }
}

/// Turns one bit over.
struct Flipping<R> {
    inner: R,
    /// How many bytes until then; none once it is done.
    left: Option<u64>,
}

impl<R: Read> Read for Flipping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(left) = self.left {
            match usize::try_from(left)
                .ok()
                .and_then(|at| buffer[..n].get_mut(at))
            {
                Some(byte) => {
                    *byte ^= 1;
                    self.left = None;
                }
                None => self.left = Some(left - n as u64),
            }
        }
        Ok(n)
    }
}

struct FaultyReader {
    inner: Box<dyn Read + Send>,
    plan: Arc<Plan>,
}

impl Read for FaultyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let inner = &mut self.inner;
        match self.plan.next(Op::Read) {
            None | Some(Fault::Delay(_) | Fault::Flip(_)) => inner.read(buffer),
            Some(Fault::Truncate(_)) => Ok(0),
            Some(_) => Err(StoreError::Injected(Injected(Op::Read.name())).into()),
        }
    }
}

struct FaultyPending {
    inner: Box<dyn Pending>,
    plan: Arc<Plan>,
}

impl Write for FaultyPending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inner = &mut self.inner;
        let done = self.plan.around(Op::Write, || {
            inner
                .write(bytes)
                .map_err(|e| StoreError::io("write", "a pending object", e))
        });
        Ok(done?)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Pending for FaultyPending {
    fn spill(&mut self) -> io::Result<()> {
        let inner = &mut self.inner;
        let done = self.plan.around(Op::Write, || {
            inner
                .spill()
                .map_err(|e| StoreError::io("write", "a pending object", e))
        });
        Ok(done?)
    }

    fn keep_whole(self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        let Self { inner, plan } = *self;
        plan.around(Op::Keep, || inner.keep_whole(name))
    }

    fn keep(self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        let Self { inner, plan } = *self;
        plan.around(Op::Keep, || inner.keep(name))
    }
}

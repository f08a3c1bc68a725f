//! What goes wrong on the layer: errors, short reads and writes, slow calls, calls that hang.
//!
//! A [`Fault`] names the calls that meet it by their kind, a path and how many go well before. Calls
//! can be written down, so that a first run tells a second one where it can fail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fuser::Errno;
use parking_lot::{Condvar, Mutex};

/// What the daemon asks of the filesystem that its state lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Open,
    Read,
    Write,
    Create,
    MakeDir,
    /// A hard or a symbolic link.
    Link,
    Rename,
    Remove,
    /// Truncation, growth, `fallocate`.
    Resize,
    /// fsync of a file or a directory, syncfs.
    Sync,
    List,
}

impl Call {
    /// What takes room on a disk.
    pub const GROWING: [Self; 7] = [
        Self::Write,
        Self::Create,
        Self::MakeDir,
        Self::Link,
        Self::Rename,
        Self::Resize,
        Self::Sync,
    ];
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Create,
        Self::MakeDir,
        Self::Link,
        Self::Rename,
        Self::Remove,
        Self::Resize,
        Self::Sync,
        Self::List,
    ];
}

/// What happens to a call that meets a fault.
#[derive(Clone, Copy, Debug)]
pub enum Harm {
    /// It fails, and does nothing.
    Fails(rustix::io::Errno),
    /// It moves half of the bytes; of calls that move none, nothing happens.
    Short,
    /// It takes so long.
    Slow(Duration),
    /// It waits until the faults are cleared, and is done then.
    Hangs,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Once,
    UntilCleared,
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub calls: Vec<Call>,
    /// Of files here or below, from the layer's root; empty: everywhere.
    pub below: PathBuf,
    /// So many calls go well before.
    pub after: u64,
    pub times: Times,
    pub harm: Harm,
}

impl Fault {
    /// From the next call on, everywhere below `below`.
    pub fn lasting(calls: &[Call], below: impl Into<PathBuf>, harm: Harm) -> Self {
        Self {
            calls: calls.to_vec(),
            below: below.into(),
            after: 0,
            times: Times::UntilCleared,
            harm,
        }
    }
}

/// How a call goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Whole,
    Short,
}

#[derive(Default)]
struct State {
    faults: Vec<(Fault, u64)>,
    /// Every call so far, if it is wanted.
    trace: Option<Vec<(Call, PathBuf)>>,
    /// Calls that met a fault, the last of them by name.
    met: u64,
    last: Option<(Call, PathBuf)>,
    /// How often faults were cleared: what hung before may go on.
    cleared: u64,
    hanging: u64,
}

/// See the module's head.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

impl Faults {
    /// One more thing that goes wrong, until [`Faults::clear`].
    pub fn add(&self, fault: Fault) {
        self.state.lock().faults.push((fault, 0));
    }

    /// All is well from now on; what hangs goes on.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.cleared += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Calls are written down from now on.
    pub fn begin_trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// The calls since.
    pub fn end_trace(&self) -> Vec<(Call, PathBuf)> {
        self.state.lock().trace.take().unwrap_or_default()
    }

    /// How many calls met a fault.
    pub fn met(&self) -> u64 {
        self.state.lock().met
    }

    /// The last call that met a fault.
    pub fn last(&self) -> Option<(Call, PathBuf)> {
        self.state.lock().last.clone()
    }

    /// Calls that hang now.
    pub fn hanging(&self) -> u64 {
        self.state.lock().hanging
    }

    /// A call passes here before anything is done. `thread` is whose it is.
    pub(super) fn pass(
        &self,
        thread: u32,
        call: Call,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<Way, Errno> {
        if is_ours(thread) {
            return Ok(Way::Whole);
        }
        {
            let state = self.state.lock();
            if state.faults.is_empty() && state.trace.is_none() {
                return Ok(Way::Whole);
            }
        }
        let path = path();
        let mut state = self.state.lock();
        if let Some(trace) = &mut state.trace {
            trace.push((call, path.clone()));
        }
        let Some(harm) = state.harm(call, &path) else {
            return Ok(Way::Whole);
        };
        state.met += 1;
        state.last = Some((call, path));
        match harm {
            Harm::Fails(errno) => Err(Errno::from_i32(errno.raw_os_error())),
            Harm::Short => Ok(Way::Short),
            Harm::Slow(pause) => {
                drop(state);
                std::thread::sleep(pause);
                Ok(Way::Whole)
            }
            Harm::Hangs => {
                let cleared = state.cleared;
                state.hanging += 1;
                self.changed
                    .wait_while(&mut state, |state| state.cleared == cleared);
                state.hanging -= 1;
                Ok(Way::Whole)
            }
        }
    }
}

/// The test itself may look at the files at any time.
fn is_ours(thread: u32) -> bool {
    Path::new(&format!("/proc/self/task/{thread}")).exists()
}

impl State {
    /// What happens to this call, by the first fault that it meets.
    fn harm(&mut self, call: Call, path: &Path) -> Option<Harm> {
        let mut harm = None;
        for (fault, passed) in &mut self.faults {
            if !fault.calls.contains(&call) || !path.starts_with(&fault.below) {
                continue;
            }
            let at = *passed;
            *passed += 1;
            let meets = match fault.times {
                Times::Once => at == fault.after,
                Times::UntilCleared => at >= fault.after,
            };
            if meets && harm.is_none() {
                harm = Some(fault.harm);
            }
        }
        harm
    }
}

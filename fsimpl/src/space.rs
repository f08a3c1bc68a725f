//! Room on the filesystem that the stages lie on.
//!
//! ```text
//! left       on a large filesystem; `levels.rs` has the small ones
//!  2 GiB     so much is made free by dropping raw bytes of sealed files,
//!  1 GiB     once there is less than this
//! 64 MiB     writers are refused; sealing, removing and recording go on
//! 24 MiB     the reserve is let go, so that they can
//! ```
//!
//! One for all stages of a state. A thread looks every few seconds, and whenever somebody met a
//! limit; what can be given back is asked of the [`Tenant`]s. Nothing here knows what they keep.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::error::{FsError, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Instant, Mutex, thread};

mod levels;
mod reserve;

use levels::Levels;
use reserve::Reserve;

/// The free space is asked for again after so many bytes written.
const RECHECK_BYTES: u64 = 16 << 20;
/// The same for what journals take: well before their engine writes out what it has in memory.
const JOURNAL_RECHECK_BYTES: u64 = 1 << 20;
/// How often the thread looks although nobody met a limit: others use the filesystem, too.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long work may gather before the thread looks again: dropping syncs the filesystem each time.
const GATHER: Duration = Duration::from_millis(20);
/// The same after a look that nothing came of.
const GATHER_IN_VAIN: Duration = Duration::from_millis(200);
/// Where room stays short, looking takes a fifth of the time at most, whatever it costs; up to this
/// pause, for writers wait for what the next look brings.
const PAUSES: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The size of a filesystem, and what is left of it for ordinary users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes of it.
    pub total: u64,
    /// Bytes left.
    pub available: u64,
}

/// Asks for the free space of a directory's filesystem. Handed in, so that tests own it.
pub type Probe = Box<dyn Fn(&Path) -> io::Result<Free> + Send + Sync>;

fn ask_system(dir: &Path) -> io::Result<Free> {
    let of = rustix::fs::statvfs(dir)?;
    Ok(Free {
        total: of.f_blocks.saturating_mul(of.f_frsize),
        available: of.f_bavail.saturating_mul(of.f_frsize),
    })
}

/// Who can give room back.
pub(crate) trait Tenant: Send + Sync {
    /// Bytes that should go for a limit of its own, whatever the filesystem has left.
    fn excess(&self) -> u64;
    /// Gives back about so many bytes, the oldest first; says how many it gave.
    fn drop_raw(&self, bytes: u64) -> u64;
    /// Lets go of everything that can be had again.
    fn drop_caches(&self);
    /// True if it is at something after which it may give more.
    fn is_making_room(&self) -> bool;
    /// There is room again: what failed for want of it may be tried again.
    fn room_came(&self);
}

/// How the filesystem stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceReport {
    /// Where.
    pub dir: PathBuf,
    /// Bytes left.
    pub available: u64,
    /// With fewer than this, writers are refused.
    pub refused_below: u64,
    /// Bytes that the reserve lacks: it was let go, or cannot be made.
    pub reserve_missing: u64,
}

impl SpaceReport {
    /// True if writers are refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.available < self.refused_below
    }
}

/// See the module's head.
pub struct Space {
    dir: PathBuf,
    probe: Probe,
    /// Bytes that may still be written before the free space is asked for again.
    allowance: AtomicU64,
    /// The same for journals.
    journal_allowance: AtomicU64,
    /// Room was short after it was last looked at.
    low: AtomicBool,
    /// Somebody waited for room, and none came since.
    vain: AtomicBool,
    /// Somebody met the end of it, and there was no room since.
    full: AtomicBool,
    reserve: Reserve,
    tenants: Mutex<Vec<Weak<dyn Tenant>>>,
    /// One look at a time.
    looking: Mutex<()>,
    /// How often that was done.
    looks: AtomicU64,
    bell: Arc<Bell>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Wakes the thread.
#[derive(Default)]
struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Default)]
struct Rung {
    rung: bool,
    stopped: bool,
}

impl Bell {
    fn ring(&self) {
        self.state.lock().rung = true;
        self.changed.notify_one();
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Returns when it was rung, or after [`LOOK_EVERY`]; false if this is the end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if !state.rung && !state.stopped {
            self.changed.wait_for(&mut state, LOOK_EVERY);
        }
        !state.stopped
    }

    /// Lets `time` pass, unless this is the end.
    fn pause(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.stopped && !self.changed.wait_until(&mut state, deadline).timed_out() {}
    }
}

impl Space {
    /// Watches the filesystem of `dir`, which must exist, and keeps the reserve there.
    ///
    /// # Errors
    /// When the system cannot tell the free space, or refuses a thread.
    pub fn open(dir: &Path) -> io::Result<Arc<Self>> {
        let space = Self::with_probe(dir, Box::new(ask_system))?;
        let (weak, bell) = (Arc::downgrade(&space), Arc::clone(&space.bell));
        let thread = thread::Builder::new()
            .name("space".to_owned())
            .spawn(move || keep(&weak, &bell))?;
        *space.thread.lock() = Some(thread);
        Ok(space)
    }

    /// As [`Space::open`], with another way to ask, and without the thread: it is looked at only when
    /// [`Space::look`] is called.
    ///
    /// # Errors
    /// When the free space cannot be told.
    pub fn with_probe(dir: &Path, probe: Probe) -> io::Result<Arc<Self>> {
        let total = probe(dir)?.total;
        let space = Arc::new(Self {
            dir: dir.to_owned(),
            probe,
            allowance: AtomicU64::new(0),
            journal_allowance: AtomicU64::new(0),
            low: AtomicBool::new(false),
            vain: AtomicBool::new(false),
            full: AtomicBool::new(false),
            reserve: Reserve::open(dir, Levels::of(total).reserve),
            tenants: Mutex::default(),
            looking: Mutex::new(()),
            looks: AtomicU64::new(0),
            bell: Arc::default(),
            thread: Mutex::new(None),
        });
        space.look();
        Ok(space)
    }

    /// Somebody else to ask for room.
    pub(crate) fn add_tenant(&self, tenant: Weak<dyn Tenant>) {
        let mut tenants = self.tenants.lock();
        tenants.retain(|tenant| tenant.strong_count() > 0);
        tenants.push(tenant);
    }

    fn tenants(&self) -> Vec<Arc<dyn Tenant>> {
        let tenants = self.tenants.lock();
        tenants.iter().filter_map(Weak::upgrade).collect()
    }

    fn free(&self) -> Result<Free> {
        // so many bytes; none if nothing is said
        fail::fail_point!("fsimpl::disk_full", |left| Ok(Free {
            total: 1 << 40,
            available: left.and_then(|left| left.parse().ok()).unwrap_or(0),
        }));
        (self.probe)(&self.dir).map_err(|source| FsError::Backing {
            path: self.dir.clone(),
            source,
        })
    }

    /// What is left, without what belongs to the reserve.
    fn room(&self, free: &Free) -> u64 {
        free.available.saturating_sub(self.reserve.missing())
    }

    /// Room for `bytes` more of what users write.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when what is left is not for writers.
    pub(crate) fn claim(&self, bytes: u64) -> Result<()> {
        if take(&self.allowance, bytes) {
            return Ok(());
        }
        let free = self.free()?;
        let (room, levels) = (self.room(&free), Levels::of(free.total));
        if room < levels.low {
            self.ring();
        }
        let Some(left) = room.checked_sub(levels.floor.saturating_add(bytes)) else {
            return Err(FsError::NoSpace);
        };
        self.vain.store(false, Ordering::Relaxed);
        // what is sealed meanwhile takes room as well, without asking
        let more = left.min(RECHECK_BYTES).min(levels.floor / 4);
        self.allowance.store(more, Ordering::Relaxed);
        Ok(())
    }

    /// A write found the disk full, whatever was said of it before.
    pub(crate) fn was_full(&self) {
        self.allowance.store(0, Ordering::Relaxed);
        self.full.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// A journal is about to take `bytes`. The reserve is let go in time for what its engine will
    /// write on its own, later: a failure there stops it.
    pub(crate) fn before_recording(&self, bytes: u64) {
        if take(&self.journal_allowance, bytes) {
            return;
        }
        self.journal_allowance
            .store(JOURNAL_RECHECK_BYTES, Ordering::Relaxed);
        // where that cannot be said, the write itself will
        let Ok(Free { total, available }) = self.free() else {
            return;
        };
        let (mut left, wanted) = (available, Levels::of(total).journal);
        while left < wanted {
            match self.let_reserve_go() {
                0 => return,
                bytes => left += bytes,
            }
        }
    }

    /// Gives a part of the reserve to those who need it now: how many bytes, 0 if there is none. It
    /// is made again when there is room for it.
    pub(crate) fn let_reserve_go(&self) -> u64 {
        let released = self.reserve.release();
        if released > 0 {
            let missing = self.reserve.missing();
            tracing::warn!(dir = %self.dir.display(), missing, "the disk is full: the reserve is used");
            self.ring();
        }
        released
    }

    /// True if whoever has something to give back should say so.
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Somebody has something to give back, or misses something.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    /// How often was looked for room. Goes with [`Space::may_come`].
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// True if there may soon be more room, for somebody who found none after so many looks: then
    /// waiting makes sense, for a while.
    pub(crate) fn may_come(&self, since: u64) -> bool {
        // one look may have been under way by then
        let looked = self.looks() >= since + 2;
        let working = || self.tenants().iter().any(|tenant| tenant.is_making_room());
        !self.vain.load(Ordering::Relaxed) && (!looked || working())
    }

    /// Somebody has waited for it in vain: nobody else need, until some comes.
    pub(crate) fn did_not_come(&self) {
        self.vain.store(true, Ordering::Relaxed);
    }

    /// True if writers are refused.
    pub(crate) fn is_full(&self) -> bool {
        self.report().is_ok_and(|report| report.is_full())
    }

    /// How the filesystem stands.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn report(&self) -> Result<SpaceReport> {
        let free = self.free()?;
        let reserve_missing = self.reserve.missing();
        Ok(SpaceReport {
            dir: self.dir.clone(),
            available: free.available,
            refused_below: Levels::of(free.total).floor + reserve_missing,
            reserve_missing,
        })
    }

    /// Looks now, and does what has to be done: asks the tenants for room, makes the reserve again.
    /// Returns how many bytes were given back.
    pub fn look(&self) -> u64 {
        let _one = self.looking.lock();
        let free = match self.free() {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "cannot ask for the free space");
                return 0;
            }
        };
        let levels = Levels::of(free.total);
        self.tend_reserve(&free, &levels);
        let tenants = self.tenants();
        let mut given = 0;
        for tenant in &tenants {
            let excess = tenant.excess();
            if excess > 0 {
                given += tenant.drop_raw(excess);
            }
        }
        let room = self.room(&free).saturating_add(given);
        if room < levels.low {
            given += give(&tenants, levels.target - room);
        }
        let low = self.room(&free).saturating_add(given) < levels.low;
        self.low.store(low, Ordering::Relaxed);
        if self.room(&free).saturating_add(given) < levels.floor {
            // what was granted was granted of more
            self.allowance.store(0, Ordering::Relaxed);
            tenants.iter().for_each(|tenant| tenant.drop_caches());
        } else if self.full.swap(false, Ordering::Relaxed) {
            tenants.iter().for_each(|tenant| tenant.room_came());
        }
        if given > 0 {
            self.vain.store(false, Ordering::Relaxed);
            if let Ok(free) = self.free() {
                self.tend_reserve(&free, &levels);
            }
        }
        self.looks.fetch_add(1, Ordering::Relaxed);
        given
    }

    fn tend_reserve(&self, free: &Free, levels: &Levels) {
        if self.reserve.missing() > 0 && self.room(free) >= levels.floor {
            self.reserve.make();
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.bell.stop();
        // the thread itself may be the last who knew us
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            // a panic there was reported where it happened
            let _ = thread.join();
        }
    }
}

/// Takes `bytes` of an allowance, if so much of it is left.
fn take(allowance: &AtomicU64, bytes: u64) -> bool {
    let taken = allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(bytes)
    });
    taken.is_ok()
}

/// Asks for `wanted` bytes, one tenant after the other.
fn give(tenants: &[Arc<dyn Tenant>], wanted: u64) -> u64 {
    let mut given = 0;
    for tenant in tenants {
        if given >= wanted {
            break;
        }
        given += tenant.drop_raw(wanted - given);
    }
    given
}

fn keep(space: &Weak<Space>, bell: &Bell) {
    let mut pause = GATHER;
    while bell.wait() {
        bell.pause(pause);
        bell.state.lock().rung = false;
        let Some(space) = space.upgrade() else {
            return;
        };
        let begun = Instant::now();
        let given = space.look();
        pause = pause_after(begun.elapsed(), given, space.is_low());
    }
}

/// How long the next look waits at least, after one that took so long and gave so much.
fn pause_after(took: Duration, given: u64, is_low: bool) -> Duration {
    let least = match given {
        0 => GATHER_IN_VAIN,
        _ => GATHER,
    };
    match is_low || given == 0 {
        true => least.max(took.saturating_mul(PAUSES).min(PAUSE_MAX)),
        false => least,
    }
}

#[cfg(test)]
mod tests;

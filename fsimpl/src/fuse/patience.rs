//! Requests that find no room while some is being made: tried again for a while, then refused.
//!
//! Nobody waits in here: a request that has to is put off, and answered from [`crate::aside`].

use std::sync::Arc;
use std::time::Duration;

use crate::aside::{Later, Work};
use crate::error::FsError;
use crate::fs::Fs;
use crate::sync::Instant;
use crate::sync::atomic::{AtomicU64, Ordering};

/// How long a request may be held up. Sealing a large file may take longer: its writer is told that
/// the disk is full, which is true.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// How often it is tried meanwhile.
const ROOM_STEP: Duration = Duration::from_millis(20);

/// Most bytes that writers may have waiting here, all together.
const WAITING_BYTES_MAX: u64 = 64 << 20;

/// Work that tries something, puts it off as long as there is no room and some may come, and then
/// tells how it ended.
pub(super) fn patient<T: 'static>(
    fs: &Arc<Fs>,
    attempt: impl FnMut(&Fs) -> Result<T, FsError> + Send + 'static,
    answer: impl FnOnce(Result<T, FsError>) + Send + 'static,
) -> Work {
    let limits = Patience {
        deadline: Instant::now() + ROOM_WAIT,
        since: fs.space().map_or(0, |space| space.looks()),
    };
    attempt_until(Arc::clone(fs), limits, attempt, answer)
}

/// For how long.
#[derive(Clone, Copy)]
struct Patience {
    deadline: Instant,
    /// Looks for room when it was first tried.
    since: u64,
}

/// Work whose first attempt was made just now.
pub(super) fn put_off(work: Work) -> Later {
    Later {
        delay: ROOM_STEP,
        work,
    }
}

fn attempt_until<T: 'static>(
    fs: Arc<Fs>,
    limits: Patience,
    mut attempt: impl FnMut(&Fs) -> Result<T, FsError> + Send + 'static,
    answer: impl FnOnce(Result<T, FsError>) + Send + 'static,
) -> Work {
    Box::new(move || {
        let done = attempt(&fs);
        if is_short(&done)
            && let Some(space) = fs.space()
        {
            if Instant::now() < limits.deadline && space.may_come(limits.since) {
                return Some(put_off(attempt_until(fs, limits, attempt, answer)));
            }
            space.did_not_come();
        }
        answer(done);
        None
    })
}

/// True if there was no room for an operation, and waiting for some makes sense.
pub(super) fn may_wait<T>(fs: &Fs, done: &Result<T, FsError>) -> bool {
    is_short(done)
        && fs
            .space()
            .is_some_and(|space| space.may_come(space.looks()))
}

fn is_short<T>(done: &Result<T, FsError>) -> bool {
    done.as_ref().is_err_and(FsError::is_out_of_space)
}

/// Bytes of writes that are put off.
#[derive(Default)]
pub(super) struct WaitingBytes(AtomicU64);

impl WaitingBytes {
    /// Copies what is to be written later; none if too much is waiting already.
    pub fn keep(self: &Arc<Self>, data: &[u8]) -> Option<Kept> {
        let bytes = data.len() as u64;
        let kept = Kept {
            data: data.to_vec(),
            of: Arc::clone(self),
        };
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= WAITING_BYTES_MAX).then_some(kept)
    }
}

/// Data of a write that is put off.
pub(super) struct Kept {
    data: Vec<u8>,
    of: Arc<WaitingBytes>,
}

impl std::ops::Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let bytes = self.data.len() as u64;
        self.of.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_no_room_mends() {
        assert!(is_short(&Err::<(), _>(FsError::NoSpace)));
        for error in [
            FsError::TooManyOpen,
            FsError::AttributesFull,
            FsError::Quota,
        ] {
            assert!(!is_short(&Err::<(), _>(error)));
        }
    }

    #[test]
    fn only_so_much_may_wait() {
        let waiting = Arc::<WaitingBytes>::default();
        let half = vec![0; usize::try_from(WAITING_BYTES_MAX / 2).unwrap()];
        let first = waiting.keep(&half).unwrap();
        let second = waiting.keep(&half).unwrap();
        assert!(waiting.keep(&[0]).is_none());
        drop(first);
        assert!(waiting.keep(&[0]).is_some());
        drop(second);
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }
}

//! A file that takes space for nothing, to be given up when there is none left.
//!
//! ```text
//! DIR/.reserve
//! ```
//!
//! Its blocks are allocated and never written. No repository's name begins with a dot.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::sync::Mutex;

const NAME: &str = ".reserve";

/// It is given up in so many parts: whoever else fills the disk may take what one set free.
const PARTS: u64 = 4;

/// See the module's head.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    state: Mutex<State>,
}

struct State {
    held: u64,
    /// The filesystem allocates nothing before it is written.
    impossible: bool,
    /// It was said that it cannot be made.
    told: bool,
}

impl Reserve {
    /// What an earlier run left counts.
    pub fn open(dir: &Path, bytes: u64) -> Self {
        let path = dir.join(NAME);
        let held = fs::metadata(&path).map_or(0, |of| of.blocks() * 512);
        Self {
            path,
            bytes,
            state: Mutex::new(State {
                held: held.min(bytes),
                impossible: false,
                told: false,
            }),
        }
    }

    /// Bytes that it lacks.
    pub fn missing(&self) -> u64 {
        self.bytes - self.state.lock().held
    }

    /// Gives a part of its space up: how many bytes, 0 if there is none.
    pub fn release(&self) -> u64 {
        let mut state = self.state.lock();
        if state.held == 0 {
            return 0;
        }
        let before = state.held;
        let left = before.saturating_sub(self.bytes.div_ceil(PARTS));
        let cut = match left {
            0 => fs::remove_file(&self.path),
            left => OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|file| file.set_len(left)),
        };
        // it is not counted on any more, whoever took it away
        state.held = left;
        if let Err(error) = cut {
            tracing::warn!(path = %self.path.display(), %error, "cannot let the reserve go");
        }
        before - left
    }

    /// Takes its space again, if it can be had.
    pub fn make(&self) {
        let mut state = self.state.lock();
        if state.held == self.bytes || state.impossible {
            return;
        }
        match self.allocate() {
            Ok(()) => {
                state.held = self.bytes;
                state.told = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut state.told, true) {
                    tracing::warn!(path = %self.path.display(), %error, "cannot make the reserve");
                }
                // what was had of it would only be in the way
                let _ = fs::remove_file(&self.path);
                state.held = 0;
                state.impossible = error.raw_os_error() == Some(libc::EOPNOTSUPP);
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&self.path)?;
        if self.bytes > 0 {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_up_made_again_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let reserve = Reserve::open(dir.path(), 1 << 20);
        assert_eq!(reserve.missing(), 1 << 20);
        reserve.make();
        assert_eq!(reserve.missing(), 0);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
        assert_eq!(Reserve::open(dir.path(), 1 << 20).missing(), 0);
        for part in 1..=PARTS {
            assert_eq!(reserve.release(), 1 << 18);
            assert_eq!(reserve.missing(), part << 18);
            let again = Reserve::open(dir.path(), 1 << 20);
            assert_eq!(again.missing(), part << 18);
        }
        assert!(!path.exists());
        assert_eq!(reserve.release(), 0);
        reserve.make();
        reserve.release();
        reserve.make();
        assert_eq!(reserve.missing(), 0);
        // one that somebody cut short is not counted on
        fs::write(&path, "x").unwrap();
        let reserve = Reserve::open(dir.path(), 1 << 20);
        assert!(reserve.missing() > 0);
        reserve.make();
        assert_eq!(reserve.missing(), 0);
    }
}

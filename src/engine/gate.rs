//! Whether commits are let in. `prepub drain` closes the gate; those that are inside come to their end.
//!
//! That it is closed is a file of the state, `STATE/drained`: it holds across restarts of the daemon and
//! for commands that run without one, until somebody opens it. A commit that is counted here may still
//! wait for its turn or for open files.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use parking_lot::{Condvar, Mutex};

use crate::report::{Failure, Kind, Result};
use crate::state::cannot_write;

/// See the module's head.
pub struct Gate {
    file: PathBuf,
    inside: Mutex<Inside>,
    changed: Condvar,
}

struct Inside {
    closed: bool,
    running: u64,
}

/// Somebody inside, until dropped.
pub struct Entered<'g>(&'g Gate);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.inside.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl Gate {
    /// The gate of a state whose mark is this file.
    pub fn new(file: PathBuf) -> Self {
        let inside = Inside {
            closed: file.exists(),
            running: 0,
        };
        Self {
            file,
            inside: Mutex::new(inside),
            changed: Condvar::new(),
        }
    }

    /// Goes in, to publish a revision.
    ///
    /// # Errors
    /// [`Kind::Busy`] while it is closed.
    pub fn enter(&self) -> Result<Entered<'_>> {
        let mut inside = self.inside.lock();
        if inside.closed {
            return Err(Failure::new(
                Kind::Busy,
                "nothing is published here at the moment: commits are drained",
            )
            .hint("what is staged is kept, and staging goes on; `prepub drain --resume` lets commits in again"));
        }
        inside.running += 1;
        Ok(Entered(self))
    }

    /// Lets nobody in from now on.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn close(&self) -> Result<()> {
        let mut inside = self.inside.lock();
        let write = || {
            let mut file = File::create(&self.file)?;
            file.write_all(b"no commits: `prepub drain --resume` lets them in again\n")?;
            file.sync_all()?;
            match self.file.parent() {
                Some(dir) => File::open(dir)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(|error| cannot_write(&self.file, &error))?;
        inside.closed = true;
        Ok(())
    }

    /// Lets everybody in again.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn open(&self) -> Result<()> {
        let mut inside = self.inside.lock();
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(cannot_write(&self.file, &error));
            }
            _ => inside.closed = false,
        }
        self.changed.notify_all();
        Ok(())
    }

    /// True while it is closed, and how many are inside.
    pub fn stands(&self) -> (bool, u64) {
        let inside = self.inside.lock();
        (inside.closed, inside.running)
    }

    /// Returns when nobody is inside, or when somebody has opened it again.
    pub fn wait_empty(&self) {
        let mut inside = self.inside.lock();
        while inside.running > 0 && inside.closed {
            self.changed.wait(&mut inside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_until_opened_and_across_processes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("drained");
        let gate = Gate::new(file.clone());
        let inside = gate.enter().unwrap();
        gate.close().unwrap();
        assert_eq!(gate.stands(), (true, 1));
        let refused = gate.enter().err().unwrap();
        assert_eq!(refused.kind, Kind::Busy);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.wait_empty());
            drop(inside);
            waiting.join().unwrap();
        });
        assert_eq!(Gate::new(file.clone()).stands(), (true, 0));
        gate.open().unwrap();
        gate.open().unwrap();
        assert!(gate.enter().is_ok());
        assert_eq!(Gate::new(file).stands(), (false, 0));
    }
}

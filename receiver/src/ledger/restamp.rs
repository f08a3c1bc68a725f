//! What is noted of a time that has not come: the clock was ahead then, and was set right.

use std::fs::OpenOptions;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use super::{Result, Transaction, io_error};
use crate::age::ADJUSTED_SECONDS;

impl Transaction {
    /// What was last heard in the future was heard now; what was opened then was opened nobody knows
    /// when, so that every catalog counts for one that came since.
    ///
    /// # Errors
    /// [`super::LedgerError`].
    pub fn restamp(&self, now: u64) -> Result<()> {
        let future = now.saturating_add(ADJUSTED_SECONDS);
        let about = self.about();
        let touched = self.touched();
        if about.opened.max(touched).max(about.ended.unwrap_or(0)) <= future {
            return Ok(());
        }
        tracing::warn!(
            txn = self.key.txn,
            "a transaction of the future: the clock was set back since"
        );
        let path = self.dir.join("brought");
        if touched > future && touched > about.touched {
            let file = OpenOptions::new().append(true).open(&path);
            let time = UNIX_EPOCH + Duration::from_secs(now);
            let set = file.and_then(|file| file.set_modified(time));
            match set {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("set the time of", &path)(e));
                }
                _ => {}
            }
        }
        self.change(|about| {
            if about.opened > future {
                about.opened = 0;
            }
            about.touched = about.touched.min(now);
            about.ended = about.ended.map(|ended| ended.min(now));
            if touched > future {
                about.touched = now;
            }
        })
    }
}

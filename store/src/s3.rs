//! A storage in a bucket of any S3 server, laid out as the official tools do.
//!
//! ```text
//! s3://BUCKET/ALIAS/.cvmfspublished ...      root files, each replaced by one PUT
//! s3://BUCKET/ALIAS/data/ab/cdef...P         objects, sent whole by one PUT, never by parts
//! ```
//!
//! A PUT that was answered is as durable as the store is, so nothing is synced. What a server says
//! is checked: the bytes go with their MD5; root files are read back after each PUT; of objects one
//! in [`SAMPLE`] is looked for, and each of them once the server was caught saying that it has what
//! it has not. [`ObjectStore::sync`] then looks for those that were taken on trust before.
//!
//! S3 has no locks: one host writes a bucket's prefix at a time, as it is with `cvmfs_server`. Within
//! a process, of many who store one object one sends it. The runtime and its threads stay inside; a
//! store must not be used on an asynchronous runtime's own threads. Credentials that `s3.conf` does not
//! have are looked for where AWS's tools look, the environment and home directory included: that is
//! the library's doing, and the one place where a store does so.

mod body;
mod bucket;
mod config;
mod connector;
mod error;
mod known;
mod pace;
mod spool;
mod upkeep;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use formats::{ObjectName, S3Conf};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

pub use config::standard_bucket;
pub use error::S3Error;

use crate::error::{Result, StoreError};
use crate::failpoint;
use crate::flight::Flights;
use crate::object_store::{ObjectStore, Pending, Stored, check_root_name};
use body::Body;
use bucket::{Bucket, Served};
use known::Known;
use spool::{Held, Spool};

/// Of so many objects that were sent, one is looked for; the first is. A server that loses one in a
/// hundred is caught within some thousands, for one and a half percent more requests.
pub const SAMPLE: u64 = 64;
/// Names that are remembered as taken on trust, 5 MB; an object beyond is looked for at once.
const TRUSTED_MAX: usize = 65_536;
/// A root file up to this size is read back and compared; of a longer one (a reflog) the length is
/// looked at.
const READ_BACK_BYTES: u64 = 1 << 20;
/// Reflogs of long-lived repositories reach tens of megabytes.
const MAX_ROOT_FILE_BYTES: u64 = 1 << 30;

/// See the module. Clones share connections.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

struct Inner {
    bucket: Arc<Bucket>,
    /// Without a slash at the end.
    place: String,
    spool_dir: PathBuf,
    known: Known,
    sending: Flights<ObjectName, Result<Stored>>,
    /// Objects sent.
    sent: AtomicU64,
    /// Sent since the last sync, and not looked for.
    trusted: Mutex<Vec<(ObjectName, u64)>>,
    /// The server was caught.
    lied: AtomicBool,
}

impl S3Store {
    /// The storage below `alias` in the bucket. Objects that are too large for memory grow in
    /// `spool_dir`. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// [`S3Error::Start`].
    pub fn open(conf: S3Conf, alias: &str, spool_dir: impl Into<PathBuf>) -> Result<Self> {
        let bucket = Bucket::open(conf, alias)?;
        Ok(Self(Arc::new(Inner {
            place: bucket.address("").trim_end_matches('/').to_owned(),
            bucket: Arc::new(bucket),
            spool_dir: spool_dir.into(),
            known: Known::new(),
            sending: Flights::new(),
            sent: AtomicU64::new(0),
            trusted: Mutex::default(),
            lied: AtomicBool::new(false),
        })))
    }
}

impl Inner {
    fn spool_error(&self, error: io::Error) -> StoreError {
        StoreError::io("write in", &self.spool_dir, error)
    }

    /// Sends an object, unless it is there; others who want the same one wait for it.
    fn store(&self, name: &ObjectName, held: &Held) -> Result<Stored> {
        let mut is_ours = false;
        let stored = self.sending.run(name, || {
            is_ours = true;
            self.send(name, held)
        })?;
        Ok(if is_ours { stored } else { Stored::Present })
    }

    fn send(&self, name: &ObjectName, held: &Held) -> Result<Stored> {
        let file = name.storage_path();
        if self.known.has(name) {
            return Ok(Stored::Present);
        }
        if self.bucket.peeks() && self.bucket.head(&file)?.is_some() {
            self.known.add(name);
            return Ok(Stored::Present);
        }
        failpoint::pass("s3::put")?;
        let mut failures = 0;
        loop {
            self.bucket.put(&file, held, bucket::OBJECT)?;
            if !self.is_to_be_checked(name, held.bytes) {
                break;
            }
            let found = match self.bucket.head(&file)? {
                Some(bytes) if bytes == held.bytes => break,
                Some(_) => "it has another length",
                None => "it is not there",
            };
            self.caught(&file, found);
            if failures >= self.bucket.retries() {
                return Err(self.untrue(&file, found));
            }
            self.bucket.pause(failures);
            failures += 1;
        }
        self.known.add(name);
        Ok(Stored::New)
    }

    /// True if the object is to be looked for now; else it is taken on trust, and remembered.
    fn is_to_be_checked(&self, name: &ObjectName, bytes: u64) -> bool {
        let sampled = self
            .sent
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(SAMPLE);
        if sampled || self.lied.load(Ordering::Relaxed) {
            return true;
        }
        let mut trusted = self.trusted.lock();
        if trusted.len() >= TRUSTED_MAX {
            return true;
        }
        trusted.push((*name, bytes));
        false
    }

    fn caught(&self, file: &str, found: &'static str) {
        if !self.lied.swap(true, Ordering::Relaxed) {
            let file = self.bucket.address(file);
            tracing::warn!(
                file,
                "the server said that it was stored, and {found}; from now on each object is looked for"
            );
        }
    }

    fn untrue(&self, file: &str, found: &'static str) -> StoreError {
        let what = format!("PUT {}", self.bucket.address(file));
        S3Error::Untrue { what, found }.into()
    }

    /// Looks at a root file that was written: none if it is there.
    fn missed(&self, file: &str, bytes: &[u8]) -> Result<Option<&'static str>> {
        let length = bytes.len() as u64;
        let is_same = if length <= READ_BACK_BYTES {
            self.bucket
                .get_whole(file, length)?
                .map(|read| read == bytes)
        } else {
            self.bucket.head(file)?.map(|found| found == length)
        };
        Ok(match is_same {
            Some(true) => None,
            Some(false) => Some("other bytes are there"),
            None => Some("it is not there"),
        })
    }

    /// Sends a root file once more only if none is there: what is there instead may be newer.
    fn settle_root(&self, file: &str, held: &Held, bytes: &[u8]) -> Result<()> {
        let mut failures = 0;
        while let Some(found) = self.missed(file, bytes)? {
            self.caught(file, found);
            if failures >= self.bucket.retries() {
                return Err(self.untrue(file, found));
            }
            self.bucket.pause(failures);
            failures += 1;
            if self.bucket.head(file)?.is_none() {
                self.bucket.put(file, held, Served::root(file))?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for S3Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.place)
    }
}

impl ObjectStore for S3Store {
    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        let found = self.0.bucket.head(&name.storage_path())?;
        match found {
            Some(_) => self.0.known.add(name),
            None => self.0.known.remove(name),
        }
        Ok(found)
    }

    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>> {
        let file = name.storage_path();
        match self.0.bucket.get(&file, 0)? {
            Some(answer) => Ok(Box::new(Body::new(
                Arc::clone(&self.0.bucket),
                file,
                answer,
            ))),
            None => Err(StoreError::NotFound {
                name: *name,
                place: self.0.place.clone(),
            }),
        }
    }

    fn begin(&self) -> Result<Box<dyn Pending>> {
        Ok(Box::new(S3Pending {
            home: Arc::clone(&self.0),
            spool: Spool::new(&self.0.spool_dir),
        }))
    }

    fn delete(&self, name: &ObjectName) -> Result<bool> {
        let file = name.storage_path();
        self.0.known.remove(name);
        // an answer to DELETE does not tell
        let was_there = self.0.bucket.head(&file)?.is_some();
        if was_there {
            self.0.bucket.delete(&file)?;
        }
        Ok(was_there)
    }

    fn read_root(&self, file: &str) -> Result<Vec<u8>> {
        check_root_name(file)?;
        let Some(bytes) = self.0.bucket.get_whole(file, MAX_ROOT_FILE_BYTES)? else {
            return Err(StoreError::RootNotFound {
                file: file.to_owned(),
                place: self.0.place.clone(),
            });
        };
        if bytes.len() as u64 > MAX_ROOT_FILE_BYTES {
            return Err(StoreError::TooLarge {
                what: self.0.bucket.address(file),
                limit: MAX_ROOT_FILE_BYTES,
            });
        }
        Ok(bytes)
    }

    fn write_root(&self, file: &str, bytes: &[u8]) -> Result<()> {
        check_root_name(file)?;
        let held = Held::of(bytes);
        failpoint::pass("s3::write_root")?;
        self.0.bucket.put(file, &held, Served::root(file))?;
        failpoint::pass("s3::wrote_root")?;
        self.0.settle_root(file, &held, bytes)
    }

    fn remove_root(&self, file: &str) -> Result<bool> {
        check_root_name(file)?;
        let was_there = self.0.bucket.head(file)?.is_some();
        if was_there {
            self.0.bucket.delete(file)?;
        }
        Ok(was_there)
    }

    fn for_each(&self, visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        let mut token = None;
        loop {
            let page = self.0.bucket.list("data/", token)?;
            for (file, bytes) in page.files {
                // `ab/cdef...`; whatever else is there is none of ours
                let Some((dir, rest)) = file.split_once('/') else {
                    continue;
                };
                let name = format!("{dir}{rest}").parse::<ObjectName>();
                if let Some(name) = name.ok().filter(|_| dir.len() == 2) {
                    visit(name, bytes)?;
                }
            }
            token = page.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Objects are durable when their PUT is answered. Of a server that was caught not having what
    /// it said, those are looked for that were taken on trust.
    fn sync(&self) -> Result<()> {
        let trusted = std::mem::take(&mut *self.0.trusted.lock());
        if !self.0.lied.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (name, bytes) in trusted {
            let file = name.storage_path();
            if self.0.bucket.head(&file)? != Some(bytes) {
                // there may be more, and the next attempt has to ask for each
                self.0.known.clear();
                return Err(self.0.untrue(&file, "it is not there"));
            }
        }
        Ok(())
    }

    fn forget(&self) {
        self.0.known.clear();
    }

    fn writers(&self) -> Option<usize> {
        Some(self.0.bucket.connections())
    }

    /// Sends the file as it is, without a copy in the spool.
    fn adopt(&self, file: &Path, name: &ObjectName) -> Result<Option<Stored>> {
        // whatever is wrong with it, the copy that follows tells
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(opened) = rustix::fs::open(file, flags, Mode::empty()) else {
            return Ok(None);
        };
        let opened = File::from(opened);
        if !opened.metadata().is_ok_and(|meta| meta.is_file()) {
            return Ok(None);
        }
        let held = Held::of_file(opened).map_err(|e| StoreError::io("read", file, e))?;
        self.0.store(name, &held).map(Some)
    }
}

/// See [`Spool`].
struct S3Pending {
    home: Arc<Inner>,
    spool: Spool,
}

impl Write for S3Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wrote = self.spool.write(bytes);
        wrote.map_err(|e| self.home.spool_error(e).into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pending for S3Pending {
    fn keep(self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        let Self { home, spool } = *self;
        let held = spool.finish().map_err(|e| home.spool_error(e))?;
        home.store(name, &held)
    }
}

//! Leases that are held, and those that a killed process left behind.
//!
//! ```text
//! SPOOL/leases/NAME      0600, the token of a lease, locked by its holder; gone when the lease is
//!                        known to be
//! ```
//!
//! A lease is dropped when its [`Held`] is, on whatever path. One whose process was killed, or whose
//! gateway did not answer, is dropped before the next is taken: that also waits for a commit on it
//! which may still be under way. This module publishes nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use store::failpoint;

use super::client::Client;
use super::error::GatewayError;
use super::key::Token;
use super::look::Terms;
use crate::home::HomeError;
use crate::publisher::PublisherError;

/// A request that changes something is not begun when the lease ends sooner than this: a commit of
/// ordinary size takes seconds, and what the lease does not cover is refused at its end.
const TIME_NEEDED: Duration = Duration::from_secs(60);

/// Below the spool directory.
const LEASES_DIR: &str = "leases";

/// Most bytes that are read of a token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// A lease's file, locked for as long as this lives: whoever dies lets go of it.
#[derive(Debug)]
struct Noted {
    path: PathBuf,
    _locked: File,
}

/// The leases of one repository.
#[derive(Debug)]
pub(super) struct Leases {
    pub(super) client: Client,
    pub(super) repo: String,
    dir: PathBuf,
}

impl Leases {
    pub(super) fn new(client: Client, repo: &str, spool_dir: &Path) -> Self {
        Self {
            client,
            repo: repo.to_owned(),
            dir: spool_dir.join(LEASES_DIR),
        }
    }

    /// What a gateway's refusal is to a commit.
    pub(super) fn error(&self, source: GatewayError) -> PublisherError {
        match source {
            GatewayError::Busy { .. } => PublisherError::Busy {
                repo: self.repo.clone(),
                what: source.to_string(),
            },
            source => PublisherError::Gateway {
                repo: self.repo.clone(),
                source: Box::new(source),
            },
        }
    }

    fn file_error(path: &Path) -> impl FnOnce(io::Error) -> PublisherError {
        let path = path.to_path_buf();
        move |source| PublisherError::Home(HomeError::Write { path, source })
    }

    /// Takes a lease on a path: `/` for the whole repository. Where another one is in the way, it is
    /// said to be on `told`.
    pub(super) fn acquire(&self, path: &str, told: &str) -> Result<Held<'_>, PublisherError> {
        self.drop_leftovers()?;
        fs::create_dir_all(&self.dir).map_err(Self::file_error(&self.dir))?;
        failpoint::pass("gateway::before_lease")?;
        let (token, version) = self.client.acquire(path).map_err(|error| match error {
            GatewayError::Busy { left, .. } => self.error(GatewayError::Busy {
                path: told.to_owned(),
                left,
            }),
            error => self.error(error),
        })?;
        let since = Instant::now();
        let mut held = Held {
            leases: self,
            token,
            version,
            noted: None,
            since,
            lifetime: Duration::ZERO,
            is_over: false,
        };
        // killed here, nobody knows the token: the lease lasts until its time is up
        failpoint::pass("gateway::granted")?;
        held.noted = Some(
            self.note(&held.token)
                .map_err(Self::file_error(&self.dir))?,
        );
        failpoint::pass("gateway::noted")?;
        held.lifetime = self.client.time_left(path).map_err(|e| self.error(e))?;
        Ok(held)
    }

    fn note(&self, token: &Token) -> io::Result<Noted> {
        let mut number = 0_u64;
        loop {
            let path = self.dir.join(format!("{}-{number}", std::process::id()));
            number += 1;
            let file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let mut file = match file {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            flock(&file, FlockOperation::LockExclusive)?;
            if file.metadata()?.nlink() == 0 {
                // it was taken for a leftover before it was locked
                continue;
            }
            file.write_all(token.reveal().as_bytes())?;
            return Ok(Noted {
                path,
                _locked: file,
            });
        }
    }

    /// Drops the leases that nobody holds any more, in whatever process.
    pub(super) fn drop_leftovers(&self) -> Result<(), PublisherError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Self::file_error(&self.dir)(e)),
        };
        for entry in entries {
            let path = entry.map_err(Self::file_error(&self.dir))?.path();
            let Some(left) = unheld(&path).map_err(Self::file_error(&path))? else {
                continue;
            };
            let mut text = String::new();
            (&left)
                .take(TOKEN_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(Self::file_error(&path))?;
            // a file that was not written whole names a lease that only its end can drop
            if let Some(token) = Token::new(&text) {
                tracing::info!(repo = self.repo, "dropping a lease that was left behind");
                self.client.drop_lease(&token).map_err(|e| self.error(e))?;
            }
            failpoint::pass("gateway::leftover_dropped")?;
            fs::remove_file(&path).map_err(Self::file_error(&path))?;
        }
        Ok(())
    }
}

/// A lease's file that nobody has locked, locked; none if it is held, or has gone meanwhile.
fn unheld(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((file.metadata()?.nlink() > 0).then_some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A lease, until dropped.
pub(super) struct Held<'a> {
    leases: &'a Leases,
    token: Token,
    version: Option<u64>,
    noted: Option<Noted>,
    since: Instant,
    lifetime: Duration,
    /// It was committed or dropped.
    is_over: bool,
}

impl Held<'_> {
    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    /// On what terms it was granted.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            version: self.version,
            lifetime: self.lifetime,
        }
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        self.lifetime.saturating_sub(self.since.elapsed())
    }

    /// Refuses to begin what could not end in time; what is left otherwise. Where leases are short, a
    /// quarter of one has to do.
    pub(super) fn require_time(&self) -> Result<Duration, GatewayError> {
        let left = self.left();
        if left < TIME_NEEDED.min(self.lifetime / 4) || left.is_zero() {
            return Err(GatewayError::TooLate { left });
        }
        Ok(left)
    }

    /// A commit ended it.
    pub(super) fn was_committed(&mut self) {
        self.is_over = true;
    }

    /// Drops it; returns when a commit on it that may be under way is over. A gateway that goes down may
    /// take the question with it, and asking again does no harm.
    pub(super) fn release(&mut self) -> Result<(), GatewayError> {
        failpoint::pass("gateway::before_drop")?;
        let client = &self.leases.client;
        match client.drop_lease(&self.token) {
            Err(GatewayError::NoReply { source, .. }) if !source.is_timeout() => {
                client.drop_lease(&self.token)?;
            }
            dropped => dropped?,
        }
        failpoint::pass("gateway::after_drop")?;
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Err(error) = self.release()
        {
            let repo = &self.leases.repo;
            tracing::warn!(repo, %error, "a lease could not be dropped; the next commit tries again");
        }
        let Some(noted) = self.noted.take() else {
            return;
        };
        if self.is_over
            && let Err(error) = fs::remove_file(&noted.path)
        {
            tracing::warn!(%error, "cannot remove {}", noted.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::key::Key;

    fn leases(spool: &Path) -> Leases {
        let key = spool.join("x.gw");
        fs::write(&key, "plain_text gwkey1 gwsecret1\n").unwrap();
        // nobody listens there
        let url = "http://127.0.0.1:1/api/v1";
        let key = Key::read(&key).unwrap();
        let client = Client::new(url, "gwtest.example.org", key, "publisher.example.org").unwrap();
        Leases::new(client, "gwtest.example.org", spool)
    }

    /// A look at the gateway, by whatever process, leaves a commit its lease.
    #[test]
    fn what_somebody_holds_is_no_leftover() {
        let spool = tempfile::tempdir().unwrap();
        let (ours, others) = (leases(spool.path()), leases(spool.path()));
        fs::create_dir(spool.path().join(LEASES_DIR)).unwrap();
        let token = Token::new("sessiontoken").unwrap();
        let noted = ours.note(&token).unwrap();
        others.drop_leftovers().unwrap();
        assert_eq!(fs::read_to_string(&noted.path).unwrap(), token.reveal());
        // its holder dies: the gateway is asked to drop it, and the token is kept until that is done
        let path = noted.path.clone();
        drop(noted);
        let refused = others.drop_leftovers().unwrap_err();
        assert!(
            matches!(refused, PublisherError::Gateway { .. }),
            "{refused}"
        );
        assert!(path.exists());
        // one that was not written whole cannot be asked for
        fs::write(&path, "").unwrap();
        others.drop_leftovers().unwrap();
        assert!(!path.exists());
    }
}

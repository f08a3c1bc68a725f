//! The state directory: its layout, its format number, and the lock that makes us alone in it.
//!
//! ```text
//! STATE/format                        the layout's number
//! STATE/lock                          flock(2)ed by the one process that uses the state; its pid
//! STATE/control.sock                  the daemon's API
//! STATE/daemon.json                   what the running daemon mounted and serves
//! STATE/drained                       no commit is let in (`engine/gate.rs`)
//! STATE/repositories/REPO/server.conf parameters of a repository
//! STATE/keys/REPO.{masterkey,key,crt,pub}
//! STATE/srv/cvmfs/REPO/               storage of an embedded repository
//! STATE/spool/REPO/                   reflog.chksum, is_publishing.lock
//! STATE/stage/REPO/                   the stage
//! STATE/stage/.reserve                space to be given up when the disk is full
//! STATE/txn/REPO/                     a commit under way
//! STATE/cache/REPO/                   catalogs read without a stage
//! STATE/log/prepub.log                of a daemon in the background
//! ```
//!
//! Nothing here opens a repository.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::report::{Context, Failure, Kind, Result};

/// The layout's number. Version 1 is the first: there is nothing to migrate from.
pub const FORMAT: u32 = 1;

/// A state directory of a format that this version knows.
#[derive(Clone, Debug)]
pub struct State {
    dir: PathBuf,
}

/// What a running daemon says of itself in `daemon.json`, and in answer to `health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonInfo {
    /// Its process.
    pub pid: u32,
    /// Where the repositories are.
    pub mountpoint: PathBuf,
    /// `http://ADDRESS:PORT` of the embedded repositories, if they are served.
    pub http: Option<String>,
    /// `http://ADDRESS:PORT` of `/metrics` and `/health`, if they are served.
    #[serde(default)]
    pub metrics: Option<String>,
    /// The program's version.
    pub version: String,
}

impl State {
    /// The state at `dir`, made if it is missing.
    ///
    /// # Errors
    /// A directory that cannot be made or written; a newer format.
    pub fn create(dir: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(|e| cannot_write(dir, &e))?;
        let state = Self { dir: dir.into() };
        match state.read_format()? {
            Some(FORMAT) => {}
            Some(format) => return Err(state.wrong_format(format)),
            None => {
                state.refuse_foreign()?;
                replace_file(
                    &state.dir.join("format"),
                    format!("{FORMAT}\n").as_bytes(),
                    0o644,
                )
                .map_err(|e| cannot_write(dir, &e))?;
            }
        }
        for (name, mode) in [
            ("repositories", 0o755),
            ("keys", 0o700),
            ("srv", 0o755),
            ("spool", 0o755),
            ("stage", 0o700),
            ("txn", 0o700),
            ("cache", 0o700),
            ("log", 0o750),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(state.dir.join(name))
                .map_err(|e| cannot_write(&state.dir.join(name), &e))?;
        }
        Ok(state)
    }

    /// The state at `dir`, which must exist.
    ///
    /// # Errors
    /// No state there; a newer format.
    pub fn open(dir: &Path) -> Result<Self> {
        let state = Self { dir: dir.into() };
        match state.read_format()? {
            Some(FORMAT) => Ok(state),
            Some(format) => Err(state.wrong_format(format)),
            None => Err(Failure::new(
                Kind::NotFound,
                format!("there is no state in {}", dir.display()),
            )
            .hint("`prepub mkfs NAME` makes a repository and the state around it, `prepub mount` the state alone; --state-dir or PREPUB_STATE_DIR name another place")),
        }
    }

    fn read_format(&self) -> Result<Option<u32>> {
        let path = self.dir.join("format");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Failure::new(
                    Kind::Damaged,
                    format!("{} does not hold a format number", path.display()),
                )
                .hint(format!("if this is a state of prepub {}, write `{FORMAT}` into it", env!("CARGO_PKG_VERSION")))),
            },
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(Failure::new(
                crate::report::kind_of_io(&e),
                format!("cannot read {}", path.display()),
            )
            .because(&e)
            .hint("the state belongs to another user? Use sudo, or a state of your own with --state-dir")),
        }
    }

    fn wrong_format(&self, format: u32) -> Failure {
        if format > FORMAT {
            return Failure::failed(format!(
                "the state in {} has format {format}; this prepub {} knows formats up to {FORMAT}",
                self.dir.display(),
                env!("CARGO_PKG_VERSION"),
            ))
            .hint("use the newer prepub that made it, or another state with --state-dir");
        }
        Failure::failed(format!(
            "the state in {} has format {format}, which never existed",
            self.dir.display()
        ))
    }

    /// A directory with other things in it is nobody's state: `--state-dir /home` must not fill it.
    /// Keys and parameters may have been laid there for it (docs/publishing.md, "gateway").
    fn refuse_foreign(&self) -> Result<()> {
        let entries = fs::read_dir(&self.dir).map_err(|e| cannot_write(&self.dir, &e))?;
        for entry in entries {
            let name = entry.map_err(|e| cannot_write(&self.dir, &e))?.file_name();
            let is_ours = ["lock", "lost+found", "keys", "repositories"];
            if !is_ours.iter().any(|known| name == **known) {
                return Err(Failure::usage(format!(
                    "{} is not empty and holds no state of prepub",
                    self.dir.display()
                ))
                .hint("name an empty or new directory with --state-dir"));
            }
        }
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Where the stages are.
    #[must_use]
    pub fn stages(&self) -> PathBuf {
        self.dir.join("stage")
    }

    /// A repository's stage.
    #[must_use]
    pub fn stage(&self, repo: &str) -> PathBuf {
        self.stages().join(repo)
    }

    /// A repository's commit under way.
    #[must_use]
    pub fn txn(&self, repo: &str) -> PathBuf {
        self.dir.join("txn").join(repo)
    }

    /// Catalogs of a repository that are read without a stage.
    #[must_use]
    pub fn cache(&self, repo: &str) -> PathBuf {
        self.dir.join("cache").join(repo)
    }

    /// The log of a daemon in the background.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log/prepub.log")
    }

    /// Names of the registered repositories, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn repositories(&self) -> Result<Vec<String>> {
        let dir = self.dir.join("repositories");
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).context(format_args!("cannot read {}", dir.display()))? {
            let entry = entry.context(format_args!("cannot read {}", dir.display()))?;
            if entry.path().join("server.conf").exists()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What the daemon that runs, or ran last, said of itself.
    #[must_use]
    pub fn daemon_info(&self) -> Option<DaemonInfo> {
        let bytes = fs::read(self.dir.join("daemon.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Says what this daemon is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_daemon_info(&self, info: &DaemonInfo) -> Result<()> {
        let path = self.dir.join("daemon.json");
        let bytes = serde_json::to_vec_pretty(info).context("cannot write JSON")?;
        replace_file(&path, &bytes, 0o644).map_err(|e| cannot_write(&path, &e))
    }

    /// The lock, or the pid of who has it.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_lock(&self) -> Result<std::result::Result<Lock, u32>> {
        let path = self.dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o644)
            .open(&path)
            .map_err(|e| cannot_write(&path, &e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // the pid is for people; the lock itself is the kernel's and dies with us
                let written = file
                    .set_len(0)
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                if let Err(e) = written {
                    tracing::debug!("cannot note the pid in {}: {e}", path.display());
                }
                Ok(Ok(Lock { _file: file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
                Ok(Err(read.map_or(0, |_| text.trim().parse().unwrap_or(0))))
            }
            Err(e) => Err(Failure::failed(format!("cannot lock {}", path.display()))
                .because(&std::io::Error::from(e))),
        }
    }

    /// Somebody else uses this state.
    #[must_use]
    pub fn busy(&self, pid: u32) -> Failure {
        Failure::new(
            Kind::Busy,
            format!(
                "the state in {} is in use by process {pid}, which does not answer on {}",
                self.dir.display(),
                self.socket().display()
            ),
        )
        .hint("wait until it is done; if it hangs, end it: staged changes are kept")
    }
}

/// Makes a directory that survives power loss.
///
/// # Errors
/// When it cannot be made.
pub fn make_dir(dir: &Path) -> std::io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let parent = dir.parent().unwrap_or(dir);
    File::open(parent)?.sync_all()
}

/// Replaces a small file: at every instant it is the old or the new one.
fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Held by the one process that uses a state.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Something of the state cannot be written: which, why, and what to do.
#[must_use]
pub fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        crate::report::kind_of_io(error),
        format!("cannot write {}", path.display()),
    )
    .because(error)
    .hint(match error.kind() {
        ErrorKind::PermissionDenied => {
            "the state belongs to another user? Use sudo, or a state of your own with --state-dir"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on that filesystem; staged changes are kept"
        }
        ErrorKind::ReadOnlyFilesystem => "name a writable place with --state-dir",
        _ => "name another place with --state-dir",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");
        assert_eq!(State::open(&path).unwrap_err().kind, Kind::NotFound);
        State::create(&path).unwrap();
        State::create(&path).unwrap();
        let state = State::open(&path).unwrap();
        assert!(state.repositories().unwrap().is_empty());
        assert_eq!(fs::read_to_string(path.join("format")).unwrap(), "1\n");
    }

    #[test]
    fn newer_unknown_and_foreign_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "2\n").unwrap();
        for result in [State::open(dir.path()), State::create(dir.path())] {
            let text = result.unwrap_err().to_string();
            assert!(
                text.contains("format 2") && text.contains("newer prepub"),
                "{text}"
            );
        }
        fs::write(dir.path().join("format"), "zwei").unwrap();
        assert_eq!(State::open(dir.path()).unwrap_err().kind, Kind::Damaged);
        fs::remove_file(dir.path().join("format")).unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert_eq!(State::create(dir.path()).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::create(dir.path()).unwrap();
        let lock = state.try_lock().unwrap().unwrap();
        let holder = state.try_lock().unwrap().unwrap_err();
        assert_eq!(holder, std::process::id());
        assert!(state.busy(holder).to_string().contains(&holder.to_string()));
        drop(lock);
        assert!(state.try_lock().unwrap().is_ok());
    }
}

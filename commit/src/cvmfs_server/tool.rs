//! Running `cvmfs_server`: the one place that does.
//!
//! It is run from `/`, with nothing to read, its output in a nameless file: what it mounts outlives it,
//! and would keep a pipe open. It has a process group of its own, so that a signal to ours does not end
//! it half way. Each run carries [`MARK`] in its environment, by which what a killed prepub left running
//! is found.
//!
//! ```text
//! transaction    0 opened     17 one is open already    16 the path is leased    else refused
//! abort -f       0 aborted    else refused
//! publish -f     0 published  else refused; the transaction stays open
//! ```
//! [CVMFS `publish/cmd_transaction.cc`, `publish/except.h`, `cvmfs_server_publish.sh`]
//!
//! Nothing here knows what a transaction is for.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::error::ServerError;

/// Names the commit that a process works for.
const MARK: &str = "PREPUB_TRANSACTION";
/// Holds the description of a tag: `cvmfs_server` pastes what follows `-m` into two shell commands, once
/// inside double quotes and once bare. Words of ours would be commands and options there.
const MESSAGE: &str = "PREPUB_MESSAGE";
/// What is pasted instead: one word in either place, whatever the message holds.
const MESSAGE_QUOTED: &str = "${PREPUB_MESSAGE+\"$PREPUB_MESSAGE\"}";
/// How long a transaction may take to open or to abort: it mounts, and may wait a minute for mounts in
/// use. What a publication takes depends on its bytes, and nobody can say what is too long.
const MOUNTING_MAX: Duration = Duration::from_secs(600);
/// How long one that was told to end may take.
const ENDING_MAX: Duration = Duration::from_secs(10);
/// How often one is looked at: well below the half second that the shortest of its verbs takes.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is kept of what it says: its last words are the reason.
const SAID_BYTES_MAX: u64 = 2000;
/// Longest environment that is looked through for the mark.
const ENVIRONMENT_BYTES_MAX: u64 = 1 << 20;

/// What a run that ended by itself came to.
#[derive(Debug)]
pub(super) struct Ended {
    verb: &'static str,
    status: ExitStatus,
    said: String,
}

impl Ended {
    pub(super) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// An error unless it did what it was asked.
    pub(super) fn done(self) -> Result<(), ServerError> {
        match self.status.success() {
            true => Ok(()),
            false => Err(self.refusal()),
        }
    }

    pub(super) fn refusal(self) -> ServerError {
        let status = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("ended with code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => self.status.to_string(),
        };
        ServerError::Refused {
            verb: self.verb,
            status,
            said: self.said,
        }
    }
}

/// `cvmfs_server` for one repository.
#[derive(Debug)]
pub(super) struct Tool {
    program: PathBuf,
    repo: String,
    /// For what it says.
    dir: PathBuf,
}

impl Tool {
    pub(super) fn new(program: PathBuf, repo: String, dir: PathBuf) -> Self {
        Self { program, repo, dir }
    }

    pub(super) fn transaction(&self, mark: &str) -> Result<Ended, ServerError> {
        self.run("transaction", &[], mark, "", Some(MOUNTING_MAX))
    }

    pub(super) fn abort(&self, mark: &str) -> Result<Ended, ServerError> {
        self.run("abort", &["-f"], mark, "", Some(MOUNTING_MAX))
    }

    /// With `-f`, for it would else ask what to do about files that somebody reads.
    pub(super) fn publish(
        &self,
        mark: &str,
        tag: Option<&str>,
        message: &str,
    ) -> Result<Ended, ServerError> {
        let mut args = vec!["-f"];
        args.extend(tag.into_iter().flat_map(|tag| ["-a", tag]));
        if !message.is_empty() {
            args.extend(["-m", MESSAGE_QUOTED]);
        }
        self.run("publish", &args, mark, message, None)
    }

    fn run(
        &self,
        verb: &'static str,
        args: &[&str],
        mark: &str,
        message: &str,
        limit: Option<Duration>,
    ) -> Result<Ended, ServerError> {
        let failed = |source| ServerError::Run {
            program: self.program.clone(),
            source,
        };
        let mut output = self.output().map_err(failed)?;
        let both = || output.try_clone().map(Stdio::from);
        let mut child = Command::new(&self.program)
            .arg(verb)
            .args(args)
            .arg(&self.repo)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(both().map_err(failed)?)
            .stderr(both().map_err(failed)?)
            .env(MARK, mark)
            // an environment has no place for a NUL
            .env(MESSAGE, message.replace('\0', ""))
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let status = wait(&mut child, limit).map_err(failed)?;
        let said = last_words(&mut output).map_err(failed)?;
        match (status, limit) {
            (Some(status), _) => Ok(Ended { verb, status, said }),
            (None, limit) => Err(ServerError::TimedOut {
                verb,
                limit: limit.unwrap_or_default(),
                said,
            }),
        }
    }

    fn output(&self) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        tempfile::tempfile_in(&self.dir)
    }
}

/// How a child ended; none if it had to be stopped.
fn wait(child: &mut Child, limit: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    let mut told_to_end = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(told_to_end.is_none().then_some(status));
        }
        let too_long = limit.is_some_and(|limit| begun.elapsed() > limit);
        match told_to_end {
            None if too_long => {
                signal(child, Signal::TERM);
                told_to_end = Some(Instant::now());
            }
            Some(since) if Instant::elapsed(&since) > ENDING_MAX => {
                signal(child, Signal::KILL);
                child.wait()?;
                return Ok(None);
            }
            _ => {}
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// To a child and all that it started.
fn signal(child: &Child, signal: Signal) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // one that has gone meanwhile needs none
    let _ = group.map(|group| kill_process_group(group, signal));
}

fn last_words(output: &mut File) -> io::Result<String> {
    let length = output.metadata()?.len();
    output.seek(SeekFrom::Start(length.saturating_sub(SAID_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    output.take(SAID_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(match words.is_empty() {
        true => "without a word".to_owned(),
        false => words,
    })
}

/// True if a run with this mark, of a process that has died, is still under way.
pub(super) fn is_running(mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let numbered = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    };
    processes
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| numbered(path))
        .any(|path| {
            let mut environment = Vec::new();
            let read = File::open(path.join("environ"));
            let read = read.and_then(|file| {
                file.take(ENVIRONMENT_BYTES_MAX)
                    .read_to_end(&mut environment)
            });
            read.is_ok()
                && environment
                    .split(|b| *b == 0)
                    .any(|variable| variable == wanted.as_bytes())
        })
}

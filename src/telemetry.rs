//! Where log messages go: the journal under systemd, a file for a daemon in the background, stderr
//! otherwise. Which of them are written may change while the process runs.

use std::fs::{self, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::report::{Context, Failure, Result};

/// The filter in force.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// A log of this size is set aside when a daemon starts; one older log is kept.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Libraries whose every step is news to themselves only; naming them in the filter overrides this.
const CHATTY: &str = "fjall=warn,lsm_tree=warn,";

/// Where messages go.
#[derive(Debug)]
pub enum Sink<'a> {
    /// The journal if stderr is connected to it, otherwise stderr.
    Stderr,
    /// This file.
    File(&'a Path),
}

/// Starts logging, once per process.
///
/// # Errors
/// A filter that makes no sense; a log file that cannot be opened.
pub fn start(level: &str, sink: &Sink<'_>) -> Result<()> {
    let filter = filter(level)?;
    let layer = match sink {
        Sink::File(path) => {
            set_aside(path);
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o640)
                .open(path)
                .context(format_args!("cannot write the log {}", path.display()))?;
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(file)
                .boxed()
        }
        Sink::Stderr => match tracing_journald::layer() {
            Ok(journal) if stderr_is_the_journal() => {
                journal.with_syslog_identifier("prepub".into()).boxed()
            }
            _ => tracing_subscriber::fmt::layer()
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr)
                .boxed(),
        },
    };
    let (filter, handle) = reload::Layer::new(filter);
    // a second start in one process is a test's; the first one stands
    let started = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init();
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter> {
    let filter = EnvFilter::builder().parse(format!("{CHATTY}{level}"));
    filter.map_err(|e| {
        Failure::usage(format!("{level:?} is no log level"))
            .because(&e)
            .hint("one of error, warn, info, debug, trace; or by module: \"info,fsimpl=debug\"")
    })
}

/// Whether that is a filter.
///
/// # Errors
/// One that makes no sense.
pub fn check(level: &str) -> Result<()> {
    filter(level).map(drop)
}

/// Changes what is logged from now on.
///
/// # Errors
/// A filter that makes no sense.
pub fn set(level: &str) -> Result<()> {
    let filter = filter(level)?;
    let Some(handle) = FILTER.get() else {
        return Ok(());
    };
    handle
        .reload(filter)
        .context("cannot change what is logged")
}

/// What is logged, the way it is written, but for what is always left out; none before the start.
#[must_use]
pub fn level() -> Option<String> {
    let filter = FILTER.get()?.with_current(ToString::to_string).ok()?;
    let always: Vec<&str> = CHATTY.split_terminator(',').collect();
    let own = filter.split(',').filter(|part| !always.contains(part));
    Some(own.collect::<Vec<_>>().join(","))
}

fn set_aside(path: &Path) {
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        // losing the old log's name is no reason not to start
        let _ = fs::rename(path, path.with_extension("log.1"));
    }
}

/// systemd says in JOURNAL_STREAM which device and inode its stream is.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    fs::metadata("/proc/self/fd/2").is_ok_and(|m| stream == format!("{}:{}", m.dev(), m.ino()))
}

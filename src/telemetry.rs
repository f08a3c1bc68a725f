//! Where log messages go: the journal under systemd, a file for a daemon in the background, stderr
//! otherwise.

use std::fs::{self, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::report::{Context, Failure, Result};

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
    let filter = EnvFilter::builder()
        .parse(format!("{CHATTY}{level}"))
        .map_err(|e| {
            Failure::usage(format!("{level:?} is no log level"))
                .because(&e)
                .hint("one of error, warn, info, debug, trace; or by module: \"info,fsimpl=debug\"")
        })?;
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
    // a second start in one process is a test's; the first one stands
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init();
    Ok(())
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

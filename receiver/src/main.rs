//! `prepub-receiver`: takes objects for a Stratum 1's replicas before the revision that needs them is
//! visible.
//!
//! Here is what the library must not do: arguments, the environment, the clock, signals, the service
//! manager, and what people read.

mod manual;
mod reload;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{CommandFactory, Parser, Subcommand};
use receiver::Clock;
use receiver::config::{Config, DEFAULT_FILE};
use receiver::daemon::Daemon;
use receiver::doctor::{self, Verdict};
use receiver::site::Site;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Takes objects for a Stratum 1's replicas before the revision that needs them is visible.
#[derive(Parser)]
#[command(name = "prepub-receiver", version)]
struct Cli {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", env = "PREPUB_RECEIVER_CONFIG", default_value = DEFAULT_FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM; requests under way come to their end. SIGHUP: read the configuration again
    Serve,
    /// Read the configuration and the enrolments and say what is wrong; if nothing is, have a receiver
    /// that runs read them again
    Reload {
        /// Its process [default: only check]
        pid: Option<i32>,
    },
    /// Look at everything that must be so for objects to come in, and say what to do
    Doctor {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Manual pages and shell completions
    #[command(subcommand)]
    Util(manual::Util),
}

/// Threads that pass bytes on; hashing and writing have their own.
const RUNTIME_THREADS: usize = 2;
/// How long what blocks may go on once everything else has ended.
const END_WAIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            let text = store::chain(&*error);
            let _ = writeln!(std::io::stderr(), "prepub-receiver: {text}");
            say(&[NotifyState::Status(&text)]);
            ExitCode::FAILURE
        }
    }
}

/// Why it ends.
pub(crate) type Failure = Box<dyn std::error::Error>;

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    // needs no configuration that can be read
    if let Command::Util(what) = &cli.command {
        manual::write(what, Cli::command())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::read(&cli.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()?;
    match &cli.command {
        Command::Serve => {
            let level = log(&config.log_level)?;
            raise_file_limit();
            let site = runtime.block_on(serve(config, &cli.config, &level))?;
            drop(site);
            runtime.shutdown_timeout(END_WAIT);
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor { json } => {
            let report = runtime.block_on(doctor::examine(&config, SystemTime::now()));
            print(&report, *json)?;
            Ok(match report.is_good() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Command::Reload { pid } => {
            for problem in reload::check(&config)? {
                writeln!(std::io::stderr(), "warning: {problem}")?;
            }
            if let Some(pid) = pid {
                reload::ask(*pid)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Util(_) => Ok(ExitCode::SUCCESS),
    }
}

async fn serve(config: Config, file: &Path, level: &SetLevel) -> Result<Arc<Site>, Failure> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let since = Instant::now();
    let clock = Clock {
        wall: Arc::new(now),
        steady: Arc::new(move || since.elapsed().as_secs()),
    };
    let daemon = Daemon::start(config, clock).await?;
    let at = match daemon.listen {
        Some(at) => format!("taking objects on {at}"),
        None => "asking publishers for objects".to_owned(),
    };
    tracing::info!("{at}; /health and /metrics on {}", daemon.local);
    say(&[NotifyState::Ready, NotifyState::Status(&at)]);
    let alive = async {
        let Some(granted) = sd_notify::watchdog_enabled().filter(|t| !t.is_zero()) else {
            return std::future::pending().await;
        };
        let mut interval = tokio::time::interval(granted / 2);
        loop {
            interval.tick().await;
            say(&[NotifyState::Watchdog]);
        }
    };
    let mut alive = std::pin::pin!(alive);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hang_up.recv() => reload::reload(&daemon.site, file, level, &at).await,
            () = &mut alive => break,
        }
    }
    say(&[NotifyState::Stopping]);
    tracing::info!("ending");
    Ok(daemon.end().await)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Each object of a batch is an open file.
fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
}

fn say(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!("the service manager does not listen: {error}");
    }
}

/// Changes what is logged.
type SetLevel = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>>;

fn log(level: &str) -> Result<SetLevel, Failure> {
    let filter = EnvFilter::builder().parse(level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // a journal has times of its own
    match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => {
            let builder = builder.without_time().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Ok(Box::new(move |filter| handle.reload(filter)))
        }
        None => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Ok(Box::new(move |filter| handle.reload(filter)))
        }
    }
}

fn print(report: &doctor::Report, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        return writeln!(out);
    }
    for check in &report.checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED ",
        };
        writeln!(out, "{mark} {}: {}", check.name, check.found)?;
        if let Some(hint) = &check.hint {
            writeln!(out, "          -> {hint}")?;
        }
    }
    Ok(())
}

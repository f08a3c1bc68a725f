//! `prepub mount`: starts the daemon, in the foreground or behind our back.
//!
//! In the background the program starts itself again with `--foreground --background-child`. The
//! child tells on its stdout how far it is, in the API's events, until it is ready or has failed;
//! then it lets go of everything it inherited.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use super::{Context, output};
use crate::api::{Event, Progress, Watch};
use crate::cli::Mount;
use crate::daemon::{self, Wanted};
use crate::report::{Context as _, Failure, Result};
use crate::state::{DaemonInfo, State, cannot_write};
use crate::telemetry::{self, Sink};

/// Lines of the log that are shown when the child dies without a word.
const LOG_LINES_SHOWN: usize = 10;

pub fn run(context: &Context, args: Mount) -> Result<ExitCode> {
    if args.background_child {
        return child(context, args);
    }
    if args.foreground {
        telemetry::start(&context.settings.file.log_level.0, &Sink::Stderr)?;
        let wanted = Wanted {
            mountpoint: args.mountpoint,
            listen: args.listen,
        };
        let display = &context.display;
        daemon::run(context.settings.clone(), &wanted, display, |_| {
            display.finish()
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let info = start_child(context, &args)?;
    context.display.finish();
    output::text(&describe(&info))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(info: &DaemonInfo) -> String {
    let served = match &info.http {
        Some(http) => format!(", serving at {http}"),
        None => String::new(),
    };
    format!(
        "mounted on {} by process {}{served}\n",
        info.mountpoint.display(),
        info.pid
    )
}

fn start_child(context: &Context, args: &Mount) -> Result<DaemonInfo> {
    // the log's place must be there before the child can complain into it
    let state = State::create(&context.settings.state_dir)?;
    let log_file = state.log_file();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(&log_file)
        .map_err(|e| cannot_write(&log_file, &e))?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut child = Command::new(program)
        .args(child_args(context, args)?)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start the daemon")?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| Failure::failed("no pipe to the daemon"))?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot hear the daemon")?;
        match serde_json::from_str(&line).context("the daemon speaks another language")? {
            Event::Progress(progress) => context.display.progress(progress),
            Event::Note(text) => context.display.note(&text),
            Event::Done(info) => {
                return serde_json::from_value(info).context("the daemon speaks another language");
            }
            Event::Error(failure) => return Err(failure),
        }
    }
    let status = child.wait().context("cannot wait for the daemon")?;
    Err(
        Failure::failed(format!("the daemon ended before it was ready: {status}"))
            .paths(last_lines(&log_file))
            .hint(format!("{} has its log", log_file.display())),
    )
}

fn child_args(context: &Context, args: &Mount) -> Result<Vec<OsString>> {
    let mut out: Vec<OsString> = vec![
        "--state-dir".into(),
        context.settings.state_dir.clone().into(),
    ];
    if let Some(config) = &context.global.config {
        let config = std::path::absolute(config).context("no usable path")?;
        out.extend(["--config".into(), config.into()]);
    }
    if let Some(level) = &context.global.log_level {
        out.extend(["--log-level".into(), level.into()]);
    }
    out.extend([
        "mount".into(),
        "--foreground".into(),
        "--background-child".into(),
    ]);
    if let Some(listen) = args.listen {
        out.extend(["--listen".into(), listen.to_string().into()]);
    }
    if let Some(mountpoint) = &args.mountpoint {
        let mountpoint = std::path::absolute(mountpoint).context("no usable path")?;
        out.extend(["--".into(), mountpoint.into()]);
    }
    Ok(out)
}

fn last_lines(path: &Path) -> Vec<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines[from..].iter().map(|l| (*l).to_owned()).collect()
}

/// The background process. Its failures go to whoever started it, and into the log.
fn child(context: &Context, args: Mount) -> Result<ExitCode> {
    // out of the terminal's session: neither its end nor its Ctrl-C is meant for us
    if let Err(e) = rustix::process::setsid() {
        return Err(Failure::failed("cannot leave the terminal's session")
            .because(&std::io::Error::from(e)));
    }
    let log_file = State::create(&context.settings.state_dir)?.log_file();
    telemetry::start(&context.settings.file.log_level.0, &Sink::File(&log_file))?;
    let wanted = Wanted {
        mountpoint: args.mountpoint,
        listen: args.listen,
    };
    let result = daemon::run(context.settings.clone(), &wanted, &Parent, |info| {
        tell(&Event::Done(serde_json::to_value(info).unwrap_or_default()));
        let_go();
    });
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            tracing::error!("{failure}");
            let code = failure.exit_code();
            tell(&Event::Error(failure));
            Ok(code)
        }
    }
}

struct Parent;

impl Watch for Parent {
    fn progress(&self, progress: Progress) {
        tell(&Event::Progress(progress));
    }

    fn note(&self, text: &str) {
        tell(&Event::Note(text.to_owned()));
    }
}

fn tell(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        // a parent that went away is no reason to end
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

/// Gives the pipe back, so that whoever reads our parent's output sees its end.
fn let_go() {
    let null = OpenOptions::new().write(true).open("/dev/null");
    match null {
        Ok(null) => {
            if let Err(e) = rustix::stdio::dup2_stdout(&null) {
                tracing::warn!("cannot let go of stdout: {e}");
            }
        }
        Err(e) => tracing::warn!("cannot open /dev/null: {e}"),
    }
}

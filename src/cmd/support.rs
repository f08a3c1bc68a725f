//! `prepub support`: what others need to help, in one file, without secrets.
//!
//! A part that cannot be had says why in its place: a bundle is wanted when things do not work. All text
//! goes through one door ([`Bundle::add`]), which takes secrets out.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::UNIX_EPOCH;

use formats::compress::gzip;
use serde::Serialize;
use serde_json::json;

use super::output::bytes;
use super::{Context, config, doctor, print};
use crate::api::{Request, Status, reply};
use crate::cli::Support;
use crate::clock;
use crate::redact::Secrets;
use crate::report::{Context as _, Failure, Result, kind_of_io};
use crate::state::State;

mod listing;
mod secrets;

/// The end of a log: more is read by nobody.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// The same of the journal.
const JOURNAL_LINES: &str = "5000";
/// What the kernel and the distribution say of themselves. Not the command line, which may hold anything.
const MACHINE: [&str; 6] = [
    "/proc/version",
    "/etc/os-release",
    "/proc/meminfo",
    "/proc/self/limits",
    "/proc/filesystems",
    "/etc/fuse.conf",
];

pub fn run(context: &Context, args: &Support) -> Result<ExitCode> {
    let output = args.output.clone().unwrap_or_else(default_name);
    let mut options = File::options();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&output);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} is there already", output.display()))
                .hint("name another file with --output, or remove it")
        }
        _ => no_bundle(&output, &error),
    })?;
    let mut bundle = Bundle::new(secrets::known(&context.settings));
    let state = &context.settings.state_dir;
    bundle.add(
        "version.txt",
        Ok(format!("prepub {}\n", env!("CARGO_PKG_VERSION"))),
    )?;
    bundle.add("config.toml", config::as_toml(&context.settings))?;
    bundle.add("status.json", pretty(&status(context)))?;
    bundle.add("doctor.json", pretty(&doctor::diagnose(context, None)))?;
    bundle.add(
        "log.txt",
        State::open(state).and_then(|state| end_of(&state.log_file())),
    )?;
    bundle.add("journal.txt", journal())?;
    bundle.add("state.txt", Ok(listing::of(state)))?;
    bundle.add("mounts.txt", read(Path::new("/proc/self/mountinfo")))?;
    bundle.add("machine.txt", Ok(machine()))?;
    let (packed, parts) = bundle.finish()?;
    let written = file.write_all(&packed).and_then(|()| file.sync_all());
    written.map_err(|error| no_bundle(&output, &error))?;
    let reply = json!({ "file": output, "bytes": packed.len(), "parts": parts });
    print(args.json.json, &reply, |_| {
        format!(
            "{} ({}): secrets were taken out; look through it all the same before you send it\n",
            output.display(),
            bytes(packed.len() as u64)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn no_bundle(output: &Path, error: &std::io::Error) -> Failure {
    let what = format!("cannot write {}", output.display());
    let failure = Failure::new(kind_of_io(error), what).because(error);
    failure.hint("name another file with --output")
}

fn default_name() -> PathBuf {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    PathBuf::from(format!("prepub-support-{host}-{}.tar.gz", now.as_secs()))
}

/// What is packed.
struct Bundle {
    secrets: Secrets,
    tar: tar::Builder<Vec<u8>>,
    parts: Vec<String>,
}

impl Bundle {
    fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            tar: tar::Builder::new(Vec::new()),
            parts: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, text: Result<String>) -> Result<()> {
        let text = text.unwrap_or_else(|failure| format!("this could not be had: {failure}\n"));
        let text = self.secrets.take_out(&text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let path = format!("prepub-support/{name}");
        let packed = self.tar.append_data(&mut header, path, text.as_bytes());
        packed.context("cannot pack the bundle")?;
        self.parts.push(name.to_owned());
        Ok(())
    }

    fn finish(self) -> Result<(Vec<u8>, Vec<String>)> {
        let tar = self.tar.into_inner().context("cannot pack the bundle")?;
        Ok((gzip(&tar), self.parts))
    }
}

fn pretty(value: &Result<impl Serialize>) -> Result<String> {
    let value = value.as_ref().map_err(Clone::clone)?;
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    Ok(text + "\n")
}

fn status(context: &Context) -> Result<reply::Status> {
    context.ask(&Request::Status(Status {
        repo: None,
        wait: false,
        sites: true,
    }))
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read(path).context(format_args!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn end_of(path: &Path) -> Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = File::open(path).context(unreadable())?;
    let length = file.metadata().context(unreadable())?.len();
    let from = length.saturating_sub(LOG_BYTES_MAX);
    file.seek(SeekFrom::Start(from)).context(unreadable())?;
    let mut text = Vec::new();
    let read = file.take(LOG_BYTES_MAX).read_to_end(&mut text);
    read.context(unreadable())?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // a secret that is cut in two would not be known for one
    Ok(match (from, text.split_once('\n')) {
        (1.., Some((_, whole))) => whole.to_owned(),
        _ => text,
    })
}

/// What the service said, where there is a journal.
fn journal() -> Result<String> {
    let output = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=short-iso"])
        .args(["--unit=prepub.service", "--user-unit=prepub.service"])
        .args(["--lines", JOURNAL_LINES])
        .output()
        .context("cannot run journalctl")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn machine() -> String {
    let of = |path: &&str| {
        let text = read(Path::new(path)).unwrap_or_else(|failure| format!("{failure}\n"));
        format!("== {path}\n{text}\n")
    };
    MACHINE.iter().map(of).collect()
}

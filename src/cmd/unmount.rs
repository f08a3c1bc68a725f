//! `prepub unmount`: ends the daemon, or what a dead one left mounted.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fsimpl::session;

use super::{Context, output, print};
use crate::api::reply::Unmounted;
use crate::api::{self, Request, Staged};
use crate::asker::Asker;
use crate::cli::Unmount;
use crate::report::{Failure, Kind, Result};
use crate::state::State;

/// How long the daemon may take to close its stages after it has unmounted.
const END_WAIT: Duration = Duration::from_secs(60);

pub fn run(context: &Context, args: &Unmount) -> Result<ExitCode> {
    let staged = match (args.commit, args.discard) {
        (true, _) => Staged::Commit,
        (_, true) => Staged::Discard,
        _ => Staged::Configured,
    };
    let state = State::open(&context.settings.state_dir)?;
    let last = state.daemon_info().map(|info| info.mountpoint);
    let asker = Asker::open(&context.settings)?;
    if let (Asker::Daemon(_), Some(wanted), Some(mounted)) = (&asker, &args.mountpoint, &last) {
        check_place(wanted, mounted)?;
    }
    let request = Request::Unmount(api::Unmount { staged });
    let asked = asker.ask(&request, &context.display);
    let mut unmounted: Unmounted = asked.map_err(|failure| say_who(failure, last.as_deref()))?;
    match asker {
        Asker::Daemon(_) => wait_for_end(&state)?,
        Asker::Here(engine) => {
            drop(engine);
            let place = args.mountpoint.clone().or(last);
            unmounted.mountpoint = clean_up(place)?;
        }
    }
    context.display.finish();
    print(args.json.json, &unmounted, describe)?;
    Ok(ExitCode::SUCCESS)
}

/// A mount that is in use: by whom. The daemon itself need not be allowed to look.
fn say_who(failure: Failure, mountpoint: Option<&Path>) -> Failure {
    match mountpoint {
        Some(mountpoint) if failure.kind == Kind::OpenFiles && failure.paths.is_empty() => {
            let mut users = session::users_below(mountpoint);
            // what this process was started with is its parent's affair
            users.retain(|user| user.pid != std::process::id());
            failure.paths(users)
        }
        _ => failure,
    }
}

fn check_place(wanted: &Path, mounted: &Path) -> Result<()> {
    let real = wanted.canonicalize().unwrap_or_else(|_| wanted.to_owned());
    if real == mounted {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "this state's daemon has mounted {}, not {}",
        mounted.display(),
        wanted.display()
    ))
    .hint("leave the mount point out, or name the other state with --state-dir"))
}

/// The daemon has answered and goes; when the lock is free everything is on disk.
fn wait_for_end(state: &State) -> Result<()> {
    let deadline = Instant::now() + END_WAIT;
    loop {
        match state.try_lock()? {
            Ok(_) => return Ok(()),
            Err(pid) if Instant::now() >= deadline => {
                return Err(Failure::new(
                    Kind::Unreachable,
                    format!("unmounted, but the daemon (process {pid}) does not end"),
                ));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// No daemon runs: a dead one may have left its mount.
fn clean_up(place: Option<PathBuf>) -> Result<Option<String>> {
    match place {
        Some(place) if session::is_stale(&place) => {
            session::unmount(&place, true)?;
            Ok(Some(place.display().to_string()))
        }
        _ => Ok(None),
    }
}

fn describe(unmounted: &Unmounted) -> String {
    let mut out = String::new();
    for commit in &unmounted.committed {
        let _ = writeln!(
            out,
            "{}: revision {} is published",
            commit.repo, commit.revision
        );
    }
    if unmounted.discarded > 0 {
        let paths = output::plural(unmounted.discarded, "staged path", "staged paths");
        let _ = writeln!(out, "{paths} dropped");
    }
    for name in &unmounted.kept {
        let _ = writeln!(out, "{name}: staged changes are kept for the next mount");
    }
    match &unmounted.mountpoint {
        Some(mountpoint) => {
            let _ = writeln!(out, "unmounted {mountpoint}");
        }
        None => out.push_str("nothing was mounted\n"),
    }
    out
}

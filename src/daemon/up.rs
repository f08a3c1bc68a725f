//! What a daemon needs before it can mount, each with its own refusal.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use fsimpl::session::{self, MountOptions};
use fsimpl::{Fs, probe};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;

use super::Wanted;
use crate::api::{Progress, Step, Unit, Watch};
use crate::clock;
use crate::config::Settings;
use crate::control;
use crate::control::client::Client;
use crate::engine::Engine;
use crate::report::{Context, Failure, Result};
use crate::serve;
use crate::state::{Lock, State};

/// How long to wait for another command to let the state's lock go.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How often it is said how far opening the repositories is.
const TELL_INTERVAL: Duration = Duration::from_millis(250);

/// Where the daemon listens.
pub struct Sockets {
    /// For the API.
    pub control: UnixListener,
    /// For embedded repositories, and at which address.
    pub http: Option<(TcpListener, SocketAddr)>,
    /// For monitoring, and at which address.
    pub metrics: Option<(TcpListener, SocketAddr)>,
}

/// Binds all sockets.
pub fn sockets(runtime: &Runtime, engine: &Engine, wanted: &Wanted) -> Result<Sockets> {
    let settings = engine.settings();
    let group = settings.file.control.group.as_deref();
    let socket = engine.state().socket();
    runtime.block_on(async {
        Ok(Sockets {
            http: listen(engine, wanted).await?,
            metrics: listen_for_monitoring(engine).await,
            control: control::bind(&socket, group)?,
        })
    })
}

/// The state's lock, or who has it.
pub fn only_daemon(state: &State) -> Result<Lock> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        let pid = match state.try_lock()? {
            Ok(lock) => return Ok(lock),
            Err(pid) => pid,
        };
        if matches!(Client::connect(&state.socket()), Ok(Some(_)) | Err(_)) {
            let place = match state.daemon_info() {
                Some(info) if info.pid == pid => {
                    format!("it has mounted {}", info.mountpoint.display())
                }
                _ => "it is starting".into(),
            };
            return Err(Failure::failed(format!(
                "a daemon runs on the state in {} already: process {pid}; {place}",
                state.dir().display()
            ))
            .hint(
                "`prepub unmount` ends it; for a second one name another state with --state-dir",
            ));
        }
        if Instant::now() >= deadline {
            return Err(state.busy(pid));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn mountpoint(settings: &Settings, wanted: &Wanted) -> Result<PathBuf> {
    if let Some(path) = &wanted.mountpoint {
        return std::path::absolute(path)
            .context(format_args!("{} is no usable path", path.display()));
    }
    let path = &settings.mountpoint;
    // one that is there may be the mount of a daemon that died, which cannot be looked into
    if !session::is_stale(path) && !session::is_mounted(path) {
        std::fs::create_dir_all(path).context(format_args!(
            "cannot make the mount point {}",
            path.display()
        ))?;
    }
    Ok(path.clone())
}

/// An earlier daemon of this state that died elsewhere left its mount there. One at our own place is
/// taken off by mounting.
pub fn take_off_stale(state: &State, mountpoint: &Path, watch: &dyn Watch) {
    let Some(last) = state.daemon_info() else {
        return;
    };
    if last.mountpoint != mountpoint && session::is_stale(&last.mountpoint) {
        let place = last.mountpoint.display();
        match session::unmount(&last.mountpoint, true) {
            Ok(()) => watch.note(&format!(
                "took off what a dead daemon had mounted on {place}"
            )),
            Err(e) => watch.note(&format!(
                "warning: a dead daemon's mount is left on {place}: {e}"
            )),
        }
    }
}

pub fn mount_options(engine: &Engine) -> MountOptions {
    let settings = engine.settings();
    let section = &settings.file.mount;
    MountOptions {
        allow_other: section.allow_other.unwrap_or_else(probe::may_allow_other),
        threads: (section.threads > 0).then_some(section.threads),
    }
}

/// Opens every repository. One that cannot be opened is left out; the mount is there for the rest.
pub fn open_all(engine: &Engine, watch: &dyn Watch) -> Result<Arc<Fs>> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let fs = Arc::new(Fs::new(clock::now, (uid.as_raw(), gid.as_raw())));
    let names = engine.names()?;
    for (done, name) in names.iter().enumerate() {
        let progress = Progress {
            step: Step::Recover,
            done: done as u64,
            total: names.len() as u64,
            unit: Unit::Repositories,
            site: None,
        };
        match while_telling(watch, &progress, || engine.repo_watched(name, watch)) {
            Ok(repo) => fs
                .add_repository(Arc::clone(&repo.stage))
                .context(format_args!("cannot show {name}"))?,
            Err(failure) => {
                engine.leave_out(name, &failure);
                tracing::error!("{name} is not mounted: {failure}");
                watch.note(&format!("warning: {name} is not mounted: {failure}"));
            }
        }
    }
    Ok(fs)
}

/// Repeats how far it is for as long as one repository takes, so that it is seen to go on.
fn while_telling<T>(watch: &dyn Watch, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                watch.progress(progress.clone());
                if waiting.recv_timeout(TELL_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        let result = work();
        drop(done);
        result
    })
}

async fn listen(
    engine: &Engine,
    wanted: &Wanted,
) -> Result<Option<(tokio::net::TcpListener, SocketAddr)>> {
    let settings = engine.settings();
    let section = &settings.file.serve;
    if !section.enabled {
        return Ok(None);
    }
    let address = wanted.listen.unwrap_or(section.listen);
    let listener = serve::listen(address).await?;
    let got = listener.local_addr().context("cannot tell the port")?;
    if got != address {
        tracing::warn!("{address} is taken; serving at http://{got}");
    }
    Ok(Some((listener, got)))
}

/// Where it is looked for, or nowhere: a port that nobody knows of is of no use to monitoring.
async fn listen_for_monitoring(engine: &Engine) -> Option<(TcpListener, SocketAddr)> {
    let settings = engine.settings();
    let section = &settings.file.metrics;
    if !section.enabled {
        return None;
    }
    match TcpListener::bind(section.listen).await {
        Ok(listener) => {
            let at = listener.local_addr().unwrap_or(section.listen);
            Some((listener, at))
        }
        Err(error) => {
            tracing::warn!(
                "/metrics and /health are not served: cannot listen on {}: {error}; `listen` in [metrics] of the configuration names another port",
                section.listen
            );
            None
        }
    }
}

pub fn storages(engine: &Arc<Engine>) -> serve::Storages {
    let engine = Arc::downgrade(engine);
    Arc::new(move || {
        let Some(engine) = engine.upgrade() else {
            return Vec::new();
        };
        let names = engine.state().repositories().unwrap_or_default();
        let dir = |name: String| {
            let home = commit::RepoHome::embedded(engine.state().dir(), &name).ok()?;
            Some((name, home.storage_dir().ok()?))
        };
        names.into_iter().filter_map(dir).collect()
    })
}

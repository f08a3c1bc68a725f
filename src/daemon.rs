//! The daemon: mount, control socket, HTTP server, and the order in which they come and go.
//!
//! ```text
//! up    lock the state, open stages (resuming interrupted commits), mount, listen, say ready
//! down  settle staged changes (on_unmount), unmount, close the stages, let the lock go
//! ```
//!
//! It goes down on SIGTERM, SIGINT and SIGHUP, on `prepub unmount`, and when somebody else unmounts it.
//! Being killed loses nothing either: the stages' journals are always ahead of the answers given.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fsimpl::session::{self, MountError, MountOptions, Session};
use fsimpl::{Fs, probe};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::{Progress, Staged, Step, Unit, Watch};
use crate::clock;
use crate::config::{Refresh, Settings};
use crate::control::client::Client;
use crate::control::{self, Control};
use crate::engine::{Engine, Live};
use crate::hook;
use crate::report::{Context, Failure, Kind, Result};
use crate::serve;
use crate::state::{DaemonInfo, Lock, State};

/// How often to look whether somebody else has unmounted us.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long processes that hold files open have after a shutdown was asked for.
const DETACH_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for another command to let the state's lock go.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long a commit that is under way may go on at the end; service managers wait for 90 s.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// How long answers that are being given may take at the end.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Commits and checks that run at one time; more wait.
const BLOCKING_THREADS_MAX: usize = 64;

/// What to mount.
pub struct Wanted {
    /// Where; none: the configured place, made if missing.
    pub mountpoint: Option<PathBuf>,
    /// Where to serve HTTP; none: the configured address.
    pub listen: Option<SocketAddr>,
}

/// Runs until it is told to end. `ready` is called once everything can be used.
///
/// # Errors
/// What stands in the way of starting, or of ending in order.
pub fn run(
    settings: Settings,
    wanted: &Wanted,
    watch: &dyn Watch,
    ready: impl FnOnce(&DaemonInfo),
) -> Result<()> {
    prepare_process();
    let state = State::create(&settings.state_dir)?;
    let lock = only_daemon(&state)?;
    let mountpoint = mountpoint(&settings, wanted)?;
    take_off_stale(&state, &mountpoint, watch);
    let engine = Arc::new(Engine::new(state, settings, lock));
    let fs = open_all(&engine, watch)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // bound before mounting: what cannot be had fails before anything is visible
    let group = engine.settings().file.control.group.clone();
    let socket = engine.state().socket();
    let listener = runtime.block_on(async { control::bind(&socket, group.as_deref()) })?;
    let http = runtime.block_on(listen(&engine, wanted))?;
    let session = session::mount(Arc::clone(&fs), &mountpoint, &mount_options(&engine))
        .inspect_err(|_| drop(std::fs::remove_file(&socket)))?;
    let session = Arc::new(session);
    let info = DaemonInfo {
        pid: std::process::id(),
        mountpoint: session.mountpoint().to_owned(),
        http: http
            .as_ref()
            .map(|(_, address)| format!("http://{address}")),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    engine.state().write_daemon_info(&info)?;
    engine.go_live(Live {
        fs,
        info: info.clone(),
    });
    let (stop, stopped) = mpsc::channel(1);
    let (close, mut closing) = tokio::sync::watch::channel(());
    let ending = Arc::new(AtomicBool::new(false));
    let control = Arc::new(Control {
        engine: Arc::clone(&engine),
        ending: Arc::clone(&ending),
        stop,
        unmount: {
            let session = Arc::clone(&session);
            Box::new(move || unmount_now(&session))
        },
    });
    let service = control::router(control).into_make_service_with_connect_info::<control::Caller>();
    let answering = runtime.spawn(async move {
        let closed = async move { drop(closing.changed().await) };
        axum::serve(listener, service)
            .with_graceful_shutdown(closed)
            .await
    });
    if let Some((listener, _)) = http {
        let service = serve::router(storages(&engine));
        runtime.spawn(async move { axum::serve(listener, service).await });
    }
    std::thread::Builder::new()
        .name("follow".into())
        .spawn({
            let engine = Arc::downgrade(&engine);
            move || follow(&engine)
        })
        .context("cannot start a thread")?;
    tracing::info!(pid = info.pid, "mounted on {}", info.mountpoint.display());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    ready(&info);
    let why = runtime.block_on(until_end(&session, &ending, stopped))?;
    tracing::info!("ending: {why:?}");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // nothing new is taken on
    let _ = close.send(());
    let result = go_down(&engine, &session, why);
    // answers that are on their way get out
    if runtime
        .block_on(async { tokio::time::timeout(ANSWER_WAIT, answering).await })
        .is_err()
    {
        tracing::warn!("somebody still waits for an answer, and gets none");
    }
    runtime.shutdown_timeout(ANSWER_WAIT);
    let _ = std::fs::remove_file(&socket);
    engine.close();
    result
}

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Signal,
    Asked,
    Unmounted,
}

fn prepare_process() {
    // a staged tree may have many files open
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
}

/// The state's lock, or who has it.
fn only_daemon(state: &State) -> Result<Lock> {
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

fn mountpoint(settings: &Settings, wanted: &Wanted) -> Result<PathBuf> {
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
fn take_off_stale(state: &State, mountpoint: &Path, watch: &dyn Watch) {
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

fn mount_options(engine: &Engine) -> MountOptions {
    let section = &engine.settings().file.mount;
    MountOptions {
        allow_other: section.allow_other.unwrap_or_else(probe::may_allow_other),
        threads: (section.threads > 0).then_some(section.threads),
    }
}

/// Opens every repository. One that cannot be opened is left out; the mount is there for the rest.
fn open_all(engine: &Engine, watch: &dyn Watch) -> Result<Arc<Fs>> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let fs = Arc::new(Fs::new(clock::now, (uid.as_raw(), gid.as_raw())));
    let names = engine.state().repositories()?;
    for (done, name) in names.iter().enumerate() {
        watch.progress(Progress {
            step: Step::Recover,
            done: done as u64,
            total: names.len() as u64,
            unit: Unit::Repositories,
        });
        match engine.repo(name) {
            Ok(repo) => fs
                .add_repository(Arc::clone(&repo.stage))
                .context(format_args!("cannot show {name}"))?,
            Err(failure) => {
                tracing::error!("{name} is not mounted: {failure}");
                watch.note(&format!("warning: {name} is not mounted: {failure}"));
            }
        }
    }
    Ok(fs)
}

async fn listen(
    engine: &Engine,
    wanted: &Wanted,
) -> Result<Option<(tokio::net::TcpListener, SocketAddr)>> {
    let section = &engine.settings().file.serve;
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

fn storages(engine: &Arc<Engine>) -> serve::Storages {
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

/// Lets unstaged paths follow what others publish.
fn follow(engine: &std::sync::Weak<Engine>) {
    loop {
        let Some(interval) = engine
            .upgrade()
            .map(|engine| engine.settings().file.stage.refresh_interval.0)
        else {
            return;
        };
        std::thread::sleep(interval);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        for repo in engine.open_repos() {
            let pinned = engine.settings().repository(repo.name()).refresh == Refresh::Pinned;
            // whoever has its turn moves the base itself
            let Some(_turn) = repo.turn.try_lock() else {
                continue;
            };
            if pinned || !repo.stage.frozen().is_empty() {
                continue;
            }
            let head = repo.published.head(std::time::SystemTime::now());
            let followed = head.and_then(|(head, _)| repo.follow(&head.manifest().root_catalog));
            if let Err(failure) = followed {
                tracing::warn!(
                    "{}: cannot follow what is published: {failure}",
                    repo.name()
                );
            }
        }
    }
}

async fn until_end(
    session: &Session,
    ending: &AtomicBool,
    mut stopped: mpsc::Receiver<()>,
) -> Result<Why> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot wait for signals")?;
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(Why::Signal),
            _ = int.recv() => return Ok(Why::Signal),
            _ = hang_up.recv() => return Ok(Why::Signal),
            _ = stopped.recv() => return Ok(Why::Asked),
            _ = look.tick() => {
                if session.is_finished() && !ending.load(Ordering::SeqCst) {
                    return Ok(Why::Unmounted);
                }
            }
        }
    }
}

fn go_down(engine: &Engine, session: &Session, why: Why) -> Result<()> {
    for repo in engine.open_repos() {
        // one that takes longer is found done or not done at the next start
        if repo.turn.try_lock_for(COMMIT_WAIT).is_none() {
            tracing::warn!("{}: ending in the middle of a commit", repo.name());
        }
    }
    if why != Why::Asked {
        hook::before_unmount(engine, Staged::Configured, &Logging)?;
    }
    match why {
        Why::Asked | Why::Unmounted => Ok(()),
        Why::Signal => match session.unmount() {
            Ok(()) => Ok(()),
            Err(MountError::Busy(path)) => {
                tracing::warn!("{} is in use; detaching it", path.display());
                session.detach()?;
                wait_until(DETACH_WAIT, || session.is_finished());
                Ok(())
            }
            // somebody was faster
            Err(_) if session.is_finished() => Ok(()),
            Err(error) => Err(error.into()),
        },
    }
}

fn unmount_now(session: &Session) -> Result<()> {
    session.unmount().map_err(|error| {
        let busy = matches!(error, MountError::Busy(_));
        let failure = Failure::from(error);
        match busy {
            true => failure.hint_if_none("close the files and leave the directories below it"),
            false => failure,
        }
    })?;
    if !wait_until(DETACH_WAIT, || session.is_finished()) {
        return Err(Failure::new(Kind::OpenFiles, "the mount is still in use"));
    }
    Ok(())
}

fn wait_until(most: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + most;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Writes what is worth saying to the log.
struct Logging;

impl Watch for Logging {
    fn progress(&self, _: Progress) {}
    fn note(&self, text: &str) {
        tracing::warn!("{text}");
    }
}

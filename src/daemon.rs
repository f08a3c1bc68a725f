//! The daemon: mount, control socket, HTTP server, and the order in which they come and go.
//!
//! ```text
//! up    lock the state, open stages (resuming interrupted commits), mount, listen, say ready
//! down  settle staged changes (on_unmount), unmount, close the stages, let the lock go
//! ```
//!
//! It goes down on SIGTERM and SIGINT, on `prepub unmount`, and when somebody else unmounts it. On SIGHUP, as
//! on `prepub reload`, it reads its configuration again.
//! Being killed loses nothing either: the stages' journals are always ahead of the answers given.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fsimpl::Fs;
use fsimpl::session::{self, MountError, Session};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::api::{Progress, Staged, Watch};
use crate::config::Settings;
use crate::control::{self, Control};
use crate::engine::{Engine, Live};
use crate::hook;
use crate::report::{Context, Failure, Kind, Result};
use crate::serve;
use crate::signals::{Asked, Signals};
use crate::state::{DaemonInfo, State};

mod follow;
mod manager;
mod own;
mod page;
mod up;
mod warm;

use up::Sockets;

/// How often to look whether somebody else has unmounted us.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long processes that hold files open have after a shutdown was asked for.
const DETACH_WAIT: Duration = Duration::from_secs(5);
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
    let result = up_and_down(settings, wanted, &manager::Starting(watch), ready);
    if let Err(failure) = &result {
        manager::failed(failure);
    }
    result
}

fn up_and_down(
    settings: Settings,
    wanted: &Wanted,
    watch: &dyn Watch,
    ready: impl FnOnce(&DaemonInfo),
) -> Result<()> {
    raise_file_limit();
    let state = State::create(&settings.state_dir)?;
    let lock = up::only_daemon(&state)?;
    let mountpoint = up::mountpoint(&settings, wanted)?;
    up::take_off_stale(&state, &mountpoint, watch);
    let engine = Arc::new(Engine::new(state, settings, lock));
    let fs = up::open_all(&engine, watch)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // who sees the mount may also end it
    let signals = runtime.block_on(async { Signals::new() })?;
    // bound before mounting: what cannot be had fails before anything is visible
    let socket = engine.state().socket();
    let sockets = up::sockets(&runtime, &engine, wanted)?;
    let result = match session::mount(Arc::clone(&fs), &mountpoint, &up::mount_options(&engine)) {
        Ok(session) => {
            let session = Arc::new(session);
            let result = live(&runtime, &engine, fs, &session, sockets, signals, ready);
            if result.is_err() && !session.is_finished() {
                // better no mount than one that nobody answers
                let _ = session.detach();
            }
            result
        }
        Err(error) => Err(error.into()),
    };
    runtime.shutdown_timeout(ANSWER_WAIT);
    let _ = std::fs::remove_file(&socket);
    engine.close();
    result
}

/// From the mount to its end.
fn live(
    runtime: &Runtime,
    engine: &Arc<Engine>,
    fs: Arc<Fs>,
    session: &Arc<Session>,
    sockets: Sockets,
    signals: Signals,
    ready: impl FnOnce(&DaemonInfo),
) -> Result<()> {
    let url = |of: &Option<(_, SocketAddr)>| of.as_ref().map(|(_, at)| format!("http://{at}"));
    let info = DaemonInfo {
        pid: std::process::id(),
        mountpoint: session.mountpoint().to_owned(),
        http: url(&sockets.http),
        metrics: url(&sockets.metrics),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    match engine.state().write_daemon_info(&info) {
        // it says where a mount is left, should we die: not worth refusing those who make room
        Err(failure) if failure.kind == Kind::NoSpace => tracing::warn!("{failure}"),
        written => written?,
    }
    engine.go_live(Live {
        fs,
        info: info.clone(),
    });
    let (stop, stopped) = mpsc::channel(1);
    let (close, mut closing) = tokio::sync::watch::channel(());
    let ending = Arc::new(AtomicBool::new(false));
    let control = Arc::new(Control {
        engine: Arc::clone(engine),
        ending: Arc::clone(&ending),
        stop,
        own: {
            let engine = Arc::clone(engine);
            Box::new(move |request| own::answer(&engine, request))
        },
        unmount: {
            let session = Arc::clone(session);
            Box::new(move || unmount_now(&session))
        },
    });
    let service = control::router(control).into_make_service_with_connect_info::<control::Caller>();
    let answering = runtime.spawn(async move {
        let closed = async move { drop(closing.changed().await) };
        axum::serve(sockets.control, service)
            .with_graceful_shutdown(closed)
            .await
    });
    if let Some((listener, _)) = sockets.http {
        let service = serve::router(up::storages(engine));
        runtime.spawn(async move { axum::serve(listener, service).await });
    }
    if let Some((listener, _)) = sockets.metrics {
        runtime.spawn(page::serve(listener, Arc::downgrade(engine)));
    }
    follow::start(engine)?;
    warm::start(engine, runtime)?;
    tracing::info!(pid = info.pid, "mounted on {}", info.mountpoint.display());
    manager::keep_alive(engine)?;
    manager::ready(&info);
    ready(&info);
    let why = runtime.block_on(until_end(engine, session, &ending, stopped, signals));
    tracing::info!("ending: {why:?}");
    manager::stopping();
    // nothing new is taken on, and answers that are on their way get out
    let _ = close.send(());
    let result = go_down(engine, session, why);
    let answered = async { tokio::time::timeout(ANSWER_WAIT, answering).await };
    if runtime.block_on(answered).is_err() {
        tracing::warn!("somebody still waits for an answer, and gets none");
    }
    result
}

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Signal,
    Asked,
    Unmounted,
}

fn raise_file_limit() {
    // a staged tree may have many files open
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
}

async fn until_end(
    engine: &Arc<Engine>,
    session: &Session,
    ending: &AtomicBool,
    mut stopped: mpsc::Receiver<()>,
    mut signals: Signals,
) -> Why {
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::End => return Why::Signal,
                Asked::Reload => {
                    let engine = Arc::clone(engine);
                    // it says itself what came of it
                    tokio::task::spawn_blocking(move || drop(own::reload(&engine)));
                }
            },
            _ = stopped.recv() => return Why::Asked,
            _ = look.tick() => {
                if session.is_finished() && !ending.load(Ordering::SeqCst) {
                    return Why::Unmounted;
                }
            }
        }
    }
}

fn go_down(engine: &Engine, session: &Session, why: Why) -> Result<()> {
    for repo in engine.open_repos() {
        // one that takes longer is found done or not done at the next start
        if repo.claims.take_all(COMMIT_WAIT).is_some() {
            continue;
        }
        engine.called_off().store(true, Ordering::Relaxed);
        if repo.claims.take_all(ANSWER_WAIT).is_none() {
            tracing::warn!("{}: ending in the middle of a commit", repo.name());
        }
    }
    if why == Why::Unmounted {
        // else the last files that were closed would be waited for
        for repo in engine.open_repos() {
            repo.stage.all_closed();
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
    if wait_until(DETACH_WAIT, || session.is_finished()) {
        return Ok(());
    }
    let holders = session.holders();
    let Some(first) = holders.first() else {
        return Err(Failure::new(Kind::OpenFiles, "the mount is still in use"));
    };
    let more = match holders.len() - 1 {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let what = format!(
        "the mount is gone from {}, but process {} ({}){more} has it still, in a mount namespace of its \
         own",
        session.mountpoint().display(),
        first.pid,
        first.command,
    );
    Err(Failure::new(Kind::OpenFiles, what).hint("end that process, and the daemon ends"))
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

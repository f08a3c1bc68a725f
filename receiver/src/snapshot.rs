//! Runs the replica's snapshot once a revision is visible, so that its catalogs follow the data.
//!
//! Publications that come together get one snapshot, one of a repository runs at a time, and what
//! comes while it runs gets another. That one is due is noted on disk before the publisher is
//! answered, and forgotten when it went well; so a restart does not lose it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::{Notify, watch};

use crate::config::{Config, Snapshot};
use crate::site::Site;

/// Of what a command says, the end is logged.
const TAIL_BYTES: usize = 4096;

/// Which repositories wait for one.
#[derive(Debug)]
pub struct Snapshots {
    how: Snapshot,
    dir: PathBuf,
    waiting: BTreeMap<String, Arc<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    due: Notify,
    /// How many were asked for; held while the note on disk changes.
    asked: Mutex<u64>,
}

impl Snapshots {
    /// For these repositories; nothing runs yet.
    #[must_use]
    pub fn new<'a>(config: &Config, repos: impl Iterator<Item = &'a String>) -> Self {
        Self {
            how: config.snapshot.clone(),
            dir: config.state_dir.join("snapshot"),
            waiting: repos.map(|name| (name.clone(), Arc::default())).collect(),
        }
    }

    /// One is due.
    pub fn wanted(&self, repo: &str) {
        if self.how.command.is_empty() {
            return;
        }
        let Some(waiting) = self.waiting.get(repo) else {
            return;
        };
        let mut asked = waiting.asked.lock();
        *asked += 1;
        let note = fs::create_dir_all(&self.dir).and_then(|()| fs::write(self.dir.join(repo), ""));
        if let Err(e) = note {
            // it runs all the same, unless we are ended before that
            tracing::warn!(repo, "that a snapshot is due cannot be noted: {e}");
        }
        waiting.due.notify_one();
    }
}

/// Runs what is due for a repository until `stop` says so. A command that runs then is left to itself.
pub async fn run(site: Arc<Site>, repo: String, mut stop: watch::Receiver<bool>) {
    let Some(waiting) = site.snapshots.waiting.get(&repo).map(Arc::clone) else {
        return;
    };
    let note = site.snapshots.dir.join(&repo);
    if note.exists() {
        waiting.due.notify_one();
    }
    let work = async {
        loop {
            waiting.due.notified().await;
            tokio::time::sleep(site.snapshots.how.delay.0).await;
            // what is asked for from here on may be too late for this one
            let before = *waiting.asked.lock();
            if succeed(&site, &repo).await {
                let asked = waiting.asked.lock();
                if *asked == before {
                    let _ = fs::remove_file(&note);
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Runs it until it goes well, as often as is configured.
async fn succeed(site: &Site, repo: &str) -> bool {
    let how = &site.snapshots.how;
    let mut pause = how.retry_after.0;
    for attempt in 0..=how.retries {
        if attempt > 0 {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(Duration::from_secs(3_600));
        }
        match once(&how.command, repo).await {
            Ok((status, _)) if status.success() => {
                site.metrics.snapshots.one("done");
                tracing::info!(repo, "the snapshot is done");
                return true;
            }
            Ok((status, said)) => tracing::warn!(repo, "the snapshot ended with {status}: {said}"),
            Err(e) => tracing::warn!(repo, "the snapshot cannot be run: {e}"),
        }
        site.metrics.snapshots.one("failed");
    }
    tracing::error!(
        repo,
        "no snapshot went well; the next publication tries again"
    );
    false
}

async fn once(command: &[String], repo: &str) -> std::io::Result<(ExitStatus, String)> {
    let mut words = command.iter().map(|word| word.replace("{repo}", repo));
    let program = words.next().unwrap_or_default();
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (status, out, err) = tokio::join!(child.wait(), tail(out), tail(err));
    let said = format!("{out}{err}");
    Ok((status?, said.trim().to_owned()))
}

/// The last of what comes.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut kept: Vec<u8> = Vec::new();
    let mut piece = [0; TAIL_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        let over = kept.len().saturating_sub(TAIL_BYTES);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

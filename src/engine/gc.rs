//! `gc`: what nobody needs goes, and what that is.
//!
//! ```text
//! open repositories   objects of the stage, catalogs, content, transactions: asked of whoever has them
//! former ones         directories of the state that bear no served repository's name
//! nobody's            scratch directories of processes that were killed
//! ```
//!
//! Looking and removing are one walk each, with one switch, so that a dry run prints what would go. A
//! commit that is under way keeps its transaction, and a stage its objects; storage is not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Engine;
use super::repo::Repo;
use crate::api::reply::{Collected, Freed};
use crate::api::{Gc, Watch};
use crate::report::{Context, Result};

/// A stage that seals without a pause is left for the next time.
const SWEEP_WAIT: Duration = Duration::from_secs(30);

/// What is found, and whether it goes.
struct Collection<'w> {
    reply: Collected,
    watch: &'w dyn Watch,
}

impl Collection<'_> {
    fn is_dry(&self) -> bool {
        self.reply.dry_run
    }

    fn add(&mut self, kind: &str, repo: Option<&str>, (items, bytes): (u64, u64)) {
        if items == 0 {
            return;
        }
        self.reply.bytes += bytes;
        self.reply.freed.push(Freed {
            kind: kind.to_owned(),
            repo: repo.map(str::to_owned),
            items,
            bytes,
        });
    }

    fn keep(&mut self, what: String) {
        self.watch.note(&what);
        self.reply.kept.push(what);
    }

    /// A file or directory goes with all that is in it; it and its bytes.
    fn remove(&mut self, path: &Path) -> (u64, u64) {
        let bytes = bytes_of(path);
        if !self.is_dry()
            && let Err(error) = remove_all(path)
        {
            self.keep(format!("{} stays: {error}", path.display()));
            return (0, 0);
        }
        (1, bytes)
    }

    fn remove_all(&mut self, kind: &str, repo: Option<&str>, paths: &[PathBuf]) {
        let mut sum = (0, 0);
        for path in paths {
            let (items, bytes) = self.remove(path);
            sum = (sum.0 + items, sum.1 + bytes);
        }
        self.add(kind, repo, sum);
    }
}

impl Engine {
    pub(super) fn gc(&self, args: &Gc, watch: &dyn Watch) -> Result<Collected> {
        let mut found = Collection {
            reply: Collected {
                dry_run: args.dry_run,
                ..Collected::default()
            },
            watch,
        };
        let names = match &args.repo {
            Some(name) => {
                self.home(name)?;
                vec![name.clone()]
            }
            None => self.names()?,
        };
        for name in &names {
            match self.repo(name) {
                Ok(repo) => of_repository(&repo, &mut found)?,
                Err(failure) => found.keep(format!("{name} is left as it is: {failure}")),
            }
        }
        if args.repo.is_none() {
            self.scratch_of_others(&mut found)?;
            self.retired(&mut found)?;
        }
        let Collected { freed, bytes, .. } = &found.reply;
        tracing::info!(dry_run = args.dry_run, kinds = freed.len(), bytes, "gc");
        Ok(found.reply)
    }

    /// Only before the first scratch of ours is made can there be others'.
    fn scratch_of_others(&self, found: &mut Collection<'_>) -> Result<()> {
        if self.scratches.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            let left = entries(&self.state.dir().join("cache/work"))?;
            found.remove_all("scratch", None, &left);
        }
        Ok(())
    }

    /// What is left of repositories that are not served any more.
    fn retired(&self, found: &mut Collection<'_>) -> Result<()> {
        let dir = self.state.dir();
        for (kept, may_go) in [
            ("cache", (|_, _| Ok(true)) as MayGo),
            ("txn", |_, path| Ok(!holds_a_commit(path)?)),
            ("stage", |engine, path| {
                fsimpl::Stage::holds_changes(path, &engine.space()?)
                    .map(|holds| !holds)
                    .context(format_args!("cannot look into {}", path.display()))
            }),
        ] {
            let paths = entries(&dir.join(kept))?;
            // asked afterwards: one that is being made is registered before it has a directory here
            let mut served = self.names()?;
            served.extend(self.open_repos().iter().map(|repo| repo.name().to_owned()));
            for path in paths {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                // what is no repository's name is not ours to judge: scratch, the reserve
                if commit::home::check_name(&name).is_err() || served.iter().any(|s| *s == name) {
                    continue;
                }
                match may_go(self, &path) {
                    Ok(true) => {
                        let sum = found.remove(&path);
                        found.add("retired", Some(&name), sum);
                    }
                    Ok(false) => found.keep(format!(
                        "{} stays: {name} is not served, but something of it is staged or was being \
                         committed; serve it again and commit or abort, or remove that directory",
                        path.display()
                    )),
                    Err(failure) => found.keep(format!("{} stays: {failure}", path.display())),
                }
            }
        }
        Ok(())
    }
}

type MayGo = fn(&Engine, &Path) -> Result<bool>;

fn of_repository(repo: &Repo, found: &mut Collection<'_>) -> Result<()> {
    let name = repo.name();
    match repo.stage.sweep(found.is_dry(), SWEEP_WAIT) {
        Some(swept) => found.add("objects", Some(name), (swept.objects, swept.bytes)),
        None => found.keep(format!(
            "{name}: objects of the stage stay while a commit or a snapshot is under way; try again later"
        )),
    }
    let published = repo.published.repository();
    let catalogs = published.unused_catalogs();
    let content = repo.stage.unused_content();
    if !found.is_dry() {
        published.drop_unused_catalogs();
        repo.stage.drop_content();
    }
    found.add("catalogs", Some(name), catalogs);
    found.add("content", Some(name), content);
    // those that can be resumed are a commit's business
    let mut left = Vec::new();
    for txn in repo.txns()? {
        match txn.join("state.json").exists() {
            true => found.keep(format!(
                "{} stays: that commit was interrupted, and is found done or not done by the next",
                txn.display()
            )),
            false => left.push(txn),
        }
    }
    found.remove_all("transactions", Some(name), &left);
    Ok(())
}

/// True if one of a repository's transactions was interrupted.
fn holds_a_commit(dir: &Path) -> Result<bool> {
    let mut txns = entries(dir)?.into_iter();
    Ok(txns.any(|txn| txn.join("state.json").exists()))
}

/// What is in a directory, sorted; nothing if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read {}", dir.display());
    let mut paths = Vec::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                paths.push(entry.context(unreadable())?.path());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(unreadable()),
    }
    paths.sort();
    Ok(paths)
}

fn remove_all(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata()?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

/// Bytes of all files below; what vanishes meanwhile counts nothing.
fn bytes_of(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else {
        return 0;
    };
    if !meta.is_dir() {
        return meta.len();
    }
    let inner = entries(path).unwrap_or_default();
    inner.iter().map(|path| bytes_of(path)).sum()
}

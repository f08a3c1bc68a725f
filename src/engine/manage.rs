//! Everything about a repository but its stage: `mkfs`, `rmfs`, tags, `rollback`, `resign`, `check`.

use std::sync::Arc;

use commit::home::KeyFile;
use commit::tags::NewTag;
use commit::{
    NewBucket, NewRepository, NewStorage, Place, check, records, resign, rmfs, rollback, tags,
};
use formats::Compression;
use store::{Limits, Repository};

use super::published::Published;
use super::{Engine, days_until, front};
use crate::api::reply::{Checked, Made, Removed, Standing, Tag, Tags};
use crate::api::{
    BUCKET_SCHEME, Check, Mkfs, Progress, Resign, Rollback, Step, TagAdd, TagRemove, Unit, Watch,
};
use crate::clock;
use crate::report::{Context, Failure, Kind, Result};
use crate::repositories;

impl Engine {
    pub(super) fn mkfs(&self, args: &Mkfs) -> Result<Made> {
        let theirs = repositories::official(&self.settings(), &args.repo)?;
        if self.settings().file.repository.contains_key(&args.repo) && theirs.exists() {
            return Err(Failure::usage(format!(
                "cvmfs_server made a repository {} already ({}), and the configuration names it",
                args.repo,
                theirs.conf_file.display()
            ))
            .hint("it is served as it is; choose another name for a new one"));
        }
        let wanted = self.new_repository(args)?;
        let home = commit::mkfs(self.state.dir(), &wanted, clock::wall())?;
        let path = match self.live() {
            Some(live) => {
                self.repo(&args.repo)?;
                Some(live.info.mountpoint.join(&args.repo).display().to_string())
            }
            None => None,
        };
        let http = self.live().and_then(|live| live.info.http.as_ref());
        let place = home.place()?;
        let (url, warnings) = match &place {
            Place::Directory(_) => {
                let url = http.map(|http| format!("{http}/cvmfs/{}", args.repo));
                (url.unwrap_or(wanted.url), Vec::new())
            }
            Place::Bucket(_) => {
                let conf = home.conf()?;
                let url = conf.stratum0_url().unwrap_or_default();
                let seen = front::look(url, home.storage()?.as_ref());
                let warnings = seen.err().map(|failure| match &failure.hint {
                    Some(hint) => format!("{failure}; {hint}"),
                    None => failure.to_string(),
                });
                (url.to_owned(), warnings.into_iter().collect())
            }
        };
        Ok(Made {
            repo: args.repo.clone(),
            config: home.conf_file.display().to_string(),
            storage: place.describe(),
            public_key: home.key_file(KeyFile::Public).display().to_string(),
            url,
            path,
            warnings,
        })
    }

    /// What is asked for, typed.
    fn new_repository(&self, args: &Mkfs) -> Result<NewRepository> {
        let hash = args.hash.as_deref().unwrap_or("sha1");
        let (uid, gid) = args.owner.unwrap_or_else(|| {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            (uid.as_raw(), gid.as_raw())
        });
        let listen = self.settings().file.serve.listen;
        Ok(NewRepository {
            name: args.repo.clone(),
            storage: new_storage(args)?,
            keys: args.keys.clone(),
            algorithm: hash
                .parse()
                .map_err(|e| Failure::usage(format!("--hash {hash:?}")).because(&e))?,
            compression: args.compression.unwrap_or(Compression::Zlib),
            uid,
            gid,
            url: format!("http://{listen}/cvmfs/{}", args.repo),
            settings: Vec::new(),
        })
    }

    pub(super) fn rmfs(&self, name: &str) -> Result<Removed> {
        let home = self.home(name)?;
        rmfs::refuse_foreign(&home)?;
        let open = self.open_repos().into_iter().find(|r| r.name() == name);
        // whoever publishes right now may finish first
        let _all = open.as_ref().map(|repo| repo.claims.take_all_at_last());
        if let Some(repo) = &open {
            let files = repo.stage.summary().open_files;
            if !files.is_empty() {
                return Err(Failure::new(Kind::OpenFiles, "files are open for writing")
                    .paths(files.iter().map(|f| &f.path)));
            }
        }
        self.forget(name);
        let removed = rmfs::rmfs(&home, true)?;
        for dir in [
            self.state.stage(name),
            self.state.txn(name),
            self.state.cache(name),
        ] {
            match std::fs::remove_dir_all(&dir) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(e).context(format_args!("cannot remove {}", dir.display()));
                }
            }
        }
        Ok(Removed {
            repo: name.to_owned(),
            objects: removed.objects,
            bytes: removed.bytes,
            left: removed.left,
        })
    }

    pub(super) fn tags(&self, name: &str) -> Result<Tags> {
        let published = self.published(name)?;
        let scratch = self.scratch()?;
        let tags = tags::list(published.publisher(), &scratch.0, clock::wall())?;
        Ok(Tags {
            repo: name.to_owned(),
            tags: tags.into_iter().map(tag).collect(),
        })
    }

    pub(super) fn tag_add(&self, args: &TagAdd) -> Result<Standing> {
        let _inside = self.gate.enter()?;
        let published = self.published(&args.repo)?;
        let wanted = NewTag {
            name: args.name.clone(),
            message: args.message.clone(),
            root: None,
        };
        tags::add(published.stratum0("tag add")?, &wanted, clock::wall())?;
        standing(&published, Vec::new())
    }

    pub(super) fn tag_remove(&self, args: &TagRemove) -> Result<Standing> {
        let _inside = self.gate.enter()?;
        let published = self.published(&args.repo)?;
        let removed = tags::remove(
            published.stratum0("tag remove")?,
            &args.names,
            clock::wall(),
        )?;
        standing(&published, removed.into_iter().map(|t| t.name).collect())
    }

    pub(super) fn rollback(&self, args: &Rollback) -> Result<Standing> {
        let _inside = self.gate.enter()?;
        let published = self.published(&args.repo)?;
        let stratum0 = published.stratum0("rollback")?;
        let open = self
            .open_repos()
            .into_iter()
            .find(|r| r.name() == args.repo);
        let _all = open.as_ref().map(|repo| repo.claims.take_all_at_last());
        let target = match args.tag.as_str() {
            "trunk-previous" => None,
            tag => Some(tag),
        };
        let outcome = rollback::rollback(stratum0, target, clock::wall())?;
        let lost = match outcome {
            rollback::Outcome::Done(done) => {
                if let Some(repo) = &open {
                    repo.follow(&done.root_hash)?;
                }
                done.lost_tags
            }
            rollback::Outcome::Nothing(_) => Vec::new(),
        };
        standing(&published, lost)
    }

    pub(super) fn resign(&self, args: &Resign, watch: &dyn Watch) -> Result<Standing> {
        let published = self.published(&args.repo)?;
        let (publisher, now) = (published.stratum0("resign")?, clock::wall());
        let signed = match args.new_keys {
            true => resign::resign_with_new_keys(publisher, args.days, now)?,
            false => resign::resign(publisher, args.days, now)?,
        };
        if signed.made_anew {
            watch.note(&format!(
                "{}: there was no readable whitelist; the new one lists the present certificate alone",
                args.repo
            ));
        }
        standing(&published, Vec::new())
    }

    pub(super) fn check(&self, args: &Check, watch: &dyn Watch) -> Result<Checked> {
        let published = self.published(&args.repo)?;
        let scratch = self.scratch()?;
        // what is cached was whole once: a check reads what the storage holds now
        let store = Arc::clone(published.repository().store());
        let keys = published.home.public_keys()?;
        let cache = scratch.0.join("catalogs");
        let repository = Repository::new(&args.repo, store, keys, cache, Limits::default())?;
        let repository = &Arc::new(repository);
        let checksum =
            records::reflog_checksum(repository.store().as_ref(), &published.home.spool_dir);
        let subject = check::Subject {
            repository,
            // one that cannot be read is found by the check itself
            reflog_checksum: checksum.unwrap_or_default(),
            scratch: &scratch.0,
            now: clock::wall(),
        };
        let options = check::Options { data: args.data };
        let report = check::check(&subject, options, &Checking(watch));
        let problems = report.findings.iter();
        Ok(Checked {
            repo: args.repo.clone(),
            healthy: report.healthy(),
            revision: report.revision,
            root_hash: report.root_hash.map(|h| h.to_string()),
            catalogs: report.catalogs,
            rows: report.rows,
            objects: report.objects,
            bytes_hashed: report.bytes_hashed,
            problems: problems
                .map(|f| format!("{}: {} (rule {})", f.subject, f.problem, f.rule))
                .collect(),
            problem_count: report.problems,
        })
    }
}

struct Checking<'a>(&'a dyn Watch);

impl check::Watch for Checking<'_> {
    fn checked(&self, catalogs: u64, _rows: u64, objects: u64) {
        let (done, unit) = match objects {
            0 => (catalogs, Unit::Catalogs),
            objects => (objects, Unit::Objects),
        };
        self.0.progress(Progress {
            step: Step::Check,
            done,
            total: 0,
            unit,
            site: None,
        });
    }
}

fn tag(tag: formats::history::Tag) -> Tag {
    Tag {
        name: tag.name,
        revision: tag.revision,
        root_hash: tag.hash.to_string(),
        timestamp: tag.timestamp,
        description: tag.description,
    }
}

fn standing(published: &Arc<Published>, removed_tags: Vec<String>) -> Result<Standing> {
    let now = clock::wall();
    let (head, _) = published.head(now)?;
    Ok(Standing {
        repo: published.name.clone(),
        revision: head.manifest().revision,
        root_hash: head.manifest().root_catalog.to_string(),
        whitelist_days: days_until(head.whitelist().ends(), now),
        removed_tags,
    })
}

/// A directory or a bucket, by its look.
fn new_storage(args: &Mkfs) -> Result<Option<NewStorage>> {
    let text = args.storage.as_deref();
    let Some(address) = text.filter(|text| text.starts_with(BUCKET_SCHEME)) else {
        if args.s3_config.is_some() || args.create_bucket {
            return Err(Failure::usage(
                "--s3-config and --create-bucket are for a storage in a bucket",
            )
            .hint("name it with --storage s3://BUCKET/PREFIX"));
        }
        return Ok(text.map(|dir| NewStorage::Directory(dir.into())));
    };
    let bucket = NewBucket::new(address, &args.repo, args.s3_config.clone());
    let bucket = bucket.map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Some(NewStorage::Bucket(bucket, args.create_bucket)))
}

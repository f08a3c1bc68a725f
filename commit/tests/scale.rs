//! What a commit costs, beside what it changes. `cargo test -p prepub-commit --release --test commit
//! scale -- --ignored --nocapture` prints figures; without `--ignored` smaller trees keep the bounds.

use std::sync::Arc;
use std::time::Instant;

use commit::Publisher;
use formats::changeset::{Change, ChangeSet, Children, Op};
use formats::entry::{Kind, Regular};
use formats::hash::Hash;
use formats::object::{Compression, Content, ObjectKind, ObjectName};
use formats::path::{Name, RepoPath};
use store::{DirStore, Durability, ObjectStore};

use crate::support::changes::{dir, entry, path};
use crate::support::repo::Repo;

/// A tree of small files, all different, 100 in a directory, 100 directories in one.
fn many_files(repo: &Repo, staged: &dyn ObjectStore, top: &str, files: u32) -> ChangeSet {
    let root = *repo.head().root_hash();
    let mut changes = Vec::new();
    let mut put = |path: RepoPath, kind: Kind| {
        let entry = if matches!(kind, Kind::Directory { .. }) {
            dir()
        } else {
            entry(kind)
        };
        changes.push(Change {
            path,
            op: Op::Put {
                entry,
                children: Children::None,
                explicit: true,
            },
            base: None,
            base_root: root,
        });
    };
    let directory = || Kind::Directory { size: 4096 };
    let name = |text: String| Name::new(text.as_bytes()).unwrap();
    let top = path(top);
    put(top.clone(), directory());
    for i in 0..files {
        let upper = top.join(&name(format!("upper{:03}", i / 10_000)));
        let lower = upper.join(&name(format!("lower{:03}", i / 100 % 100)));
        if i % 10_000 == 0 {
            put(upper, directory());
        }
        if i % 100 == 0 {
            put(lower.clone(), directory());
        }
        let stored = formats::compress::compress(Compression::Zlib, &i.to_le_bytes());
        let hash = Hash::of(formats::Algorithm::Sha1, &stored);
        store::put(staged, &ObjectName::new(hash, ObjectKind::Data), &stored).unwrap();
        let file = Kind::Regular(Regular {
            size: 4,
            content: Content::Whole(hash),
            compression: Compression::Zlib,
            external: false,
            direct_io: false,
            link_group: 0,
        });
        put(lower.join(&name(format!("file{:02}.dat", i % 100))), file);
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    ChangeSet {
        repo: repo.publisher.name().to_owned(),
        targets: vec![top],
        changes,
    }
}

/// What this process has used of all processors so far.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
#[ignore = "prints figures; meaningful in release builds only"]
fn figures() {
    let mut repo = Repo::on_disk();
    let stage = repo.dir.path().join("stage");
    repo.staged = Arc::new(DirStore::create(stage, Durability::Batch).unwrap());
    for files in [1_000, 10_000, 100_000] {
        let top = format!("/tree{files}");
        let set = many_files(&repo, repo.staged.clone().as_ref(), &top, files);
        repo.staged.sync().unwrap();
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let visible = repo.publish(set);
        println!(
            "{files:>7} new files: {:.3} s, {:.3} s of processor time \
             ({:.3} s objects, {:.3} s catalogs, {:.3} s lease)",
            begun.elapsed().as_secs_f64(),
            cpu_seconds() - cpu,
            visible.seconds.store,
            visible.seconds.catalogs,
            visible.seconds.lease_held,
        );
    }
    for round in 0..3 {
        let set = repo
            .changes()
            .file(&format!("/one{round}"), format!("{round}").as_bytes())
            .done();
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let visible = repo.publish(set);
        println!(
            "      1 new file beside them: {:.3} s, {:.3} s of processor time ({:.3} s catalogs)",
            begun.elapsed().as_secs_f64(),
            cpu_seconds() - cpu,
            visible.seconds.catalogs,
        );
    }
    let set = repo.changes().moved("/tree100000", "/moved").done();
    let begun = Instant::now();
    let visible = repo.publish(set);
    println!(
        " 100000 files moved: {:.3} s ({:.3} s catalogs)",
        begun.elapsed().as_secs_f64(),
        visible.seconds.catalogs
    );
    let set = repo.changes().remove("/moved").done();
    let begun = Instant::now();
    let visible = repo.publish(set);
    println!(
        " 100000 files removed: {:.3} s ({:.3} s catalogs)",
        begun.elapsed().as_secs_f64(),
        visible.seconds.catalogs
    );
}

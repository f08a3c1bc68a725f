//! The merge: what a commit carries over, what it leaves out, and what it does not survive.

mod gaps;
mod nests;
mod records;

use std::collections::BTreeMap;

use formats::{RepoPath, Row};

use super::at_random::Chance;
use super::{Snapshot, Stage};

/// What is published is what was drafted, but for the root's own row, which is never carried over.
#[track_caller]
fn is_as_drafted(published: &Snapshot, drafted: &BTreeMap<RepoPath, Row>) {
    let mut drafted = drafted.clone();
    let mut published = published.rows();
    let root = RepoPath::root();
    let linkcount = drafted[&root].linkcount;
    assert_eq!(published[&root].linkcount, linkcount);
    for all in [&mut drafted, &mut published] {
        all.remove(&root);
    }
    for path in drafted.keys().chain(published.keys()) {
        assert_eq!(published.get(path), drafted.get(path), "{path}");
    }
}

#[test]
fn everything_that_can_be_carried_is() {
    let stage = Stage::new();
    let mut draft = stage.draft();
    draft.dir("/d").entry.perm = 0o1775;
    draft.file("/d/file", b"content").entry.uid = 7;
    draft.file("/d/setuid", b"s").entry.perm = 0o4755;
    draft
        .chunked("/d/big", &[b"one", b"two", b"three"])
        .entry
        .mtime
        .nanos = Some(5);
    draft.other("/link", formats::Kind::Symlink(b"d/file".to_vec()));
    let value = [(b"user.x".to_vec(), b"1".to_vec())];
    draft.file("/d/attributed", b"").entry.xattrs = value.clone().into();
    draft.dir("/d/e").entry.xattrs = value.into();
    draft.file("/d/e/deep", b"deep");
    let (made, drafted) = draft.make_and_show();
    stage.publishes("/", &made);
    is_as_drafted(&stage.published(), &drafted);

    // every type becomes every other
    let mut draft = stage.draft();
    draft.remove("/d/e");
    draft.file("/d/e", b"a file now");
    draft.dir("/d/file");
    draft.file("/d/file/inside", b"inside");
    draft.file("/link", b"a file now");
    draft.other("/d/big", formats::Kind::Symlink(b"gone".to_vec()));
    draft.chunked("/d/setuid", &[b"in", b"pieces"]);
    draft.remove("/d/attributed");
    let (made, drafted) = draft.make_and_show();
    stage.publishes("/", &made);
    is_as_drafted(&stage.published(), &drafted);
}

#[test]
fn two_publishers_with_one_base_both_land() {
    let stage = Stage::new();
    let mut draft = stage.draft();
    for dir in ["/a", "/b", "/a/x"] {
        draft.dir(dir);
    }
    stage.publishes("/", &draft.make());
    let mut drafts = [stage.draft(), stage.draft()];
    let mut third = stage.draft();
    drafts[0].file("/a/x/1", b"1");
    drafts[0].dir("/a/new");
    drafts[1].file("/b/2", b"2");
    let [first, second] = drafts.map(super::Draft::make);
    let tokens = ["/a/x", "/b"].map(|path| stage.client.lease(path));
    for (token, made) in tokens.iter().zip([&first, &second]) {
        stage.client.upload(token, &made.objects);
        assert_eq!(stage.client.commit(token, made, "")["status"], "ok");
        stage.sandbox.check();
    }
    let published = stage.published();
    assert!(published.find("/a/x/1").is_some() && published.find("/b/2").is_some());
    // not within its lease
    assert!(published.find("/a/new").is_none());
    // and once more with the old base: what the other one did stays
    third.file("/a/x/3", b"3");
    stage.publishes("/", &third.make());
    let published = stage.published();
    assert!(
        ["/a/x/1", "/b/2", "/a/x/3"]
            .iter()
            .all(|at| published.find(at).is_some())
    );
}

#[test]
fn revisions_at_random_are_carried_whole() {
    for seed in 1..=4 {
        let stage = Stage::new();
        let mut chance = Chance::new(seed);
        for revision in 0..12 {
            let mut draft = stage.draft();
            chance.change(&mut draft, revision);
            let (made, drafted) = draft.make_and_show();
            stage.publishes("/", &made);
            is_as_drafted(&stage.published(), &drafted);
        }
    }
}

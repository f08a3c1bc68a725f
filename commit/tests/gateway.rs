//! Publishing through a real gateway, judged by the official check and by what was wanted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use commit::publisher::{Refused, RefusedWhy};
use commit::{
    CommitError, Gateway, OnConflict, Outcome, Progress, Publisher, PublisherError, Step, Visible,
};
use formats::changeset::{ChangeSet, Children};
use formats::entry::{Entry, Kind};
use formats::object::Content;
use formats::path::RepoPath;

use crate::support::changes::{Changes, dir, entry, path};
use crate::support::gateway::{Real, Way, is_installed};
use crate::support::official::assert_official_check;
use crate::support::proxy::{Cut, Proxy};

const WAYS: [Way; 2] = [Way::Payloads, Way::Storage];

/// Small chunks, so that a test has chunked files.
const CHUNKED: [(&str, &str); 4] = [
    ("CVMFS_MIN_CHUNK_SIZE", "65536"),
    ("CVMFS_AVG_CHUNK_SIZE", "131072"),
    ("CVMFS_MAX_CHUNK_SIZE", "262144"),
    ("CVMFS_INCLUDE_XATTRS", "true"),
];

/// Bytes without a pattern.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(step).take(len).collect()
}

impl Real {
    #[track_caller]
    fn publish_checked(&self, publisher: &Gateway, changes: ChangeSet) -> Visible {
        let visible = self.publish(publisher, changes);
        self.assert_no_lease();
        assert_official_check(&self.repo);
        visible
    }

    #[track_caller]
    fn at(&self, at: &str) -> Entry {
        let row = self.repo.head().lookup(&path(at)).unwrap();
        row.unwrap_or_else(|| panic!("{at} is not published")).entry
    }

    #[track_caller]
    fn assert_gone(&self, at: &str) {
        assert_eq!(self.repo.head().lookup(&path(at)).unwrap(), None, "{at}");
    }
}

/// Only what lies at or below `target` was asked for.
fn aimed(mut changes: ChangeSet, target: &str) -> ChangeSet {
    changes.targets = vec![path(target)];
    changes
}

fn content(entry: &Entry) -> &Content {
    &entry.regular().unwrap().content
}

#[test]
fn all_kinds_of_changes() {
    if !is_installed() {
        return;
    }
    for way in WAYS {
        let real = Real::start(&CHUNKED);
        let publisher = real.publisher(way);
        let changes = real.repo.changes().dir("/a").file("/a/f", b"one");
        let changes = changes.dir("/n").file("/n/.cvmfscatalog", b"");
        let changes = changes.file("/n/big", &noise(1, 900_000));
        let changes = changes.symlink("/l", "a/f").file("/empty", b"");
        let mut request = real.repo.request(changes.done());
        request.tag = Some("v1".to_owned());
        request.message = "the first of \"them\"".to_owned();
        let outcome = real.try_publish(&publisher, &request);
        let Ok(Outcome::Visible(first)) = outcome else {
            panic!("{outcome:?}\n{}", real.log());
        };
        assert_official_check(&real.repo);
        let tags = real.repo.tags();
        let tag = tags.iter().find(|tag| tag.name == "v1").unwrap();
        assert_eq!((tag.revision, tag.hash), (first.revision, first.root_hash));
        assert_eq!(tag.description, request.message);
        assert!(matches!(
            content(&real.at("/n/big")),
            Content::Chunks { .. }
        ));

        // types change, directories move, catalogs come and go
        let changes = real.repo.changes().moved("/n", "/m").dir("/l");
        let changes = changes
            .file("/l/in", b"was a link")
            .file("/a", b"was a directory");
        real.publish_checked(&publisher, changes.remove("/a/f").done());
        assert_eq!(real.at("/l/in").size(), 10);
        assert_eq!(real.at("/a").size(), 15);
        assert_eq!(real.at("/m/big").size(), 900_000);
        real.assert_gone("/n");
        let changes = real.repo.changes().remove("/m/.cvmfscatalog");
        real.publish_checked(&publisher, changes.remove("/empty").done());
        assert_eq!(real.at("/m/big").size(), 900_000);
        let changes = real.repo.changes().remove("/m");
        real.publish_checked(&publisher, changes.done());
        real.assert_gone("/m/big");
    }
}

#[test]
fn changes_that_the_receiver_would_miss() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&CHUNKED);
    let publisher = real.publisher(Way::Payloads);
    let valued = |changes: Changes, at: &str, value: &[u8]| {
        let mut file = entry(Kind::Symlink(b"x".to_vec()));
        file.xattrs.insert(b"user.k".to_vec(), value.to_vec());
        changes.put(at, file, Children::None)
    };
    let tree = |changes: Changes, at: &str, seed: u32| {
        let changes = changes.dir(at);
        changes.file(&format!("{at}/big"), &noise(seed, 400_000))
    };
    let mut changes = real.repo.changes().dir("/d").file("/d/owned", b"1");
    changes = valued(changes, "/d/valued", b"old");
    for (at, seed) in [("/d/x", 1), ("/d/y", 2), ("/d/z", 3)] {
        changes = tree(changes, at, seed);
    }
    changes = tree(changes.dir("/n").file("/n/.cvmfscatalog", b""), "/n/x", 4);
    real.publish_checked(&publisher, changes.done());
    let (old_x, old_y) = (real.at("/d/x/big"), real.at("/d/y/big"));

    let owned = |at: &str| Entry {
        uid: 4242,
        gid: 77,
        ..real.at(at)
    };
    let changes = real.repo.changes();
    let changes = changes.put("/d", owned("/d"), Children::Same);
    let changes = changes.put("/d/owned", owned("/d/owned"), Children::None);
    let changes = valued(changes, "/d/valued", b"new");
    // same size, same time, other chunks
    let changes = changes.file("/d/z/big", &noise(5, 400_000));
    // a directory replaced by one that looks alike, and one made again
    let (x, base) = (real.at("/d/x"), real.repo.head());
    let changes = changes.put_moved("/d/y", x, "/d/x").remove("/d/x");
    let in_nested = changes.file("/n/x/big", &noise(6, 400_000));
    real.publish_checked(&publisher, in_nested.done());
    assert_eq!((real.at("/d").uid, real.at("/d").gid), (4242, 77));
    assert_eq!(real.at("/d/owned").uid, 4242);
    assert_eq!(real.at("/d/valued").xattrs[&b"user.k"[..]], b"new");
    assert_ne!(content(&real.at("/d/y/big")), content(&old_y));
    assert_eq!(content(&real.at("/d/y/big")), content(&old_x));
    let z = base.lookup(&path("/d/z/big")).unwrap().unwrap().entry;
    assert_ne!(content(&real.at("/d/z/big")), content(&z));
    let in_nested = base.lookup(&path("/n/x/big")).unwrap().unwrap().entry;
    assert_ne!(content(&real.at("/n/x/big")), content(&in_nested));
    assert_eq!(
        real.at("/n/x/big").mtime,
        in_nested.mtime,
        "nested catalogs are taken as they are"
    );
}

#[test]
fn new_parents_are_part_of_the_revision() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let publisher = real.publisher(Way::Storage);
    real.publish_checked(&publisher, real.repo.changes().dir("/a").done());
    let before = real.at("/a");
    let changes = real.repo.changes().dir("/a/b").dir("/a/b/c");
    let changes = aimed(changes.file("/a/b/c/f", b"deep").done(), "/a/b/c");
    let revision = real.publish_checked(&publisher, changes).revision;
    assert_eq!(real.at("/a/b/c/f").size(), 4);
    assert_eq!(real.at("/a"), before);
    // one file by its own path
    let changes = aimed(real.repo.changes().file("/a/b/g", b"one").done(), "/a/b/g");
    assert_eq!(
        real.publish_checked(&publisher, changes).revision,
        revision + 1
    );
}

#[test]
fn what_cannot_be_published_is_refused_before_anything_is_sent() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[("PREPUB_HARDLINKS", "groups")]);
    // made where the storage is written directly
    let changes = real.repo.changes().dir("/d").linked("/d/1", b"x", 9);
    let changes = changes.linked("/d/2", b"x", 9).file("/d/3", b"y");
    real.repo.publish(changes.done());
    let publisher = real.publisher(Way::Payloads);
    let refused = |changes: ChangeSet| {
        let outcome = real.try_publish(&publisher, &real.repo.request(changes));
        match outcome {
            Err(CommitError::Publisher(PublisherError::Refused { named, .. })) => named,
            other => panic!("{other:?}"),
        }
    };
    let at = |at: &str, why| Refused {
        path: path(at),
        why,
    };
    let revision = real.repo.head().root_hash().to_owned();
    let fifo = real
        .repo
        .changes()
        .put("/p", entry(Kind::Fifo), Children::None);
    let all = fifo.remove("/d").chmod_dir("", 0o700).done();
    assert_eq!(
        refused(all),
        [
            at("", RefusedWhy::RootAttributes),
            at("/d/1", RefusedWhy::HardLink),
            at("/d/2", RefusedWhy::HardLink),
            at("/p", RefusedWhy::SpecialFile),
        ]
    );
    let one = real.repo.changes().file("/d/1", b"changed").done();
    assert_eq!(refused(one), [at("/d/1", RefusedWhy::HardLink)]);
    assert_eq!(*real.repo.head().root_hash(), revision);
    let changes = real
        .repo
        .changes()
        .dir("/deep")
        .dir("/deep/er")
        .dir("/from");
    let changes = changes.file("/from/er", b"").file("/deep/er/f", b"");
    let changes = changes.dir("/deep/er/est");
    real.publish_checked(&publisher, changes.done());
    let over = |changes: ChangeSet, path| {
        assert_eq!(refused(changes), [at(path, RefusedWhy::DirectoryReplaced)]);
    };
    over(
        real.repo.changes().file("/deep", b"now a file").done(),
        "/deep",
    );
    let from = real.at("/from");
    let moved = real.repo.changes().put_moved("/deep", from, "/from");
    over(moved.remove("/from").done(), "/deep/er");
    // their siblings are nobody's trouble, and new links are broken up
    let changes = real.repo.changes().file("/d/3", b"changed");
    let changes = changes.linked("/new1", b"x", 5).linked("/new2", b"x", 5);
    let visible = real.publish_checked(&publisher, changes.done());
    assert_eq!(visible.broken_links, [[path("/new1"), path("/new2")]]);
}

#[test]
fn somebody_else_has_the_path() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let (ours, theirs) = (real.publisher(Way::Payloads), real.publisher(Way::Storage));
    real.publish_checked(&ours, real.repo.changes().dir("/a").dir("/ab").done());
    let below_a = real.repo.changes().file("/a/f", b"1").file("/a/g", b"");
    let below_a = aimed(below_a.done(), "/a");
    let lease = theirs.lease(&below_a, real.repo.now()).unwrap();
    // a sibling whose name goes on after theirs is in their way, too
    for target in ["/a", "/ab"] {
        let changes = real
            .repo
            .changes()
            .file(&format!("{target}/f"), b"2")
            .done();
        let outcome = real.try_publish(&ours, &real.repo.request(aimed(changes, target)));
        let Err(CommitError::Publisher(PublisherError::Busy { what, .. })) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(what.contains("s at most"), "{what}");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut request = real.repo.request(below_a.clone());
            request.patience = Duration::from_secs(60);
            let outcome = real.try_publish(&ours, &request);
            assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
        });
        std::thread::sleep(Duration::from_millis(700));
        drop(lease);
    });
    assert_eq!(real.at("/a/f").size(), 1);
    real.assert_no_lease();
}

#[test]
fn disjoint_paths_at_once() {
    if !is_installed() {
        return;
    }
    const COMMITS: u64 = 5;
    let real = Real::start(&[]);
    let first = real.publisher(Way::Payloads);
    let changes = real.repo.changes().dir("/one").dir("/two").dir("/three");
    let begin = real.publish_checked(&first, changes.done()).revision;
    let work = |target: &str, publisher: &Gateway| {
        for n in 0..COMMITS {
            let (head, _) = publisher.head(real.repo.now()).unwrap();
            let base = publisher.repository().revision_of(&head).unwrap();
            let changes = real.repo.changes_on(base);
            let changes = changes.file(&format!("{target}/{n}"), format!("{target}{n}").as_bytes());
            let mut request = real.repo.request(aimed(changes.done(), target));
            request.patience = Duration::from_secs(120);
            let outcome = real.try_publish(publisher, &request);
            assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
        }
    };
    std::thread::scope(|scope| {
        for (target, way) in [
            ("/one", Way::Payloads),
            ("/two", Way::Storage),
            ("/three", Way::Payloads),
        ] {
            let (publisher, work) = (real.publisher(way), &work);
            scope.spawn(move || work(target, &publisher));
        }
    });
    for target in ["/one", "/two", "/three"] {
        assert_eq!(
            real.repo.head().list(&path(target)).unwrap().len() as u64,
            COMMITS
        );
    }
    let (head, _) = real.repo.publisher.head(real.repo.now()).unwrap();
    assert_eq!(head.manifest().revision, begin + 3 * COMMITS, "none twice");
    assert_official_check(&real.repo);
    real.assert_no_lease();
}

#[test]
fn conflicts_and_unaffected_paths() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let publisher = real.publisher(Way::Payloads);
    let changes = real.repo.changes().dir("/d").file("/d/f", b"0");
    real.publish_checked(&publisher, changes.done());
    let ours = real
        .repo
        .changes()
        .file("/d/f", b"ours")
        .file("/d/g", b"g")
        .done();
    let theirs = real
        .repo
        .changes()
        .file("/d/f", b"theirs!")
        .file("/d/h", b"h");
    real.publish_checked(&real.publisher(Way::Storage), theirs.done());
    let mut request = real.repo.request(ours);
    let outcome = real.try_publish(&publisher, &request);
    assert!(
        matches!(outcome, Err(CommitError::Conflicts { .. })),
        "{outcome:?}"
    );
    real.assert_no_lease();
    request.on_conflict = OnConflict::Ours;
    real.try_publish(&publisher, &request).unwrap();
    assert_eq!(real.at("/d/f").size(), 4);
    assert_eq!(real.at("/d/h").size(), 1, "theirs stays");
    assert_official_check(&real.repo);
}

#[test]
fn an_answer_that_is_lost() {
    if !is_installed() {
        return;
    }
    for cut in [Cut::Before, Cut::After] {
        let real = Real::start(&[]);
        let proxy = Proxy::to(&real.url, cut, 1);
        let publisher = real.publisher_at(&proxy.url, Way::Payloads);
        let changes = real.repo.changes().dir("/d").file("/d/f", b"once");
        let base = real.repo.head();
        let visible = real.publish_checked(&publisher, changes.done());
        assert_eq!(proxy.left(), 0);
        let previous = real
            .repo
            .head()
            .root_catalog()
            .with(|c| Ok(c.previous_revision()));
        assert_eq!(
            previous.unwrap(),
            Some(*base.root_hash()),
            "{cut:?}: made once"
        );
        assert_eq!(visible.root_hash, *real.repo.head().root_hash());
    }
}

#[test]
fn answers_that_are_lost_twice() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let proxy = Proxy::to(&real.url, Cut::Before, 2);
    let publisher = real.publisher_at(&proxy.url, Way::Payloads);
    let changes = real.repo.changes().dir("/d").done();
    let request = real.repo.request(changes);
    let outcome = real.try_publish(&publisher, &request);
    assert!(
        matches!(
            outcome,
            Err(CommitError::Publisher(PublisherError::NotDone { .. }))
        ),
        "{outcome:?}"
    );
    real.assert_gone("/d");
    real.assert_no_lease();
    // the next one works without help
    real.try_publish(&publisher, &request).unwrap();
    assert!(real.at("/d").is_dir());
}

/// Does something when the catalogs are made, the first time.
struct Once<F>(AtomicU32, F);

impl<F: Fn() + Send + Sync> Progress for Once<F> {
    fn step(&self, step: Step, _: u64, _: u64) {
        if step == Step::Catalogs && self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            (self.1)();
        }
    }
}

#[test]
fn a_gateway_that_restarts_under_the_lease() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let publisher = real.publisher(Way::Payloads);
    let request = real
        .repo
        .request(real.repo.changes().file("/f", b"1").done());
    let restarts = Once(AtomicU32::new(0), || real.restart());
    let outcome = real.try_publish_watched(&publisher, &request, &restarts);
    assert!(
        matches!(outcome, Ok(Outcome::Visible(_))),
        "{outcome:?}\n{}",
        real.log()
    );
    assert_eq!(real.at("/f").size(), 1);
    real.assert_no_lease();
    assert_official_check(&real.repo);
}

#[test]
fn a_lease_that_is_about_to_expire() {
    if !is_installed() {
        return;
    }
    let real = Real::start_with(&[], 8);
    let publisher = real.publisher(Way::Storage);
    let request = real
        .repo
        .request(real.repo.changes().file("/f", b"1").done());
    let sleeps = Once(AtomicU32::new(0), || {
        std::thread::sleep(Duration::from_secs(7))
    });
    let outcome = real.try_publish_watched(&publisher, &request, &sleeps);
    assert!(
        matches!(outcome, Ok(Outcome::Visible(_))),
        "{outcome:?}\n{}",
        real.log()
    );
    assert_eq!(real.at("/f").size(), 1);
    real.assert_no_lease();
}

#[test]
fn a_commit_that_is_called_off_under_its_lease() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let publisher = real.publisher(Way::Payloads);
    let request = real
        .repo
        .request(real.repo.changes().file("/f", b"1").done());
    let calls_off = Once(AtomicU32::new(0), || {
        request.called_off.store(true, Ordering::Relaxed);
    });
    let outcome = real.try_publish_watched(&publisher, &request, &calls_off);
    assert!(
        matches!(outcome, Err(CommitError::CalledOff { .. })),
        "{outcome:?}"
    );
    real.assert_gone("/f");
    real.assert_no_lease();
}

#[test]
fn a_lease_that_was_left_behind() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let changes = real.repo.changes().file("/f", b"1").done();
    // as if its process had been killed: what it noted is all that is left
    let place = |name| real.repo.dir.path().join(name);
    let publisher = |name| real.publisher_in(&place(name), &real.url, Way::Storage);
    let killed = publisher("killed");
    std::mem::forget(killed.lease(&changes, real.repo.now()).unwrap());
    let next = publisher("next");
    let outcome = real.try_publish(&next, &real.repo.request(changes.clone()));
    assert!(
        matches!(
            outcome,
            Err(CommitError::Publisher(PublisherError::Busy { .. }))
        ),
        "{outcome:?}"
    );
    let (from, to) = (place("killed/spool/leases"), place("next/spool/leases"));
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::copy(&file, to.join("left")).unwrap();
    }
    real.publish_checked(&next, changes);
}

#[test]
fn nothing_to_do_and_nothing_but_a_revision() {
    if !is_installed() {
        return;
    }
    let real = Real::start(&[]);
    let publisher = real.publisher(Way::Payloads);
    let first = real.publish_checked(
        &publisher,
        real.repo.changes().put("/d", dir(), Children::None).done(),
    );
    let mut again = real
        .repo
        .request(real.repo.changes().chmod_dir("/d", 0o755).done());
    let outcome = real.try_publish(&publisher, &again).unwrap();
    assert_eq!(outcome, Outcome::Nothing);
    real.assert_no_lease();
    again.change_set.changes.clear();
    again.change_set.targets = vec![RepoPath::root()];
    again.allow_empty = true;
    let outcome = real.try_publish(&publisher, &again).unwrap();
    let Outcome::Visible(visible) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(visible.revision, first.revision + 1);
}

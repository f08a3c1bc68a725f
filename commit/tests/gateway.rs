//! Publishing through a gateway, judged by checks and by what was wanted.

mod bucket;
mod cuts;
mod faults;
mod sharing;

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

use crate::support::changes::{Changes, dir, entry, noise, path};
use crate::support::gateway::{Behind, Make, WAYS, Way, behind_each};
use crate::support::proxy::{Asked, Cut, Proxy};
use crate::support::site::CHUNKED;

behind_each! {
    all_kinds_of_changes,
    changes_that_the_receiver_would_miss,
    new_parents_are_part_of_the_revision,
    what_cannot_be_published_is_refused_before_anything_is_sent,
    somebody_else_has_the_path,
    disjoint_paths_at_once,
    conflicts_and_unaffected_paths,
    an_answer_that_is_lost,
    answers_that_are_lost_twice,
    a_gateway_that_restarts_under_the_lease,
    a_lease_that_is_about_to_expire,
    a_commit_that_is_called_off_under_its_lease,
    a_lease_that_was_left_behind,
    nothing_to_do_and_nothing_but_a_revision,
}

impl Behind {
    #[track_caller]
    fn publish_checked(&self, publisher: &Gateway, changes: ChangeSet) -> Visible {
        let visible = self.publish(publisher, changes);
        self.assert_no_lease();
        self.judge();
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

fn all_kinds_of_changes(make: Make) {
    for way in WAYS {
        let site = Behind::start(make, &CHUNKED);
        let publisher = site.publisher(way);
        let changes = site.repo.changes().dir("/a").file("/a/f", b"one");
        let changes = changes.dir("/n").file("/n/.cvmfscatalog", b"");
        let changes = changes.file("/n/big", &noise(1, 900_000));
        let changes = changes.symlink("/l", "a/f").file("/empty", b"");
        let mut request = site.repo.request(changes.done());
        request.tag = Some("v1".to_owned());
        request.message = "the first of \"them\"".to_owned();
        let outcome = site.try_publish(&publisher, &request);
        let Ok(Outcome::Visible(first)) = outcome else {
            panic!("{outcome:?}\n{}", site.log());
        };
        site.judge();
        let tags = site.repo.tags();
        let tag = tags.iter().find(|tag| tag.name == "v1").unwrap();
        assert_eq!((tag.revision, tag.hash), (first.revision, first.root_hash));
        assert_eq!(tag.description, request.message);
        assert!(matches!(
            content(&site.at("/n/big")),
            Content::Chunks { .. }
        ));

        // types change, directories move, catalogs come and go
        let changes = site.repo.changes().moved("/n", "/m").dir("/l");
        let changes = changes
            .file("/l/in", b"was a link")
            .file("/a", b"was a directory");
        site.publish_checked(&publisher, changes.remove("/a/f").done());
        assert_eq!(site.at("/l/in").size(), 10);
        assert_eq!(site.at("/a").size(), 15);
        assert_eq!(site.at("/m/big").size(), 900_000);
        site.assert_gone("/n");
        let changes = site.repo.changes().remove("/m/.cvmfscatalog");
        site.publish_checked(&publisher, changes.remove("/empty").done());
        assert_eq!(site.at("/m/big").size(), 900_000);
        let changes = site.repo.changes().remove("/m");
        site.publish_checked(&publisher, changes.done());
        site.assert_gone("/m/big");
    }
}

fn changes_that_the_receiver_would_miss(make: Make) {
    let site = Behind::start(make, &CHUNKED);
    let publisher = site.publisher(Way::Payloads);
    let valued = |changes: Changes, at: &str, value: &[u8]| {
        let mut file = entry(Kind::Symlink(b"x".to_vec()));
        file.xattrs.insert(b"user.k".to_vec(), value.to_vec());
        changes.put(at, file, Children::None)
    };
    let tree = |changes: Changes, at: &str, seed: u32| {
        let changes = changes.dir(at);
        changes.file(&format!("{at}/big"), &noise(seed, 400_000))
    };
    let mut changes = site.repo.changes().dir("/d").file("/d/owned", b"1");
    changes = valued(changes, "/d/valued", b"old");
    for (at, seed) in [("/d/x", 1), ("/d/y", 2), ("/d/z", 3)] {
        changes = tree(changes, at, seed);
    }
    changes = tree(changes.dir("/n").file("/n/.cvmfscatalog", b""), "/n/x", 4);
    site.publish_checked(&publisher, changes.done());
    let (old_x, old_y) = (site.at("/d/x/big"), site.at("/d/y/big"));

    let owned = |at: &str| Entry {
        uid: 4242,
        gid: 77,
        ..site.at(at)
    };
    let changes = site.repo.changes();
    let changes = changes.put("/d", owned("/d"), Children::Same);
    let changes = changes.put("/d/owned", owned("/d/owned"), Children::None);
    let changes = valued(changes, "/d/valued", b"new");
    // same size, same time, other chunks
    let changes = changes.file("/d/z/big", &noise(5, 400_000));
    // a directory replaced by one that looks alike, and one made again
    let (x, base) = (site.at("/d/x"), site.repo.head());
    let changes = changes.put_moved("/d/y", x, "/d/x").remove("/d/x");
    let in_nested = changes.file("/n/x/big", &noise(6, 400_000));
    site.publish_checked(&publisher, in_nested.done());
    assert_eq!((site.at("/d").uid, site.at("/d").gid), (4242, 77));
    assert_eq!(site.at("/d/owned").uid, 4242);
    assert_eq!(site.at("/d/valued").xattrs[&b"user.k"[..]], b"new");
    assert_ne!(content(&site.at("/d/y/big")), content(&old_y));
    assert_eq!(content(&site.at("/d/y/big")), content(&old_x));
    let z = base.lookup(&path("/d/z/big")).unwrap().unwrap().entry;
    assert_ne!(content(&site.at("/d/z/big")), content(&z));
    let in_nested = base.lookup(&path("/n/x/big")).unwrap().unwrap().entry;
    assert_ne!(content(&site.at("/n/x/big")), content(&in_nested));
    assert_eq!(
        site.at("/n/x/big").mtime,
        in_nested.mtime,
        "nested catalogs are taken as they are"
    );
}

fn new_parents_are_part_of_the_revision(make: Make) {
    let site = Behind::start(make, &[]);
    let publisher = site.publisher(Way::Storage);
    site.publish_checked(&publisher, site.repo.changes().dir("/a").done());
    let before = site.at("/a");
    let changes = site.repo.changes().dir("/a/b").dir("/a/b/c");
    let changes = aimed(changes.file("/a/b/c/f", b"deep").done(), "/a/b/c");
    let revision = site.publish_checked(&publisher, changes).revision;
    assert_eq!(site.at("/a/b/c/f").size(), 4);
    assert_eq!(site.at("/a"), before);
    // one file by its own path
    let changes = aimed(site.repo.changes().file("/a/b/g", b"one").done(), "/a/b/g");
    assert_eq!(
        site.publish_checked(&publisher, changes).revision,
        revision + 1
    );
}

fn what_cannot_be_published_is_refused_before_anything_is_sent(make: Make) {
    let site = Behind::start(make, &[("PREPUB_HARDLINKS", "groups")]);
    // made where the storage is written directly
    let changes = site.repo.changes().dir("/d").linked("/d/1", b"x", 9);
    let changes = changes.linked("/d/2", b"x", 9).file("/d/3", b"y");
    site.repo.publish(changes.done());
    let publisher = site.publisher(Way::Payloads);
    let refused = |changes: ChangeSet| {
        let outcome = site.try_publish(&publisher, &site.repo.request(changes));
        match outcome {
            Err(CommitError::Publisher(PublisherError::Refused { named, .. })) => named,
            other => panic!("{other:?}"),
        }
    };
    let at = |at: &str, why| Refused {
        path: path(at),
        why,
    };
    let revision = site.repo.head().root_hash().to_owned();
    let fifo = site
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
    let one = site.repo.changes().file("/d/1", b"changed").done();
    assert_eq!(refused(one), [at("/d/1", RefusedWhy::HardLink)]);
    assert_eq!(*site.repo.head().root_hash(), revision);
    let changes = site
        .repo
        .changes()
        .dir("/deep")
        .dir("/deep/er")
        .dir("/from");
    let changes = changes.file("/from/er", b"").file("/deep/er/f", b"");
    let changes = changes.dir("/deep/er/est");
    site.publish_checked(&publisher, changes.done());
    let over = |changes: ChangeSet, path| {
        assert_eq!(refused(changes), [at(path, RefusedWhy::DirectoryReplaced)]);
    };
    over(
        site.repo.changes().file("/deep", b"now a file").done(),
        "/deep",
    );
    let from = site.at("/from");
    let moved = site.repo.changes().put_moved("/deep", from, "/from");
    over(moved.remove("/from").done(), "/deep/er");
    // their siblings are nobody's trouble, and new links are broken up
    let changes = site.repo.changes().file("/d/3", b"changed");
    let changes = changes.linked("/new1", b"x", 5).linked("/new2", b"x", 5);
    let visible = site.publish_checked(&publisher, changes.done());
    assert_eq!(visible.broken_links, [[path("/new1"), path("/new2")]]);
}

fn somebody_else_has_the_path(make: Make) {
    let site = Behind::start(make, &[]);
    let (ours, theirs) = (site.publisher(Way::Payloads), site.publisher(Way::Storage));
    site.publish_checked(&ours, site.repo.changes().dir("/a").dir("/ab").done());
    let below_a = site.repo.changes().file("/a/f", b"1").file("/a/g", b"");
    let below_a = aimed(below_a.done(), "/a");
    let lease = theirs.lease(&below_a, site.repo.now()).unwrap();
    // a sibling whose name goes on after theirs is in their way, too
    for target in ["/a", "/ab"] {
        let changes = site
            .repo
            .changes()
            .file(&format!("{target}/f"), b"2")
            .done();
        let outcome = site.try_publish(&ours, &site.repo.request(aimed(changes, target)));
        let Err(CommitError::Publisher(PublisherError::Busy { what, .. })) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(what.contains("s at most"), "{what}");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut request = site.repo.request(below_a.clone());
            request.patience = Duration::from_secs(60);
            let outcome = site.try_publish(&ours, &request);
            assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
        });
        std::thread::sleep(Duration::from_millis(700));
        drop(lease);
    });
    assert_eq!(site.at("/a/f").size(), 1);
    site.assert_no_lease();
}

fn disjoint_paths_at_once(make: Make) {
    const COMMITS: u64 = 5;
    let site = Behind::start(make, &[]);
    let first = site.publisher(Way::Payloads);
    let changes = site.repo.changes().dir("/one").dir("/two").dir("/three");
    let begin = site.publish_checked(&first, changes.done()).revision;
    let work = |target: &str, publisher: &Gateway| {
        for n in 0..COMMITS {
            let (head, _) = publisher.head(site.repo.now()).unwrap();
            let base = publisher.repository().revision_of(&head).unwrap();
            let changes = site.repo.changes_on(base);
            let changes = changes.file(&format!("{target}/{n}"), format!("{target}{n}").as_bytes());
            let mut request = site.repo.request(aimed(changes.done(), target));
            request.patience = Duration::from_secs(120);
            let outcome = site.try_publish(publisher, &request);
            assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
        }
    };
    std::thread::scope(|scope| {
        for (target, way) in [
            ("/one", Way::Payloads),
            ("/two", Way::Storage),
            ("/three", Way::Payloads),
        ] {
            let (publisher, work) = (site.publisher(way), &work);
            scope.spawn(move || work(target, &publisher));
        }
    });
    for target in ["/one", "/two", "/three"] {
        assert_eq!(
            site.repo.head().list(&path(target)).unwrap().len() as u64,
            COMMITS
        );
    }
    let (head, _) = site.repo.publisher.head(site.repo.now()).unwrap();
    assert_eq!(head.manifest().revision, begin + 3 * COMMITS, "none twice");
    site.judge();
    site.assert_no_lease();
}

fn conflicts_and_unaffected_paths(make: Make) {
    let site = Behind::start(make, &[]);
    let publisher = site.publisher(Way::Payloads);
    let changes = site.repo.changes().dir("/d").file("/d/f", b"0");
    site.publish_checked(&publisher, changes.done());
    let ours = site
        .repo
        .changes()
        .file("/d/f", b"ours")
        .file("/d/g", b"g")
        .done();
    let theirs = site
        .repo
        .changes()
        .file("/d/f", b"theirs!")
        .file("/d/h", b"h");
    site.publish_checked(&site.publisher(Way::Storage), theirs.done());
    let mut request = site.repo.request(ours);
    let outcome = site.try_publish(&publisher, &request);
    assert!(
        matches!(outcome, Err(CommitError::Conflicts { .. })),
        "{outcome:?}"
    );
    site.assert_no_lease();
    request.on_conflict = OnConflict::Ours;
    site.try_publish(&publisher, &request).unwrap();
    assert_eq!(site.at("/d/f").size(), 4);
    assert_eq!(site.at("/d/h").size(), 1, "theirs stays");
    site.judge();
}

fn an_answer_that_is_lost(make: Make) {
    for cut in [Cut::Before, Cut::After] {
        let site = Behind::start(make, &[]);
        let proxy = Proxy::cutting(&site.url, cut, &[Asked::Commit]);
        let publisher = site.publisher_at(&proxy.url, Way::Payloads);
        let changes = site.repo.changes().dir("/d").file("/d/f", b"once");
        let base = site.repo.head();
        let visible = site.publish_checked(&publisher, changes.done());
        assert_eq!(proxy.cut(), [Asked::Commit]);
        let previous = site
            .repo
            .head()
            .root_catalog()
            .with(|c| Ok(c.previous_revision()));
        assert_eq!(
            previous.unwrap(),
            Some(*base.root_hash()),
            "{cut:?}: made once"
        );
        assert_eq!(visible.root_hash, *site.repo.head().root_hash());
    }
}

fn answers_that_are_lost_twice(make: Make) {
    let site = Behind::start(make, &[]);
    let proxy = Proxy::cutting(&site.url, Cut::Before, &[Asked::Commit; 2]);
    let publisher = site.publisher_at(&proxy.url, Way::Payloads);
    let changes = site.repo.changes().dir("/d").done();
    let request = site.repo.request(changes);
    let outcome = site.try_publish(&publisher, &request);
    assert!(
        matches!(
            outcome,
            Err(CommitError::Publisher(PublisherError::NotDone { .. }))
        ),
        "{outcome:?}"
    );
    site.assert_gone("/d");
    site.assert_no_lease();
    // the next one works without help
    site.try_publish(&publisher, &request).unwrap();
    assert!(site.at("/d").is_dir());
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

fn a_gateway_that_restarts_under_the_lease(make: Make) {
    let site = Behind::start(make, &[]);
    let publisher = site.publisher(Way::Payloads);
    let request = site
        .repo
        .request(site.repo.changes().file("/f", b"1").done());
    let restarts = Once(AtomicU32::new(0), || site.restart());
    let outcome = site.try_publish_watched(&publisher, &request, &restarts);
    assert!(
        matches!(outcome, Ok(Outcome::Visible(_))),
        "{outcome:?}\n{}",
        site.log()
    );
    assert_eq!(site.at("/f").size(), 1);
    site.assert_no_lease();
    site.judge();
}

fn a_lease_that_is_about_to_expire(make: Make) {
    let site = Behind::start_with(make, &[], Duration::from_secs(8));
    let publisher = site.publisher(Way::Storage);
    let request = site
        .repo
        .request(site.repo.changes().file("/f", b"1").done());
    let sleeps = Once(AtomicU32::new(0), || {
        std::thread::sleep(Duration::from_secs(7))
    });
    let outcome = site.try_publish_watched(&publisher, &request, &sleeps);
    assert!(
        matches!(outcome, Ok(Outcome::Visible(_))),
        "{outcome:?}\n{}",
        site.log()
    );
    assert_eq!(site.at("/f").size(), 1);
    site.assert_no_lease();
}

fn a_commit_that_is_called_off_under_its_lease(make: Make) {
    let site = Behind::start(make, &[]);
    let publisher = site.publisher(Way::Payloads);
    let request = site
        .repo
        .request(site.repo.changes().file("/f", b"1").done());
    let calls_off = Once(AtomicU32::new(0), || {
        request.called_off.store(true, Ordering::Relaxed);
    });
    let outcome = site.try_publish_watched(&publisher, &request, &calls_off);
    assert!(
        matches!(outcome, Err(CommitError::CalledOff { .. })),
        "{outcome:?}"
    );
    site.assert_gone("/f");
    site.assert_no_lease();
}

fn a_lease_that_was_left_behind(make: Make) {
    let site = Behind::start(make, &[]);
    let changes = site.repo.changes().file("/f", b"1").done();
    // as if its process had been killed: what it noted is all that is left
    let place = |name| site.repo.dir.path().join(name);
    let publisher = |name| site.publisher_in(&place(name), &site.url, Way::Storage);
    let killed = publisher("killed");
    std::mem::forget(killed.lease(&changes, site.repo.now()).unwrap());
    let next = publisher("next");
    let outcome = site.try_publish(&next, &site.repo.request(changes.clone()));
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
    site.publish_checked(&next, changes);
}

fn nothing_to_do_and_nothing_but_a_revision(make: Make) {
    let site = Behind::start(make, &[]);
    let publisher = site.publisher(Way::Payloads);
    let first = site.publish_checked(
        &publisher,
        site.repo.changes().put("/d", dir(), Children::None).done(),
    );
    let mut again = site
        .repo
        .request(site.repo.changes().chmod_dir("/d", 0o755).done());
    let outcome = site.try_publish(&publisher, &again).unwrap();
    assert_eq!(outcome, Outcome::Nothing);
    site.assert_no_lease();
    again.change_set.changes.clear();
    again.change_set.targets = vec![RepoPath::root()];
    again.allow_empty = true;
    let outcome = site.try_publish(&publisher, &again).unwrap();
    let Outcome::Visible(visible) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(visible.revision, first.revision + 1);
}

//! Publishing by `cvmfs_server`, with its double.

use std::fs;
use std::os::unix::fs::symlink;

use commit::publisher::{Refused, RefusedWhy};
use commit::{CommitError, OnConflict, Outcome, Publisher, PublisherError, Resumed, ServerError};
use formats::changeset::Children;
use formats::entry::Kind;
use formats::hash::{Algorithm, Hash};
use formats::object::{ObjectKind, ObjectName};
use formats::path::RepoPath;
use rustix::fs::{FlockOperation, flock};

use crate::support::changes::{Changes, entry, noise};
use crate::support::checked::assert_checks;
use crate::support::official::assert_official_check;
use crate::support::repo::BOOT;
use crate::support::server::{Server, WAYS, Way, mine};
use crate::support::site::CHUNKED;

fn with_xattr(changes: Changes, server: &Server, at: &str) -> Changes {
    let params = server.repo.params();
    let staged = server.repo.staged.as_ref();
    let regular = crate::support::changes::seal(staged, &params, b"with attributes");
    let mut file = entry(Kind::Regular(regular));
    file.xattrs.insert(b"user.a".to_vec(), b"one".to_vec());
    changes.put(at, file, Children::None)
}

fn each_with(way: Way, settings: &'static [(&str, &str)]) -> impl Iterator<Item = (Way, Server)> {
    Server::each(settings).map(move |server| (way, server))
}

/// The publisher itself compares what was published with what was staged, and the tools what is there
/// with what it should be.
#[test]
fn all_kinds_of_changes() {
    for (way, server) in WAYS.iter().flat_map(|way| each_with(*way, &CHUNKED)) {
        let publisher = server.publisher(way);
        let fifo = entry(Kind::Fifo);
        let changes = server.repo.changes();
        let changes = changes.dir("/d").file("/d/file", b"bytes");
        let changes = changes
            .file("/d/empty", b"")
            .file("/d/big", &noise(1, 900_000));
        let changes = changes.dir("/d/sub").file("/d/sub/.cvmfscatalog", b"");
        let changes = changes
            .file("/d/sub/leaf", b"leaf")
            .symlink("/d/link", "/no where");
        let changes = changes.put("/d/fifo", fifo, Children::None);
        let changes = with_xattr(changes, &server, "/d/attributes");
        let changes = changes
            .file("/type", b"a file")
            .dir("/other")
            .file("/other/f", b"f");
        let mut request = server.repo.request(mine(changes.done()));
        request.tag = Some("one".to_owned());
        request.message = "it's \"new\" $(false) `id` -n 5 * \\".to_owned();
        let Outcome::Visible(first) = server.try_publish(&publisher, &request).unwrap() else {
            panic!("{way:?}: nothing was published");
        };
        assert_eq!(first.revision, 2, "{way:?}");
        let tags = server.repo.tags();
        let tag = tags.iter().find(|tag| tag.name == "one").unwrap();
        assert_eq!(tag.description, request.message, "{way:?}");
        assert_eq!(tag.revision, 2, "{way:?}");
        judge(&server);

        let changes = server.repo.changes().moved("/d/sub", "/moved");
        let changes = changes.chmod_dir("/d", 0o700).remove("/d/link");
        let changes = changes.file("/d/file", b"other bytes").remove("/type");
        let changes = changes.dir("/other").file("/other/g", b"g");
        server.publish(&publisher, changes.done());
        judge(&server);
        let changes = server.repo.changes().dir("/type").file("/type/f", b"f");
        let changes = changes
            .file("/d", b"a file now")
            .remove("/moved/.cvmfscatalog");
        server.publish(&publisher, changes.done());
        judge(&server);
        let nothing = server.repo.changes().implicit("/other", 5).done();
        let request = server.repo.request(mine(nothing));
        let outcome = server.try_publish(&publisher, &request).unwrap();
        assert_eq!(outcome, Outcome::Nothing, "{way:?}");
    }
}

#[track_caller]
fn judge(server: &Server) {
    assert_checks(&server.repo);
    assert_official_check(&server.repo);
}

fn one_file(server: &Server, at: &str) -> commit::Request {
    let changes = server.repo.changes().file(at, at.as_bytes());
    server.repo.request(mine(changes.done()))
}

fn server_error(error: CommitError) -> ServerError {
    match error {
        CommitError::Publisher(PublisherError::Server { source, .. }) => *source,
        other => panic!("{other}"),
    }
}

#[test]
fn a_transaction_of_somebody_else_stays() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    server.ok(&["transaction"]);
    fs::write(server.union().join("theirs"), b"theirs").unwrap();
    let refused = server.try_publish(&publisher, &one_file(&server, "/ours"));
    let Err(CommitError::Publisher(PublisherError::Transaction { uid, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(uid, rustix::process::geteuid().as_raw());
    publisher.give_back().unwrap();
    assert!(server.is_signed());
    server.ok(&["publish", "-f"]);
    server.publish(&publisher, server.repo.changes().file("/ours", b"o").done());
    assert!(server.union().join("theirs").exists() && server.union().join("ours").exists());
    assert_checks(&server.repo);
}

#[test]
fn what_they_published_is_gone_on_from_or_collides() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    server.publish(&publisher, server.repo.changes().file("/both", b"0").done());
    let (apart, both) = (one_file(&server, "/apart"), one_file(&server, "/both"));
    server.later();
    server.ok(&["transaction"]);
    fs::write(server.union().join("both"), b"theirs").unwrap();
    server.ok(&["publish", "-f"]);
    let done = server.try_publish(&publisher, &apart).unwrap();
    assert!(matches!(done, Outcome::Visible(visible) if visible.revision == 4));
    let refused = server.try_publish(&publisher, &both);
    assert!(
        matches!(refused, Err(CommitError::Conflicts { .. })),
        "{refused:?}"
    );
    assert!(!server.is_signed(), "it is over");
    let mut ours = both;
    ours.on_conflict = OnConflict::Ours;
    server.try_publish(&publisher, &ours).unwrap();
    assert_eq!(fs::read(server.union().join("both")).unwrap(), b"/both");
    assert_checks(&server.repo);
}

/// What stands there already, and what was made and taken away again, takes no transaction: one that would
/// be refused is not asked for.
#[test]
fn what_changes_nothing_opens_no_transaction() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    server.publish(&publisher, server.repo.changes().file("/a", b"a").done());
    let again = one_file(&server, "/a");
    let same = server
        .repo
        .request(mine(server.repo.changes().file("/a", b"a").done()));
    server.ok(&["transaction"]);
    let done = server.try_publish_beside(&publisher, &same).unwrap();
    assert_eq!(done, Outcome::Nothing);
    let refused = server.try_publish_beside(&publisher, &again);
    assert!(
        matches!(
            refused,
            Err(CommitError::Publisher(PublisherError::Transaction { .. }))
        ),
        "{refused:?}"
    );
    server.ok(&["abort", "-f"]);
    let mut empty = same;
    empty.allow_empty = true;
    let done = server.try_publish(&publisher, &empty).unwrap();
    assert!(matches!(done, Outcome::Visible(visible) if visible.revision == 3));
}

/// Whatever `cvmfs_server` fails at: the transaction is over, nothing is visible, and the same commit
/// works the next time.
#[test]
fn what_fails_is_aborted() {
    for (verb, how) in [
        ("transaction", "refuse"),
        ("transaction", "die"),
        ("publish", "refuse"),
    ] {
        let server = Server::new(&[]);
        let publisher = server.publisher(Way::Grafts);
        let request = one_file(&server, "/ours");
        server.fault(verb, how);
        let error = server.try_publish(&publisher, &request).unwrap_err();
        let error = server_error(error);
        assert!(
            matches!(error, ServerError::Refused { verb: at, .. } if at == verb),
            "{error}"
        );
        assert!(!server.is_signed(), "{verb} {how}");
        let resumed = commit::resume(&server.repo.txn_dir(), &publisher, server.repo.now(), BOOT);
        assert!(
            matches!(resumed, Ok(Resumed::None | Resumed::NotDone { .. })),
            "{verb} {how}: {resumed:?}"
        );
        server.try_publish(&publisher, &request).unwrap();
        assert_checks(&server.repo);
    }
}

/// It published, and then failed or died: that is found out, and nothing is published twice.
#[test]
fn what_was_published_all_the_same_is_known() {
    for how in ["late", "die"] {
        let server = Server::new(&[]);
        let publisher = server.publisher(Way::Grafts);
        server.fault("publish", how);
        let done = server.try_publish(&publisher, &one_file(&server, "/ours"));
        let Ok(Outcome::Visible(visible)) = done else {
            panic!("{how}: {done:?}");
        };
        assert_eq!(visible.revision, 2, "{how}");
        assert_eq!(visible.root_hash, *server.repo.head().root_hash(), "{how}");
        assert_checks(&server.repo);
    }
}

#[test]
fn what_was_published_otherwise_is_named() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    let changes = server.repo.changes().file("/fine", b"1");
    let request = server
        .repo
        .request(mine(changes.file("/spoiled", b"2").done()));
    server.fault("publish", "spoil");
    let error = server.try_publish(&publisher, &request).unwrap_err();
    let ServerError::Differs {
        revision,
        named,
        more,
    } = server_error(error)
    else {
        panic!("something else failed");
    };
    assert_eq!((revision, more), (2, 0));
    let named: Vec<String> = named.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["/spoiled: mode 100700 instead of 100644"]);
    // it is not taken for done, and the next commit mends it
    let txn = server.repo.txn_dir();
    let resumed = commit::resume(&txn, &publisher, server.repo.now(), BOOT).unwrap();
    assert!(matches!(resumed, Resumed::NotDone { .. }), "{resumed:?}");
    let mut again = request;
    again.on_conflict = OnConflict::Ours;
    server.try_publish(&publisher, &again).unwrap();
    assert_checks(&server.repo);
}

/// Somebody puts links into the tree of our transaction: what is changed is what has that name, never
/// what a link leads to.
#[test]
fn nothing_goes_through_a_link() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    let outside = server.repo.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), b"untouched").unwrap();
    let changes = server.repo.changes().dir("/d").file("/d/file", b"1");
    server.publish(&publisher, changes.done());
    fs::remove_dir_all(server.union().join("d")).unwrap();
    symlink(&outside, server.union().join("d")).unwrap();
    let request = one_file(&server, "/d/file");
    let error = server.try_publish(&publisher, &request).unwrap_err();
    let error = server_error(error);
    assert!(matches!(error, ServerError::Apply { .. }), "{error}");
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
    assert!(!server.is_signed());
    // a tree that goes takes its links along, and nothing behind them
    server.ok(&["transaction"]);
    server.ok(&["abort", "-f"]);
    symlink(&outside, server.union().join("d/link")).unwrap();
    let changes = server.repo.changes().remove("/d").done();
    server
        .try_publish(&publisher, &server.repo.request(changes))
        .unwrap();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
}

#[test]
fn what_a_transaction_cannot_carry_is_refused_first() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    let changes = server.repo.changes().dir("/d");
    let changes = changes
        .file("/d/.cvmfsgraft-x", b"size=1")
        .file("/fine", b"");
    let changes = changes.put("/zero", entry(Kind::CharDevice(0)), Children::None);
    let root = server
        .repo
        .head()
        .lookup(&RepoPath::root())
        .unwrap()
        .unwrap();
    let changes = changes.put_entry(&RepoPath::root(), root.entry, Children::Same);
    let request = server.repo.request(mine(changes.done()));
    let refused = server.try_publish(&publisher, &request).unwrap_err();
    let CommitError::Publisher(PublisherError::Refused { named, more, .. }) = refused else {
        panic!("{refused}");
    };
    let named: Vec<(String, RefusedWhy)> = named
        .into_iter()
        .map(|Refused { path, why }| (path.to_string(), why))
        .collect();
    let at = |path: &str, why| (path.to_owned(), why);
    assert_eq!(more, 0);
    assert_eq!(
        named,
        [
            at("/d/.cvmfsgraft-x", RefusedWhy::GraftName),
            at("/zero", RefusedWhy::UnionsOwn),
            at("/", RefusedWhy::RootAttributes),
        ]
    );
    assert!(!server.is_signed());
}

/// Two that share a state take turns.
#[test]
fn one_commit_has_one_transaction() {
    let server = Server::new(&[]);
    let (ours, other) = (server.publisher(Way::Grafts), server.publisher(Way::Grafts));
    let nothing = server.repo.changes().done();
    let lease = ours.lease(&nothing, server.repo.now()).unwrap();
    let refused = other.lease(&nothing, server.repo.now()).err().unwrap();
    assert!(matches!(refused, PublisherError::Busy { .. }), "{refused}");
    other.give_back().unwrap();
    assert!(server.is_signed(), "it is at work");
    drop(lease);
    assert!(!server.is_signed());
    drop(other.lease(&nothing, server.repo.now()).unwrap());
    assert!(!server.is_signed());
}

/// An administrator aborts our transaction and opens another one while we are at it.
#[test]
fn a_transaction_that_is_not_ours_any_more_is_left_alone() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    let nothing = server.repo.changes().done();
    let lease = publisher.lease(&nothing, server.repo.now()).unwrap();
    server.ok(&["abort", "-f"]);
    fs::write(server.spool().join("keeps the inode"), b"").unwrap();
    server.ok(&["transaction"]);
    drop(lease);
    assert!(server.is_signed(), "it is theirs");
    publisher.give_back().unwrap();
    assert!(server.is_signed(), "it is theirs");
    server.ok(&["abort", "-f"]);
    server.publish(&publisher, server.repo.changes().file("/a", b"a").done());
}

/// It keeps our transaction from being published and from being aborted; the next commit does both.
#[test]
fn somebody_who_publishes_is_in_the_way() {
    let server = Server::new(&[]);
    let publisher = server.publisher(Way::Grafts);
    let held = fs::File::create(server.spool().join("is_publishing.lock")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let request = one_file(&server, "/a");
    let error = server.try_publish(&publisher, &request).unwrap_err();
    let said = server_error(error).to_string();
    assert!(said.contains("Another publish process is active"), "{said}");
    assert!(server.is_signed(), "nobody can abort it now");
    drop(held);
    let txn = server.repo.txn_dir();
    let resumed = commit::resume(&txn, &publisher, server.repo.now(), BOOT).unwrap();
    assert!(matches!(resumed, Resumed::NotDone { .. }), "{resumed:?}");
    assert!(!server.is_signed());
    server.try_publish(&publisher, &request).unwrap();
    assert_checks(&server.repo);
}

/// What one commit no longer needs, another beside it may.
#[test]
fn catalogs_lie_there_for_as_long_as_a_commit_is_under_way() {
    for way in WAYS {
        let server = Server::new(&[]);
        let publisher = server.publisher(way);
        let catalogs = publisher.catalogs();
        publisher.begins();
        let bytes = b"of a commit that goes on beside";
        let hash = Hash::of(Algorithm::Sha1, bytes);
        let name = ObjectName::new(hash, ObjectKind::Catalog);
        store::put(catalogs.as_ref(), &name, bytes).unwrap();
        let changes = server.repo.changes().file("/new", b"new");
        server.publish(&publisher, changes.done());
        assert!(catalogs.has(&name).unwrap(), "{way:?}");
        publisher.ended();
        assert!(!catalogs.has(&name).unwrap(), "{way:?}");
    }
}

//! Nested catalogs: exchanged unread, made anew, merged, dropped.

use formats::Kind;

use crate::double::Stage;
use crate::double::draft::{Draft, MTIME, path};

/// `/n` begins a catalog with `/n/m` in it, which begins another; published.
fn nested() -> Stage {
    let stage = Stage::new();
    let mut draft = stage.draft();
    for dir in ["/n", "/n/m", "/n/plain"] {
        draft.dir(dir);
        draft.file(&format!("{dir}/file"), dir.as_bytes());
    }
    draft.nest("/n");
    draft.nest("/n/m");
    stage.publishes("/", &draft.make());
    assert_eq!(stage.published().nested(), ["/n", "/n/m"]);
    stage
}

#[test]
fn a_new_catalog_is_the_receiver_s_own() {
    let stage = Stage::new();
    let mut draft = stage.draft();
    draft
        .dir("/n")
        .entry
        .xattrs
        .insert(b"user.a".to_vec(), b"b".to_vec());
    draft.nest("/n");
    draft.other("/n/pipe", Kind::Fifo);
    let made = draft.make();
    stage.publishes("/", &made);
    let published = stage.published();
    let part = &published.0[&path("/n")];
    assert!(published.find("/n/pipe").is_none(), "entry by entry");
    assert_eq!(part.revision, 1);
    assert_eq!(part.counters.self_.xattr, 1);
    assert!(!made.objects.iter().any(|(name, _)| name.hash == part.hash));
}

#[test]
fn a_changed_catalog_is_exchanged_unread() {
    let stage = nested();
    let mut draft = stage.draft();
    draft.other("/n/pipe", Kind::Fifo);
    for name in ["/n/one", "/n/two"] {
        let row = draft.file(name, b"shared");
        (row.linkcount, row.link_group) = (2, 1);
    }
    draft.row("/n").entry.mtime.secs = MTIME + 5;
    let made = draft.make();
    stage.publishes("/", &made);
    let published = stage.published();
    assert!(
        made.objects
            .iter()
            .any(|(name, _)| name.hash == published.0[&path("/n")].hash)
    );
    assert_eq!(published.row("/n/pipe").entry.kind, Kind::Fifo);
    assert_eq!(published.row("/n/one").linkcount, 2);
    assert_eq!(published.row("/n").entry.mtime.secs, MTIME + 5);

    // below the lease it is the receiver's own again, and links that are there already stop it
    let mut draft = stage.draft();
    draft.file("/n/plain/new", b"");
    draft.row("/n/one").entry.mtime.secs = MTIME + 5;
    let made = draft.make();
    let said = stage.refuses("/n/one", &made);
    let stopped =
        "CatalogMergeTool - Removal of file one with linkcount > 1 is not supported. Aborting";
    assert!(said.contains(stopped), "{said}");
    stage.publishes("/n/plain", &made);
    let published = stage.published();
    assert!(published.find("/n/plain/new").is_some());
    assert_eq!(published.row("/n/one").linkcount, 2);
    assert_eq!(published.0[&path("/n")].revision, 3);
    assert!(
        !made
            .objects
            .iter()
            .any(|(name, _)| name.hash == published.0[&path("/n")].hash)
    );
}

#[test]
fn an_exchange_undoes_what_another_did_in_that_catalog() {
    let stage = nested();
    let mut other = stage.draft();
    other.file("/n/other", b"");
    let mut draft = stage.draft();
    draft.file("/n/ours", b"");
    stage.publishes("/", &other.make());
    stage.publishes("/n", &draft.make());
    let published = stage.published();
    assert!(published.find("/n/ours").is_some() && published.find("/n/other").is_none());
}

#[test]
fn what_is_said_of_its_length() {
    let stage = nested();
    let mut draft = stage.draft();
    draft.file("/n/new", b"");
    draft.claimed_bytes.insert(path("/n"), 0);
    let said = stage.refuses("/", &draft.make());
    assert!(said.contains("nested catalog n not found"), "{said}");
    // only that there is something is looked at
    let mut draft = stage.draft();
    draft.file("/n/new", b"");
    draft.claimed_bytes.insert(path("/n"), 77);
    assert_eq!(stage.publish("/", &draft.make())["status"], "ok");
    let said = stage.sandbox.fails(1, ["check", crate::support::REPO]);
    assert!(said.contains("77"), "{said}");
}

/// One step of a catalog's life: under which lease, what is done, and where catalogs begin after it.
type Turn = (&'static str, fn(&mut Draft), &'static [&'static str]);

#[test]
fn catalogs_come_and_go() {
    let stage = nested();
    let turns: [Turn; 6] = [
        ("/", |draft| draft.unnest("/n"), &["/n/m"]),
        ("/", |draft| draft.nest("/n"), &["/n", "/n/m"]),
        (
            "/",
            |draft| draft.nest("/n/plain"),
            &["/n", "/n/m", "/n/plain"],
        ),
        // with the whole repository leased `/n` would be exchanged, and nothing below it merged
        ("/n/m", |draft| draft.remove("/n/m"), &["/n", "/n/plain"]),
        (
            "/n/plain",
            |draft| {
                draft.remove("/n/plain");
                draft.file("/n/plain", b"a file");
            },
            &["/n"],
        ),
        ("/", |draft| draft.remove("/n"), &[]),
    ];
    for (lease, change, nested) in turns {
        let mut draft = stage.draft();
        change(&mut draft);
        let (made, drafted) = draft.make_and_show();
        stage.publishes(lease, &made);
        super::is_as_drafted(&stage.published(), &drafted);
        assert_eq!(stage.published().nested(), nested);
    }
}

#[test]
fn catalogs_below_the_lease_change_one_by_one() {
    let stage = nested();
    let mut draft = stage.draft();
    draft.dir("/n/plain/deep");
    draft.file("/n/plain/deep/file", b"");
    draft.nest("/n/plain/deep");
    draft.row("/n/m").entry.mtime.secs = MTIME + 9;
    let (made, drafted) = draft.make_and_show();
    stage.publishes("/n/plain", &made);
    assert_eq!(stage.published().nested(), ["/n", "/n/m", "/n/plain/deep"]);
    assert_eq!(stage.published().row("/n/m").entry.mtime.secs, MTIME);
    let mut rest = stage.draft();
    rest.row("/n/m").entry.mtime.secs = MTIME + 9;
    stage.publishes("/n/m", &rest.make());
    super::is_as_drafted(&stage.published(), &drafted);
    let mut draft = stage.draft();
    draft.unnest("/n/plain/deep");
    let (made, drafted) = draft.make_and_show();
    stage.publishes("/n/plain", &made);
    super::is_as_drafted(&stage.published(), &drafted);
}

//! What the official merge does not see, does not carry, or does not survive.

use formats::{Content, Kind};

use crate::double::draft::{Draft, MTIME};
use crate::double::{Stage, crashed};

/// One directory with a file of every sort in it, published.
fn furnished() -> Stage {
    let stage = Stage::new();
    let mut draft = stage.draft();
    draft.dir("/d");
    draft.file("/d/file", b"content");
    draft.chunked("/d/big", &[b"1234", b"5678"]);
    let value = [(b"user.x".to_vec(), b"old".to_vec())];
    draft.file("/d/attributed", b"").entry.xattrs = value.into();
    stage.publishes("/", &draft.make());
    stage
}

/// Changes that no merge sees.
fn change_unseen(draft: &mut Draft) {
    draft.row("/d/file").entry.uid = 1234;
    let xattrs = &mut draft.row("/d/attributed").entry.xattrs;
    xattrs.insert(b"user.x".to_vec(), b"new".to_vec());
    draft.chunked("/d/big", &[b"12", b"345678"]);
    draft.row("/d").entry.gid = 99;
}

#[test]
fn what_is_not_compared_is_lost() {
    let stage = furnished();
    let before = stage.published().rows();
    let mut draft = stage.draft();
    change_unseen(&mut draft);
    stage.publishes("/", &draft.make());
    assert_eq!(stage.published().rows(), before);

    // with another time all of it is seen
    let mut draft = stage.draft();
    change_unseen(&mut draft);
    for path in ["/d", "/d/file", "/d/attributed", "/d/big"] {
        draft.row(path).entry.mtime.secs = MTIME + 1;
    }
    let (made, drafted) = draft.make_and_show();
    stage.publishes("/", &made);
    super::is_as_drafted(&stage.published(), &drafted);
    assert_eq!(stage.published().row("/d").entry.gid, 99);
}

#[test]
fn what_lies_outside_the_lease_is_lost() {
    let stage = furnished();
    let mut draft = stage.draft();
    draft.dir("/d/in");
    draft.dir("/d/inside");
    stage.publishes("/", &draft.make());
    let mut draft = stage.draft();
    draft.row("").entry.mtime.secs = MTIME + 1;
    draft.row("/d").entry.mtime.secs = MTIME + 1;
    draft.row("/d/in").entry.mtime.secs = MTIME + 1;
    draft.file("/d/inside/file", b"");
    draft.file("/d/in/file", b"");
    draft.remove("/d/file");
    let made = draft.make();
    let root = stage.published().row("");
    // of `/d/in/` the directory itself is outside
    stage.publishes("/d/in/", &made);
    let published = stage.published();
    assert!(published.find("/d/in/file").is_some());
    assert_eq!(published.row("/d/in").entry.mtime.secs, MTIME);
    let mut again = stage.draft();
    again.row("/d/in").entry.mtime.secs = MTIME + 1;
    again.row("/d").entry.mtime.secs = MTIME + 1;
    stage.publishes("/d/in", &again.make());
    let published = stage.published();
    assert_eq!(published.row("/d/in").entry.mtime.secs, MTIME + 1);
    assert_eq!(published.row("/d").entry.mtime.secs, MTIME);
    assert!(published.find("/d/file").is_some() && published.find("/d/inside/file").is_none());
    // the root's own row is never compared
    let mut draft = stage.draft();
    draft.row("").entry.uid = 5;
    draft.row("").entry.mtime.secs = MTIME + 1;
    stage.publishes("/", &draft.make());
    assert_eq!(stage.published().row("").entry, root.entry);
}

#[test]
fn special_files_and_what_is_hidden_are_left_out() {
    let stage = furnished();
    let mut draft = stage.draft();
    draft.other("/d/pipe", Kind::Fifo);
    draft.other("/d/socket", Kind::Socket);
    draft.other("/d/null", Kind::CharDevice(0x103));
    draft.file("/d/.hidden", b"").hidden = true;
    draft.remove("/d/file");
    draft.other("/d/file", Kind::Fifo);
    let made = draft.make();
    let before = stage.published().rows();
    stage.publishes("/", &made);
    assert_eq!(stage.published().rows(), before);
}

#[test]
fn hard_links_are_split() {
    let stage = furnished();
    let mut draft = stage.draft();
    for name in ["/d/one", "/d/two"] {
        let row = draft.file(name, b"shared");
        (row.linkcount, row.link_group) = (2, 1);
    }
    stage.publishes("/", &draft.make());
    let published = stage.published();
    for name in ["/d/one", "/d/two"] {
        let row = published.row(name);
        assert_eq!((row.linkcount, row.link_group), (1, 0));
    }
}

/// The receiver puts the file in the directory's place first, and then removes what was below it:
/// each directory there counts the file's links down, from 1.
#[test]
fn a_directory_with_directories_does_not_become_a_file() {
    let stage = furnished();
    let mut draft = stage.draft();
    draft.dir("/d/sub");
    draft.dir("/d/sub/sub");
    stage.publishes("/", &draft.make());
    let mut draft = stage.draft();
    draft.remove("/d/sub");
    draft.file("/d/sub", b"a file");
    assert_eq!(stage.refuses("/", &draft.make()), crashed("commit"));
    // emptied first, it does
    let mut draft = stage.draft();
    draft.remove("/d/sub/sub");
    stage.publishes("/", &draft.make());
    let mut draft = stage.draft();
    draft.remove("/d/sub");
    draft.file("/d/sub", b"a file");
    stage.publishes("/", &draft.make());
}

#[test]
fn an_object_that_was_never_sent_is_published() {
    let stage = furnished();
    let mut draft = stage.draft();
    draft.file("/d/missing", b"nowhere");
    let mut made = draft.make();
    made.objects
        .retain(|(name, _)| name.kind == formats::ObjectKind::Catalog);
    assert_eq!(stage.publish("/", &made)["status"], "ok");
    let said = stage
        .sandbox
        .fails(1, ["check", crate::support::REPO, "--data"]);
    assert!(said.contains("missing"), "{said}");
}

#[test]
fn what_the_receiver_does_not_survive() {
    let stage = furnished();
    // there already, though not in the base
    let mut first = stage.draft();
    first.file("/d/same", b"1");
    let mut second = stage.draft();
    second.file("/d/same", b"2");
    stage.publishes("/", &first.make());
    assert_eq!(stage.refuses("/", &second.make()), crashed("commit"));
    // gone already
    let mut first = stage.draft();
    first.remove("/d/same");
    let mut second = stage.draft();
    second.remove("/d/same");
    stage.publishes("/", &first.make());
    assert_eq!(stage.refuses("/", &second.make()), crashed("commit"));
    // a file without content
    let mut draft = stage.draft();
    if let Kind::Regular(file) = &mut draft.file("/d/null", b"x").entry.kind {
        file.content = Content::Whole(formats::Hash::null());
    }
    assert_eq!(stage.refuses("/", &draft.make()), crashed("commit"));
}

#[test]
fn what_the_receiver_gives_up_on() {
    let stage = furnished();
    let mut draft = stage.draft();
    draft.file("/d/unlinked", b"").linkcount = 0;
    let said = stage.refuses("/", &draft.make());
    assert!(
        said.contains("Entry unlinked in new catalog has linkcount 0"),
        "{said}"
    );

    let mut draft = stage.draft();
    draft.dir("/new");
    draft.file("/new/file", b"");
    let said = stage.refuses("/new/file", &draft.make());
    assert!(
        said.contains("catalog for file '/new/file' cannot be found"),
        "{said}"
    );
    let mut draft = stage.draft();
    draft.dir("/new");
    draft.dir("/new/dir");
    let said = stage.refuses("/new/dir", &draft.make());
    assert!(
        said.contains("catalog for directory '/new/dir' cannot be found"),
        "{said}"
    );

    let mut draft = stage.draft();
    draft.file("/d/new", b"");
    let mut made = draft.make();
    made.objects.clear();
    let said = stage.refuses("/", &made);
    assert!(said.starts_with("runtime error: PANIC: "), "{said}");
    let catalog = format!("{}C from Stratum 0", &made.root.to_string()[2..]);
    assert!(
        said.contains("failed to load") && said.contains(&catalog),
        "{said}"
    );
}

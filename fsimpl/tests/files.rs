//! Files: bytes, attributes, sealing.

use std::sync::Arc;
use std::time::Duration;

use formats::{Hash, Op};
use fsimpl::{
    Caller, Fallocate, FsError, Handle, OpenFlags, Seek, SetAttr, SetTime, Stage, StagePolicy,
    Swept, Time, XattrMode,
};

use crate::support::{Bench, NOBODY, Published, ROOT, dir, file};

fn small() -> Bench {
    Bench::new(few())
}

fn few() -> (Arc<Published>, Hash) {
    Published::new(vec![
        ("/d", (dir(0o755), Vec::new())),
        ("/d/f", file(b"published content")),
        ("/d/g", file(b"other")),
    ])
}

fn contents(bench: &Bench, path: &str) -> Option<formats::Content> {
    let set = bench.changes();
    let change = set
        .changes
        .iter()
        .find(|c| c.path.as_bytes() == path.as_bytes())?;
    match &change.op {
        Op::Put { entry, .. } => Some(entry.regular()?.content.clone()),
        Op::Remove => None,
    }
}

#[test]
fn a_first_write_copies_the_rest() {
    let bench = small();
    let before = bench.find("/d/f").unwrap();
    let reader = bench.open_read("/d/f");
    let writer = bench.open_write("/d/f");
    assert!(
        bench.changes().is_empty(),
        "opening for writing changes nothing"
    );
    bench.fs.write(&ROOT, writer, 3, b"LISH").unwrap();
    assert_eq!(bench.read_handle(reader), b"pubLISHed content");
    let during = bench.find("/d/f").unwrap();
    assert_eq!((during.ino, during.size), (before.ino, 17));
    assert!(during.mtime > before.mtime);
    bench.fs.write(&ROOT, writer, 20, b"end").unwrap();
    assert_eq!(bench.read_handle(reader), b"pubLISHed content\0\0\0end");
    bench.fs.release(writer).unwrap();
    assert_eq!(bench.find("/d/f").unwrap().size, 23);
    bench.fs.release(reader).unwrap();
    assert_eq!(bench.read("/d/f"), b"pubLISHed content\0\0\0end");
}

#[test]
fn metadata_keeps_the_published_content() {
    let bench = small();
    bench.chmod("/d/f", 0o600);
    let changed = bench.changes();
    assert_eq!(changed.changes.len(), 1);
    let Op::Put { entry, .. } = &changed.changes[0].op else {
        panic!();
    };
    let base = changed.changes[0].base.as_ref().unwrap();
    assert_eq!(entry.kind, base.kind);
    assert_eq!(
        (entry.perm, base.perm, entry.mtime),
        (0o600, 0o644, base.mtime)
    );
    assert_eq!(bench.stage().summary().bytes, 0);
    bench.chmod("/d/f", 0o644);
    assert!(bench.changes().is_empty(), "as it was");
}

#[test]
fn truncation() {
    let bench = small();
    bench.truncate("/d/f", 4);
    assert_eq!(bench.read("/d/f"), b"publ");
    bench.truncate("/d/f", 6);
    assert_eq!(bench.read("/d/f"), b"publ\0\0");
    bench.write("/d/g", b"x");
    assert_eq!(bench.read("/d/g"), b"x");
    bench.truncate("/d/g", 20 << 30);
    assert_eq!(bench.find("/d/g").unwrap().size, 20 << 30);
    let huge = SetAttr {
        size: Some(u64::MAX),
        ..SetAttr::default()
    };
    let refused = bench.fs.setattr(&ROOT, bench.ino("/d/g"), &huge);
    assert_eq!(refused.unwrap_err().to_errno(), libc::EFBIG);
    bench.truncate("/d/g", 0);
    assert!(bench.read("/d/g").is_empty());
}

#[test]
fn appenders_share_the_end() {
    let bench = small();
    let flags = OpenFlags {
        write: true,
        append: true,
        ..OpenFlags::default()
    };
    let open = || bench.fs.open(&ROOT, bench.ino("/d/g"), flags).unwrap();
    let (one, two) = (open(), open());
    bench.fs.write(&ROOT, one, 0, b"1").unwrap();
    bench.fs.write(&ROOT, two, 0, b"2").unwrap();
    bench.fs.write(&ROOT, one, 0, b"3").unwrap();
    bench.fs.release(one).unwrap();
    bench.fs.release(two).unwrap();
    assert_eq!(bench.read("/d/g"), b"other123");
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let bench = small();
    let published = bench.open_write("/d/f");
    let staged = bench.create("/d/new").unwrap();
    bench.fs.write(&ROOT, staged, 0, b"staged").unwrap();
    bench.unlink("/d/f").unwrap();
    bench.unlink("/d/new").unwrap();
    bench.fs.write(&ROOT, published, 0, b"PUB").unwrap();
    bench.fs.write(&ROOT, staged, 6, b"!").unwrap();
    assert_eq!(bench.read_handle(published), b"PUBlished content");
    assert_eq!(bench.read_handle(staged), b"staged!");
    // the name is free again, for another inode
    bench.write("/d/new", b"second");
    assert_eq!(bench.read_handle(staged), b"staged!");
    bench.fs.release(published).unwrap();
    bench.fs.release(staged).unwrap();
    assert_eq!(bench.list("/d"), ["g", "new"]);
    bench.wait_sealed();
}

#[test]
fn a_renamed_over_file_lives_while_it_is_open() {
    let bench = small();
    let old = bench.open_read("/d/f");
    bench.write("/d/tmp", b"replacement");
    bench.rename("/d/tmp", "/d/f").unwrap();
    assert_eq!(bench.read_handle(old), b"published content");
    assert_eq!(bench.read("/d/f"), b"replacement");
    bench.fs.release(old).unwrap();
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let bench = small();
    let time = Time {
        secs: -5,
        nanos: 999_999_999,
    };
    let handle = bench.create("/d/new").unwrap();
    bench.fs.write(&ROOT, handle, 0, b"x").unwrap();
    bench.utimes("/d/new", time);
    assert_eq!(bench.find("/d/new").unwrap().mtime, time);
    bench.fs.release(handle).unwrap();
    assert_eq!(bench.find("/d/new").unwrap().mtime, time);
    bench.wait_sealed();
    assert_eq!(bench.find("/d/new").unwrap().mtime, time);
    let far = Time {
        secs: i64::MIN,
        nanos: 0,
    };
    bench.utimes("/d/f", far);
    assert_eq!(bench.find("/d/f").unwrap().mtime, far);
    // a write after that sets it again
    let handle = bench.open_write("/d/new");
    bench.fs.write(&ROOT, handle, 0, b"y").unwrap();
    bench.fs.release(handle).unwrap();
    assert!(bench.find("/d/new").unwrap().mtime > time);
    let set = SetAttr {
        mtime: Some(SetTime::Now),
        ..SetAttr::default()
    };
    bench.fs.setattr(&ROOT, bench.ino("/d/f"), &set).unwrap();
    assert!(bench.find("/d/f").unwrap().mtime.secs > 1_600_000_000);
}

#[test]
fn an_access_time_is_kept_and_never_published() {
    let mut bench = small();
    let at = |secs| Time { secs, nanos: 7 };
    let touch = |bench: &Bench, path: &str, secs| {
        let set = SetAttr {
            atime: Some(SetTime::At(at(secs))),
            ..SetAttr::default()
        };
        bench.fs.setattr(&ROOT, bench.ino(path), &set).unwrap()
    };
    let before = bench.find("/d/f").unwrap();
    assert_eq!(before.atime, before.mtime);
    let after = touch(&bench, "/d/f", 1000);
    assert_eq!((after.atime, after.mtime), (at(1000), before.mtime));
    assert!(after.ctime > before.ctime);
    touch(&bench, "/d", 2000);
    assert!(bench.changes().is_empty(), "nothing to publish");
    // it stays with the file that becomes staged, over a restart
    bench.chmod("/d/f", 0o600);
    bench.write("/d/new", b"new");
    touch(&bench, "/d/new", 3000);
    bench.wait_sealed();
    let changes = bench.changes();
    touch(&bench, "/d/f", 4000);
    assert_eq!(bench.changes().changes, changes.changes);
    bench.reopen();
    assert_eq!(bench.find("/d/f").unwrap().atime, at(4000));
    assert_eq!(bench.find("/d/new").unwrap().atime, at(3000));
    // a write moves the time of modification alone; without one set, both are one
    let handle = bench.open_write("/d/new");
    bench.fs.write(&ROOT, handle, 0, b"N").unwrap();
    assert_eq!(bench.find("/d/new").unwrap().atime, at(3000));
    bench.fs.release(handle).unwrap();
    assert_eq!(bench.find("/d/new").unwrap().atime, at(3000));
    // a commit is no change of the file: whoever knows it sees the times it had
    let before = bench.find("/d/new").unwrap();
    bench.wait_sealed();
    bench.commit("");
    assert_eq!(bench.find("/d/new").unwrap(), before);
    assert!(bench.changes().is_empty());
    let handle = bench.open_write("/d/g");
    bench.fs.write(&ROOT, handle, 0, b"G").unwrap();
    let during = bench.find("/d/g").unwrap();
    assert_eq!(during.atime, during.mtime);
    bench.fs.release(handle).unwrap();
}

#[test]
fn set_id_bits_do_not_survive_others() {
    let bench = small();
    bench.chmod("/d/f", 0o6755);
    let chown = SetAttr {
        uid: Some(1000),
        ..SetAttr::default()
    };
    let f = bench.ino("/d/f");
    assert_eq!(bench.fs.setattr(&ROOT, f, &chown).unwrap().perm, 0o755);
    bench.chmod("/d/f", 0o6755);
    let handle = bench.open_write("/d/f");
    bench.fs.write(&NOBODY, handle, 0, b"x").unwrap();
    bench.fs.release(handle).unwrap();
    assert_eq!(bench.find("/d/f").unwrap().perm, 0o755);
    bench.chmod("/d/f", 0o2745);
    bench.fs.setattr(&ROOT, f, &chown).unwrap();
    assert_eq!(
        bench.find("/d/f").unwrap().perm,
        0o2745,
        "not group-executable"
    );
}

#[test]
fn extended_attributes() {
    let bench = small();
    let f = bench.ino("/d/f");
    let set = |name: &[u8], value: &[u8], mode| bench.fs.setxattr(&ROOT, f, name, value, mode);
    set(b"user.a", b"1", XattrMode::Any).unwrap();
    set(b"security.x", b"\0\xff", XattrMode::Create).unwrap();
    assert_eq!(
        set(b"user.a", b"2", XattrMode::Create)
            .unwrap_err()
            .to_errno(),
        libc::EEXIST
    );
    assert_eq!(
        set(b"user.b", b"2", XattrMode::Replace)
            .unwrap_err()
            .to_errno(),
        libc::ENODATA
    );
    set(b"user.a", b"3", XattrMode::Replace).unwrap();
    assert_eq!(bench.fs.getxattr(f, b"user.a").unwrap(), b"3");
    assert_eq!(
        bench.fs.listxattr(f).unwrap(),
        [b"security.x".to_vec(), b"user.a".to_vec()]
    );
    let big = vec![0; 65_537];
    assert_eq!(
        set(b"user.c", &big, XattrMode::Any).unwrap_err().to_errno(),
        libc::E2BIG
    );
    bench.fs.removexattr(&ROOT, f, b"user.a").unwrap();
    bench.fs.removexattr(&ROOT, f, b"security.x").unwrap();
    assert!(matches!(
        bench.fs.removexattr(&ROOT, f, b"user.a"),
        Err(FsError::NoAttribute)
    ));
    assert!(bench.changes().is_empty());
    // an access control list that says no more than a mode is a mode
    let acl = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[4, 0, 1, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    set(b"system.posix_acl_access", &acl, XattrMode::Any).unwrap();
    assert_eq!(bench.find("/d/f").unwrap().perm, 0o710);
    assert!(bench.fs.listxattr(f).unwrap().is_empty());
}

#[test]
fn ranges() {
    let bench = Bench::on_disk(few());
    let handle = bench.create("/d/new").unwrap();
    let fs = &bench.fs;
    fs.write(&ROOT, handle, 0, &[7; 256 << 10]).unwrap();
    fs.fallocate(&ROOT, handle, 64 << 10, 64 << 10, Fallocate::PunchHole)
        .unwrap();
    assert_eq!(fs.lseek(handle, 0, Seek::Hole).unwrap(), 64 << 10);
    assert_eq!(fs.lseek(handle, 64 << 10, Seek::Data).unwrap(), 128 << 10);
    let bytes = bench.read_handle(handle);
    assert_eq!((bytes[65_535], bytes[65_536], bytes[131_072]), (7, 0, 7));
    fs.fallocate(&ROOT, handle, 0, 512 << 10, Fallocate::KeepSize)
        .unwrap();
    assert_eq!(bench.find("/d/new").unwrap().size, 256 << 10);
    fs.fallocate(&ROOT, handle, 0, 512 << 10, Fallocate::Allocate)
        .unwrap();
    assert_eq!(bench.find("/d/new").unwrap().size, 512 << 10);
    let zero = Fallocate::ZeroRange { keep_size: true };
    fs.fallocate(&ROOT, handle, 0, 4096, zero).unwrap();
    assert_eq!(bench.read_handle(handle)[..4096], [0; 4096]);
    assert!(matches!(
        fs.lseek(handle, 512 << 10, Seek::Data),
        Err(FsError::NoSeekTarget)
    ));
    fs.release(handle).unwrap();
    // published content is data to its end
    let handle = bench.open_read("/d/f");
    assert_eq!(fs.lseek(handle, 5, Seek::Data).unwrap(), 5);
    assert_eq!(fs.lseek(handle, 5, Seek::Hole).unwrap(), 17);
    fs.release(handle).unwrap();
}

fn copy(bench: &Bench, from: &str, to: &str) -> Handle {
    let from = bench.open_read(from);
    let to = bench.create(to).unwrap();
    let mut done = 0;
    loop {
        let n = bench
            .fs
            .copy_file_range(&ROOT, (from, done), (to, done), 1 << 40)
            .unwrap();
        if n == 0 {
            break;
        }
        done += n;
    }
    bench.fs.release(from).unwrap();
    to
}

#[test]
fn a_whole_copy_is_a_reference() {
    let bench = small();
    let handle = copy(&bench, "/d/f", "/d/copy");
    assert_eq!(bench.read_handle(handle), b"published content");
    bench.fs.release(handle).unwrap();
    assert_eq!(bench.stage().summary().bytes, 0, "no byte was staged");
    assert_eq!(bench.read("/d/copy"), b"published content");
    // the copy is a file of its own
    let handle = copy(&bench, "/d/copy", "/d/third");
    bench.fs.write(&ROOT, handle, 0, b"PUB").unwrap();
    bench.fs.release(handle).unwrap();
    assert_eq!(bench.read("/d/third"), b"PUBlished content");
    assert_eq!(bench.read("/d/copy"), b"published content");
    // of what is staged and not yet sealed, bytes are copied
    bench.write("/d/staged", b"staged");
    let handle = copy(&bench, "/d/staged", "/d/fourth");
    bench.fs.release(handle).unwrap();
    bench.wait_sealed();
    let handle = copy(&bench, "/d/staged", "/d/fifth");
    bench.fs.release(handle).unwrap();
    bench.unlink("/d/staged").unwrap();
    assert_eq!(bench.read("/d/fourth"), b"staged");
    assert_eq!(bench.read("/d/fifth"), b"staged");
    assert_eq!(contents(&bench, "/d/fourth"), contents(&bench, "/d/fifth"));
}

#[test]
fn files_are_sealed_once_they_rest() {
    let bench = Bench::with(
        Published::new(vec![("/d", (dir(0o755), Vec::new()))]),
        Duration::from_millis(200),
        false,
    );
    bench.write("/d/a", b"same bytes");
    bench.write("/d/b", b"same bytes");
    let null = formats::Hash::null();
    assert_eq!(
        contents(&bench, "/d/a"),
        Some(formats::Content::Whole(null))
    );
    let summary = bench.stage().summary();
    assert_eq!((summary.unsealed_files, summary.unsealed_bytes), (2, 20));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        bench.stage().summary().unsealed_files,
        2,
        "not before its time"
    );
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while bench.stage().summary().unsealed_files > 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    let (_, stored) = file(b"same bytes");
    let hash = formats::Hash::of(formats::Algorithm::Sha1, &stored);
    assert_eq!(
        contents(&bench, "/d/a"),
        Some(formats::Content::Whole(hash))
    );
    assert_eq!(contents(&bench, "/d/a"), contents(&bench, "/d/b"));
    // written again, sealed again
    bench.write("/d/a", b"other bytes");
    bench.wait_sealed();
    assert_ne!(contents(&bench, "/d/a"), contents(&bench, "/d/b"));
    assert_eq!(bench.read("/d/a"), b"other bytes");
    // an empty file has content, too
    let handle = bench.create("/d/empty").unwrap();
    bench.fs.release(handle).unwrap();
    bench.wait_sealed();
    assert!(contents(&bench, "/d/empty").is_some());
    assert_ne!(
        contents(&bench, "/d/empty"),
        Some(formats::Content::Whole(null))
    );
}

#[test]
fn a_file_that_grows_while_it_is_sealed_is_sealed_whole() {
    let bench = small();
    for round in 0..200u32 {
        let bytes = vec![u8::try_from(round % 251).unwrap(); 3000];
        bench.write("/d/grows", &bytes);
        if round % 3 == 0 {
            let handle = bench.open_write("/d/grows");
            bench.fs.write(&ROOT, handle, 3000, b"tail").unwrap();
            bench.fs.release(handle).unwrap();
        }
    }
    bench.wait_sealed();
    let root = bench.commit("");
    assert_eq!(bench.published.read(&root, "/d/grows"), vec![199; 3000]);
}

#[test]
fn a_quota_stops_writers_only() {
    let bench = small().with_quota(10_000);
    let handle = bench.create("/d/new").unwrap();
    bench.fs.write(&ROOT, handle, 0, &[1; 9000]).unwrap();
    let refused = bench.fs.write(&ROOT, handle, 9000, &[1; 2000]);
    assert_eq!(refused.unwrap_err().to_errno(), libc::EDQUOT);
    bench.fs.release(handle).unwrap();
    assert_eq!(bench.find("/d/new").unwrap().size, 9000);
    let ino = bench.ino("/d/new");
    let free = |b: &Bench| b.fs.statfs(b.root).unwrap().available;
    assert_eq!(free(&bench), 0);
    bench.unlink("/d/new").unwrap();
    bench.fs.forget(ino, 100);
    assert!(free(&bench) > 0);
    bench.write("/d/again", &[2; 5000]);
}

#[test]
fn a_quota_may_change_while_files_are_open() {
    let bench = small().with_quota(1000);
    let handle = bench.create("/d/new").unwrap();
    let refused = bench.fs.write(&ROOT, handle, 0, &[1; 2000]);
    assert_eq!(refused.unwrap_err().to_errno(), libc::EDQUOT);
    bench.stage().set_policy(StagePolicy::default());
    bench.fs.write(&ROOT, handle, 0, &[1; 2000]).unwrap();
    bench.fs.release(handle).unwrap();
}

#[test]
fn a_sweep_removes_what_a_look_finds() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut bench = small();
    bench.write("/d/kept", &[1; 5000]);
    bench.write("/d/gone", &[2; 5000]);
    bench.wait_sealed();
    bench.unlink("/d/gone").unwrap();
    let found = bench.stage().sweep(true, PATIENCE).unwrap();
    assert_eq!(found.objects, 1);
    assert_eq!(bench.stage().sweep(false, PATIENCE), Some(found));
    let nothing = Some(Swept::default());
    assert_eq!(bench.stage().sweep(true, PATIENCE), nothing);
    assert_eq!(bench.read("/d/kept"), [1; 5000]);
    // what a snapshot needs is not known to be needed
    let frozen = bench.freeze("").unwrap();
    assert_eq!(bench.stage().sweep(true, PATIENCE), None);
    bench.stage().thaw(frozen.id).unwrap();
    assert_eq!(bench.stage().sweep(true, PATIENCE), nothing);
    // whether anything is lost with a stage that nobody has open
    let (dir, space) = (
        bench.stage().dir().to_owned(),
        bench.stage().space().clone(),
    );
    bench.close();
    assert!(Stage::holds_changes(&dir, &space).unwrap());
    bench.open();
    bench.commit("");
    bench.close();
    assert!(!Stage::holds_changes(&dir, &space).unwrap());
    assert!(!Stage::holds_changes(&dir.join("elsewhere"), &space).unwrap());
}

#[test]
fn bad_handles() {
    let bench = small();
    let reader = bench.open_read("/d/f");
    let nobody = Caller::default();
    assert!(matches!(
        bench.fs.write(&nobody, reader, 0, b"x"),
        Err(FsError::BadHandle)
    ));
    bench.fs.release(reader).unwrap();
    let mut buffer = [0; 4];
    assert!(matches!(
        bench.fs.read(reader, 0, &mut buffer),
        Err(FsError::BadHandle)
    ));
    let dir = bench.ino("/d");
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    assert!(matches!(
        bench.fs.open(&ROOT, dir, flags),
        Err(FsError::IsDirectory)
    ));
}

/// Files are counted as a quota counts inodes: new and changed ones, not what is published.
#[test]
fn a_quota_of_files_stops_new_ones_only() {
    let mut bench = small().with_file_quota(3);
    for name in ["/1", "/2"] {
        bench.write(name, b"x");
    }
    bench.mkdir("/n").unwrap();
    for made in [
        bench.create("/3").map(|_| ()),
        bench.mkdir("/n/e").map(|_| ()),
        bench.symlink("1", "/s").map(|_| ()),
    ] {
        assert!(matches!(made, Err(FsError::Quota)), "{made:?}");
    }
    let left = bench.fs.statfs(bench.root).unwrap();
    assert_eq!((left.files, left.files_free), (3, 0));
    // what is there can be written, named and removed
    bench.write("/1", b"rewritten");
    bench.link("/1", "/n/same").unwrap();
    bench.rename("/2", "/renamed").unwrap();
    bench.unlink("/renamed").unwrap();
    bench.write("/3", b"x");
    assert!(matches!(bench.create("/4"), Err(FsError::Quota)));
    // after a restart it is the same; what is published counts no more
    bench.reopen();
    assert!(matches!(bench.create("/4"), Err(FsError::Quota)));
    bench.wait_sealed();
    bench.commit("");
    for name in ["/4", "/5", "/6"] {
        bench.write(name, b"x");
    }
    assert!(matches!(bench.create("/7"), Err(FsError::Quota)));
}

//! Bad input and faults, met through the program: a clear error that says what to do, a fitting
//! exit code, nothing lost.

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::support::small::Small;
use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless, write};

#[test]
fn names_of_any_bytes_and_any_length() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    let mut names: Vec<Vec<u8>> = vec![vec![b'n'; 255], b"\xff\xfe".to_vec(), b" ".to_vec()];
    names.push(b"new\nline \\ \"quote\" $(VAR) *?[x]".to_vec());
    names.push((1..=255).filter(|b| *b != b'/').collect::<Vec<u8>>()[..254].to_vec());
    names.push(b".wh.not-a-whiteout".to_vec());
    names.push("ümläut-日本".as_bytes().to_vec());
    for name in &names {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let long = fs::write(root.join("x".repeat(256)), "").unwrap_err();
    assert_eq!(long.kind(), std::io::ErrorKind::InvalidFilename);

    // a path at PATH_MAX: made from within, for no call takes it whole
    let mut deep = PathBuf::new();
    while deep.as_os_str().len() + 201 < 4000 {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("file"), "deep").unwrap();

    sandbox.ok(["commit", REPO]);
    sandbox.check();
    sandbox.unmount();
    sandbox.mount();
    for name in &names {
        assert_eq!(&fs::read(root.join(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(fs::read(root.join(&deep).join("file")).unwrap(), b"deep");
}

#[test]
fn a_large_sparse_file() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let path = sandbox.root().join("sparse");
    let file = fs::File::create(&path).unwrap();
    let size = 20_u64 << 30;
    file.set_len(size).unwrap();
    file.write_all_at(b"in the middle", size / 2).unwrap();
    drop(file);
    let outcome = sandbox.json(["commit", REPO]);
    assert_eq!(outcome["bytes_raw"].as_u64().unwrap(), size);
    assert!(
        outcome["bytes_stored"].as_u64().unwrap() < 1 << 20,
        "{outcome}"
    );
    let mut read = [0; 13];
    fs::File::open(&path)
        .unwrap()
        .read_exact_at(&mut read, size / 2)
        .unwrap();
    assert_eq!(&read, b"in the middle");
    sandbox.check();
}

#[test]
fn two_writers_and_a_file_that_grows_while_it_is_sealed() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let path = sandbox.root().join("file");
    let mut one = fs::File::create(&path).unwrap();
    let mut two = fs::OpenOptions::new().write(true).open(&path).unwrap();
    one.write_all(&[b'1'; 100_000]).unwrap();
    two.seek(SeekFrom::Start(100_000)).unwrap();
    two.write_all(&[b'2'; 100_000]).unwrap();
    drop(one);
    drop(two);
    // appended to again and again, each time while the former state may be being sealed
    let mut expected = [[b'1'; 100_000], [b'2'; 100_000]].concat();
    for i in 0..50_u8 {
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[i; 1000]).unwrap();
        expected.extend([i; 1000]);
    }
    sandbox.ok(["commit", REPO]);
    assert!(fs::read(&path).unwrap() == expected);
    sandbox.check();
}

#[test]
fn rename_over_an_open_file() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    write(&root.join("old"), b"old content");
    write(&root.join("new"), b"new content");
    let open = fs::File::open(root.join("old")).unwrap();
    fs::rename(root.join("new"), root.join("old")).unwrap();
    let mut read = [0; 11];
    open.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"old content", "the open file keeps what it opened");
    assert_eq!(fs::read(root.join("old")).unwrap(), b"new content");
    assert!(!root.join("new").exists());
}

#[test]
fn an_expired_whitelist_stops_a_commit_and_resign_helps() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("file"), b"x");
    let days = sandbox.json(["status", REPO])["repositories"][0]["whitelist_days"].clone();
    assert!(
        days.as_f64().is_some_and(|d| d > 28.0 && d < 31.0),
        "{days}"
    );
    sandbox.expire_whitelist();
    let message = sandbox.fails(1, ["commit", REPO]);
    assert!(
        message.contains("whitelist") && message.contains("resign"),
        "{message}"
    );
    assert_eq!(
        fs::read(sandbox.root().join("file")).unwrap(),
        b"x",
        "the stage is intact"
    );
    sandbox.ok(["resign", REPO]);
    sandbox.ok(["commit", REPO]);
    sandbox.check();
}

#[test]
fn mount_points_and_state_that_cannot_be_used() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let mount = |at: &Path| sandbox.fails(2, ["mount".as_ref(), at.as_os_str()]);
    let missing = sandbox.dir.path().join("missing");
    assert!(mount(&missing).contains("does not exist"));
    let full = sandbox.dir.path().join("full");
    write(&full.join("file"), b"");
    assert!(mount(&full).contains("not empty"));
    assert!(mount(&full.join("file")).contains("not a directory"));
    let busy = sandbox.fails(1, ["mount", "/proc"]);
    assert!(busy.contains("already a mount point"), "{busy}");

    // a state directory of a newer format is left alone
    let format = sandbox.state().join("format");
    let before = fs::read_to_string(&format).unwrap();
    fs::write(&format, "999\n").unwrap();
    let message = sandbox.fails(1, ["status"]);
    assert!(
        message.contains("999") && message.contains("newer"),
        "{message}"
    );
    fs::write(&format, before).unwrap();
    sandbox.ok(["status"]);

    let nowhere = Sandbox::new();
    fs::write(nowhere.state(), "a file").unwrap();
    let message = nowhere.fails(1, ["mkfs", REPO]);
    assert!(message.contains("state"), "{message}");
}

/// `server.conf` is read afresh by each commit.
#[test]
fn a_parameter_that_makes_no_sense() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let conf = sandbox
        .state()
        .join(format!("repositories/{REPO}/server.conf"));
    let whole = fs::read_to_string(&conf).unwrap();
    write(&sandbox.root().join("file"), b"x");
    for (line, expected) in [
        ("CVMFS_AUTO_TAG_TIMESPAN=\"3 moons ago\"", "an age such as"),
        ("CVMFS_AUTO_TAG_TIMESPAN=\"3 weeks\"", "an age such as"),
        ("CVMFS_AVG_CHUNK_SIZE=8M", "a number"),
        ("CVMFS_HASH_ALGORITHM=md5", "md5"),
    ] {
        fs::write(&conf, format!("{whole}{line}\n")).unwrap();
        let message = sandbox.fails(1, ["commit", REPO]);
        let key = line.split('=').next().unwrap();
        assert!(
            message.contains(key) && message.contains(expected),
            "{line}: {message}"
        );
    }
    fs::write(
        &conf,
        format!("{whole}CVMFS_AUTO_TAG_TIMESPAN=\"last month\"\n"),
    )
    .unwrap();
    assert_eq!(sandbox.json(["commit", REPO])["published"], true);
}

#[test]
fn a_mount_point_of_another_daemon() {
    let Some(first) = Sandbox::mounted() else {
        return;
    };
    let second = Sandbox::new();
    second.ok(["mkfs", REPO]);
    let message = second.fails(1, ["mount".as_ref(), first.mountpoint().as_os_str()]);
    assert!(message.contains("already mounted on"), "{message}");
    write(&first.root().join("file"), b"x");
    first.ok(["commit", REPO]);
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    if skip_unless(can_mount() && is_root(), "root and /dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    let small = Small::tmpfs(&sandbox.state(), 256);
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    write(&sandbox.root().join("staged"), b"staged");
    sandbox.unmount();
    small.read_only(true);
    for args in [
        vec!["mount".into(), sandbox.mountpoint().into_os_string()],
        vec!["mkfs".into(), "b.example.org".into()],
        vec!["commit".into(), REPO.into()],
        vec!["abort".into(), REPO.into()],
        vec!["resign".into(), REPO.into()],
    ] {
        let message = sandbox.fails(1, &args);
        let state = sandbox.state().display().to_string();
        assert!(
            message.contains(&state) && message.contains("Read-only") && message.contains("hint:"),
            "{args:?}: {message}"
        );
    }
    small.read_only(false);
    sandbox.mount();
    assert_eq!(fs::read(sandbox.root().join("staged")).unwrap(), b"staged");
    sandbox.unmount();
    drop(small);
}

#[test]
fn verbs_that_need_a_daemon_or_do_not() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    for args in [
        vec!["status"],
        vec!["diff", REPO],
        vec!["abort", REPO],
        vec!["tag", "list", REPO],
    ] {
        sandbox.ok(args);
    }
    sandbox.ok(["check", REPO, "--data"]);
    sandbox.fails(1, ["mkfs", REPO]);
    sandbox.fails(2, ["status", "unknown.example.org"]);
    sandbox.fails(2, ["no-such-verb"]);
    // nothing is mounted: nothing to do
    sandbox.ok(["unmount"]);
    let output = sandbox.command(["rmfs", REPO, "--force"]).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!sandbox.storage().exists());
}

#[test]
fn an_open_file_is_waited_for_skipped_or_refused() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("closed"), b"closed");
    let mut open = fs::File::create(sandbox.root().join("open")).unwrap();
    open.write_all(b"half").unwrap();
    let message = sandbox.fails(5, ["commit", REPO, "--open-files", "fail"]);
    assert!(message.contains("open"), "{message}");
    assert!(
        message.contains(&std::process::id().to_string()),
        "says which process: {message}"
    );
    sandbox.ok(["commit", REPO, "--open-files", "skip"]);
    let diff = sandbox.ok(["diff", REPO]);
    assert!(diff.contains("open") && !diff.contains("closed"), "{diff}");
    open.write_all(b" whole").unwrap();
    drop(open);
    sandbox.ok(["commit", REPO]);
    assert_eq!(
        fs::read(sandbox.root().join("open")).unwrap(),
        b"half whole"
    );
    assert_eq!(
        fs::metadata(sandbox.root().join("open")).unwrap().size(),
        10
    );
    sandbox.check();
}

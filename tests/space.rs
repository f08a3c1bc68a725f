//! Full disks and limits, met through the program: writers get an errno, nobody else is stopped,
//! `status` says what is wrong and what to do, and nothing is lost.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::small::Small;
use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless, write};

const MIB: usize = 1 << 20;

/// Compresses well, and each file is another.
fn text(of: usize, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 64);
    let mut line = 0;
    while text.len() < bytes {
        writeln!(
            text,
            "file {of}, line {line}, and what else there is to say"
        )
        .unwrap();
        line += 1;
    }
    text.truncate(bytes);
    text
}

/// Does not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    let mut random = fs::File::open("/dev/urandom").unwrap();
    random.read_exact(&mut noise).unwrap();
    noise
}

fn numbered(sandbox: &Sandbox, number: usize) -> PathBuf {
    sandbox.root().join(format!("d{}/f{number}", number % 7))
}

/// What the raw bytes of staged files take.
fn raw_bytes(sandbox: &Sandbox) -> u64 {
    let backing = sandbox.state().join("stage").join(REPO).join("backing");
    let files = walkdir::WalkDir::new(backing).into_iter().flatten();
    let sizes = files.filter_map(|entry| entry.metadata().ok().filter(fs::Metadata::is_file));
    sizes.map(|of| of.len()).sum()
}

/// Waits for what the daemon does in its own time.
#[track_caller]
fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_full<T: std::fmt::Debug>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::StorageFull)
}

/// The sentences of a repository's `errors` or `warnings`.
fn said(sandbox: &Sandbox, list: &str) -> String {
    let status = sandbox.json(["status", REPO]);
    status["repositories"][0][list].to_string()
}

#[test]
fn more_than_fits_raw_can_be_staged() {
    if skip_unless(can_mount() && is_root(), "root and /dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    let small = Small::tmpfs(&sandbox.state(), 96);
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let files = 180;
    for number in 0..files {
        write(&numbered(&sandbox, number), &text(number, MIB));
    }
    let all_equal = |sandbox: &Sandbox| {
        for number in 0..files {
            let found = fs::read(numbered(sandbox, number)).unwrap();
            assert!(found == text(number, MIB), "{number}");
        }
    };
    all_equal(&sandbox);
    // killed, started again, and changed in the middle
    sandbox.kill();
    sandbox.mount();
    all_equal(&sandbox);
    let mut longer = fs::OpenOptions::new()
        .append(true)
        .open(numbered(&sandbox, 0))
        .unwrap();
    longer.write_all(b"one more line\n").unwrap();
    drop(longer);
    let expected = [text(0, MIB), b"one more line\n".to_vec()].concat();
    assert!(fs::read(numbered(&sandbox, 0)).unwrap() == expected);
    fs::write(numbered(&sandbox, 0), text(0, MIB)).unwrap();
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    all_equal(&sandbox);
    sandbox.kill();
    drop(small);
}

/// A configuration with a small limit on raw bytes.
fn limited(sandbox: &Sandbox) -> String {
    let config = sandbox.dir.path().join("config.toml");
    fs::write(&config, "[stage]\nbacking_max = \"4MiB\"\n").unwrap();
    config.to_str().unwrap().to_owned()
}

#[test]
fn raw_bytes_beyond_the_configured_limit_are_dropped() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let config = limited(&sandbox);
    sandbox.mount_with(&[("PREPUB_CONFIG", &config)]);
    for number in 0..40 {
        write(&numbered(&sandbox, number), &text(number, MIB));
    }
    sandbox.ok(["status", "--wait"]);
    wait_for("dropping", || raw_bytes(&sandbox) <= 4 << 20);
    let staged = sandbox.json(["status", REPO])["repositories"][0]["staged"].clone();
    assert_eq!(staged["bytes"], 40 << 20);
    for number in 0..40 {
        assert!(fs::read(numbered(&sandbox, number)).unwrap() == text(number, MIB));
    }
    sandbox.ok(["commit", REPO]);
    sandbox.check();
}

/// Writes a file that may meet the end of the daemon.
fn try_write(sandbox: &Sandbox, number: usize) -> std::io::Result<()> {
    let path = numbered(sandbox, number);
    fs::create_dir_all(path.parent().unwrap())?;
    fs::write(path, text(number, MIB))
}

#[test]
fn killed_while_raw_bytes_are_dropped() {
    if skip_unless(can_mount(), "/dev/fuse")
        || skip_unless(cfg!(feature = "failpoints"), "the feature failpoints")
    {
        return;
    }
    for step in [
        "fsimpl::drop_synced",
        "fsimpl::drop_recorded",
        "fsimpl::drop_journalled",
    ] {
        let mut sandbox = Sandbox::new();
        sandbox.ok(["mkfs", REPO]);
        let config = limited(&sandbox);
        let fault = format!("{step}=return(kill)");
        sandbox.mount_with(&[("PREPUB_CONFIG", &config), ("FAILPOINTS", &fault)]);
        // it may be gone before the last of them
        let written = (0..8).take_while(|number| try_write(&sandbox, *number).is_ok());
        let written: Vec<usize> = written.collect();
        assert!(!sandbox.wait_for_exit().success(), "{step}");
        sandbox.mount_with(&[("PREPUB_CONFIG", &config)]);
        let all_equal = |sandbox: &Sandbox| {
            for number in &written {
                let found = fs::read(numbered(sandbox, *number)).unwrap();
                assert!(found == text(*number, MIB), "{step}: {number}");
            }
        };
        all_equal(&sandbox);
        sandbox.ok(["status", "--wait"]);
        wait_for("dropping", || raw_bytes(&sandbox) <= 4 << 20);
        all_equal(&sandbox);
        sandbox.ok(["commit", REPO]);
        sandbox.check();
    }
}

#[test]
fn a_disk_that_writers_fill_is_enospc_to_them() {
    if skip_unless(can_mount() && is_root(), "root and /dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    let small = Small::tmpfs(&sandbox.state(), 96);
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    write(&sandbox.root().join("before"), b"before");
    let mut written = Vec::new();
    let error = loop {
        let path = sandbox.root().join(format!("fill{}", written.len()));
        let block = noise(MIB);
        match fs::write(&path, &block) {
            Ok(()) => written.push((path, block)),
            Err(error) => break error,
        }
        assert!(written.len() < 200, "it never got full");
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(fs::read(sandbox.root().join("before")).unwrap(), b"before");
    for (path, block) in &written {
        assert!(fs::read(path).unwrap() == *block);
    }
    // room comes back by removing, without anybody's help
    for (path, _) in &written {
        fs::remove_file(path).unwrap();
    }
    let _ = fs::remove_file(sandbox.root().join(format!("fill{}", written.len())));
    wait_for("room", || {
        fs::write(sandbox.root().join("after"), b"after").is_ok()
    });
    small.resize(256);
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    sandbox.kill();
    drop(small);
}

#[test]
fn a_disk_that_others_fill_stops_only_writers() {
    if skip_unless(can_mount() && is_root(), "root and /dev/fuse") {
        return;
    }
    let sandbox = Sandbox::new();
    let small = Small::tmpfs(&sandbox.state(), 96);
    others_fill(sandbox, small);
    let sandbox = Sandbox::new();
    match Small::ext4(&sandbox.state(), 128) {
        Some(small) => others_fill(sandbox, small),
        None => eprintln!("SKIPPED on ext4: needs mkfs.ext4 and loop devices"),
    }
}

fn others_fill(mut sandbox: Sandbox, small: Small) {
    let reserve = sandbox.state().join("stage/.reserve");
    sandbox.ok(["mkfs", REPO]);
    // what could be given back is given back before: the reserve alone must do
    let config = limited(&sandbox);
    sandbox.mount_with(&[("PREPUB_CONFIG", &config)]);
    let held = || fs::metadata(&reserve).map_or(0, |of| of.len());
    let whole = held();
    assert!(whole > 0);
    let root = sandbox.root();
    let large = text(0, 6 * MIB);
    write(&root.join("kept/large"), &large);
    for number in 0..300 {
        write(&root.join(format!("many/{number}")), b"");
    }
    write(&root.join("dropped/file"), b"aborted later");
    sandbox.ok(["status", "--wait"]);
    wait_for("dropping", || raw_bytes(&sandbox) < 4 << 20);
    let open = fs::File::create(root.join("open")).unwrap();

    small.fill();
    wait_for("refusal", || is_full((&open).write(b"x")));
    assert!(is_full(fs::write(root.join("new"), "x")));
    assert!(is_full(fs::create_dir(root.join("dir"))));
    assert!(fs::read(root.join("kept/large")).unwrap() == large);
    // each of these is recorded, and none may find the journal full
    for number in 0..300 {
        fs::remove_file(root.join(format!("many/{number}"))).unwrap();
    }
    sandbox.ok(["abort", &format!("{REPO}/dropped")]);
    wait_for("the abort to show", || !root.join("dropped").exists());
    assert!(held() < whole, "it was needed");
    let errors = said(&sandbox, "errors");
    assert!(
        errors.contains("no_space") && errors.contains("ENOSPC"),
        "{errors}"
    );
    assert!(errors.contains("free some space"), "{errors}");

    // not a page is left, the reserve's included
    small.fill();
    drop(open);
    assert!(fs::read(root.join("kept/large")).unwrap() == large);
    let refused = sandbox.fails(1, ["commit", REPO]);
    assert!(
        refused.to_lowercase().contains("no space left"),
        "{refused}"
    );
    assert!(refused.contains("make room"), "{refused}");
    // started again with not a page left
    sandbox.kill();
    small.fill();
    sandbox.mount();
    assert!(fs::read(root.join("kept/large")).unwrap() == large);
    assert!(is_full(fs::write(root.join("new"), "x")));
    small.empty();
    let mut left: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["kept", "many", "open"]);
    wait_for("the reserve", || held() == whole);
    wait_for("all is well", || said(&sandbox, "errors") == "[]");
    write(&root.join("new"), b"there is room again");
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    sandbox.kill();
    drop(small);
}

/// The same without root: the disk is only said to be full.
#[test]
fn a_full_disk_is_told_and_stops_no_commit() {
    if skip_unless(can_mount(), "/dev/fuse")
        || skip_unless(cfg!(feature = "failpoints"), "the feature failpoints")
    {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    for number in 0..4 {
        write(&numbered(&sandbox, number), &text(number, MIB));
    }
    sandbox.unmount();
    sandbox.mount_with(&[("FAILPOINTS", "fsimpl::disk_full=return(1048576)")]);
    assert!(is_full(fs::write(sandbox.root().join("new"), "x")));
    assert!(is_full(fs::create_dir(sandbox.root().join("dir"))));
    sandbox.ok(["status", "--wait"]);
    wait_for("dropping", || raw_bytes(&sandbox) == 0);
    for number in 0..4 {
        assert!(fs::read(numbered(&sandbox, number)).unwrap() == text(number, MIB));
    }
    fs::remove_file(numbered(&sandbox, 0)).unwrap();
    let errors = said(&sandbox, "errors");
    assert!(
        errors.contains("1 MiB are left") && errors.contains("ENOSPC"),
        "{errors}"
    );
    let shown = sandbox.ok(["status"]);
    assert!(shown.contains("errors:\n    1 MiB are left"), "{shown}");
    sandbox.ok(["commit", REPO]);
    sandbox.check();
}

#[test]
fn a_full_storage_refuses_the_commit_and_says_what_it_needs() {
    if skip_unless(can_mount() && is_root(), "root and /dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    let storage = sandbox.dir.path().join("storage");
    let small = Small::tmpfs(&storage, 8);
    sandbox.ok([
        "mkfs".as_ref(),
        REPO.as_ref(),
        "--storage".as_ref(),
        storage.as_os_str(),
    ]);
    sandbox.mount();
    let large = noise(16 * MIB);
    write(&sandbox.root().join("large"), &large);
    let message = sandbox.fails(1, ["commit", REPO]);
    // a little more than the bytes themselves, in blocks
    assert!(
        message.contains("need 168") || message.contains("need 167"),
        "{message}"
    );
    assert!(message.contains("make room"), "{message}");
    let used = rustix::fs::statvfs(&storage).unwrap();
    assert!(
        used.f_bavail * used.f_frsize > 6 << 20,
        "nothing was copied"
    );
    assert!(fs::read(sandbox.root().join("large")).unwrap() == large);

    // full to the last page: not even the catalogs fit
    sandbox.ok(["abort", REPO]);
    write(&sandbox.root().join("tiny"), b"tiny");
    small.fill();
    let message = sandbox.fails(1, ["commit", REPO]);
    assert!(message.contains("left in the state directory"), "{message}");
    assert_eq!(fs::read(sandbox.root().join("tiny")).unwrap(), b"tiny");
    small.empty();
    small.resize(64);
    write(&sandbox.root().join("large"), &large);
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    sandbox.kill();
    drop(small);
}

/// Adds lines to the repository's `server.conf`.
fn configure(sandbox: &Sandbox, lines: &str) {
    let conf = sandbox
        .state()
        .join("repositories")
        .join(REPO)
        .join("server.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(conf, format!("{text}\n{lines}")).unwrap();
}

#[test]
fn limits_on_files_are_seen_at_the_write() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    configure(&sandbox, "CVMFS_FILE_MBYTE_LIMIT=2\n");
    let path = sandbox.root().join("large");
    let mut large = fs::File::create(&path).unwrap();
    large.write_all(&noise(2 * MIB)).unwrap();
    assert_eq!(said(&sandbox, "warnings"), "[]");
    large.write_all(b"and more").unwrap();
    drop(large);
    let warnings = said(&sandbox, "warnings");
    assert!(
        warnings.contains("/large has 3 MiB; the limit is 2 MiB"),
        "{warnings}"
    );
    assert_eq!(said(&sandbox, "errors"), "[]");
    assert_eq!(sandbox.log().matches("the limit is 2 MiB").count(), 1);
    let shown = sandbox.ok(["status"]);
    assert!(shown.contains("warnings:\n    /large has 3 MiB"), "{shown}");

    configure(&sandbox, "CVMFS_ENFORCE_LIMITS=true\n");
    let mut other = fs::File::create(sandbox.root().join("other")).unwrap();
    other.write_all(&noise(2 * MIB)).unwrap();
    let refused = other.write_all(b"x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
    drop(other);
    let errors = said(&sandbox, "errors");
    assert!(
        errors.contains("/large has 3 MiB") && errors.contains("refused"),
        "{errors}"
    );
    assert!(!errors.contains("/other"), "{errors}");
    let message = sandbox.fails(1, ["commit", REPO]);
    assert!(
        message.contains("/large has 3 MiB; the limit is 2 MiB"),
        "{message}"
    );
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    assert_eq!(said(&sandbox, "errors"), "[]");
    sandbox.ok(["commit", REPO]);
    sandbox.check();
}

#[test]
fn limits_on_catalogs_are_told_before_the_commit() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    configure(
        &sandbox,
        "CVMFS_ROOT_KCATALOG_LIMIT=1\nCVMFS_NESTED_KCATALOG_LIMIT=1\n",
    );
    let dir = sandbox.root().join("d");
    fs::create_dir(&dir).unwrap();
    for number in 0..1100 {
        fs::write(dir.join(number.to_string()), "").unwrap();
    }
    let sentence = "the catalog of / has 1102 entries; the limit is 1000";
    let warnings = said(&sandbox, "warnings");
    assert!(warnings.contains(sentence), "{warnings}");
    assert_eq!(said(&sandbox, "errors"), "[]");
    configure(&sandbox, "CVMFS_ENFORCE_LIMITS=true\n");
    let errors = said(&sandbox, "errors");
    assert!(
        errors.contains(sentence) && errors.contains("refused"),
        "{errors}"
    );
    let message = sandbox.fails(1, ["commit", REPO]);
    assert!(message.contains(sentence), "{message}");
    for number in 500..1100 {
        fs::remove_file(dir.join(number.to_string())).unwrap();
    }
    assert_eq!(said(&sandbox, "errors"), "[]");
    sandbox.ok(["commit", REPO]);

    // rules of the repository's own may split what is new
    fs::write(sandbox.root().join(".cvmfsdirtab"), "/n/*\n").unwrap();
    for sub in ["n/a", "n/b"] {
        fs::create_dir_all(sandbox.root().join(sub)).unwrap();
        for number in 0..700 {
            fs::write(sandbox.root().join(sub).join(number.to_string()), "").unwrap();
        }
    }
    sandbox.ok(["status", "--wait"]);
    assert_eq!(said(&sandbox, "errors"), "[]");
    sandbox.ok(["commit", REPO]);
    sandbox.check();
}

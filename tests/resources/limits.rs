//! Limits that the system sets to a daemon: descriptors and memory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};

use super::world::wait_for;
use crate::support::{REPO, Sandbox, is_root, skip_unless, write};

fn pid(sandbox: &Sandbox) -> Pid {
    Pid::from_raw(i32::try_from(sandbox.daemon_pid()).unwrap()).unwrap()
}

/// Sets the daemon's limit of open files; returns what it was.
fn limit_files(sandbox: &Sandbox, current: Option<u64>) -> Option<u64> {
    let is = rustix::process::getrlimit(Resource::Nofile);
    let new = Rlimit {
        current,
        maximum: is.maximum,
    };
    let old = rustix::process::prlimit(Some(pid(sandbox)), Resource::Nofile, new).unwrap();
    old.current
}

fn open_files(sandbox: &Sandbox) -> u64 {
    let dir = format!("/proc/{}/fd", sandbox.daemon_pid());
    fs::read_dir(dir).unwrap().count() as u64
}

#[test]
fn descriptors_run_out_and_come_back() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    write(&root.join("before"), b"before");
    sandbox.ok(["status", "--wait"]);
    let whole = limit_files(&sandbox, Some(open_files(&sandbox) + 12));

    let mut held = Vec::new();
    let error = loop {
        let path = root.join(format!("held{}", held.len()));
        let written =
            fs::File::create(&path).and_then(|mut file| file.write_all(b"some").map(|()| file));
        match written {
            Ok(file) => held.push((path, file)),
            Err(error) => break error,
        }
        assert!(held.len() < 100, "they never ran out");
    };
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::NFILE.raw_os_error()),
        "{error}"
    );
    // who has a file goes on, and names need none
    for (_, file) in &held {
        (&*file).write_all(b" more").unwrap();
    }
    fs::create_dir(root.join("dir")).unwrap();
    fs::rename(root.join("dir"), root.join("renamed")).unwrap();
    assert!(!held.is_empty());

    // who lets go makes room for others
    let failed = root.join(format!("held{}", held.len()));
    let kept: Vec<PathBuf> = held.drain(..).map(|(path, _)| path).collect();
    wait_for("descriptors", || fs::write(&failed, b"after").is_ok());
    limit_files(&sandbox, whole);
    for path in &kept {
        assert_eq!(fs::read(path).unwrap(), b"some more");
    }
    assert_eq!(fs::read(root.join("before")).unwrap(), b"before");
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    let status = sandbox.json(["status", REPO]);
    assert_eq!(status["repositories"][0]["errors"], serde_json::json!([]));
}

/// Not one descriptor is left, neither for a commit nor for a look.
#[test]
fn without_a_descriptor_nothing_is_lost() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    for file in 0..40 {
        write(&root.join(format!("d/{file}")), &[b'x'; 3000]);
    }
    sandbox.ok(["status", "--wait"]);
    let whole = limit_files(&sandbox, Some(0));
    // whoever asks is answered, or told that nobody answers
    let refused = sandbox.run(["commit", REPO]);
    assert!(matches!(refused.status.code(), Some(1 | 7)), "{refused:?}");
    assert!(fs::write(root.join("new"), b"new").is_err());
    fs::remove_file(root.join("d/0")).unwrap();
    assert!(sandbox.is_alive());
    limit_files(&sandbox, whole);
    wait_for("a descriptor", || {
        fs::write(root.join("new"), b"new").is_ok()
    });
    wait_for("an answer", || {
        sandbox.run(["status", REPO]).status.success()
    });
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), 39);
}

/// A group of processes whose memory is limited; gone when dropped.
struct Group(PathBuf);

impl Group {
    /// None where this machine has no memory controller that may be used.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("prepub-test-{}", std::process::id());
        let (dir, limit) = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ]
        .iter()
        .map(|(root, limit)| (Path::new(root).join(&name), *limit))
        .find(|(dir, limit)| fs::create_dir(dir).is_ok() && has(dir, limit))?;
        fs::write(dir.join(limit), bytes.to_string()).ok()?;
        Some(Self(dir))
    }

    fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

/// True if a new group has this limit; it is removed if not.
fn has(dir: &Path, limit: &str) -> bool {
    dir.join(limit).exists() || {
        let _ = fs::remove_dir(dir);
        false
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // its last process may be about to go
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("cannot remove {}", self.0.display());
    }
}

/// What a daemon may take in all, page cache included: far less than what is staged.
const MEMORY: u64 = 160 << 20;

#[test]
fn memory_does_not_grow_with_the_data() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    if skip_unless(is_root(), "root") {
        return;
    }
    let group = Group::new(MEMORY);
    if skip_unless(group.is_some(), "a memory controller (cgroup)") {
        return;
    }
    let group = group.unwrap();
    group.add(sandbox.daemon_pid());
    let root = sandbox.root();
    let mut dice = crate::support::dice::Dice(7);
    let mut block: Vec<u8> = (0..(1 << 20) / 8)
        .flat_map(|_| (dice.next(u64::MAX) & 0x0707_0707_0707_0707).to_le_bytes())
        .collect();
    // large ones, each other bytes
    for file in 0..2_u8 {
        let mut out = fs::File::create(root.join(format!("large{file}"))).unwrap();
        for part in 0..112_u8 {
            block[0..2].copy_from_slice(&[file, part]);
            out.write_all(&block).unwrap();
        }
    }
    for file in 0..3000_u32 {
        write(
            &root.join(format!("many/{}/{file}", file % 40)),
            &file.to_le_bytes(),
        );
    }
    sandbox.ok(["status", "--wait"]);
    sandbox.ok(["commit", REPO]);
    assert!(sandbox.is_alive(), "it was ended for its memory");
    let mut back = fs::read(root.join("large1")).unwrap();
    assert_eq!(back.len(), 112 << 20);
    back.truncate(2);
    assert_eq!(back, [1, 0]);
    sandbox.check();
    sandbox.unmount();
    drop(group);
}

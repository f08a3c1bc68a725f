//! A repository of the real `cvmfs_server`, for one test, and prepub beside it.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::{names_in, skip_unless, until};
use crate::support::golden::manifest_field;
use crate::support::{Sandbox, by, can_mount, is_root};

/// Sees to it that one test at a time uses `cvmfs_server`, which edits files of the whole machine.
const ONE_AT_A_TIME: &str = "prepub-beside.lock";

pub struct Server {
    name: String,
    sandbox: Sandbox,
    replica: bool,
    _alone: File,
}

impl Server {
    /// A new repository; none where the tool, root or a web server is missing.
    pub fn new(owner: &str) -> Option<Self> {
        Self::publishing(owner, "stratum0")
    }

    /// The same with another publisher of ours.
    pub fn publishing(owner: &str, publisher: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).any(|dir| dir.join("cvmfs_server").is_file());
        let serves = TcpStream::connect("127.0.0.1:80").is_ok();
        if skip_unless(on_path, "cvmfs_server on PATH")
            || skip_unless(is_root() && can_mount(), "root and /dev/fuse")
            || skip_unless(serves, "Apache on port 80, where cvmfs_server serves")
        {
            return None;
        }
        let alone = File::create(std::env::temp_dir().join(ONE_AT_A_TIME)).unwrap();
        flock(&alone, FlockOperation::LockExclusive).unwrap();
        let name = format!("bs{}.example.org", std::process::id());
        let world = Self {
            sandbox: Sandbox::new(),
            name,
            replica: false,
            _alone: alone,
        };
        world.sandbox.configure(&format!(
            "[serve]\nenabled = false\n[stage]\nsettle = \"10ms\"\nrefresh_interval = \"100ms\"\n[repository.\"{}\"]\npublisher = {publisher:?}\n",
            world.name
        ));
        world.ok(&["mkfs", "-z", "-o", owner, &world.name]);
        Some(world)
    }

    /// The same, and its owner runs prepub; none where that one cannot.
    pub fn run_by_its_owner(owner: &str, publisher: &str) -> Option<Self> {
        let mut world = Self::publishing(owner, publisher)?;
        let user = [id("-u", owner), id("-g", owner)];
        let may = |test: &[&str]| by(user).args(test).status().unwrap().success();
        let fuse = may(&["test", "-w", "/dev/fuse"]);
        let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
        let shares = conf.lines().any(|line| line.trim() == "user_allow_other");
        if skip_unless(fuse && shares, "/dev/fuse for its group, user_allow_other")
            || skip_unless(
                may(&["test", "-x", env!("CARGO_BIN_EXE_prepub")]),
                "a program under test that everybody may run",
            )
        {
            return None;
        }
        world.is_run_by(owner);
        Some(world)
    }

    /// Another user runs prepub from now on.
    pub fn is_run_by(&mut self, user: &str) {
        self.sandbox.run_by([id("-u", user), id("-g", user)]);
    }

    /// More of configuration, for the next daemon.
    pub fn configure(&self, more: &str) {
        let config = self.sandbox.dir.path().join("every.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{text}{more}")).unwrap();
    }

    /// A place for files that are nobody else's.
    pub fn dir(&self) -> &Path {
        self.sandbox.dir.path()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn mount(&mut self) {
        let name = self.name.clone();
        self.sandbox.mount_for(&name, &[]);
    }

    pub fn mount_with(&mut self, failpoints: &str) {
        let name = self.name.clone();
        self.sandbox.mount_for(&name, &[("FAILPOINTS", failpoints)]);
    }

    pub fn unmount(&mut self) {
        self.sandbox.unmount();
    }

    pub fn kill(&mut self) {
        self.sandbox.kill();
    }

    /// SIGTERM; the daemon has ended when this returns.
    pub fn terminate(&mut self) {
        let pid = i32::try_from(self.sandbox.daemon_pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.sandbox.wait_for_exit();
    }

    /// The daemon that a failpoint ended is gone.
    pub fn has_died(&mut self) -> bool {
        self.sandbox.has_died()
    }

    /// The repository on our mount.
    pub fn ours(&self) -> PathBuf {
        self.sandbox.mountpoint().join(&self.name)
    }

    /// The repository on theirs.
    pub fn theirs(&self) -> PathBuf {
        Path::new("/cvmfs").join(&self.name)
    }

    pub fn spool(&self) -> PathBuf {
        Path::new("/var/spool/cvmfs").join(&self.name)
    }

    fn storage(&self) -> PathBuf {
        Path::new("/srv/cvmfs").join(&self.name)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new("cvmfs_server")
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// `cvmfs_server`, which shall do it.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            output.status.success(),
            "cvmfs_server {args:?}: {}\n{text}\n{}",
            output.status,
            self.sandbox.log()
        );
        text
    }

    /// True if `cvmfs_server` did so.
    pub fn try_run(&self, args: &[&str]) -> bool {
        self.run(args).status.success()
    }

    /// `cvmfs_server`, which shall refuse.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "cvmfs_server {args:?}: {said}");
    }

    /// What `cvmfs_server` says, and its exit code.
    pub fn refusal(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code().unwrap(), text)
    }

    pub fn prepub(&self, args: &[&str]) -> Command {
        self.sandbox.command(args)
    }

    #[track_caller]
    pub fn prepub_json(&self, args: &[&str]) -> serde_json::Value {
        self.sandbox.json(args)
    }

    #[track_caller]
    pub fn prepub_fails(&self, code: i32, args: &[&str]) -> String {
        self.sandbox.fails(code, args)
    }

    /// The published revision.
    pub fn revision(&self) -> u64 {
        let manifest = fs::read(self.storage().join(".cvmfspublished")).unwrap();
        manifest_field(&manifest, b'S').unwrap().parse().unwrap()
    }

    /// Sets a parameter.
    pub fn set(&self, key: &str, value: &str) {
        let file = format!("/etc/cvmfs/repositories.d/{}/server.conf", self.name);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}{key}={value}\n")).unwrap();
    }

    /// Objects of files: those whose names end with no letter for what they are.
    pub fn data_objects(&self) -> Vec<PathBuf> {
        let dirs = (0..=0xff_u8).map(|byte| self.storage().join(format!("data/{byte:02x}")));
        let objects = dirs.flat_map(|dir| names_in(&dir).into_iter().map(move |n| dir.join(n)));
        objects
            .filter(|path| {
                !path
                    .to_str()
                    .unwrap()
                    .ends_with(|c: char| c.is_ascii_uppercase())
            })
            .collect()
    }

    /// Waits until all objects of a commit are in the storage.
    #[track_caller]
    pub fn until_stored(&self) {
        // each below the number of its snapshot
        let records = self.sandbox.state().join("txn").join(&self.name);
        let is_stored = |commit: String| {
            let record = records.join(commit).join("state.json");
            fs::read_to_string(&record).is_ok_and(|text| text.contains("stored"))
        };
        until("a commit", || names_in(&records).into_iter().any(is_stored));
    }

    /// There is a sign of a transaction.
    pub fn is_signed(&self) -> bool {
        self.spool().join("in_transaction.lock").exists()
    }

    /// Waits for it.
    #[track_caller]
    pub fn until_signed(&self) {
        until("a transaction", || self.is_signed());
    }

    /// This revision, with these names, healthy in the eyes of both, shown by both mounts.
    #[track_caller]
    pub fn judge(&self, names: &[impl AsRef<str>], revision: u64) {
        let mut names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        names.sort_unstable();
        assert_eq!(self.revision(), revision);
        let said = self.ok(&["check", "-i", &self.name]);
        assert!(said.contains("no problems found"), "{said}");
        let checked = self.prepub_json(&["check", &self.name]);
        assert_eq!(checked["healthy"], true, "{checked}");
        assert_eq!(names_in(&self.theirs()), names, "their mount");
        until("our mount follows", || names_in(&self.ours()) == names);
        assert!(!self.is_signed());
    }

    /// A Stratum 1 takes a snapshot of what is published, and finds it whole.
    pub fn stratum1_follows(&mut self) {
        let Some(replica) = self.add_replica() else {
            return;
        };
        self.ok(&["snapshot", &replica]);
        self.judge_replica(&replica);
    }

    /// A Stratum 1 on this machine, without a first snapshot; none where it cannot be had.
    pub fn add_replica(&mut self) -> Option<String> {
        let replica = format!("s1.{}", self.name);
        let url = format!("http://localhost/cvmfs/{}", self.name);
        let key = format!("/etc/cvmfs/keys/{}.pub", self.name);
        let added = self.run(&[
            "add-replica",
            "-a",
            "-o",
            "root",
            "-n",
            &replica,
            &url,
            &key,
        ]);
        self.replica = true;
        let is_there = added.status.success();
        (!skip_unless(is_there, "cvmfs_server add-replica (mod_wsgi)")).then_some(replica)
    }

    /// It has what is published, whole to the last byte.
    #[track_caller]
    pub fn judge_replica(&self, replica: &str) {
        let said = self.ok(&["check", "-i", replica]);
        assert!(said.contains("no problems found"), "{said}");
        let manifest = |dir: &Path| fs::read(dir.join(".cvmfspublished")).unwrap();
        assert_eq!(
            manifest(&mirrored(replica)),
            manifest(&self.storage()),
            "{replica}"
        );
    }

    /// Everything that was published, and everything in the spool directory, is this user's.
    pub fn belongs_to(&self, owner: &str) {
        let uid = id("-u", owner);
        let mut found = vec![self.storage().join(".cvmfspublished")];
        found.push(self.storage().join(".cvmfsreflog"));
        for name in ["client.local", "reflog.chksum"] {
            found.push(self.spool().join(name));
        }
        for byte in 0..=0xff_u8 {
            let dir = self.storage().join(format!("data/{byte:02x}"));
            found.extend(names_in(&dir).into_iter().map(|name| dir.join(name)));
        }
        assert!(found.len() > 20, "{found:?}");
        for file in found {
            assert_eq!(
                fs::metadata(&file).unwrap().uid(),
                uid,
                "{}",
                file.display()
            );
        }
    }
}

/// Where a Stratum 1's storage is.
pub fn mirrored(replica: &str) -> PathBuf {
    Path::new("/srv/cvmfs").join(replica)
}

/// The number of a user, or of their group.
pub fn id(which: &str, name: &str) -> u32 {
    let id = Command::new("id").args([which, name]).output().unwrap();
    String::from_utf8(id.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.sandbox.kill();
        if self.replica {
            let _ = self.run(&["rmfs", "-f", &format!("s1.{}", self.name)]);
        }
        let _ = self.run(&["abort", "-f", &self.name]);
        let _ = self.run(&["rmfs", "-f", &self.name]);
    }
}

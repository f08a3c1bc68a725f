//! A repository of the real `cvmfs_server`, for one test.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use commit::RepoHome;
use rustix::fs::{FlockOperation, flock};

use crate::support::repo::Repo;

/// Sees to it that one test at a time uses `cvmfs_server`, which edits files of the whole machine. The
/// program's tests have the same.
const ONE_AT_A_TIME: &str = "prepub-beside.lock";

pub(super) struct Real {
    name: String,
    _alone: File,
}

/// Why there can be none; nothing, if there can.
fn missing() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join("cvmfs_server").is_file()) {
        return Some("cvmfs_server on PATH");
    }
    if !rustix::process::geteuid().is_root() {
        return Some("root");
    }
    if File::options().write(true).open("/dev/fuse").is_err() {
        return Some("/dev/fuse");
    }
    if TcpStream::connect("127.0.0.1:80").is_err() {
        return Some("Apache on port 80, where cvmfs_server serves");
    }
    None
}

fn cvmfs_server(args: &[&str]) -> bool {
    let mut command = Command::new("cvmfs_server");
    let command = command.args(args).current_dir("/").stdin(Stdio::null());
    // a mount lives on, and would keep a pipe open
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

impl Real {
    pub(super) fn new(settings: &[(&str, &str)]) -> Option<(Self, Repo)> {
        if let Some(missing) = missing() {
            eprintln!("SKIPPED: needs {missing}");
            return None;
        }
        let alone = File::create(std::env::temp_dir().join(ONE_AT_A_TIME)).unwrap();
        flock(&alone, FlockOperation::LockExclusive).unwrap();
        let name = format!("ts{}.example.org", std::process::id());
        let real = Self {
            name,
            _alone: alone,
        };
        assert!(cvmfs_server(&["mkfs", "-z", "-o", "root", &real.name]));
        let home = RepoHome::official(Path::new("/"), &real.name).unwrap();
        let mut conf = fs::read_to_string(&home.conf_file).unwrap();
        for (key, value) in settings {
            conf.push_str(&format!("{key}={value}\n"));
        }
        fs::write(&home.conf_file, conf).unwrap();
        let repo = Repo::of(tempfile::tempdir().unwrap(), home);
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        repo.clock.store(since, Ordering::Relaxed);
        Some((real, repo))
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        cvmfs_server(&["abort", "-f", &self.name]);
        cvmfs_server(&["rmfs", "-f", &self.name]);
    }
}

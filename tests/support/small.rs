//! A small filesystem of its own for a directory: only root can mount one.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Taken off when dropped.
pub struct Small(PathBuf);

impl Small {
    /// Keeps everything in memory; can be resized.
    pub fn tmpfs(at: &Path, megabytes: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        run(&["-t", "tmpfs", "-o", &size, "prepub-test"], at);
        Self(at.to_owned())
    }

    /// What disks have, on a file beside; none where no loop device can be had.
    pub fn ext4(at: &Path, megabytes: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let image = at.with_extension("img");
        let file = fs::File::create(&image).unwrap();
        file.set_len(megabytes << 20).unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return None;
        }
        let mounted = Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, at])
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }

    pub fn resize(&self, megabytes: u32) {
        run(&["-o", &format!("remount,size={megabytes}m")], &self.0);
    }

    pub fn read_only(&self, yes: bool) {
        run(
            &["-o", if yes { "remount,ro" } else { "remount,rw" }],
            &self.0,
        );
    }

    /// Somebody else takes all that is left, to the last page.
    pub fn fill(&self) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        let mut block = vec![0_u8; 1 << 20];
        while block.len() >= 4096 {
            match file.write(&block) {
                Ok(n) if n == block.len() => {}
                Ok(_) => block.truncate(block.len() / 2),
                Err(e) if e.kind() == ErrorKind::StorageFull => block.truncate(block.len() / 2),
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Gives it back.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("of-somebody-else")
    }
}

fn run(args: &[&str], at: &Path) {
    let status = Command::new("mount").args(args).arg(at).status().unwrap();
    assert!(status.success());
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

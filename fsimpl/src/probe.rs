//! What this machine offers a mount, and what it lacks: said before something fails.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// As it should be.
    Fine,
    /// Works, but less than it could.
    Limited,
    /// Mounting will fail.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it weighs.
    pub weight: Weight,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

/// The kernel that brought what we rely on: readdirplus with stable cursors, `copy_file_range`,
/// several threads on one mount.
const OLDEST_KERNEL: (u32, u32) = (4, 20);

/// Looks at the machine.
#[must_use]
pub fn probe() -> Vec<Finding> {
    let root = rustix::process::geteuid().is_root();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut findings = vec![kernel(), device(), right_to_mount(&status, root)];
    if !root {
        findings.push(helper());
        findings.push(allow_other(Path::new("/etc/fuse.conf")));
    }
    findings
}

fn finding(
    subject: &'static str,
    weight: Weight,
    found: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        subject,
        weight,
        found: found.into(),
        remedy: remedy.into(),
    }
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            let remedy = format!("run a kernel of version {major}.{minor} or newer");
            finding("kernel", Weight::Limited, release, remedy)
        }
        _ => finding("kernel", Weight::Fine, release, ""),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn device() -> Finding {
    const DEVICE: &str = "/dev/fuse";
    // the kernel's Documentation/admin-guide/devices.txt
    let fuse = rustix::fs::makedev(10, 229);
    match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(file) if !file.metadata().is_ok_and(|m| m.rdev() == fuse) => finding(
            DEVICE,
            Weight::Missing,
            "is something else than the FUSE device",
            "in a container, start it with `--device /dev/fuse`",
        ),
        Ok(_) => finding(DEVICE, Weight::Fine, "can be opened", ""),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => finding(
            DEVICE,
            Weight::Missing,
            "does not exist",
            "load the module (`modprobe fuse`); in a container, start it with `--device /dev/fuse`",
        ),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => finding(
            DEVICE,
            Weight::Missing,
            "may not be opened by this user",
            "give users access (mode 0666, as distributions ship it), or run as root",
        ),
        Err(e) => finding(
            DEVICE,
            Weight::Missing,
            e.to_string(),
            "in a container, allow the device and CAP_SYS_ADMIN",
        ),
    }
}

/// `CAP_SYS_ADMIN`, as a bit of the sets in `/proc/PID/status` (capabilities(7)).
const SYS_ADMIN: u64 = 1 << 21;

/// Whether this process, or a helper with root's rights that it starts, may mount at all.
fn right_to_mount(status: &str, root: bool) -> Finding {
    const SUBJECT: &str = "right to mount";
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).unwrap_or_default()
    };
    let has = |set: &str| u64::from_str_radix(field(set), 16).is_ok_and(|set| set & SYS_ADMIN != 0);
    if has("CapEff:") {
        return finding(SUBJECT, Weight::Fine, "CAP_SYS_ADMIN", "");
    }
    let remedy = "in a container, start it with `--cap-add SYS_ADMIN --device /dev/fuse`, or in a user \
                  namespace of its own (`unshare --user --map-root-user --mount`)";
    if !has("CapBnd:") {
        return finding(
            SUBJECT,
            Weight::Missing,
            "CAP_SYS_ADMIN is taken away from all processes here",
            remedy,
        );
    }
    if field("NoNewPrivs:") == "1" {
        let found = "helpers get no rights here (no_new_privs)";
        return finding(SUBJECT, Weight::Missing, found, remedy);
    }
    match root {
        true => finding(
            SUBJECT,
            Weight::Missing,
            "root has no CAP_SYS_ADMIN here",
            remedy,
        ),
        false => finding(SUBJECT, Weight::Fine, "through fusermount3", ""),
    }
}

fn helper() -> Finding {
    const NAME: &str = "fusermount3";
    let places = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];
    match places
        .iter()
        .map(|dir| Path::new(dir).join(NAME))
        .find(|file| file.exists())
    {
        Some(file) => finding(NAME, Weight::Fine, file.display().to_string(), ""),
        None => finding(
            NAME,
            Weight::Missing,
            "is not installed",
            "install the package fuse3",
        ),
    }
}

/// Whether users other than the one who mounts may be let in.
fn allow_other(conf: &Path) -> Finding {
    let text = fs::read_to_string(conf).unwrap_or_default();
    if text.lines().any(|line| line.trim() == "user_allow_other") {
        return finding("user_allow_other", Weight::Fine, "set", "");
    }
    finding(
        "user_allow_other",
        Weight::Limited,
        "not set: only the user who mounts will see the mount",
        format!("put the line user_allow_other into {}", conf.display()),
    )
}

/// True if this process may let others use its mount.
#[must_use]
pub fn may_allow_other() -> bool {
    rustix::process::geteuid().is_root()
        || allow_other(Path::new("/etc/fuse.conf")).weight == Weight::Fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kernel_releases() {
        assert_eq!(parse_release("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(parse_release("5.14.0-570.el9"), Some((5, 14)));
        assert_eq!(parse_release("nonsense"), None);
    }

    #[test]
    fn reads_fuse_conf() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("fuse.conf");
        assert_eq!(allow_other(&conf).weight, Weight::Limited);
        fs::write(&conf, "# user_allow_other\n").unwrap();
        assert_eq!(allow_other(&conf).weight, Weight::Limited);
        fs::write(&conf, "mount_max = 10\nuser_allow_other\n").unwrap();
        assert_eq!(allow_other(&conf).weight, Weight::Fine);
    }

    #[test]
    fn knows_who_may_mount() {
        let status = |effective: &str, bounding: &str, no_new: u8| {
            format!("CapEff:\t{effective}\nCapBnd:\t{bounding}\nNoNewPrivs:\t{no_new}\n")
        };
        let (all, none, docker) = ("000001ffffffffff", "0000000000000000", "00000000a80425fb");
        for (status, root, weight) in [
            (status(all, all, 0), true, Weight::Fine),
            (status(none, all, 0), false, Weight::Fine),
            (status(none, all, 1), false, Weight::Missing),
            (status(docker, docker, 0), true, Weight::Missing),
            (status(none, docker, 0), false, Weight::Missing),
            (status(docker, all, 0), true, Weight::Missing),
        ] {
            assert_eq!(
                right_to_mount(&status, root).weight,
                weight,
                "{status} {root}"
            );
        }
    }

    #[test]
    fn every_problem_comes_with_a_remedy() {
        for finding in probe() {
            assert_eq!(
                finding.weight == Weight::Fine,
                finding.remedy.is_empty(),
                "{finding:?}"
            );
        }
    }
}

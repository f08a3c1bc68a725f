//! The kernel's tables of mounts: this process's, and those of mount namespaces that show ours.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A process that sees a mount in a mount namespace other than ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number, as we see it.
    pub pid: u32,
    /// Its name; empty if it is gone by now.
    pub command: String,
}

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountInfo {
    /// `MAJOR:MINOR` of what is mounted: no two mounted filesystems have the same.
    pub(super) device: String,
    pub(super) mountpoint: PathBuf,
    pub(super) fstype: String,
    pub(super) source_name: String,
}

/// What stands on top at a mount point, as this process sees it.
pub(super) fn at(mountpoint: &Path) -> io::Result<Option<MountInfo>> {
    let table = read("self")?;
    // the last one is on top
    Ok(table.into_iter().rfind(|m| m.mountpoint == mountpoint))
}

/// One process of each mount namespace but ours that has the device mounted somewhere. What cannot
/// be looked at is passed over.
pub(super) fn elsewhere(device: &str) -> Vec<Holder> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen: HashSet<PathBuf> = namespace("self").into_iter().collect();
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse() else {
            continue;
        };
        if !namespace(&name).is_some_and(|namespace| seen.insert(namespace)) {
            continue;
        }
        let table = read(&name).unwrap_or_default();
        if table.iter().any(|mount| mount.device == device) {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let command = command.trim_end().to_owned();
            holders.push(Holder { pid, command });
        }
    }
    holders
}

fn read(process: &str) -> io::Result<Vec<MountInfo>> {
    let table = fs::read(format!("/proc/{process}/mountinfo"))?;
    let lines = table.split(|b| *b == b'\n');
    Ok(lines.filter_map(parse).collect())
}

/// One line of `/proc/self/mountinfo`: id, parent, device, root, mount point, options, optional
/// fields, `-`, type, source, options.
fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|b| *b == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let device = text(fields.nth(2)?);
    let mountpoint = unescape(fields.nth(1)?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    Some(MountInfo {
        device,
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        fstype: text(rest.next()?),
        source_name: text(rest.next()?),
    })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|d| byte == b'\\' && d.iter().all(u8::is_ascii_digit));
        match octal {
            Some(digits) => {
                let value = digits
                    .iter()
                    .fold(0_u32, |v, d| v * 8 + u32::from(d - b'0'));
                out.push(value.to_le_bytes()[0]);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mount_table() {
        let line =
            b"36 35 98:0 /mnt1 /mnt/with\\040space rw,noatime master:1 - fuse.prepub a\\134b rw";
        assert_eq!(
            parse(line),
            Some(MountInfo {
                device: "98:0".into(),
                mountpoint: "/mnt/with space".into(),
                fstype: "fuse.prepub".into(),
                source_name: "a\\b".into(),
            })
        );
        for hostile in [
            &b""[..],
            b"1 2 3",
            b"1 2 3 4 /x rw",
            b"1 2 3 4 /x rw -",
            b"\\",
            b"\\12",
        ] {
            assert_eq!(parse(hostile), None);
        }
        assert_eq!(unescape(b"\\777\\"), [255, b'\\']);
    }

    #[test]
    fn finds_what_is_mounted() {
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().fstype, "proc");
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }
}

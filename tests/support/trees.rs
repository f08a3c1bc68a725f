//! Two directory trees, compared as a user would see them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What two trees must share, besides names, types, modes, owners, link targets and bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Modification times too, to the nanosecond; those of directories and links included.
    Equal,
    /// The same, to the second: what a revision keeps unless it is told to keep more.
    Seconds,
    /// They are each run's own.
    Own,
}

/// One path's line in a comparison: all of it is compared as text.
fn line(path: &Path, times: Times) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let what = if kind.is_symlink() {
        format!("link to {:?}", fs::read_link(path).unwrap())
    } else if kind.is_file() {
        let links = meta.nlink();
        format!("file of {} bytes, {links} links", meta.len())
    } else if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("special file {:o} {:x}", meta.mode(), meta.rdev())
    };
    let time = match times {
        Times::Equal => format!(" at {}.{:09}", meta.mtime(), meta.mtime_nsec()),
        Times::Seconds => format!(" at {}", meta.mtime()),
        Times::Own => String::new(),
    };
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    format!("{what}, {mode:o} {uid}:{gid}{time}")
}

fn walk(root: &Path, times: Times, leave_out: &[&str]) -> BTreeMap<PathBuf, String> {
    let entries = walkdir::WalkDir::new(root).min_depth(1).into_iter();
    let wanted = |entry: &walkdir::DirEntry| {
        let path = entry.path().strip_prefix(root).unwrap();
        !leave_out.iter().any(|out| path == Path::new(out))
    };
    entries
        .filter_entry(wanted)
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap().to_owned();
            let line = line(entry.path(), times);
            (path, line)
        })
        .collect()
}

/// Panics with what differs between two trees, paths in `leave_out` left out.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path, times: Times, leave_out: &[&str]) {
    let (ours, theirs) = (walk(left, times, leave_out), walk(right, times, leave_out));
    let mut differences = Vec::new();
    for (path, line) in &ours {
        match theirs.get(path) {
            None => differences.push(format!("{}: only left: {line}", path.display())),
            Some(other) if other != line => {
                differences.push(format!("{}: {line} <> {other}", path.display()));
            }
            Some(_) if line.starts_with("file") => {
                if fs::read(left.join(path)).unwrap() != fs::read(right.join(path)).unwrap() {
                    differences.push(format!("{}: bytes differ", path.display()));
                }
            }
            Some(_) => {}
        }
    }
    let more = theirs.iter().filter(|(path, _)| !ours.contains_key(*path));
    differences.extend(more.map(|(path, line)| format!("{}: only right: {line}", path.display())));
    assert!(!ours.is_empty(), "{} is empty", left.display());
    assert!(
        differences.is_empty(),
        "{} differences between {} and {}:\n{}",
        differences.len(),
        left.display(),
        right.display(),
        differences.join("\n")
    );
}

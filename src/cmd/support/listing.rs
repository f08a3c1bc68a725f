//! What lies in a state directory: names, sizes, owners and modes, never what is in a file.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Lines: a state with many repositories and sites has some hundreds.
const LINES_MAX: usize = 5_000;
/// Entries that are counted of a directory that is not listed; beyond, "at least" is said.
const COUNTED_MAX: u64 = 200_000;
/// So deep are places that people know; below are hashes and numbers.
const DEPTH_MAX: usize = 4;
/// Directories with a file for each object: how many there are says enough.
const COUNTED: [&str; 4] = ["objects", "backing", "data", "work"];

/// A line each, directories of objects in sum.
pub fn of(state: &Path) -> String {
    let mut out = format!("{}\n", state.display());
    let mut lines = 0;
    list(state, state, 0, &mut lines, &mut out);
    if lines >= LINES_MAX {
        out.push_str("and more\n");
    }
    out
}

fn list(root: &Path, dir: &Path, depth: usize, lines: &mut usize, out: &mut String) {
    let mut paths: Vec<_> = match fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).collect(),
        Err(error) => {
            let _ = writeln!(out, "{}: {error}", dir.display());
            return;
        }
    };
    paths.sort();
    for path in paths {
        if *lines >= LINES_MAX {
            return;
        }
        *lines += 1;
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) => {
                let _ = writeln!(out, "{shown}: {error}");
                continue;
            }
        };
        let _ = writeln!(out, "{} {shown}", attributes(&meta));
        if !meta.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        if depth >= DEPTH_MAX || COUNTED.iter().any(|counted| name == *counted) {
            let mut sum = (0, 0);
            count(&path, &mut sum);
            let at_least = if sum.0 >= COUNTED_MAX {
                "at least "
            } else {
                ""
            };
            let _ = writeln!(out, "    {at_least}{} files, {} bytes", sum.0, sum.1);
        } else {
            list(root, &path, depth + 1, lines, out);
        }
    }
}

fn attributes(meta: &Metadata) -> String {
    format!(
        "{:06o} {}:{} {:>12} {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.len(),
        meta.mtime()
    )
}

fn count(dir: &Path, sum: &mut (u64, u64)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if sum.0 >= COUNTED_MAX {
            return;
        }
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => count(&entry.path(), sum),
            Ok(meta) => *sum = (sum.0 + 1, sum.1 + meta.len()),
            // gone meanwhile
            Err(_) => {}
        }
    }
}

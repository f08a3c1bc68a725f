//! Who keeps a mount from being taken off.

use std::fs;
use std::path::{Path, PathBuf};

/// What a process has below a mount point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The process.
    pub pid: u32,
    /// Its name; empty if it is gone by now.
    pub command: String,
    /// The file or directory: open, run, or worked in.
    pub path: PathBuf,
}

/// What processes have open, run, or work in below a directory: each of them with each path once. Only
/// root sees it of others' processes; of those in a mount namespace of their own it is seen where they
/// have the mount at the same place.
#[must_use]
pub fn users_below(dir: &Path) -> Vec<User> {
    let mut users = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            users.extend(of_process(pid, &entry.path(), dir));
        }
    }
    users.sort();
    users.dedup();
    users
}

fn of_process(pid: u32, process: &Path, dir: &Path) -> Vec<User> {
    let own = ["cwd", "root", "exe"].map(|link| process.join(link));
    // files that are mapped need not be open any more
    let many = ["fd", "map_files"].map(|links| process.join(links));
    let many = many
        .iter()
        .flat_map(|links| fs::read_dir(links).into_iter().flatten().flatten());
    let links = own.into_iter().chain(many.map(|entry| entry.path()));
    let paths = links.filter_map(|link| fs::read_link(link).ok());
    let below: Vec<PathBuf> = paths.filter(|path| path.starts_with(dir)).collect();
    if below.is_empty() {
        return Vec::new();
    }
    let command = fs::read(process.join("comm")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).trim_end().to_owned();
    let user = |path| User {
        pid,
        command: command.clone(),
        path,
    };
    below.into_iter().map(user).collect()
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, command, path } = self;
        write!(f, "{} (process {pid} {command})", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_what_it_has_open() {
        let dir = tempfile::tempdir().unwrap();
        assert!(users_below(dir.path()).is_empty());
        let open = dir.path().join("open");
        let file = fs::File::create(&open).unwrap();
        let users = users_below(dir.path());
        assert_eq!((users.len(), users[0].pid), (1, std::process::id()));
        assert_eq!(users[0].path, open);
        drop(file);
        assert!(users_below(dir.path()).is_empty());
    }
}

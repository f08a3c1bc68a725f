//! The sources of everything that ships.

use std::fs;
use std::path::PathBuf;

use crate::support::workspace_root;

const ROOMS: [&str; 6] = [
    "src",
    "formats/src",
    "store/src",
    "fsimpl/src",
    "commit/src",
    "receiver/src",
];

/// Each file of Rust with its text.
pub fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let files = ROOMS
        .into_iter()
        .flat_map(|room| walkdir::WalkDir::new(workspace_root().join(room)));
    files.map(Result::unwrap).filter_map(|entry| {
        let path = entry.into_path();
        let is_source = path.extension()? == "rs";
        let text = is_source.then(|| fs::read_to_string(&path).unwrap())?;
        Some((path, text))
    })
}

//! A tree as the model has it, and as it is found.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What stands at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum What {
    Dir,
    File {
        bytes: Vec<u8>,
        mode: u32,
        label: Option<Vec<u8>>,
    },
    Link(String),
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dir => write!(f, "directory"),
            Self::Link(to) => write!(f, "link to {to}"),
            Self::File { bytes, mode, label } => {
                let sum: u64 = bytes.iter().map(|b| u64::from(*b)).sum();
                let label = label.as_ref().map(|l| l.escape_ascii().to_string());
                write!(f, "{} bytes, sum {sum}, {mode:o}, {label:?}", bytes.len())
            }
        }
    }
}

/// The attribute that files of the script get.
pub const LABEL: &str = "user.label";

/// Paths from the repository's root. Names of one file are changed together by the script's effects.
pub type Tree = BTreeMap<String, What>;

pub fn file(bytes: &[u8]) -> What {
    What::File {
        bytes: bytes.to_vec(),
        mode: 0o644,
        label: None,
    }
}

/// Moves a path and all below it.
pub fn renamed(tree: &mut Tree, from: &str, to: &str) {
    let below = format!("{from}/");
    let moved: Vec<String> = tree
        .keys()
        .filter(|path| *path == from || path.starts_with(&below))
        .cloned()
        .collect();
    for path in moved {
        if let Some(what) = tree.remove(&path) {
            tree.insert(format!("{to}{}", &path[from.len()..]), what);
        }
    }
}

/// What is below a directory.
pub fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let what = if entry.file_type().is_dir() {
            What::Dir
        } else if entry.file_type().is_symlink() {
            What::Link(fs::read_link(path).unwrap().to_str().unwrap().to_owned())
        } else {
            What::File {
                bytes: fs::read(path).unwrap(),
                mode: entry.metadata().unwrap().permissions().mode() & 0o7777,
                label: xattr::get(path, LABEL).unwrap(),
            }
        };
        tree.insert(name, what);
    }
    tree
}

//! Where inodes are, or were when they last had a name: faults are told by path.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::tree::{Name, Number, ROOT, Tree};

/// The latest name of each inode.
pub struct Places(HashMap<Number, (Number, Name)>);

impl Places {
    pub fn of(tree: &Tree) -> Self {
        let mut places = Self(HashMap::new());
        let mut next = vec![ROOT];
        while let Some(dir) = next.pop() {
            for (name, number) in tree.entries(dir).into_iter().flatten() {
                places.set(*number, dir, name);
                next.push(*number);
            }
        }
        places
    }

    pub fn set(&mut self, number: Number, dir: Number, name: &Name) {
        self.0.insert(number, (dir, name.clone()));
    }

    /// The path of an inode, or of a name in it, from the root.
    pub fn path(&self, number: Number, name: Option<&[u8]>) -> PathBuf {
        let mut names: Vec<&[u8]> = name.into_iter().collect();
        let mut at = number;
        while let Some((dir, name)) = self.0.get(&at) {
            names.push(name);
            at = *dir;
        }
        names
            .iter()
            .rev()
            .map(|name| OsStr::from_bytes(name))
            .collect()
    }
}

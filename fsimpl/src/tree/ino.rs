//! Inode numbers: 52 bits of the path at first sight, another try where that number is taken.
//!
//! The number is part of the journal and outlives the program, so its hash is MD5 and not a
//! hasher that the next compiler may change.

use formats::{Name, PathHash, RepoPath};

use crate::types::Ino;

/// The bits that belong to the repository; the rest says which repository.
const LOCAL_MASK: u64 = (1 << 52) - 1;
/// 0 is nobody's, 1 is the repository's root; a few more are kept.
const FIRST: u64 = 16;

/// The number for `name` in the directory with this path; `salt` counts the tries.
pub(crate) fn number(dir: &RepoPath, name: &Name, salt: u32) -> Ino {
    let mut bytes = Vec::with_capacity(dir.as_bytes().len() + 1 + name.as_bytes().len() + 5);
    bytes.extend_from_slice(dir.as_bytes());
    bytes.push(b'/');
    bytes.extend_from_slice(name.as_bytes());
    finish(bytes, salt)
}

/// The number for a group of hard links in the directory with this path.
pub(crate) fn group_number(dir: &RepoPath, group: u32, salt: u32) -> Ino {
    let mut bytes = dir.as_bytes().to_vec();
    bytes.extend_from_slice(b"//");
    bytes.extend_from_slice(&group.to_le_bytes());
    finish(bytes, salt)
}

fn finish(mut bytes: Vec<u8>, salt: u32) -> Ino {
    if salt != 0 {
        bytes.push(0);
        bytes.extend_from_slice(&salt.to_le_bytes());
    }
    let number = PathHash::of(&bytes).0.cast_unsigned() & LOCAL_MASK;
    Ino(if number < FIRST {
        number + FIRST
    } else {
        number
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed_for_ever() {
        let dir: RepoPath = "/a".parse().unwrap();
        let name = Name::new(b"b").unwrap();
        let expected = PathHash::of(b"/a/b").0.cast_unsigned() & LOCAL_MASK;
        assert_eq!(number(&dir, &name, 0), Ino(expected));
        assert_ne!(number(&dir, &name, 0), number(&dir, &name, 1));
        assert_ne!(group_number(&dir, 1, 0), group_number(&dir, 2, 0));
    }
}

//! Names and paths inside a repository: bytes, never text.
//!
//! A path is `""` for the repository's root, otherwise `/` and names joined by `/`, without a
//! trailing slash. Catalogs know a path by its MD5 [CVMFS `hash.cc:Md5::ToIntPair`].

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// Longest name, in bytes (NAME_MAX).
pub const NAME_MAX: usize = 255;

/// Longest name of a repository, in bytes: clients refuse longer ones.
const REPOSITORY_NAME_MAX: usize = 60;

/// True for a repository's fully qualified name: labels of letters, digits, `-` and `_`, at least two,
/// joined by dots. It is safe as a file's name.
#[must_use]
pub fn is_repository_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= REPOSITORY_NAME_MAX && name.contains('.') && name.split('.').all(label)
}

/// Why bytes are not a name or a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Empty, `.`, `..`, or with a slash or NUL in it.
    #[error("not a file name: {0:?}")]
    BadName(String),
    /// Longer than [`NAME_MAX`].
    #[error("name of {0} bytes; the longest is {NAME_MAX}")]
    NameTooLong(usize),
    /// Not `""` and not `/name/...`.
    #[error("not a path below a repository: {0:?}")]
    BadPath(String),
}

/// One component of a path: any bytes but `/` and NUL; not empty, `.` or `..`; at most 255.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks and takes the bytes of a name.
    ///
    /// # Errors
    /// [`PathError::BadName`], [`PathError::NameTooLong`].
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > NAME_MAX {
            return Err(PathError::NameTooLong(bytes.len()));
        }
        if bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|b| matches!(b, b'/' | 0))
        {
            return Err(PathError::BadName(bytes.escape_ascii().to_string()));
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as the operating system takes it.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl TryFrom<Vec<u8>> for Name {
    type Error = PathError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        Self::new(&bytes)
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        name.0.into_vec()
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A path below a repository's root: `""`, or `/a/b`.
///
/// Its order is the order of a walk that visits a directory before what is in it, names bytewise:
/// `/a`, `/a/b`, `/a.b`.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RepoPath(Vec<u8>);

impl RepoPath {
    /// The repository's root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks and takes the bytes of a path: `""` or `/name/...`.
    ///
    /// # Errors
    /// [`PathError`] when a component is no name or the leading slash is missing.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        let Some(rest) = bytes.strip_prefix(b"/") else {
            return Err(PathError::BadPath(bytes.escape_ascii().to_string()));
        };
        for component in rest.split(|b| *b == b'/') {
            Name::new(component)?;
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The bytes, as catalogs hash and hold them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for `""`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.as_bytes().len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name.as_bytes());
        Self(bytes)
    }

    /// The path of the last of `names`, each in the one before, the first in this directory.
    #[must_use]
    pub fn join_all<'a>(self, names: impl Iterator<Item = &'a Name>) -> Self {
        let mut bytes = self.0;
        for name in names {
            bytes.push(b'/');
            bytes.extend_from_slice(name.as_bytes());
        }
        Self(bytes)
    }

    /// The directory this lies in; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..slash].to_vec()))
    }

    /// The last component; none for the root.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Name(self.0[slash + 1..].into()))
    }

    /// The components, from the root down.
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|b| *b == b'/').skip(1).map(|c| Name(c.into()))
    }

    /// True if this is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.below(other).is_some()
    }

    /// What is left of this path below `other`: `""` or `/...`; none if it lies elsewhere.
    #[must_use]
    pub fn below(&self, other: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(other.0.as_slice())?;
        (rest.is_empty() || rest[0] == b'/').then(|| Self(rest.to_vec()))
    }

    /// `self` and then the components of `tail`.
    #[must_use]
    pub fn concat(&self, tail: &Self) -> Self {
        Self([self.0.as_slice(), tail.0.as_slice()].concat())
    }

    /// The path's MD5, as catalogs key their rows.
    #[must_use]
    pub fn path_hash(&self) -> PathHash {
        PathHash::of(&self.0)
    }
}

impl PartialOrd for RepoPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RepoPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // a slash sorts below every other byte, so that a directory's content follows it directly
        let key = |b: &u8| if *b == b'/' { 0 } else { u16::from(*b) + 1 };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

impl TryFrom<Vec<u8>> for RepoPath {
    type Error = PathError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        Self::new(&bytes)
    }
}

impl From<RepoPath> for Vec<u8> {
    fn from(path: RepoPath) -> Self {
        path.0
    }
}

impl std::str::FromStr for RepoPath {
    type Err = PathError;
    fn from_str(s: &str) -> Result<Self, PathError> {
        Self::new(s.as_bytes())
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("/");
        }
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The MD5 of a path as two little-endian signed integers: `md5path_1`, `md5path_2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathHash(pub i64, pub i64);

impl PathHash {
    /// The parent columns of the repository's root row.
    pub const NONE: Self = Self(0, 0);

    /// Hashes a path's bytes.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let digest: [u8; 16] = Md5::digest(path).into();
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[at..at + 8]);
            i64::from_le_bytes(bytes)
        };
        Self(half(0), half(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_hash_is_the_published_constant() {
        assert_eq!(
            RepoPath::root().path_hash(),
            PathHash(338_333_539_836_370_388, 9_098_107_892_288_553_193)
        );
    }

    #[test]
    fn order_is_that_of_a_walk() {
        let mut paths: Vec<RepoPath> = ["/a.b", "/a/b", "", "/a", "/a/b/c", "/a\u{1}"]
            .map(|p| p.parse().unwrap())
            .into();
        paths.sort();
        let text: Vec<&[u8]> = paths.iter().map(RepoPath::as_bytes).collect();
        assert_eq!(
            text,
            [&b""[..], b"/a", b"/a/b", b"/a/b/c", b"/a\x01", b"/a.b"]
        );
    }

    #[test]
    fn refuses_what_is_no_path() {
        for bad in ["a", "/", "/a/", "//a", "/a//b", "/..", "/a/./b", "/a\0"] {
            assert!(bad.parse::<RepoPath>().is_err(), "{bad:?}");
        }
    }
}

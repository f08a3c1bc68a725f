//! Objects: what they are called in a storage, and how a file's content is made of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hash::{Hash, HashError};

/// What an object holds; decides the letter at the end of its name [CVMFS `crypto/hash.h`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A whole file; no letter.
    Data,
    /// A chunk of a file; `P`.
    Chunk,
    /// A file catalog; `C`.
    Catalog,
    /// A tag database; `H`.
    History,
    /// A certificate; `X`.
    Certificate,
    /// The repository's meta information; `M`.
    MetaInfo,
}

impl ObjectKind {
    /// The letter, or nothing.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Data => "",
            Self::Chunk => "P",
            Self::Catalog => "C",
            Self::History => "H",
            Self::Certificate => "X",
            Self::MetaInfo => "M",
        }
    }
}

/// An object's full name: hash and kind. Text form: hash, algorithm id, letter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Of the stored bytes.
    pub hash: Hash,
    /// What it holds.
    pub kind: ObjectKind,
}

impl ObjectName {
    /// A name from its parts.
    #[must_use]
    pub fn new(hash: Hash, kind: ObjectKind) -> Self {
        Self { hash, kind }
    }

    /// Where it lies below a storage's root: `data/ab/cdef...P`.
    #[must_use]
    pub fn storage_path(&self) -> String {
        let text = self.to_string();
        format!("data/{}/{}", &text[..2], &text[2..])
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.hash, self.kind.suffix())
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectName {
    type Err = HashError;

    fn from_str(s: &str) -> Result<Self, HashError> {
        use ObjectKind::{Catalog, Certificate, Chunk, Data, History, MetaInfo};
        for kind in [Chunk, Catalog, History, Certificate, MetaInfo] {
            if let Some(hash) = s.strip_suffix(kind.suffix()) {
                return Ok(Self::new(hash.parse()?, kind));
            }
        }
        Ok(Self::new(s.parse()?, Data))
    }
}

/// How an object's bytes are stored; bits 11 to 13 of a regular file's row.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Classic zlib at its default level.
    #[default]
    Zlib,
    /// As they are.
    None,
}

/// One chunk of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chunk {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How long it is, uncompressed, in bytes.
    pub size: u64,
    /// Of its stored bytes; the object's kind is [`ObjectKind::Chunk`].
    pub hash: Hash,
}

/// Where a regular file's bytes are: one object, or a list of chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// One object of kind [`ObjectKind::Data`].
    Whole(Hash),
    /// Two or more chunks that tile the file, offsets ascending, and the whole file as one object
    /// too where the repository keeps legacy bulk chunks.
    Chunks {
        /// The whole file as one object.
        bulk: Option<Hash>,
        /// The pieces.
        chunks: Vec<Chunk>,
    },
}

impl Content {
    /// Every object the content needs.
    pub fn objects(&self) -> impl Iterator<Item = ObjectName> + '_ {
        let (bulk, chunks) = match self {
            Self::Whole(hash) => (Some(*hash), &[][..]),
            Self::Chunks { bulk, chunks } => (*bulk, chunks.as_slice()),
        };
        bulk.map(|hash| ObjectName::new(hash, ObjectKind::Data))
            .into_iter()
            .chain(
                chunks
                    .iter()
                    .map(|c| ObjectName::new(c.hash, ObjectKind::Chunk)),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        let text = "6f302a2d00000000000000000000000000004366-rmd160P";
        let name: ObjectName = text.parse().unwrap();
        assert_eq!(name.kind, ObjectKind::Chunk);
        assert_eq!(name.to_string(), text);
        assert_eq!(
            name.storage_path(),
            "data/6f/302a2d00000000000000000000000000004366-rmd160P"
        );
        assert!("XP".parse::<ObjectName>().is_err());
    }
}

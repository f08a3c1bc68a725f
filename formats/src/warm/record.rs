//! One object's name and size, as lists and bundles have it.
//!
//! ```text
//! 1 byte    kind in the low half (0 data, 1 chunk), algorithm in the high one (0 SHA-1, 1 RIPEMD-160, 2 SHAKE128)
//! 20 bytes  digest
//! 8 bytes   size of the stored bytes, little endian
//! ```

use crate::hash::{Algorithm, DIGEST_LEN, Hash};
use crate::object::{ObjectKind, ObjectName};

/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 1 + DIGEST_LEN + 8;

/// An object that may travel, and the size of its stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Of kind [`ObjectKind::Data`] or [`ObjectKind::Chunk`].
    pub name: ObjectName,
    /// Of the object as stored.
    pub bytes: u64,
}

/// Why bytes are no record, or an object cannot have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Catalogs and the like never travel.
    #[error("{0} is no file's object; catalogs, tags and certificates are never sent ahead")]
    NotOfAFile(ObjectName),
    /// No kind or no algorithm has this number.
    #[error("no object begins with byte {0:#04x}")]
    BadTag(u8),
    /// The placeholder for nothing.
    #[error("an object without a hash")]
    Null,
}

/// True for the objects of files, which may be there before the catalogs that name them.
#[must_use]
pub fn may_travel(name: &ObjectName) -> bool {
    matches!(name.kind, ObjectKind::Data | ObjectKind::Chunk) && !name.hash.is_null()
}

impl Listed {
    /// What a transaction's names are sorted by: digest first, the order of a storage's directories.
    #[must_use]
    pub fn key(&self) -> ([u8; DIGEST_LEN], Algorithm, ObjectKind) {
        let hash = &self.name.hash;
        (*hash.digest(), hash.algorithm(), self.name.kind)
    }

    /// The record's bytes.
    pub(super) fn encode(&self) -> Result<[u8; RECORD_BYTES], RecordError> {
        let kind = match self.name.kind {
            ObjectKind::Data => 0,
            ObjectKind::Chunk => 1,
            _ => return Err(RecordError::NotOfAFile(self.name)),
        };
        if self.name.hash.is_null() {
            return Err(RecordError::Null);
        }
        let algorithm = match self.name.hash.algorithm() {
            Algorithm::Sha1 => 0,
            Algorithm::Rmd160 => 1,
            Algorithm::Shake128 => 2,
        };
        let mut record = [0; RECORD_BYTES];
        record[0] = algorithm << 4 | kind;
        record[1..=DIGEST_LEN].copy_from_slice(self.name.hash.digest());
        record[1 + DIGEST_LEN..].copy_from_slice(&self.bytes.to_le_bytes());
        Ok(record)
    }

    /// What a record says.
    pub(super) fn decode(record: &[u8; RECORD_BYTES]) -> Result<Self, RecordError> {
        let bad = RecordError::BadTag(record[0]);
        let kind = match record[0] & 0xf {
            0 => ObjectKind::Data,
            1 => ObjectKind::Chunk,
            _ => return Err(bad),
        };
        let algorithm = match record[0] >> 4 {
            0 => Algorithm::Sha1,
            1 => Algorithm::Rmd160,
            2 => Algorithm::Shake128,
            _ => return Err(bad),
        };
        let (mut digest, mut size) = ([0; DIGEST_LEN], [0; 8]);
        digest.copy_from_slice(&record[1..=DIGEST_LEN]);
        size.copy_from_slice(&record[1 + DIGEST_LEN..]);
        let hash = Hash::new(algorithm, digest);
        if hash.is_null() {
            return Err(RecordError::Null);
        }
        Ok(Self {
            name: ObjectName::new(hash, kind),
            bytes: u64::from_le_bytes(size),
        })
    }
}

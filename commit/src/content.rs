//! The content of a small file that the commit itself has to read: `.cvmfsdirtab`.
//!
//! Not a way to read files of any size.

use formats::compress::{DecompressError, decompress_all};
use formats::entry::Regular;
use formats::object::{Content, ObjectKind, ObjectName};
use store::{ObjectStore, StoreError};

/// Largest file read whole.
const FILE_BYTES_MAX: usize = 16 << 20;

/// Why content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// An object of it.
    #[error("cannot read object {name}")]
    Object {
        /// Which.
        name: ObjectName,
        /// Why.
        source: StoreError,
    },
    /// An object's bytes are no stream of the promised compression.
    #[error("cannot decompress object {name}")]
    Decompress {
        /// Which.
        name: ObjectName,
        /// Why.
        source: DecompressError,
    },
    /// Too large to be read whole.
    #[error("{0} bytes are too many; the most is {FILE_BYTES_MAX}")]
    TooLarge(u64),
}

/// Reads a file whole, each object from the first store that has it.
pub(crate) fn read(stores: &[&dyn ObjectStore], file: &Regular) -> Result<Vec<u8>, ContentError> {
    if file.size > FILE_BYTES_MAX as u64 {
        return Err(ContentError::TooLarge(file.size));
    }
    let names: Vec<ObjectName> = match &file.content {
        Content::Whole(hash) => vec![ObjectName::new(*hash, ObjectKind::Data)],
        Content::Chunks { chunks, .. } => chunks
            .iter()
            .map(|chunk| ObjectName::new(chunk.hash, ObjectKind::Chunk))
            .collect(),
    };
    let mut bytes = Vec::new();
    for name in names {
        let stored =
            fetch(stores, &name).map_err(|source| ContentError::Object { name, source })?;
        let piece = decompress_all(file.compression, &stored, FILE_BYTES_MAX)
            .map_err(|source| ContentError::Decompress { name, source })?;
        bytes.extend(piece);
    }
    Ok(bytes)
}

fn fetch(stores: &[&dyn ObjectStore], name: &ObjectName) -> Result<Vec<u8>, StoreError> {
    let mut missing = None;
    for store in stores {
        match store::get(*store, name, FILE_BYTES_MAX as u64) {
            Err(error) if error.is_not_found() => missing = Some(error),
            other => return other,
        }
    }
    Err(missing.unwrap_or_else(|| StoreError::NotFound {
        name: *name,
        place: String::new(),
    }))
}

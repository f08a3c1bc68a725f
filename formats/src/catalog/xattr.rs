//! Extended attributes as a catalog's `xattr` column holds them.
//!
//! ```text
//! version = 1 | count | count x (key length | value length | key | value)      each length one byte
//! ```
//!
//! Attributes stand in ascending byte order of their keys. Without any the column is NULL. CVMFS
//! drops longer values without a word and spoils those of exactly 256 bytes [CVMFS
//! `xattr.cc:Serialize`]; here the caller drops what [`fits`] refuses, and says so.

use crate::entry::Xattrs;

/// Longest key and longest value, in bytes.
pub const MAX_XATTR_BYTES: usize = 255;
/// Most attributes of one entry.
pub const MAX_XATTRS: usize = 255;

const VERSION: u8 = 1;

/// Why attributes cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// The blob ends early, or goes on after its last attribute.
    #[error("the xattr blob of {0} bytes does not have the length that it says")]
    Length(usize),
    /// Not version 1.
    #[error("the xattr blob is of version {0}")]
    Version(u8),
    /// An attribute without a name, or the same name twice.
    #[error("attribute {0:?} is nameless or there twice")]
    Key(String),
    /// Longer than the format can say.
    #[error("attribute {key:?} has a key of {} bytes and a value of {value} bytes; the longest is {MAX_XATTR_BYTES}", key.len())]
    TooLong {
        /// The attribute.
        key: String,
        /// Its value's length in bytes.
        value: usize,
    },
    /// More than [`MAX_XATTRS`].
    #[error("{0} attributes; the most is {MAX_XATTRS}")]
    TooMany(usize),
}

/// True if an attribute can be published.
#[must_use]
pub fn fits(key: &[u8], value: &[u8]) -> bool {
    (1..=MAX_XATTR_BYTES).contains(&key.len()) && value.len() <= MAX_XATTR_BYTES
}

/// Reads the blob of an `xattr` column.
///
/// # Errors
/// [`XattrError`] when the bytes are not such a blob.
pub fn parse(blob: &[u8]) -> Result<Xattrs, XattrError> {
    let bad_length = || XattrError::Length(blob.len());
    let mut xattrs = Xattrs::new();
    let [version, count, rest @ ..] = blob else {
        return Err(bad_length());
    };
    if *version != VERSION {
        return Err(XattrError::Version(*version));
    }
    let mut rest = rest;
    for _ in 0..*count {
        let [key_len, value_len, tail @ ..] = rest else {
            return Err(bad_length());
        };
        let (key, tail) = tail
            .split_at_checked(usize::from(*key_len))
            .ok_or_else(bad_length)?;
        let (value, tail) = tail
            .split_at_checked(usize::from(*value_len))
            .ok_or_else(bad_length)?;
        if key.is_empty() || xattrs.insert(key.to_vec(), value.to_vec()).is_some() {
            return Err(XattrError::Key(key.escape_ascii().to_string()));
        }
        rest = tail;
    }
    if rest.is_empty() {
        Ok(xattrs)
    } else {
        Err(bad_length())
    }
}

/// Writes the blob of an `xattr` column; none (NULL) if there are no attributes.
///
/// # Errors
/// [`XattrError`] when an attribute does not [fit](fits) or there are too many.
pub fn serialize(xattrs: &Xattrs) -> Result<Option<Vec<u8>>, XattrError> {
    if xattrs.is_empty() {
        return Ok(None);
    }
    let count = u8::try_from(xattrs.len()).map_err(|_| XattrError::TooMany(xattrs.len()))?;
    let mut blob = vec![VERSION, count];
    for (key, value) in xattrs {
        let text = || key.escape_ascii().to_string();
        if key.is_empty() {
            return Err(XattrError::Key(text()));
        }
        let too_long = |_| XattrError::TooLong {
            key: text(),
            value: value.len(),
        };
        blob.push(u8::try_from(key.len()).map_err(too_long)?);
        blob.push(u8::try_from(value.len()).map_err(too_long)?);
        blob.extend_from_slice(key);
        blob.extend_from_slice(value);
    }
    Ok(Some(blob))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &[u8], value: &[u8]) -> Xattrs {
        Xattrs::from([(key.to_vec(), value.to_vec())])
    }

    #[test]
    fn layout() {
        let mut xattrs = one(b"user.b", b"");
        xattrs.insert(b"user.a".to_vec(), b"\0\xff".to_vec());
        let blob = serialize(&xattrs).unwrap().unwrap();
        assert_eq!(blob, b"\x01\x02\x06\x02user.a\0\xff\x06\x00user.b");
        assert_eq!(parse(&blob).unwrap(), xattrs);
        assert_eq!(serialize(&Xattrs::new()).unwrap(), None);
        assert_eq!(parse(b"\x01\x00").unwrap(), Xattrs::new());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(serialize(&one(&[b'k'; 255], &[0; 255])).is_ok());
        assert!(fits(&[b'k'; 255], &[0; 255]));
        for (key, value) in [(255, 256), (256, 255), (0, 1)] {
            let (key, value) = (vec![b'k'; key], vec![0; value]);
            assert!(serialize(&one(&key, &value)).is_err());
            assert!(!fits(&key, &value));
        }
        let many: Xattrs = (0..256)
            .map(|i: u32| (i.to_be_bytes().to_vec(), vec![]))
            .collect();
        assert_eq!(serialize(&many), Err(XattrError::TooMany(256)));
    }

    #[test]
    fn refuses_every_cut_and_every_tail() {
        let blob = serialize(&one(b"user.key", b"value")).unwrap().unwrap();
        for end in 0..blob.len() {
            assert!(parse(&blob[..end]).is_err(), "{end}");
        }
        assert!(parse(&[&blob[..], b"x"].concat()).is_err());
        assert!(parse(b"\x02\x00").is_err());
        assert!(parse(b"\x01\x02\x01\x00a\x01\x00a").is_err());
        assert!(parse(b"\x01\x01\x00\x01v").is_err());
    }
}

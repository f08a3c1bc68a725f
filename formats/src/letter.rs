//! The frame that manifest and whitelist share: text, its hash, a signature.
//!
//! ```text
//! <body, ending in a newline>
//! --
//! <hash of the body>
//! <raw signature bytes to the end of the file>
//! ```
//! [CVMFS `crypto/signature.cc:CutLetter`]. The signature is over the hash's text. This module
//! never verifies one.

use crate::hash::{Hash, HashError};

/// No RSA key that anybody uses signs with more bytes (a modulus of 16384 bits).
const MAX_SIGNATURE_BYTES: usize = 2048;

/// The longest text form of a hash.
const MAX_HASH_TEXT: usize = 49;

/// Why bytes are not a signed text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// There is no `--` line.
    #[error("no signature: the line \"--\" is missing")]
    NoSeparator,
    /// The line after it is no hash.
    #[error("the line after \"--\" is no hash")]
    BadHash(#[source] HashError),
    /// The text is not the one that was signed.
    #[error("the text's hash is {actual}, but {stated} is stated below it")]
    HashMismatch {
        /// What stands in the file.
        stated: Hash,
        /// What the text makes.
        actual: Hash,
    },
    /// There is no signature, or far too much of one.
    #[error("a signature of {0} bytes")]
    BadSignatureLength(usize),
}

/// The parts of a signed text.
pub(crate) struct Letter<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) hash: Hash,
    pub(crate) signature: &'a [u8],
}

/// Takes a signed text apart and compares the body with its hash.
pub(crate) fn split(bytes: &[u8]) -> Result<Letter<'_>, LetterError> {
    const SEPARATOR: &[u8] = b"\n--\n";
    let at = bytes
        .windows(SEPARATOR.len())
        .position(|window| window == SEPARATOR)
        .ok_or(LetterError::NoSeparator)?;
    let body = &bytes[..=at];
    let rest = &bytes[at + SEPARATOR.len()..];
    // without the newline there is no signature either; the hash's own error says more then
    let end = rest
        .iter()
        .take(MAX_HASH_TEXT + 1)
        .position(|b| *b == b'\n')
        .unwrap_or(rest.len().min(MAX_HASH_TEXT));
    let stated: Hash = String::from_utf8_lossy(&rest[..end])
        .parse()
        .map_err(LetterError::BadHash)?;
    let actual = Hash::of(stated.algorithm(), body);
    if actual != stated {
        return Err(LetterError::HashMismatch { stated, actual });
    }
    let signature = rest.get(end + 1..).unwrap_or_default();
    if signature.is_empty() || signature.len() > MAX_SIGNATURE_BYTES {
        return Err(LetterError::BadSignatureLength(signature.len()));
    }
    Ok(Letter {
        body,
        hash: stated,
        signature,
    })
}

/// Puts a signed text together.
pub(crate) fn join(body: &[u8], hash: &Hash, signature: &[u8]) -> Vec<u8> {
    let hash = hash.to_string();
    [body, b"--\n", hash.as_bytes(), b"\n", signature].concat()
}

//! What proves to a gateway who is asking: the key of a `.gw` file, and the token of a lease.
//!
//! ```text
//! plain_text key1 secret1                    REPO.gw, first line   [CVMFS gateway_util.cc:ParseKey]
//! Authorization: key1 base64(hex(HMAC-SHA1(secret, message)))      [gw/frontend/hmac.go]
//! ```
//!
//! Neither secret nor token has a `Debug` that shows it, or a `Display`. Nothing here speaks HTTP.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the gateway's key {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no key.
    #[error(
        "{path} is no gateway key: its first line has to be `plain_text ID SECRET`, as on the gateway"
    )]
    Format {
        /// Which file.
        path: PathBuf,
    },
}

/// A gateway's key: an id, and a secret that never leaves this type.
pub struct Key {
    id: String,
    secret: Vec<u8>,
}

impl Key {
    /// Reads a `.gw` file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read(path).map_err(|source| KeyError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text).ok_or_else(|| KeyError::Format {
            path: path.to_path_buf(),
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let line = text.split(|b| *b == b'\n').next()?;
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let (kind, id, secret) = (words.next()?, words.next()?, words.next()?);
        (kind == "plain_text" && words.next().is_none()).then(|| Self {
            id: id.to_owned(),
            secret: secret.as_bytes().to_vec(),
        })
    }

    /// The key's id, which is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The value of the header `Authorization` for a message.
    ///
    /// # Errors
    /// When the system's OpenSSL refuses to make an HMAC.
    pub(super) fn authorize(&self, message: &[u8]) -> Result<String, ErrorStack> {
        let key = PKey::hmac(&self.secret)?;
        let mac = Signer::new(MessageDigest::sha1(), &key)?.sign_oneshot_to_vec(message)?;
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = openssl::base64::encode_block(hex.as_bytes());
        Ok(format!("{} {text}", self.id))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The right to use a lease, by whoever knows it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    /// Takes a token as the gateway gives it. It becomes part of a URL, so anything but letters,
    /// digits and `=` is refused [gw/backend/lease.go: base32].
    pub(super) fn new(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'=';
        (!text.is_empty() && text.len() <= 256 && text.bytes().all(good))
            .then(|| Self(text.to_owned()))
    }

    /// The text itself: for a request, or for the file that only its owner may read.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<Key> {
        Key::parse(text.as_bytes())
    }

    #[test]
    fn header_of_the_official_client() {
        let key = key("plain_text k1 s1\n").unwrap();
        assert_eq!(
            key.authorize(b"TOKEN====").unwrap(),
            "k1 ZDM4ZmU4MzVjZjFkNDJmOGJjZTU5YmFmMzBmMDJiODJhYjdmODljZA=="
        );
    }

    #[test]
    fn files_that_are_no_keys() {
        for bad in [
            "",
            "plain_text k1",
            "file k1 s1",
            "plain_text k1 s1 more",
            "\nplain_text k s",
        ] {
            assert!(key(bad).is_none(), "{bad:?}");
        }
        assert!(key("plain_text\tk1  s1").is_some());
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = key("plain_text k1 hush").unwrap();
        let token = Token::new("AB23====").unwrap();
        let shown = format!("{key:?} {token:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("AB23"),
            "{shown}"
        );
    }

    #[test]
    fn tokens_that_would_change_a_url() {
        for bad in ["", "a/b", "a?b", "a b", "..", "a\n"] {
            assert!(Token::new(bad).is_none(), "{bad:?}");
        }
    }
}

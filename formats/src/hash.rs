//! Content hashes: 160 bits of SHA-1, RIPEMD-160 or SHAKE128.
//!
//! Text form: 40 lower-case hex digits and the algorithm's id (`""`, `-rmd160`, `-shake128`)
//! [CVMFS `crypto/hash.cc:kAlgorithmIds`]. An object's name is the hash of its *stored* bytes,
//! after compression.

use std::fmt;
use std::str::FromStr;

use digest::{Digest, ExtendableOutput, Update, XofReader};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in a digest, whatever the algorithm.
pub const DIGEST_LEN: usize = 20;

/// A content hash algorithm, by the names `server.conf` and `mkfs` use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-1, the default.
    #[default]
    Sha1,
    /// RIPEMD-160.
    Rmd160,
    /// SHAKE128 squeezed to 160 bits.
    Shake128,
}

impl Algorithm {
    /// The suffix in a hash's text form.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Sha1 => "",
            Self::Rmd160 => "-rmd160",
            Self::Shake128 => "-shake128",
        }
    }

    /// The value of bits 8 to 10 of a catalog row's flags [`catalog_sql.cc:StoreHashAlgorithm`].
    #[must_use]
    pub fn flag_bits(self) -> u32 {
        match self {
            Self::Sha1 => 0,
            Self::Rmd160 => 1,
            Self::Shake128 => 2,
        }
    }

    /// The algorithm that bits 8 to 10 of a catalog row's flags stand for.
    #[must_use]
    pub fn from_flag_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::Sha1),
            1 => Some(Self::Rmd160),
            2 => Some(Self::Shake128),
            _ => None,
        }
    }

    /// The name in `CVMFS_HASH_ALGORITHM`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Rmd160 => "rmd160",
            Self::Shake128 => "shake128",
        }
    }
}

impl FromStr for Algorithm {
    type Err = HashError;

    fn from_str(s: &str) -> Result<Self, HashError> {
        match s {
            "sha1" => Ok(Self::Sha1),
            "rmd160" => Ok(Self::Rmd160),
            "shake128" => Ok(Self::Shake128),
            _ => Err(HashError::UnknownAlgorithm(s.chars().take(64).collect())),
        }
    }
}

/// Why a text is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not 40 hex digits and a known algorithm id.
    #[error("not a content hash: {0:?}")]
    Malformed(String),
    /// Not one of the three algorithm names.
    #[error("unknown hash algorithm {0:?}; one of sha1, rmd160, shake128")]
    UnknownAlgorithm(String),
}

/// A content hash: algorithm and 160 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash {
    algorithm: Algorithm,
    digest: [u8; DIGEST_LEN],
}

impl Hash {
    /// A hash from its parts.
    #[must_use]
    pub fn new(algorithm: Algorithm, digest: [u8; DIGEST_LEN]) -> Self {
        Self { algorithm, digest }
    }

    /// The all-zero placeholder that databases hold where nothing came before.
    #[must_use]
    pub fn null() -> Self {
        Self::new(Algorithm::Sha1, [0; DIGEST_LEN])
    }

    /// Hashes `bytes` in one call.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// True for the all-zero placeholder.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.digest == [0; DIGEST_LEN]
    }

    /// Which algorithm made it.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The 20 raw bytes, as catalog rows hold them.
    #[must_use]
    pub fn digest(&self) -> &[u8; DIGEST_LEN] {
        &self.digest
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // names are made by the hundred thousand, and formatting byte by byte shows in a commit
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 2 * DIGEST_LEN];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.digest) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)?;
        f.write_str(self.algorithm.id())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(s: &str) -> Result<Self, HashError> {
        let malformed = || HashError::Malformed(s.chars().take(64).collect());
        let (hex_part, id) = s.split_at_checked(2 * DIGEST_LEN).ok_or_else(malformed)?;
        let algorithm = match id {
            "" => Algorithm::Sha1,
            "-rmd160" => Algorithm::Rmd160,
            "-shake128" => Algorithm::Shake128,
            _ => return Err(malformed()),
        };
        // one object has one name: upper-case digits are no hash to CVMFS either
        if hex_part.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(malformed());
        }
        let mut digest = [0; DIGEST_LEN];
        hex::decode_to_slice(hex_part, &mut digest).map_err(|_| malformed())?;
        Ok(Self { algorithm, digest })
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A running hash over bytes that arrive in pieces.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one object; a box would be an allocation each"
)]
enum State {
    Sha1(sha1::Sha1),
    Rmd160(ripemd::Ripemd160),
    Shake128(sha3::Shake128),
}

impl Hasher {
    /// Starts on no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha1 => State::Sha1(sha1::Sha1::default()),
            Algorithm::Rmd160 => State::Rmd160(ripemd::Ripemd160::default()),
            Algorithm::Shake128 => State::Shake128(sha3::Shake128::default()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha1(h) => Update::update(h, bytes),
            State::Rmd160(h) => Update::update(h, bytes),
            State::Shake128(h) => Update::update(h, bytes),
        }
    }

    /// The hash of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Hash {
        match self.0 {
            State::Sha1(h) => Hash::new(Algorithm::Sha1, h.finalize().into()),
            State::Rmd160(h) => Hash::new(Algorithm::Rmd160, h.finalize().into()),
            State::Shake128(h) => {
                let mut digest = [0; DIGEST_LEN];
                h.finalize_xof().read(&mut digest);
                Hash::new(Algorithm::Shake128, digest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // the zlib stream of an empty file, as every CVMFS repository stores it
        let empty = [0x78, 0x9c, 0x03, 0, 0, 0, 0, 1];
        for (algorithm, text) in [
            (Algorithm::Sha1, "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"),
            (
                Algorithm::Rmd160,
                "fcdb20b894f31f1306d56294c049ca7293dde0fc-rmd160",
            ),
            (
                Algorithm::Shake128,
                "28d94b83b7229b331fc601362b8e272e02665122-shake128",
            ),
        ] {
            let hash = Hash::of(algorithm, &empty);
            assert_eq!(hash.to_string(), text);
            assert_eq!(text.parse::<Hash>().unwrap(), hash);
        }
    }

    #[test]
    fn refuses_what_is_no_hash() {
        for bad in [
            "",
            "e8ec",
            "zz",
            &"g".repeat(40),
            &"A".repeat(40),
            &format!("{}-md5", "0".repeat(40)),
            "é",
        ] {
            assert!(bad.parse::<Hash>().is_err(), "{bad:?}");
        }
    }
}

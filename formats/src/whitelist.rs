//! `.cvmfswhitelist`: which certificates may sign a repository's manifest, and until when.
//!
//! ```text
//! YYYYMMDDhhmmss             issued, UTC; nobody reads it
//! EYYYYMMDDhhmmss            expires, UTC
//! N<fully qualified name>
//! [Vpkcs7] [Wcachain]        other ways of trust, a line each
//! AA:BB:..[-SHAKE128] # ..   a certificate's fingerprint, one or more lines
//! --
//! <hash of everything above the "--" line>
//! <raw signature bytes, by the master key>
//! ```
//! [CVMFS `whitelist.cc:ParseWhitelist`]
//!
//! This module checks the text against its hash, never the signature: that is [`crate::trust`]'s.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::hash::{Algorithm, DIGEST_LEN, Hash};
use crate::letter::{self, LetterError};
use stamp::Stamp;

mod stamp;

/// Far above what a repository with hundreds of signers needs.
pub const MAX_WHITELIST_BYTES: usize = 1 << 20;

/// Why bytes are not a whitelist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhitelistError {
    /// The file is too large.
    #[error("whitelist of {0} bytes; it must not exceed {MAX_WHITELIST_BYTES}")]
    TooLarge(usize),
    /// A line at the top is not what must stand there.
    #[error("whitelist: line {line} is not {expected}")]
    BadLine {
        /// Counted from 1.
        line: usize,
        /// What belongs there.
        expected: &'static str,
    },
    /// The signed part is malformed, or not the one that the hash below it is of.
    #[error("whitelist")]
    Letter(#[from] LetterError),
}

/// The hash of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub Hash);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.digest().iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        f.write_str(&self.0.algorithm().id().to_ascii_uppercase())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no fingerprint of a hash algorithm that repositories use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate fingerprint")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads `AA:BB:..` and an algorithm id, up to a blank or `#`.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let end = text.find([' ', '\t', '#']).unwrap_or(text.len());
        let (digits, id) = match text[..end].split_once('-') {
            Some((digits, id)) => (digits, Some(id)),
            None => (&text[..end], None),
        };
        let algorithm = match id.map(str::to_ascii_lowercase).as_deref() {
            None => Algorithm::Sha1,
            Some("rmd160") => Algorithm::Rmd160,
            Some("shake128") => Algorithm::Shake128,
            Some(_) => return Err(FingerprintError),
        };
        let digits: String = digits.chars().filter(|c| *c != ':').collect();
        let mut digest = [0; DIGEST_LEN];
        hex::decode_to_slice(digits, &mut digest).map_err(|_| FingerprintError)?;
        Ok(Self(Hash::new(algorithm, digest)))
    }
}

/// What a whitelist says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whitelist {
    /// The fully qualified name of the repository it is for.
    pub name: String,
    issued: Stamp,
    expires: Stamp,
    /// Trust comes from a PKCS#7 file instead of the master key.
    pub pkcs7: bool,
    /// The certificate's chain must verify as well.
    pub ca_chain: bool,
    /// The certificates that may sign.
    pub fingerprints: Vec<Fingerprint>,
    /// Lines among the fingerprints that are none (comments, retired hash algorithms), kept for
    /// when the whitelist is written anew.
    pub other_lines: Vec<String>,
}

impl Whitelist {
    /// A whitelist from `issued` on, for `validity`.
    #[must_use]
    pub fn new(
        name: &str,
        fingerprints: Vec<Fingerprint>,
        issued: SystemTime,
        validity: Duration,
    ) -> Self {
        Self {
            name: name.to_owned(),
            issued: Stamp::at(issued),
            expires: Stamp::at(issued).plus(validity),
            pkcs7: false,
            ca_chain: false,
            fingerprints,
            other_lines: Vec::new(),
        }
    }

    /// The same whitelist with a new term.
    #[must_use]
    pub fn renewed(&self, issued: SystemTime, validity: Duration) -> Self {
        Self {
            issued: Stamp::at(issued),
            expires: Stamp::at(issued).plus(validity),
            ..self.clone()
        }
    }

    /// When clients cease to take it. They compare down to the hour alone, so that it ends with
    /// the last full hour of what is written.
    #[must_use]
    pub fn ends(&self) -> SystemTime {
        self.expires.full_hour().time()
    }

    /// What is left of its term; none when it is over.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Option<Duration> {
        self.ends()
            .duration_since(now)
            .ok()
            .filter(|left| !left.is_zero())
    }

    /// True if the certificate may sign.
    #[must_use]
    pub fn lists(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprints.contains(fingerprint)
    }

    /// The lines above the `--`.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut text = format!("{}\nE{}\nN{}\n", self.issued, self.expires, self.name);
        if self.pkcs7 {
            text.push_str("Vpkcs7\n");
        }
        if self.ca_chain {
            text.push_str("Wcachain\n");
        }
        for fingerprint in &self.fingerprints {
            text.push_str(&format!("{fingerprint}\n"));
        }
        for line in &self.other_lines {
            text.push_str(line);
            text.push('\n');
        }
        text.into_bytes()
    }

    /// Reads the lines up to a `--` or the end.
    ///
    /// # Errors
    /// [`WhitelistError`].
    pub fn parse_body(bytes: &[u8]) -> Result<Self, WhitelistError> {
        if bytes.len() > MAX_WHITELIST_BYTES {
            return Err(WhitelistError::TooLarge(bytes.len()));
        }
        let bad = |line, expected| WhitelistError::BadLine { line, expected };
        let text = String::from_utf8_lossy(bytes);
        // not str::lines: that would take a carriage return for part of the line's end
        let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
        let mut lines = lines.take_while(|line| *line != "--").peekable();
        let first = lines.next().unwrap_or_default();
        if first.len() != Stamp::LEN {
            return Err(bad(1, "a time"));
        }
        // readers ignore what the first line says
        let issued = first.parse().unwrap_or(Stamp::EPOCH);
        let expires = lines
            .next()
            .and_then(|line| line.strip_prefix('E'))
            .and_then(|stamp| stamp.parse().ok())
            .ok_or(bad(2, "E and a time"))?;
        let name = lines
            .next()
            .and_then(|line| line.strip_prefix('N'))
            .filter(|name| !name.is_empty())
            .ok_or(bad(3, "N and a name"))?
            .to_owned();
        let pkcs7 = lines.next_if_eq(&"Vpkcs7").is_some();
        let ca_chain = lines.next_if_eq(&"Wcachain").is_some();
        let (mut fingerprints, mut other_lines) = (Vec::new(), Vec::new());
        for line in lines {
            match line.parse() {
                Ok(fingerprint) => fingerprints.push(fingerprint),
                Err(FingerprintError) => other_lines.push(line.to_owned()),
            }
        }
        Ok(Self {
            name,
            issued,
            expires,
            pkcs7,
            ca_chain,
            fingerprints,
            other_lines,
        })
    }
}

/// A whitelist as it lies in the storage: what it says, and the signature's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedWhitelist {
    /// What it says.
    pub whitelist: Whitelist,
    /// The bytes that were hashed.
    pub body: Vec<u8>,
    /// Their hash; its text is what was signed.
    pub body_hash: Hash,
    /// The signature as it stands in the file, unverified.
    pub signature: Vec<u8>,
}

impl SignedWhitelist {
    /// Reads a whole `.cvmfswhitelist` and checks the body against its hash, not the signature.
    ///
    /// # Errors
    /// [`WhitelistError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, WhitelistError> {
        if bytes.len() > MAX_WHITELIST_BYTES {
            return Err(WhitelistError::TooLarge(bytes.len()));
        }
        let letter = letter::split(bytes)?;
        Ok(Self {
            whitelist: Whitelist::parse_body(letter.body)?,
            body: letter.body.to_vec(),
            body_hash: letter.hash,
            signature: letter.signature.to_vec(),
        })
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        letter::join(&self.body, &self.body_hash, &self.signature)
    }
}

#[cfg(test)]
mod tests;

//! `.cvmfspublished`: which revision a repository is at, and who says so.
//!
//! ```text
//! C<root catalog>            always, in this order
//! B<bytes of that catalog, uncompressed>
//! R<MD5 of the root path>    always d41d8cd98f00b204e9800998ecf8427e
//! D<time to live, s>
//! S<revision>
//! G<yes|no>                  garbage collectable
//! A<yes|no>                  `.cvmfsalt-` links exist
//! L N X H T M Y              micro catalog, name, certificate, tags, time, meta info, reflog;
//! --                         each only if known
//! <hash of everything above the "--" line, in C's algorithm>
//! <raw signature bytes>
//! ```
//! [CVMFS `manifest.cc:ExportString`, `signing_tool.cc:Run`]
//!
//! This module checks the text against its hash, never the signature: that is [`crate::trust`]'s.

use crate::hash::{Algorithm, Hash, HashError};
use crate::letter::{self, LetterError};

/// Readers refuse a manifest file of this size or more [`util/string.cc:ParseKeyvalPath`].
pub const MAX_MANIFEST_BYTES: usize = 4096;

/// MD5 of the empty path.
const ROOT_PATH_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The file is too large for any reader.
    #[error("manifest of {0} bytes; it must stay below {MAX_MANIFEST_BYTES}")]
    TooLarge(usize),
    /// A field that must be there is not.
    #[error("manifest lacks its {0} line")]
    Missing(char),
    /// A field's value makes no sense.
    #[error("manifest: bad {key} line {value:?}")]
    BadValue {
        /// The line's letter.
        key: char,
        /// What stands after it, shortened.
        value: String,
    },
    /// A hash is malformed.
    #[error("manifest: bad {key} line")]
    BadHash {
        /// The line's letter.
        key: char,
        /// What is wrong with it.
        source: HashError,
    },
    /// The signed part is malformed, or not the one that the hash below it is of.
    #[error("manifest")]
    Letter(#[from] LetterError),
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// C: the root catalog.
    pub root_catalog: Hash,
    /// B: size of the root catalog's database file, uncompressed.
    pub catalog_bytes: u64,
    /// D: how long clients may go without looking for a newer revision.
    pub ttl_seconds: u64,
    /// S: the revision.
    pub revision: u64,
    /// G: whether unreferenced objects may be removed.
    pub garbage_collectable: bool,
    /// A: whether the root objects are reachable by their `.cvmfsalt-` names too.
    pub alt_paths: bool,
    /// L: unused by CVMFS.
    pub micro_catalog: Option<Hash>,
    /// N: the repository's fully qualified name; empty only in a gateway's unsigned manifests.
    pub name: String,
    /// X: the certificate that goes with the signature.
    pub certificate: Option<Hash>,
    /// H: the tag database.
    pub history: Option<Hash>,
    /// T: when it was signed, seconds since 1970; 0 if unknown.
    pub published: u64,
    /// M: the repository's meta information.
    pub meta_info: Option<Hash>,
    /// Y: the reflog, hashed as the raw file.
    pub reflog: Option<Hash>,
}

impl Manifest {
    /// A manifest of a first revision: nothing but the root catalog is known.
    #[must_use]
    pub fn new(name: &str, root_catalog: Hash, catalog_bytes: u64) -> Self {
        Self {
            root_catalog,
            catalog_bytes,
            ttl_seconds: 240,
            revision: 0,
            garbage_collectable: false,
            alt_paths: false,
            micro_catalog: None,
            name: name.to_owned(),
            certificate: None,
            history: None,
            published: 0,
            meta_info: None,
            reflog: None,
        }
    }

    /// The lines above the `--`, in the official order.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let yes_no = |yes: bool| if yes { "yes" } else { "no" };
        let mut text = format!(
            "C{}\nB{}\nR{ROOT_PATH_MD5}\nD{}\nS{}\nG{}\nA{}\n",
            self.root_catalog,
            self.catalog_bytes,
            self.ttl_seconds,
            self.revision,
            yes_no(self.garbage_collectable),
            yes_no(self.alt_paths),
        );
        let mut line = |key: char, value: Option<String>| {
            if let Some(value) = value {
                text.push(key);
                text.push_str(&value);
                text.push('\n');
            }
        };
        let hash = |hash: &Option<Hash>| hash.filter(|h| !h.is_null()).map(|h| h.to_string());
        line('L', hash(&self.micro_catalog));
        line('N', Some(self.name.clone()).filter(|n| !n.is_empty()));
        line('X', hash(&self.certificate));
        line('H', hash(&self.history));
        let published = (self.published > 0).then(|| self.published.to_string());
        line('T', published);
        line('M', hash(&self.meta_info));
        line('Y', hash(&self.reflog));
        text.into_bytes()
    }

    /// Reads the lines up to a `--` or the end. Unknown letters are skipped; of a letter that
    /// stands twice the last line counts.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse_body(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() >= MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let fields = Fields::split(bytes);
        if fields.required('R')? != ROOT_PATH_MD5.as_bytes() {
            return Err(fields.bad('R'));
        }
        let manifest = Self {
            root_catalog: fields.hash('C')?.ok_or(ManifestError::Missing('C'))?,
            catalog_bytes: fields.number('B')?.unwrap_or(0),
            ttl_seconds: fields.number('D')?.ok_or(ManifestError::Missing('D'))?,
            revision: fields.number('S')?.ok_or(ManifestError::Missing('S'))?,
            garbage_collectable: fields.yes('G')?,
            alt_paths: fields.yes('A')?,
            micro_catalog: fields.hash('L')?,
            name: fields.name()?,
            certificate: fields.hash('X')?,
            history: fields.hash('H')?,
            published: fields.number('T')?.unwrap_or(0),
            meta_info: fields.hash('M')?,
            reflog: fields.hash('Y')?,
        };
        Ok(manifest)
    }
}

/// A manifest as it lies in the storage: what it says, and the signature's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    /// What it says.
    pub manifest: Manifest,
    /// The bytes that were hashed.
    pub body: Vec<u8>,
    /// Their hash; its text is what was signed.
    pub body_hash: Hash,
    /// The signature as it stands in the file, unverified.
    pub signature: Vec<u8>,
}

impl SignedManifest {
    /// Reads a whole `.cvmfspublished` and checks the body against its hash, not the signature.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() >= MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let letter = letter::split(bytes)?;
        Ok(Self {
            manifest: Manifest::parse_body(letter.body)?,
            body: letter.body.to_vec(),
            body_hash: letter.hash,
            signature: letter.signature.to_vec(),
        })
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`ManifestError::TooLarge`] when no reader would take them.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let bytes = letter::join(&self.body, &self.body_hash, &self.signature);
        if bytes.len() >= MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// The repository's hash algorithm, by the root catalog's.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.manifest.root_catalog.algorithm()
    }
}

/// The last line of each letter.
struct Fields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Fields<'a> {
    fn split(bytes: &'a [u8]) -> Self {
        let lines = bytes
            .split(|b| *b == b'\n')
            .take_while(|line| *line != b"--")
            .filter_map(|line| line.split_first())
            .map(|(key, value)| (*key, value));
        Self(lines.collect())
    }

    fn get(&self, key: char) -> Option<&'a [u8]> {
        let found = self.0.iter().rfind(|(k, _)| char::from(*k) == key);
        found.map(|(_, value)| *value)
    }

    fn required(&self, key: char) -> Result<&'a [u8], ManifestError> {
        self.get(key).ok_or(ManifestError::Missing(key))
    }

    fn bad(&self, key: char) -> ManifestError {
        let value = self.get(key).unwrap_or_default();
        let value = &value[..value.len().min(80)];
        ManifestError::BadValue {
            key,
            value: String::from_utf8_lossy(value).into_owned(),
        }
    }

    fn text(&self, key: char) -> Result<Option<&'a str>, ManifestError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value).map_err(|_| self.bad(key))?;
        Ok(Some(text))
    }

    /// A hash; all zeros stand for none.
    fn hash(&self, key: char) -> Result<Option<Hash>, ManifestError> {
        let parse = |text: &str| text.parse::<Hash>();
        let hash = self.text(key)?.map(parse).transpose();
        let hash = hash.map_err(|source| ManifestError::BadHash { key, source })?;
        Ok(hash.filter(|h| !h.is_null()))
    }

    fn number(&self, key: char) -> Result<Option<u64>, ManifestError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        // u64::from_str takes a plus sign, which no writer makes
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.bad(key));
        }
        text.parse().map(Some).map_err(|_| self.bad(key))
    }

    fn yes(&self, key: char) -> Result<bool, ManifestError> {
        match self.get(key) {
            Some(b"yes") => Ok(true),
            Some(b"no") | None => Ok(false),
            Some(_) => Err(self.bad(key)),
        }
    }

    fn name(&self) -> Result<String, ManifestError> {
        let name = self.text('N')?.unwrap_or_default();
        if name.chars().any(char::is_control) {
            return Err(self.bad('N'));
        }
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests;

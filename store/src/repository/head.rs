//! The signed head: manifest, whitelist and certificate, each verified against the next.
//!
//! Checked in the order of a client, so that messages agree: the manifest's name, the whitelist
//! (signature, repository, term), the certificate's place on it, the manifest's signature. Reading
//! and verifying are two steps, because who renews an expired whitelist has to read it.

use std::sync::Arc;
use std::time::SystemTime;

use formats::manifest::{Manifest, ManifestError, SignedManifest};
use formats::trust::{self, Certificate, PublicKey, TrustError};
use formats::whitelist::{SignedWhitelist, Whitelist, WhitelistError};
use formats::{Compression, ObjectKind, ObjectName};

use super::{RepoError, Repository};
use crate::error::StoreError;
use crate::fetch::{ObjectFault, Size, fetch};
use crate::revision::Revision;

/// The manifest's file.
pub const MANIFEST_FILE: &str = ".cvmfspublished";
/// The whitelist's file.
pub const WHITELIST_FILE: &str = ".cvmfswhitelist";
/// Far above any certificate.
const MAX_CERTIFICATE_BYTES: u64 = 1 << 20;

/// Why a repository's head cannot be trusted or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HeadError {
    /// A root file is missing or cannot be read.
    #[error("cannot read {file} of {repository}")]
    Read {
        /// Which repository.
        repository: String,
        /// Which file.
        file: &'static str,
        /// Why.
        source: StoreError,
    },
    /// `.cvmfspublished` is malformed.
    #[error("{MANIFEST_FILE} of {repository} is malformed")]
    BadManifest {
        /// Which repository.
        repository: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// `.cvmfswhitelist` is malformed.
    #[error("{WHITELIST_FILE} of {repository} is malformed")]
    BadWhitelist {
        /// Which repository.
        repository: String,
        /// What is wrong with it.
        source: WhitelistError,
    },
    /// The manifest is another repository's.
    #[error("{MANIFEST_FILE} is for {found:?}, not {repository}")]
    WrongName {
        /// Which repository was wanted.
        repository: String,
        /// Whose it is.
        found: String,
    },
    /// The manifest names no certificate.
    #[error("{MANIFEST_FILE} of {repository} names no certificate")]
    NoCertificate {
        /// Which repository.
        repository: String,
    },
    /// The certificate's object is of no use.
    #[error("certificate {object} of {repository} cannot be used")]
    Certificate {
        /// Which repository.
        repository: String,
        /// The object.
        object: ObjectName,
        /// What is wrong with it.
        #[source]
        fault: Box<ObjectFault>,
    },
    /// The certificate's object is whole, and no certificate.
    #[error("object {object} of {repository} is not a certificate")]
    NotACertificate {
        /// Which repository.
        repository: String,
        /// The object.
        object: ObjectName,
        /// What is wrong with it.
        source: TrustError,
    },
    /// The whitelist is expired, for another repository, or not signed with one of the keys.
    #[error("{WHITELIST_FILE} of {repository} is not valid")]
    Whitelist {
        /// Which repository.
        repository: String,
        /// What is wrong with it.
        source: TrustError,
    },
    /// The certificate is not on the whitelist.
    #[error("the certificate of {repository} is not trusted")]
    NotListed {
        /// Which repository.
        repository: String,
        /// Which certificate.
        source: TrustError,
    },
    /// The manifest is not signed with the certificate's key.
    #[error("{MANIFEST_FILE} of {repository} is not valid")]
    Signature {
        /// Which repository.
        repository: String,
        /// What is wrong with it.
        source: TrustError,
    },
}

impl HeadError {
    /// True where only the whitelist's term is over; everything else is in order up to there.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        matches!(
            self,
            Self::Whitelist {
                source: TrustError::Expired,
                ..
            }
        )
    }

    /// True where there is no whitelist, or none that can be read: who has the master key can make
    /// a new one.
    #[must_use]
    pub fn is_without_whitelist(&self) -> bool {
        match self {
            Self::Read { file, source, .. } => {
                *file == WHITELIST_FILE && matches!(source, StoreError::RootNotFound { .. })
            }
            Self::BadWhitelist { .. } => true,
            _ => false,
        }
    }
}

/// What a repository's root files say. Only [`Repository::head`] hands out a verified one.
#[derive(Debug, Clone)]
pub struct Head {
    /// `.cvmfspublished`.
    pub manifest: SignedManifest,
    /// `.cvmfswhitelist`.
    pub whitelist: SignedWhitelist,
    /// The certificate that the manifest names.
    pub certificate: Certificate,
}

impl Head {
    /// What the manifest says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest.manifest
    }

    /// What the whitelist says.
    #[must_use]
    pub fn whitelist(&self) -> &Whitelist {
        &self.whitelist.whitelist
    }

    /// Verifies the whole chain.
    ///
    /// # Errors
    /// [`HeadError`], the first link that does not hold.
    pub fn verify(&self, name: &str, keys: &[PublicKey], now: SystemTime) -> Result<(), HeadError> {
        let repository = || name.to_owned();
        if self.manifest().name != name {
            let found = self.manifest().name.clone();
            return Err(HeadError::WrongName {
                repository: repository(),
                found,
            });
        }
        trust::verify_whitelist(&self.whitelist, name, keys, now).map_err(|source| {
            HeadError::Whitelist {
                repository: repository(),
                source,
            }
        })?;
        trust::verify_listed(self.whitelist(), &self.certificate).map_err(|source| {
            HeadError::NotListed {
                repository: repository(),
                source,
            }
        })?;
        trust::verify_manifest(&self.manifest, &self.certificate).map_err(|source| {
            HeadError::Signature {
                repository: repository(),
                source,
            }
        })
    }
}

impl Repository {
    /// The published head, read afresh and verified as of `now`.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn head(&self, now: SystemTime) -> Result<Head, HeadError> {
        let head = self.unverified_head()?;
        head.verify(&self.name, &self.keys, now)?;
        Ok(head)
    }

    /// The published head, read afresh and not verified: for those who make a new whitelist, and
    /// for messages. Objects it names are still checked against their hashes.
    ///
    /// # Errors
    /// [`HeadError`] when a part is missing or malformed.
    pub fn unverified_head(&self) -> Result<Head, HeadError> {
        let manifest = self.unverified_manifest()?;
        let whitelist = self.unverified_whitelist()?;
        let certificate = self.certificate_of(&manifest)?;
        Ok(Head {
            manifest,
            whitelist,
            certificate,
        })
    }

    fn read_root(&self, file: &'static str) -> Result<Vec<u8>, HeadError> {
        self.store
            .read_root(file)
            .map_err(|source| HeadError::Read {
                repository: self.name.clone(),
                file,
                source,
            })
    }

    /// The published manifest alone, read afresh and not verified.
    ///
    /// # Errors
    /// [`HeadError`] when it is missing or malformed.
    pub fn unverified_manifest(&self) -> Result<SignedManifest, HeadError> {
        SignedManifest::parse(&self.read_root(MANIFEST_FILE)?).map_err(|source| {
            HeadError::BadManifest {
                repository: self.name.clone(),
                source,
            }
        })
    }

    /// The published whitelist alone, read afresh and not verified.
    ///
    /// # Errors
    /// [`HeadError`] when it is missing or malformed: [`HeadError::is_without_whitelist`].
    pub fn unverified_whitelist(&self) -> Result<SignedWhitelist, HeadError> {
        SignedWhitelist::parse(&self.read_root(WHITELIST_FILE)?).map_err(|source| {
            HeadError::BadWhitelist {
                repository: self.name.clone(),
                source,
            }
        })
    }

    /// The certificate that a manifest names; nobody has vouched for it.
    ///
    /// # Errors
    /// [`HeadError`] when there is none, or it cannot be used.
    pub fn certificate_of(&self, manifest: &SignedManifest) -> Result<Certificate, HeadError> {
        let repository = || self.name.clone();
        let Some(hash) = manifest.manifest.certificate else {
            return Err(HeadError::NoCertificate {
                repository: repository(),
            });
        };
        let object = ObjectName::new(hash, ObjectKind::Certificate);
        let pem = self
            .small_object(&object, MAX_CERTIFICATE_BYTES)
            .map_err(|fault| HeadError::Certificate {
                repository: repository(),
                object,
                fault: Box::new(fault),
            })?;
        Certificate::from_pem(&pem).map_err(|source| HeadError::NotACertificate {
            repository: repository(),
            object,
            source,
        })
    }

    /// The content of an object that is always zlib and fits into memory: tag database, meta
    /// information, certificate. Verified.
    ///
    /// # Errors
    /// [`ObjectFault`].
    pub fn small_object(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, ObjectFault> {
        let mut bytes = Vec::new();
        let out = (&mut bytes as &mut dyn std::io::Write, "memory".as_ref());
        let size = Size::AtMost(max_bytes);
        fetch(self.store.as_ref(), name, Compression::Zlib, size, out)?;
        Ok(bytes)
    }

    /// The revision that a head names.
    ///
    /// # Errors
    /// [`RepoError::Catalog`] when its root catalog cannot be used.
    pub fn revision_of(self: &Arc<Self>, head: &Head) -> Result<Arc<Revision>, RepoError> {
        let manifest = head.manifest();
        self.revision_sized(&manifest.root_catalog, Some(manifest.catalog_bytes))
    }
}

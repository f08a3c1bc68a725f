//! A new term for the whitelist, and new keys for a repository.
//!
//! ```text
//! same keys    whitelist: the certificates it has, a new term; one that is missing or cannot be
//!              read is made anew, for the certificate of the published manifest alone
//! new keys     whitelist: the old certificate and the new one  ->  manifest, signed with the new key
//!              ->  whitelist: without the old certificate
//! ```
//!
//! At every instant the manifest's certificate is on the whitelist. A renewal takes no lock: nobody
//! else writes the whitelist, and it must work while a publication is under way. New keys are
//! already in their place when this is called; making and guarding them is the caller's.

use std::time::{Duration, SystemTime};

use formats::hash::Algorithm;
use formats::manifest::SignedManifest;
use formats::trust::{self, Certificate, PrivateKey, TrustError};
use formats::whitelist::Whitelist;
use store::{HeadError, failpoint};

use crate::home::KeyFile;
use crate::mkfs::WHITELIST;
use crate::publisher::{Publisher, PublisherError};
use crate::stratum0::{Stratum0, TagEdit};
use crate::tags::{self, TagsError};

/// For how long a whitelist is valid if nobody says otherwise.
pub const DEFAULT_DAYS: u32 = 30;
/// Beyond this, ask people whether they mean it: a stolen key stays good for as long.
pub const USUAL_DAYS_MAX: u32 = 30;
/// Longest term: a typing error rather than a wish.
const DAYS_MAX: u32 = 3650;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Why nothing, or not everything, was signed anew.
#[derive(Debug, thiserror::Error)]
pub enum ResignError {
    /// A term of no or too many days.
    #[error("a whitelist cannot be valid for {0} days; 1 to {DAYS_MAX} are possible")]
    BadTerm(u32),
    /// The whitelist was not made with the keys at hand.
    #[error(
        "the published whitelist of {repo} was not signed with {public_key}; if the keys were replaced on purpose, `prepub resign {repo} --new-keys` signs with them"
    )]
    OtherMasterKey {
        /// Which repository.
        repo: String,
        /// What it should verify with.
        public_key: String,
        /// Why it does not.
        source: TrustError,
    },
    /// The manifest was not made with the keys at hand.
    #[error(
        "the published manifest of {repo} was not signed with {key}; if the keys were replaced on purpose, `prepub resign {repo} --new-keys` signs with them"
    )]
    OtherKey {
        /// Which repository.
        repo: String,
        /// What should have signed it.
        key: String,
    },
    /// The keys at hand do not belong together, or cannot sign.
    #[error("the keys of {repo}")]
    Keys {
        /// Which repository.
        repo: String,
        /// What is wrong.
        source: TrustError,
    },
    /// The manifest that is published is signed by nobody.
    #[error("the published manifest of {repo} is not signed by its own certificate")]
    BadManifest {
        /// Which repository.
        repo: String,
        /// What is wrong.
        source: TrustError,
    },
    /// The storage.
    #[error("cannot write {WHITELIST} of {repo}")]
    Write {
        /// Which repository.
        repo: String,
        /// Why.
        source: store::StoreError,
    },
    /// The standing revision cannot be signed again.
    #[error(transparent)]
    Manifest(#[from] TagsError),
    /// The publisher.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
}

/// What the whitelist is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resigned {
    /// When clients cease to take it.
    pub ends: SystemTime,
    /// The manifest was signed anew, too.
    pub manifest: bool,
    /// There was no whitelist that could be read: this one lists the present certificate alone.
    pub made_anew: bool,
}

/// Renews the whitelist, for `days` from `now`. The published one may have expired, or be missing.
///
/// # Errors
/// [`ResignError`]; then the whitelist is the one it was.
pub fn resign(publisher: &Stratum0, days: u32, now: SystemTime) -> Result<Resigned, ResignError> {
    let signer = Signer::new(publisher, days, now)?;
    let (manifest, certificate) = signer.published()?;
    let algorithm = signer.algorithm;
    if certificate.fingerprint(algorithm) != signer.certificate.fingerprint(algorithm) {
        let home = publisher.home();
        return Err(ResignError::OtherKey {
            repo: home.name.clone(),
            key: home.key_file(KeyFile::Key).display().to_string(),
        });
    }
    let published = signer.published_whitelist()?;
    let made_anew = published.is_none();
    let whitelist = match published {
        Some(published) => {
            let mut renewed = published.renewed(now, signer.term);
            list(&mut renewed, &signer.certificate, algorithm);
            renewed
        }
        None => {
            signer.must_have_signed(&manifest, &certificate)?;
            signer.whitelist()
        }
    };
    let ends = signer.write(whitelist)?;
    Ok(Resigned {
        ends,
        manifest: false,
        made_anew,
    })
}

/// Puts a repository under the keys that lie in its keys directory now, whoever signed it until now:
/// a new whitelist for `days` from `now`, and the published revision signed anew.
///
/// # Errors
/// [`ResignError`]. What was done until then is not undone; calling it again does the rest.
pub fn resign_with_new_keys(
    publisher: &Stratum0,
    days: u32,
    now: SystemTime,
) -> Result<Resigned, ResignError> {
    let signer = Signer::new(publisher, days, now)?;
    let locks = publisher.lock()?;
    let (manifest, certificate) = signer.published()?;
    // what nobody vouches for any more must at least be whole
    signer.must_have_signed(&manifest, &certificate)?;
    let whitelist = signer.whitelist();
    let mut both = whitelist.clone();
    list(&mut both, &certificate, signer.algorithm);
    signer.write(both)?;
    failpoint::pass("resign::before_manifest").map_err(PublisherError::from)?;
    let lease = publisher.lease_with(locks, now)?;
    tags::sign_again(publisher, lease, TagEdit::Keep, now)?;
    failpoint::pass("resign::after_manifest").map_err(PublisherError::from)?;
    let ends = signer.write(whitelist)?;
    Ok(Resigned {
        ends,
        manifest: true,
        made_anew: false,
    })
}

/// The keys at hand, and what they are to sign.
struct Signer<'p> {
    publisher: &'p Stratum0,
    master_key: PrivateKey,
    certificate: Certificate,
    algorithm: Algorithm,
    now: SystemTime,
    term: Duration,
}

impl<'p> Signer<'p> {
    fn new(publisher: &'p Stratum0, days: u32, now: SystemTime) -> Result<Self, ResignError> {
        if !(1..=DAYS_MAX).contains(&days) {
            return Err(ResignError::BadTerm(days));
        }
        let home = publisher.home();
        let read = |which| home.private_key(which).map_err(PublisherError::Home);
        let (master_key, key) = (read(KeyFile::MasterKey)?, read(KeyFile::Key)?);
        let certificate = home.certificate().map_err(PublisherError::Home)?;
        certificate
            .verify_key(&key)
            .map_err(keys_error(publisher))?;
        Ok(Self {
            publisher,
            master_key,
            certificate,
            algorithm: publisher.params()?.algorithm,
            now,
            term: DAY * days,
        })
    }

    /// The published manifest and the certificate that it names, as they lie there.
    fn published(&self) -> Result<(SignedManifest, Certificate), ResignError> {
        let repository = self.publisher.repository();
        let manifest = repository
            .unverified_manifest()
            .map_err(|e| self.unreadable(e))?;
        let certificate = repository
            .certificate_of(&manifest)
            .map_err(|e| self.unreadable(e))?;
        Ok((manifest, certificate))
    }

    fn unreadable(&self, source: HeadError) -> PublisherError {
        PublisherError::Head {
            repo: self.publisher.name().to_owned(),
            source,
        }
    }

    fn must_have_signed(
        &self,
        manifest: &SignedManifest,
        certificate: &Certificate,
    ) -> Result<(), ResignError> {
        trust::verify_manifest(manifest, certificate).map_err(|source| ResignError::BadManifest {
            repo: self.publisher.name().to_owned(),
            source,
        })
    }

    /// The published whitelist, if there is one that can be read; it must be the master key's.
    fn published_whitelist(&self) -> Result<Option<Whitelist>, ResignError> {
        let home = self.publisher.home();
        let signed = match self.publisher.repository().unverified_whitelist() {
            Ok(signed) => signed,
            Err(error) if error.is_without_whitelist() => return Ok(None),
            Err(error) => return Err(self.unreadable(error).into()),
        };
        let keys = home.public_keys().map_err(PublisherError::Home)?;
        match trust::verify_whitelist(&signed, &home.name, &keys, self.now) {
            Ok(()) | Err(TrustError::Expired) => Ok(Some(signed.whitelist)),
            Err(source) => Err(ResignError::OtherMasterKey {
                repo: home.name.clone(),
                public_key: home.key_file(KeyFile::Public).display().to_string(),
                source,
            }),
        }
    }

    /// One that lists our certificate alone.
    fn whitelist(&self) -> Whitelist {
        let fingerprint = self.certificate.fingerprint(self.algorithm);
        Whitelist::new(
            self.publisher.name(),
            vec![fingerprint],
            self.now,
            self.term,
        )
    }

    /// Signs and publishes a whitelist, if clients will take it; yields when it ends.
    fn write(&self, whitelist: Whitelist) -> Result<SystemTime, ResignError> {
        let ends = whitelist.ends();
        let home = self.publisher.home();
        let keys = home.public_keys().map_err(PublisherError::Home)?;
        let signed = trust::sign_whitelist(whitelist, self.algorithm, &self.master_key)
            .map_err(keys_error(self.publisher))?;
        // the public key may be another pair's
        trust::verify_whitelist(&signed, &home.name, &keys, self.now)
            .map_err(keys_error(self.publisher))?;
        let storage = self.publisher.storage();
        storage
            .write_root(WHITELIST, &signed.to_bytes())
            .map_err(|source| ResignError::Write {
                repo: home.name.clone(),
                source,
            })?;
        Ok(ends)
    }
}

fn keys_error(publisher: &Stratum0) -> impl Fn(TrustError) -> ResignError + '_ {
    |source| ResignError::Keys {
        repo: publisher.name().to_owned(),
        source,
    }
}

/// Puts a certificate on the list if it is not there.
fn list(whitelist: &mut Whitelist, certificate: &Certificate, algorithm: Algorithm) {
    let fingerprint = certificate.fingerprint(algorithm);
    if !whitelist.lists(&fingerprint) {
        whitelist.fingerprints.push(fingerprint);
    }
}

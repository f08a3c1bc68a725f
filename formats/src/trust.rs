//! Keys and signatures: who may say what a repository's newest revision is.
//!
//! ```text
//! master key --signs--> whitelist --lists--> certificate --verifies--> manifest --names--> objects
//! ```
//!
//! Both signatures are RSA PKCS#1 v1.5 (block type 1) over the *text* of the body's hash. A
//! manifest's block holds a DigestInfo with that text's SHA-1, whatever the repository's hash
//! algorithm; a whitelist's block holds the text itself [CVMFS `crypto/signature.cc`]. The format
//! asks for SHA-1, which the crypto policy of Enterprise Linux 9 forbids to the digest-signing
//! calls; so the DigestInfo is built here, and OpenSSL does the private operation alone.
//!
//! This module reads no clock: what may expire is told the time.

mod keys;

use std::time::SystemTime;

use openssl::error::ErrorStack;
use sha1::{Digest, Sha1};

use crate::hash::{Algorithm, Hash};
use crate::manifest::{Manifest, SignedManifest};
use crate::whitelist::{Fingerprint, SignedWhitelist, Whitelist};

pub use keys::{Certificate, KeyRing, PrivateKey, PublicKey, generate_keys};

/// The DER of a DigestInfo up to the 20 bytes of a SHA-1 digest [RFC 8017, 9.2].
const SHA1_DIGEST_INFO: [u8; 15] = [
    0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14,
];

/// Why something is not trusted, or cannot be signed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrustError {
    /// The bytes are no PEM of the kind wanted, or encrypted.
    #[error("not {wanted} in PEM form")]
    NotPem {
        /// What was wanted.
        wanted: &'static str,
        /// What OpenSSL says.
        source: ErrorStack,
    },
    /// Not an RSA key, or one of a useless size.
    #[error("not an RSA key of 1024 to 16384 bits")]
    NotRsa,
    /// The private key does not belong to the certificate.
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    /// The manifest's signature was not made by the certificate's key, or for another manifest.
    #[error("the manifest's signature does not verify with certificate {0}")]
    BadManifestSignature(Fingerprint),
    /// None of the public keys made the whitelist's signature.
    #[error("the whitelist's signature verifies with none of {0} public key(s)")]
    BadWhitelistSignature(usize),
    /// The whitelist is another repository's.
    #[error("the whitelist is for {found}, not {wanted}")]
    WrongRepository {
        /// Whose it is.
        found: String,
        /// Whose was wanted.
        wanted: String,
    },
    /// The whitelist's term is over.
    #[error("the whitelist has expired")]
    Expired,
    /// The whitelist asks for a way of trust that is not built in.
    #[error("the whitelist asks for {0}, which is not supported")]
    Unsupported(&'static str),
    /// The whitelist does not list the certificate.
    #[error("certificate {0} is not on the whitelist")]
    NotListed(Fingerprint),
    /// OpenSSL cannot do what must work.
    #[error("OpenSSL failed to {doing}")]
    OpenSsl {
        /// What it was asked to do.
        doing: &'static str,
        /// What it says.
        source: ErrorStack,
    },
}

/// Signs a manifest with the repository's key. `algorithm` is the repository's.
///
/// # Errors
/// [`TrustError::OpenSsl`].
pub fn sign_manifest(
    manifest: Manifest,
    algorithm: Algorithm,
    key: &PrivateKey,
) -> Result<SignedManifest, TrustError> {
    let body = manifest.body();
    let body_hash = Hash::of(algorithm, &body);
    let signature = key.sign_block(&manifest_block(&body_hash))?;
    Ok(SignedManifest {
        manifest,
        body,
        body_hash,
        signature,
    })
}

/// Checks that the certificate's key signed the manifest.
///
/// # Errors
/// [`TrustError::BadManifestSignature`].
pub fn verify_manifest(
    signed: &SignedManifest,
    certificate: &Certificate,
) -> Result<(), TrustError> {
    let block = manifest_block(&signed.body_hash);
    let ours = Hash::of(signed.body_hash.algorithm(), &signed.body) == signed.body_hash;
    if ours && certificate.public_key().made(&signed.signature, &block) {
        return Ok(());
    }
    let fingerprint = certificate.fingerprint(signed.algorithm());
    Err(TrustError::BadManifestSignature(fingerprint))
}

/// Signs a whitelist with the master key. `algorithm` is the repository's.
///
/// # Errors
/// [`TrustError::OpenSsl`].
pub fn sign_whitelist(
    whitelist: Whitelist,
    algorithm: Algorithm,
    master_key: &PrivateKey,
) -> Result<SignedWhitelist, TrustError> {
    let body = whitelist.body();
    let body_hash = Hash::of(algorithm, &body);
    let signature = master_key.sign_block(body_hash.to_string().as_bytes())?;
    Ok(SignedWhitelist {
        whitelist,
        body,
        body_hash,
        signature,
    })
}

/// Checks that one of the keys signed the whitelist, that it is for the repository `name`, and
/// that at `now` its term is not over.
///
/// # Errors
/// [`TrustError`]; [`TrustError::Expired`] only if everything else is in order.
pub fn verify_whitelist(
    signed: &SignedWhitelist,
    name: &str,
    keys: &[PublicKey],
    now: SystemTime,
) -> Result<(), TrustError> {
    let whitelist = &signed.whitelist;
    if whitelist.pkcs7 {
        return Err(TrustError::Unsupported("a PKCS#7 signature"));
    }
    if whitelist.ca_chain {
        return Err(TrustError::Unsupported("verified certificate chains"));
    }
    let block = signed.body_hash.to_string();
    let ours = Hash::of(signed.body_hash.algorithm(), &signed.body) == signed.body_hash;
    let made_by = |key: &PublicKey| key.made(&signed.signature, block.as_bytes());
    if !ours || !keys.iter().any(made_by) {
        return Err(TrustError::BadWhitelistSignature(keys.len()));
    }
    if whitelist.name != name {
        return Err(TrustError::WrongRepository {
            found: whitelist.name.clone(),
            wanted: name.to_owned(),
        });
    }
    if whitelist.remaining(now).is_none() {
        return Err(TrustError::Expired);
    }
    Ok(())
}

/// Checks that the whitelist lists the certificate, under any hash algorithm.
///
/// # Errors
/// [`TrustError::NotListed`].
pub fn verify_listed(whitelist: &Whitelist, certificate: &Certificate) -> Result<(), TrustError> {
    let algorithms = [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128];
    let listed = |algorithm| whitelist.lists(&certificate.fingerprint(algorithm));
    if algorithms.into_iter().any(listed) {
        return Ok(());
    }
    // the algorithm that the list's own entries use makes the most useful message
    let algorithm = whitelist.fingerprints.first().map(|f| f.0.algorithm());
    let fingerprint = certificate.fingerprint(algorithm.unwrap_or_default());
    Err(TrustError::NotListed(fingerprint))
}

/// What a manifest's signature block holds.
fn manifest_block(body_hash: &Hash) -> Vec<u8> {
    let digest = Sha1::digest(body_hash.to_string());
    [&SHA1_DIGEST_INFO[..], &digest[..]].concat()
}

#[cfg(test)]
mod tests;

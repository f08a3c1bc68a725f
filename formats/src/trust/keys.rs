//! RSA keys and certificates in PEM form, and the one private operation that signatures need.

use std::fmt;
use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::x509::{X509, X509Name};

use super::TrustError;
use crate::hash::{Algorithm, Hash};
use crate::whitelist::Fingerprint;

/// Bits of the keys made here, as the official tools make them.
const KEY_BITS: u32 = 2048;

/// How long a new certificate is valid. Nobody checks: the whitelist's term is what counts.
const CERTIFICATE_DAYS: u64 = 365;

/// Longest repository name that fits a common name of 64 bytes beside the words around it.
const COMMON_NAME_BYTES: usize = 30;

fn failed(doing: &'static str) -> impl Fn(ErrorStack) -> TrustError {
    move |source| TrustError::OpenSsl { doing, source }
}

fn not_pem(wanted: &'static str) -> impl Fn(ErrorStack) -> TrustError {
    move |source| TrustError::NotPem { wanted, source }
}

/// The key's RSA parts, if it is an RSA key of a size that OpenSSL computes with in sane time.
fn rsa_of<T: HasPublic>(key: &PKeyRef<T>) -> Result<Rsa<T>, TrustError> {
    let rsa = key.rsa().map_err(|_| TrustError::NotRsa)?;
    if (1024..=16384).contains(&(rsa.size() * 8)) {
        Ok(rsa)
    } else {
        Err(TrustError::NotRsa)
    }
}

/// A public RSA key: of a repository's master key, or out of a certificate.
#[derive(Clone)]
pub struct PublicKey(Rsa<Public>);

impl PublicKey {
    /// Reads `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    /// [`TrustError::NotPem`], [`TrustError::NotRsa`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let key = PKey::public_key_from_pem(pem).map_err(not_pem("a public key"))?;
        Ok(Self(rsa_of(&key)?))
    }

    /// Writes `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    /// [`TrustError::OpenSsl`].
    pub fn to_pem(&self) -> Result<Vec<u8>, TrustError> {
        self.0
            .public_key_to_pem()
            .map_err(failed("write a public key"))
    }

    /// True if this key's private half made `signature` out of `block`.
    pub(super) fn made(&self, signature: &[u8], block: &[u8]) -> bool {
        let mut found = vec![0; self.0.size() as usize];
        if signature.len() != found.len() {
            return false;
        }
        // also fails where the padding is not type 1's
        match self.0.public_decrypt(signature, &mut found, Padding::PKCS1) {
            Ok(n) => n == block.len() && memcmp::eq(&found[..n], block),
            Err(_) => false,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bits)", self.0.size() * 8)
    }
}

/// A private RSA key. It never shows its content.
#[derive(Clone)]
pub struct PrivateKey(Rsa<Private>);

impl PrivateKey {
    /// Reads `BEGIN PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`, unencrypted.
    ///
    /// # Errors
    /// [`TrustError::NotPem`], [`TrustError::NotRsa`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        // OpenSSL would ask for a passphrase on the terminal
        let no_passphrase = |_: &mut [u8]| Err(ErrorStack::get());
        let key = PKey::private_key_from_pem_callback(pem, no_passphrase)
            .map_err(not_pem("an unencrypted private key"))?;
        Ok(Self(rsa_of(&key)?))
    }

    /// Makes a new key.
    ///
    /// # Errors
    /// [`TrustError::OpenSsl`].
    pub fn generate() -> Result<Self, TrustError> {
        Ok(Self(Rsa::generate(KEY_BITS).map_err(failed("make a key"))?))
    }

    /// Writes `BEGIN PRIVATE KEY`, unencrypted.
    ///
    /// # Errors
    /// [`TrustError::OpenSsl`].
    pub fn to_pem(&self) -> Result<Vec<u8>, TrustError> {
        let write = |key: PKey<Private>| key.private_key_to_pem_pkcs8();
        PKey::from_rsa(self.0.clone())
            .and_then(write)
            .map_err(failed("write a private key"))
    }

    /// The public half.
    ///
    /// # Errors
    /// [`TrustError::OpenSsl`].
    pub fn public(&self) -> Result<PublicKey, TrustError> {
        let half = || {
            let (n, e) = (self.0.n().to_owned()?, self.0.e().to_owned()?);
            Rsa::from_public_components(n, e)
        };
        Ok(PublicKey(half().map_err(failed("take a public key"))?))
    }

    /// PKCS#1 v1.5, block type 1, around `block` as it is; checked before it is handed out, since
    /// a signature spoiled by a fault gives the key away.
    pub(super) fn sign_block(&self, block: &[u8]) -> Result<Vec<u8>, TrustError> {
        let mut signature = vec![0; self.0.size() as usize];
        let n = self
            .0
            .private_encrypt(block, &mut signature, Padding::PKCS1)
            .map_err(failed("sign"))?;
        signature.truncate(n);
        if !self.public()?.made(&signature, block) {
            return Err(failed("sign: the signature does not verify")(
                ErrorStack::get(),
            ));
        }
        Ok(signature)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} bits)", self.0.size() * 8)
    }
}

/// A repository's certificate: a container for the public key that verifies manifests.
///
/// Its own signature and dates mean nothing; what counts is that the whitelist lists it.
#[derive(Clone)]
pub struct Certificate {
    pem: Vec<u8>,
    der: Vec<u8>,
    key: PublicKey,
}

impl Certificate {
    /// Reads `BEGIN CERTIFICATE`.
    ///
    /// # Errors
    /// [`TrustError::NotPem`], [`TrustError::NotRsa`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let wanted = "a certificate";
        let x509 = X509::from_pem(pem).map_err(not_pem(wanted))?;
        let key = x509.public_key().map_err(|_| TrustError::NotRsa)?;
        Ok(Self {
            pem: pem.to_vec(),
            der: x509.to_der().map_err(not_pem(wanted))?,
            key: PublicKey(rsa_of(&key)?),
        })
    }

    /// The bytes it was read from; compressed, they are the certificate object.
    #[must_use]
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// What the whitelist knows it by.
    #[must_use]
    pub fn fingerprint(&self, algorithm: Algorithm) -> Fingerprint {
        Fingerprint(Hash::of(algorithm, &self.der))
    }

    /// The key that verifies manifests.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Checks that `key` is the private half of this certificate's.
    ///
    /// # Errors
    /// [`TrustError::KeyMismatch`].
    pub fn verify_key(&self, key: &PrivateKey) -> Result<(), TrustError> {
        let (ours, theirs) = (&self.key.0, &key.0);
        if ours.n() == theirs.n() && ours.e() == theirs.e() {
            Ok(())
        } else {
            Err(TrustError::KeyMismatch)
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint(Algorithm::Sha1))
    }
}

/// A new repository's keys, as PEM files.
#[derive(Clone)]
pub struct KeyRing {
    /// `<name>.masterkey`: signs whitelists.
    pub master_key: Vec<u8>,
    /// `<name>.pub`: what clients trust; the master key's public half.
    pub public: Vec<u8>,
    /// `<name>.key`: signs manifests.
    pub key: Vec<u8>,
    /// `<name>.crt`: goes with `key`.
    pub certificate: Vec<u8>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing")
    }
}

/// Makes the keys of a new repository.
///
/// # Errors
/// [`TrustError::OpenSsl`].
pub fn generate_keys(name: &str, now: SystemTime) -> Result<KeyRing, TrustError> {
    let master_key = PrivateKey::generate()?;
    let key = PrivateKey::generate()?;
    Ok(KeyRing {
        public: master_key.public()?.to_pem()?,
        master_key: master_key.to_pem()?,
        certificate: self_signed(name, &key, now).map_err(failed("make a certificate"))?,
        key: key.to_pem()?,
    })
}

fn self_signed(name: &str, key: &PrivateKey, now: SystemTime) -> Result<Vec<u8>, ErrorStack> {
    let key = PKey::from_rsa(key.0.clone())?;
    let mut subject = X509Name::builder()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, &common_name(name))?;
    let subject = subject.build();

    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let begin = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let time = |secs: u64| Asn1Time::from_unix(secs.try_into().unwrap_or(i64::MAX));

    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_serial_number(&*serial.to_asn1_integer()?)?;
    certificate.set_subject_name(&subject)?;
    certificate.set_issuer_name(&subject)?;
    certificate.set_not_before(&*time(begin)?)?;
    certificate.set_not_after(&*time(begin.saturating_add(CERTIFICATE_DAYS * 86_400))?)?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    certificate.build().to_pem()
}

fn common_name(name: &str) -> String {
    let mut end = name.len().min(COMMON_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let dots = if end < name.len() { "[...]" } else { "" };
    format!("{}{dots} CernVM-FS Release Managers", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_fit() {
        assert_eq!(
            common_name("demo.example.org"),
            "demo.example.org CernVM-FS Release Managers"
        );
        let long = common_name(&"\u{e4}".repeat(40));
        assert!(long.len() <= 64 && long.contains("[...]"), "{long}");
    }
}

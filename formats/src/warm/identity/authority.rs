//! The authority itself: it issues certificates and revokes them. Its key never leaves the publisher.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, CrlNumber, ExtendedKeyUsage, KeyUsage,
    SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509CrlBuilder, X509Name, X509RevokedBuilder};

use super::{IdentityError, NodeName, Role, Serial, failed};

const DAY: Duration = Duration::from_secs(86_400);

/// How long the authority is good for; a list of revoked serials as well, since a broker that finds
/// one out of date refuses everybody.
const AUTHORITY_DAYS: u32 = 3_653;

/// How long a node's certificate is good for.
const NODE_DAYS: u32 = 731;

/// Certificates begin before they are made: a site's clock may be that far behind.
const CLOCK_SKEW: Duration = DAY;

/// Bits of a serial: nobody guesses one, and no two are the same.
const SERIAL_BITS: i32 = 128;

/// A publisher's authority for its sites.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What it may act as.
    pub role: Role,
    /// Its name.
    pub name: &'a NodeName,
    /// Hosts at which it serves: DNS names and addresses. None for one that only calls others.
    pub hosts: &'a [&'a str],
}

/// A new certificate and its key.
#[derive(Clone)]
pub struct Issued {
    /// `BEGIN CERTIFICATE`.
    pub certificate: Vec<u8>,
    /// `BEGIN PRIVATE KEY`, unencrypted.
    pub key: Vec<u8>,
    /// The certificate's serial.
    pub serial: Serial,
    /// When its term ends.
    pub not_after: SystemTime,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issued({})", self.serial)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// [`IdentityError::OpenSsl`].
    pub fn generate(now: SystemTime) -> Result<Self, IdentityError> {
        let make = || {
            let (key, serial) = (new_key()?, new_serial()?);
            let mut builder = X509::builder()?;
            // two publishers' authorities are told apart at a site that serves both
            let tag: String = serial.to_bn()?.to_hex_str()?.chars().take(8).collect();
            let name = common_name(&format!("prepub sites {}", tag.to_lowercase()))?;
            begin(&mut builder, &serial, now, AUTHORITY_DAYS)?;
            builder.set_subject_name(&name)?;
            builder.set_issuer_name(&name)?;
            builder.set_pubkey(&key)?;
            builder
                .append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
            let usage = KeyUsage::new()
                .critical()
                .key_cert_sign()
                .crl_sign()
                .build()?;
            builder.append_extension(usage)?;
            let id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
            builder.append_extension(id)?;
            builder.sign(&key, MessageDigest::sha256())?;
            Ok(Self {
                certificate: builder.build(),
                key,
            })
        };
        make().map_err(failed("make a certificate authority"))
    }

    /// Reads an authority out of its two files.
    ///
    /// # Errors
    /// [`IdentityError::NotPem`]; [`IdentityError::Nameless`] if they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let (certificate, key) = (super::certificate(certificate)?, super::private_key(key)?);
        let public = certificate
            .public_key()
            .map_err(failed("take a public key"))?;
        if !public.public_eq(&key) {
            return Err(IdentityError::Nameless("the authority's key is another's"));
        }
        Ok(Self { certificate, key })
    }

    /// The authority's certificate: what its sites trust.
    #[must_use]
    pub fn certificate(&self) -> &X509 {
        &self.certificate
    }

    /// `BEGIN CERTIFICATE`.
    ///
    /// # Errors
    /// [`IdentityError::OpenSsl`].
    pub fn certificate_pem(&self) -> Result<Vec<u8>, IdentityError> {
        self.certificate
            .to_pem()
            .map_err(failed("write a certificate"))
    }

    /// `BEGIN PRIVATE KEY`, unencrypted.
    ///
    /// # Errors
    /// [`IdentityError::OpenSsl`].
    pub fn key_pem(&self) -> Result<Vec<u8>, IdentityError> {
        self.key
            .private_key_to_pem_pkcs8()
            .map_err(failed("write a private key"))
    }

    /// Issues a certificate, with a key of its own.
    ///
    /// # Errors
    /// [`IdentityError::OpenSsl`].
    pub fn issue(&self, subject: Subject<'_>, now: SystemTime) -> Result<Issued, IdentityError> {
        let (certificate, key) = self
            .sign(subject, now)
            .map_err(failed("issue a certificate"))?;
        Ok(Issued {
            certificate: certificate
                .to_pem()
                .map_err(failed("write a certificate"))?,
            key: key
                .private_key_to_pem_pkcs8()
                .map_err(failed("write a private key"))?,
            serial: Serial::of(&certificate)?,
            not_after: super::not_after(&certificate)?,
        })
    }

    fn sign(
        &self,
        subject: Subject<'_>,
        now: SystemTime,
    ) -> Result<(X509, PKey<Private>), ErrorStack> {
        let key = new_key()?;
        let mut builder = X509::builder()?;
        begin(&mut builder, &*new_serial()?, now, NODE_DAYS)?;
        builder.set_subject_name(&*common_name(subject.name.as_str())?)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.set_pubkey(&key)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        // either end may call the other
        let usage = ExtendedKeyUsage::new()
            .client_auth()
            .server_auth()
            .build()?;
        builder.append_extension(usage)?;
        let mut names = SubjectAlternativeName::new();
        names.uri(&subject.role.uri(subject.name));
        for host in subject.hosts {
            match host.parse::<IpAddr>() {
                Ok(address) => names.ip(&address.to_string()),
                Err(_) => names.dns(host),
            };
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let extensions = [
            names.build(&context)?,
            SubjectKeyIdentifier::new().build(&context)?,
            AuthorityKeyIdentifier::new().keyid(true).build(&context)?,
        ];
        for extension in extensions {
            builder.append_extension(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok((builder.build(), key))
    }

    /// The list of revoked serials, and since when, as `BEGIN X509 CRL`: for programs that do not see
    /// the registry.
    ///
    /// # Errors
    /// [`IdentityError::OpenSsl`].
    pub fn revocations(
        &self,
        revoked: &[(Serial, SystemTime)],
        now: SystemTime,
    ) -> Result<Vec<u8>, IdentityError> {
        let make = || {
            let mut list = X509CrlBuilder::new()?;
            list.set_issuer_name(self.certificate.subject_name())?;
            list.set_last_update(&*asn1_time(now - CLOCK_SKEW)?)?;
            list.set_next_update(&*asn1_time(now + DAY * AUTHORITY_DAYS)?)?;
            for (serial, since) in revoked {
                let mut entry = X509RevokedBuilder::new()?;
                let number = BigNum::from_hex_str(serial.as_str())?.to_asn1_integer()?;
                entry.set_serial_number(&number)?;
                entry.set_revocation_date(&*asn1_time(*since)?)?;
                list.add_revoked(entry.build())?;
            }
            list.sort()?;
            // any builder's context names the issuer
            let builder = X509::builder()?;
            let context = builder.x509v3_context(Some(&self.certificate), None);
            let issuer = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
            list.append_extension(issuer)?;
            let number = BigNum::from_dec_str(&unix(now).to_string())?;
            list.append_extension(CrlNumber::new(number)?.build()?)?;
            list.sign(&self.key, MessageDigest::sha256())?;
            list.build()?.to_pem()
        };
        make().map_err(failed("sign a list of revoked certificates"))
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn new_serial() -> Result<Asn1Integer, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
    serial.to_asn1_integer()
}

fn common_name(text: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, text)?;
    Ok(name.build())
}

fn begin(
    builder: &mut X509Builder,
    serial: &openssl::asn1::Asn1IntegerRef,
    now: SystemTime,
    days: u32,
) -> Result<(), ErrorStack> {
    builder.set_version(2)?;
    builder.set_serial_number(serial)?;
    builder.set_not_before(&*asn1_time(now - CLOCK_SKEW)?)?;
    builder.set_not_after(&*asn1_time(now + DAY * days)?)
}

/// Seconds since 1970, none before.
fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn asn1_time(time: SystemTime) -> Result<Asn1Time, ErrorStack> {
    Asn1Time::from_unix(unix(time).try_into().unwrap_or(i64::MAX))
}

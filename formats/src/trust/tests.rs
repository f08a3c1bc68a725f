use std::time::Duration;

use super::*;

const REPOSITORIES: [&str; 7] = [
    "sha1",
    "rmd160",
    "shake128",
    "uncompressed",
    "garbage-collectable",
    "mtime-ns",
    "autocatalogs",
];

fn golden(file: &str) -> Vec<u8> {
    let path = format!("{}/../tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

/// Within the golden whitelists' term.
fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000)
}

fn whitelist_of(repository: &str) -> SignedWhitelist {
    SignedWhitelist::parse(&golden(&format!("{repository}/storage/.cvmfswhitelist"))).unwrap()
}

fn manifest_of(repository: &str) -> SignedManifest {
    SignedManifest::parse(&golden(&format!("{repository}/v2.cvmfspublished"))).unwrap()
}

fn certificate_of(repository: &str) -> Certificate {
    let file = format!("{repository}/keys/{repository}.example.org.crt");
    Certificate::from_pem(&golden(&file)).unwrap()
}

fn key_of(repository: &str) -> PublicKey {
    let file = format!("{repository}/keys/{repository}.example.org.pub");
    PublicKey::from_pem(&golden(&file)).unwrap()
}

#[test]
fn golden_repositories_are_trusted() {
    for repository in REPOSITORIES {
        let (whitelist, certificate) = (whitelist_of(repository), certificate_of(repository));
        let name = format!("{repository}.example.org");
        // any of several keys will do
        let keys = [key_of("autocatalogs"), key_of(repository)];
        verify_whitelist(&whitelist, &name, &keys, then()).unwrap();
        verify_listed(&whitelist.whitelist, &certificate).unwrap();
        verify_manifest(&manifest_of(repository), &certificate).unwrap();
    }
}

#[test]
fn each_break_in_the_chain_is_named() {
    let (name, whitelist) = ("sha1.example.org", whitelist_of("sha1"));
    let (ours, foreign) = ([key_of("sha1")], [key_of("rmd160")]);
    let verify = |signed: &SignedWhitelist, name: &str, keys: &[PublicKey], now| {
        verify_whitelist(signed, name, keys, now).unwrap_err()
    };
    assert!(matches!(
        verify(&whitelist, name, &foreign, then()),
        TrustError::BadWhitelistSignature(1)
    ));
    assert!(matches!(
        verify(&whitelist, name, &[], then()),
        TrustError::BadWhitelistSignature(0)
    ));
    assert!(matches!(
        verify(&whitelist, "other", &ours, then()),
        TrustError::WrongRepository { .. }
    ));
    let too_late = then() + Duration::from_secs(60 * 86_400);
    assert!(matches!(
        verify(&whitelist, name, &ours, too_late),
        TrustError::Expired
    ));
    for at in [0, 100, 255] {
        let mut broken = whitelist.clone();
        broken.signature[at] ^= 1;
        assert!(matches!(
            verify(&broken, name, &ours, then()),
            TrustError::BadWhitelistSignature(1)
        ));
    }
    let mut broken = whitelist.clone();
    broken.body.push(b' ');
    assert!(verify_whitelist(&broken, name, &ours, then()).is_err());

    assert!(matches!(
        verify_listed(&whitelist.whitelist, &certificate_of("rmd160")),
        Err(TrustError::NotListed(_))
    ));
    assert!(matches!(
        verify_manifest(&manifest_of("sha1"), &certificate_of("rmd160")),
        Err(TrustError::BadManifestSignature(_))
    ));
    // a whitelist's kind of block is not a manifest's
    let mut crossed = manifest_of("sha1");
    crossed.body = whitelist.body.clone();
    crossed.body_hash = whitelist.body_hash;
    crossed.signature = whitelist.signature.clone();
    assert!(verify_manifest(&crossed, &certificate_of("sha1")).is_err());
}

#[test]
fn what_is_not_supported_is_not_trusted() {
    let mut signed = whitelist_of("sha1");
    signed.whitelist.pkcs7 = true;
    let error = verify_whitelist(&signed, "sha1.example.org", &[key_of("sha1")], then());
    assert!(matches!(error, Err(TrustError::Unsupported(_))));
}

#[test]
fn new_keys_sign_what_verifies() {
    let now = then();
    let ring = generate_keys("demo.example.org", now).unwrap();
    let master_key = PrivateKey::from_pem(&ring.master_key).unwrap();
    let key = PrivateKey::from_pem(&ring.key).unwrap();
    let certificate = Certificate::from_pem(&ring.certificate).unwrap();
    let public = [PublicKey::from_pem(&ring.public).unwrap()];
    certificate.verify_key(&key).unwrap();
    assert!(matches!(
        certificate.verify_key(&master_key),
        Err(TrustError::KeyMismatch)
    ));
    let head = |pem: &[u8]| String::from_utf8(pem[..30].to_vec()).unwrap();
    assert!(head(&ring.public).starts_with("-----BEGIN PUBLIC KEY-----"));
    assert!(head(&ring.certificate).starts_with("-----BEGIN CERTIFICATE-----"));

    for algorithm in [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128] {
        let manifest = Manifest::new("demo.example.org", Hash::of(algorithm, b"catalog"), 1);
        let signed = sign_manifest(manifest, algorithm, &key).unwrap();
        let read = SignedManifest::parse(&signed.to_bytes().unwrap()).unwrap();
        assert_eq!(read, signed);
        verify_manifest(&read, &certificate).unwrap();

        let fingerprint = certificate.fingerprint(algorithm);
        let term = Duration::from_secs(30 * 86_400);
        let whitelist = Whitelist::new("demo.example.org", vec![fingerprint], now, term);
        let signed = sign_whitelist(whitelist, algorithm, &master_key).unwrap();
        let read = SignedWhitelist::parse(&signed.to_bytes()).unwrap();
        assert_eq!(read, signed);
        verify_whitelist(&read, "demo.example.org", &public, now).unwrap();
        verify_listed(&read.whitelist, &certificate).unwrap();
    }
}

/// `openssl dgst -sha1 -sign` makes the same signature as our DigestInfo and the raw operation.
#[test]
fn a_manifest_signature_is_rsa_with_sha1() {
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::sign::Signer;

    let ring = generate_keys("demo.example.org", then()).unwrap();
    let key = PrivateKey::from_pem(&ring.key).unwrap();
    let manifest = Manifest::new("demo.example.org", Hash::of(Algorithm::Sha1, b"c"), 1);
    let signed = sign_manifest(manifest, Algorithm::Sha1, &key).unwrap();

    let openssl_key = PKey::private_key_from_pem(&ring.key).unwrap();
    let mut signer = Signer::new(MessageDigest::sha1(), &openssl_key).unwrap();
    signer
        .update(signed.body_hash.to_string().as_bytes())
        .unwrap();
    // where the crypto policy forbids this call, there is nothing to compare with
    if let Ok(theirs) = signer.sign_to_vec() {
        assert_eq!(signed.signature, theirs);
    }
}

#[test]
fn pkcs1_and_pkcs8_keys_are_read_and_others_refused_without_a_prompt() {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;

    let rsa = Rsa::generate(2048).unwrap();
    let pkey = PKey::from_rsa(rsa.clone()).unwrap();
    let pkcs1 = PrivateKey::from_pem(&rsa.private_key_to_pem().unwrap()).unwrap();
    let pkcs8 = PrivateKey::from_pem(&pkey.private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert_eq!(pkcs1.to_pem().unwrap(), pkcs8.to_pem().unwrap());
    assert_eq!(format!("{pkcs1:?}"), "PrivateKey(2048 bits)");

    let cipher = Cipher::aes_128_cbc();
    let encrypted = pkey
        .private_key_to_pem_pkcs8_passphrase(cipher, b"secret")
        .unwrap();
    assert!(matches!(
        PrivateKey::from_pem(&encrypted),
        Err(TrustError::NotPem { .. })
    ));
    let small = Rsa::generate(512).and_then(|k| k.private_key_to_pem());
    if let Ok(small) = small {
        assert!(matches!(
            PrivateKey::from_pem(&small),
            Err(TrustError::NotRsa)
        ));
    }
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let curve = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    assert!(matches!(
        PrivateKey::from_pem(&curve.private_key_to_pem_pkcs8().unwrap()),
        Err(TrustError::NotRsa)
    ));
    assert!(matches!(
        PublicKey::from_pem(&curve.public_key_to_pem().unwrap()),
        Err(TrustError::NotRsa)
    ));
    for junk in [
        &b""[..],
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(Certificate::from_pem(junk).is_err());
        assert!(PublicKey::from_pem(junk).is_err());
        assert!(PrivateKey::from_pem(junk).is_err());
    }
}

//! HTTPS before a server on this machine, with a certificate that a CA of the test's own signed.

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder, X509NameRef};
use tokio::net::{TcpListener, TcpStream};
use tokio_native_tls::native_tls::{Identity, TlsAcceptor};

/// The name that the certificate is for.
pub const HOST: &str = "localhost";

/// Whoever signs.
pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

fn name(common: &str) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common).unwrap();
    name.build()
}

/// A certificate that is all but signed.
fn certificate(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKey<Private>,
    serial: u32,
) -> X509Builder {
    let mut made = X509Builder::new().unwrap();
    made.set_version(2).unwrap();
    let serial = Asn1Integer::from_bn(&BigNum::from_u32(serial).unwrap()).unwrap();
    made.set_serial_number(&serial).unwrap();
    made.set_subject_name(subject).unwrap();
    made.set_issuer_name(issuer).unwrap();
    made.set_pubkey(key).unwrap();
    made.set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    made.set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    made
}

fn new_key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

impl Authority {
    pub fn new(common: &str) -> Self {
        let (key, name) = (new_key(), name(common));
        let mut made = certificate(&name, &name, &key, 1);
        let is_one = BasicConstraints::new().critical().ca().build().unwrap();
        made.append_extension(is_one).unwrap();
        made.sign(&key, MessageDigest::sha256()).unwrap();
        Self {
            certificate: made.build(),
            key,
        }
    }

    /// What whoever trusts it has in a file.
    pub fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// Speaks HTTPS as [`HOST`] and hands on what is said to a port of this machine; ends with the
    /// process. The port it listens on.
    pub fn serve(&self, behind: u16) -> u16 {
        let key = new_key();
        let mut made = certificate(&name(HOST), self.certificate.subject_name(), &key, 2);
        let context = made.x509v3_context(Some(&self.certificate), None);
        let names = SubjectAlternativeName::new()
            .dns(HOST)
            .build(&context)
            .unwrap();
        made.append_extension(names).unwrap();
        made.sign(&self.key, MessageDigest::sha256()).unwrap();
        let certificate = made.build().to_pem().unwrap();
        let key = key.private_key_to_pem_pkcs8().unwrap();
        let identity = Identity::from_pkcs8(&certificate, &key).unwrap();
        let acceptor = TlsAcceptor::new(identity).unwrap();
        serve(acceptor.into(), behind)
    }
}

fn serve(acceptor: tokio_native_tls::TlsAcceptor, behind: u16) -> u16 {
    let (told, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            told.send(listener.local_addr().unwrap().port()).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // whoever does not trust us goes away
                    let mut client = acceptor.accept(socket).await.ok()?;
                    let mut server = TcpStream::connect(("127.0.0.1", behind)).await.ok()?;
                    tokio::io::copy_bidirectional(&mut client, &mut server)
                        .await
                        .ok()
                });
            }
        });
    });
    port.recv().unwrap()
}

use super::*;

fn at(days: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * days)
}

const NOW: u64 = 20_500;

fn issued(authority: &Authority, role: Role, name: &str, hosts: &[&str]) -> (Issued, X509) {
    let name: NodeName = name.parse().unwrap();
    let subject = Subject {
        role,
        name: &name,
        hosts,
    };
    let issued = authority.issue(subject, at(NOW)).unwrap();
    let x509 = certificate(&issued.certificate).unwrap();
    (issued, x509)
}

#[test]
fn a_certificate_says_role_name_and_serial() {
    let authority = Authority::generate(at(NOW)).unwrap();
    for role in [Role::Site, Role::Publisher] {
        let (issued, x509) = issued(
            &authority,
            role,
            "s1.example.org",
            &["s1.example.org", "::1"],
        );
        let peer = peer(&x509).unwrap();
        assert_eq!((peer.role, peer.name.as_str()), (role, "s1.example.org"));
        assert_eq!(peer.serial, issued.serial);
        assert_eq!(issued.not_after, at(NOW + 731));
        assert_eq!(not_after(&x509).unwrap(), issued.not_after);
        assert!(PeerIdentity::issued_by(&x509, authority.certificate()));
        assert!(
            private_key(&issued.key)
                .unwrap()
                .public_eq(&x509.public_key().unwrap())
        );
        let names = x509.subject_alt_names().unwrap();
        assert!(names.iter().any(|n| n.dnsname() == Some("s1.example.org")));
        let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
        assert!(names.iter().any(|n| n.ipaddress() == Some(&loopback[..])));
    }
}

#[test]
fn another_authoritys_certificate_is_told_apart() {
    let (ours, theirs) = (
        Authority::generate(at(NOW)).unwrap(),
        Authority::generate(at(NOW)).unwrap(),
    );
    let (_, x509) = issued(&theirs, Role::Site, "cern", &[]);
    assert!(!PeerIdentity::issued_by(&x509, ours.certificate()));
    // nor does a node's certificate make others
    let (_, other) = issued(&theirs, Role::Site, "ral", &[]);
    assert!(!PeerIdentity::issued_by(&x509, &other));
    // an authority's own certificate is nobody's
    assert!(matches!(
        peer(ours.certificate()),
        Err(IdentityError::Nameless(_))
    ));
}

#[test]
fn an_authority_comes_back_from_its_files() {
    let authority = Authority::generate(at(NOW)).unwrap();
    let (pem, key) = (
        authority.certificate_pem().unwrap(),
        authority.key_pem().unwrap(),
    );
    let again = Authority::from_pem(&pem, &key).unwrap();
    let (_, x509) = issued(&again, Role::Site, "cern", &[]);
    assert!(PeerIdentity::issued_by(&x509, authority.certificate()));
    let other = Authority::generate(at(NOW)).unwrap().key_pem().unwrap();
    assert!(Authority::from_pem(&pem, &other).is_err());
    assert!(Authority::from_pem(b"", &key).is_err());
}

#[test]
fn a_list_of_revoked_serials_names_them() {
    let authority = Authority::generate(at(NOW)).unwrap();
    let (gone, gone_x509) = issued(&authority, Role::Site, "cern", &[]);
    let (_, kept) = issued(&authority, Role::Site, "cern", &[]);
    let empty = authority.revocations(&[], at(NOW)).unwrap();
    assert!(empty.starts_with(b"-----BEGIN X509 CRL-----"));
    let pem = authority
        .revocations(&[(gone.serial, at(NOW))], at(NOW))
        .unwrap();
    let list = openssl::x509::X509Crl::from_pem(&pem).unwrap();
    let public = authority.certificate().public_key().unwrap();
    assert!(list.verify(&public).unwrap());
    let revoked =
        |x509: &X509| !matches!(list.get_by_cert(x509), openssl::x509::CrlStatus::NotRevoked);
    assert!(revoked(&gone_x509) && !revoked(&kept));
}

#[test]
fn names_and_serials_are_plain() {
    for good in ["a", "cern-1", "Stratum1.example_org", &"x".repeat(64)] {
        assert!(good.parse::<NodeName>().is_ok(), "{good}");
    }
    for bad in [
        "",
        ".",
        "..",
        "-x",
        "a/b",
        "a+",
        "#",
        "a b",
        "\u{e4}",
        "a\n",
        &"x".repeat(65),
    ] {
        assert!(bad.parse::<NodeName>().is_err(), "{bad}");
    }
    assert!("0af3".parse::<Serial>().is_ok());
    for bad in ["", "0A", "x", &"1".repeat(41)] {
        assert!(bad.parse::<Serial>().is_err(), "{bad}");
    }
}

#[test]
fn nothing_shows_a_key() {
    let authority = Authority::generate(at(NOW)).unwrap();
    let (issued, _) = issued(&authority, Role::Site, "cern", &[]);
    assert_eq!(format!("{authority:?}"), "Authority");
    assert_eq!(format!("{issued:?}"), format!("Issued({})", issued.serial));
}

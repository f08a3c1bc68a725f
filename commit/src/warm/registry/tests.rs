use formats::warm::identity;

use super::*;

const NOW: u64 = 1_800_000_000;

fn us(url: Option<&str>) -> Us {
    Us {
        broker: None,
        name: "stratum0".parse().unwrap(),
        url: url.map(str::to_owned),
    }
}

fn site(name: &str) -> NewSite {
    NewSite {
        name: name.parse().unwrap(),
        way: Way::Push {
            url: format!("https://{name}.example.org:8443"),
        },
        repositories: vec!["sw.example.org".into()],
        bandwidth: Some(1 << 20),
    }
}

fn registry() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new(dir.path().join("sites"));
    (dir, registry)
}

fn identity_of(enrolment: &Enrolment) -> PeerIdentity {
    identity::peer(&enrolment.credentials().unwrap().certificate).unwrap()
}

#[test]
fn a_site_comes_and_goes() {
    let (_dir, registry) = registry();
    assert!(registry.sites().unwrap().is_empty());
    assert!(registry.credentials(&us(None), at(NOW)).unwrap().is_none());
    let cern = registry.add(site("cern"), &us(None), at(NOW)).unwrap();
    let ral = registry.add(site("ral"), &us(None), at(NOW)).unwrap();
    let listed = registry.sites().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed[0].takes("sw.example.org") && !listed[0].takes("other.example.org"));
    assert_eq!(listed[0].bandwidth, Some(1 << 20));
    assert!(registry.knows(&identity_of(&cern)).unwrap().is_some());
    let name = cern.site.clone();
    registry.revoke(&name, at(NOW)).unwrap();
    // a second look, as after a restart
    let again = Registry::new(registry.dir().to_owned());
    assert!(again.knows(&identity_of(&cern)).unwrap().is_none());
    assert!(again.knows(&identity_of(&ral)).unwrap().is_some());
    assert!(matches!(
        again.revoke(&name, at(NOW)),
        Err(RegistryError::Unknown(_))
    ));
    let list = std::fs::read(again.dir().join(REVOCATIONS)).unwrap();
    let list = openssl::x509::X509Crl::from_pem(&list).unwrap();
    let status = list.get_by_cert(&cern.credentials().unwrap().certificate);
    assert!(matches!(status, openssl::x509::CrlStatus::Revoked(_)));
}

#[test]
fn a_new_certificate_ends_the_old_one() {
    let (_dir, registry) = registry();
    let old = registry.add(site("cern"), &us(None), at(NOW)).unwrap();
    let new = registry.add(site("cern"), &us(None), at(NOW)).unwrap();
    assert_eq!(registry.sites().unwrap().len(), 1);
    assert!(registry.knows(&identity_of(&old)).unwrap().is_none());
    assert!(registry.knows(&identity_of(&new)).unwrap().is_some());
    assert_eq!(old.ca, new.ca, "one authority for all");
}

#[test]
fn who_is_no_site_is_not_known() {
    let (_dir, registry) = registry();
    registry.add(site("cern"), &us(None), at(NOW)).unwrap();
    let own = registry.credentials(&us(None), at(NOW)).unwrap().unwrap();
    let own = identity::peer(&own.parsed().unwrap().certificate).unwrap();
    assert!(registry.knows(&own).unwrap().is_none());
    // another publisher's site of the same name
    let (_other_dir, other) = self::registry();
    let foreign = other.add(site("cern"), &us(None), at(NOW)).unwrap();
    assert!(registry.knows(&identity_of(&foreign)).unwrap().is_none());
}

#[test]
fn our_own_certificate_follows_name_and_address_and_time() {
    let (_dir, registry) = registry();
    registry.add(site("cern"), &us(None), at(NOW)).unwrap();
    let own = |us: &Us, now| {
        registry
            .credentials(us, at(now))
            .unwrap()
            .unwrap()
            .certificate
    };
    let first = own(&us(None), NOW);
    assert_eq!(first, own(&us(None), NOW + 86_400));
    let moved = own(&us(Some("https://192.0.2.7:8444")), NOW);
    assert_ne!(first, moved);
    assert_eq!(moved, own(&us(Some("https://192.0.2.7:9")), NOW));
    assert_ne!(
        moved,
        own(&us(Some("https://192.0.2.7:9")), NOW + 720 * 86_400)
    );
}

#[test]
fn sites_that_pull_are_told_where() {
    let (_dir, registry) = registry();
    let pulling = || NewSite {
        way: Way::Pull,
        ..site("behind-nat")
    };
    let refused = registry.add(pulling(), &us(None), at(NOW));
    assert!(matches!(refused, Err(RegistryError::NoOwnUrl)));
    let ours = us(Some("https://stratum0.example.org:8444"));
    let enrolment = registry.add(pulling(), &ours, at(NOW)).unwrap();
    assert_eq!(enrolment.publisher_url, ours.url);
    Enrolment::parse(&enrolment.text()).unwrap();
}

#[test]
fn addresses() {
    for (url, host) in [
        ("https://a.example.org:8443", "a.example.org"),
        ("https://a.example.org/", "a.example.org"),
        ("https://192.0.2.1:1", "192.0.2.1"),
        ("https://[2001:db8::1]:8443", "2001:db8::1"),
    ] {
        assert_eq!(host_of(url).unwrap(), host);
    }
    for bad in [
        "http://a",
        "a:8443",
        "https://",
        "https://u@a",
        "https://a/x",
        "https://a?x",
        "https://a:x",
    ] {
        assert!(host_of(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_damaged_register_is_refused_and_not_replaced() {
    let (_dir, registry) = registry();
    registry.add(site("cern"), &us(None), at(NOW)).unwrap();
    for text in [
        "x",
        "[[site]]\nname = \"a\"",
        "[[site]]\nname=\"../a\"\npull=true\nserial=\"1\"\nnot_after=1\nadded=1",
    ] {
        std::fs::write(registry.dir().join(SITES), text).unwrap();
        assert!(registry.sites().is_err(), "{text}");
        assert!(registry.add(site("ral"), &us(None), at(NOW)).is_err());
        assert_eq!(
            std::fs::read_to_string(registry.dir().join(SITES)).unwrap(),
            text
        );
    }
}

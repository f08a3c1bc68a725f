use std::time::{Duration, SystemTime};

use super::super::identity::{Authority, Subject};
use super::*;

fn sample(role: Role, name: &str) -> Enrolment {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let authority = Authority::generate(now).unwrap();
    let name: NodeName = name.parse().unwrap();
    let subject = Subject {
        role,
        name: &name,
        hosts: &[],
    };
    let issued = authority.issue(subject, now).unwrap();
    let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
    Enrolment {
        site: "cern".parse().unwrap(),
        publisher: "stratum0".parse().unwrap(),
        publisher_url: Some("https://stratum0.example.org:8444".into()),
        repositories: vec!["sw.example.org".into(), "two.example.org".into()],
        broker: None,
        broker_ca: None,
        ca: text(authority.certificate_pem().unwrap()),
        certificate: text(issued.certificate),
        key: text(issued.key),
    }
}

#[test]
fn it_is_read_as_it_was_written() {
    let mut enrolment = sample(Role::Site, "cern");
    for url in [enrolment.publisher_url.clone(), None] {
        enrolment.publisher_url = url;
        let again = Enrolment::parse(&enrolment.text()).unwrap();
        assert_eq!(again.text(), enrolment.text());
        assert_eq!(again.repositories, enrolment.repositories);
        assert_eq!(again.publisher_url, enrolment.publisher_url);
    }
    enrolment.broker_ca = Some(enrolment.ca.trim().to_owned());
    let error = Enrolment::parse(&enrolment.text()).unwrap_err();
    assert!(matches!(error, EnrolmentError::NoBroker), "{error}");
    enrolment.broker = Some("mqtts://broker.example.org".into());
    let again = Enrolment::parse(&enrolment.text()).unwrap();
    assert_eq!(again.broker, enrolment.broker);
    assert_eq!(
        again.broker_ca.map(|ca| ca.trim().to_owned()),
        enrolment.broker_ca
    );
    assert_eq!(format!("{enrolment:?}"), "Enrolment(cern of stratum0)");
}

#[test]
fn another_nodes_certificate_is_refused() {
    for (role, name) in [(Role::Site, "ral"), (Role::Publisher, "cern")] {
        let error = Enrolment::parse(&sample(role, name).text()).unwrap_err();
        assert!(
            matches!(error, EnrolmentError::WrongCertificate { .. }),
            "{error}"
        );
    }
    let (one, two) = (sample(Role::Site, "cern"), sample(Role::Site, "cern"));
    let mixed = Enrolment {
        ca: two.ca.clone(),
        ..one.clone()
    };
    assert!(Enrolment::parse(&mixed.text()).is_err());
    let mixed = Enrolment {
        key: two.key,
        ..one
    };
    assert!(Enrolment::parse(&mixed.text()).is_err());
}

#[test]
fn broken_texts_are_refused_and_keys_not_repeated() {
    let enrolment = sample(Role::Site, "cern");
    let text = enrolment.text();
    let secret = enrolment.key.lines().nth(1).unwrap();
    for broken in [
        text.replace("site =", "sight ="),
        text.replace("key = \"\"\"", "key = \"\""),
        text.replace("PRIVATE", "PIRATE"),
        text.replace("https:", "http:"),
        text.replace("\"cern\"", "\"../x\""),
        text.replace("two.example.org", "../two"),
        "x".repeat(ENROLMENT_BYTES_MAX + 1),
    ] {
        let error = Enrolment::parse(&broken).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
}

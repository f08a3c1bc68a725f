//! A site that hears its publisher over a real broker.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use formats::warm::message::{Announce, Message, Presence, Published, Ready, rfc3339};
use formats::warm::{Role, Topic};
use formats::{Hash, ObjectKind, ObjectName};
use store::{Broker, BrokerOptions, BrokerTls, Saying};

use crate::support::mosquitto::{self, Mosquitto};
use crate::support::publisher::{PUBLISHER, SITE};
use crate::support::world::World;
use crate::support::{REPO, object, objects};

/// Long enough for any machine.
const SOON: Duration = Duration::from_secs(60);

struct Talk {
    broker: Broker,
    heard: Receiver<(Topic, Vec<u8>)>,
    _mosquitto: Mosquitto,
}

/// A site's world whose enrolment names a broker, and the publisher's connection to that.
fn talk(world: &World) -> Talk {
    let authority = &world.publisher.authority;
    let mosquitto = Mosquitto::start(&world.path("broker"), authority, PUBLISHER);
    let mut enrolment = world.publisher.enrolment(None, &[]);
    enrolment.broker = Some(mosquitto.url());
    world.enrol("publisher", &enrolment);
    let own = mosquitto::client(authority, Role::Publisher, PUBLISHER);
    let (said, heard) = channel();
    let options = BrokerOptions {
        url: mosquitto.url(),
        client_id: "prepub".into(),
        tls: BrokerTls {
            ca: authority.certificate_pem().unwrap(),
            certificate: own.certificate,
            key: own.key,
        },
        subscriptions: vec![
            format!("cvmfs/publishers/{PUBLISHER}/ready/+/+"),
            "cvmfs/receivers/+/presence".into(),
        ],
        greeting: None,
        will: None,
        message_bytes_max: 8 << 20,
    };
    let broker = Broker::connect(options, move |_, topic, payload| {
        let _ = said.send((topic.parse().unwrap(), payload.to_vec()));
    });
    Talk {
        broker: broker.unwrap(),
        heard,
        _mosquitto: mosquitto,
    }
}

impl Talk {
    fn say(&self, topic: Topic, message: &impl Message) {
        let saying = Saying {
            topic: topic.render().unwrap(),
            payload: message.render().unwrap(),
            retain: false,
        };
        self.broker.say(saying).unwrap();
    }

    fn announce(&self, announce: &Announce) {
        let repo = announce.repo.clone();
        self.say(Topic::Announce { repo }, announce);
    }

    fn presence(&self) -> Presence {
        loop {
            let (topic, payload) = self.heard.recv_timeout(SOON).expect("a presence");
            if let Topic::Presence { .. } = topic {
                return Presence::parse(&payload).unwrap();
            }
        }
    }

    fn answer(&self, txn: &str) -> Ready {
        let expected = Topic::Ready {
            publisher: PUBLISHER.into(),
            payload: txn.into(),
            node: SITE.into(),
        };
        loop {
            let (topic, payload) = self.heard.recv_timeout(SOON).expect("an answer");
            if topic == expected {
                return Ready::parse(&payload).unwrap();
            }
        }
    }
}

fn announcement(txn: &str, names: &[(ObjectName, u64)]) -> Announce {
    Announce {
        payload_id: txn.into(),
        publisher_id: PUBLISHER.into(),
        repo: REPO.into(),
        hashes: names.iter().map(|(name, _)| *name).collect(),
        sizes: names.iter().map(|(_, bytes)| *bytes).collect(),
        total_bytes: names.iter().map(|(_, bytes)| bytes).sum(),
    }
}

#[test]
fn what_is_announced_is_answered_sent_and_published() {
    let mut world = World::new();
    world.more = "url = \"https://stratum1-a.example.org:8443\"\n".into();
    let talk = talk(&world);
    let receiver = world.start();
    let here = talk.presence();
    assert!(here.online && here.ready && here.repos == [REPO]);
    assert_eq!(here.data_url, "https://stratum1-a.example.org:8443");

    // some are there; a catalog is announced, as the predecessor does, and passed over
    let all = objects(0..20);
    let mut caller = world.call(receiver.at());
    caller.push("earlier", &all[..5]);
    let mut names: Vec<_> = all.iter().map(|(l, _)| (l.name, l.bytes)).collect();
    let catalog = ObjectName::new(Hash::null(), ObjectKind::Catalog);
    names.push((ObjectName::new(names[0].0.hash, catalog.kind), 17));
    talk.announce(&announcement("t1", &names));
    let ready = talk.answer("t1");
    assert_eq!(ready.error, None);
    assert_eq!(ready.data_url, here.data_url);
    let absent: BTreeSet<_> = ready.absent_hashes.into_iter().collect();
    let expected: BTreeSet<_> = all[5..].iter().map(|(l, _)| l.name).collect();
    assert_eq!(absent, expected);

    // the data go over HTTPS, with the token of the answer
    let outcome = caller.send("t1", &ready.session_token, &all[5..]);
    assert_eq!(outcome.kept, 15);
    let published = Published {
        repo: REPO.into(),
        new_root_hash: names[0].0.hash,
        published_at: rfc3339(1_800_000_000),
        revision: Some(2),
        payload_ids: vec!["t1".into()],
        hashes: Vec::new(),
    };
    talk.say(Topic::Published { repo: REPO.into() }, &published);
    let begun = std::time::Instant::now();
    while receiver.site.metrics.published.get() == 0 {
        assert!(begun.elapsed() < SOON, "it is not heard");
        std::thread::sleep(Duration::from_millis(10));
    }
    receiver.end();
    assert!(!talk.presence().online, "it says that it goes");
}

#[test]
fn what_makes_no_sense_is_refused_and_counted() {
    let world = World::new();
    let talk = talk(&world);
    let receiver = world.start();
    talk.presence();
    // of a predecessor, which does not say sizes and would send objects one by one
    let (listed, _) = object(1, 10);
    let mut unsized_ = announcement("t2", &[(listed.name, 10)]);
    unsized_.sizes.clear();
    talk.announce(&unsized_);
    let refusal = talk.answer("t2").error.expect("a refusal");
    assert!(refusal.contains("sizes"), "{refusal}");

    let elsewhere = announcement("t3", &[(listed.name, 10)]);
    let mut of_another = elsewhere.clone();
    of_another.repo = "other.example.org".into();
    // whom that concerns is somebody else
    talk.announce(&of_another);
    let topic = Topic::Announce { repo: REPO.into() };
    talk.say(topic.clone(), &of_another);
    let garbage = Saying {
        topic: topic.render().unwrap(),
        payload: b"{\"payload_id\": 17}".to_vec(),
        retain: false,
    };
    talk.broker.say(garbage).unwrap();
    talk.announce(&elsewhere);
    assert_eq!(talk.answer("t3").absent_hashes, [listed.name]);
    assert_eq!(receiver.site.metrics.messages_refused.get(), 2);
    receiver.end();
}

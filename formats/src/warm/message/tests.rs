//! Messages as sites have them, and hostile ones.

use serde_json::{Value, json};

use super::*;
use crate::object::ObjectKind;

const DATA: &str = "6f302a2d00000000000000000000000000004366";
const CHUNK: &str = "aa302a2d00000000000000000000000000004366P";
const CATALOG: &str = "bb302a2d00000000000000000000000000004366C";

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn written<M: Message>(message: &M) -> Value {
    serde_json::from_slice(&message.render().unwrap()).unwrap()
}

#[test]
fn the_predecessor_s_announcement() {
    let golden = json!({
        "payload_id": "8c1f6f7e-6a55", "publisher_id": "pub-8c1f6f7e-6a55",
        "repo": "software.example.org", "hashes": [DATA, CHUNK, CATALOG], "total_bytes": 4711,
    });
    let announce = Announce::parse(&bytes(&golden)).unwrap();
    let kinds: Vec<ObjectKind> = announce.hashes.iter().map(|name| name.kind).collect();
    assert_eq!(
        kinds,
        [ObjectKind::Data, ObjectKind::Chunk, ObjectKind::Catalog]
    );
    let mut both = golden.clone();
    both["txn"] = "8c1f6f7e-6a55".into();
    assert_eq!(written(&announce), both);
    // as its manual has it
    let manual = json!({"txn": "8c1f6f7e-6a55", "repo": "software.example.org",
        "hashes": [DATA, CHUNK, CATALOG], "total_bytes": 4711, "of_the_future": [1]});
    assert_eq!(Announce::parse(&bytes(&manual)).unwrap(), announce);
}

#[test]
fn the_predecessor_s_answer() {
    let golden = json!({
        "node_id": "stratum1-a", "session_token": "t0ken",
        "data_url": "https://stratum1-a.example.org:9101", "absent_hashes": [DATA],
    });
    let ready = Ready::parse(&bytes(&golden)).unwrap();
    assert_eq!(written(&ready), golden);
    assert_eq!(ready.error, None);
    // nothing absent, as Go writes it; and no error, spelt out
    let warm = json!({"node_id": "a", "absent_hashes": null, "error": ""});
    let warm = Ready::parse(&bytes(&warm)).unwrap();
    assert!(warm.absent_hashes.is_empty() && warm.error.is_none());
    // as its manual has it
    let manual = json!({"node_id": "a", "txn": "17", "error": "disk full"});
    let refusal = Ready::parse(&bytes(&manual)).unwrap();
    assert_eq!(refusal.payload_id.as_deref(), Some("17"));
    assert_eq!(refusal.error.as_deref(), Some("disk full"));
    let both = written(&refusal);
    assert_eq!(
        (&both["txn"], &both["payload_id"]),
        (&json!("17"), &json!("17"))
    );
}

#[test]
fn the_predecessor_s_presence_and_publication() {
    let seed = json!({"node_id": "a", "repos": ["software.example.org"],
        "data_url": "https://a:9101", "control_url": "https://a:9100", "online": true,
        "bloom_ready": true});
    let presence = Presence::parse(&bytes(&seed)).unwrap();
    assert!(presence.online && presence.ready);
    let mut both = seed.clone();
    both["ready"] = true.into();
    assert_eq!(written(&presence), both);
    let head = json!({"node_id": "a", "repos": [], "online": false, "ready": false});
    assert!(!Presence::parse(&bytes(&head)).unwrap().online);

    let published = json!({"repo": "software.example.org", "new_root_hash": DATA,
        "published_at": "2026-11-25T08:30:00Z"});
    let read = Published::parse(&bytes(&published)).unwrap();
    assert_eq!(written(&read), published);
    assert_eq!(rfc3339(1_795_595_400), "2026-11-25T08:30:00Z");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let base = json!({"payload_id": "17", "publisher_id": "p", "repo": "software.example.org",
        "hashes": []});
    assert!(Announce::parse(&bytes(&base)).is_ok());
    for (field, value) in [
        ("txn", json!("18")),
        ("payload_id", json!("../17")),
        ("payload_id", json!("")),
        ("publisher_id", json!("p/ready")),
        ("repo", json!("../etc")),
        ("hashes", json!(["no hash"])),
        ("hashes", json!([17])),
        ("sizes", json!([1])),
        ("total_bytes", json!(-1)),
        ("publisher_id", json!("p".repeat(TEXT_MAX + 1))),
    ] {
        let mut message = base.clone();
        message[field] = value;
        let read = Announce::parse(&bytes(&message));
        assert!(read.is_err(), "{message}");
    }
    let neither = json!({"repo": "software.example.org", "hashes": []});
    let read = Announce::parse(&bytes(&neither));
    assert!(matches!(read, Err(MessageError::Field("payload_id"))) || read.is_err());
    let two = json!({"node_id": "a", "online": true, "ready": true, "bloom_ready": false});
    assert!(Presence::parse(&bytes(&two)).is_err());
}

#[test]
fn a_message_of_a_million_names_is_read_and_no_more() {
    let many = |count: usize| {
        let mut message = br#"{"txn":"17","repo":"software.example.org","hashes":["#.to_vec();
        for at in 0..count {
            let comma = if at == 0 { "" } else { "," };
            message.extend_from_slice(format!("{comma}\"{at:040x}\"").as_bytes());
        }
        message.extend_from_slice(b"]}");
        message
    };
    let most = NAMES_MAX as usize;
    assert_eq!(Announce::parse(&many(most)).unwrap().hashes.len(), most);
    assert!(Announce::parse(&many(most + 1)).is_err());
    let large = vec![b' '; MESSAGE_BYTES_MAX + 1];
    assert!(matches!(
        Announce::parse(&large),
        Err(MessageError::TooLarge(_))
    ));
}

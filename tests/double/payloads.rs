//! What an answered pack says of its objects: little.

use formats::compress::compress;
use formats::{Algorithm, Compression, Hash, ObjectKind, ObjectName};
use serde_json::{Value, json};

use super::client::Pack;
use super::{Stage, crashed};

fn object(bytes: &[u8]) -> (ObjectName, Vec<u8>) {
    let stored = compress(Compression::Zlib, bytes);
    let name = ObjectName::new(Hash::of(Algorithm::Sha1, &stored), ObjectKind::Data);
    (name, stored)
}

struct Uploads {
    stage: Stage,
    token: String,
}

impl Uploads {
    fn new() -> Self {
        let stage = Stage::new();
        let token = stage.client.lease("/");
        Self { stage, token }
    }

    fn has(&self, name: &ObjectName) -> bool {
        self.stage
            .sandbox
            .storage()
            .join(name.storage_path())
            .is_file()
    }

    fn send(&self, pack: &Pack) -> Value {
        self.stage.client.payload(&self.token, pack).unwrap()
    }
}

#[test]
fn good_packs_are_kept_even_twice() {
    let uploads = Uploads::new();
    let objects = [object(b"one"), object(b""), object(b"two"), object(b"one")];
    for _ in 0..2 {
        assert_eq!(uploads.send(&Pack::of(&objects)), json!({"status": "ok"}));
    }
    assert!(objects.iter().all(|(name, _)| uploads.has(name)));
    assert_eq!(uploads.send(&Pack::of(&[])), json!({"status": "ok"}));
}

#[test]
fn a_header_that_is_wrong_is_ok_and_nothing_is_kept() {
    let uploads = Uploads::new();
    let objects = [object(b"one"), object(b"two")];
    let good = String::from_utf8(Pack::of(&objects).header).unwrap();
    for wrong in [
        good.replace("V2", "V3"),
        good.replace("\nS", "\nS1"),
        good.replace("N2", "N3"),
        good.replace("C ", "D "),
        good.replace("--\n", ""),
    ] {
        let mut pack = Pack::of(&objects);
        pack.set_header(&wrong);
        assert_eq!(uploads.send(&pack), json!({"status": "ok"}), "{wrong}");
    }
    let mut pack = Pack::of(&objects);
    pack.digest = Hash::of(Algorithm::Sha1, b"another").to_string();
    assert_eq!(uploads.send(&pack), json!({"status": "ok"}));
    assert!(!objects.iter().any(|(name, _)| uploads.has(name)));
}

#[test]
fn bytes_that_are_too_many_or_too_few_at_an_object_s_end_are_ok() {
    let uploads = Uploads::new();
    let objects = [object(b"three"), object(b"four")];
    let mut pack = Pack::of(&objects);
    pack.body.extend(b"garbage");
    assert_eq!(uploads.send(&pack), json!({"status": "ok"}));
    assert!(objects.iter().all(|(name, _)| uploads.has(name)));
    let objects = [object(b"five"), object(b"six")];
    let mut pack = Pack::of(&objects);
    pack.body.truncate(objects[0].1.len());
    assert_eq!(uploads.send(&pack), json!({"status": "ok"}));
    assert_eq!(objects.map(|(name, _)| uploads.has(&name)), [true, false]);
}

#[test]
fn an_object_that_is_not_what_it_is_called_crashes_the_receiver() {
    let uploads = Uploads::new();
    let error = json!({"status": "error", "reason": crashed("payload submission")});
    let mut objects = [object(b"five"), object(b"six"), object(b"seven")];
    objects[1].1[3] ^= 1;
    assert_eq!(uploads.send(&Pack::of(&objects)), error);
    assert_eq!(
        objects.map(|(name, _)| uploads.has(&name)),
        [true, false, true]
    );
    let objects = [object(b"eight"), object(b"nine")];
    let mut pack = Pack::of(&objects);
    pack.body.pop();
    assert_eq!(uploads.send(&pack), error);
    assert_eq!(objects.map(|(name, _)| uploads.has(&name)), [true, false]);
}

#[test]
fn the_old_request_without_a_token_in_its_path() {
    let uploads = Uploads::new();
    let (name, stored) = object(b"old");
    let pack = Pack::of(&[(name, stored)]);
    let message = pack.message(&uploads.token);
    let client = &uploads.stage.client;
    let body = [message.as_bytes(), &pack.header, &pack.body].concat();
    let send = |size: usize, encoding: &[String], body: &[u8]| {
        let mut headers = vec![
            format!("Authorization: {}", client.sign(message.as_bytes())),
            format!("Message-Size: {size}"),
        ];
        headers.extend_from_slice(encoding);
        client
            .send("POST", "/api/v1/payloads", &headers, body)
            .unwrap()
    };
    let unread = send(body.len() + 1, &[], &body);
    assert_eq!(
        (unread.status, unread.body.as_str()),
        (500, "could not read request body\n")
    );
    assert_eq!(
        send(message.len() + 1, &[], &body).json()["reason"],
        "invalid_hmac"
    );
    // of unknown length: the pack is lost, and all is well
    let first = format!("{:x}\r\n", body.len());
    let chunked = [first.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let encoding = ["Transfer-Encoding: chunked".to_owned()];
    assert_eq!(
        send(message.len(), &encoding, &chunked).json(),
        json!({"status": "ok"})
    );
    assert!(!uploads.has(&name));
    assert_eq!(
        send(message.len(), &[], &body).json(),
        json!({"status": "ok"})
    );
    assert!(uploads.has(&name));
}

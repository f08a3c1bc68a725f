//! A site with its replica, a publisher that calls it, and what both have of one another.

#[allow(dead_code, reason = "another room's; not all of it is wanted here")]
#[path = "../../../store/tests/support/made.rs"]
pub mod made;
#[allow(dead_code, reason = "another room's; not all of it is wanted here")]
#[path = "../../../store/tests/support/mosquitto.rs"]
pub mod mosquitto;
pub mod publisher;
#[allow(dead_code, reason = "another room's; not all of it is wanted here")]
#[path = "../../../store/tests/support/s3.rs"]
pub mod s3;
pub mod world;

use std::io::Read;

use formats::warm::list::write_list;
use formats::warm::{Encoder, Listed};
use formats::{Algorithm, Hash, ObjectKind, ObjectName};

pub const REPO: &str = "sw.example.org";

/// An object and its bytes.
pub type Object = (Listed, Vec<u8>);

/// The `n`th object of a test, of so many bytes; every fifth is a chunk.
pub fn object(n: u64, len: usize) -> Object {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    let kind = match n % 5 {
        0 => ObjectKind::Chunk,
        _ => ObjectKind::Data,
    };
    let name = ObjectName::new(Hash::of(Algorithm::Sha1, &bytes), kind);
    let listed = Listed {
        name,
        bytes: len as u64,
    };
    (listed, bytes)
}

pub fn objects(range: std::ops::Range<u64>) -> Vec<Object> {
    range.map(|n| object(n, 100 + n as usize % 3000)).collect()
}

pub fn list(objects: &[Object]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_list(&mut bytes, objects.iter().map(|(listed, _)| *listed)).unwrap();
    bytes
}

pub fn bundle(objects: &[Object]) -> Vec<u8> {
    let open = |name: &ObjectName| {
        let found = objects.iter().find(|(listed, _)| listed.name == *name);
        let (_, bytes) = found.unwrap();
        Ok(Box::new(std::io::Cursor::new(bytes.clone())) as Box<dyn Read + Send>)
    };
    let listed = objects.iter().map(|(listed, _)| *listed).collect();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(listed, open).unwrap();
    encoder.read_to_end(&mut bytes).unwrap();
    bytes
}

//! What the tests share: names, golden repositories, a web server and an S3
//! server that misbehave on demand.

pub mod golden;
pub mod made;
pub mod mosquitto;
pub mod s3;
#[allow(dead_code, reason = "what other rooms need of it, too")]
pub mod s3_proxy;
pub mod server;

use std::io::Read;
use std::sync::Arc;

use formats::{Algorithm, Hash, ObjectKind, ObjectName};
use store::ObjectStore;
pub use store::chain;

/// The name that an object of these bytes has.
pub fn name_of(bytes: &[u8]) -> ObjectName {
    ObjectName::new(Hash::of(Algorithm::Sha1, bytes), ObjectKind::Data)
}

/// Bytes that look random and are always the same.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// Everything a store has under a name.
pub fn read(store: &dyn ObjectStore, name: &ObjectName) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// All objects of a store, sorted.
pub fn list(store: &dyn ObjectStore) -> Vec<(ObjectName, u64)> {
    let mut all = Vec::new();
    store
        .for_each(&mut |name, size| {
            all.push((name, size));
            Ok(())
        })
        .unwrap();
    all.sort();
    all
}

/// A shared store of any kind.
pub fn shared(store: impl ObjectStore + 'static) -> Arc<dyn ObjectStore> {
    Arc::new(store)
}

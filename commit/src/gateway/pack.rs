//! Object packs: what a payload carries.
//!
//! ```text
//! POST /payloads
//! Message-Size: 185
//!
//! {"session_token":..,"payload_digest":..,"header_size":"57","api_version":"2"}
//! V2
//! S5                                     bytes of all objects
//! N1                                     how many
//! --
//! C aaf4c61d...34d 5                     name and stored bytes of each, in the order of the bodies
//! hello
//! ```
//!
//! [CVMFS `pack.cc:InitializeHeader`, `session_context.cc:DoUpload`]. The digest is that of the pack's
//! header. A pack is streamed: of its objects only a buffer is ever in memory.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use formats::hash::{Algorithm, Hash};
use formats::object::ObjectName;
use store::ObjectStore;

use super::key::Token;

/// Bytes of objects in one pack; a larger object travels alone [CVMFS `pack.h`, 200 MiB]. It bounds
/// what is sent again after a failure, and how long a request takes, not memory.
pub(super) const PACK_BYTES_MAX: u64 = 200 << 20;
/// Objects in one pack: the receiver takes headers of 10,000,000 bytes, and a line has some 65.
pub(super) const PACK_OBJECTS_MAX: usize = 100_000;
/// From here on the receiver's 32-bit positions overflow.
pub(super) const OBJECT_BYTES_MAX: u64 = u32::MAX as u64;

/// An object and how long it is, as stored.
pub(super) type Item = (ObjectName, u64);

/// Objects that travel together.
pub(super) struct Pack {
    header: Vec<u8>,
    items: Vec<Item>,
    bytes: u64,
}

/// Cuts a list of objects into packs, in its order.
pub(super) fn packs(items: Vec<Item>) -> Vec<Pack> {
    let mut packs = Vec::new();
    let (mut next, mut bytes) = (Vec::new(), 0_u64);
    for (name, size) in items {
        let full = bytes.saturating_add(size) > PACK_BYTES_MAX || next.len() >= PACK_OBJECTS_MAX;
        if full && !next.is_empty() {
            packs.push(Pack::of(std::mem::take(&mut next)));
            bytes = 0;
        }
        bytes += size;
        next.push((name, size));
    }
    if !next.is_empty() {
        packs.push(Pack::of(next));
    }
    packs
}

impl Pack {
    fn of(items: Vec<Item>) -> Self {
        let bytes = items.iter().map(|(_, size)| size).sum();
        let mut header = format!("V2\nS{bytes}\nN{}\n--\n", items.len());
        for (name, size) in &items {
            header.push_str(&format!("C {name} {size}\n"));
        }
        Self {
            header: header.into_bytes(),
            items,
            bytes,
        }
    }

    /// What it carries.
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// The JSON message that goes before it. Numbers are strings, or the gateway answers 400.
    pub(super) fn message(&self, token: &Token) -> Vec<u8> {
        let digest = Hash::of(Algorithm::Sha1, &self.header);
        serde_json::json!({
            "session_token": token.reveal(),
            "payload_digest": digest.to_string(),
            "header_size": self.header.len().to_string(),
            "api_version": "2",
        })
        .to_string()
        .into_bytes()
    }

    /// Bytes of header and objects.
    pub(super) fn len(&self) -> u64 {
        self.header.len() as u64 + self.bytes
    }

    /// Header and objects as one stream of exactly [`Pack::len`] bytes, read from `store`.
    pub(super) fn reader(&self, store: Arc<dyn ObjectStore>) -> PackReader {
        PackReader {
            front: Cursor::new(self.header.clone()),
            items: self.items.clone().into_iter(),
            object: None,
            store,
        }
    }
}

/// See [`Pack::reader`].
pub(super) struct PackReader {
    front: Cursor<Vec<u8>>,
    items: std::vec::IntoIter<Item>,
    object: Option<(ObjectName, io::Take<Box<dyn Read + Send>>)>,
    store: Arc<dyn ObjectStore>,
}

impl Read for PackReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.front.read(buffer)?;
        if n > 0 {
            return Ok(n);
        }
        loop {
            if let Some((name, object)) = &mut self.object {
                let n = object.read(buffer)?;
                if n > 0 {
                    return Ok(n);
                }
                if object.limit() > 0 {
                    let why = format!("object {name} is shorter than it was");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
            }
            let Some((name, size)) = self.items.next() else {
                self.object = None;
                return Ok(0);
            };
            let object = self.store.open(&name).map_err(io::Error::other)?;
            self.object = Some((name, object.take(size)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::object::ObjectKind;
    use store::MemoryStore;

    fn object(store: &MemoryStore, kind: ObjectKind, bytes: &[u8]) -> Item {
        let name = ObjectName::new(Hash::of(Algorithm::Sha1, bytes), kind);
        store::put(store, &name, bytes).unwrap();
        (name, bytes.len() as u64)
    }

    #[test]
    fn as_the_specification_says() {
        let store = MemoryStore::new();
        let packs = packs(vec![object(&store, ObjectKind::Data, b"hello")]);
        let pack = &packs[0];
        let mut sent = Vec::new();
        pack.reader(Arc::new(store)).read_to_end(&mut sent).unwrap();
        let header = "V2\nS5\nN1\n--\nC aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d 5\n";
        assert_eq!(sent, [header.as_bytes(), b"hello"].concat());
        assert_eq!(sent.len() as u64, pack.len());
        let message = pack.message(&Token::new("T").unwrap());
        let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(message["header_size"], "57");
        assert_eq!(
            message["payload_digest"],
            "f222d17c10a0db78c6933d796be58eb6e36e0302"
        );
    }

    /// The pack of catalogs that the official publisher sent, byte by byte.
    #[test]
    fn as_recorded() {
        let recorded = include_bytes!("../../tests/data/wire/payload.body");
        let message_bytes = 185;
        let (message, pack) = recorded.split_at(message_bytes);
        let message: serde_json::Value = serde_json::from_slice(message).unwrap();
        let header_bytes: usize = message["header_size"].as_str().unwrap().parse().unwrap();
        let (header, mut bodies) = pack.split_at(header_bytes);
        let store = MemoryStore::new();
        let mut items = Vec::new();
        for line in std::str::from_utf8(header).unwrap().lines().skip(4) {
            let words: Vec<&str> = line.split(' ').collect();
            let (name, size): (ObjectName, usize) =
                (words[1].parse().unwrap(), words[2].parse().unwrap());
            let (body, rest) = bodies.split_at(size);
            store::put(&store, &name, body).unwrap();
            items.push((name, size as u64));
            bodies = rest;
        }
        assert_eq!(items.len(), 2);
        let ours = packs(items);
        let mut sent = Vec::new();
        ours[0]
            .reader(Arc::new(store))
            .read_to_end(&mut sent)
            .unwrap();
        assert_eq!(sent, pack);
        let token = Token::new(message["session_token"].as_str().unwrap()).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&ours[0].message(&token)).unwrap();
        assert_eq!(said, message);
    }

    #[test]
    fn large_objects_travel_alone() {
        let name = |n: u64| {
            ObjectName::new(
                Hash::of(Algorithm::Sha1, &n.to_le_bytes()),
                ObjectKind::Chunk,
            )
        };
        let sizes = [
            10,
            PACK_BYTES_MAX,
            PACK_BYTES_MAX + 5,
            1,
            PACK_BYTES_MAX - 1,
            1,
        ];
        let items = (0..).zip(sizes).map(|(n, size)| (name(n), size)).collect();
        let cut: Vec<usize> = packs(items).iter().map(|pack| pack.items().len()).collect();
        assert_eq!(cut, [1, 1, 1, 2, 1]);
    }

    #[test]
    fn an_object_that_shrank_ends_the_stream() {
        let store = MemoryStore::new();
        let (name, _) = object(&store, ObjectKind::Data, b"hello");
        let pack = Pack::of(vec![(name, 6)]);
        let error = pack.reader(Arc::new(store)).read_to_end(&mut Vec::new());
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

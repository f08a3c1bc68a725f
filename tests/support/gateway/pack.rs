//! Object packs, read as trustingly as the receiver reads them.
//!
//! ```text
//! V2
//! S<bytes of all objects>
//! N<number of objects>
//! --
//! C <hash><letter> <bytes>      one line per object
//! <the objects' bytes>
//! ```
//!
//! A header that is not what was announced is no error to anybody: nothing is stored, and the
//! answer is `ok`. Bytes that belong to no object are passed over. Named objects (`N` lines), which
//! no publisher sends, are taken for a malformed header.

use formats::{Algorithm, Hash, ObjectName};

/// What a receiver made of a pack.
#[derive(Default)]
pub struct Unpacked<'p> {
    /// The objects that are what they are called.
    pub objects: Vec<(ObjectName, &'p [u8])>,
    /// An object was cut short, or was not what it was called: the receiver does not survive that.
    pub crashed: bool,
}

/// Reads a pack. `digest` is the announced SHA-1 of its header.
pub fn unpack<'p>(pack: &'p [u8], digest: &str, header_bytes: usize) -> Unpacked<'p> {
    let mut unpacked = Unpacked::default();
    let Some((header, mut rest)) = pack.split_at_checked(header_bytes) else {
        return unpacked;
    };
    if Hash::of(Algorithm::Sha1, header).to_string() != digest {
        return unpacked;
    }
    for (name, bytes) in parse_header(header).unwrap_or_default() {
        let Some((object, after)) = rest.split_at_checked(bytes) else {
            // cut between two objects it is a shorter pack
            unpacked.crashed |= !rest.is_empty();
            break;
        };
        rest = after;
        if Hash::of(name.hash.algorithm(), object) == name.hash {
            unpacked.objects.push((name, object));
        } else {
            unpacked.crashed = true;
        }
    }
    unpacked
}

/// What the objects are called and how long they are; none if the header contradicts itself.
fn parse_header(header: &[u8]) -> Option<Vec<(ObjectName, usize)>> {
    let header = std::str::from_utf8(header).ok()?;
    let (fields, index) = header.split_once("--\n")?;
    let field = |letter: char| fields.lines().find_map(|line| line.strip_prefix(letter));
    if field('V')? != "2" {
        return None;
    }
    let mut objects = Vec::new();
    for line in index.lines().take_while(|line| !line.is_empty()) {
        let (name, bytes) = line.strip_prefix("C ")?.split_once(' ')?;
        objects.push((name.parse().ok()?, bytes.parse().ok()?));
    }
    let sum: usize = objects.iter().map(|(_, bytes)| bytes).sum();
    let agrees = field('N')? == objects.len().to_string() && field('S')? == sum.to_string();
    agrees.then_some(objects)
}

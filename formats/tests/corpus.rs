//! Every parser over the fuzzing corpus and over damaged copies of it: no panic, no hang, and what
//! is accepted can be written and read again.
//!
//! The damage is the same in every run. fuzz/ has the targets for an open-ended search.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Damaged inputs per target.
const MUTATIONS: usize = 5000;

/// Databases go through files, and are read twice.
const DATABASE_MUTATIONS: usize = 1500;

/// Marsaglia's xorshift: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        let longest = (len - from).min(64);
        from..from + self.below(longest + 1)
    }
}

/// Bytes that parsers treat specially.
const TELLING: &[u8] = b"\0\n\r\t !\"#$%&'()*+,-./09:;<=>?@AEX[\\]^_`{|}~\x7f\x80\xff";

fn damage(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => {
            let range = random.range(bytes.len());
            bytes.drain(range);
        }
        2 => {
            let copy = bytes[random.range(bytes.len())].to_vec();
            let at = random.below(bytes.len() + 1);
            bytes.splice(at..at, copy);
        }
        3 => {
            let piece = other[random.range(other.len())].to_vec();
            let place = random.range(bytes.len());
            bytes.splice(place, piece);
        }
        4 => {
            let at = random.below(bytes.len() + 1);
            bytes.insert(at, TELLING[random.below(TELLING.len())]);
        }
        5 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] = TELLING[random.below(TELLING.len())];
        }
        6 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] = bytes[at].wrapping_add([1, 255][random.below(2)]);
        }
        _ if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
}

fn replay(target: &str, mutations: usize, parse: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("the target's corpus")
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let inputs: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for input in &inputs {
        parse(input);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..mutations {
        let mut bytes = inputs[round % inputs.len()].clone();
        let other = &inputs[random.below(inputs.len())];
        for _ in 0..=random.below(4) {
            damage(&mut random, &mut bytes, other);
        }
        parse(&bytes);
    }
}

#[test]
fn manifest() {
    replay("manifest", MUTATIONS, targets::manifest);
}

#[test]
fn whitelist() {
    replay("whitelist", MUTATIONS, targets::whitelist);
}

#[test]
fn server_conf() {
    replay("server_conf", MUTATIONS, targets::server_conf);
}

#[test]
fn dirtab() {
    replay("dirtab", MUTATIONS, targets::dirtab);
}

#[test]
fn meta_info() {
    replay("meta_info", MUTATIONS, targets::meta_info);
}

#[test]
fn names() {
    replay("names", MUTATIONS, targets::names);
}

#[test]
fn xattr() {
    replay("xattr", MUTATIONS, targets::xattr);
}

#[test]
fn decompress() {
    replay("decompress", MUTATIONS, targets::decompress_object);
}

#[test]
fn catalog() {
    replay("catalog", DATABASE_MUTATIONS, targets::catalog);
}

#[test]
fn history() {
    replay("history", DATABASE_MUTATIONS, targets::history);
}

#[test]
fn reflog() {
    replay("reflog", DATABASE_MUTATIONS, targets::reflog);
}

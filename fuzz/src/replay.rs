//! A target over its corpus and over damaged copies of it. The damage is the same in every run.
//!
//! A module of the tests, not of the targets: libFuzzer has its own ways to damage what it has.

use std::fs;
use std::path::Path;

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

/// Runs a target over its corpus, and over so many damaged copies of what is in it.
pub fn replay(target: &str, mutations: usize, parse: fn(&[u8])) {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|root| root.join("fuzz/corpus"))
        .find(|corpora| corpora.is_dir())
        .expect("the corpora, in the workspace's root");
    let mut files: Vec<_> = fs::read_dir(corpora.join(target))
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

//! A set of objects on disk, sorted: a transaction may have a million, and they need no memory.
//!
//! ```text
//! 20 bytes  digest          1 byte  kind and algorithm          8 bytes  size, little endian
//! ```
//! Digest first, so that the records' order is that of the storage's directories. Only this program
//! reads these files, and only on the machine that wrote them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use formats::hash::{Algorithm, DIGEST_LEN, Hash};
use formats::object::{ObjectKind, ObjectName};
use formats::warm::{Listed, NAMES_MAX};

/// Bytes of a record.
pub const RECORD_BYTES: usize = DIGEST_LEN + 1 + 8;
/// The part that orders them.
const KEY_BYTES: usize = DIGEST_LEN + 1;
/// Read or written at a time, a quarter of a megabyte.
const BUFFER_RECORDS: usize = 9_000;
/// Read at a time where one is looked for: whoever comes next is mostly near by, since publishers send
/// objects in the storage's order.
const BLOCK_RECORDS: u64 = 128;

/// An object and its size.
pub type Record = [u8; RECORD_BYTES];

/// The record of an object of a file.
#[must_use]
pub fn record(listed: &Listed) -> Record {
    let mut record = [0; RECORD_BYTES];
    let hash = &listed.name.hash;
    record[..DIGEST_LEN].copy_from_slice(hash.digest());
    let algorithm = match hash.algorithm() {
        Algorithm::Sha1 => 0,
        Algorithm::Rmd160 => 1,
        Algorithm::Shake128 => 2,
    };
    record[DIGEST_LEN] = algorithm << 1 | u8::from(listed.name.kind == ObjectKind::Chunk);
    record[KEY_BYTES..].copy_from_slice(&listed.bytes.to_le_bytes());
    record
}

/// The object of a record; none if it is no record of ours.
#[must_use]
pub fn listed(record: &Record) -> Option<Listed> {
    let algorithm = match record[DIGEST_LEN] >> 1 {
        0 => Algorithm::Sha1,
        1 => Algorithm::Rmd160,
        2 => Algorithm::Shake128,
        _ => return None,
    };
    let kind = match record[DIGEST_LEN] & 1 {
        0 => ObjectKind::Data,
        _ => ObjectKind::Chunk,
    };
    let (mut digest, mut size) = ([0; DIGEST_LEN], [0; 8]);
    digest.copy_from_slice(&record[..DIGEST_LEN]);
    size.copy_from_slice(&record[KEY_BYTES..]);
    Some(Listed {
        name: ObjectName::new(Hash::new(algorithm, digest), kind),
        bytes: u64::from_le_bytes(size),
    })
}

fn key(record: &Record) -> &[u8] {
    &record[..KEY_BYTES]
}

/// A list as it was announced, and the order in which its objects lie in a storage.
#[derive(Debug, Default)]
pub struct List {
    records: Vec<Record>,
    order: Vec<u32>,
}

impl List {
    /// Of no more than [`NAMES_MAX`] objects, 33 bytes each.
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        let mut order: Vec<u32> = (0..records.len() as u32).collect();
        order.sort_unstable_by_key(|at| records[*at as usize]);
        Self { records, order }
    }

    /// How many it has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.order.len() as u32
    }

    /// True if it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Where the objects stand in the list, in the storage's order.
    #[must_use]
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The object at this place of the list.
    #[must_use]
    pub fn at(&self, at: u32) -> Option<Listed> {
        listed(self.records.get(at as usize)?)
    }

    fn sorted(&self) -> impl Iterator<Item = Record> + '_ {
        self.order.iter().map(|at| self.records[*at as usize])
    }
}

/// A sorted file without an object twice.
#[derive(Debug)]
pub struct Sorted {
    file: File,
    len: u64,
    /// Records that were read last.
    block: Vec<u8>,
}

impl Sorted {
    /// Opens one; none if there is no such file.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let len = file.metadata()?.len() / RECORD_BYTES as u64;
        Ok(Some(Self {
            file,
            len,
            block: Vec::new(),
        }))
    }

    /// How many objects.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The object's size, if it is in here.
    ///
    /// # Errors
    /// Those of the system.
    pub fn find(&mut self, name: &ObjectName) -> io::Result<Option<u64>> {
        let wanted = record(&Listed {
            name: *name,
            bytes: 0,
        });
        let (block, _) = self.block.as_chunks::<RECORD_BYTES>();
        let is_there = match (block.first(), block.last()) {
            (Some(first), Some(last)) => (key(first)..=key(last)).contains(&key(&wanted)),
            _ => false,
        };
        if !is_there {
            self.read_block(key(&wanted))?;
        }
        let (block, _) = self.block.as_chunks::<RECORD_BYTES>();
        let found = block.binary_search_by(|one| key(one).cmp(key(&wanted)));
        Ok(found
            .ok()
            .and_then(|at| listed(&block[at]).map(|l| l.bytes)))
    }

    /// Reads the records among which that one is, if it is in here.
    fn read_block(&mut self, wanted: &[u8]) -> io::Result<()> {
        let (mut low, mut high) = (0, self.len.div_ceil(BLOCK_RECORDS));
        let mut first = [0; RECORD_BYTES];
        while low < high {
            let middle = low + (high - low) / 2;
            let at = middle * BLOCK_RECORDS * RECORD_BYTES as u64;
            self.file.read_exact_at(&mut first, at)?;
            match key(&first) <= wanted {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let start = low.saturating_sub(1) * BLOCK_RECORDS;
        let records = (self.len - start).min(BLOCK_RECORDS) as usize;
        self.block.resize(records * RECORD_BYTES, 0);
        let at = start * RECORD_BYTES as u64;
        let read = self.file.read_exact_at(&mut self.block, at);
        if read.is_err() {
            self.block.clear();
        }
        read
    }

    /// All of them, in order.
    ///
    /// # Errors
    /// Those of the system.
    pub fn records(&self) -> io::Result<Records> {
        Ok(Records::of(Some(self.file.try_clone()?)))
    }

    /// As a list, in their order; none if they are more than one has.
    ///
    /// # Errors
    /// Those of the system.
    pub fn list(&self) -> io::Result<Option<List>> {
        if self.len > NAMES_MAX.into() {
            return Ok(None);
        }
        let mut records = Vec::with_capacity(self.len as usize);
        for record in self.records()? {
            records.push(record?);
        }
        Ok(Some(List::new(records)))
    }

    /// True if each of these is in here, of the same size.
    ///
    /// # Errors
    /// Those of the system.
    pub fn has_all(&self, list: &List) -> io::Result<bool> {
        let mut ours = self.records()?;
        for wanted in list.sorted() {
            loop {
                match ours.next().transpose()? {
                    Some(one) if one == wanted => break,
                    Some(one) if one < wanted => {}
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Writes `more` and what an older file has into a new file, synced; returns how many there are.
    ///
    /// # Errors
    /// Those of the system.
    pub fn merge(older: Option<&Self>, more: &List, to: &Path) -> io::Result<u64> {
        let mut out = BufWriter::with_capacity(BUFFER_RECORDS * RECORD_BYTES, File::create(to)?);
        let mut old = match older {
            Some(older) => older.records()?,
            None => Records::of(None),
        };
        let mut new = more.sorted();
        let (mut a, mut b) = (old.next().transpose()?, new.next());
        let mut last: Option<Record> = None;
        let mut len = 0;
        loop {
            let next = match (a, b) {
                (None, None) => break,
                (Some(x), Some(y)) if key(&x) <= key(&y) => x,
                (Some(x), None) => x,
                (_, Some(y)) => y,
            };
            if a.is_some_and(|x| x == next) {
                a = old.next().transpose()?;
            } else {
                b = new.next();
            }
            if last.is_none_or(|last| key(&last) != key(&next)) {
                out.write_all(&next)?;
                len += 1;
            }
            last = Some(next);
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(len)
    }
}

/// Records of a file that is read through; one at the end that is not whole is passed over.
#[derive(Debug)]
pub struct Records {
    file: Option<File>,
    /// Where the buffer's bytes end in the file: descriptors may share an offset, so each has its own.
    at: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Records {
    /// Of a file in any order.
    #[must_use]
    pub fn of(file: Option<File>) -> Self {
        Self {
            file,
            at: 0,
            buffer: Vec::new(),
            used: 0,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        self.buffer.resize(BUFFER_RECORDS * RECORD_BYTES, 0);
        let mut end = 0;
        while end < self.buffer.len() {
            match file.read_at(&mut self.buffer[end..], self.at + end as u64) {
                Ok(0) => break,
                Ok(read) => end += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        end -= end % RECORD_BYTES;
        self.buffer.truncate(end);
        self.at += end as u64;
        self.used = 0;
        if end == 0 {
            self.file = None;
        }
        Ok(())
    }
}

impl Iterator for Records {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.used == self.buffer.len()
            && let Err(e) = self.fill()
        {
            self.file = None;
            return Some(Err(e));
        }
        let (record, _) = self.buffer[self.used..].split_first_chunk::<RECORD_BYTES>()?;
        self.used += RECORD_BYTES;
        Some(Ok(*record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(n: u32) -> Listed {
        let kinds = [ObjectKind::Data, ObjectKind::Chunk];
        let algorithms = [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128];
        Listed {
            name: ObjectName::new(
                Hash::of(algorithms[n as usize % 3], &n.to_le_bytes()),
                kinds[n as usize % 2],
            ),
            bytes: n.into(),
        }
    }

    #[test]
    fn found_again_after_merging() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let some =
            |range: std::ops::Range<u32>| List::new(range.map(|n| record(&object(n))).collect());
        assert_eq!(Sorted::merge(None, &some(0..10_000), &one).unwrap(), 10_000);
        let first = Sorted::open(&one).unwrap().unwrap();
        let merged = Sorted::merge(Some(&first), &some(5_000..20_000), &two).unwrap();
        assert_eq!(merged, 20_000);
        let mut both = Sorted::open(&two).unwrap().unwrap();
        for n in (0..20_000).step_by(7) {
            assert_eq!(both.find(&object(n).name).unwrap(), Some(n.into()));
        }
        for n in 20_000..20_100 {
            assert_eq!(both.find(&object(n).name).unwrap(), None);
        }
        let all: Vec<Record> = both.records().unwrap().map(Result::unwrap).collect();
        assert_eq!(all.len(), 20_000);
        assert!(all.is_sorted());
        assert!(all.is_sorted_by_key(|r| listed(r).unwrap().key()));
        let again = both.list().unwrap().unwrap();
        assert!(again.sorted().eq(all.iter().copied()) && again.order().is_sorted());
        assert!(
            all.iter()
                .all(|r| listed(r).is_some_and(|l| record(&l) == *r))
        );
        for record in &all {
            let listed = listed(record).unwrap();
            assert_eq!(both.find(&listed.name).unwrap(), Some(listed.bytes));
        }
        assert!(Sorted::open(&dir.path().join("none")).unwrap().is_none());
        let known = |range| both.has_all(&some(range)).unwrap();
        assert!(known(0..20_000) && known(17..18) && known(3..3));
        assert!(!known(19_999..20_001));
        let empty = dir.path().join("empty");
        Sorted::merge(None, &some(0..0), &empty).unwrap();
        let mut empty = Sorted::open(&empty).unwrap().unwrap();
        assert_eq!(empty.find(&object(1).name).unwrap(), None);
    }

    #[test]
    fn a_torn_record_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("torn");
        let bytes = [&record(&object(1))[..], &[1, 2, 3]].concat();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Records::of(Some(File::open(&path).unwrap())).count(), 1);
    }
}

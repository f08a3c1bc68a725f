//! Any bytes as records of a stage's journal.
//!
//! ```text
//! <length of the key, 1 byte> <length of the value, 2 bytes> <key> <value>   any number
//! ```
//!
//! The stage opens, or says which record it cannot read. Where it opens, nothing that is asked of it
//! may panic or hang, and what it shows then is there again after a restart. What becomes of a
//! damaged log is another matter (fsimpl/tests/journal.rs). The module is part of fsimpl's tests too;
//! both have the bench of fsimpl/tests/support at `crate::support`.

use std::ops::ControlFlow;
use std::path::Path;

use formats::RepoPath;
use fsimpl::{FileType, Ino, OpenFiles, OpenFlags};

use crate::support::{Bench, Published, ROOT, dir, file, link};

/// Records of one input; what is longer finds nothing new.
const RECORDS_MAX: usize = 64;
/// Names that are looked at: damaged records must not make a tree without end.
const NAMES_MAX: usize = 2000;
/// The first bytes of keys.
const LETTERS: [u8; 4] = *b"ndmf";

/// A record: its key, and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// A stage over a published tree, so that there is something below what is staged.
pub fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
        ("/a/sub", (dir(0o755), Vec::new())),
        ("/a/sub/deep", file(b"deep")),
        ("/b", (dir(0o755), Vec::new())),
        ("/b/l", (link("x"), Vec::new())),
    ]))
}

/// Opens a stage with these records in its journal.
pub fn journal(bytes: &[u8]) {
    let mut bench = bench();
    bench.close();
    put(&bench.dir.path().join("stage/journal"), &read(bytes));
    // recovery looks at what was not synced
    bench.boot += 1;
    if let Err(error) = bench.try_open(&()) {
        assert!(!error.to_string().is_empty());
        return;
    }
    let Ok(attr) = bench.fs.lookup(&ROOT, Ino::ROOT, b"test.example.org") else {
        return;
    };
    bench.root = attr.ino;
    let _ = shown(&bench);
    use_it(&bench);
    let before = shown(&bench);
    bench.close();
    bench.try_open(&()).expect("what was opened opens again");
    assert_eq!(shown(&bench), before, "after a restart");
}

/// The records that an input stands for.
pub fn read(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((&[key, low, high], rest)) = bytes.split_first_chunk::<3>() {
        let (key, rest) = rest.split_at(usize::from(key).min(rest.len()));
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (value, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        if key.first().is_some_and(|letter| LETTERS.contains(letter)) {
            records.push((key.to_vec(), value.to_vec()));
        }
        if records.len() == RECORDS_MAX {
            break;
        }
    }
    records
}

/// The input that stands for records.
pub fn written(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        bytes.push(u8::try_from(key.len()).expect("a short key"));
        let length = u16::try_from(value.len()).expect("a short value");
        bytes.extend(length.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
    }
    bytes
}

fn with_engine<T>(journal: &Path, work: impl FnOnce(&fjall::Database, &fjall::Keyspace) -> T) -> T {
    let database = fjall::Database::builder(journal)
        .worker_threads(1)
        .open()
        .expect("the journal's engine");
    let records = database
        .keyspace("stage", fjall::KeyspaceCreateOptions::default)
        .expect("the journal's records");
    work(&database, &records)
}

fn put(journal: &Path, records: &[Record]) {
    with_engine(journal, |database, keyspace| {
        for (key, value) in records {
            keyspace.insert(key, value).expect("a record is put");
        }
        database
            .persist(fjall::PersistMode::Buffer)
            .expect("records are written");
    });
}

/// All records of a journal that nobody has open.
pub fn all(journal: &Path) -> Vec<Record> {
    with_engine(journal, |_, keyspace| {
        let items = keyspace
            .iter()
            .map(|item| item.into_inner().expect("a record"));
        items
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    })
}

/// All that can be seen, and what cannot, without a time in it.
fn shown(bench: &Bench) -> Vec<String> {
    let mut lines = Vec::new();
    let mut ahead = vec![(bench.root, Vec::new())];
    while let Some((dir, path)) = ahead.pop() {
        for name in names(bench, dir) {
            assert!(lines.len() < NAMES_MAX, "a tree without end");
            let path = [path.as_slice(), b"/", &name].concat();
            let line = match bench.fs.lookup(&ROOT, dir, &name) {
                Ok(attr) => {
                    if attr.kind == FileType::Directory {
                        ahead.push((attr.ino, path.clone()));
                    }
                    look_at(bench, attr.ino);
                    format!("{:?} {:o} {}:{}", attr.kind, attr.perm, attr.uid, attr.gid)
                }
                Err(error) => error.to_string(),
            };
            lines.push(format!("{} {line}", path.escape_ascii()));
        }
    }
    lines.sort();
    lines
}

fn names(bench: &Bench, dir: Ino) -> Vec<Vec<u8>> {
    let Ok(handle) = bench.fs.opendir(dir) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    let _ = bench.fs.readdirplus(handle, 0, false, &mut |entry| {
        if entry.name != b"." && entry.name != b".." {
            names.push(entry.name.to_vec());
        }
        ControlFlow::Continue(())
    });
    bench.fs.releasedir(handle).expect("it was open");
    names
}

fn look_at(bench: &Bench, ino: Ino) {
    let _ = bench.fs.readlink(ino);
    let _ = bench.fs.listxattr(ino);
    let reading = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    if let Ok(handle) = bench.fs.open(&ROOT, ino, reading) {
        let _ = bench.fs.read(handle, 0, &mut [0; 256]);
        bench.fs.release(handle).expect("it was open");
    }
}

/// What users and commits do. Damaged records may keep it from being done, with an error.
fn use_it(bench: &Bench) {
    let stage = bench.stage();
    let _ = stage.summary();
    let _ = stage.changes(&RepoPath::root());
    for id in stage.frozen() {
        let _ = stage.thaw(id);
    }
    let _ = bench.fs.mkdir(&ROOT, bench.root, b"new", 0o755);
    for name in names(bench, bench.root) {
        let moved = (bench.root, &b"moved"[..]);
        let _ = bench.fs.link(&ROOT, bench.root, bench.root, &name);
        let from = (bench.root, name.as_slice());
        let _ = bench
            .fs
            .rename(&ROOT, from, moved, fsimpl::RenameMode::NoReplace);
        let _ = bench.fs.unlink(&ROOT, bench.root, &name);
        let _ = bench.fs.rmdir(&ROOT, bench.root, &name);
    }
    if let Ok(frozen) = stage.freeze(&[RepoPath::root()], OpenFiles::Fail, &()) {
        stage.thaw(frozen.id).expect("it was frozen");
    }
}

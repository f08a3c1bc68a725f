//! Any bytes as what an interrupted commit left: its record, and its list of stored objects.
//!
//! A module of commit's tests too; both have `commit/src/txn.rs` at `crate::txn`.

use std::fs;
use std::path::Path;

use crate::txn::{Found, Txn, clear, find, noted_objects};

/// Reads both; what was read can be written and read again, and anything can be forgotten.
pub fn commit_record(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let (left, again) = (dir.path().join("left"), dir.path().join("again"));
    for dir in [&left, &again] {
        fs::create_dir(dir).expect("a temporary directory");
    }
    for file in ["state.json", "objects"] {
        fs::write(left.join(file), bytes).expect("space for a temporary file");
    }
    let noted = noted_objects(&left).ok();
    match find(&left) {
        Ok(found) => {
            let found = found.expect("there is a record");
            let txn = Txn::begin(&again, "a.example.org", found.snapshot, &found.boot)
                .expect("nothing is under way there");
            txn.set(found.state.clone())
                .expect("what was read can be written");
            if let Some(names) = &noted {
                txn.note_objects(names.iter())
                    .expect("names can be written");
                assert_eq!(noted_objects(&again).ok().as_ref(), Some(names));
            }
            same(&found, &again);
            clear(&again).expect("a record is forgotten");
        }
        Err(error) => assert!(error.to_string().contains("state.json")),
    }
    clear(&left).expect("anything is forgotten");
    assert!(matches!(find(&left), Ok(None)));
}

fn same(found: &Found, dir: &Path) {
    let again = find(dir).expect("what was written").expect("a record");
    assert_eq!(again.snapshot, found.snapshot);
    assert_eq!(again.boot, found.boot);
    assert_eq!(again.state, found.state);
}

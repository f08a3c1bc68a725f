//! Any bytes as what a receiver finds of its own: the record of a transaction, what it announced and
//! brought, and what its clock was.
//!
//! A module of receiver's tests too; both have its library's modules at their root.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use formats::warm::Listed;

use crate::age::{Ages, Clock};
use crate::ledger::{Key, Ledger, Transaction};
use crate::names::{List, RECORD_BYTES, Record, listed, record};

const RECORD: &[u8] = br#"{"publisher":"p","session":"s","opened":1,"touched":2,"state":"open"}"#;

/// A record is understood or named; sets of objects are read as far as they go, and go on.
pub fn warm_ledger(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let key = Key {
        repo: "a.example.org".into(),
        authority: "ab".into(),
        txn: "t".into(),
    };
    let place = |state: &Path| state.join("ledger/a.example.org/ab/t");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::create_dir_all(place(&one)).expect("a temporary directory");
    fs::create_dir_all(place(&two)).expect("a temporary directory");

    fs::write(place(&one).join("record.json"), bytes).expect("space for a file");
    match Ledger::open(&one) {
        Ok(ledger) => {
            let txn = ledger.get(&key).expect("there is a record");
            let read = txn.about();
            txn.restamp(1_000_000)
                .expect("what was read can be written");
            assert!(txn.about().touched <= read.touched.max(1_000_000));
            txn.published(7).expect("what was read can be written");
            let ended = txn.about();
            drop((txn, ledger));
            let again = Ledger::open(&one).expect("what was written");
            assert_eq!(again.get(&key).map(|txn| txn.about()), Some(ended));
        }
        Err(error) => assert!(error.to_string().contains("record.json")),
    }

    fs::write(place(&two).join("record.json"), RECORD).expect("space for a file");
    for file in ["names", "brought"] {
        fs::write(place(&two).join(file), bytes).expect("space for a file");
    }
    let ledger = Ledger::open(&two).expect("its record is good");
    let txn = ledger.get(&key).expect("there is a record");
    sets(&ledger, &key, &txn, bytes);

    fs::write(two.join("clock.json"), bytes).expect("space for a file");
    let clock = Clock {
        wall: Arc::new(|| 1_000_000),
        steady: Arc::new(|| 0),
    };
    let ages = Ages::open(&two, clock);
    assert!(ages.age(500_000) <= 500_000);
    ages.look(Some(0)).expect("it can be written");
    assert_eq!(ages.age(1_000_000), 0);
}

/// What was announced, in whatever order it lies there, and what was brought.
fn sets(ledger: &Ledger, key: &Key, txn: &Transaction, bytes: &[u8]) {
    let of = |records: Result<Vec<Record>, _>| -> Vec<Listed> {
        let records: Vec<Record> = records.expect("a file can be read");
        for listed in records.iter().filter_map(listed) {
            assert_eq!(self::listed(&record(&listed)), Some(listed));
        }
        records.iter().filter_map(listed).collect()
    };
    let brought = txn.brought().expect("it can be opened");
    let brought: Vec<Listed> = of(brought.collect());
    assert!(brought.len() <= bytes.len() / RECORD_BYTES);
    let mut names = txn.names().expect("it can be opened").expect("it is there");
    for listed in &brought {
        let _ = names.find(&listed.name).expect("it can be read");
    }
    let whole = brought.len();
    let list = List::new(brought.iter().map(record).collect());
    let again = ledger.announce(key, &list, "p", 9, || "other".into());
    let again = again.expect("more names");
    let records: Vec<Record> = list_of(&list);
    again.note(&records).expect("it can be appended to");
    let noted = again.brought().expect("it can be opened");
    assert!(of(noted.collect()).len() >= whole);
}

fn list_of(list: &List) -> Vec<Record> {
    let all = (0..list.len()).filter_map(|at| list.at(at));
    all.map(|listed| record(&listed)).collect()
}

use formats::hash::{Algorithm, Hash};
use formats::object::{ObjectKind, ObjectName};
use formats::warm::Listed;

use super::*;
use crate::names::{Record, record};

fn some(range: std::ops::Range<u32>) -> Vec<Record> {
    let object = |n: u32| Listed {
        name: ObjectName::new(
            Hash::of(Algorithm::Sha1, &n.to_le_bytes()),
            ObjectKind::Data,
        ),
        bytes: n.into(),
    };
    range.map(|n| record(&object(n))).collect()
}

fn key(txn: &str) -> Key {
    Key {
        repo: "sw.example.org".into(),
        authority: "ab".into(),
        txn: txn.into(),
    }
}

#[test]
fn what_was_noted_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let session = {
        let ledger = Ledger::open(dir.path()).unwrap();
        let txn = ledger.announce(&key("t"), &List::new(some(0..100)), "p", 7, || "s1".into());
        let txn = txn.unwrap();
        txn.note(&some(0..3)).unwrap();
        assert!(matches!(
            Ledger::open(dir.path()),
            Err(LedgerError::Locked(_))
        ));
        txn.about().session
    };
    // a line that was torn
    let brought = dir.path().join("ledger/sw.example.org/ab/t/brought");
    OpenOptions::new()
        .append(true)
        .open(&brought)
        .unwrap()
        .write_all(b"torn")
        .unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let txn = ledger.announce(&key("t"), &List::new(some(50..200)), "p", 9, || "s2".into());
    let txn = txn.unwrap();
    assert_eq!(txn.about().session, session);
    assert_eq!((txn.about().opened, txn.about().touched), (7, 9));
    assert_eq!(txn.names().unwrap().unwrap().len(), 200);
    txn.note(&some(3..4)).unwrap();
    let brought: Vec<_> = txn.brought().unwrap().map(Result::unwrap).collect();
    assert_eq!(brought, some(0..4));
    txn.published(11).unwrap();
    assert_eq!(txn.brought().unwrap().count(), 0);
    assert_eq!(ledger.count(State::Published), 1);
    ledger.forget(&txn).unwrap();
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(ledger.get(&key("t")).is_none());
}

#[test]
fn a_newer_ledger_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Ledger::open(dir.path()).unwrap());
    fs::write(dir.path().join("format"), "2\n").unwrap();
    let error = Ledger::open(dir.path()).unwrap_err();
    assert!(matches!(error, LedgerError::Format { .. }), "{error}");
}

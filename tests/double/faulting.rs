//! Faults on demand: each does what it says, once, and the repository is healthy after it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Stage, crashed};
use crate::support::REPO;
use crate::support::gateway::faults::{At, Fault};

fn changed(stage: &Stage, name: &str) -> super::Made {
    let mut draft = stage.draft();
    draft.file(&format!("/{name}"), name.as_bytes());
    draft.make()
}

#[test]
fn connections_that_are_cut() {
    let stage = Stage::new();
    let made = changed(&stage, "new");
    let token = stage.client.lease("/");
    let pack = super::client::Pack::of(&made.objects);
    for fault in [Fault::Cut, Fault::LostReply] {
        stage.gateway.faults().add(At::Payload, fault);
        assert!(stage.client.payload(&token, &pack).is_err());
        let is_kept = |(name, _): &(formats::ObjectName, _)| {
            stage.storage().join(name.storage_path()).is_file()
        };
        assert_eq!(made.objects.iter().any(is_kept), fault == Fault::LostReply);
    }
    stage.gateway.faults().add(At::Commit, Fault::Cut);
    assert!(stage.client.try_commit(&token, &made, "").is_err());
    assert_eq!(stage.draft().base, made.base);
    stage.gateway.faults().add(At::Commit, Fault::LostReply);
    assert!(stage.client.try_commit(&token, &made, "").is_err());
    assert!(stage.published().find("/new").is_some());
    // the lease went with the commit
    assert_eq!(stage.client.drop_lease(&token)["reason"], "invalid lease");
    stage.gateway.faults().add(At::Lease, Fault::LostReply);
    let lease = std::panic::catch_unwind(|| stage.client.try_lease("/lost"));
    assert!(lease.is_err());
    assert_eq!(stage.client.try_lease("/lost")["status"], "path_busy");
    stage.sandbox.check();
}

#[test]
fn receivers_that_crash() {
    let stage = Stage::new();
    let made = changed(&stage, "new");
    let token = stage.client.lease("/");
    stage.gateway.faults().add(At::Payload, Fault::Crash);
    let answer = stage
        .client
        .payload(&token, &super::client::Pack::of(&made.objects));
    assert_eq!(answer.unwrap()["reason"], crashed("payload submission"));
    stage.client.upload(&token, &made.objects);
    stage.gateway.faults().add(At::Commit, Fault::Crash);
    assert_eq!(
        stage.client.commit(&token, &made, "")["reason"],
        crashed("commit")
    );
    assert_eq!(stage.draft().base, made.base);
    assert_eq!(stage.client.drop_lease(&token)["status"], "ok");
    stage.sandbox.check();

    stage.gateway.faults().add(At::Commit, Fault::CrashAfter);
    let answer = stage.publish("/", &made);
    assert_eq!(answer["reason"], crashed("commit"));
    assert!(stage.published().find("/new").is_some());
    stage.sandbox.check();
}

#[test]
fn a_storage_that_is_full_keeps_pieces_under_whole_names() {
    let stage = Stage::new();
    let mut draft = stage.draft();
    for name in ["/one", "/two", "/three"] {
        draft.file(name, name.repeat(9).as_bytes());
    }
    let made = draft.make();
    let token = stage.client.lease("/");
    stage.gateway.faults().add(At::Payload, Fault::Full);
    let pack = super::client::Pack::of(&made.objects);
    let answer = stage.client.payload(&token, &pack);
    assert_eq!(answer.unwrap()["reason"], "uploader_error");
    let kept = |(name, _): &(formats::ObjectName, Vec<u8>)| {
        let file = stage.storage().join(name.storage_path());
        file.metadata().unwrap().len() as usize
    };
    let lengths: Vec<usize> = made.objects.iter().map(|(_, bytes)| bytes.len()).collect();
    let cut = [lengths[0], lengths[1] / 2, 0, 0];
    assert_eq!(made.objects.iter().map(kept).collect::<Vec<_>>(), cut);
    // what has a name is there, for the gateway
    stage.client.upload(&token, &made.objects);
    assert_eq!(made.objects.iter().map(kept).collect::<Vec<_>>(), cut);
    stage.gateway.faults().add(At::Commit, Fault::Full);
    let said = stage.client.commit(&token, &made, "");
    let reason = said["reason"].as_str().unwrap();
    assert!(
        reason.ends_with("from Stratum 0 (1 - local I/O failure)"),
        "{reason}"
    );
    assert_eq!(stage.draft().base, made.base);
    let said = stage.sandbox.fails(1, ["check", REPO, "--data"]);
    assert_eq!(said.matches("is damaged").count(), 3, "{said}");
}

#[test]
fn a_commit_that_stands_still_keeps_leases_waiting_and_uploads_not() {
    let stage = Stage::new();
    let made = changed(&stage, "new");
    let token = stage.client.lease("/a");
    let root = stage.client.lease("/new");
    stage.client.upload(&root, &made.objects);
    stage.gateway.faults().add(At::Commit, Fault::Stall);
    let goes_on = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| stage.client.commit(&root, &made, ""));
        stage.gateway.faults().await_stall();
        stage.client.upload(&token, &made.objects);
        assert_eq!(stage.draft().base, made.base);
        let lease = scope.spawn(|| {
            let answer = stage.client.try_lease("/other");
            assert!(
                goes_on.load(Ordering::SeqCst),
                "answered while a commit was under way"
            );
            answer
        });
        goes_on.store(true, Ordering::SeqCst);
        stage.gateway.faults().release();
        assert_eq!(lease.join().unwrap()["status"], "ok");
        assert_eq!(commit.join().unwrap()["status"], "ok");
    });
    assert!(stage.published().find("/new").is_some());
    stage.gateway.faults().add(At::Drop, Fault::Cut);
    let dropped = std::panic::catch_unwind(|| stage.client.drop_lease(&token));
    assert!(dropped.is_err());
    assert_eq!(stage.client.drop_lease(&token)["status"], "ok");
}

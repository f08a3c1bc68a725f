//! What a commit leaves behind beside catalogs: tags, reflog, and the file that pins a base.

use std::fs;
use std::time::Duration;

use crate::double::Stage;
use crate::support::REPO;

fn tags(stage: &Stage) -> Vec<(String, u64)> {
    let listed = stage.sandbox.json(["tag", "list", REPO]);
    let all = listed["tags"]
        .as_array()
        .unwrap_or_else(|| panic!("{listed}"));
    let tag = |tag: &serde_json::Value| {
        let name = tag["name"].as_str().unwrap().to_owned();
        (name, tag["revision"].as_u64().unwrap())
    };
    let mut all: Vec<_> = all.iter().map(tag).collect();
    all.sort();
    all
}

fn commit(stage: &Stage, tag: &str) -> serde_json::Value {
    let made = stage.draft().make();
    let token = stage.client.lease("/");
    stage.client.upload(&token, &made.objects);
    let said = stage.client.commit(&token, &made, tag);
    stage.client.drop_lease(&token);
    said
}

#[test]
fn tags_are_set_and_refused() {
    let stage = Stage::new();
    assert_eq!(commit(&stage, "v1")["final_revision"], 2);
    let named = |name: &str, revision| (name.to_owned(), revision);
    assert_eq!(
        tags(&stage),
        [
            named("trunk", 2),
            named("trunk-previous", 1),
            named("v1", 2)
        ]
    );
    for refused in ["v1", "two words", "trunk", "trunk-previous"] {
        assert_eq!(
            commit(&stage, refused)["reason"],
            "miscellaneous",
            "{refused}"
        );
    }
    assert_eq!(stage.draft().revision, 2);
    // no change is a revision too, and an automatic name is the receiver's own
    assert_eq!(commit(&stage, "generic-whatever")["final_revision"], 3);
    let all = tags(&stage);
    let (name, revision) = &all[0];
    let digits = name.strip_prefix("generic-20").unwrap();
    assert_eq!(
        (digits.len(), *revision),
        ("26-11-21T03:14:27.742Z".len(), 3)
    );
    assert!(digits.ends_with('Z'), "{name}");
    stage.sandbox.check();
}

#[test]
fn the_reflog_knows_what_nothing_refers_to() {
    let stage = Stage::new();
    let mut draft = stage.draft();
    draft.dir("/d");
    let made = draft.make();
    stage.publishes("/", &made);
    let reflog = formats::Reflog::open(&stage.storage().join(".cvmfsreflog")).unwrap();
    let catalogs = [made.base, made.root, stage.draft().base];
    for hash in catalogs {
        let found = reflog.find(formats::RefKind::Catalog, &hash).unwrap();
        assert!(found.is_some(), "{hash}");
    }
}

#[test]
fn a_reflog_that_is_not_what_it_should_be() {
    let stage = Stage::new();
    let checksum = stage
        .sandbox
        .state()
        .join("spool")
        .join(REPO)
        .join("reflog.chksum");
    let good = fs::read(&checksum).unwrap();
    for (bad, reason) in [
        (Some("1".repeat(40)), "missing_reflog"),
        (Some("0".repeat(40)), "miscellaneous"),
        (None, "missing_reflog"),
    ] {
        match bad {
            Some(text) => fs::write(&checksum, text).unwrap(),
            None => fs::remove_file(&checksum).unwrap(),
        }
        assert_eq!(commit(&stage, "")["reason"], reason);
        assert_eq!(stage.draft().revision, 1);
    }
    fs::write(&checksum, good).unwrap();
    assert_eq!(commit(&stage, "")["final_revision"], 2);
    stage.sandbox.check();
}

#[test]
fn an_error_after_publishing() {
    let stage = Stage::new();
    let pin = stage
        .sandbox
        .state()
        .join("spool")
        .join(REPO)
        .join("client.local");
    fs::write(&pin, "CVMFS_ROOT_HASH=1234\n").unwrap();
    assert_eq!(commit(&stage, "v1")["status"], "ok");
    assert_eq!(fs::read(&pin).unwrap(), b"");
    fs::remove_file(&pin).unwrap();
    assert_eq!(commit(&stage, "v2")["reason"], "miscellaneous");
    assert_eq!(stage.draft().revision, 3);
    assert!(tags(&stage).contains(&("v2".to_owned(), 3)));
    stage.sandbox.check();
}

#[test]
fn a_whitelist_that_has_expired() {
    let stage = Stage::new();
    stage.gateway.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(commit(&stage, "")["reason"], "miscellaneous");
    assert_eq!(stage.draft().revision, 1);
}

#[test]
fn a_key_that_is_another_s() {
    let stage = Stage::new();
    stage.sandbox.ok(["mkfs", "other.example.org"]);
    let keys = stage.sandbox.state().join("keys");
    let (key, other) = (
        keys.join(format!("{REPO}.key")),
        keys.join("other.example.org.key"),
    );
    let good = fs::read(&key).unwrap();
    fs::rename(other, &key).unwrap();
    assert_eq!(commit(&stage, "")["reason"], "miscellaneous");
    assert_eq!(stage.draft().revision, 1);
    fs::remove_file(&key).unwrap();
    assert_eq!(commit(&stage, "")["reason"], "miscellaneous");
    fs::write(&key, good).unwrap();
    assert_eq!(commit(&stage, "")["final_revision"], 2);
}

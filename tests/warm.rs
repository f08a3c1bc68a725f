//! Stratum 1s seen from the command line: `site`, `commit` with its exit code 6, `status --sites`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use formats::warm::Enrolment;

use crate::support::stratum1::{Fault, Port, Stratum1};
use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

const STRICT: &str =
    "[warm]\nname = \"stratum0\"\ncommit_anyway = false\nreach_within = \"200ms\"\n";

/// Makes a site of a double.
fn site(sandbox: &Sandbox, name: &str) -> Stratum1 {
    let port = Port::any();
    let file = enrolment_file(sandbox, name);
    let place = file.to_str().unwrap();
    sandbox.ok(["site", "add", name, "--url", &port.url(), "--output", place]);
    let text = fs::read_to_string(&file).unwrap();
    port.serve(&Enrolment::parse(&text).unwrap())
}

fn enrolment_file(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.state().with_extension(name)
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.json(["site", "list"]);
    let sites = listed["sites"].as_array().unwrap().iter();
    sites
        .map(|site| site["site"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_site_is_added_and_revoked_with_and_without_a_daemon() {
    let mut sandbox = Sandbox::new();
    sandbox.configure(STRICT);
    let _cern = site(&sandbox, "cern");
    let mode = fs::metadata(enrolment_file(&sandbox, "cern"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(&sandbox), ["cern"]);
    // a file that is there is not written over
    let place = enrolment_file(&sandbox, "cern");
    let again = ["site", "add", "cern", "--url", "https://a:1", "--output"];
    let again: Vec<&str> = again.into_iter().chain([place.to_str().unwrap()]).collect();
    assert!(sandbox.fails(2, again).contains("is there already"));
    assert!(
        sandbox
            .fails(2, ["site", "add", "../x", "--url", "https://a:1"])
            .contains("site")
    );
    assert!(
        sandbox
            .fails(1, ["site", "revoke", "nobody"])
            .contains("nobody")
    );
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let _ral = site(&sandbox, "ral");
    assert_eq!(names(&sandbox), ["cern", "ral"]);
    sandbox.ok(["site", "revoke", "cern"]);
    assert_eq!(names(&sandbox), ["ral"]);
    sandbox.unmount();
    assert_eq!(names(&sandbox), ["ral"]);
    sandbox.mount();
    assert_eq!(names(&sandbox), ["ral"]);
}

#[test]
fn a_commit_warms_the_sites_and_says_so() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let sites = ["cern", "ral"].map(|name| site(&sandbox, name));
    for at in 0..20 {
        write(
            &sandbox.root().join(format!("sw/{at}")),
            format!("content {at}").as_bytes(),
        );
    }
    let committed = sandbox.json(["commit", REPO]);
    for (at, name) in ["cern", "ral"].iter().enumerate() {
        let told = &committed["stratum1"][at];
        assert_eq!(told["site"], *name);
        assert_eq!(told["state"], "warm");
        assert_eq!(told["objects"], 20);
    }
    assert!(committed["seconds"]["warm"].as_f64().unwrap() > 0.0);
    for site in &sites {
        assert_eq!(site.kept().len(), 20);
        site.until("told of the revision", |site| site.published().len() == 1);
    }
    sites[1].set(Fault::Away);
    sites[0].set(Fault::Skewed(7200));
    let status = sandbox.json(["status", "--sites"]);
    let [cern, ral] = [0, 1].map(|at| status["sites"][at].clone());
    assert_eq!(cern["connected"], true);
    assert_eq!(cern["objects_sent"], 20);
    assert!(cern["bytes_sent"].as_u64().unwrap() > 0 && cern["rate"].is_u64());
    assert_eq!(
        (&cern["behind_objects"], &cern["failures"]),
        (&0.into(), &0.into())
    );
    assert_eq!(ral["connected"], false);
    assert!(ral["failures"].as_u64().unwrap() > 0);
    assert!(
        ral["last_error"]
            .as_str()
            .unwrap()
            .contains("cannot be reached")
    );
    let text = sandbox.ok(["status", "--sites"]);
    for said in ["not connected", "20 objects", "s ahead of ours", "/s"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(sandbox.json(["status"]).get("sites").is_none());
}

#[test]
fn without_a_quorum_is_exit_code_6_and_everything_is_staged_as_before() {
    let mut sandbox = Sandbox::new();
    sandbox.configure(STRICT);
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let cern = site(&sandbox, "cern");
    let ral = site(&sandbox, "ral");
    ral.set(Fault::Full(0));
    write(&sandbox.root().join("file"), b"content");
    let before = sandbox.json(["status"])["repositories"][0]["staged"].clone();
    let message = sandbox.fails(6, ["commit", REPO]);
    assert!(message.contains("ral failed: it has no room"), "{message}");
    let after = sandbox.json(["status"])["repositories"][0].clone();
    assert_eq!(after["staged"], before);
    assert_eq!(after["published_revision"], 1);
    cern.until("told that it is off", |site| site.given_up() == 1);
    // without it there is a quorum
    sandbox.ok(["site", "revoke", "ral"]);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"].as_array().unwrap().len(), 1);
    assert!(ral.published().is_empty());
}

#[test]
fn a_site_that_was_away_catches_up_when_a_daemon_is_there_again() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    sandbox.unmount();
    sandbox.configure("[warm]\nname = \"stratum0\"\nreach_within = \"100ms\"\n");
    sandbox.mount();
    let cern = site(&sandbox, "cern");
    cern.set(Fault::Away);
    write(&sandbox.root().join("file"), b"content");
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["state"], "failed");
    let status = sandbox.json(["status", "--sites"]);
    assert_eq!(status["sites"][0]["behind_revisions"], 1);
    assert_eq!(status["sites"][0]["behind_objects"], 1);
    sandbox.unmount();
    cern.set(Fault::None);
    sandbox.mount();
    cern.until("told of the revision", |site| site.published().len() == 1);
    assert_eq!(cern.kept().len(), 1);
}

#[test]
fn objects_go_out_while_staging_goes_on() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[warm]\nname = \"stratum0\"\npush = \"eager\"\n");
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let cern = site(&sandbox, "cern");
    write(&sandbox.root().join("early"), b"content");
    cern.until("there before any commit", |site| site.kept().len() == 1);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["state"], "warm");
    assert_eq!(
        committed["stratum1"][0]["objects"], 0,
        "nothing was left to send"
    );
    // what it came with is not kept for anybody
    cern.until("told that it is off", |site| site.given_up() == 1);
    write(&sandbox.root().join("dropped"), b"more content");
    cern.until("there before any commit", |site| site.kept().len() == 2);
    sandbox.ok(["abort", REPO]);
    cern.until("told that it is off", |site| site.given_up() == 2);
}

//! `prepub gc`: what nobody needs goes, and nothing else.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::dice::Dice;
use crate::support::{REPO, Sandbox, write};

/// Bytes that no compressor makes shorter, others for each seed.
fn noise(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let words = (0..40_000).map(|_| dice.next(u64::MAX));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Items and bytes of a kind.
fn of(collected: &Value, kind: &str) -> (u64, u64) {
    let freed = collected["freed"].as_array().unwrap().iter();
    let of_it = freed.filter(|freed| freed["kind"] == kind);
    of_it.fold((0, 0), |sum, freed| {
        let number = |key: &str| freed[key].as_u64().unwrap();
        (sum.0 + number("items"), sum.1 + number("bytes"))
    })
}

#[test]
fn objects_of_former_files_go_and_those_of_staged_files_stay() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let (kept, gone) = (sandbox.root().join("kept"), sandbox.root().join("gone"));
    write(&kept, &noise(1));
    write(&gone, &noise(2));
    sandbox.ok(["status", "--wait"]);
    fs::remove_file(&gone).unwrap();
    let txn = sandbox.state().join(format!("txn/{REPO}/77"));
    write(&txn.join("work/catalog"), &[1; 1000]);

    let looked = sandbox.json(["gc", "--dry-run"]);
    let (objects, bytes) = of(&looked, "objects");
    assert!(objects == 1 && bytes >= noise(2).len() as u64, "{looked}");
    assert_eq!(
        sandbox.json(["gc", REPO, "--dry-run"])["freed"],
        looked["freed"]
    );
    let done = sandbox.json(["gc"]);
    assert_eq!(
        (&done["freed"], &done["bytes"]),
        (&looked["freed"], &looked["bytes"])
    );
    assert_eq!(of(&done, "transactions"), (1, 1000));
    assert!(!txn.exists());
    assert_eq!(of(&sandbox.json(["gc", "-n"]), "objects"), (0, 0));
    // read from its object, published from it
    assert_eq!(fs::read(&kept).unwrap(), noise(1));
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    assert_eq!(fs::read(&kept).unwrap(), noise(1));
}

/// A snapshot that is being published: its objects and its transaction are a commit's business.
#[test]
fn a_commit_under_way_loses_nothing() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    sandbox.unmount();
    // the commit dies with the revision visible and nothing retired
    sandbox.mount_with(&[("FAILPOINTS", "hook::visible=return")]);
    write(&sandbox.root().join("file"), &noise(3));
    let output = sandbox.run(["commit", REPO]);
    assert!(!output.status.success());
    let collected = sandbox.json(["gc"]);
    assert_eq!(of(&collected, "transactions"), (0, 0), "{collected}");
    let kept = collected["kept"].as_array().unwrap();
    assert!(
        kept.len() == 2,
        "the snapshot's objects and its record: {collected}"
    );
    sandbox.unmount();
    sandbox.mount();
    assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), noise(3));
    assert_eq!(
        sandbox.json(["status"])["repositories"][0]["published_revision"],
        2
    );
    assert_eq!(sandbox.json(["commit", REPO])["published"], false);
    sandbox.check();
}

#[test]
fn leftovers_go_and_a_former_stage_with_changes_stays() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let (changed, unchanged) = ("changed.example.org", "unchanged.example.org");
    for name in [changed, unchanged] {
        sandbox.ok(["mkfs", name]);
    }
    write(
        &sandbox.mountpoint().join(changed).join("file"),
        b"not committed",
    );
    // what was published is no change any more
    write(
        &sandbox.mountpoint().join(unchanged).join("file"),
        b"committed",
    );
    sandbox.ok(["commit", unchanged]);
    // revisions whose catalogs nobody reads any more
    for round in ["one", "two", "three"] {
        write(&sandbox.root().join("file"), round.as_bytes());
        sandbox.ok(["commit", REPO]);
    }
    sandbox.unmount();
    let state = sandbox.state();
    for name in [changed, unchanged] {
        fs::remove_dir_all(state.join("repositories").join(name)).unwrap();
    }
    for left in [
        "cache/work/9/catalog",
        "cache/long.gone.example.org/catalogs/x",
    ] {
        write(&state.join(left), &[1; 1000]);
    }
    let looked = sandbox.json(["gc", "--dry-run"]);
    let done = sandbox.json(["gc"]);
    assert_eq!(looked["freed"], done["freed"]);
    assert_eq!(of(&done, "scratch"), (1, 1000));
    assert!(of(&done, "retired").0 >= 2, "{done}");
    assert!(of(&done, "catalogs").0 >= 1, "{done}");
    let kept = done["kept"].to_string();
    assert!(
        kept.contains(changed) && !kept.contains(unchanged),
        "{kept}"
    );
    let stage = |name: &str| state.join("stage").join(name);
    assert!(stage(changed).exists() && stage(REPO).exists() && !stage(unchanged).exists());
    assert!(state.join("stage/.reserve").exists() || no_reserve(&state));
    let again = sandbox.json(["gc"]);
    for kind in ["scratch", "transactions", "retired", "objects"] {
        assert_eq!(of(&again, kind), (0, 0), "{again}");
    }
    assert!(sandbox.ok(["gc"]).ends_with(" removed\n"));
    sandbox.mount();
    sandbox.check();
}

/// A small filesystem has none.
fn no_reserve(state: &Path) -> bool {
    let of = rustix::fs::statvfs(state).unwrap();
    of.f_bavail * of.f_frsize < 1 << 30
}

//! The self-test.

use std::fs;
use std::process::Command;

use receiver::doctor::Verdict;

use crate::support::world::World;

fn doctor(world: &World, json: bool) -> (bool, String) {
    let config = world.path("receiver.toml");
    fs::write(&config, world.text()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_prepub-receiver"));
    command.args(["--config", config.to_str().unwrap(), "doctor"]);
    if json {
        command.arg("--json");
    }
    let output = command.output().unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn all_is_well() {
    let mut world = World::new();
    world.more = "listen = \"\"\n".into();
    let (good, text) = doctor(&world, false);
    assert!(good, "{text}");
    for what in [
        "can be written",
        "snapshots can be held off",
        "we are its site",
    ] {
        assert!(text.contains(what), "{what}: {text}");
    }
    let (good, json) = doctor(&world, true);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(good && report["checks"].as_array().unwrap().len() > 5);
}

/// Each thing that is wrong is named, with what to do.
#[test]
fn what_is_wrong_is_named() {
    let mut world = World::new();
    // nobody listens there: the port is given back at once
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    world.more = format!("listen = \"127.0.0.1:{port}\"\n[keep]\nheadroom = \"100000TiB\"\n");
    let url = format!("https://127.0.0.1:{port}");
    world.enrol(
        "publisher",
        &world.publisher.enrolment(Some(url), &["no.example.org"]),
    );
    fs::write(world.path("enrolments/broken.toml"), "site = 1").unwrap();
    world.section = format!(
        "storage = {:?}\n[repository.\"gone.example.org\"]\nstorage = \"/nowhere/at/all\"\n",
        world.path("srv").to_str().unwrap()
    );
    let config = world.config();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let now = std::time::SystemTime::now();
    let report = runtime.block_on(receiver::doctor::examine(&config, now));
    assert!(!report.is_good());
    let bad: Vec<String> = report
        .checks
        .iter()
        .filter(|check| check.verdict != Verdict::Ok)
        .map(|check| format!("{}: {} -> {:?}", check.name, check.found, check.hint))
        .collect();
    for what in [
        "gone.example.org",
        "are free",
        "objects never expire",
        "broken.toml",
        "no.example.org",
        "publisher publisher.example.org",
        "listener",
    ] {
        assert!(
            bad.iter().any(|line| line.contains(what)),
            "{what}: {bad:#?}"
        );
    }
    let (good, text) = doctor(&world, false);
    assert!(!good && text.contains("->"), "{text}");
}

/// It may be asked while the receiver runs, and finds it.
#[test]
fn beside_a_receiver_that_runs() {
    let mut world = World::new();
    let program = world.program("");
    world.more = format!("listen = \"{}\"\n", program.at);
    let (good, text) = doctor(&world, false);
    assert!(good && text.contains("it answers on port"), "{text}");
}

//! `prepub config`: what is in force and why, and what is wrong.

use std::fs;

use crate::support::Sandbox;

const TEXT: &str = "# a site's\nmountpoint = \"/from/file\"\nlog_level = \"warn\"\n[stage]\nquota = \"1GiB\"\n\
    [warm]\nbroker = \"mqtts://me:hunter22@broker.example.org:8883\"\n\
    [repository.\"gw.example.org\"]\nquota_files = 5\n\
    [[repository.\"gw.example.org\".allow]]\nusers = [\"u\"]\nmay = [\"tag\"]\n\
    [repository.\"gw.example.org\".gateway]\nurl = \"http://token-9@gateway.example.org:4929/api/v1\"\n";

#[test]
fn each_value_with_its_origin_and_no_secret() {
    let sandbox = Sandbox::new();
    sandbox.configure(TEXT);
    let file = sandbox.dir.path().join("every.toml");
    let shown = sandbox.json(["config", "show"]);
    assert_eq!(shown["file"], file.to_str().unwrap());
    let values = shown["values"].as_array().unwrap();
    let of = |key: &str| {
        let found = values.iter().find(|v| v["key"] == key);
        found.unwrap_or_else(|| panic!("no {key} in {shown}"))
    };
    // as the sandbox runs the program
    assert_eq!(of("log_level")["value"], "info");
    assert_eq!(of("log_level")["where"], "environment PREPUB_LOG");
    assert_eq!(of("state_dir")["where"], "--state-dir");
    assert_eq!(of("mountpoint")["value"], "/from/file");
    let line = |n: u32| format!("{}:{n}", file.display());
    assert_eq!(of("mountpoint")["where"], line(2));
    assert_eq!(of("stage.quota")["where"], line(5));
    assert_eq!(of("stage.workers")["origin"], "default");
    assert!(of("control.group")["value"].is_null());
    assert_eq!(of("repository.\"gw.example.org\".quota_files")["value"], 5);

    let text = sandbox.ok(["config", "show"]);
    for secret in ["hunter22", "token-9"] {
        assert!(!text.contains(secret) && !shown.to_string().contains(secret));
    }
    assert!(
        text.contains("mqtts://me:[removed]@broker.example.org:8883"),
        "{text}"
    );
    // what is shown is a configuration, and says the same
    let again = sandbox.dir.path().join("again.toml");
    fs::write(&again, &text).unwrap();
    let again = again.to_str().unwrap();
    sandbox.ok(["config", "check", again]);
    let same = sandbox.json(["--config", again, "config", "show"]);
    let plain = |shown: &serde_json::Value| {
        let values = shown["values"].as_array().unwrap().iter();
        let plain = values.map(|v| (v["key"].clone(), v["value"].clone()));
        plain.collect::<Vec<_>>()
    };
    assert_eq!(plain(&shown), plain(&same), "{text}");
}

#[test]
fn what_is_wrong_is_said() {
    let sandbox = Sandbox::new();
    let file = sandbox.dir.path().join("wrong.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "[stage]\nqota = \"1GiB\"\n").unwrap();
    let said = sandbox.fails(2, ["config", "check", path]);
    assert!(said.contains("line 2") && said.contains("quota"), "{said}");
    fs::write(&file, "log_level = \"fsimpl=loud\"\n").unwrap();
    let mut command = sandbox.command(["config", "check", path, "--json"]);
    let output = command.env_remove("PREPUB_LOG").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["error"]["kind"], "usage");
    fs::write(&file, "[stage]\nquota = \"1GiB\"\n").unwrap();
    assert_eq!(sandbox.json(["config", "check", path])["fine"], true);
}

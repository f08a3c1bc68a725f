//! Backup and restore, by the commands of docs/operations.md.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{REPO, Sandbox, workspace_root, write};

/// A line of the documentation, run as it stands there, but for the places.
fn documented(line: &str, state: &Path, backup: &Path, new: &Path) {
    let text = fs::read_to_string(workspace_root().join("docs/operations.md")).unwrap();
    let stands = |known: &str| known.split(" #").next().unwrap_or_default().trim() == line;
    assert!(
        text.lines().any(stands),
        "docs/operations.md does not say: {line}"
    );
    let [state, backup, new] = [state, backup, new].map(|path| path.to_str().unwrap());
    let here = line
        .replace("/var/lib/prepub", state)
        .replace("/backup/prepub", &format!("{backup}/state"))
        .replace("/backup/", backup)
        .replace("/srv/prepub", new);
    let run = Command::new("sh")
        .args(["-ec", &here])
        .current_dir(state)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{here}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
}

/// A sandbox with a revision, and something staged over it.
fn in_use() -> Option<Sandbox> {
    let sandbox = Sandbox::mounted()?;
    write(&sandbox.root().join("published/file"), b"published");
    sandbox.ok(["commit", REPO]);
    write(&sandbox.root().join("staged/file"), b"staged");
    fs::remove_file(sandbox.root().join("published/file")).unwrap();
    Some(sandbox)
}

/// Another machine, as far as prepub can tell: its state is a copy.
fn restored(sandbox: &Sandbox, backup: &Path) -> Sandbox {
    let other = Sandbox::new();
    let copied = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .arg(backup.join("state"))
        .arg(other.state())
        .status();
    assert!(copied.unwrap().success());
    // in another place than before
    let line =
        r#"sed -i "s|/var/lib/prepub/|/srv/prepub/|g" /srv/prepub/repositories/*/server.conf"#;
    documented(line, &sandbox.state(), backup, &other.state());
    other
}

#[test]
fn a_stopped_state_is_restored_with_what_is_staged() {
    let Some(mut sandbox) = in_use() else {
        return;
    };
    let backup = tempfile::tempdir().unwrap();
    sandbox.ok(["drain", "--wait"]);
    sandbox.unmount();
    let line = "cp -a --sparse=always /var/lib/prepub /backup/";
    documented(line, &sandbox.state(), backup.path(), Path::new("/nowhere"));
    let mut other = restored(&sandbox, backup.path());
    let before = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();

    other.mount();
    assert_eq!(
        fs::read(other.root().join("staged/file")).unwrap(),
        b"staged"
    );
    assert!(!other.root().join("published/file").exists());
    let said = other.fails(4, ["commit", REPO]);
    assert!(
        said.contains("drain --resume"),
        "the copy was made drained: {said}"
    );
    other.ok(["drain", "--resume"]);
    let committed = other.json(["commit", REPO]);
    assert_eq!(
        (&committed["published"], &committed["revision"]),
        (&true.into(), &3.into())
    );
    other.check();
    let after = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    assert_eq!(before, after, "the old storage is left alone");
    // and the old one goes on, too
    sandbox.mount();
    sandbox.ok(["drain", "--resume"]);
    assert_eq!(sandbox.json(["commit", REPO])["revision"], 3);
}

#[test]
fn a_running_state_is_restored_without_what_is_staged() {
    let Some(sandbox) = in_use() else {
        return;
    };
    let backup = tempfile::tempdir().unwrap();
    fs::create_dir(backup.path().join("state")).unwrap();
    fs::create_dir_all(sandbox.state().join("sites")).unwrap();
    sandbox.ok(["drain", "--wait"]);
    write(&sandbox.root().join("meanwhile"), b"staging goes on");
    let line = "cp -a --parents format keys repositories sites spool srv /backup/prepub";
    documented(line, &sandbox.state(), backup.path(), Path::new("/nowhere"));
    sandbox.ok(["drain", "--resume"]);

    let mut other = restored(&sandbox, backup.path());
    other.check();
    other.mount();
    assert_eq!(
        fs::read(other.root().join("published/file")).unwrap(),
        b"published"
    );
    assert!(!other.root().join("staged").exists());
    write(&other.root().join("new"), b"new");
    assert_eq!(other.json(["commit", REPO])["revision"], 3);
    other.check();
    assert_eq!(sandbox.json(["commit", REPO])["revision"], 3);
}

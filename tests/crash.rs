//! `kill -9` at random moments of copying, sealing and committing: every closed file is there with
//! its bytes, the repository is at the old or the new revision, `check` is clean (promises 3, 4).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::golden::manifest_field;
use crate::support::{REPO, Sandbox};

/// Kills in this run: the short form of a soak. `PREPUB_KILLS` makes it longer.
fn kills() -> u64 {
    std::env::var("PREPUB_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50)
}

/// Another course of the test, where `PREPUB_SEED` says so.
fn seed() -> u64 {
    let given = std::env::var("PREPUB_SEED").ok();
    let given = given.and_then(|seed| seed.parse().ok());
    // a generator that is begun with zero stays there
    given.map_or(0x9e37_79b9_7f4a_7c15, |seed: u64| seed.wrapping_mul(2) + 1)
}

/// What the writer was told is done: file name to content.
type Acknowledged = BTreeMap<String, Vec<u8>>;

/// Writes, rewrites, renames and removes files until the mount dies; returns what was closed.
/// The one operation under way when the daemon dies may or may not have happened: its name is
/// returned apart.
fn write_until_death(
    root: &Path,
    dice: &mut Dice,
    mut done: Acknowledged,
    stop: &AtomicBool,
) -> (Acknowledged, Vec<String>) {
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let name = format!("d{}/f{}", dice.next(4), dice.next(60));
        let path = root.join(&name);
        let result = match dice.next(10) {
            0 => fs::remove_file(&path).map(|()| {
                done.remove(&name);
            }),
            1 => {
                let to = format!("d{}/f{}", dice.next(4), dice.next(60));
                let result = fs::create_dir_all(root.join(&to).parent().unwrap())
                    .and_then(|()| fs::rename(&path, root.join(&to)));
                if result
                    .as_ref()
                    .is_err_and(|e| e.raw_os_error() == Some(libc_enotconn()))
                {
                    return (done, vec![name, to]);
                }
                result.map(|()| {
                    if let Some(content) = done.remove(&name) {
                        done.insert(to, content);
                    }
                })
            }
            size => {
                let length = if size == 9 {
                    dice.next(6 << 20)
                } else {
                    dice.next(20_000)
                };
                let mut content = format!("{name} {count}\n").into_bytes();
                let fill = u8::try_from(count % 251).unwrap();
                content.resize(usize::try_from(length).unwrap() + 32, fill);
                let result = fs::create_dir_all(path.parent().unwrap())
                    .and_then(|()| fs::File::create(&path))
                    // once write(2) has returned the bytes are safe, closed or not
                    .and_then(|mut file| file.write_all(&content));
                result.map(|()| {
                    done.insert(name.clone(), content);
                })
            }
        };
        match result {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return (done, vec![name]),
        }
    }
    (done, Vec::new())
}

fn libc_enotconn() -> i32 {
    rustix::io::Errno::NOTCONN.raw_os_error()
}

fn revision(sandbox: &Sandbox) -> u64 {
    let manifest = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    manifest_field(&manifest, b'S').unwrap().parse().unwrap()
}

#[test]
fn killed_at_random_moments() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let seed = seed();
    let mut dice = Dice(seed);
    let mut acknowledged = Acknowledged::new();
    for round in 0..kills() {
        let before = revision(&sandbox);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (root, done, stop) = (sandbox.root(), acknowledged.clone(), Arc::clone(&stop));
            let mut dice = Dice(seed ^ (round + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
            thread::spawn(move || write_until_death(&root, &mut dice, done, &stop))
        };
        // copying and sealing in every round; a commit under way in two of three
        thread::sleep(Duration::from_millis(dice.next(250)));
        let committing = (round % 3 != 0).then(|| {
            let mut command = sandbox.command(["commit", REPO, "--open-files", "skip"]);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            command.spawn().unwrap()
        });
        thread::sleep(Duration::from_millis(dice.next(if committing.is_some() {
            300
        } else {
            60
        })));
        sandbox.kill();
        stop.store(true, Ordering::Relaxed);
        if let Some(mut commit) = committing {
            commit.wait().unwrap();
        }
        let (done, in_flight) = writer.join().unwrap();

        sandbox.mount();
        let after = revision(&sandbox);
        assert!(
            after == before || after == before + 1,
            "round {round}: {before} -> {after}"
        );
        for (name, content) in &done {
            if in_flight.contains(name) {
                continue;
            }
            let found = fs::read(sandbox.root().join(name));
            assert!(
                found.as_ref().is_ok_and(|bytes| bytes == content),
                "round {round} (seed {seed:#x}): {name}: closed with {} bytes, found {:?}",
                content.len(),
                found.map(|bytes| bytes.len())
            );
        }
        // what was under way may be either; take what is there as the truth from here on
        acknowledged = done;
        for name in in_flight {
            acknowledged.remove(&name);
            if let Ok(bytes) = fs::read(sandbox.root().join(&name)) {
                acknowledged.insert(name, bytes);
            }
        }
        if round % 10 == 9 {
            sandbox.check();
        }
    }
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    for (name, content) in &acknowledged {
        assert_eq!(
            &fs::read(sandbox.root().join(name)).unwrap(),
            content,
            "{name}"
        );
    }
}

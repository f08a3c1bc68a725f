//! Power loss: a daemon's state lies on a recording filesystem, which at random moments is left with
//! what was synced and, of the rest, whatever the rules of a real one allow. The daemon that starts
//! on it must find every file that was fsynced, make nothing up, and go on (promises 3 and 4).
//!
//! One world goes through many power losses: what one leaves, the next begins with; also the look at
//! what is left is cut short now and then. `PREPUB_IMAGES` says how many (scripts/soak), and
//! `PREPUB_SEED` which; a failure names its seed and image, and leaves the image in a directory.

mod model;
mod workload;

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::dice::Dice;
use crate::support::golden::manifest_field;
use crate::support::layer::{Cut, Layer, Rules, Tree};
use crate::support::{REPO, Sandbox, can_mount, skip_unless};
use model::{Found, Model};
use workload::{Workload, look};

/// Power losses of each test: the short form of a soak.
const IMAGES: u64 = 13;

fn from_env(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Files are sealed while others are written, and some are not yet when the power goes. Of the sealed
/// ones some have been left without raw bytes by then.
const CONFIG: &str = "[stage]\nsettle = \"60ms\"\nbacking_max = \"64KiB\"\n";

/// A sandbox whose state lies on the layer.
struct World {
    sandbox: Sandbox,
    layer: Option<Layer>,
    model: Model,
    dice: Dice,
    serial: u64,
    rules: Rules,
    /// The start of the machine.
    boot: u64,
    /// Revisions that may be published: the last that was acknowledged, and one under way.
    revision: u64,
    under_way: bool,
    told: String,
}

impl World {
    fn new(rules: Rules, seed: u64) -> Self {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.state()).unwrap();
        fs::write(sandbox.dir.path().join("config.toml"), CONFIG).unwrap();
        let mut world = Self {
            sandbox,
            layer: None,
            model: Model::new(),
            dice: Dice(seed),
            serial: 0,
            rules,
            boot: 0,
            revision: 1,
            under_way: false,
            told: String::new(),
        };
        world.power_on(Tree::new());
        world.sandbox.ok(["mkfs", REPO]);
        let cut = world.layer().cut();
        world.layer = None;
        let mut image = cut.record.image(rules, &mut world.dice);
        // a new repository, and a stage that is only being made
        for _ in 0..3 {
            image = world.cut_recovery_short(image);
        }
        world.power_on(image);
        world.mount();
        world
    }

    fn layer(&self) -> &Layer {
        self.layer.as_ref().unwrap()
    }

    /// The machine starts with these files on its disk.
    fn power_on(&mut self, tree: Tree) {
        self.boot += 1;
        let clock = Arc::clone(&self.model.clock);
        self.layer = Some(Layer::mount(tree, &self.sandbox.state(), clock));
    }

    fn mount(&mut self) {
        let config = self.sandbox.dir.path().join("config.toml");
        let boot = format!("clock::boot_id=return(boot {})", self.boot);
        self.sandbox.mount_with(&[
            ("PREPUB_CONFIG", config.to_str().unwrap()),
            ("FAILPOINTS", &boot),
        ]);
    }

    fn workload(&mut self) -> Workload<'_> {
        Workload {
            root: self.sandbox.root(),
            dice: &mut self.dice,
            model: &mut self.model,
            serial: &mut self.serial,
        }
    }

    /// Works until the power goes; commits go on beside it.
    fn work(&mut self) -> Cut {
        let changes = 20 + self.dice.next(1200);
        self.layer().cut_after(changes);
        let mut commit: Option<std::process::Child> = None;
        let mut steps = 0;
        while !self.layer().is_cut() && steps < 150 {
            steps += 1;
            self.workload().step();
            if let Some(child) = &mut commit {
                if let Some(status) = child.try_wait().unwrap() {
                    // files in doubt may be in the way, and nothing else
                    let excused = self.model.has_doubt() || self.layer().is_cut();
                    assert!(
                        status.success() || excused,
                        "{}{}",
                        fs::read_to_string(self.commit_log()).unwrap(),
                        self.sandbox.log()
                    );
                    commit = None;
                    self.committed();
                }
            } else if self.dice.next(12) == 0 && !self.layer().is_cut() {
                commit = Some(self.begin_commit());
            }
        }
        let cut = self.layer().cut();
        self.sandbox.kill();
        if let Some(mut child) = commit {
            child.wait().unwrap();
        }
        self.layer = None;
        cut
    }

    fn begin_commit(&mut self) -> std::process::Child {
        self.under_way = true;
        let mut command = self
            .sandbox
            .command(["commit", REPO, "--open-files", "skip"]);
        if self.dice.next(2) == 0 {
            command.arg("--accept-unsynced");
        }
        let log = fs::File::create(self.commit_log()).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap()
    }

    fn commit_log(&self) -> std::path::PathBuf {
        self.sandbox.dir.path().join("commit.log")
    }

    /// A commit was acknowledged, unless the power had gone before.
    fn committed(&mut self) {
        if !self.layer().is_cut() {
            self.revision = self.published();
            self.under_way = false;
        }
    }

    fn published(&self) -> u64 {
        let manifest = fs::read(self.sandbox.storage().join(".cvmfspublished")).unwrap();
        manifest_field(&manifest, b'S').unwrap().parse().unwrap()
    }

    /// What is there, and what the program says of it.
    fn look(&self) -> Found {
        let mut found = Found::default();
        look(&self.sandbox.root(), &mut found);
        let status = self.sandbox.json(["status", REPO]);
        let errors = status["repositories"][0]["errors"].as_array().unwrap();
        for error in errors {
            let path = error["path"].as_str().expect("all errors are of files");
            found
                .in_doubt
                .insert(path.trim_start_matches('/').to_owned());
        }
        found
    }

    /// Starts the daemon on what a power loss left, and checks it against what was done before.
    fn recover(&mut self, cut: &Cut) -> Result<Found, String> {
        self.mount();
        let revision = self.published();
        let most = self.revision + u64::from(self.under_way);
        if !(self.revision..=most).contains(&revision) {
            return Err(format!(
                "revision {revision}, where {}..={most} may be published",
                self.revision
            ));
        }
        (self.revision, self.under_way) = (revision, false);
        self.sandbox.check();
        let found = self.look();
        self.model.go_on(cut.clock, &found)?;
        Ok(found)
    }

    /// What people do then.
    fn go_on(&mut self, found: &Found) -> Result<(), String> {
        let lost: Vec<String> = found
            .files
            .iter()
            .filter(|(_, content)| content.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        match self.dice.next(4) {
            0 => self.workload().settle(&lost),
            1 => {
                self.workload().settle(&lost);
                self.commit_all(found, &lost)?;
            }
            2 => {
                self.sandbox.ok(["abort", REPO]);
                let found = self.look();
                if !found.in_doubt.is_empty() {
                    return Err(format!("in doubt after abort: {:?}", found.in_doubt));
                }
                self.model.go_on_with_published(&found)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Files in doubt keep a commit from being made, and nothing else does.
    fn commit_all(&mut self, found: &Found, settled: &[String]) -> Result<(), String> {
        let in_doubt = found.in_doubt.iter().filter(|name| !settled.contains(name));
        if let Some(name) = in_doubt.clone().next() {
            let said = self.sandbox.fails(1, ["commit", REPO]);
            if !said.contains(name) {
                return Err(format!("{name} is in doubt, and not named: {said}"));
            }
        }
        let mut commit = self.sandbox.command(["commit", REPO, "--accept-unsynced"]);
        let done = commit.output().unwrap();
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(format!("{said}; written again or removed: {settled:?}"));
        }
        self.revision = self.published();
        let now = self.look();
        if !now.in_doubt.is_empty() {
            return Err(format!("in doubt after a commit: {:?}", now.in_doubt));
        }
        // all of it is published, and so on disk
        let clock = self.model.clock.load(Ordering::SeqCst);
        self.model.go_on(clock, &now)
    }

    /// One power loss, and all that comes of it.
    fn lose_power(&mut self) -> Result<(), String> {
        let cut = self.work();
        self.told = format!("{} changes were not synced", cut.record.unsynced());
        let mut image = cut.record.image(self.rules, &mut self.dice);
        // it may go again while the daemon looks at what is left
        while self.dice.next(4) == 0 {
            image = self.cut_recovery_short(image);
        }
        self.power_on(image.clone());
        let recovered = self.recover(&cut);
        let done = recovered.and_then(|found| self.go_on(&found));
        done.map_err(|error| match image.write_out(&kept_dir()) {
            Ok(()) => format!("{error}; the image is in {}", kept_dir().display()),
            Err(e) => format!("{error}; the image cannot be kept: {e}"),
        })
    }

    fn cut_recovery_short(&mut self, image: Tree) -> Tree {
        self.power_on(image);
        let changes = 1 + self.dice.next(400);
        self.layer().cut_after(changes);
        self.mount();
        let cut = self.layer().cut();
        self.sandbox.kill();
        self.layer = None;
        cut.record.image(self.rules, &mut self.dice)
    }
}

fn kept_dir() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("prepub-powerloss-{}", std::process::id()))
}

fn lose_power_again_and_again(rules: Rules) {
    if skip_unless(can_mount(), "/dev/fuse")
        || skip_unless(cfg!(feature = "failpoints"), "the feature failpoints")
    {
        return;
    }
    let seed = from_env("PREPUB_SEED", 0x9e37_79b9_7f4a_7c15).max(1);
    let images = from_env("PREPUB_IMAGES", IMAGES);
    let mut world = World::new(rules, seed);
    for image in 0..images {
        if let Err(error) = world.lose_power() {
            panic!(
                "{rules:?}, seed {seed}, image {image} of {images} ({}): {error}",
                world.told
            );
        }
    }
}

#[test]
fn nothing_that_was_fsynced_is_lost_where_names_keep_their_order() {
    lose_power_again_and_again(Rules::Ordered);
}

#[test]
fn nothing_that_was_fsynced_is_lost_where_only_fsync_orders() {
    lose_power_again_and_again(Rules::Weak);
}

//! `kill -9` at each durable step, by its failpoint: one script passes them all, and whatever the
//! moment, what was acknowledged is there, nothing else is, the repository is at the old revision or
//! the new one, and no file is left that nobody accounts for.
//!
//! The short form kills at the first two passages of each point, `scripts/soak sweep`
//! (`PREPUB_SWEEP=all`) at every one.

mod script;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::support::golden::manifest_field;
use crate::support::{REPO, Sandbox, client, skip_unless, workspace_root};
use script::{Died, Handles, Step};
use tree::{Tree, look};

const REMOVAL: &str = "backing::remove";
/// The points that the script passes, by the room they are in.
const STAGING: &[&str] = &[
    "journal::record",
    "journal::recorded",
    "journal::sync",
    "journal::synced",
    "backing::made",
    REMOVAL,
    "seal::store",
    "store::keep",
];
const COMMITTING: &[&str] = &[
    "txn::record",
    "txn::clear",
    "commit::frozen",
    "commit::noted",
    "commit::stored",
    "commit::leased",
    "commit::catalogs",
    "commit::visible",
    "hook::visible",
    "hook::retired",
];
const PUBLISHING: &[&str] = &[
    "stratum0::before_sync",
    "records::before_checksum",
    "stratum0::after_reflog",
    "stratum0::before_manifest",
    "store::write_root",
    "store::wrote_root",
    "stratum0::after_manifest",
    "tags::before_objects",
    "tags::before_manifest",
    "rollback::before_tags",
    "rollback::before_manifest",
];
/// The points of what the script does not do, and the tests that stop there.
const ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "commit/tests/failpoints.rs",
        &[
            "mkfs::claimed",
            "mkfs::keys",
            "mkfs::storage",
            "mkfs::revision",
            "mkfs::registered",
            "rmfs::before_objects",
            "rmfs::before_keys",
            "rmfs::before_conf",
            "resign::before_manifest",
            "resign::after_manifest",
            "locks::owned",
            "locks::release",
        ],
    ),
    (
        "tests/space.rs",
        &[
            "fsimpl::drop_synced",
            "fsimpl::drop_recorded",
            "fsimpl::drop_journalled",
        ],
    ),
];

/// The script, under way.
pub struct Run<'s> {
    sandbox: &'s mut Sandbox,
    handles: Handles,
    /// What the mount shows.
    tree: Tree,
    /// What it shows if the step under way was done.
    after: Option<Tree>,
    /// What is published, and with the tag v1.
    published: Tree,
    tagged: Tree,
    /// The step under way may make a revision.
    publishes: bool,
    revision: u64,
}

fn revision(sandbox: &Sandbox) -> u64 {
    let manifest = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    manifest_field(&manifest, b'S').unwrap().parse().unwrap()
}

impl<'s> Run<'s> {
    fn new(sandbox: &'s mut Sandbox) -> Self {
        Self {
            revision: revision(sandbox),
            sandbox,
            handles: Handles::default(),
            tree: Tree::new(),
            after: None,
            published: Tree::new(),
            tagged: Tree::new(),
            publishes: false,
        }
    }

    /// One system call, and what it does to the tree.
    fn call(
        &mut self,
        act: impl FnOnce(&Path) -> io::Result<()>,
        effect: impl FnOnce(&mut Tree),
    ) -> Step {
        let mut after = self.tree.clone();
        effect(&mut after);
        let result = act(&self.sandbox.root());
        self.acknowledged(result.is_ok(), after)
    }

    /// A step was done, or the daemon is gone.
    fn acknowledged(&mut self, done: bool, after: Tree) -> Step {
        if done {
            self.tree = after;
            return Ok(());
        }
        self.after = Some(after);
        assert!(self.sandbox.has_died(), "a step failed, and nobody died");
        Err(Died)
    }

    fn command(&mut self, args: &[&str], publishes: bool, after: Tree) -> Step {
        self.publishes = publishes;
        let output = self.sandbox.run(args);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(self.sandbox.has_died(), "{args:?}: {said}");
        }
        self.acknowledged(output.status.success(), after)?;
        self.publishes = false;
        self.revision = revision(self.sandbox);
        Ok(())
    }

    /// Everything that was closed is sealed.
    fn sealed(&mut self) -> Step {
        let tree = self.tree.clone();
        self.command(&["status", REPO, "--wait"], false, tree)
    }

    fn commit(&mut self, more: &[&str]) -> Step {
        let tree = self.tree.clone();
        self.command(&[&["commit", REPO], more].concat(), true, tree.clone())?;
        if !more.is_empty() {
            self.tagged = tree.clone();
        }
        self.published = tree;
        Ok(())
    }

    fn abort(&mut self, below: &str) -> Step {
        let within = |path: &String| *path == below || path.starts_with(&format!("{below}/"));
        let mut after = self.tree.clone();
        after.retain(|path, _| !within(path));
        let published = self.published.iter().filter(|(path, _)| within(path));
        after.extend(published.map(|(path, what)| (path.clone(), what.clone())));
        self.command(&["abort", &format!("{REPO}/{below}")], false, after)
    }

    fn tag(&mut self, name: &str) -> Step {
        let tree = self.tree.clone();
        self.command(&["tag", "add", REPO, name], false, tree)
    }

    fn roll_back(&mut self) -> Step {
        let tagged = self.tagged.clone();
        self.command(&["rollback", REPO, "--tag", "v1"], true, tagged)
    }

    /// The daemon was killed: what is there, once another one has started?
    fn judge(&mut self, context: &str) {
        self.handles = Handles::default();
        self.sandbox.mount();
        let now = revision(self.sandbox);
        let moved = now - self.revision;
        assert!(
            moved <= u64::from(self.publishes),
            "{context}: revision {} -> {now}",
            self.revision
        );
        let found = look(&self.sandbox.root());
        let after = self.after.take();
        if found != self.tree {
            let after = after.as_ref().unwrap_or(&self.tree);
            assert_eq!(
                &found, after,
                "{context}: neither before nor after the step"
            );
        }
        let staged = self.sandbox.json(["diff", REPO]);
        let staged = staged["changes"].as_array().unwrap().len();
        if moved == 1 {
            assert_eq!(staged, 0, "{context}: published, and staged still");
        }
        self.sandbox.check();
    }

    /// All of it is published, and nothing else is left.
    fn finish(&mut self, context: &str) {
        let tree = look(&self.sandbox.root());
        self.sandbox.ok(["commit", REPO]);
        self.sandbox.check();
        assert_eq!(
            look(&self.sandbox.root()),
            tree,
            "{context}: after the commit"
        );
        let status = self.sandbox.json(["status", REPO]);
        let url = status["repositories"][0]["url"].as_str().unwrap();
        client::assert_same(url, &self.sandbox.root(), &[]);
        self.sandbox.unmount();
        // what was to be removed later is removed by the next
        self.sandbox.mount();
        self.sandbox.unmount();
        for place in ["backing", "objects"] {
            let dir = self.sandbox.state().join("stage").join(REPO).join(place);
            assert_eq!(
                files_below(&dir),
                Vec::<String>::new(),
                "{context}: {place}"
            );
        }
        let state = self.sandbox.state();
        assert_eq!(
            files_below(&state.join("txn")),
            Vec::<String>::new(),
            "{context}"
        );
        let half = self.sandbox.storage().join("data/txn");
        assert_eq!(files_below(&half), Vec::<String>::new(), "{context}");
    }
}

fn files_below(dir: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    entries
        // the one backing file that all empty files share
        .filter(|entry| entry.file_type().is_file() && entry.file_name() != "empty")
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// A repository whose larger files are cut, and whose files are sealed as soon as they are closed.
fn prepared() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let conf = sandbox.server_conf();
    let mut text = fs::read_to_string(&conf).unwrap();
    text.push_str(
        "CVMFS_MIN_CHUNK_SIZE=65536\nCVMFS_AVG_CHUNK_SIZE=131072\nCVMFS_MAX_CHUNK_SIZE=262144\n",
    );
    fs::write(&conf, text).unwrap();
    let config = sandbox.dir.path().join("config.toml");
    fs::write(config, "[stage]\nsettle = \"0s\"\n").unwrap();
    sandbox
}

/// Runs the script with a kill at the passage of `point` after `earlier` others; false if it came to
/// its end before that.
fn killed_at(point: &str, earlier: u64) -> bool {
    let mut sandbox = prepared();
    let config = sandbox.dir.path().join("config.toml");
    let fault = match earlier {
        0 => format!("{point}=return(kill)"),
        n => format!("{point}={n}*off->return(kill)"),
    };
    let context = format!("{point} after {earlier}");
    // named with whatever fails
    eprintln!("killed at {context}");
    let env = [
        ("PREPUB_CONFIG", config.to_str().unwrap()),
        ("FAILPOINTS", &fault),
    ];
    let started = sandbox.try_mount(REPO, &env);
    let mut run = Run::new(&mut sandbox);
    let died = match started {
        // backing files are removed some seconds after the last that needed them
        Ok(()) => run.script().is_err() || (point == REMOVAL && run.sandbox.has_died()),
        Err(status) => {
            assert_eq!(status.signal(), Some(9), "{context}: the daemon ended");
            true
        }
    };
    if died {
        run.judge(&context);
    }
    run.finish(&context);
    died
}

fn sweep(points: &[&str]) {
    if skip_unless(cfg!(feature = "failpoints"), "the feature failpoints")
        || skip_unless(crate::support::can_mount(), "/dev/fuse")
    {
        return;
    }
    let all = std::env::var("PREPUB_SWEEP").is_ok_and(|how| how == "all");
    let passages = if all { 0..u64::MAX } else { 0..2 };
    for point in points {
        for earlier in passages.clone() {
            let died = killed_at(point, earlier);
            assert!(died || earlier > 0, "{point} was not passed");
            if !died {
                break;
            }
        }
    }
}

#[test]
fn killed_while_staging() {
    sweep(STAGING);
}

#[test]
fn killed_while_committing() {
    sweep(COMMITTING);
}

#[test]
fn killed_while_publishing() {
    sweep(PUBLISHING);
}

/// The names in the sources.
fn points_in_the_sources() -> BTreeSet<String> {
    let root = workspace_root();
    let rooms = [
        "src",
        "fsimpl/src",
        "commit/src",
        "store/src",
        "receiver/src",
    ];
    let mut names = BTreeSet::new();
    for file in rooms
        .iter()
        .flat_map(|room| walkdir::WalkDir::new(root.join(room)))
    {
        let file = file.unwrap();
        if file.path().extension().is_none_or(|x| x != "rs") {
            continue;
        }
        let text = fs::read_to_string(file.path()).unwrap();
        for passage in text.split("failpoint::pass(\"").skip(1) {
            names.insert(passage.split('"').next().unwrap().to_owned());
        }
    }
    names
}

#[test]
fn every_failpoint_has_a_test_that_stops_there() {
    let mut covered = BTreeSet::new();
    for points in [STAGING, COMMITTING, PUBLISHING] {
        covered.extend(points.iter().map(|point| (*point).to_owned()));
    }
    for (file, points) in ELSEWHERE {
        let text = fs::read_to_string(workspace_root().join(file)).unwrap();
        for point in *points {
            assert!(text.contains(&format!("\"{point}\"")), "{file}: {point}");
            covered.insert((*point).to_owned());
        }
    }
    assert_eq!(points_in_the_sources(), covered);
}

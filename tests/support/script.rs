//! A script that passes every durable step of staging, sealing, committing and tagging, a model of
//! the tree it makes, and a judge of what is left when a step failed.
//!
//! A step that fails ends the script. What was acknowledged before is there then, nothing else is, and
//! all of it can be published.

mod steps;
mod tree;

use std::fs;
use std::io;
use std::path::Path;

use super::golden::manifest_field;
use super::{REPO, Sandbox, client};
use steps::{Handles, Step, Stopped};
use tree::{Tree, look};

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
    excuse: Excuse,
    /// What the step that failed said.
    pub said: String,
}

/// Why a step may fail.
pub enum Excuse {
    /// The daemon is gone.
    Death,
    /// Something is wrong below it: one of these is what a system call says then. It lives on.
    Errnos(Vec<i32>),
}

fn revision(sandbox: &Sandbox) -> u64 {
    let manifest = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    manifest_field(&manifest, b'S').unwrap().parse().unwrap()
}

impl<'s> Run<'s> {
    pub fn new(sandbox: &'s mut Sandbox, excuse: Excuse) -> Self {
        Self {
            revision: revision(sandbox),
            sandbox,
            handles: Handles::default(),
            tree: Tree::new(),
            after: None,
            published: Tree::new(),
            tagged: Tree::new(),
            publishes: false,
            excuse,
            said: String::new(),
        }
    }

    pub fn sandbox(&mut self) -> &mut Sandbox {
        self.sandbox
    }

    /// One system call, and what it does to the tree.
    fn call(
        &mut self,
        act: impl FnOnce(&Path) -> io::Result<()>,
        effect: impl FnOnce(&mut Tree),
    ) -> Step {
        let mut after = self.tree.clone();
        effect(&mut after);
        match act(&self.sandbox.root()) {
            Ok(()) => {
                self.tree = after;
                Ok(())
            }
            Err(error) => {
                if let Excuse::Errnos(fit) = &self.excuse {
                    let fits = error
                        .raw_os_error()
                        .is_some_and(|errno| fit.contains(&errno));
                    assert!(fits, "no fitting errno: {error}");
                }
                Err(self.failed(error.to_string(), after))
            }
        }
    }

    /// A step failed, which leaves the tree as it was or as the step would have made it.
    fn failed(&mut self, said: String, after: Tree) -> Stopped {
        self.after = Some(after);
        match self.excuse {
            Excuse::Death => assert!(self.sandbox.has_died(), "nobody died: {said}"),
            Excuse::Errnos(_) => assert!(self.sandbox.is_alive(), "the daemon died: {said}"),
        }
        self.said = said;
        Stopped
    }

    fn command(&mut self, args: &[&str], publishes: bool, after: Tree) -> Step {
        self.publishes = publishes;
        let output = self.sandbox.run(args);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if matches!(self.excuse, Excuse::Errnos(_)) {
                assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
            }
            return Err(self.failed(format!("{args:?}: {said}"), after));
        }
        self.tree = after;
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

    /// Another daemon starts, after a kill.
    pub fn restart(&mut self) {
        self.handles = Handles::default();
        self.sandbox.kill();
        self.sandbox.mount();
    }

    /// What the mount shows is what was acknowledged, with or without the step that failed; the
    /// revision is the old one or that of this step. Returns true for the latter.
    pub fn judge_tree(&mut self, context: &str) -> bool {
        self.handles = Handles::default();
        let now = revision(self.sandbox);
        let moved = now - self.revision;
        assert!(
            moved <= u64::from(self.publishes),
            "{context}: revision {} -> {now}",
            self.revision
        );
        let found = look(&self.sandbox.root());
        let after = &self.after;
        if found != self.tree {
            let after = after.as_ref().unwrap_or(&self.tree);
            assert_eq!(
                &found, after,
                "{context}: neither before nor after the step"
            );
        }
        moved == 1
    }

    /// The same, and what is published and staged is sound.
    pub fn judge(&mut self, context: &str) {
        let published = self.judge_tree(context);
        let staged = self.sandbox.json(["diff", REPO]);
        let staged = staged["changes"].as_array().unwrap().len();
        if published {
            assert_eq!(staged, 0, "{context}: published, and staged still");
        }
        self.sandbox.check();
    }

    /// All of it is published, and nothing else is left.
    pub fn finish(&mut self, context: &str) {
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
pub fn prepared() -> Sandbox {
    let sandbox = Sandbox::new();
    prepare(&sandbox);
    sandbox
}

/// The same in a sandbox that is there.
pub fn prepare(sandbox: &Sandbox) {
    sandbox.ok(["mkfs", REPO]);
    let conf = sandbox.server_conf();
    let mut text = fs::read_to_string(&conf).unwrap();
    text.push_str(
        "CVMFS_MIN_CHUNK_SIZE=65536\nCVMFS_AVG_CHUNK_SIZE=131072\nCVMFS_MAX_CHUNK_SIZE=262144\n",
    );
    fs::write(&conf, text).unwrap();
    let config = sandbox.dir.path().join("config.toml");
    fs::write(config, "[stage]\nsettle = \"0s\"\n").unwrap();
}

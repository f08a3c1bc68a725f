//! The program's mount: system calls below it, commits, aborts and restarts by the program, and its
//! daemon killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Output;

use commit::RepoHome;

use super::judge::{Observed, Subject};
use super::ops::{Answer, Op, Path, Writers, refusal};
use super::plain::Plain;
use super::published::{self, Reader};
use crate::support::{REPO, Sandbox};

/// See the module's head.
pub struct Mounted {
    // before the sandbox, which unmounts
    files: Plain,
    reader: Reader,
    sandbox: Sandbox,
}

impl Mounted {
    /// A fresh repository, mounted.
    pub fn new(seed: u64) -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.ok(["mkfs", REPO]);
        let conf = sandbox
            .state()
            .join("repositories")
            .join(REPO)
            .join("server.conf");
        let mut conf = fs::OpenOptions::new().append(true).open(conf).unwrap();
        for (key, value) in published::settings(seed) {
            writeln!(conf, "{key}={value}").unwrap();
        }
        sandbox.mount();
        let home = RepoHome::embedded(&sandbox.state(), REPO).unwrap();
        Self {
            files: Plain::new(sandbox.root()),
            reader: Reader::new(home, &sandbox.dir.path().join("reader")),
            sandbox,
        }
    }

    fn commit(&self, paths: &[Path], writers: Writers) -> Answer {
        let writers = match writers {
            Writers::Skip => "skip",
            Writers::Fail => "fail",
        };
        let targets = paths.iter().map(target);
        let mut args = vec!["commit".to_owned()];
        args.extend(targets);
        args.extend(["--open-files".to_owned(), writers.to_owned()]);
        let output = self.sandbox.run(args);
        let text = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Answer::Done,
            Some(5) => Answer::Failed(refusal::OPEN_FILES),
            _ if text.contains(" replaced what was published") => {
                Answer::Failed(refusal::REPLACED_ANCESTOR)
            }
            _ if text.contains("neither published nor staged") => {
                Answer::Failed(refusal::NOT_FOUND)
            }
            _ => broken(&output),
        }
    }

    fn run(&self, args: &[&str]) -> Answer {
        let output = self.sandbox.run(args);
        match output.status.success() {
            true => Answer::Done,
            false => broken(&output),
        }
    }
}

impl Subject for Mounted {
    fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Commit { paths, writers } => self.commit(paths, *writers),
            Op::Abort { path } => self.run(&["abort", &target(path)]),
            Op::Seal => self.run(&["status", REPO, "--wait"]),
            Op::Restart => {
                self.files.close_all();
                self.sandbox.unmount();
                self.sandbox.mount();
                Answer::Done
            }
            Op::Kill => {
                self.sandbox.kill();
                self.files.close_all();
                self.sandbox.mount();
                Answer::Done
            }
            other => self.files.apply(other),
        }
    }

    fn tree(&mut self) -> BTreeMap<Path, Observed> {
        self.files.tree()
    }

    fn handle(&mut self, slot: usize, readable: bool) -> (Vec<u8>, u32) {
        self.files.handle(slot, readable)
    }

    fn published(&mut self) -> Option<(u64, BTreeMap<Path, Observed>)> {
        Some(self.reader.read())
    }

    fn complaints(&mut self, clean: bool) -> Vec<String> {
        let mut problems = self.reader.findings();
        if clean {
            let status = self.sandbox.json(["status", REPO]);
            let staged = &status["repositories"][0]["staged"];
            let staged = if staged.is_null() {
                &status["staged"]
            } else {
                staged
            };
            for what in ["added", "modified", "removed", "renamed"] {
                if staged[what] != 0 {
                    problems.push(format!("nothing is staged, but status says {staged}"));
                    break;
                }
            }
        }
        problems
    }
}

fn broken(output: &Output) -> Answer {
    let text = String::from_utf8_lossy(&output.stderr);
    Answer::Other(format!("{}: {text}", output.status))
}

fn target(path: &Path) -> String {
    let path = std::str::from_utf8(&path.0).expect("what is named to the program is text");
    match path {
        "" => REPO.to_owned(),
        path => format!("{REPO}/{path}"),
    }
}

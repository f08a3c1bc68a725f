//! The script that passes every durable step, one system call or command at a time.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use super::Run;
use super::tree::{LABEL, Tree, What, file, renamed};

/// A step failed.
pub struct Stopped;

pub type Step = Result<(), Stopped>;

/// Files of this many bytes are cut into chunks.
pub const LARGE: usize = 1 << 20;

/// Bytes that do not compress to nothing, another sequence for each seed.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut dice = crate::support::dice::Dice(seed * 2 + 1);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8))
        .flat_map(|_| (dice.next(u64::MAX) & 0x0f0f_0f0f_3f3f_3f3f).to_le_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}

/// Files that stay open from step to step.
#[derive(Default)]
pub struct Handles(BTreeMap<&'static str, File>);

impl Run<'_> {
    fn create(&mut self, path: &'static str) -> Step {
        let mut made = None;
        let step = self.call(
            |root| {
                made = Some(File::create_new(root.join(path))?);
                Ok(())
            },
            |tree| {
                tree.insert(path.to_owned(), file(b""));
            },
        );
        self.handles.0.extend(made.map(|made| (path, made)));
        step
    }

    fn open(&mut self, path: &'static str) -> Step {
        let mut opened = None;
        let step = self.call(
            |root| {
                let mut options = OpenOptions::new();
                opened = Some(options.read(true).write(true).open(root.join(path))?);
                Ok(())
            },
            |_| {},
        );
        self.handles.0.extend(opened.map(|opened| (path, opened)));
        step
    }

    fn write(&mut self, path: &'static str, at: usize, data: &[u8]) -> Step {
        // each request of the kernel's is a step of its own
        for (index, part) in data.chunks(1 << 20).enumerate() {
            let at = at + (index << 20);
            let handle = self.handles.0[path].try_clone().unwrap();
            self.call(
                |_| handle.write_all_at(part, at as u64),
                |tree| {
                    change(tree, path, |bytes| {
                        let length = bytes.len().max(at + part.len());
                        bytes.resize(length, 0);
                        bytes[at..at + part.len()].copy_from_slice(part);
                    })
                },
            )?;
        }
        Ok(())
    }

    fn cut(&mut self, path: &'static str, length: usize) -> Step {
        let handle = self.handles.0[path].try_clone().unwrap();
        self.call(
            |_| handle.set_len(length as u64),
            |tree| change(tree, path, |bytes| bytes.resize(length, 0)),
        )
    }

    fn fsync(&mut self, path: &'static str) -> Step {
        let handle = self.handles.0[path].try_clone().unwrap();
        self.call(|_| handle.sync_all(), |_| {})
    }

    fn close(&mut self, path: &'static str) {
        self.handles.0.remove(path);
    }

    fn whole(&mut self, path: &'static str, data: &[u8]) -> Step {
        self.create(path)?;
        let step = self.write(path, 0, data);
        self.close(path);
        step
    }

    fn mkdir(&mut self, path: &'static str) -> Step {
        self.call(
            |root| fs::create_dir(root.join(path)),
            |tree| {
                tree.insert(path.to_owned(), What::Dir);
            },
        )
    }

    fn rename(&mut self, from: &'static str, to: &'static str) -> Step {
        self.call(
            |root| fs::rename(root.join(from), root.join(to)),
            |tree| renamed(tree, from, to),
        )
    }

    fn remove(&mut self, path: &'static str) -> Step {
        self.call(
            |root| remove(&root.join(path)),
            |tree| {
                tree.remove(path);
            },
        )
    }

    fn mode(&mut self, path: &'static str, mode: u32) -> Step {
        self.call(
            |root| fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)),
            |tree| match tree.get_mut(path) {
                Some(What::File { mode: has, .. }) => *has = mode,
                _ => panic!("{path} is no file"),
            },
        )
    }

    fn label(&mut self, path: &'static str, value: &'static [u8]) -> Step {
        self.call(
            |root| xattr::set(root.join(path), LABEL, value),
            |tree| match tree.get_mut(path) {
                Some(What::File { label, .. }) => *label = Some(value.to_vec()),
                _ => panic!("{path} is no file"),
            },
        )
    }

    /// All of it. What a step needs was made by an earlier one.
    pub fn script(&mut self) -> Step {
        self.stage()?;
        self.sealed()?;
        self.commit(&[])?;
        self.change()?;
        self.commit(&["--tag", "v1"])?;
        self.change_again()?;
        self.abort("d")?;
        self.sealed()?;
        self.tag("kept")?;
        self.commit(&[])?;
        self.roll_back()
    }

    fn stage(&mut self) -> Step {
        self.mkdir("d")?;
        self.mkdir("d/e")?;
        self.whole("d/small", &bytes(1, 3000))?;
        self.whole("d/large", &bytes(2, LARGE))?;
        self.whole("d/e/empty", b"")?;
        self.create("d/log")?;
        self.write("d/log", 0, b"first\n")?;
        self.fsync("d/log")?;
        self.write("d/log", 6, b"second\n")?;
        self.cut("d/log", 9)?;
        self.close("d/log");
        self.call(
            |root| symlink("small", root.join("d/link")),
            |tree| {
                tree.insert("d/link".to_owned(), What::Link("small".to_owned()));
            },
        )?;
        self.mode("d/small", 0o600)?;
        self.label("d/small", b"one")?;
        self.whole("gone", b"soon")?;
        self.remove("gone")?;
        self.whole("replacement", &bytes(3, 5000))?;
        self.rename("replacement", "d/small")?;
        self.whole("d/e/deep", &bytes(4, 100_000))
    }

    fn change(&mut self) -> Step {
        self.open("d/large")?;
        self.write("d/large", 1000, b"changed in place")?;
        self.fsync("d/large")?;
        self.close("d/large");
        self.rename("d/e", "e")?;
        self.call(
            |root| fs::hard_link(root.join("d/log"), root.join("e/log")),
            |tree| {
                let log = tree["d/log"].clone();
                tree.insert("e/log".to_owned(), log);
            },
        )?;
        self.remove("d/link")?;
        self.create("copy")?;
        self.open("d/small")?;
        let (from, to) = (&self.handles.0["d/small"], &self.handles.0["copy"]);
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        self.call(
            |_| Ok(rustix::fs::copy_file_range(from, None, to, None, 1 << 20).map(|_| ())?),
            |tree| {
                let What::File { bytes: small, .. } = tree["d/small"].clone() else {
                    panic!("a file");
                };
                change(tree, "copy", |bytes| *bytes = small);
            },
        )?;
        self.close("d/small");
        self.close("copy");
        Ok(())
    }

    fn change_again(&mut self) -> Step {
        self.whole("d/unwanted", &bytes(5, 4000))?;
        self.remove("d/small")?;
        self.whole("e/wanted", &bytes(6, 4000))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir(path),
        false => fs::remove_file(path),
    }
}

fn change(tree: &mut Tree, path: &str, how: impl FnOnce(&mut Vec<u8>)) {
    match tree.get_mut(path) {
        Some(What::File { bytes, .. }) => how(bytes),
        _ => panic!("{path} is no file"),
    }
}

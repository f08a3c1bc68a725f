//! What people do to a mount, one call at a time: files written, appended to, patched, cut, replaced,
//! renamed, linked and removed, and fsynced or not.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::model::{Effect, Model, Names};
use crate::support::dice::Dice;

const DIRS: u64 = 3;
const FILES: u64 = 12;
/// Pieces of one write: some larger than what is torn, some smaller.
const PIECE_MAX: u64 = 24_000;

/// See the module's head.
pub struct Workload<'a> {
    pub root: PathBuf,
    pub dice: &'a mut Dice,
    pub model: &'a mut Model,
    /// Makes all bytes ever written different from one another.
    pub serial: &'a mut u64,
}

impl Workload<'_> {
    /// Does one thing, which is several calls.
    pub fn step(&mut self) {
        match self.dice.next(17) {
            0..=4 => self.write(),
            5 | 6 => self.replace(),
            7 | 8 => self.append(),
            9 => self.patch(),
            10 => self.log(),
            11 => self.rename(),
            12 => self.remove(),
            13 => self.cut(),
            14 => self.link(),
            15 => self.copy(),
            _ => self.sync_directory(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        *self.serial += 1;
        let length = usize::try_from(1 + self.dice.next(PIECE_MAX)).unwrap();
        let line = format!("piece {} of {length} bytes\n", self.serial);
        line.bytes().cycle().take(length).collect()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn somewhere(&mut self) -> String {
        let dir = format!("d{}", self.dice.next(DIRS));
        if !self.model.names().contains_key(&dir) {
            let mut names = self.model.names().clone();
            names.insert(dir.clone(), None);
            let path = self.at(&dir);
            self.model.rename(names, || fs::create_dir(path).unwrap());
        }
        format!("{dir}/f{}", self.dice.next(FILES))
    }

    /// Some file that is there and of which it is known what is in it.
    fn some_file(&mut self) -> Option<(String, usize)> {
        let files: Vec<(String, usize)> = self
            .model
            .names()
            .iter()
            .filter_map(|(path, file)| Some((path.clone(), (*file)?)))
            .filter(|(_, file)| !self.model.is_in_doubt(*file))
            .collect();
        match files.len() as u64 {
            0 => None,
            n => files
                .into_iter()
                .nth(usize::try_from(self.dice.next(n)).unwrap()),
        }
    }

    fn fsync(&mut self, handle: &File, file: usize, is_log: bool) {
        let data_only = self.dice.next(2) == 0;
        self.model.sync(Effect::Sync(file, !is_log), || {
            match data_only {
                true => handle.sync_data(),
                false => handle.sync_all(),
            }
            .unwrap();
        });
    }

    fn maybe_fsync(&mut self, handle: &File, file: usize) {
        if self.dice.next(2) == 0 {
            self.fsync(handle, file, false);
        }
    }

    /// Opens a file for writing, made or emptied.
    fn open_emptied(&mut self, name: &str) -> (File, usize) {
        let path = self.at(name);
        let open = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o644);
            options.open(path).unwrap()
        };
        match self.model.names().get(name).copied().flatten() {
            Some(file) => {
                let handle = self.model.change(file, 0..usize::MAX, Vec::new(), open);
                (handle, file)
            }
            None => {
                let file = self.model.new_file();
                let mut names = self.model.names().clone();
                names.insert(name.to_owned(), Some(file));
                (self.model.rename(names, open), file)
            }
        }
    }

    fn put(&mut self, handle: &File, file: usize, at: usize, bytes: &[u8]) {
        let mut content = self.model.content(file).to_vec();
        let end = at + bytes.len();
        content.resize(content.len().max(end), 0);
        content[at..end].copy_from_slice(bytes);
        let written = || handle.write_at(bytes, at as u64).unwrap();
        assert_eq!(
            self.model.change(file, at..end, content, written),
            bytes.len()
        );
    }

    fn fill(&mut self, handle: &File, file: usize) {
        for _ in 0..=self.dice.next(3) {
            let at = self.model.content(file).len();
            let bytes = self.bytes();
            self.put(handle, file, at, &bytes);
        }
    }

    fn write(&mut self) {
        let name = self.somewhere();
        let (handle, file) = self.open_emptied(&name);
        self.fill(&handle, file);
        self.maybe_fsync(&handle, file);
    }

    /// As an editor saves.
    fn replace(&mut self) {
        let name = self.somewhere();
        let temporary = format!("{name}.new");
        let (handle, file) = self.open_emptied(&temporary);
        self.fill(&handle, file);
        self.maybe_fsync(&handle, file);
        drop(handle);
        self.rename_to(&temporary, &name);
        if self.dice.next(3) == 0 {
            self.sync_directory();
        }
    }

    fn open(&self, name: &str) -> File {
        OpenOptions::new().write(true).open(self.at(name)).unwrap()
    }

    fn append(&mut self) {
        let Some((name, file)) = self.some_file() else {
            return;
        };
        let handle = self.open(&name);
        let bytes = self.bytes();
        self.put(&handle, file, self.model.content(file).len(), &bytes);
        self.maybe_fsync(&handle, file);
    }

    fn patch(&mut self) {
        let Some((name, file)) = self.some_file() else {
            return;
        };
        let handle = self.open(&name);
        let length = self.model.content(file).len() as u64;
        let at = usize::try_from(self.dice.next(length + 1)).unwrap();
        let bytes = self.bytes();
        self.put(&handle, file, at, &bytes);
        self.maybe_fsync(&handle, file);
    }

    /// Fsynced, and written to again, several times.
    fn log(&mut self) {
        let name = self.somewhere();
        let (handle, file) = self.open_emptied(&name);
        for turn in 0..2 + self.dice.next(3) {
            let bytes = self.bytes();
            self.put(&handle, file, self.model.content(file).len(), &bytes);
            self.fsync(&handle, file, turn > 0);
        }
    }

    fn cut(&mut self) {
        let Some((name, file)) = self.some_file() else {
            return;
        };
        let handle = self.open(&name);
        let length = self.model.content(file).len() as u64;
        let size = usize::try_from(self.dice.next(length + 5000)).unwrap();
        let mut content = self.model.content(file).to_vec();
        let range = size.min(content.len())..usize::MAX;
        content.resize(size, 0);
        self.model.change(file, range, content, || {
            handle.set_len(size as u64).unwrap();
        });
        self.maybe_fsync(&handle, file);
    }

    /// By reference, where the bytes are sealed or published.
    fn copy(&mut self) {
        let Some((from, source)) = self.some_file() else {
            return;
        };
        let to = self.somewhere();
        if self.model.names().get(&to).copied().flatten() == Some(source) {
            return;
        }
        let mut reader = File::open(self.at(&from)).unwrap();
        let (mut handle, file) = self.open_emptied(&to);
        let content = self.model.content(source).to_vec();
        let length = content.len() as u64;
        let copied = || std::io::copy(&mut reader, &mut handle).unwrap();
        assert_eq!(
            self.model.change(file, 0..usize::MAX, content, copied),
            length
        );
        self.maybe_fsync(&handle, file);
    }

    fn rename(&mut self) {
        let Some((from, _)) = self.some_file() else {
            return;
        };
        let to = self.somewhere();
        self.rename_to(&from, &to);
    }

    fn rename_to(&mut self, from: &str, to: &str) {
        let mut names = self.model.names().clone();
        let file = names.get(from).copied().flatten();
        // of two names of one file, both stay
        if names.get(to).copied().flatten() != file {
            names.remove(from);
            names.insert(to.to_owned(), file);
        }
        let (from, to) = (self.at(from), self.at(to));
        self.model.rename(names, || fs::rename(from, to).unwrap());
    }

    fn remove(&mut self) {
        let Some((name, _)) = self.some_file() else {
            return;
        };
        let mut names = self.model.names().clone();
        names.remove(&name);
        let path = self.at(&name);
        self.model.rename(names, || fs::remove_file(path).unwrap());
    }

    fn link(&mut self) {
        let Some((name, file)) = self.some_file() else {
            return;
        };
        let to = self.somewhere();
        if self.model.names().contains_key(&to) {
            return;
        }
        let mut names = self.model.names().clone();
        names.insert(to.clone(), Some(file));
        let (from, to) = (self.at(&name), self.at(&to));
        self.model
            .rename(names, || fs::hard_link(from, to).unwrap());
    }

    fn sync_directory(&mut self) {
        let dir = format!("d{}", self.dice.next(DIRS));
        if self.model.names().contains_key(&dir) {
            let handle = File::open(self.at(&dir)).unwrap();
            self.model
                .sync(Effect::SyncDir, || handle.sync_all().unwrap());
        }
    }

    /// Removes what is left of files that cannot be read, and writes others anew.
    pub fn settle(&mut self, lost: &[String]) {
        for name in lost {
            if self.dice.next(2) == 0 {
                let mut names: Names = self.model.names().clone();
                names.remove(name);
                let path = self.at(name);
                self.model.rename(names, || fs::remove_file(path).unwrap());
            } else {
                let (handle, file) = self.open_emptied(name);
                self.model.no_more_doubt(file);
                self.fill(&handle, file);
            }
        }
    }
}

/// Everything below a repository's root: files and their bytes, directories.
pub fn look(root: &Path, found: &mut super::model::Found) {
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(root).unwrap();
        let name = name.to_str().unwrap().to_owned();
        if entry.file_type().is_dir() {
            found.dirs.insert(name);
        } else {
            let inode = entry.metadata().unwrap().ino();
            found.inodes.insert(name.clone(), inode);
            found.files.insert(name, fs::read(entry.path()).ok());
        }
    }
}

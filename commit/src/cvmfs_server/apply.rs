//! The difference of two revisions, made in an open transaction.
//!
//! A file whose objects are in the storage already is applied as a graft: empty, and beside it
//! `.cvmfsgraft-NAME` with what its row shall say [CVMFS `sync_item.cc:CheckGraft`]; `cvmfs_server`
//! publishes neither the emptiness nor the marker. So no bytes pass while the transaction is open.
//!
//! ```text
//! size=9000000
//! checksum=0000000000000000000000000000000000000000      of all of it; zeros where there are chunks alone
//! compression=zlib
//! chunk_offsets=0,4194304
//! chunk_checksums=86f7...,e9d7...
//! ```
//!
//! Other files are written out: empty ones, those with extended attributes, which grafts lose, and all
//! where the storage cannot be written from here. What stood at a path is removed, not changed: the
//! union would else copy its old bytes up.
//!
//! Directories get their metadata last, the deepest first, their modification times above all: nothing
//! changes in them after that. The root directory keeps its row.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use formats::entry::{Entry, Kind, Regular, Xattrs};
use formats::hash::{DIGEST_LEN, Hash};
use formats::object::{Compression, Content, ObjectKind, ObjectName};
use formats::path::{Name, RepoPath};
use store::{ObjectStore, Revision, failpoint};

use super::error::ServerError;
use super::tree::{Tree, dress, set_time};
use crate::difference::Step;

/// What a graft's marker is called besides the file's name.
pub(super) const GRAFT: &[u8] = b".cvmfsgraft-";
/// Longest name of a file [`limits.h`].
const NAME_BYTES_MAX: usize = 255;

/// Where changes are made, and what of.
pub(super) struct Apply<'a> {
    pub union: &'a Path,
    /// What it shall be.
    pub wanted: &'a Revision,
    /// Where the objects of its files are.
    pub objects: &'a dyn ObjectStore,
    /// They are in the repository's storage.
    pub are_stored: bool,
}

impl Apply<'_> {
    /// Makes every change.
    pub(super) fn all(&self, steps: &[Step]) -> Result<(), ServerError> {
        let mut tree = Tree::open(self.union).map_err(|source| ServerError::Union {
            union: self.union.to_path_buf(),
            source,
        })?;
        for step in steps {
            self.one(&mut tree, step)?;
        }
        failpoint::pass("server::applying")?;
        self.dress_directories(&mut tree, steps)
    }

    fn failed<'p>(
        &self,
        what: &'static str,
        path: &'p RepoPath,
    ) -> impl Fn(io::Error) -> ServerError + use<'p> {
        let union = PathBuf::from(self.union);
        move |source| ServerError::Apply {
            what,
            path: path.clone(),
            union: union.clone(),
            source,
        }
    }

    fn one(&self, tree: &mut Tree, step: &Step) -> Result<(), ServerError> {
        let path = &step.path;
        let (Some(dir), Some(name)) = (path.parent(), path.name()) else {
            return Ok(());
        };
        let is_dir = |entry: &Option<Entry>| entry.as_ref().is_some_and(Entry::is_dir);
        if is_dir(&step.was) && is_dir(&step.now) {
            return Ok(());
        }
        if step.was.is_some() {
            tree.remove(&dir, &name)
                .map_err(self.failed("remove", path))?;
        }
        let Some(entry) = &step.now else {
            return Ok(());
        };
        let make = self.failed("make", path);
        match &entry.kind {
            Kind::Directory { .. } => tree.make_dir(&dir, &name).map_err(make),
            Kind::Regular(file) => self.file(tree, path, (&dir, &name), entry, file),
            _ => tree.make_other(&dir, &name, entry).map_err(make),
        }
    }

    fn file(
        &self,
        tree: &mut Tree,
        path: &RepoPath,
        (dir, name): (&RepoPath, &Name),
        entry: &Entry,
        file: &Regular,
    ) -> Result<(), ServerError> {
        let failed = self.failed("write", path);
        let mut made = tree.make_file(dir, name.as_os_str()).map_err(&failed)?;
        if self.are_stored && is_graft(name, entry, file) {
            let marker = [GRAFT, name.as_bytes()].concat();
            let mut marker = tree
                .make_file(dir, &OsString::from_vec(marker))
                .map_err(&failed)?;
            marker.write_all(graft(file).as_bytes()).map_err(&failed)?;
        } else {
            copy(self.objects, path, file, &mut |piece| {
                made.write_all(piece).map_err(&failed)
            })?;
        }
        dress(&made, entry, &Xattrs::new()).map_err(failed)
    }

    fn dress_directories(&self, tree: &mut Tree, steps: &[Step]) -> Result<(), ServerError> {
        for path in touched(steps).iter().rev() {
            let found = self.wanted.find(path).map_err(ServerError::Revisions)?;
            let Some(row) = found.filter(|row| row.entry.is_dir()) else {
                continue;
            };
            let failed = self.failed("set the metadata of", path);
            let dir = tree.dir(path).map_err(&failed)?;
            if path.is_root() {
                set_time(dir, row.entry.mtime).map_err(&failed)?;
                continue;
            }
            let was = xattrs_before(steps, path, &row.entry);
            dress(dir, &row.entry, &was).map_err(&failed)?;
        }
        Ok(())
    }
}

/// The extended attributes that a directory has when it is to get its own.
fn xattrs_before(steps: &[Step], path: &RepoPath, now: &Entry) -> Xattrs {
    match steps.binary_search_by(|step| step.path.cmp(path)) {
        Ok(at) => match &steps[at].was {
            Some(was) if was.is_dir() => was.xattrs.clone(),
            // it was made
            _ => Xattrs::new(),
        },
        Err(_) => now.xattrs.clone(),
    }
}

/// Directories that change, or that something changes in.
pub(super) fn touched(steps: &[Step]) -> BTreeSet<RepoPath> {
    let mut found = BTreeSet::new();
    for step in steps {
        found.extend(step.path.parent());
        if step.now.as_ref().is_some_and(Entry::is_dir) {
            found.insert(step.path.clone());
        }
    }
    found
}

/// True if a file can be applied without its bytes.
fn is_graft(name: &Name, entry: &Entry, file: &Regular) -> bool {
    file.size > 0
        && entry.xattrs.is_empty()
        && name.as_bytes().len() + GRAFT.len() <= NAME_BYTES_MAX
}

fn graft(file: &Regular) -> String {
    let mut text = format!("size={}\n", file.size);
    let how = match file.compression {
        Compression::Zlib => "zlib",
        Compression::None => "none",
    };
    let _ = writeln!(text, "compression={how}");
    let (bulk, chunks) = match &file.content {
        Content::Whole(hash) => (Some(*hash), &[][..]),
        Content::Chunks { bulk, chunks } => (*bulk, chunks.as_slice()),
    };
    // without one, zeros of the chunks' algorithm
    let none = || {
        let algorithm = chunks.first().map(|chunk| chunk.hash.algorithm());
        algorithm.map_or_else(Hash::null, |a| Hash::new(a, [0; DIGEST_LEN]))
    };
    let _ = writeln!(text, "checksum={}", bulk.unwrap_or_else(none));
    if !chunks.is_empty() {
        let list = |each: &dyn Fn(usize) -> String| {
            let all: Vec<String> = (0..chunks.len()).map(each).collect();
            all.join(",")
        };
        let _ = writeln!(
            text,
            "chunk_offsets={}",
            list(&|at| chunks[at].offset.to_string())
        );
        let _ = writeln!(
            text,
            "chunk_checksums={}",
            list(&|at| chunks[at].hash.to_string())
        );
    }
    text
}

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 128 << 10;

/// Hands a file's bytes on, in order.
pub(super) fn copy(
    objects: &dyn ObjectStore,
    path: &RepoPath,
    file: &Regular,
    take: &mut dyn FnMut(&[u8]) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut total = 0_u64;
    for name in parts(&file.content) {
        let failed = |source| ServerError::Content {
            path: path.clone(),
            source,
        };
        let stored = objects.open(&name).map_err(failed)?;
        let mut bytes = formats::compress::decompress(file.compression, stored);
        loop {
            match bytes.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => {
                    total += n as u64;
                    take(&piece[..n])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(store::read_error(objects, &name, error))),
            }
        }
    }
    match total == file.size {
        true => Ok(()),
        false => Err(ServerError::Length {
            path: path.clone(),
            found: total,
            wanted: file.size,
        }),
    }
}

/// The objects that make up a file, one after the other.
fn parts(content: &Content) -> Vec<ObjectName> {
    match content {
        Content::Whole(hash) => vec![ObjectName::new(*hash, ObjectKind::Data)],
        Content::Chunks { chunks, .. } => {
            let chunk = |hash| ObjectName::new(hash, ObjectKind::Chunk);
            chunks.iter().map(|c| chunk(c.hash)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::hash::Algorithm;
    use formats::object::Chunk;

    fn file(content: Content) -> Regular {
        Regular {
            size: 9,
            content,
            compression: Compression::None,
            external: false,
            direct_io: false,
            link_group: 0,
        }
    }

    #[test]
    fn grafts() {
        let hash = Hash::of(Algorithm::Rmd160, b"x");
        assert_eq!(
            graft(&file(Content::Whole(hash))),
            format!("size=9\ncompression=none\nchecksum={hash}\n")
        );
        let chunk = |offset| Chunk {
            offset,
            size: 5,
            hash,
        };
        let chunks = vec![chunk(0), chunk(5)];
        let zeros = "0".repeat(40);
        assert_eq!(
            graft(&file(Content::Chunks { bulk: None, chunks })),
            format!(
                "size=9\ncompression=none\nchecksum={zeros}-rmd160\nchunk_offsets=0,5\nchunk_checksums={hash},{hash}\n"
            )
        );
    }
}

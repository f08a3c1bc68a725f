//! `independent-client URL DIRECTORY [--below PATH] [--ignore NAME]...`
//!
//! Walks DIRECTORY and the repository at URL side by side, as the `cvmfs` crate reads it, and
//! reports every difference of type, mode, owner, size, mtime (seconds), link target, extended
//! attributes and content, and every name that only one side has. Exit code 0 when equal, 1 when
//! not, 2 when it cannot tell.
//!
//! The crate names files by UTF-8 strings and shows no device numbers; what it cannot be asked is
//! counted as `not comparable`, never as equal.

mod front;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsString};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cvmfs::{
    common::compose_object_path, directory_entry::DirectoryEntry, fetcher::Fetcher,
    repository::Repository,
};

#[derive(Default)]
struct Tally {
    files: u64,
    directories: u64,
    links: u64,
    specials: u64,
    bytes: u64,
    not_comparable: u64,
    differences: u64,
}

struct Walk<'a> {
    repository: &'a Repository,
    ignore: BTreeSet<OsString>,
    tally: Tally,
    /// Files whose bytes are still to be compared, their paths and objects in the repository.
    contents: Vec<(PathBuf, String, Pieces)>,
}

/// Where the objects of a file lie, in order.
type Pieces = Vec<String>;

/// Contents that are compared at the same time.
const READERS: usize = 8;

fn main() -> ExitCode {
    match run() {
        Ok(tally) => {
            println!(
                "{} files ({} bytes), {} directories, {} links, {} special files compared; \
                 {} names not comparable; {} differences",
                tally.files,
                tally.bytes,
                tally.directories,
                tally.links,
                tally.specials,
                tally.not_comparable,
                tally.differences
            );
            if tally.differences == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            }
        }
        Err(error) => {
            eprintln!("independent-client: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Tally, String> {
    let mut args = std::env::args_os().skip(1);
    let (mut plain, mut below, mut ignore) = (Vec::new(), String::new(), BTreeSet::new());
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--below") => {
                below = args
                    .next()
                    .and_then(|a| a.into_string().ok())
                    .unwrap_or_default()
            }
            Some("--ignore") => ignore.extend(args.next()),
            _ => plain.push(arg),
        }
    }
    let [url, directory] = plain.as_slice() else {
        return Err(
            "usage: independent-client URL DIRECTORY [--below PATH] [--ignore NAME]...".into(),
        );
    };
    let cache = std::env::temp_dir().join(format!("independent-client.{}", std::process::id()));
    fs::create_dir_all(&cache).map_err(|e| e.to_string())?;
    let outcome = compare(
        &url.to_string_lossy(),
        Path::new(directory),
        &below,
        ignore,
        &cache,
    );
    let _ = fs::remove_dir_all(&cache);
    outcome
}

fn compare(
    url: &str,
    directory: &Path,
    below: &str,
    ignore: BTreeSet<OsString>,
    cache: &Path,
) -> Result<Tally, String> {
    let front = front::start(url).map_err(|e| format!("{url}: {e}"))?;
    let fetcher =
        Fetcher::new(&front, &cache.to_string_lossy(), true).map_err(|e| format!("{url}: {e}"))?;
    let repository = Repository::new(fetcher).map_err(|e| format!("{url}: {e}"))?;
    println!(
        "{}: revision {}, root catalog {}",
        repository.fqrn,
        repository
            .get_revision_number()
            .map_err(|e| e.to_string())?,
        repository.get_root_hash().map_err(|e| e.to_string())?
    );
    let mut walk = Walk {
        repository: &repository,
        ignore,
        tally: Tally::default(),
        contents: Vec::new(),
    };
    let root =
        fs::symlink_metadata(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let entry = repository
        .lookup(below)
        .map_err(|e| format!("{below}: {e}"))?;
    if below.is_empty() {
        // the repository's own root row is mkfs's, not the tree's
        walk.tally.directories += 1;
    } else {
        walk.entry(directory, below, &root, &entry);
    }
    walk.directory(directory, below);
    walk.contents(&front, cache);
    Ok(walk.tally)
}

impl Walk<'_> {
    fn differ(&mut self, path: &str, what: &str) {
        self.tally.differences += 1;
        if self.tally.differences <= 100 {
            println!("differs: {path}: {what}");
        }
    }

    fn directory(&mut self, directory: &Path, path: &str) {
        let mut names: Vec<OsString> = match fs::read_dir(directory) {
            Ok(entries) => entries.flatten().map(|e| e.file_name()).collect(),
            Err(error) => return self.differ(path, &format!("source: {error}")),
        };
        names.sort();
        let mut published: BTreeMap<String, DirectoryEntry> =
            if names.iter().all(|n| n.to_str().is_some()) {
                match self.repository.list_directory(path) {
                    Ok(entries) => entries.into_iter().map(|e| (e.name.clone(), e)).collect(),
                    Err(error) => return self.differ(path, &format!("cannot be listed: {error}")),
                }
            } else {
                // the crate lists no directory with a name that is not UTF-8: ask for each it can name
                let look = |name: &str| self.repository.lookup(&format!("{path}/{name}")).ok();
                names
                    .iter()
                    .filter_map(|n| Some((n.to_str()?.to_owned(), look(n.to_str()?)?)))
                    .collect()
            };
        for name in names
            .iter()
            .filter(|n| !self.ignore.contains(*n))
            .cloned()
            .collect::<Vec<_>>()
        {
            let file = directory.join(&name);
            let Some(text) = name.to_str() else {
                self.tally.not_comparable += 1;
                continue;
            };
            let child = format!("{path}/{text}");
            let Ok(meta) = fs::symlink_metadata(&file) else {
                self.differ(&child, "source vanished");
                continue;
            };
            match published.remove(text) {
                None => self.differ(&child, "missing in the repository"),
                Some(entry) => {
                    self.entry(&file, &child, &meta, &entry);
                    if meta.is_dir() && entry.is_directory() {
                        self.directory(&file, &child);
                    }
                }
            }
        }
        for name in published.into_keys() {
            if self.ignore.contains(OsString::from(&name).as_os_str()) {
                continue;
            }
            self.differ(&format!("{path}/{name}"), "only in the repository");
        }
    }

    fn entry(&mut self, file: &Path, path: &str, meta: &Metadata, entry: &DirectoryEntry) {
        if meta.mode() & 0o177_777 != u32::from(entry.mode) & 0o177_777 {
            self.differ(
                path,
                &format!("mode {:o}, published {:o}", meta.mode(), entry.mode),
            );
            return;
        }
        for (what, ours, theirs) in [
            ("uid", i64::from(meta.uid()), i64::from(entry.uid)),
            ("gid", i64::from(meta.gid()), i64::from(entry.gid)),
            ("mtime", meta.mtime(), entry.mtime),
        ] {
            if ours != theirs {
                self.differ(path, &format!("{what} {ours}, published {theirs}"));
            }
        }
        self.xattrs(file, path, entry);
        if meta.is_dir() {
            self.tally.directories += 1;
        } else if meta.is_symlink() {
            self.tally.links += 1;
            let target = fs::read_link(file).unwrap_or_default();
            if entry.symlink.as_deref().map(str::as_bytes) != Some(target.as_os_str().as_bytes()) {
                self.differ(
                    path,
                    &format!("links to {target:?}, published {:?}", entry.symlink),
                );
            }
        } else if meta.is_file() {
            self.tally.files += 1;
            self.tally.bytes += meta.len();
            self.content(file, path, meta, entry);
        } else {
            self.tally.specials += 1;
        }
    }

    fn xattrs(&mut self, file: &Path, path: &str, entry: &DirectoryEntry) {
        let ours: BTreeMap<Vec<u8>, Vec<u8>> = read_xattrs(file)
            .into_iter()
            .filter(|(name, _)| name != b"security.selinux")
            .collect();
        match parse_xattrs(entry.xattr.as_deref().unwrap_or_default()) {
            Some(theirs) if theirs == ours => {}
            Some(theirs) => self.differ(path, &format!("xattrs {ours:?}, published {theirs:?}")),
            None => self.differ(path, "published xattrs are malformed"),
        }
    }

    fn content(&mut self, file: &Path, path: &str, meta: &Metadata, entry: &DirectoryEntry) {
        if meta.len() as i64 != entry.size {
            return self.differ(
                path,
                &format!("size {}, published {}", meta.len(), entry.size),
            );
        }
        match self.pieces(path) {
            Ok(pieces) => self
                .contents
                .push((file.to_owned(), path.to_owned(), pieces)),
            Err(what) => self.differ(path, &what),
        }
    }

    /// The objects that make up a file.
    fn pieces(&self, path: &str) -> Result<Pieces, String> {
        let entry = self
            .repository
            .lookup_with_chunks(path)
            .map_err(|e| e.to_string())?;
        let name = |hash: &str, letter| {
            compose_object_path(hash, letter)
                .to_string_lossy()
                .into_owned()
        };
        if entry.has_chunks() {
            return Ok(entry
                .chunks
                .iter()
                .map(|c| name(&c.content_hash_string(), "P"))
                .collect());
        }
        let hash = entry.content_hash_string().ok_or("has no content hash")?;
        Ok(vec![name(&hash, "")])
    }

    /// Compares all contents, several at a time: the crate makes a new HTTP client for each object.
    /// Each reader has a cache of its own, for the crate's is not made for two.
    fn contents(&mut self, url: &str, cache: &Path) {
        let contents = std::mem::take(&mut self.contents);
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let cache = cache.join(reader.to_string());
                let (contents, next, found) = (&contents, &next, &found);
                scope.spawn(move || {
                    fs::create_dir_all(&cache).expect("a cache directory");
                    let fetcher =
                        Fetcher::new(url, &cache.to_string_lossy(), true).expect("a fetcher");
                    while let Some((file, path, pieces)) =
                        contents.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(what) = compare_content(&fetcher, file, pieces) {
                            found.lock().unwrap().push((path, what));
                        }
                    }
                });
            }
        });
        for (path, what) in found.into_inner().unwrap() {
            self.differ(path, &what);
        }
    }
}

/// Compares a file piece by piece. (The crate's own reader of chunked files races with its prefetch.)
fn compare_content(fetcher: &Fetcher, file: &Path, pieces: &Pieces) -> Result<(), String> {
    let mut source = File::open(file).map_err(|e| format!("source: {e}"))?;
    for object in pieces {
        let cached = fetcher
            .retrieve_file(object)
            .map_err(|e| format!("{object} cannot be read: {e}"))?;
        let published = fs::read(&cached).map_err(|e| format!("{cached}: {e}"))?;
        let mut ours = vec![0; published.len()];
        source
            .read_exact(&mut ours)
            .map_err(|_| "goes on beyond the end".to_owned())?;
        if ours != published {
            return Err(format!("content of {object}"));
        }
    }
    match source.read(&mut [0]) {
        Ok(0) => Ok(()),
        _ => Err("content ends early".to_owned()),
    }
}

/// Version 1, count, then key length, value length, key, value.
fn parse_xattrs(blob: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut out = BTreeMap::new();
    let Some((head, mut rest)) = blob.split_at_checked(2) else {
        return blob.is_empty().then_some(out);
    };
    for _ in 0..head[1] {
        let (lengths, tail) = rest.split_at_checked(2)?;
        let (key, tail) = tail.split_at_checked(lengths[0].into())?;
        let (value, tail) = tail.split_at_checked(lengths[1].into())?;
        out.insert(key.to_vec(), value.to_vec());
        rest = tail;
    }
    (head[0] == 1 && rest.is_empty()).then_some(out)
}

unsafe extern "C" {
    fn llistxattr(path: *const std::ffi::c_char, list: *mut std::ffi::c_char, size: usize)
    -> isize;
    fn lgetxattr(
        path: *const std::ffi::c_char,
        name: *const std::ffi::c_char,
        value: *mut std::ffi::c_void,
        size: usize,
    ) -> isize;
}

fn read_xattrs(file: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut out = BTreeMap::new();
    let Ok(path) = CString::new(PathBuf::from(file).as_os_str().as_bytes()) else {
        return out;
    };
    let mut list = vec![0u8; 1 << 16];
    // SAFETY: `path` is NUL-terminated and `list` holds as many bytes as are announced.
    let n = unsafe { llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    for name in list[..usize::try_from(n).unwrap_or(0)]
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
    {
        let Ok(c_name) = CString::new(name) else {
            continue;
        };
        let mut value = vec![0u8; 1 << 16];
        // SAFETY: both strings are NUL-terminated, `value` holds as many bytes as are announced.
        let n = unsafe {
            lgetxattr(
                path.as_ptr(),
                c_name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        if let Ok(n) = usize::try_from(n) {
            out.insert(name.to_vec(), value[..n].to_vec());
        }
    }
    out
}

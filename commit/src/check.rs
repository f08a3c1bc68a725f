//! Is a repository healthy? Every rule that CVMFS's own `cvmfs_swissknife check` has, by number,
//! and on request the hash of every stored object.
//!
//! ```text
//!  1 -  7   manifest, whitelist, meta info, reflog, tags, alternative names     roots.rs
//!  8 - 20   each catalog: object, schema, place, rows, nested ones, counters    catalog.rs
//! 21 - 31   each row                                                            entry.rs
//!      32   (data) the stored bytes of an object hash to its name               stored.rs
//! ```
//! Source of the rules: CVMFS `swissknife_check.cc` (`Main`, `InspectTree`, `Find`) and, for 32,
//! `swissknife_scrub.cc`. Nothing here repairs or writes anything but the catalog cache.

mod catalog;
mod entry;
mod roots;
mod stored;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use formats::{Hash, RepoPath};
use serde::Serialize;
use store::{ObjectStore, Repository, chain};

/// Findings that are kept with their text; the rest is counted. One broken catalog of half a
/// million rows must not fill the memory.
pub const MAX_FINDINGS_KEPT: usize = 1_000;

/// What to check beyond the catalogs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Hash the stored bytes of every object in the storage.
    pub data: bool,
}

/// How far a check has come.
pub trait Watch {
    /// Called after each catalog, and now and then while objects are hashed.
    fn checked(&self, catalogs: u64, rows: u64, objects: u64);
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's number (see the module's head).
    pub rule: u8,
    /// Which path, object or file.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The published revision.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: Option<Hash>,
    /// Catalogs inspected.
    pub catalogs: u64,
    /// Rows inspected.
    pub rows: u64,
    /// Objects whose existence, or with `data` whose bytes, were checked.
    pub objects: u64,
    /// Stored bytes that were hashed.
    pub bytes_hashed: u64,
    /// What is wrong; at most [`MAX_FINDINGS_KEPT`].
    pub findings: Vec<Finding>,
    /// How much is wrong, those not kept included.
    pub problems: u64,
}

impl Report {
    /// True if nothing is wrong.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.problems == 0
    }

    fn find(&mut self, rule: u8, subject: impl ToString, problem: impl ToString) {
        self.problems += 1;
        if self.findings.len() < MAX_FINDINGS_KEPT {
            let (subject, problem) = (subject.to_string(), problem.to_string());
            self.findings.push(Finding {
                rule,
                subject,
                problem,
            });
        }
    }
}

/// What is checked, and with what.
pub struct Subject<'a> {
    /// Verifies signatures and reads catalogs.
    pub repository: &'a Arc<Repository>,
    /// The local record of the reflog's hash, where there is one (`reflog.chksum`).
    pub reflog_checksum: Option<Hash>,
    /// A directory for temporary databases.
    pub scratch: &'a Path,
    /// Today, for the whitelist.
    pub now: SystemTime,
}

impl Subject<'_> {
    fn store(&self) -> &dyn ObjectStore {
        self.repository.store().as_ref()
    }
}

/// Checks the published revision; with `data`, every stored object too.
///
/// What is wrong with the repository is in the report, never an error.
pub fn check(subject: &Subject<'_>, options: Options, watch: &dyn Watch) -> Report {
    let mut report = Report::default();
    if let Some(manifest) = roots::check(subject, &mut report) {
        report.revision = manifest.revision;
        report.root_hash = Some(manifest.root_catalog);
        let mut walk = catalog::Walk {
            subject,
            report: &mut report,
            watch,
        };
        walk.tree(&manifest.root_catalog, manifest.catalog_bytes);
    }
    if options.data {
        stored::check(subject, &mut report, watch);
    }
    report
}

/// A path as people write it.
fn place(path: &RepoPath) -> String {
    if path.is_root() {
        "/".to_owned()
    } else {
        path.to_string()
    }
}

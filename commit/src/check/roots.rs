//! Rules 1 to 7: what stands above the catalogs.

use std::fs;

use formats::history::History;
use formats::manifest::Manifest;
use formats::reflog::{RefKind, Reflog};
use formats::{Hash, ObjectKind, ObjectName};
use store::StoreError;

use super::{Report, Subject, chain};

/// The largest tag database or meta information that is read, stored and unpacked. The largest
/// known tag databases have some megabytes.
const MAX_ROOT_OBJECT_BYTES: u64 = 1 << 30;

/// Checks them; the manifest comes back unless it cannot be trusted at all.
pub(super) fn check(subject: &Subject<'_>, report: &mut Report) -> Option<Manifest> {
    let manifest = match subject.repository.head(subject.now) {
        Ok(head) => head.manifest.manifest,
        Err(error) => {
            report.find(1, ".cvmfspublished", chain(&error));
            // an expired whitelist, say, is no reason to leave the catalogs unchecked
            subject.repository.unverified_head().ok()?.manifest.manifest
        }
    };
    if let Some(hash) = manifest.meta_info {
        let name = ObjectName::new(hash, ObjectKind::MetaInfo);
        if let Err(problem) = unpack(subject, &name) {
            report.find(2, name, problem);
        }
    }
    reflog(subject, &manifest, report);
    if let Some(hash) = manifest.history {
        tags(subject, &manifest, &hash, report);
    }
    if manifest.alt_paths {
        alternative_names(subject, &manifest, report);
    }
    Some(manifest)
}

/// An object of the manifest's, verified and decompressed.
fn unpack(subject: &Subject<'_>, name: &ObjectName) -> Result<Vec<u8>, String> {
    subject
        .repository
        .small_object(name, MAX_ROOT_OBJECT_BYTES)
        .map_err(|e| chain(&e))
}

/// Rules 3, 4, 5.
fn reflog(subject: &Subject<'_>, manifest: &Manifest, report: &mut Report) {
    const FILE: &str = ".cvmfsreflog";
    let bytes = match subject.store().read_root(FILE) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => {
            if subject.reflog_checksum.is_some() {
                report.find(5, FILE, "is missing, though its checksum is on record");
            }
            return;
        }
        Err(error) => return report.find(3, FILE, chain(&error)),
    };
    match subject.reflog_checksum.or(manifest.reflog) {
        None => report.find(3, FILE, "has no checksum on record"),
        Some(expected) => {
            let actual = Hash::of(expected.algorithm(), &bytes);
            if actual != expected {
                report.find(
                    3,
                    FILE,
                    format!("hashes to {actual}, on record is {expected}"),
                );
            }
        }
    }
    let file = subject.scratch.join("check-reflog");
    if let Err(error) = fs::write(&file, &bytes) {
        return report.find(3, FILE, format!("{}: {error}", file.display()));
    }
    let outcome = reflog_entries(&file, manifest, report);
    let _ = fs::remove_file(&file);
    if let Err(error) = outcome {
        report.find(3, FILE, chain(&error));
    }
}

fn reflog_entries(
    file: &std::path::Path,
    manifest: &Manifest,
    report: &mut Report,
) -> Result<(), formats::reflog::ReflogError> {
    let reflog = Reflog::open(file)?;
    for (kind, hash) in [
        (RefKind::Catalog, Some(manifest.root_catalog)),
        (RefKind::Certificate, manifest.certificate),
        (RefKind::History, manifest.history),
        (RefKind::MetaInfo, manifest.meta_info),
    ] {
        let Some(hash) = hash else { continue };
        if reflog.find(kind, &hash)?.is_none() {
            let name = ObjectName::new(hash, kind.object_kind());
            report.find(4, name, "is published but not in the reflog");
        }
    }
    Ok(())
}

/// Rule 6.
fn tags(subject: &Subject<'_>, manifest: &Manifest, hash: &Hash, report: &mut Report) {
    let name = ObjectName::new(*hash, ObjectKind::History);
    let file = subject.scratch.join("check-history");
    let outcome = unpack(subject, &name)
        .and_then(|bytes| fs::write(&file, bytes).map_err(|e| e.to_string()))
        .and_then(|()| tag_rows(&file, &manifest.name, report).map_err(|e| chain(&e)));
    let _ = fs::remove_file(&file);
    if let Err(problem) = outcome {
        report.find(6, name, problem);
    }
}

fn tag_rows(
    file: &std::path::Path,
    repository: &str,
    report: &mut Report,
) -> Result<(), formats::history::HistoryError> {
    let history = History::open(file)?;
    history.verify()?;
    if history.fqrn() != repository {
        report.find(6, "tags", format!("belong to {:?}", history.fqrn()));
    }
    let branches = history.branches()?;
    let tags = history.tags()?;
    for tag in &tags {
        let subject = format!("tag {}", tag.name);
        match branches.iter().find(|branch| branch.name == tag.branch) {
            None => report.find(
                6,
                subject,
                format!("is on the unknown branch {:?}", tag.branch),
            ),
            Some(branch) if tag.revision < branch.initial_revision => {
                let since = branch.initial_revision;
                let problem = format!(
                    "has revision {}, its branch begins at {since}",
                    tag.revision
                );
                report.find(6, subject, problem);
            }
            Some(_) => {}
        }
    }
    for branch in branches.iter().filter(|branch| !branch.name.is_empty()) {
        if !tags.iter().any(|tag| tag.branch == branch.name) {
            report.find(6, format!("branch {:?}", branch.name), "has no tag");
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.@/".contains(&b);
        if !branch.name.bytes().all(fits) {
            report.find(
                6,
                format!("branch {:?}", branch.name),
                "has a malformed name",
            );
        }
    }
    Ok(())
}

/// Rule 7.
fn alternative_names(subject: &Subject<'_>, manifest: &Manifest, report: &mut Report) {
    let certificate = manifest
        .certificate
        .map(|h| ObjectName::new(h, ObjectKind::Certificate));
    let root = ObjectName::new(manifest.root_catalog, ObjectKind::Catalog);
    for name in certificate.into_iter().chain([root]) {
        let file = format!(".cvmfsalt-{name}");
        let present: Result<_, StoreError> = subject.store().read_root(&file);
        if let Err(error) = present {
            report.find(7, file, chain(&error));
        }
    }
}

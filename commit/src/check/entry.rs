//! Rules 21 to 31: each row by itself, as its columns stand.

use std::collections::BTreeSet;

use formats::ObjectName;
use formats::catalog::{Catalog, CatalogError, RawChunk, RawRow};

use super::catalog::objects_of;
use super::{Report, chain};

const TYPE_MASK: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const FIFO: u32 = 0o010_000;
const SOCKET: u32 = 0o140_000;
const CHUNKED: u32 = 0x40;
const EXTERNAL: u32 = 0x80;
const DIRECT_IO: u32 = 0x1_0000;

/// Judges every row of a catalog; returns the objects that must exist, each once.
pub(super) fn rows(
    catalog: &Catalog,
    subject: &str,
    report: &mut Report,
) -> Result<BTreeSet<ObjectName>, CatalogError> {
    let mut objects = BTreeSet::new();
    catalog.for_each_raw_row(&mut |raw| {
        let name = String::from_utf8_lossy(&raw.name).into_owned();
        let place = format!("{name:?} in {subject}");
        columns(&raw, &place, report);
        let chunks = if raw.is_chunked() {
            catalog.raw_chunks(&raw.path)?
        } else {
            Vec::new()
        };
        if raw.is_chunked() {
            tiling(&raw, &chunks, &place, report);
        }
        match raw.interpret(&chunks) {
            Ok(row) => objects.extend(objects_of(&row)),
            Err(problem) => report.find(8, place, chain(&problem)),
        }
        Ok(())
    })?;
    Ok(objects)
}

fn columns(raw: &RawRow, place: &str, report: &mut Report) {
    let file_type = raw.mode & TYPE_MASK;
    let (group, linkcount) = (raw.hardlinks >> 32, raw.hardlinks & 0xffff_ffff);
    let mut wrong = |rule, problem: &str| report.find(rule, place, problem);
    if linkcount == 0 {
        wrong(23, "has link count 0");
    }
    if file_type == DIRECTORY {
        if group != 0 {
            wrong(26, "is a directory in a link group");
        }
        if raw.hash.is_some() {
            wrong(22, "is a directory with a content hash");
        }
    } else if linkcount > 1 && group == 0 {
        wrong(24, "has a link count above 1 and no link group");
    }
    if file_type == REGULAR {
        if !raw.is_chunked() && raw.hash.is_none_or(|digest| digest.iter().all(|b| *b == 0)) {
            wrong(21, "is a regular file without a content hash");
        }
    } else {
        if raw.flags & DIRECT_IO != 0 {
            wrong(25, "has the direct I/O flag and is no regular file");
        }
        if raw.flags & EXTERNAL != 0 {
            wrong(30, "has the external flag and is no regular file");
        }
        if raw.flags & CHUNKED != 0 {
            wrong(31, "has the chunked flag and is no regular file");
        }
    }
    if file_type == SYMLINK && raw.hash.is_some() {
        wrong(28, "is a symbolic link with a content hash");
    }
    if ![DIRECTORY, REGULAR, SYMLINK].contains(&file_type) {
        if raw.hash.is_some() {
            wrong(29, "is a special file with a content hash");
        }
        if !raw.symlink.is_empty() {
            wrong(29, "is a special file with a link target");
        }
        if [FIFO, SOCKET].contains(&file_type) && raw.size != 0 {
            wrong(29, "is a fifo or socket with a size");
        }
    }
}

/// Rule 31: the chunks tile the file.
fn tiling(raw: &RawRow, chunks: &[RawChunk], place: &str, report: &mut Report) {
    if chunks.is_empty() {
        return report.find(31, place, "is chunked, without a chunk");
    }
    let mut end = 0_i64;
    for chunk in chunks {
        if chunk.offset != end {
            let problem = format!(
                "a chunk begins at {}, the one before ends at {end}",
                chunk.offset
            );
            return report.find(31, place, problem);
        }
        end = end.saturating_add(chunk.size);
    }
    if end != raw.size {
        report.find(
            31,
            place,
            format!("its chunks have {end} bytes, the file {}", raw.size),
        );
    }
}

//! How requests are answered.
//!
//! Every failure becomes an errno here, once.

use std::time::Duration;

use fuser::{Errno, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr};

use super::words::file_attr;
use crate::error::FsError;
use crate::types::{Attr, Ino};

/// How long the kernel may remember names and attributes. Whatever changes behind its back is told
/// to it, so this only bounds what a forgotten notice could do.
pub(super) const TTL: Duration = Duration::from_secs(24 * 3600);

/// The same for the mount point's own directory, which changes when a repository comes or goes.
const ROOT_TTL: Duration = Duration::from_secs(1);

/// Inode numbers are never reused while the kernel knows them.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn ttl(of: Ino) -> &'static Duration {
    if of == Ino::ROOT { &ROOT_TTL } else { &TTL }
}

/// The errno of a failed operation; what is our fault or the machine's is logged.
pub(super) fn errno(operation: &'static str, error: &FsError) -> Errno {
    if error.is_fault() {
        let source = std::error::Error::source(error);
        let reason = source.map(ToString::to_string).unwrap_or_default();
        tracing::warn!(operation, %error, reason, "a request failed");
    }
    Errno::from_i32(error.to_errno())
}

/// Answers a request with nothing to say.
pub(super) fn answer(operation: &'static str, result: Result<(), FsError>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(operation, &error)),
    }
}

/// Answers with an inode that was found or made.
pub(super) fn answer_entry(
    operation: &'static str,
    result: Result<Attr, FsError>,
    reply: ReplyEntry,
) {
    match result {
        Ok(attr) => reply.entry(&TTL, &file_attr(&attr), GENERATION),
        Err(error) => reply.error(errno(operation, &error)),
    }
}

pub(super) fn answer_attr(
    operation: &'static str,
    result: Result<Attr, FsError>,
    reply: ReplyAttr,
) {
    match result {
        Ok(attr) => reply.attr(ttl(attr.ino), &file_attr(&attr)),
        Err(error) => reply.error(errno(operation, &error)),
    }
}

/// Answers a request for an attribute or a list of them: its length, if no room is offered.
pub(super) fn answer_xattr(
    operation: &'static str,
    result: Result<Vec<u8>, FsError>,
    room: u32,
    reply: ReplyXattr,
) {
    match result {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(length) if room == 0 => reply.size(length),
            Ok(length) if length <= room => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(errno(operation, &error)),
    }
}

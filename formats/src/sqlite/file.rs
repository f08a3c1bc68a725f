//! A database as a file: its name for SQLite, its header, its length.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::sqlite::error::io_error;
use crate::sqlite::{DatabaseError, Result};

/// How long a file is.
pub(crate) fn file_bytes(file: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(file).map_err(|source| io_error(file, source))?;
    Ok(metadata.len())
}

/// A path that SQLite cannot take for a URI or an option.
pub(super) fn rooted(file: &Path) -> PathBuf {
    if file.is_absolute() {
        file.to_path_buf()
    } else {
        Path::new(".").join(file)
    }
}

pub(super) fn percent_encode(file: &Path) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for &byte in file.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    out
}

/// Looks at the 100 bytes every SQLite file begins with, so that the common damage has a name.
pub(super) fn check_header(file: &Path) -> Result<()> {
    let mut header = [0; 100];
    let mut input = std::fs::File::open(file).map_err(|source| io_error(file, source))?;
    let found = input
        .metadata()
        .map_err(|source| io_error(file, source))?
        .len();
    match input.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(DatabaseError::NotADatabase {
                file: file.to_path_buf(),
            });
        }
        Err(source) => return Err(io_error(file, source)),
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(DatabaseError::NotADatabase {
            file: file.to_path_buf(),
        });
    }
    let word = |at: usize| {
        u64::from(u32::from_be_bytes([
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ]))
    };
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        n => u64::from(n),
    };
    // the page count is valid only if the change counter says so
    let expected = if word(24) == word(92) {
        word(28) * page_bytes
    } else {
        0
    };
    if found < expected {
        return Err(DatabaseError::Truncated {
            file: file.to_path_buf(),
            expected,
            found,
        });
    }
    Ok(())
}

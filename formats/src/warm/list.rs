//! Lists of objects, and which of a list are absent.
//!
//! ```text
//! list      "PPL1", count (4 bytes, little endian), so many records (29 bytes each)
//! missing   "PPM1", length of the session's token (1 byte), token, 1 if the room is known or 0,
//!           room in bytes (8, little endian), count (4), a bit for each name, the first in the lowest
//!           bit, 1: absent; the last byte's other bits are 0
//! ```
//! Names are in the list's order where it was sent, and in that of [`Listed::key`], each once, where it is
//! asked again without it.
//!
//! A list is read as it comes: a million names take no memory here.

use std::io::{self, Read, Write};

use super::NAMES_MAX;
use super::record::RECORD_BYTES;
pub use super::record::{Listed, RecordError, may_travel};

/// The media type of a list.
pub const LIST_TYPE: &str = "application/x-prepub-objects";
/// The media type of [`Missing`].
pub const MISSING_TYPE: &str = "application/x-prepub-missing";

const LIST_MAGIC: &[u8; 4] = b"PPL1";
const MISSING_MAGIC: &[u8; 4] = b"PPM1";

/// Longest token of a session, in bytes.
pub const SESSION_MAX: usize = 64;

/// The largest [`Missing`] there is, in bytes.
pub const MISSING_BYTES_MAX: usize = 4 + 1 + SESSION_MAX + 9 + 4 + NAMES_MAX.div_ceil(8) as usize;

/// Why bytes are no list, or no answer to one.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// They begin otherwise.
    #[error("this is no {0}")]
    NotOne(&'static str),
    /// More names than a transaction may have.
    #[error("{0} objects in one list; at most {NAMES_MAX} go into one")]
    TooMany(u64),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It ends before it is over, or goes on after.
    #[error("a list or an answer that is cut short, or goes on after its end")]
    Length,
    /// A token that cannot be sent as a header.
    #[error("a session's token of other than 1 to {SESSION_MAX} visible characters")]
    Session,
    /// Bits that stand for nothing are set.
    #[error("bits after the last name's are set")]
    Padding,
    /// Reading or writing.
    #[error("a list of objects cannot be passed on")]
    Io(#[source] io::Error),
}

impl ListError {
    fn reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Length,
            _ => Self::Io(error),
        }
    }
}

/// How many bytes a list of so many objects takes.
#[must_use]
pub fn list_bytes(objects: u32) -> u64 {
    4 + 4 + u64::from(objects) * RECORD_BYTES as u64
}

/// Writes a list.
///
/// # Errors
/// [`ListError::TooMany`], [`ListError::Record`], and those of `out`.
pub fn write_list(
    out: &mut impl Write,
    objects: impl ExactSizeIterator<Item = Listed>,
) -> Result<(), ListError> {
    let count = objects.len();
    let few = u32::try_from(count).ok().filter(|n| *n <= NAMES_MAX);
    let few = few.ok_or(ListError::TooMany(count as u64))?;
    out.write_all(LIST_MAGIC).map_err(ListError::Io)?;
    out.write_all(&few.to_le_bytes()).map_err(ListError::Io)?;
    for listed in objects {
        out.write_all(&listed.encode()?).map_err(ListError::Io)?;
    }
    Ok(())
}

/// A list that is being read; yields its objects, and an error at the end if it is not the end.
#[derive(Debug)]
pub struct ListReader<R> {
    input: R,
    left: u32,
    len: u32,
    over: bool,
}

impl<R: Read> ListReader<R> {
    /// Reads the head of a list. Wrap `input` in a buffer: records are read one by one.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn new(mut input: R) -> Result<Self, ListError> {
        let mut head = [0; 8];
        input.read_exact(&mut head).map_err(ListError::reading)?;
        if !head.starts_with(LIST_MAGIC) {
            return Err(ListError::NotOne("list of objects"));
        }
        let len = little_endian(&head[4..]);
        if len > NAMES_MAX {
            return Err(ListError::TooMany(len.into()));
        }
        Ok(Self {
            input,
            left: len,
            len,
            over: false,
        })
    }

    /// How many objects it says it has; no more than [`NAMES_MAX`].
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn read_one(&mut self) -> Result<Option<Listed>, ListError> {
        if self.left == 0 {
            let more = self.input.read(&mut [0]).map_err(ListError::Io)?;
            return match more {
                0 => Ok(None),
                _ => Err(ListError::Length),
            };
        }
        self.left -= 1;
        let mut record = [0; RECORD_BYTES];
        let read = self.input.read_exact(&mut record);
        read.map_err(ListError::reading)?;
        Ok(Some(Listed::decode(&record)?))
    }
}

impl<R: Read> Iterator for ListReader<R> {
    type Item = Result<Listed, ListError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.read_one().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// One bit for each name of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    len: u32,
    bytes: Vec<u8>,
}

impl Bits {
    /// None set, of `len`, which is at most [`NAMES_MAX`].
    #[must_use]
    pub fn none_of(len: u32) -> Self {
        Self {
            len,
            bytes: vec![0; len.div_ceil(8) as usize],
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets the `at`th.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn set(&mut self, at: u32) {
        assert!(at < self.len, "bit {at} of {}", self.len);
        self.bytes[at as usize / 8] |= 1 << (at % 8);
    }

    /// Clears the `at`th.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn clear(&mut self, at: u32) {
        assert!(at < self.len, "bit {at} of {}", self.len);
        self.bytes[at as usize / 8] &= !(1 << (at % 8));
    }

    /// True if the `at`th is there and set.
    #[must_use]
    pub fn get(&self, at: u32) -> bool {
        at < self.len && self.bytes[at as usize / 8] & (1 << (at % 8)) != 0
    }

    /// How many are set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.bytes.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Which are set, ascending.
    pub fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len).filter(|at| self.get(*at))
    }
}

/// The answer to a list, or to who asks again: which of its objects are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What proves, with the bundles that follow, that they belong to this answer.
    pub session: String,
    /// How many more bytes fit, where that is known.
    pub room: Option<u64>,
    /// For each name.
    pub absent: Bits,
}

impl Missing {
    /// Its bytes.
    ///
    /// # Errors
    /// [`ListError::Session`].
    pub fn render(&self) -> Result<Vec<u8>, ListError> {
        if !is_session(self.session.as_bytes()) {
            return Err(ListError::Session);
        }
        let mut out = Vec::with_capacity(82 + self.absent.bytes.len());
        out.extend_from_slice(MISSING_MAGIC);
        out.push(self.session.len() as u8);
        out.extend_from_slice(self.session.as_bytes());
        out.push(self.room.is_some().into());
        out.extend_from_slice(&self.room.unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&self.absent.len.to_le_bytes());
        out.extend_from_slice(&self.absent.bytes);
        Ok(out)
    }

    /// What the bytes say.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ListError> {
        let rest = bytes.strip_prefix(MISSING_MAGIC);
        let rest = rest.ok_or(ListError::NotOne("answer to a list of objects"))?;
        let (length, rest) = rest.split_first().ok_or(ListError::Length)?;
        let session = rest.split_at_checked(usize::from(*length));
        let (session, rest) = session.ok_or(ListError::Length)?;
        if !is_session(session) {
            return Err(ListError::Session);
        }
        let (known, rest) = rest.split_first().ok_or(ListError::Length)?;
        let (room, rest) = rest.split_first_chunk::<8>().ok_or(ListError::Length)?;
        let (len, bits) = rest.split_first_chunk::<4>().ok_or(ListError::Length)?;
        let (room, len) = (u64::from_le_bytes(*room), u32::from_le_bytes(*len));
        let room = match (*known, room) {
            (0, 0) => None,
            (1, room) => Some(room),
            _ => return Err(ListError::Padding),
        };
        if len > NAMES_MAX {
            return Err(ListError::TooMany(len.into()));
        }
        if bits.len() != len.div_ceil(8) as usize {
            return Err(ListError::Length);
        }
        if !len.is_multiple_of(8) && bits.last().is_some_and(|last| last >> (len % 8) != 0) {
            return Err(ListError::Padding);
        }
        Ok(Self {
            session: String::from_utf8_lossy(session).into_owned(),
            room,
            absent: Bits {
                len,
                bytes: bits.to_vec(),
            },
        })
    }
}

/// A token goes into a header.
fn is_session(token: &[u8]) -> bool {
    (1..=SESSION_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic)
}

fn little_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Algorithm, Hash};
    use crate::object::{ObjectKind, ObjectName};

    fn listed(n: u64, kind: ObjectKind, algorithm: Algorithm) -> Listed {
        Listed {
            name: ObjectName::new(Hash::of(algorithm, &n.to_le_bytes()), kind),
            bytes: n << 20,
        }
    }

    fn some() -> Vec<Listed> {
        use Algorithm::{Rmd160, Sha1, Shake128};
        [Sha1, Rmd160, Shake128]
            .into_iter()
            .zip(1..)
            .flat_map(|(algorithm, n)| {
                [ObjectKind::Data, ObjectKind::Chunk].map(|kind| listed(n, kind, algorithm))
            })
            .collect()
    }

    fn written(objects: &[Listed]) -> Vec<u8> {
        let mut out = Vec::new();
        write_list(&mut out, objects.iter().copied()).unwrap();
        out
    }

    #[test]
    fn a_list_there_and_back() {
        for objects in [vec![], some()] {
            let bytes = written(&objects);
            assert_eq!(bytes.len() as u64, list_bytes(objects.len() as u32));
            let reader = ListReader::new(bytes.as_slice()).unwrap();
            assert_eq!(reader.len() as usize, objects.len());
            let read: Vec<_> = reader.map(Result::unwrap).collect();
            assert_eq!(read, objects);
        }
    }

    #[test]
    fn a_list_that_is_not_whole_says_so() {
        let whole = written(&some());
        for cut in 0..whole.len() {
            let read =
                ListReader::new(&whole[..cut]).and_then(|list| list.collect::<Result<Vec<_>, _>>());
            assert!(matches!(read, Err(ListError::Length)), "{cut}: {read:?}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        let mut list = ListReader::new(longer.as_slice()).unwrap();
        assert!(matches!(list.by_ref().last(), Some(Err(ListError::Length))));
        assert!(list.next().is_none());
    }

    #[test]
    fn what_is_no_file_s_object_is_in_no_list() {
        let catalog = listed(1, ObjectKind::Catalog, Algorithm::Sha1);
        let error = write_list(&mut Vec::new(), [catalog].into_iter()).unwrap_err();
        assert!(error.to_string().contains("never sent ahead"), "{error}");
        assert!(!may_travel(&catalog.name));
        let mut bytes = written(&some());
        for tag in [0x02, 0x30, 0xff] {
            bytes[8] = tag;
            let read = ListReader::new(bytes.as_slice()).unwrap().next();
            let expected = RecordError::BadTag(tag);
            assert!(matches!(read, Some(Err(ListError::Record(e))) if e == expected));
        }
        bytes[4..8].copy_from_slice(&(NAMES_MAX + 1).to_le_bytes());
        let read = ListReader::new(bytes.as_slice());
        assert!(matches!(read, Err(ListError::TooMany(_))));
    }

    #[test]
    fn an_answer_there_and_back() {
        for len in [0, 1, 7, 8, 9, 100_000] {
            let mut absent = Bits::none_of(len);
            (0..len).step_by(3).for_each(|at| absent.set(at));
            assert_eq!(absent.count(), len.div_ceil(3));
            assert!(absent.ones().eq((0..len).step_by(3)));
            for room in [None, Some(0), Some(u64::MAX)] {
                let missing = Missing {
                    session: "a-token".into(),
                    room,
                    absent: absent.clone(),
                };
                let bytes = missing.render().unwrap();
                assert!(bytes.len() <= MISSING_BYTES_MAX);
                assert_eq!(Missing::parse(&bytes).unwrap(), missing);
                assert!(Missing::parse(&bytes[..bytes.len() - 1]).is_err());
            }
        }
    }

    #[test]
    fn an_answer_has_one_form() {
        let missing = Missing {
            session: "s".into(),
            room: None,
            absent: Bits::none_of(3),
        };
        let mut bytes = missing.render().unwrap();
        *bytes.last_mut().unwrap() = 0b1000;
        assert!(matches!(Missing::parse(&bytes), Err(ListError::Padding)));
        for session in ["", "two words", &"x".repeat(SESSION_MAX + 1)] {
            let missing = Missing {
                session: session.into(),
                ..missing.clone()
            };
            assert!(matches!(missing.render(), Err(ListError::Session)));
        }
    }
}

//! Objects on the way, one after another in one stream.
//!
//! ```text
//! "PPB1", for each object a record (29 bytes: its name, its size) and its stored bytes,
//! then 0xff and the number of objects (4 bytes, little endian)
//! ```
//! The end is marked, so that a stream which was cut between two objects is known from a whole one.
//! Neither side holds more than a piece of an object. That the bytes hash to the name is for the
//! reader's caller to find out.

use std::io::{self, Read};

use crate::object::ObjectName;

use super::NAMES_MAX;
use super::record::{Listed, RECORD_BYTES, RecordError};

/// The media type of a bundle.
pub const BUNDLE_TYPE: &str = "application/x-prepub-bundle";

const MAGIC: &[u8; 4] = b"PPB1";
const END: u8 = 0xff;
const END_BYTES: usize = 5;

/// Why bytes are no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// They begin otherwise.
    #[error("this is no bundle of objects")]
    NotOne,
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It ends before it is over.
    #[error("a bundle that is cut short")]
    Cut,
    /// It goes on after its end, or has other than so many objects.
    #[error("a bundle that does not end where it says it does")]
    End,
    /// Reading.
    #[error("a bundle of objects cannot be read")]
    Io(#[source] io::Error),
}

impl BundleError {
    fn reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(error),
        }
    }
}

/// How many bytes a bundle of objects of these sizes takes.
#[must_use]
pub fn bundle_bytes(objects: impl IntoIterator<Item = Listed>) -> u64 {
    let fixed = (MAGIC.len() + END_BYTES) as u64;
    objects
        .into_iter()
        .map(|listed| RECORD_BYTES as u64 + listed.bytes)
        .fold(fixed, u64::saturating_add)
}

/// A bundle as a stream to read from: objects are opened one by one, as it comes to them.
pub struct Encoder<O> {
    objects: std::vec::IntoIter<Listed>,
    open: O,
    count: u32,
    state: State,
}

enum State {
    /// Bytes of ours, from an offset on; then what is next.
    Own([u8; RECORD_BYTES], usize, usize, Next),
    /// An object's, and how many are still to come.
    Object(Box<dyn Read + Send>, ObjectName, u64),
    Over,
}

#[derive(Clone, Copy)]
enum Next {
    Record,
    Object(Listed),
    Nothing,
}

impl<O> std::fmt::Debug for Encoder<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("objects", &self.count)
            .field("left", &self.objects.len())
            .finish_non_exhaustive()
    }
}

impl<O> Encoder<O>
where
    O: FnMut(&ObjectName) -> io::Result<Box<dyn Read + Send>>,
{
    /// A bundle of these, whose bytes `open` opens.
    ///
    /// # Errors
    /// [`RecordError`] for what cannot travel.
    pub fn new(objects: Vec<Listed>, open: O) -> Result<Self, RecordError> {
        for listed in &objects {
            listed.encode()?;
        }
        let mut own = [0; RECORD_BYTES];
        own[..MAGIC.len()].copy_from_slice(MAGIC);
        Ok(Self {
            count: objects.len() as u32,
            objects: objects.into_iter(),
            open,
            state: State::Own(own, 0, MAGIC.len(), Next::Record),
        })
    }

    fn step(&mut self, next: Next) -> io::Result<State> {
        Ok(match next {
            Next::Record => match self.objects.next() {
                Some(listed) => {
                    let record = listed.encode().map_err(io::Error::other)?;
                    State::Own(record, 0, RECORD_BYTES, Next::Object(listed))
                }
                None => {
                    let mut own = [0; RECORD_BYTES];
                    own[0] = END;
                    own[1..END_BYTES].copy_from_slice(&self.count.to_le_bytes());
                    State::Own(own, 0, END_BYTES, Next::Nothing)
                }
            },
            Next::Object(listed) => {
                State::Object((self.open)(&listed.name)?, listed.name, listed.bytes)
            }
            Next::Nothing => State::Over,
        })
    }

    /// Bytes of a record or of an object; none where it is over.
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.state {
                State::Own(own, at, end, next) => {
                    let rest = &own[*at..*end];
                    if rest.is_empty() {
                        let next = *next;
                        self.state = self.step(next)?;
                        continue;
                    }
                    let taken = buffer.len().min(rest.len());
                    buffer[..taken].copy_from_slice(&rest[..taken]);
                    *at += taken;
                    return Ok(taken);
                }
                State::Object(_, _, 0) => self.state = self.step(Next::Record)?,
                State::Object(object, name, left) => {
                    let most = buffer
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let read = object.read(&mut buffer[..most])?;
                    if read == 0 {
                        let lacking = format!("object {name} lacks {left} bytes of its size");
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, lacking));
                    }
                    *left -= read as u64;
                    return Ok(read);
                }
                State::Over => return Ok(0),
            }
        }
    }
}

impl<O> Read for Encoder<O>
where
    O: FnMut(&ObjectName) -> io::Result<Box<dyn Read + Send>>,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // as much as fits: small objects would otherwise go over the network by twos
        let mut filled = 0;
        while filled < buffer.len() {
            match self.some(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                // the next call hears of it again
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A bundle that is being read.
#[derive(Debug)]
pub struct BundleReader<R> {
    input: R,
    /// Bytes of the object at hand that were not read.
    left: u64,
    count: u32,
    over: bool,
}

impl<R: Read> BundleReader<R> {
    /// Reads the head of a bundle.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn new(mut input: R) -> Result<Self, BundleError> {
        let mut magic = [0; 4];
        input.read_exact(&mut magic).map_err(BundleError::reading)?;
        if &magic != MAGIC {
            return Err(BundleError::NotOne);
        }
        Ok(Self {
            input,
            left: 0,
            count: 0,
            over: false,
        })
    }

    /// The next object; its bytes are read from [`BundleReader::content`], and what is not read of
    /// them is passed over. None at the end of a whole bundle; after an error there is only the same.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn next_object(&mut self) -> Result<Option<Listed>, BundleError> {
        if self.over {
            return Ok(None);
        }
        let rest = self.left;
        let skipped = io::copy(&mut self.content(), &mut io::sink()).map_err(BundleError::Io)?;
        if skipped < rest {
            return Err(BundleError::Cut);
        }
        let mut record = [0; RECORD_BYTES];
        self.fill(&mut record[..1])?;
        if record[0] == END {
            return self.end().map(|()| None);
        }
        self.fill(&mut record[1..])?;
        let listed = Listed::decode(&record)?;
        if self.count == NAMES_MAX {
            return Err(BundleError::End);
        }
        self.count += 1;
        self.left = listed.bytes;
        Ok(Some(listed))
    }

    /// The bytes of the object that came last. They may be fewer than its size says: then the bundle
    /// was cut, as [`BundleReader::next_object`] will say.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn end(&mut self) -> Result<(), BundleError> {
        let mut count = [0; 4];
        self.fill(&mut count)?;
        let more = self.input.read(&mut [0]).map_err(BundleError::Io)?;
        if u32::from_le_bytes(count) != self.count || more != 0 {
            return Err(BundleError::End);
        }
        self.over = true;
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BundleError> {
        self.input.read_exact(buffer).map_err(BundleError::reading)
    }
}

/// The rest of an object in a bundle.
#[derive(Debug)]
pub struct Content<'a, R>(&'a mut BundleReader<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.left).unwrap_or(usize::MAX);
        let most = buffer.len().min(most);
        let read = self.0.input.read(&mut buffer[..most])?;
        self.0.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Algorithm, Hash};
    use crate::object::ObjectKind;

    fn object(bytes: &[u8]) -> Listed {
        Listed {
            name: ObjectName::new(Hash::of(Algorithm::Sha1, bytes), ObjectKind::Data),
            bytes: bytes.len() as u64,
        }
    }

    fn contents() -> Vec<Vec<u8>> {
        vec![b"one".to_vec(), Vec::new(), vec![7; 100_000]]
    }

    fn encoded(contents: &[Vec<u8>]) -> Vec<u8> {
        let listed: Vec<Listed> = contents.iter().map(|c| object(c)).collect();
        let length = bundle_bytes(listed.iter().copied());
        let open = |name: &ObjectName| {
            let content = contents.iter().find(|c| object(c).name == *name);
            let content: &[u8] = content.ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(io::Cursor::new(content.to_vec())) as Box<dyn Read + Send>)
        };
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(listed, open).unwrap();
        encoder.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<(Listed, Vec<u8>)>, BundleError> {
        let mut reader = BundleReader::new(bytes)?;
        let mut objects = Vec::new();
        while let Some(listed) = reader.next_object()? {
            let mut content = Vec::new();
            reader.content().read_to_end(&mut content).unwrap();
            objects.push((listed, content));
        }
        assert!(reader.next_object()?.is_none());
        Ok(objects)
    }

    #[test]
    fn a_bundle_there_and_back() {
        for contents in [vec![], contents()] {
            let objects = decoded(&encoded(&contents)).unwrap();
            let expected: Vec<_> = contents.into_iter().map(|c| (object(&c), c)).collect();
            assert_eq!(objects, expected);
        }
    }

    #[test]
    fn what_is_not_read_is_passed_over() {
        let bytes = encoded(&contents());
        let mut reader = BundleReader::new(bytes.as_slice()).unwrap();
        let mut seen = 0;
        while let Some(listed) = reader.next_object().unwrap() {
            let mut piece = [0; 2];
            let _ = reader.content().read(&mut piece).unwrap();
            assert_eq!(listed, object(&contents()[seen]));
            seen += 1;
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn a_cut_is_seen_wherever_it_is() {
        let bytes = encoded(&[b"one".to_vec(), b"two".to_vec()]);
        for cut in 0..bytes.len() {
            let read = decoded(&bytes[..cut]);
            assert!(matches!(read, Err(BundleError::Cut)), "{cut}: {read:?}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(decoded(&longer), Err(BundleError::End)));
        let mut fewer = bytes;
        let count = fewer.len() - 4;
        fewer[count] -= 1;
        assert!(matches!(decoded(&fewer), Err(BundleError::End)));
    }

    #[test]
    fn an_object_that_is_too_short_stops_the_stream() {
        let short = Listed {
            bytes: 4,
            ..object(b"one")
        };
        let open = |_: &ObjectName| Ok(Box::new(&b"one"[..]) as Box<dyn Read + Send>);
        let mut encoder = Encoder::new(vec![short], open).unwrap();
        let error = encoder.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

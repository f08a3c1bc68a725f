//! An object on its way into a storage directory.
//!
//! Up to [`BUFFER_BYTES`] stay in memory: most objects are small, and one that is there already
//! then never touches the disk. It must not give bytes a name before all of them are written.

use std::io::{self, Write};
use std::sync::Arc;

use formats::ObjectName;

use super::{Inner, Temp};
use crate::error::{Result, StoreError};
use crate::object_store::{Pending, Stored};

/// Held back in memory per object: large enough for most files of a software tree, small enough
/// for hundreds of objects at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// See the module.
pub(super) struct DirPending {
    home: Arc<Inner>,
    buffer: Vec<u8>,
    temp: Option<Temp>,
}

impl DirPending {
    pub(super) fn new(home: Arc<Inner>) -> Self {
        Self {
            home,
            buffer: Vec::new(),
            temp: None,
        }
    }

    /// Empties the buffer into the file, making it first where there is none.
    fn fill(&mut self) -> io::Result<&mut Temp> {
        let temp = match self.temp.take() {
            Some(temp) => temp,
            None => self.home.temp()?,
        };
        let temp = self.temp.insert(temp);
        temp.file_mut().write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(temp)
    }
}

impl Write for DirPending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            let temp = self.fill()?;
            if bytes.len() >= BUFFER_BYTES {
                return temp.file_mut().write(bytes);
            }
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: bytes without a name need not be anywhere.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pending for DirPending {
    fn spill(&mut self) -> io::Result<()> {
        self.fill()?;
        // many wait for their names at one time
        self.buffer = Vec::new();
        Ok(())
    }

    fn keep(self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        (*self).finish(name, false)
    }

    fn keep_whole(self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        (*self).finish(name, true)
    }
}

impl DirPending {
    fn finish(mut self, name: &ObjectName, sync: bool) -> Result<Stored> {
        if self.home.stored_size(name)?.is_some() {
            return Ok(Stored::Present);
        }
        let mut temp = match self.temp.take() {
            Some(temp) => temp,
            None => self.home.temp()?,
        };
        temp.file_mut()
            .write_all(&self.buffer)
            .map_err(|e| StoreError::io("write", self.home.object_path(name), e))?;
        self.home.publish(temp, name, sync)
    }
}

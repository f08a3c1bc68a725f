//! Files that a snapshot needs sealed: they are waited for, and a writer who comes first leaves the
//! snapshot a copy.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Weak};

use super::Stage;
use super::sealing::empty_pin;
use crate::error::Result;
use crate::seal::{CancelToken, Generation, SealError, SealJob, SealParams, Sealed, Source};
use crate::sync::{Instant, Mutex};
use crate::tree::{SealFault, SealedData};
use crate::types::Ino;

/// What a snapshot waits for.
pub(super) struct Pin {
    pub(super) ino: Ino,
    /// Of the bytes that the snapshot has; later ones are not its.
    generation: u32,
    pub(super) size: u64,
    pub(super) outcome: Option<Result<SealedData, SealFault>>,
    copy: Option<u64>,
    cancel: CancelToken,
}

/// By the number of the backing file.
#[derive(Default)]
pub(crate) struct Pins(pub(super) Mutex<PinTable>);

/// Pins, and how many of them are still waited for.
#[derive(Default)]
pub(super) struct PinTable {
    pub(super) all: HashMap<u64, Pin>,
    files: u64,
    bytes: u64,
}

impl Pins {
    pub(super) fn add(&self, number: u64, (ino, generation): (Ino, u32), size: u64) {
        let pin = Pin {
            ino,
            generation,
            size,
            outcome: None,
            copy: None,
            cancel: CancelToken::new(),
        };
        let mut pins = self.0.lock();
        if pins.all.insert(number, pin).is_none() {
            pins.files += 1;
            pins.bytes += size;
        }
    }

    /// How sealing a backing file ended, of the bytes of this generation.
    pub(super) fn settle(
        &self,
        number: u64,
        generation: u32,
        outcome: impl FnOnce() -> Result<SealedData, SealFault>,
    ) {
        let pins = &mut *self.0.lock();
        if let Some(pin) = pins.all.get_mut(&number)
            && pin.outcome.is_none()
            && pin.generation == generation
        {
            pin.outcome = Some(outcome());
            pins.files -= 1;
            pins.bytes -= pin.size;
        }
    }

    /// True if a snapshot still needs this backing file.
    pub(crate) fn needs(&self, number: u64) -> bool {
        let pins = self.0.lock();
        let pin = pins.all.get(&number);
        pin.is_some_and(|pin| pin.outcome.is_none())
    }

    /// How many are still waited for, and their bytes.
    pub(super) fn left(&self) -> (u64, u64) {
        let pins = self.0.lock();
        (pins.files, pins.bytes)
    }
}

impl Stage {
    /// Before the file is changed: a snapshot that still needs it gets a copy. `number` is its
    /// backing file, if it has one.
    pub(crate) fn give_snapshot_a_copy(&self, ino: Ino, number: Option<u64>) -> Result<()> {
        self.copy_pinned(number.unwrap_or_else(|| empty_pin(ino)))
    }

    fn copy_pinned(&self, number: u64) -> Result<()> {
        let (of, size, cancel) = match self.pins.0.lock().all.get(&number) {
            Some(pin) if pin.outcome.is_none() && pin.copy.is_none() => {
                ((number, pin.generation), pin.size, pin.cancel.clone())
            }
            _ => return Ok(()),
        };
        let from = match File::open(self.backing.path(number)) {
            Ok(from) => from,
            // never written to: the snapshot has an empty file
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                File::open(self.backing.path(0)).map_err(|error| self.backing.failed(0, error))?
            }
            Err(error) => return Err(self.backing.failed(number, error)),
        };
        let (copy, _) = self.backing.copy(&from, u64::MAX)?;
        {
            let mut pins = self.pins.0.lock();
            match pins.all.get_mut(&number) {
                Some(pin) if pin.outcome.is_none() => pin.copy = Some(copy),
                _ => {
                    drop(pins);
                    self.backing.remove(copy);
                    return Ok(());
                }
            }
        }
        tracing::debug!(
            number,
            "a snapshot got its own copy of a file being written"
        );
        self.submit_copy(of, copy, size, cancel);
        Ok(())
    }

    fn submit_copy(&self, of: (u64, u32), copy: u64, size: u64, cancel: CancelToken) {
        let params = self.params_now();
        let how = Arc::clone(&params.seal);
        let stage = self.this.clone();
        self.feed.count_copies(1);
        self.feed.sealer().submit(SealJob {
            id: self.feed.next_job(),
            source: Source::Path(self.backing.path(copy)),
            size_hint: size,
            params: params.seal,
            objects: Arc::clone(&self.objects),
            cancel,
            generation: Generation::default(),
            not_before: Instant::now(),
            urgent: true,
            known: Arc::clone(&self.known) as Arc<dyn crate::seal::Known>,
            done: Box::new(move |result| {
                copy_done(&stage, of, copy, result, &how);
            }),
        });
    }

    /// Lets go of what a snapshot waited for.
    pub(super) fn unpin_all(&self) {
        let pins = std::mem::take(&mut *self.pins.0.lock()).all;
        for pin in pins.values().filter(|pin| pin.outcome.is_none()) {
            pin.cancel.cancel();
        }
        if !pins.is_empty() {
            let mut tree = self.tree.write();
            let orphans = pins.values().map(|pin| pin.ino).collect();
            self.reap(&mut tree, crate::tree::Staged { orphans });
        }
    }
}

fn copy_done(
    stage: &Weak<Stage>,
    (number, generation): (u64, u32),
    copy: u64,
    result: Result<Sealed, SealError>,
    params: &SealParams,
) {
    let Some(stage) = stage.upgrade() else {
        return;
    };
    stage.backing.remove(copy);
    // its snapshot may be gone, having got the original in time: a later one needs later bytes
    stage.pins.settle(number, generation, || {
        let data = result.map(|sealed| stage.seals.data(&sealed, params));
        data.map_err(|error| super::sealing::fault(&error))
    });
    stage.feed.count_copies(-1);
}

//! Sealed content that is being read out of the stage's own objects.
//!
//! Objects are read when they are needed, not when a file is opened. The file may be published or
//! sealed anew meanwhile, and no record refers to the objects any longer: they stay for as long as
//! somebody can read them.
//!
//! No reader slips through between a look at what is needed and the removal of the rest: content is
//! opened under the lock of the tree that refers to its objects, and [`super::Stage::sweep_objects`]
//! looks at the tree and at the readers under that same lock. Who opened before is a reader then; who
//! opens after finds a record, and nothing gets a record meanwhile for objects that neither a record
//! nor a reader had: nothing is being sealed.

use std::sync::{Arc, Weak};

use formats::{ObjectName, Regular};
use store::ContentFile;

use super::Stage;
use crate::error::Result;
use crate::sync::Mutex;
use crate::tree::Tree;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Readers(Mutex<Vec<Weak<ContentFile>>>);

impl Readers {
    fn add(&self, content: &Arc<ContentFile>) {
        let mut all = self.0.lock();
        if all.len() == all.capacity() {
            all.retain(|content| content.strong_count() > 0);
            // so that the next look at all of them is far off
            let more = all.len().max(16);
            all.reserve(more);
        }
        all.push(Arc::downgrade(content));
    }

    /// The objects that may still be read.
    pub(super) fn objects(&self) -> Vec<ObjectName> {
        let all = self.0.lock();
        let living = all.iter().filter_map(Weak::upgrade);
        living
            .flat_map(|content| content.objects().collect::<Vec<_>>())
            .collect()
    }
}

impl Stage {
    /// The content of a sealed file, which `tree` refers to: its objects are the stage's own, or
    /// published where equal bytes had been published before.
    pub(crate) fn open_sealed(&self, _tree: &Tree, regular: &Regular) -> Result<Arc<ContentFile>> {
        let mut objects = regular.content.objects();
        let own = objects.all(|object| matches!(self.objects.has(&object), Ok(true)));
        if !own {
            return Ok(self.content.open(regular)?);
        }
        let content = self.content.open_from(&self.objects, regular)?;
        self.readers.add(&content);
        Ok(content)
    }
}

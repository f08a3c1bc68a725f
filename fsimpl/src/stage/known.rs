//! Contents sealed before, by the hash of their raw bytes: equal bytes are not compressed twice.

use std::collections::{HashMap, HashSet, VecDeque};

use formats::{Content, ObjectName};

use crate::seal::{Known, RawHash};
use crate::sync::Mutex;

/// Contents remembered; about 200 bytes each.
const MAX_CONTENTS: usize = 200_000;

#[derive(Default)]
struct Contents {
    by_hash: HashMap<RawHash, Remembered>,
    oldest: VecDeque<RawHash>,
    sizes: HashSet<u64>,
}

struct Remembered {
    content: Content,
    /// Its objects are in the published repository, and not only here.
    published: bool,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct KnownContent(Mutex<Contents>);

impl KnownContent {
    pub(crate) fn remember(&self, raw: &RawHash, size: u64, content: &Content) {
        let mut contents = self.0.lock();
        let remembered = Remembered {
            content: content.clone(),
            published: false,
        };
        contents.sizes.insert(size);
        if contents.by_hash.insert(*raw, remembered).is_none() {
            contents.oldest.push_back(*raw);
            if contents.oldest.len() > MAX_CONTENTS
                && let Some(old) = contents.oldest.pop_front()
            {
                contents.by_hash.remove(&old);
            }
        }
    }

    /// These objects are published now.
    pub(crate) fn published(&self, objects: &HashSet<ObjectName>) {
        for remembered in self.0.lock().by_hash.values_mut() {
            remembered.published |= remembered.content.objects().all(|o| objects.contains(&o));
        }
    }

    /// Forgets what needs an object that is gone.
    pub(crate) fn forget(&self, gone: &HashSet<ObjectName>) {
        let mut contents = self.0.lock();
        contents.by_hash.retain(|_, remembered| {
            remembered.published || !remembered.content.objects().any(|o| gone.contains(&o))
        });
        let Contents {
            by_hash, oldest, ..
        } = &mut *contents;
        oldest.retain(|raw| by_hash.contains_key(raw));
    }

    /// Forgets what needs one of these objects, published or not: they turned out to be missing.
    pub(crate) fn distrust(&self, missing: &HashSet<ObjectName>) {
        let mut contents = self.0.lock();
        contents
            .by_hash
            .retain(|_, remembered| !remembered.content.objects().any(|o| missing.contains(&o)));
        let Contents {
            by_hash, oldest, ..
        } = &mut *contents;
        oldest.retain(|raw| by_hash.contains_key(raw));
    }
}

impl Known for KnownContent {
    fn lookup(&self, raw: &RawHash) -> Option<Content> {
        let contents = self.0.lock();
        contents.by_hash.get(raw).map(|r| r.content.clone())
    }

    fn may_know_size(&self, size: u64) -> bool {
        self.0.lock().sizes.contains(&size)
    }
}

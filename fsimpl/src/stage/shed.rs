//! Giving room back: raw bytes of sealed files are dropped, and are then read from the objects.
//!
//! ```text
//! objects there?  ->  synced  ->  recorded: "in objects only"  ->  journal synced  ->  files removed
//! ```
//!
//! After a crash or a power loss at any arrow a file has its raw bytes, its objects, or both; a raw
//! file that no record names is removed at the next start. Only closed files go, first those that have
//! not changed for longest. One that is written again gets its bytes back from the objects, as a
//! published one does (`ops/write.rs`); the objects stay for as long as a power loss may need them
//! (`Former`).

use std::collections::BinaryHeap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use formats::Content;
use store::content::MEMORY_PIECE_BYTES_MAX;
use store::{Injected, failpoint};

use super::Stage;
use crate::error::Result;
use crate::journal::{Batch, inode_key};
use crate::space::Tenant;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Instant, Mutex};
use crate::tree::{Data, File, Node, Raw, SealedData, Tree};
use crate::types::Ino;

/// Files dropped at a time: each time costs two syncs, and the tree's lock for all their records.
const FILES_AT_ONCE: usize = 4096;

/// What is kept of a limit on raw bytes that was exceeded: so much less that dropping does not begin
/// again with the next file.
const KEPT_OF_LIMIT: (u64, u64) = (7, 8);

/// After a failure nothing is dropped for so long: on a full disk it would fail again at once.
const REST: Duration = Duration::from_secs(2);

/// What tells whether looking for more to drop is of any use: it takes a pass over all files.
#[derive(Default)]
pub(crate) struct Shedding {
    /// Counts files that may have become droppable.
    news: AtomicU64,
    /// How many those were when nothing was found.
    none_of: Mutex<Option<u64>>,
    /// After a failure it is not tried again before.
    rests_until: Mutex<Option<Instant>>,
}

impl Shedding {
    /// A file may be droppable now that was not.
    fn tell(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
    }

    fn is_of_use(&self) -> bool {
        let rests = self
            .rests_until
            .lock()
            .is_some_and(|until| Instant::now() < until);
        !rests && *self.none_of.lock() != Some(self.news.load(Ordering::SeqCst))
    }
}

/// A file that may be dropped, as it was when it was chosen.
struct Candidate {
    ino: Ino,
    number: u64,
    generation: u32,
    size: u64,
    content: Content,
    /// What its raw bytes take on disk.
    on_disk: u64,
}

impl Tenant for Stage {
    fn excess(&self) -> u64 {
        let raw = self.usage.raw();
        match self.backing_max_bytes() {
            Some(max) if raw > max => raw - max / KEPT_OF_LIMIT.1 * KEPT_OF_LIMIT.0,
            _ => 0,
        }
    }

    fn drop_raw(&self, wanted: u64) -> u64 {
        let mut given = 0;
        // whoever closes the stage waits for one turn at most
        while given < wanted && self.shedding.is_of_use() && !self.feed.is_stopped() {
            match self.drop_oldest(wanted - given) {
                Ok(0) => break,
                Ok(bytes) => given += bytes,
                Err(error) => {
                    *self.shedding.rests_until.lock() = Some(Instant::now() + REST);
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    let repository = &self.name;
                    tracing::warn!(%repository, %error, source, "cannot drop raw bytes");
                    break;
                }
            }
        }
        if given > 0 {
            tracing::info!(repository = %self.name, bytes = given, "dropped raw bytes of sealed files");
        }
        given
    }

    fn drop_caches(&self) {
        self.content.clear();
    }

    fn is_making_room(&self) -> bool {
        self.feed.is_working()
    }

    fn room_came(&self) {
        self.queue_what_found_no_room();
    }
}

impl Stage {
    /// Lets others ask for what this stage can give back.
    pub(super) fn offer_room(&self) {
        self.space.add_tenant(self.this.clone());
    }

    /// A file was closed that has raw bytes.
    pub(crate) fn raw_was_closed(&self) {
        self.shedding.tell();
    }

    /// Something can be given back: says so, if anybody wants it.
    pub(super) fn tell_droppable(&self) {
        self.shedding.tell();
        if self.space.is_low() || self.excess() > 0 {
            self.space.ring();
        }
    }

    /// Drops the raw bytes of some files, about `wanted`; says how many bytes came free, 0 if nothing
    /// is left to drop.
    fn drop_oldest(&self, wanted: u64) -> Result<u64> {
        let news = self.shedding.news.load(Ordering::SeqCst);
        let chosen = self.choose(wanted)?;
        if chosen.is_empty() {
            // of what came after the look began nothing is said
            *self.shedding.none_of.lock() = Some(news);
            return Ok(0);
        }
        let injected = |fault: Injected| self.objects_failed(fault);
        self.sync_sealed()?;
        failpoint::pass("fsimpl::drop_synced").map_err(injected)?;
        let dropped = self.record_dropped(chosen)?;
        failpoint::pass("fsimpl::drop_recorded").map_err(injected)?;
        let numbers: Vec<u64> = dropped.iter().map(|file| file.number).collect();
        let synced = self.journal.sync();
        failpoint::pass("fsimpl::drop_journalled").map_err(injected)?;
        // where the sync failed, they wait for the next one
        self.remove_backings(&numbers);
        synced?;
        Ok(dropped.iter().map(|file| file.on_disk).sum())
    }

    /// The oldest files that make up `wanted` bytes on disk.
    fn choose(&self, wanted: u64) -> Result<Vec<Candidate>> {
        loop {
            let oldest = self.oldest();
            let none_left = oldest.is_empty();
            let (mut chosen, mut unfit, mut bytes) = (Vec::new(), Vec::new(), 0);
            for mut candidate in oldest {
                if bytes >= wanted {
                    break;
                }
                let raw = self.backing.stat(candidate.number)?;
                candidate.on_disk = raw.map_or(0, |of| of.blocks() * 512);
                if candidate.on_disk > 0 && self.has_all(&candidate.content)? {
                    bytes += candidate.on_disk;
                    chosen.push(candidate);
                } else {
                    unfit.push((candidate.ino, candidate.generation));
                }
            }
            self.keep_raw(&unfit);
            if none_left || !chosen.is_empty() {
                return Ok(chosen);
            }
        }
    }

    /// Content that was known before may be published, and nowhere here.
    fn has_all(&self, content: &Content) -> Result<bool> {
        for object in content.objects() {
            if !self
                .objects
                .has(&object)
                .map_err(|e| self.objects_failed(e))?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn oldest(&self) -> Vec<Candidate> {
        let tree = self.tree.read();
        let mut oldest = BinaryHeap::new();
        for (ino, node) in &tree.nodes {
            if droppable(node).is_none() || self.open.is_open(*ino) {
                continue;
            }
            oldest.push((node.rec.stamp, *ino));
            if oldest.len() > FILES_AT_ONCE {
                oldest.pop();
            }
        }
        let oldest = oldest.into_sorted_vec();
        oldest
            .into_iter()
            .filter_map(|(_, ino)| candidate(&tree, ino))
            .collect()
    }

    /// These are not looked at again before they change.
    fn keep_raw(&self, files: &[(Ino, u32)]) {
        if files.is_empty() {
            return;
        }
        let mut tree = self.tree.write();
        for (ino, generation) in files {
            if let Some(node) = tree.nodes.get_mut(ino)
                && node.run.generation == *generation
            {
                node.run.keep_raw = true;
            }
        }
    }

    /// Records that files are in their objects only, as far as they are still what was chosen, and
    /// returns those.
    fn record_dropped(&self, chosen: Vec<Candidate>) -> Result<Vec<Candidate>> {
        let mut tree = self.tree.write();
        let (mut batch, mut undo) = (Batch::default(), Batch::default());
        let mut done = Vec::with_capacity(chosen.len());
        for file in chosen {
            // under the tree's lock nobody can open it
            if self.open.is_open(file.ino) {
                continue;
            }
            let Some(node) = tree.nodes.get_mut(&file.ino) else {
                continue;
            };
            let before = node.rec.clone();
            if self.let_go_of_raw(node, &file) {
                batch.put(inode_key(file.ino.0), &node.rec);
                undo.put(inode_key(file.ino.0), &before);
                done.push((file, before));
            }
        }
        if let Err(error) = self.journal.commit(batch) {
            for (file, before) in done {
                if let Some(node) = tree.nodes.get_mut(&file.ino) {
                    node.rec = before;
                }
            }
            self.journal.undo(undo);
            return Err(error.into());
        }
        let done = done.into_iter().map(|(file, _)| file);
        Ok(done.inspect(|file| self.usage.dropped(file.size)).collect())
    }

    /// A file has its bytes in objects only, if it is what was chosen, and those survive a power loss.
    fn let_go_of_raw(&self, node: &mut Node, chosen: &Candidate) -> bool {
        let is_as_chosen = node.run.generation == chosen.generation
            && droppable(node).is_some_and(|(file, sealed)| {
                file.data.backing() == Some(chosen.number)
                    && sealed.content == chosen.content
                    && self.seals.is_synced(sealed.at)
            });
        let Some(file) = node.rec.file_mut().filter(|_| is_as_chosen) else {
            return false;
        };
        if let Data::Staged { backing, .. } = &mut file.data {
            *backing = 0;
        }
        // as for any file without raw bytes; what it was before is of no more use
        file.raw = Raw::Unsynced;
        file.former = None;
        true
    }
}

/// A file and its objects, if its raw bytes may go.
fn droppable(node: &Node) -> Option<(&File, &SealedData)> {
    let file = node.rec.file()?;
    let Data::Staged {
        backing,
        sealed: Some(sealed),
    } = &file.data
    else {
        return None;
    };
    let wanted =
        node.names.is_empty() || node.run.keep_raw || *backing == 0 || file.raw.is_doubtful();
    // larger ones could not be read while the disk is full
    let fits = largest_piece(&sealed.content, file.size) <= MEMORY_PIECE_BYTES_MAX;
    (!wanted && fits).then_some((file, sealed))
}

fn largest_piece(content: &Content, size: u64) -> u64 {
    match content {
        Content::Whole(_) => size,
        Content::Chunks { chunks, .. } => chunks.iter().map(|c| c.size).max().unwrap_or(size),
    }
}

fn candidate(tree: &Tree, ino: Ino) -> Option<Candidate> {
    let node = tree.node(ino)?;
    let (file, sealed) = droppable(node)?;
    Some(Candidate {
        ino,
        number: file.data.backing()?,
        generation: node.run.generation,
        size: file.size,
        content: sealed.content.clone(),
        on_disk: 0,
    })
}

//! One push to one site, once: what it lacks is asked for, sent, and asked for again.
//!
//! ```text
//! announce -> absent -> bundles over several connections -> ask again -> nothing is absent
//! ```
//! Nothing is remembered between two attempts: the site says what it lacks, so one that was cut goes
//! on where it was. That the second answer is true can only be believed: a site that lies with it, too,
//! fetches what it lacks like any cold replica.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use formats::object::ObjectName;
use formats::warm::bundle::Encoder;
use formats::warm::{Listed, Missing};
use store::ObjectStore;

use super::client::{Client, Taken};
use super::control::{Control, Trouble};
use super::lanes::{Lanes, Pace};
use super::push::Push;

/// Bytes of objects that a bundle aims at: a second of 64 Mbit/s, so that little is sent twice after a
/// cut, and the wait for an answer is a small part of it.
pub const BUNDLE_BYTES: u64 = 8 << 20;

/// Objects in a bundle: their files are opened one after another at both ends.
pub const BUNDLE_OBJECTS: usize = 2048;

/// How often what a site lacks is sent within one attempt.
const ROUNDS_MAX: u32 = 3;

/// How often one object is sent again because it arrived damaged.
const SPOILED_MAX: u32 = 3;

/// Hears how far a transfer has come.
pub(super) trait Hear: Send + Sync {
    /// The site lacks this much of it.
    fn lacks(&self, objects: u64, bytes: u64);
    /// It has taken this much more.
    fn took(&self, objects: u64, bytes: u64);
}

/// See the module's head.
pub(super) struct Transfer<'a> {
    pub(super) push: &'a Push,
    pub(super) control: &'a dyn Control,
    pub(super) client: &'a Client,
    pub(super) lanes: &'a Lanes,
    pub(super) pace: &'a Arc<Pace>,
    pub(super) connections: usize,
    pub(super) hear: &'a dyn Hear,
    pub(super) stop: &'a Stop,
}

/// Says that a transfer need not go on: its push is over, or its site is none any more.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    pub(super) push: Arc<AtomicBool>,
    pub(super) site: Arc<AtomicBool>,
}

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.push.load(Ordering::Relaxed) || self.site.load(Ordering::Relaxed)
    }
}

/// What is still to be sent in a round.
struct Round {
    bundles: VecDeque<Vec<Listed>>,
    /// Bytes that nobody has taken yet.
    missing: u64,
    /// How often each arrived damaged.
    spoiled: HashMap<ObjectName, u32>,
    failed: Option<Trouble>,
}

impl Transfer<'_> {
    /// Returns when the site says that it has everything.
    pub(super) fn run(&self) -> Result<(), Trouble> {
        let list = self.push.list().map_err(|e| Trouble::Ours(e.to_string()))?;
        let mut missing = self.announce()?;
        self.told(&list, &missing);
        for _ in 0..ROUNDS_MAX {
            if missing.absent.count() == 0 {
                return Ok(());
            }
            // in the list's order, as they lie in both storages' directories and in the site's ledger
            let absent: Vec<Listed> = missing.absent.ones().map(|at| list[at as usize]).collect();
            let bytes = absent.iter().map(|listed| listed.bytes).sum();
            if missing.room.is_some_and(|room| room < bytes) {
                let room = missing.room.unwrap_or_default();
                return Err(Trouble::Full {
                    needed: bytes,
                    room,
                });
            }
            self.send(absent, bytes, &missing.session)?;
            missing = self.client.ask(self.push)?;
            self.told(&list, &missing);
        }
        match missing.absent.count() {
            0 => Ok(()),
            lied => Err(Trouble::Lies(lied)),
        }
    }

    /// Announces; where more may be absent than one bundle takes, the other connections come about
    /// meanwhile.
    fn announce(&self) -> Result<Missing, Trouble> {
        let is_large =
            self.push.objects as usize > BUNDLE_OBJECTS || self.push.bytes > BUNDLE_BYTES;
        let connections = if is_large { self.connections } else { 1 };
        std::thread::scope(|scope| {
            for _ in 1..connections {
                // whatever is wrong with the site, the announcement tells
                scope.spawn(|| drop(self.client.about()));
            }
            self.control.announce(self.push)
        })
    }

    fn told(&self, list: &[Listed], missing: &Missing) {
        let absent = missing.absent.ones().map(|at| list[at as usize].bytes);
        self.hear.lacks(missing.absent.count().into(), absent.sum());
    }

    /// Sends objects, each until it is taken.
    fn send(&self, absent: Vec<Listed>, bytes: u64, session: &str) -> Result<(), Trouble> {
        let round = Mutex::new(Round {
            bundles: bundles(absent, self.connections),
            missing: bytes,
            spoiled: HashMap::new(),
            failed: None,
        });
        let threads = self.connections.min(lock(&round).bundles.len()).max(1);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work(&round, session));
            }
            self.work(&round, session);
        });
        let round = round.into_inner().unwrap_or_else(PoisonError::into_inner);
        round.failed.map_or(Ok(()), Err)
    }

    fn work(&self, round: &Mutex<Round>, session: &str) {
        let is_over = || self.stop.is_set() || lock(round).failed.is_some();
        loop {
            let (bundle, missing) = {
                let mut round = lock(round);
                match round.bundles.pop_front() {
                    Some(bundle) if round.failed.is_none() => (bundle, round.missing),
                    _ => return,
                }
            };
            let sent = match self.lanes.enter(missing, &is_over) {
                Some(_lane) => self.send_one(&bundle, session),
                None => Err(Trouble::Over),
            };
            let mut round = lock(round);
            let taken = sent.and_then(|taken| self.account(&mut round, bundle, taken));
            if let Err(trouble) = taken {
                // what else is under way may still be taken
                round.failed.get_or_insert(trouble);
                return;
            }
        }
    }

    fn send_one(&self, bundle: &[Listed], session: &str) -> Result<Taken, Trouble> {
        let unreadable: Arc<Mutex<Option<String>>> = Arc::default();
        let source = Arc::clone(&self.push.source);
        let note = Arc::clone(&unreadable);
        let open = move |name: &ObjectName| {
            source.open(name).inspect_err(|error| {
                lock(&note).get_or_insert(error.to_string());
            })
        };
        let encoder = Encoder::new(bundle.to_vec(), open)
            .map_err(|error| Trouble::Ours(error.to_string()))?;
        if self.stop.is_set() {
            return Err(Trouble::Over);
        }
        let body = Stoppable {
            input: self.pace.limit(encoder),
            stop: self.stop.clone(),
        };
        let bytes = bundle.iter().map(|listed| listed.bytes).sum();
        let taken = self
            .client
            .bundle(self.push, session, bundle, body, self.pace.least(bytes));
        let unreadable = lock(&unreadable).take();
        match (taken, unreadable) {
            (Err(_), Some(error)) => Err(Trouble::Ours(error)),
            (Err(_), None) if self.stop.is_set() => Err(Trouble::Over),
            (taken, _) => taken,
        }
    }

    fn account(&self, round: &mut Round, bundle: Vec<Listed>, taken: Taken) -> Result<(), Trouble> {
        let mut again = Vec::new();
        for refusal in &taken.refused {
            let name = refusal.name.parse::<ObjectName>().ok();
            let listed = bundle.iter().find(|listed| Some(listed.name) == name);
            let listed = listed.ok_or(Trouble::Nonsense("an object that was not sent"))?;
            match refusal.code.as_str() {
                "corrupt" => {
                    let times = round.spoiled.entry(listed.name).or_default();
                    *times += 1;
                    if *times > SPOILED_MAX {
                        return Err(Trouble::Corrupts(taken.refused.len() as u32));
                    }
                    again.push(*listed);
                }
                "not_announced" => return Err(Trouble::Stale),
                "no_room" => {
                    return Err(Trouble::Full {
                        needed: round.missing,
                        room: 0,
                    });
                }
                _ => {
                    let what = format!("{} {}", refusal.code, refusal.error);
                    return Err(Trouble::Unreachable(what.chars().take(300).collect()));
                }
            }
        }
        let sum = |of: &[Listed]| of.iter().map(|listed| listed.bytes).sum::<u64>();
        let bytes = sum(&bundle) - sum(&again);
        round.missing = round.missing.saturating_sub(bytes);
        self.hear.took((bundle.len() - again.len()) as u64, bytes);
        if !again.is_empty() {
            round.bundles.push_back(again);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // every change is a single one, so what a panic leaves is whole
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Objects in bundles, in their order; a large one goes alone. The first of each connection are of
/// different lengths: of the same they would be through at one time, and all connections would wait
/// for their answers together while nothing is on its way.
pub(super) fn bundles(objects: Vec<Listed>, connections: usize) -> VecDeque<Vec<Listed>> {
    let mut bundles = VecDeque::new();
    let (mut bundle, mut bytes) = (Vec::new(), 0_u64);
    let connections = connections.max(1);
    for listed in objects {
        let part = match connections.saturating_sub(bundles.len()) {
            0 => connections,
            left => left,
        };
        let is_full = bundle.len() >= BUNDLE_OBJECTS * part / connections
            || bytes.saturating_add(listed.bytes) > BUNDLE_BYTES * part as u64 / connections as u64;
        if is_full && !bundle.is_empty() {
            bundles.push_back(std::mem::take(&mut bundle));
            bytes = 0;
        }
        bytes = bytes.saturating_add(listed.bytes);
        bundle.push(listed);
    }
    if !bundle.is_empty() {
        bundles.push_back(bundle);
    }
    bundles
}

/// A body that ends with an error when nobody wants it any more.
struct Stoppable<R> {
    input: R,
    stop: Stop,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_set() {
            return Err(io::Error::other("called off"));
        }
        self.input.read(buffer)
    }
}

/// Several places for objects, looked through in their order.
#[derive(Debug)]
pub(super) struct Sources(pub(super) Vec<Arc<dyn ObjectStore>>);

impl Sources {
    /// The object's bytes.
    pub(super) fn open(&self, name: &ObjectName) -> io::Result<Box<dyn Read + Send>> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for place in &self.0 {
            match place.open(name) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => last = io::Error::other(error),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use formats::hash::{Algorithm, Hash};
    use formats::object::ObjectKind;

    use super::*;

    fn listed(n: u64, bytes: u64) -> Listed {
        let hash = Hash::of(Algorithm::Sha1, &n.to_le_bytes());
        Listed {
            name: ObjectName::new(hash, ObjectKind::Data),
            bytes,
        }
    }

    #[test]
    fn bundles_are_neither_large_nor_many() {
        assert!(bundles(Vec::new(), 4).is_empty());
        let small: Vec<_> = (0..5000).map(|n| listed(n, 100)).collect();
        let sizes = |objects: &[Listed], connections| -> Vec<usize> {
            let bundles = bundles(objects.to_vec(), connections);
            bundles.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&small, 1), [2048, 2048, 904]);
        assert_eq!(sizes(&small, 2), [2048, 1024, 1928]);
        assert_eq!(sizes(&small, 8)[..3], [2048, 1792, 1160]);
        let order: Vec<_> = bundles(small.clone(), 2).into_iter().flatten().collect();
        assert_eq!(order, small);
        let mixed = [3 << 20, 4 << 20, 64 << 20, 0, 5 << 20, u64::MAX];
        let mixed: Vec<_> = (0..)
            .zip(mixed)
            .map(|(n, bytes)| listed(n, bytes))
            .collect();
        assert_eq!(sizes(&mixed, 1), [2, 1, 2, 1]);
    }
}

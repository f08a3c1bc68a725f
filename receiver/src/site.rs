//! One door for everything that publishers want, whatever way they are heard: the HTTPS listener
//! ([`crate::api`]), the publisher that we ask ([`crate::pull`]), a broker.
//!
//! Whoever calls has found out who speaks; here it is decided what they may do. All of it blocks.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use formats::Hash;
use formats::warm::list::Bits;
use formats::warm::{ListReader, Missing, is_transaction_name};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use store::ObjectStore;
use store::peer::Peer;

use crate::Clock;
use crate::age::Ages;
use crate::config::Config;
use crate::expiry;
use crate::ledger::{self, Key, Ledger, LedgerError, State, Transaction};
use crate::metrics::Metrics;
use crate::names::{List, Record, record};
use crate::refusal::Refusal;
use crate::replica::{Replica, ReplicaError};
use crate::snapshot::Snapshots;
use crate::trust::{Enrolled, Trust};
use crate::vault::{Outcome, Vault};

/// Threads that look for objects in a directory: the disk's queue wants some, a warm cache two.
const LOOKERS: usize = 4;
/// Read of a list at a time.
const LIST_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a session's token before it is written in hex: nobody guesses it.
const SESSION_BYTES: usize = 16;

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Nothing to take.
    #[error(
        "no replica is configured; name each in a [repository.\"NAME\"] section of receiver.toml"
    )]
    NoReplica,
    /// A replica.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// OpenSSL.
    #[error("no random numbers")]
    NoInstance,
}

/// A replica and what guards it.
#[derive(Debug)]
pub struct Repo {
    /// Where it lies.
    pub replica: Replica,
    /// What comes in.
    pub vault: Vault,
}

/// See the module.
pub struct Site {
    /// What it was configured with.
    pub config: Config,
    /// Figures.
    pub metrics: Metrics,
    /// The transactions.
    pub ledger: Ledger,
    /// Tells the time.
    pub clock: Clock,
    /// How long ago something was.
    pub ages: Ages,
    /// Held while what nobody needs is removed.
    sweeping: Mutex<()>,
    /// What tells this receiver from another one of the same enrolment.
    pub instance: String,
    /// What runs after a publication.
    pub snapshots: Snapshots,
    repos: BTreeMap<String, Arc<Repo>>,
    trust: RwLock<Arc<Trust>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.repos.keys()).finish()
    }
}

/// A publisher that is let in, with the transaction it speaks of.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Who.
    pub who: Arc<Enrolled>,
    /// Where to.
    pub repo: Arc<Repo>,
    /// Of what.
    pub key: Key,
}

/// That a revision is visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its root catalog.
    pub root_hash: Hash,
    /// Its number.
    #[serde(default)]
    pub revision: Option<u64>,
    /// When, in the publisher's words.
    #[serde(default)]
    pub published_at: serde_json::Value,
}

impl Site {
    /// Opens the replicas and the ledger.
    ///
    /// # Errors
    /// [`SiteError`].
    pub fn open(config: Config, clock: Clock) -> Result<Self, SiteError> {
        let mut repos = BTreeMap::new();
        for (name, said) in &config.repository {
            let replica = Replica::open(&config, name, said)?;
            let keep = config.keep.headroom.0;
            let vault = Vault::new(Arc::clone(&replica.store), keep);
            repos.insert(name.clone(), Arc::new(Repo { replica, vault }));
        }
        if repos.is_empty() {
            return Err(SiteError::NoReplica);
        }
        let ledger = Ledger::open(&config.state_dir)?;
        Ok(Self {
            ledger,
            metrics: Metrics::default(),
            snapshots: Snapshots::new(&config, repos.keys()),
            trust: RwLock::new(Arc::new(Trust::read(&config.enrolments))),
            repos,
            instance: instance(&config.state_dir)?,
            sweeping: Mutex::default(),
            ages: Ages::open(&config.state_dir, clock.clone()),
            clock,
            config,
        })
    }

    /// The replicas, by name.
    #[must_use]
    pub fn repos(&self) -> &BTreeMap<String, Arc<Repo>> {
        &self.repos
    }

    /// Whom it knows at the moment.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read())
    }

    /// Looks whether enrolments came or went; true if so.
    pub fn refresh_trust(&self) -> bool {
        let dir = &self.config.enrolments;
        if self.trust().is_current(dir) {
            return false;
        }
        let new = Trust::read(dir);
        for (file, problem) in &new.problems {
            tracing::warn!("enrolment {}: {problem}", file.display());
        }
        *self.trust.write() = Arc::new(new);
        true
    }

    /// Lets a publisher in that showed its certificate.
    ///
    /// # Errors
    /// [`Refusal::Stranger`], and those of [`Site::visit`].
    pub fn admit(&self, peer: &Peer, repo: &str, txn: &str) -> Result<Visit, Refusal> {
        self.visit(&self.who(peer)?, repo, txn)
    }

    /// Who that is.
    ///
    /// # Errors
    /// [`Refusal::Stranger`].
    pub fn who(&self, peer: &Peer) -> Result<Arc<Enrolled>, Refusal> {
        self.trust().admit(peer).cloned().ok_or(Refusal::Stranger)
    }

    /// Lets a publisher in that is known otherwise.
    ///
    /// # Errors
    /// [`Refusal::Repository`], [`Refusal::TransactionName`].
    pub fn visit(&self, who: &Arc<Enrolled>, repo: &str, txn: &str) -> Result<Visit, Refusal> {
        let found = self.repos.get(repo).filter(|_| who.may_send(repo));
        let found = found.ok_or_else(|| {
            // what is asked for may be anything
            Refusal::Repository(repo.chars().take(80).collect())
        })?;
        if !is_transaction_name(txn) {
            return Err(Refusal::TransactionName(txn.chars().take(80).collect()));
        }
        Ok(Visit {
            who: Arc::clone(who),
            repo: Arc::clone(found),
            key: Key {
                repo: repo.to_owned(),
                authority: who.authority.to_string(),
                txn: txn.to_owned(),
            },
        })
    }

    /// Opens a transaction, or opens it again, and says what is absent.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn announce(&self, visit: &Visit, list: impl Read) -> Result<Missing, Refusal> {
        let reader = ListReader::new(BufReader::with_capacity(LIST_BUFFER_BYTES, list))?;
        let mut records: Vec<Record> = Vec::with_capacity(reader.len() as usize);
        for listed in reader {
            records.push(record(&listed?));
        }
        let list = List::new(records);
        let now = self.clock.now();
        let publisher = visit.who.enrolment.publisher.as_str();
        let session = new_session()?;
        let txn = {
            // whoever removes objects must see what this one relies on
            let _stays = visit.repo.vault.gate.read();
            self.ledger
                .announce(&visit.key, &list, publisher, now, || session)?
        };
        let missing = missing(visit, &txn, &list)?;
        let absent = missing.absent.count();
        self.metrics.announcements.one();
        self.metrics.names.add(list.len().into());
        self.metrics.absent.add(absent.into());
        tracing::info!(
            repo = visit.key.repo,
            txn = visit.key.txn,
            publisher,
            "announced: {} objects, {absent} absent",
            list.len()
        );
        Ok(missing)
    }

    /// Says what is absent of an open transaction now, in the order of [`formats::warm::Listed::key`].
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn ask(&self, visit: &Visit) -> Result<Missing, Refusal> {
        let txn = self.transaction(visit)?;
        let names = txn.names()?.ok_or(Refusal::NoTransaction)?;
        let list = names.list().map_err(|e| Refusal::names(&e))?;
        let list = list.ok_or_else(|| {
            let all = names.len();
            Refusal::Malformed(format!("{all} objects are more than one answer has"))
        })?;
        let missing = missing(visit, &txn, &list)?;
        tracing::info!(
            repo = visit.key.repo,
            txn = visit.key.txn,
            "asked again: {} objects, {} absent",
            list.len(),
            missing.absent.count()
        );
        Ok(missing)
    }

    /// The one that a visit is about, if it is open.
    fn transaction(&self, visit: &Visit) -> Result<Arc<Transaction>, Refusal> {
        let txn = self.ledger.get(&visit.key);
        let open = txn.filter(|txn| txn.about().state == State::Open);
        open.ok_or(Refusal::NoTransaction)
    }

    /// Takes objects of an open transaction in.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn bundle(
        &self,
        visit: &Visit,
        session: &str,
        bundle: impl Read,
    ) -> Result<Outcome, Refusal> {
        let txn = self.transaction(visit)?;
        if !same_token(&txn.about().session, session) {
            return Err(Refusal::Session);
        }
        if visit.repo.vault.headroom.room()? == Some(0) {
            return Err(Refusal::NoRoom { room: 0 });
        }
        self.metrics.bundles.one();
        let mut before = Outcome::default();
        let result = visit.repo.vault.take(&txn, bundle, &mut |now| {
            self.metrics.objects.add(now.kept - before.kept);
            self.metrics.bytes.add(now.bytes - before.bytes);
            self.metrics.present.add(now.present - before.present);
            for refused in &now.refused[before.refused.len()..] {
                self.metrics.objects_refused.one(refused.code.word());
            }
            before = now.clone();
        });
        tracing::debug!(
            repo = visit.key.repo,
            txn = visit.key.txn,
            "a bundle: {} objects kept, {} bytes",
            before.kept,
            before.bytes
        );
        result
    }

    /// A revision is visible: what the transaction brought is the replica's, and a snapshot follows.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn published(&self, visit: &Visit, published: &Published) -> Result<(), Refusal> {
        if let Some(txn) = self.ledger.get(&visit.key) {
            let _stays = visit.repo.vault.gate.read();
            txn.published(self.clock.now())?;
        }
        self.metrics.published.one();
        tracing::info!(
            repo = visit.key.repo,
            txn = visit.key.txn,
            root = %published.root_hash,
            "published"
        );
        self.snapshots.wanted(&visit.key.repo);
        Ok(())
    }

    /// What the transaction brought may go.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn give_up(&self, visit: &Visit) -> Result<(), Refusal> {
        let Some(txn) = self.ledger.get(&visit.key) else {
            return Ok(());
        };
        let _stays = visit.repo.vault.gate.read();
        // one that was published needs nothing any more, and one that was given up is
        if txn.about().state == State::Open {
            txn.give_up(self.clock.now())?;
        }
        Ok(())
    }

    /// Removes what nobody needs any more, in every replica. When it returns nothing of that is left, but
    /// for what had to stay.
    pub fn sweep(&self) {
        let _one = self.sweeping.lock();
        expiry::look(self);
        for repo in self.repos.values() {
            expiry::sweep(self, repo);
        }
    }

    /// Where catalogs are unpacked while it is found out what they need.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.config.state_dir.join("work")
    }
}

/// The receiver that has a state, by a name that nobody else has: it is drawn once.
fn instance(state: &std::path::Path) -> Result<String, SiteError> {
    let path = state.join("instance");
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    if known.len() == 2 * SESSION_BYTES && known.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(known);
    }
    let new = new_session().map_err(|_| SiteError::NoInstance)?;
    ledger::replace(&path, new.as_bytes())?;
    Ok(new)
}

fn new_session() -> Result<String, Refusal> {
    let mut bytes = [0; SESSION_BYTES];
    openssl::rand::rand_bytes(&mut bytes)
        .map_err(|e| Refusal::Internal(format!("no random numbers: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Without telling by the time it takes how much is right.
fn same_token(a: &str, b: &str) -> bool {
    a.len() == b.len() && openssl::memcmp::eq(a.as_bytes(), b.as_bytes())
}

/// The answer to a list.
fn missing(visit: &Visit, txn: &Transaction, list: &List) -> Result<Missing, Refusal> {
    let vault = &visit.repo.vault;
    let absent = absent(vault.store().as_ref(), list)?;
    if absent.count() == 0 {
        // on this word a revision becomes visible, and nobody looks again
        vault.sync()?;
    }
    Ok(Missing {
        session: txn.about().session,
        room: vault.headroom.room()?,
        absent,
    })
}

/// Which objects of a list are not there, looked for in the storage's own order.
fn absent(store: &dyn ObjectStore, list: &List) -> Result<Bits, Refusal> {
    let threads = store.writers().unwrap_or(LOOKERS);
    let piece = list.order().len().div_ceil(threads.max(1)).max(1);
    let look = |part: &[u32]| -> store::Result<Vec<u32>> {
        let mut absent = Vec::new();
        for at in part {
            if let Some(listed) = list.at(*at)
                && !store.has(&listed.name)?
            {
                absent.push(*at);
            }
        }
        Ok(absent)
    };
    let found: Vec<store::Result<Vec<u32>>> = std::thread::scope(|scope| {
        let parts = list.order().chunks(piece);
        let running: Vec<_> = parts.map(|part| scope.spawn(move || look(part))).collect();
        let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut bits = Bits::none_of(list.len());
    for part in found {
        part?.into_iter().for_each(|at| bits.set(at));
    }
    Ok(bits)
}

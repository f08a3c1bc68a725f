//! What a publisher is refused, with a word that its program understands and a sentence for people.

use std::io;

use formats::warm::{BundleError, ListError};
use store::StoreError;
use store::failpoint::Injected;

use crate::ledger::LedgerError;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody whom an enrolment names, or one that acts as what it is not.
    #[error("no enrolment here lets you in; have `prepub site add` make one, or look at its date")]
    Stranger,
    /// The publisher may not send this repository, or there is none of this name.
    #[error("{0} is not taken from you here: name it in the enrolment and in receiver.toml")]
    Repository(String),
    /// The name of a transaction.
    #[error("{0:?} cannot name a transaction")]
    TransactionName(String),
    /// Nothing is known of it, or no more.
    #[error("no such transaction is open; announce it")]
    NoTransaction,
    /// Another session.
    #[error("the session is another one; announce the transaction again")]
    Session,
    /// A list.
    #[error("the list of objects")]
    List(#[from] ListError),
    /// A bundle.
    #[error("the bundle")]
    Bundle(#[from] BundleError),
    /// Anything else in the request.
    #[error("{0}")]
    Malformed(String),
    /// Nothing more fits.
    #[error("no room for more: {room} bytes may come")]
    NoRoom {
        /// How much would fit.
        room: u64,
    },
    /// Too much at once.
    #[error("as much is coming in as is taken at one time; come again")]
    Busy,
    /// The ledger.
    #[error("the receiver's ledger")]
    Ledger(#[from] LedgerError),
    /// The replica's storage.
    #[error("the replica's storage")]
    Storage(#[from] StoreError),
    /// A test.
    #[error(transparent)]
    Injected(#[from] Injected),
    /// This program.
    #[error("the receiver failed: {0}")]
    Internal(String),
}

/// Every word that [`Refusal::code`] has.
pub const CODES: [&str; 10] = [
    "stranger",
    "repository",
    "session",
    "malformed",
    "bundle",
    "no_transaction",
    "no_room",
    "too_long",
    "busy",
    "io",
];

impl Refusal {
    /// The names of a transaction cannot be read.
    pub(crate) fn names(error: &io::Error) -> Self {
        Self::Internal(format!("the ledger's list of names: {error}"))
    }

    /// The word, and the HTTP status.
    #[must_use]
    pub fn code(&self) -> (&'static str, u16) {
        match self {
            Self::Stranger => ("stranger", 403),
            Self::Repository(_) => ("repository", 403),
            Self::Session => ("session", 403),
            Self::TransactionName(_) | Self::List(_) | Self::Malformed(_) => ("malformed", 400),
            Self::Bundle(_) => ("bundle", 400),
            Self::NoTransaction => ("no_transaction", 404),
            Self::NoRoom { .. } => ("no_room", 507),
            Self::Ledger(LedgerError::TooLong) => ("too_long", 413),
            Self::Busy | Self::Ledger(LedgerError::TooMany) => ("busy", 503),
            Self::Storage(e) if is_full(e) => ("no_room", 507),
            Self::Ledger(_) | Self::Storage(_) | Self::Injected(_) | Self::Internal(_) => {
                ("io", 500)
            }
        }
    }
}

/// True for a disk or a quota that is full.
#[must_use]
pub fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSpace { .. } | StoreError::Quota { .. })
}

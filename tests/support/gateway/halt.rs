//! How a receiver ends that did not do what it was asked.

use std::fmt::Display;

use formats::CatalogError;

/// Why there was no commit, or none that anybody was told of.
#[derive(Debug)]
pub enum Halt {
    /// An assertion: the process is gone, and the gateway finds the pipe closed.
    Crash,
    /// It gave up with a message; the text of the official source.
    Panic(String),
    /// One of its own reasons: `miscellaneous`, `missing_reflog`.
    Refused(&'static str),
}

impl Halt {
    pub fn panic(text: impl Display) -> Self {
        Self::Panic(text.to_string())
    }

    /// What the gateway makes of it. `call` is what the worker was called for.
    pub fn reason(&self, call: &str) -> String {
        match self {
            Self::Crash => {
                format!("worker '{call}' call failed: possible that the receiver crashed: EOF")
            }
            // the official text names a line of its source in between
            Self::Panic(text) => format!("runtime error: PANIC: receiver\n{text}"),
            Self::Refused(reason) => (*reason).to_owned(),
        }
    }
}

impl From<CatalogError> for Halt {
    /// A catalog that cannot be what it is taken for.
    fn from(_: CatalogError) -> Self {
        Self::Crash
    }
}

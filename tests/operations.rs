//! What an operator does: configuration, maintenance, clearing up, backup, and asking for help.

mod backup;
mod configuration;
mod drain;
mod gc;
mod reload;
mod support;

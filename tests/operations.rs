//! What an operator does: configuration, maintenance, clearing up, and asking for help.

mod configuration;
mod drain;
mod gc;
mod reload;
mod support;

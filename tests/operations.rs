//! What an operator does: configuration, maintenance, clearing up, .

mod configuration;
mod drain;
mod gc;
mod reload;

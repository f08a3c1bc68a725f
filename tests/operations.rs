//! What an operator does: configuration, maintenance, .

mod configuration;
mod drain;
mod reload;

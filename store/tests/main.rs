//! The store crate through its public face: one binary, so that it links once.

mod support;

mod broker;
mod content;
mod damage;
mod dir;
mod golden;
mod http;
mod revision;
mod s3;
mod suite;
mod tiny;

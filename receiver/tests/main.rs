//! The receiver through its public face: one binary, so that it links once.

mod support;

mod bucket;
mod crash;
mod doctor;
mod expiry;
mod pulling;
mod snapshots;
mod trust;
mod volume;
mod warming;

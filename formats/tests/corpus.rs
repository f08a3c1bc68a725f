//! Every parser of the formats over the fuzzing corpus and over damaged copies of it: no panic, no hang, and what
//! is accepted can be written and read again.
//!
//! The damage is the same in every run. fuzz/ has the targets for an open-ended search.

#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use replay::replay;

/// Damaged inputs per target.
const MUTATIONS: usize = 5000;

/// Databases go through files, and are read twice.
const DATABASE_MUTATIONS: usize = 1500;

/// Each that is still a key signs.
const KEY_MUTATIONS: usize = 500;

#[test]
fn manifest() {
    replay("manifest", MUTATIONS, targets::manifest);
}

#[test]
fn whitelist() {
    replay("whitelist", MUTATIONS, targets::whitelist);
}

#[test]
fn server_conf() {
    replay("server_conf", MUTATIONS, targets::server_conf);
}

#[test]
fn s3_conf() {
    replay("s3_conf", MUTATIONS, targets::s3_conf);
}

#[test]
fn dirtab() {
    replay("dirtab", MUTATIONS, targets::dirtab);
}

#[test]
fn meta_info() {
    replay("meta_info", MUTATIONS, targets::meta_info);
}

#[test]
fn names() {
    replay("names", MUTATIONS, targets::names);
}

#[test]
fn xattr() {
    replay("xattr", MUTATIONS, targets::xattr);
}

#[test]
fn decompress() {
    replay("decompress", MUTATIONS, targets::decompress_object);
}

#[test]
fn catalog() {
    replay("catalog", DATABASE_MUTATIONS, targets::catalog);
}

#[test]
fn history() {
    replay("history", DATABASE_MUTATIONS, targets::history);
}

#[test]
fn reflog() {
    replay("reflog", DATABASE_MUTATIONS, targets::reflog);
}

#[test]
fn keys() {
    replay("keys", KEY_MUTATIONS, targets::keys);
}

#[test]
fn warm_list() {
    replay("warm_list", MUTATIONS, targets::warm_list);
}

#[test]
fn warm_bundle() {
    replay("warm_bundle", MUTATIONS, targets::warm_bundle);
}

#[test]
fn warm_message() {
    replay("warm_message", MUTATIONS, targets::warm_message);
}

#[test]
fn warm_enrolment() {
    replay("warm_enrolment", KEY_MUTATIONS, targets::warm_enrolment);
}

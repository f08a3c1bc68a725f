//! The Stratum 1 side: take objects, verify them, keep them.
//!
//! Nothing is here yet. What will be: a daemon that takes data objects and chunks for the
//! repositories it is configured for, straight into a replica's storage, verified against their
//! hash before the rename that gives them their name. It will never take catalogs, tags or
//! manifests, and never import `fsimpl` or `commit`.

#![forbid(unsafe_code)]

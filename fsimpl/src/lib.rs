//! fsimpl

//! Catalogs against those that CVMFS made, against themselves, and against damage.

mod golden;
mod hostile;
mod older;
mod round_trip;
mod support;
mod writer;

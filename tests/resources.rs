//! Resources that fail: the filesystem below the state directory, file descriptors, memory. Writers
//! get an errno or wait bounded, reads go on, `status` says what is wrong, and when the fault is gone
//! all goes on by itself (promises 2, 3 and 6).

mod limits;
mod reads;
mod slow;
mod sweep;
mod world;

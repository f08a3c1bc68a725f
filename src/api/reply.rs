//! What is answered. Field names are a promise to scripts.

mod changes;
mod status;
mod upkeep;

pub use changes::{Aborted, Change, Committed, Diff, DroppedXattr, Limit, Seconds, Summary, What};
pub use status::{OpenFile, RepoStatus, Staged, Status, Trouble, UnderWay};
pub use upkeep::{
    Checked, Diagnosis, Finding, Made, Removed, Standing, Tag, Tags, Unmounted, Weight,
};

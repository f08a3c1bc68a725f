//! What is answered. Field names are a promise to scripts.

mod changes;
mod operations;
mod sites;
mod status;
mod upkeep;

pub use changes::{Aborted, Change, Committed, Diff, DroppedXattr, Limit, Seconds, Summary, What};
pub use operations::{Collected, Drained, Freed, LogLevel, Reloaded};
pub use sites::{BrokerFile, BrokerFiles, Site, SiteAdded, Sites};
pub use status::{
    BrokerStatus, OpenFile, RepoStatus, SiteStatus, Staged, Status, Trouble, UnderWay,
};
pub use upkeep::{
    Checked, Diagnosis, Finding, Made, Removed, Standing, Tag, Tags, Unmounted, Weight,
};

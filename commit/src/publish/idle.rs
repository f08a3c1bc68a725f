//! A commit that changes nothing, where that is better known before the lease.
//!
//! Whatever would have to be told of under it (a conflict, a tag that exists) is left to it.

use formats::server_conf::Params;
use store::Head;

use super::{Commit, CommitError};
use crate::catalogs::Plan;

impl Commit<'_> {
    /// True if the newest revision is what was asked for already, and its publisher's lease is worth
    /// asking first.
    pub(super) fn is_idle(&self, params: &Params, head: &Head) -> Result<bool, CommitError> {
        let wanted = self.request.allow_empty || self.request.tag.is_some();
        if wanted || !self.publisher.is_lease_costly() {
            return Ok(false);
        }
        let manifest = head.manifest();
        let root = &manifest.root_catalog;
        match self.check_conflicts(root, manifest.revision, params) {
            Err(CommitError::Conflicts { .. }) => return Ok(false),
            checked => checked?,
        }
        let work = self.txn.work_dir("idle")?;
        let remake = self.request.on_conflict == super::OnConflict::Ours;
        let wish = self.wish(params, self.now(), remake, None);
        let plan = Plan::of(self.publisher.repository(), root, &wish, &work)?;
        Ok(plan.is_empty())
    }
}

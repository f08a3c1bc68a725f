//! What of a stage's configuration may change while it is open.

use std::sync::Arc;
use std::time::Duration;

use super::Stage;
use crate::writers::Writers;

/// See the module's head.
#[derive(Clone, Default)]
pub struct StagePolicy {
    /// How long a closed file rests before it is sealed.
    pub settle: Duration,
    /// Most raw bytes that may be staged.
    pub quota_bytes: Option<u64>,
    /// Most files that may be staged.
    pub quota_files: Option<u64>,
    /// With more bytes in backing files than this, those of sealed files are dropped.
    pub backing_max_bytes: Option<u64>,
    /// Who may change what, beside the kernel's permissions; none: those alone.
    pub writers: Option<Arc<dyn Writers>>,
}

impl Stage {
    /// Puts another policy in force. What is staged beyond a new quota stays; what rests already rests
    /// as long as it was to.
    pub fn set_policy(&self, policy: StagePolicy) {
        *self.policy.write() = policy;
    }

    pub(super) fn settle_time(&self) -> Duration {
        self.policy.read().settle
    }

    pub(crate) fn quota_bytes(&self) -> Option<u64> {
        self.policy.read().quota_bytes
    }

    pub(super) fn quota_files(&self) -> Option<u64> {
        self.policy.read().quota_files
    }

    pub(super) fn backing_max_bytes(&self) -> Option<u64> {
        self.policy.read().backing_max_bytes
    }

    pub(crate) fn writers(&self) -> Option<Arc<dyn Writers>> {
        self.policy.read().writers.clone()
    }
}

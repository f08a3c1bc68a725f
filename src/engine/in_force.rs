//! The configuration in force, which may be replaced while others read it.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::Settings;

/// See the module's head. Copies are the same one.
#[derive(Clone, Debug)]
pub struct InForce(Arc<RwLock<Arc<Settings>>>);

impl InForce {
    /// With what holds at first.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(settings))))
    }

    /// What holds now. Whoever keeps it goes on with it.
    #[must_use]
    pub fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read())
    }

    /// Puts another one in its place.
    pub fn set(&self, settings: Settings) {
        *self.0.write() = Arc::new(settings);
    }
}

//! `drain`: no new commits, and those that run end.

use super::Engine;
use crate::api::reply::Drained;
use crate::api::{Drain, Watch};
use crate::report::Result;

impl Engine {
    pub(super) fn drain(&self, args: &Drain, watch: &dyn Watch) -> Result<Drained> {
        match args.resume {
            true => self.gate.open()?,
            false => self.gate.close()?,
        }
        let (_, running) = self.gate.stands();
        if args.wait && running > 0 {
            watch.note(&format!(
                "waiting for {running} that run or wait their turn"
            ));
            self.gate.wait_empty();
        }
        let (drained, running) = self.gate.stands();
        tracing::info!(drained, running, "whether commits are let in");
        Ok(Drained { drained, running })
    }
}

//! What an armed fault looks like to an operator.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::ArmedFault;
use crate::model::{RawFault, view::FaultView};

impl ArmedFault {
    /// Its counts, with those of the kernel (matched, affected) added when the kernel decides for it.
    pub fn view(&self, kernel_counts: Option<(u64, u64)>) -> FaultView {
        let (kernel_matched, kernel_affected) = kernel_counts.unwrap_or_default();
        let counts = &self.counts;
        let matched = counts.matched.load(Ordering::Relaxed) + kernel_matched;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let note = match (self.fault.dry_run, matched) {
            (_, 0) if self.fault.packet().is_some() => Some("no matching packet seen"),
            (_, 0) => Some("no matching call seen"),
            (true, _) => Some("dry run: nothing is done"),
            (false, _) => None,
        };
        FaultView {
            name: self.fault.name.clone(),
            fault: RawFault::from(&*self.fault),
            seed: self.fault.seed,
            expires_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            matched,
            affected: counts.affected.load(Ordering::Relaxed) + kernel_affected,
            escaped: counts.escaped.load(Ordering::Relaxed) + kernel_matched.saturating_sub(kernel_affected),
            active: self.active(),
            closed: counts.closed.load(Ordering::Relaxed),
            note: note.map(str::to_owned),
        }
    }
}

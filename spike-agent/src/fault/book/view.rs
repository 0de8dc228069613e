//! What an armed fault looks like to an operator.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::ArmedFault;
use crate::model::{RawFault, view::FaultView};

impl ArmedFault {
    /// Its counts, with those of the kernel (matched, affected) added when the kernel decides for it.
    pub fn view(&self, kernel_counts: Option<(u64, u64)>) -> FaultView {
        let (kernel_matched, kernel_affected) = kernel_counts.unwrap_or_default();
        let matched = self.matched.load(Ordering::Relaxed) + kernel_matched;
        let left = self.deadline.saturating_duration_since(Instant::now());
        FaultView {
            name: self.fault.name.clone(),
            fault: RawFault::from(&self.fault),
            seed: self.fault.seed,
            expires_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            matched,
            affected: self.affected.load(Ordering::Relaxed) + kernel_affected,
            escaped: self.escaped.load(Ordering::Relaxed) + kernel_matched.saturating_sub(kernel_affected),
            active: self.active(),
            note: (matched == 0).then(|| {
                let what = match self.fault.effect.packet() {
                    Some(_) => "packet",
                    None => "call",
                };
                format!("no matching {what} seen")
            }),
        }
    }
}

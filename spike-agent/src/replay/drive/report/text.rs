//! The report for people at a terminal.

use super::{Quantiles, Report};

/// Wrong calls that are shown.
const SHOWN_LIMIT: usize = 50;

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut text = format!(
        "{} requests to {} in {:.1} s: {} as recorded, {} different, {} without an answer\n",
        report.requests,
        report.target,
        report.took_ms / 1e3,
        report.same,
        report.different,
        report.failed
    );
    text += &line("sent late", &report.late_ms);
    text += &line("first byte after", &report.latency_ms);
    text += &line("  in the recording", &report.recorded_latency_ms);
    for call in report.wrong().take(SHOWN_LIMIT) {
        text += &format!("\n{} (request {})\n", call.call, call.number + 1);
        for words in call.differences.iter().chain(&call.error) {
            text += &format!("  {words}\n");
        }
    }
    let more = report.wrong().count().saturating_sub(SHOWN_LIMIT);
    if more > 0 {
        text += &format!("\nand {more} more\n");
    }
    for why in &report.left_out {
        text += &format!("not sent: {why}\n");
    }
    text
}

fn line(name: &str, quantiles: &Quantiles) -> String {
    let Quantiles { p50, p90, p99, max } = quantiles;
    format!("{name:<20} p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms\n")
}

//! What others get of the map and of the calls: metrics to be scraped, metrics and spans pushed to a collector.
//!
//! ```text
//! Source (edges) --> EdgeLedger --> families --> text (Prometheus, OpenMetrics)
//! Source (calls) --> CallMeter  --/         \--> otlp (metrics)
//!                \-------------------------------> otlp (spans)
//! ```
//!
//! Names are those of OpenTelemetry's semantic conventions and of Grafana Tempo's service graph; `docs/metrics.md` has
//! them all. Every table here is bounded, and tells what did not fit.

mod buckets;
mod callers;
mod calls;
mod conventions;
mod edges;
mod exporter;
mod family;
mod otlp;
mod own;
mod source;
#[cfg(test)]
mod testing;
mod text;

pub use edges::EdgeCounts;
pub use exporter::{Exporter, Settings};
pub use source::{Ends, Host, ObservedEdge, Source};
pub use text::Format;

//! What becomes of connections that are older than a fault.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What becomes of matching connections that are open already.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// They go on as they are.
    #[default]
    Keep,
    /// They are closed once, so that their callers come back through the fault.
    Reset,
}

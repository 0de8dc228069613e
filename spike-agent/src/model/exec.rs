//! A command that is to run in a cgroup of its own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A process to put into a cgroup of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with `pid`")]
pub struct RawExec {
    /// A child of the client, from 1; it should wait until this is answered.
    #[schema(minimum = 1)]
    pub pid: u32,
}

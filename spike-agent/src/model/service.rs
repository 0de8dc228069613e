//! What a service is, in the words of the API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a service has its name from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// A `[[service]]` rule of the configuration.
    Rule,
    /// A Kubernetes pod.
    Pod,
    /// A container outside of Kubernetes.
    Container,
    /// A systemd unit.
    Unit,
    /// The program that runs.
    #[default]
    Executable,
    /// A name that the caller resolved, or an address: on another host, or not seen to listen here.
    External,
}

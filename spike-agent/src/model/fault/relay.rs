//! Where the connections of a fault come in and go to, when that is not by interception.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Existing, Fault, MAX_TTL, random_seed};
use crate::model::{Selector, Step};

/// A listener of a fault's own, made through Toxiproxy's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Address and port that it listens on.
    #[schema(example = "127.0.0.1:26379")]
    pub listen: String,
    /// Host or address, and port, that its connections are led to.
    #[schema(example = "127.0.0.1:6379")]
    pub upstream: String,
}

impl Fault {
    /// What all connections to a relay go through; its name is one that a fault can have.
    pub fn of_relay(name: &str, relay: Relay, effects: Vec<Step>) -> Self {
        Self {
            name: name.to_owned(),
            selector: Selector::default(),
            effects,
            percent: 100.0,
            seed: random_seed(),
            ttl: MAX_TTL,
            max_active: None,
            existing: Existing::Keep,
            dry_run: false,
            abort_when: None,
            relay: Some(relay),
        }
    }
}

//! Tells who is at an end of a connection: the kernel knows numbers, operators know paths and services.
//!
//! A *service* is named, in this order, by a rule of the operator, its pod, its container, its systemd unit, the program
//! that it runs. All of `command`, `kubernetes`, `place`, `service` and `names` is pure; `look` reads `/proc`, `engine`
//! asks container engines.

mod cgroups;
mod command;
mod ends;
mod engine;
mod kubernetes;
mod look;
mod names;
mod netns;
mod place;
mod processes;
mod service;
mod services;
mod users;

pub use cgroups::Cgroups;
pub use ends::Ends;
pub use engine::{Engine, EnginePlaces};
pub use kubernetes::Pod;
pub use names::Names;
pub use netns::NetworkNamespaces;
pub use processes::Processes;
pub use service::Service;
pub use services::Services;
pub use users::Users;

//! Spike: sees, breaks and captures the calls between services on a Linux host.

pub mod api;
pub mod config;
pub mod control;
pub mod fault;
pub mod model;

//! Spike: sees, breaks and captures the calls between services on a Linux host.
//!
//! The flow of data: `kernel` (hooks) -> `proxy` (intercepted connections, `fault` effects) -> the upstream; `kernel`
//! (edges) -> `topology` (the map); `kernel` (packets) -> `capture` (pcapng). `control` has every operator verb once,
//! `api` and `cli` are its doors, `app` puts it all together.

pub mod api;
pub mod app;
pub mod audit;
pub mod calls;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod exec;
pub mod export;
pub mod fault;
pub mod identity;
pub mod kernel;
mod lock;
pub mod model;
pub mod protocol;
pub mod proxy;
pub mod recording;
pub mod replay;
pub mod safety;
pub mod topology;
pub mod toxiproxy;

//! What the system tests stand on: worlds, workloads, agents and oracles.

//! What faults do to connections, and which faults are armed.

pub mod book;

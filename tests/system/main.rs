//! Runs every system test.
fn main() {}

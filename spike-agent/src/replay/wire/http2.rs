//! HTTP/2.
use super::Recorded;
use crate::replay::exchange::Talk;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn split(_: &Recorded, _: &mut Talk) {}

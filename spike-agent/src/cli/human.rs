//! Numbers for people, as the whole agent writes them.

pub(super) use crate::model::human::{bytes, micros, millis_left, percent, rate};

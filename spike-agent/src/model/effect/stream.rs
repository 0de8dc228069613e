//! Checks the effects on the bytes of a connection.

use std::time::Duration;

use super::{Direction, Distribution, Effect, MAX_DELAY, optional_time, time};
use crate::model::{FieldError, units::parse_bytes};

/// Largest average piece of a slicer in bytes.
pub(super) const MAX_SLICE: u32 = 1 << 20;

pub(super) fn latency(
    delay: &str,
    jitter: Option<&str>,
    distribution: Option<Distribution>,
    direction: Option<Direction>,
) -> Result<Effect, FieldError> {
    let delay = above_zero("delay", delay)?;
    let jitter = optional_time("jitter", jitter, MAX_DELAY)?.unwrap_or_default();
    if jitter > delay {
        return Err(FieldError::new("jitter", "must be at most `delay`"));
    }
    let distribution = distribution.unwrap_or_default();
    if distribution != Distribution::Uniform && jitter.is_zero() {
        return Err(FieldError::new(
            "distribution",
            "needs a `jitter`: without one every delay is the same",
        ));
    }
    Ok(Effect::Latency {
        delay,
        jitter,
        distribution,
        direction: direction.unwrap_or(Direction::Response),
    })
}

pub(super) fn slow_close(delay: &str, direction: Option<Direction>) -> Result<Effect, FieldError> {
    Ok(Effect::SlowClose {
        delay: above_zero("delay", delay)?,
        direction: direction.unwrap_or(Direction::Both),
    })
}

pub(super) fn slicer(
    size: &str,
    variation: Option<&str>,
    delay: Option<&str>,
    direction: Option<Direction>,
) -> Result<Effect, FieldError> {
    let size = bytes("size", size)?;
    let size = u32::try_from(size)
        .ok()
        .filter(|size| (1..=MAX_SLICE).contains(size));
    let size = size.ok_or_else(|| FieldError::new("size", "must be from 1B to 1MiB"))?;
    let variation = variation.map_or(Ok(0), |variation| bytes("variation", variation))?;
    let variation = u32::try_from(variation)
        .ok()
        .filter(|variation| *variation < size);
    Ok(Effect::Slicer {
        size,
        variation: variation.ok_or_else(|| FieldError::new("variation", "must be below `size`"))?,
        delay: optional_time("delay", delay, MAX_DELAY)?.unwrap_or_default(),
        direction: direction.unwrap_or(Direction::Response),
    })
}

pub(super) fn limit_data(limit: &str, direction: Option<Direction>) -> Result<Effect, FieldError> {
    Ok(Effect::LimitData {
        bytes: bytes("bytes", limit)?,
        direction: direction.unwrap_or(Direction::Response),
    })
}

fn above_zero(field: &str, text: &str) -> Result<Duration, FieldError> {
    match time(field, text, MAX_DELAY)? {
        Duration::ZERO => Err(FieldError::new(field, "must be above 0")),
        time => Ok(time),
    }
}

fn bytes(field: &str, text: &str) -> Result<u64, FieldError> {
    parse_bytes(text).map_err(|message| FieldError::new(field, message))
}

//! One of a fault's effects, with the share of the fault's connections that it takes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Effect, RawEffect};
use crate::model::FieldError;

/// One of several effects of a fault, as written: the fields of an effect, and `percent`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct RawStep {
    /// Share of the connections that the fault affects which this effect takes: above 0, at most 100. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 100)]
    pub percent: Option<f64>,
    /// What is done to them.
    #[serde(flatten)]
    pub effect: RawEffect,
}

/// One of a fault's effects, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub effect: Effect,
    /// Share of the connections that the fault affects which this effect takes: above 0 (of a Toxiproxy toxic from 0),
    /// at most 100.
    pub percent: f64,
}

impl From<Effect> for Step {
    fn from(effect: Effect) -> Self {
        Self {
            effect,
            percent: 100.0,
        }
    }
}

impl TryFrom<&RawStep> for Step {
    type Error = FieldError;

    fn try_from(raw: &RawStep) -> Result<Self, FieldError> {
        Ok(Self {
            effect: Effect::try_from(&raw.effect)?,
            percent: share("percent", raw.percent.unwrap_or(100.0))?,
        })
    }
}

impl From<&Step> for RawStep {
    fn from(step: &Step) -> Self {
        Self {
            percent: (step.percent < 100.0).then_some(step.percent),
            effect: RawEffect::from(&step.effect),
        }
    }
}

/// Checks a share in percent: above 0, at most 100; the error names `field`.
pub fn share(field: &str, percent: f64) -> Result<f64, FieldError> {
    if percent > 0.0 && percent <= 100.0 {
        return Ok(percent);
    }
    Err(FieldError::new(
        field,
        format_args!("must be above 0 and at most 100, got {percent}"),
    ))
}

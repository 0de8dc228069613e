//! A fault: which calls, what is done to them, and its limits.

mod abort;
mod existing;
mod relay;

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use abort::{AbortWhen, RawAbortWhen};
pub use existing::Existing;
pub use relay::Relay;

use super::{
    Effect, FieldError, PacketEffect, RawEffect, RawEnd, RawStep, Selector, Step,
    effect::{share, time},
    selector::WhenEmpty,
    units::format_duration,
};

/// How long a fault lives unless it says otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10 * 60);
/// Longest life of a fault.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest name of a fault, in bytes.
pub const MAX_NAME: usize = 64;
/// Most effects of one fault.
pub const MAX_EFFECTS: usize = 16;

/// A fault as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "a fault: an object with `effect` or `effects`"
)]
#[schema(example = json!({
    "name": "slow", "from": {"process": "curl"}, "to": {"port": 8080},
    "effect": {"type": "latency", "delay": "200ms", "jitter": "50ms", "direction": "response"},
    "percent": 50.0, "seed": 7, "ttl": "10m"
}))]
pub struct RawFault {
    /// Its name: 1 to 64 letters, digits, `.`, `_` and `-`. Default: made from the effect, such as `latency-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-zA-Z0-9._-]{1,64}$")]
    pub name: Option<String>,
    /// Who calls.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: RawEnd,
    /// What is called.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: RawEnd,
    /// Must be said when neither `from` nor `to` chooses anything: all calls of the host are meant.
    #[serde(default, skip_serializing_if = "is_default")]
    pub everything: bool,
    /// What is done to the calls; or `effects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<RawEffect>,
    /// Several effects on the bytes of a connection, which pass one after the other: 1 to 16, in this order both ways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<RawStep>,
    /// Share of the matching connections that is affected: above 0, at most 100. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 100)]
    pub percent: Option<f64>,
    /// Start of the choices by chance, for a run that can be repeated. Default: random, and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Time until the fault removes itself: above 0, at most 24h. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10m")]
    pub ttl: Option<String>,
    /// Most connections affected at one time, from 1; more pass unharmed. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_active: Option<u32>,
    /// What becomes of matching connections that are open already. Default: `keep`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub existing: Existing,
    /// Only count what it would do, and let all pass unharmed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// Remove the fault by itself when calls go worse than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_when: Option<RawAbortWhen>,
    /// Of a proxy that was made through Toxiproxy's API: where it listens and leads to. Cannot be asked for here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A fault, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// 1 to [`MAX_NAME`] of `[a-zA-Z0-9._-]`; empty only until the book names it.
    pub name: String,
    /// Which calls.
    pub selector: Selector,
    /// What is done to them, one after the other: 1 to [`MAX_EFFECTS`], of a relay from none.
    pub effects: Vec<Step>,
    /// Share of the matching connections that is affected: above 0, at most 100.
    pub percent: f64,
    /// Start of the choices by chance.
    pub seed: u64,
    /// Time until it removes itself: above 0, at most [`MAX_TTL`].
    pub ttl: Duration,
    /// Most connections affected at one time, from 1.
    pub max_active: Option<u32>,
    /// What becomes of matching connections that are open already.
    pub existing: Existing,
    /// Only counts what it would do.
    pub dry_run: bool,
    /// When it removes itself before its time.
    pub abort_when: Option<AbortWhen>,
    /// Set when its connections come to a listener of their own and not by interception.
    pub relay: Option<Relay>,
}

impl Fault {
    /// What it is called by: the name of its first effect.
    pub fn kind(&self) -> &'static str {
        self.effects.first().map_or("relay", |step| step.effect.kind())
    }

    /// What is done to packets, if it is that; such an effect is always the only one.
    pub fn packet(&self) -> Option<&PacketEffect> {
        self.effects.first().and_then(|step| step.effect.packet())
    }

    /// True when it is about UDP datagrams; such an effect is always the only one.
    pub fn is_on_datagrams(&self) -> bool {
        let first = self.effects.first();
        first.is_some_and(|step| step.effect.is_on_datagrams())
    }

    /// True when the connect hook alone carries it out, with no proxy in the way.
    pub fn is_decided_in_kernel(&self) -> bool {
        let decided = |step: &Step| step.effect.is_decided_in_kernel();
        !self.dry_run && self.relay.is_none() && !self.effects.is_empty() && self.effects.iter().all(decided)
    }
}

impl TryFrom<&RawFault> for Fault {
    type Error = FieldError;

    fn try_from(raw: &RawFault) -> Result<Self, FieldError> {
        let percent = share("percent", raw.percent.unwrap_or(100.0))?;
        let ttl = raw
            .ttl
            .as_deref()
            .map(|ttl| time("ttl", ttl, MAX_TTL))
            .transpose()?
            .unwrap_or(DEFAULT_TTL);
        if ttl.is_zero() {
            return Err(FieldError::new("ttl", "must be above 0"));
        }
        if raw.max_active == Some(0) {
            return Err(FieldError::new("max_active", "must be from 1"));
        }
        if raw.relay.is_some() {
            return Err(FieldError::new(
                "relay",
                "is made through Toxiproxy's API alone: see `spike agent --toxiproxy`",
            ));
        }
        let effects = steps(raw)?;
        if effects.iter().any(|step| step.effect.packet().is_some()) {
            refuse_of_packets(raw)?;
        }
        if effects.iter().any(|step| step.effect.is_on_datagrams()) {
            refuse_of_datagrams(raw)?;
        }
        Ok(Self {
            name: raw
                .name
                .as_deref()
                .map(parse_name)
                .transpose()?
                .unwrap_or_default(),
            selector: Selector::from_raw(&raw.from, &raw.to, raw.everything, WhenEmpty::Refuse)?,
            effects,
            percent,
            seed: raw.seed.unwrap_or_else(random_seed),
            ttl,
            max_active: raw.max_active,
            existing: raw.existing,
            dry_run: raw.dry_run,
            abort_when: raw
                .abort_when
                .as_ref()
                .map(AbortWhen::try_from)
                .transpose()
                .map_err(|error| error.within("abort_when"))?,
            relay: None,
        })
    }
}

/// Refuses what is said of connections, where a fault has packets instead.
fn refuse_of_packets(raw: &RawFault) -> Result<(), FieldError> {
    let said = [
        ("max_active", raw.max_active.is_some()),
        ("existing", raw.existing != Existing::default()),
        ("dry_run", raw.dry_run),
        ("abort_when", raw.abort_when.is_some()),
    ];
    match said.into_iter().find(|&(_, said)| said) {
        Some((field, _)) => Err(FieldError::new(
            field,
            "is about connections, which a packet fault does not have; leave it out",
        )),
        None => Ok(()),
    }
}

/// Refuses what is said of connections, where a fault has datagrams instead.
fn refuse_of_datagrams(raw: &RawFault) -> Result<(), FieldError> {
    let said = [
        ("existing", raw.existing != Existing::default()),
        ("dry_run", raw.dry_run),
        ("abort_when", raw.abort_when.is_some()),
    ];
    match said.into_iter().find(|&(_, said)| said) {
        Some((field, _)) => Err(FieldError::new(
            field,
            "is about connections, which a fault on datagrams does not have; leave it out",
        )),
        None => Ok(()),
    }
}

/// The effects, however they were written.
fn steps(raw: &RawFault) -> Result<Vec<Step>, FieldError> {
    if let Some(effect) = &raw.effect {
        if !raw.effects.is_empty() {
            return Err(FieldError::new(
                "effects",
                "write `effect` or `effects`, not both",
            ));
        }
        let effect = Effect::try_from(effect).map_err(|error| error.within("effect"))?;
        return Ok(vec![Step::from(effect)]);
    }
    if raw.effects.is_empty() {
        return Err(FieldError::new(
            "effect",
            "is missing: say what is done to the calls",
        ));
    }
    if raw.effects.len() > MAX_EFFECTS {
        return Err(FieldError::new(
            "effects",
            format_args!("has more than {MAX_EFFECTS}"),
        ));
    }
    let steps = raw.effects.iter().enumerate().map(|(index, step)| {
        let within = |error: FieldError| error.within(&format!("effects[{index}]"));
        let step = Step::try_from(step).map_err(within)?;
        if raw.effects.len() > 1 && !step.effect.is_of_streams() {
            let kind = step.effect.kind();
            let message =
                format_args!("`{kind}` cannot be one of several effects: arm it as a fault of its own");
            return Err(within(FieldError::new("type", message)));
        }
        Ok(step)
    });
    steps.collect()
}

impl From<&Fault> for RawFault {
    fn from(fault: &Fault) -> Self {
        let (effect, effects) = match &fault.effects[..] {
            [step] if step.percent >= 100.0 => (Some(RawEffect::from(&step.effect)), Vec::new()),
            steps => (None, steps.iter().map(RawStep::from).collect()),
        };
        Self {
            name: (!fault.name.is_empty()).then(|| fault.name.clone()),
            from: RawEnd::from(&fault.selector.from),
            to: RawEnd::from(&fault.selector.to),
            everything: fault.selector.everything,
            effect,
            effects,
            percent: Some(fault.percent),
            seed: Some(fault.seed),
            ttl: Some(format_duration(fault.ttl)),
            max_active: fault.max_active,
            existing: fault.existing,
            dry_run: fault.dry_run,
            abort_when: fault.abort_when.as_ref().map(RawAbortWhen::from),
            relay: fault.relay.clone(),
        }
    }
}

fn parse_name(name: &str) -> Result<String, FieldError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_path_step = matches!(name, "." | "..");
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_allowed) && !is_path_step {
        return Ok(name.to_owned());
    }
    Err(FieldError::new(
        "name",
        "must be 1 to 64 letters, digits, `.`, `_` and `-`",
    ))
}

/// Short enough to be typed again, and exact in JSON readers that keep numbers as doubles.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> Result<Fault, FieldError> {
        Fault::try_from(&serde_json::from_str::<RawFault>(body).unwrap())
    }

    #[test]
    fn defaults_are_filled_in() {
        let fault = fault(r#"{"to":{"port":80},"effect":{"type":"latency","delay":"200ms"}}"#).unwrap();
        assert_eq!(
            (fault.percent, fault.ttl, fault.max_active),
            (100.0, DEFAULT_TTL, None)
        );
        let delay = Duration::from_millis(200);
        let jitter = Duration::ZERO;
        assert_eq!(
            fault.effects,
            [Step::from(Effect::Latency {
                delay,
                jitter,
                distribution: crate::model::Distribution::Uniform,
                direction: crate::model::Direction::Response
            })]
        );
        assert!(fault.seed <= u64::from(u32::MAX));
    }

    #[test]
    fn the_normalised_form_means_the_same() {
        for effect in [
            r#"{"type":"latency","delay":"1h","jitter":"3ms","direction":"both"}"#,
            r#"{"type":"reset"}"#,
            r#"{"type":"reset","after":"90s"}"#,
            r#"{"type":"timeout"}"#,
            r#"{"type":"timeout","after":"0s"}"#,
            r#"{"type":"refuse"}"#,
            r#"{"type":"bandwidth","rate":"64kbit"}"#,
            r#"{"type":"unreachable"}"#,
            r#"{"type":"connect_timeout"}"#,
            r#"{"type":"connect_timeout","after":"5s"}"#,
            r#"{"type":"connect_delay","delay":"1s","jitter":"3ms"}"#,
            r#"{"type":"udp_delay","delay":"1s","direction":"both"}"#,
            r#"{"type":"udp_drop"}"#,
            r#"{"type":"udp_duplicate"}"#,
            r#"{"type":"latency","delay":"1s","jitter":"3ms","distribution":"pareto"}"#,
            r#"{"type":"timeout","direction":"request"}"#,
            r#"{"type":"slow_close","delay":"2s"}"#,
            r#"{"type":"slicer","size":"64B","variation":"63","delay":"1ms"}"#,
            r#"{"type":"limit_data","bytes":"1KiB","direction":"both"}"#,
            r#"{"type":"corrupt","share":0.25}"#,
        ] {
            let fault = fault(&format!(r#"{{"everything":true,"effect":{effect}}}"#)).unwrap();
            assert_eq!(Fault::try_from(&RawFault::from(&fault)), Ok(fault), "{effect}");
        }
        for rest in [
            r#""effects":[{"type":"latency","delay":"1s","percent":50},{"type":"corrupt","share":1}]"#,
            r#""effects":[{"type":"reset","percent":1.5}],"existing":"reset","dry_run":true"#,
            r#""effect":{"type":"refuse"},"abort_when":{"errors":5,"p99":"2s","window":"3s","to":{"port":80}}"#,
        ] {
            let fault = fault(&format!(r#"{{"everything":true,{rest}}}"#)).unwrap();
            assert_eq!(Fault::try_from(&RawFault::from(&fault)), Ok(fault), "{rest}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (rest, field) in [
            (r#""effect":{"type":"latency","delay":"200"}"#, "effect.delay"),
            (r#""effect":{"type":"latency","delay":"0s"}"#, "effect.delay"),
            (r#""effect":{"type":"latency","delay":"61m"}"#, "effect.delay"),
            (
                r#""effect":{"type":"latency","delay":"1s","jitter":"2s"}"#,
                "effect.jitter",
            ),
            (r#""effect":{"type":"reset","after":"25h"}"#, "effect.after"),
            (
                r#""effect":{"type":"connect_timeout","after":"900ms"}"#,
                "effect.after",
            ),
            (
                r#""effect":{"type":"connect_delay","delay":"0s"}"#,
                "effect.delay",
            ),
            (r#""effect":{"type":"bandwidth","rate":"0B/s"}"#, "effect.rate"),
            (r#""effect":{"type":"refuse"},"percent":0"#, "percent"),
            (r#""effect":{"type":"refuse"},"percent":100.1"#, "percent"),
            (r#""effect":{"type":"refuse"},"percent":-5"#, "percent"),
            (r#""effect":{"type":"refuse"},"ttl":"0s""#, "ttl"),
            (r#""effect":{"type":"refuse"},"ttl":"25h""#, "ttl"),
            (r#""effect":{"type":"refuse"},"max_active":0"#, "max_active"),
            (r#""effect":{"type":"refuse"},"name":"""#, "name"),
            (r#""effect":{"type":"refuse"},"name":"a/b""#, "name"),
            (r#""effect":{"type":"refuse"},"name":"..""#, "name"),
            (r#""percent":5"#, "effect"),
            (
                r#""effect":{"type":"latency","delay":"1s","distribution":"normal"}"#,
                "effect.distribution",
            ),
            (r#""effect":{"type":"slow_close","delay":"0s"}"#, "effect.delay"),
            (r#""effect":{"type":"slicer","size":"0B"}"#, "effect.size"),
            (r#""effect":{"type":"slicer","size":"2MiB"}"#, "effect.size"),
            (
                r#""effect":{"type":"slicer","size":"5B","variation":"5B"}"#,
                "effect.variation",
            ),
            (r#""effect":{"type":"limit_data","bytes":"x"}"#, "effect.bytes"),
            (r#""effect":{"type":"corrupt","share":0}"#, "effect.share"),
            (
                r#""effects":[{"type":"refuse"},{"type":"reset"}]"#,
                "effects[0].type",
            ),
            (
                r#""effects":[{"type":"reset"},{"type":"reset","percent":0}]"#,
                "effects[1].percent",
            ),
            (
                r#""effect":{"type":"reset"},"effects":[{"type":"reset"}]"#,
                "effects",
            ),
            (r#""effect":{"type":"reset"},"abort_when":{}"#, "abort_when"),
            (
                r#""effect":{"type":"reset"},"abort_when":{"errors":101}"#,
                "abort_when.errors",
            ),
            (
                r#""effect":{"type":"reset"},"abort_when":{"p99":"1s","window":"0s"}"#,
                "abort_when.window",
            ),
            (
                r#""effect":{"type":"reset"},"relay":{"listen":"a","upstream":"b"}"#,
                "relay",
            ),
        ] {
            let body = format!(r#"{{"to":{{"port":80}},{rest}}}"#);
            assert_eq!(fault(&body).unwrap_err().field, field, "{body}");
        }
    }
}

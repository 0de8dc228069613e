//! What a capture of packets records, as written and as checked.

mod interface;
mod trigger;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) use interface::is_interface_name;
pub use interface::{InterfaceName, Namespace};
pub use trigger::{Quantile, Trigger};

use super::{
    FieldError, RawEnd, Selector,
    effect::time,
    selector::WhenEmpty,
    units::{format_duration, parse_bytes},
};

/// Bytes kept of each packet unless the capture says otherwise, and the most that may be asked for.
pub const MAX_SNAPLEN: u32 = 262_144;
/// Fewest bytes kept of each packet: room for the headers.
pub const MIN_SNAPLEN: u32 = 64;
/// Longest capture.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
/// Longest time that is kept in memory before something happens.
pub const MAX_BEFORE: Duration = Duration::from_secs(3600);
/// How long a capture goes on after what it waited for, unless it says otherwise.
pub const DEFAULT_AFTER: Duration = Duration::from_secs(10);
/// Smallest file of a capture that is cut into files: smaller ones would hold little but their headers.
pub const MIN_FILE_SIZE: u64 = 16 * 1024;
/// Most files of one capture.
pub const MAX_FILES: u32 = 10_000;

/// A capture as written. Without `from` and `to` every packet of the interfaces is taken.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a capture: an object, {} for all packets")]
#[schema(example = json!({"from": {"process": "curl"}, "to": {"port": 8080}, "interfaces": ["lo"], "duration": "10s"}))]
pub struct RawCapture {
    /// Who opened the connection.
    #[serde(default)]
    pub from: RawEnd,
    /// Where it was opened to.
    #[serde(default)]
    pub to: RawEnd,
    /// May be said when neither `from` nor `to` chooses anything; it changes nothing.
    #[serde(default)]
    pub everything: bool,
    /// A filter expression as of tcpdump, such as `tcp port 80 and host 10.0.0.7`; packets have to pass it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "tcp port 80")]
    pub filter: Option<String>,
    /// Names of the interfaces: `eth0`, `eth0@NAMESPACE` in another network namespace, which is named as by `ip netns` or
    /// by the id of a process in it. `any` is every interface that is up, `any@*` those of every namespace. Default: `any`.
    #[serde(default)]
    #[schema(example = json!(["lo", "eth0"]))]
    pub interfaces: Vec<String>,
    /// Takes a packet as often as it is seen. Else once, however many of the interfaces it passes.
    #[serde(default)]
    pub duplicates: bool,
    /// Which leg of an intercepted connection: as the application saw it, from the agent to the server, or both, joined
    /// by their packet ids. Default: `application`.
    #[serde(default, skip_serializing_if = "Legs::is_default")]
    pub legs: Legs,
    /// Takes one connection in so many, from 1. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub sample: Option<u32>,
    /// Bytes kept of each packet, 64 to 262144. Default: 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 64, maximum = 262_144)]
    pub snaplen: Option<u32>,
    /// Packets after which the capture ends, from 1. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub count: Option<u64>,
    /// Time after which the capture ends, above 0 and at most 24h. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10s")]
    pub duration: Option<String>,
    /// Bytes of the file after which the capture ends, such as `1GB`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1GB")]
    pub size: Option<String>,
    /// Begins a new file, whole in itself, when one has so many bytes, from 16KiB. Default: one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "100MB")]
    pub file_size: Option<String>,
    /// With `file_size`: so many files are kept, the oldest goes first, 1 to 10000. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000)]
    pub files: Option<u32>,
    /// Keeps the packets in the agent's directory until the capture is removed, for any number of readers. Else they
    /// go to one reader as they come.
    #[serde(default)]
    pub keep: bool,
    /// Keeps so much of the latest packets in memory, and writes them when something of `on` happens, at most 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "30s")]
    pub before: Option<String>,
    /// What is waited for: `reset`, `errors>1%`, `p99>1s`, of the chosen connections. Needs `before`. Without it, the
    /// capture is triggered by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["reset"]))]
    pub on: Vec<String>,
    /// With `before`: goes on so long after it happened, at most 24h. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10s")]
    pub after: Option<String>,
    /// Leaves out the TLS secrets that processes write to the file of their environment's `SSLKEYLOGFILE`.
    #[serde(default)]
    pub no_secrets: bool,
}

/// Which of the two connections that make up an intercepted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Legs {
    /// From the application, with the address that it asked for.
    #[default]
    Application,
    /// From the agent to the server.
    Agent,
    /// Both, each packet with the id of the connection.
    Both,
}

impl Legs {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A capture, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptureSpec {
    /// Which connections; an empty selector means every packet.
    pub selector: Selector,
    /// A tcpdump expression, of which only the compiler knows whether it is one.
    pub filter: Option<String>,
    /// Interfaces without repetition; none means every interface of the host that is up.
    pub interfaces: Vec<InterfaceName>,
    /// Each packet as often as it is seen.
    pub duplicates: bool,
    /// Which legs of intercepted connections.
    pub legs: Legs,
    /// One connection in so many, from 1.
    pub sample: u32,
    /// Bytes kept of each packet, [`MIN_SNAPLEN`] to [`MAX_SNAPLEN`].
    pub snaplen: u32,
    /// Packets after which the capture ends, from 1.
    pub count: Option<u64>,
    /// Time after which the capture ends: above 0, at most [`MAX_DURATION`].
    pub duration: Option<Duration>,
    /// Bytes written after which the capture ends, from 1.
    pub size: Option<u64>,
    /// How the file is cut into several.
    pub rotation: Option<Rotation>,
    /// In the agent's directory, for any number of readers.
    pub keep: bool,
    /// What is kept in memory until something happens.
    pub wait: Option<Wait>,
    /// TLS secrets that processes log.
    pub secrets: bool,
}

/// How a capture is cut into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which a new file begins, from [`MIN_FILE_SIZE`].
    pub file_size: u64,
    /// Files that are kept, 1 to [`MAX_FILES`]; none for all.
    pub files: Option<u32>,
}

/// A capture that waits for something to happen.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Age of the oldest packet that is kept: above 0, at most [`MAX_BEFORE`].
    pub before: Duration,
    /// What it waits for; nothing means that it is told.
    pub on: Vec<Trigger>,
    /// How long it goes on then, at most [`MAX_DURATION`].
    pub after: Duration,
}

impl TryFrom<&RawCapture> for CaptureSpec {
    type Error = FieldError;

    fn try_from(raw: &RawCapture) -> Result<Self, FieldError> {
        let snaplen = raw.snaplen.unwrap_or(MAX_SNAPLEN);
        if !(MIN_SNAPLEN..=MAX_SNAPLEN).contains(&snaplen) {
            let message = format_args!("must be from {MIN_SNAPLEN} to {MAX_SNAPLEN} bytes, got {snaplen}");
            return Err(FieldError::new("snaplen", message));
        }
        if raw.count == Some(0) {
            return Err(FieldError::new("count", "must be from 1"));
        }
        if raw.sample == Some(0) {
            return Err(FieldError::new(
                "sample",
                "must be from 1: one connection in so many",
            ));
        }
        if raw.filter.as_deref().is_some_and(|filter| filter.contains('\0')) {
            return Err(FieldError::new("filter", "must not contain a zero byte"));
        }
        Ok(Self {
            selector: Selector::from_raw(&raw.from, &raw.to, raw.everything, WhenEmpty::MeansAll)?,
            filter: raw.filter.clone(),
            interfaces: interfaces(&raw.interfaces)?,
            duplicates: raw.duplicates,
            legs: raw.legs,
            sample: raw.sample.unwrap_or(1),
            snaplen,
            count: raw.count,
            duration: above_zero("duration", raw.duration.as_deref(), MAX_DURATION)?,
            size: bytes("size", raw.size.as_deref(), 1)?,
            rotation: rotation(raw)?,
            keep: raw.keep,
            wait: wait(raw)?,
            secrets: !raw.no_secrets,
        })
    }
}

fn interfaces(names: &[String]) -> Result<Vec<InterfaceName>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut interfaces = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let field = format!("interfaces[{index}]");
        let interface = InterfaceName::parse(name).map_err(|message| FieldError::new(&field, message))?;
        if !seen.insert(name) {
            return Err(FieldError::new(field, format_args!("`{name}` is named twice")));
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

fn rotation(raw: &RawCapture) -> Result<Option<Rotation>, FieldError> {
    let file_size = bytes("file_size", raw.file_size.as_deref(), MIN_FILE_SIZE)?;
    match (file_size, raw.files) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(FieldError::new(
            "files",
            "needs file_size, the size at which a new file begins",
        )),
        (Some(_), Some(files)) if !(1..=MAX_FILES).contains(&files) => {
            let message = format_args!("must be from 1 to {MAX_FILES}, got {files}");
            Err(FieldError::new("files", message))
        }
        (Some(file_size), files) => Ok(Some(Rotation { file_size, files })),
    }
}

fn wait(raw: &RawCapture) -> Result<Option<Wait>, FieldError> {
    let Some(before) = above_zero("before", raw.before.as_deref(), MAX_BEFORE)? else {
        let field = match (raw.on.is_empty(), &raw.after) {
            (true, None) => return Ok(None),
            (false, _) => "on",
            (true, Some(_)) => "after",
        };
        let message = "needs `before`, how much is kept in memory until then, such as 30s";
        return Err(FieldError::new(field, message));
    };
    let on = raw.on.iter().enumerate().map(|(index, text)| {
        Trigger::parse(text).map_err(|message| FieldError::new(format!("on[{index}]"), message))
    });
    let after = raw.after.as_deref();
    let after = after
        .map(|after| time("after", after, MAX_DURATION))
        .transpose()?;
    Ok(Some(Wait {
        before,
        on: on.collect::<Result<_, _>>()?,
        after: after.unwrap_or(DEFAULT_AFTER),
    }))
}

fn above_zero(field: &str, text: Option<&str>, max: Duration) -> Result<Option<Duration>, FieldError> {
    let parsed = text.map(|text| time(field, text, max)).transpose()?;
    if parsed.is_some_and(|time| time.is_zero()) {
        return Err(FieldError::new(field, "must be above 0"));
    }
    Ok(parsed)
}

fn bytes(field: &str, text: Option<&str>, least: u64) -> Result<Option<u64>, FieldError> {
    let Some(text) = text else { return Ok(None) };
    let bytes = parse_bytes(text).map_err(|message| FieldError::new(field, message))?;
    if bytes < least {
        return Err(FieldError::new(
            field,
            format_args!("must be at least {least} bytes, got {text}"),
        ));
    }
    Ok(Some(bytes))
}

impl From<&CaptureSpec> for RawCapture {
    fn from(spec: &CaptureSpec) -> Self {
        let sized = |bytes: u64| format!("{bytes}B");
        let wait = spec.wait.as_ref();
        Self {
            from: RawEnd::from(&spec.selector.from),
            to: RawEnd::from(&spec.selector.to),
            everything: spec.selector.everything,
            filter: spec.filter.clone(),
            interfaces: spec.interfaces.iter().map(ToString::to_string).collect(),
            duplicates: spec.duplicates,
            legs: spec.legs,
            sample: (spec.sample != 1).then_some(spec.sample),
            snaplen: Some(spec.snaplen),
            count: spec.count,
            duration: spec.duration.map(format_duration),
            size: spec.size.map(sized),
            file_size: spec.rotation.map(|rotation| sized(rotation.file_size)),
            files: spec.rotation.and_then(|rotation| rotation.files),
            keep: spec.keep,
            before: wait.map(|wait| format_duration(wait.before)),
            on: wait
                .map(|wait| wait.on.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            after: wait.map(|wait| format_duration(wait.after)),
            no_secrets: !spec.secrets,
        }
    }
}

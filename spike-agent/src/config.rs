//! What the agent is told at its start: built-in values, then `spike.toml`, then the command line.

mod history;
mod listen;
mod otlp;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

use otlp::Interval;

use crate::model::{ServiceRule, Thresholds, service_rule::RawServiceRule, units::parse_bytes};

pub use listen::Listen;
pub use otlp::{Endpoint, Header, Otlp};

/// Where the agent answers unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/spike/spike.sock";
/// What decoding may take unless it is told otherwise, in percent of one core.
const DEFAULT_BUDGET: f64 = 5.0;
/// Edges of the map with metrics of their own unless it is told otherwise.
const DEFAULT_METRICS_EDGES: u16 = 2000;
/// What kept captures may take of the disk unless it is told otherwise, in bytes.
const DEFAULT_CAPTURE_QUOTA: u64 = 10_000_000_000;
/// Where the agent keeps what it must find again.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/spike";

/// What the agent runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Loopback address of the HTTP API, or off.
    pub listen: Listen,
    /// Unix socket of the HTTP API.
    pub socket: PathBuf,
    /// Directory of the token and of what a crash would leave behind.
    pub state_dir: PathBuf,
    /// Directory of the cgroup to observe; `None` means the root of the cgroup2 hierarchy, wherever it is mounted.
    pub cgroup: Option<PathBuf>,
    /// Least level of what is logged.
    pub log_level: LogLevel,
    /// What decoding of protocols may take, in percent of one processor core; 0 turns it off.
    pub decode_budget: f64,
    /// Loopback address at which Toxiproxy's API is spoken, or off.
    pub toxiproxy: Listen,
    /// Edges that have metrics of their own; the rest is summed up.
    pub metrics_edges: u16,
    /// Where metrics and spans are pushed to.
    pub otlp: Option<Otlp>,
    /// Directory of the captures that are kept; `None` means `captures` in the state directory.
    pub capture_dir: Option<PathBuf>,
    /// Bytes that the captures that are kept may take.
    pub capture_quota: u64,
    /// Names of services, the first that matches first; in the file alone.
    pub services: Vec<ServiceRule>,
    /// Length of the steps of the map's history.
    pub history_step: Duration,
    /// Size that the map's history is cut down to, in bytes; 0 for no history.
    pub history_size: u64,
    /// When something on the map is a finding; in the file alone.
    pub analysis: Thresholds,
}

/// How much the agent tells on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what may be wrong.
    Warn,
    /// And what operators asked for.
    #[default]
    Info,
    /// And what the agent decides.
    Debug,
    /// And what it sees.
    Trace,
}

/// Values that were said, on the command line or in the file; what was not said is `None`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Said {
    /// Loopback address of the HTTP API, or `off` [default: 127.0.0.1:7390]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<Listen>,
    /// Unix socket of the HTTP API [default: /run/spike/spike.sock]
    #[arg(long, value_name = "PATH", env = "SPIKE_SOCKET")]
    socket: Option<PathBuf>,
    /// Directory for the API's token and for what must be found again after a crash [default: /var/lib/spike]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Directory of the cgroup to observe [default: the root of the cgroup2 hierarchy, found]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// How much to tell on standard error [default: info]
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// What decoding of protocols may take, in percent of one processor core, 0 for no decoding [default: 5]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    #[serde(default, deserialize_with = "said_percent")]
    decode_budget: Option<f64>,
    /// Speak Toxiproxy's HTTP API, too, at this loopback address, such as 127.0.0.1:8474 [default: off]
    #[arg(long, value_name = "ADDRESS:PORT")]
    toxiproxy: Option<Listen>,
    /// Edges of the map with metrics of their own; those with less traffic are summed up [default: 2000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=8192))]
    metrics_edges: Option<u16>,
    /// Push metrics, and spans of decoded calls, to the collector at this URL by OTLP over HTTP
    #[arg(long, value_name = "URL")]
    otlp: Option<Endpoint>,
    /// Time between two pushes of metrics, 1s to 1h [default: 15s]
    #[arg(long, value_name = "TIME")]
    otlp_interval: Option<Interval>,
    /// Header for each push, such as one with a token; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(default)]
    otlp_header: Vec<Header>,
    /// Directory of the captures that are kept [default: captures in the state directory]
    #[arg(long, value_name = "DIR")]
    capture_dir: Option<PathBuf>,
    /// What the captures that are kept may take of the disk [default: 10GB]
    #[arg(long, value_name = "SIZE")]
    capture_quota: Option<String>,
    /// Length of the steps in which the map's history is kept for a day, 1s to 60s [default: 10s]
    #[arg(long, value_name = "TIME")]
    history_step: Option<history::Step>,
    /// Size that the map's history is cut down to, such as 64MiB, or `off` [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    history_size: Option<history::Size>,
    /// The `[analysis]` section, which only the file can have.
    #[arg(skip)]
    #[serde(default)]
    analysis: Option<Thresholds>,
    /// `[[service]]` sections, which only the file can have.
    #[arg(skip)]
    #[serde(default)]
    service: Vec<RawServiceRule>,
}

impl AgentConfig {
    /// Joins the command line with the file, if there is one; the command line wins.
    pub fn load(line: Said, file: Option<&Path>) -> Result<Self> {
        let (file, services) = match file {
            Some(path) => read_file(path)?,
            None => (Said::default(), Vec::new()),
        };
        let endpoint = line.otlp.or(file.otlp);
        let headers = if line.otlp_header.is_empty() {
            file.otlp_header
        } else {
            line.otlp_header
        };
        let interval = line.otlp_interval.or(file.otlp_interval);
        if endpoint.is_none() && (interval.is_some() || !headers.is_empty()) {
            bail!("otlp-interval and otlp-header need otlp, the URL of a collector");
        }
        let metrics_edges = line.metrics_edges.or(file.metrics_edges);
        let metrics_edges = metrics_edges.unwrap_or(DEFAULT_METRICS_EDGES);
        ensure!(
            (1..=8192).contains(&metrics_edges),
            "metrics-edges is {metrics_edges}, not within 1 to 8192"
        );
        let capture_quota = line.capture_quota.or(file.capture_quota);
        let capture_quota = capture_quota
            .as_deref()
            .map_or(Ok(DEFAULT_CAPTURE_QUOTA), parse_bytes);
        let capture_quota = capture_quota.map_err(|message| anyhow!("capture-quota: {message}"))?;
        Ok(Self {
            listen: line.listen.or(file.listen).unwrap_or_default(),
            socket: line
                .socket
                .or(file.socket)
                .unwrap_or_else(|| DEFAULT_SOCKET.into()),
            state_dir: line
                .state_dir
                .or(file.state_dir)
                .unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            cgroup: line.cgroup.or(file.cgroup),
            log_level: line.log_level.or(file.log_level).unwrap_or_default(),
            decode_budget: line
                .decode_budget
                .or(file.decode_budget)
                .unwrap_or(DEFAULT_BUDGET),
            toxiproxy: line.toxiproxy.or(file.toxiproxy).unwrap_or(Listen::Off),
            metrics_edges,
            otlp: endpoint.map(|endpoint| Otlp {
                endpoint,
                interval: interval.map_or(otlp::DEFAULT_INTERVAL, |interval| interval.0),
                headers,
            }),
            capture_dir: line.capture_dir.or(file.capture_dir),
            capture_quota,
            services,
            history_step: line
                .history_step
                .or(file.history_step)
                .map_or(history::DEFAULT_STEP, |step| step.0),
            history_size: line
                .history_size
                .or(file.history_size)
                .map_or(history::DEFAULT_SIZE, |size| size.0),
            analysis: file.analysis.unwrap_or_default(),
        })
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    check_percent(number)
}

fn check_percent(number: f64) -> Result<f64, String> {
    if (0.0..=100.0).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is not within 0 to 100 percent"))
    }
}

fn said_percent<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let number = f64::deserialize(from)?;
    check_percent(number).map(Some).map_err(serde::de::Error::custom)
}

/// Errors show the line and the key; of a service's rule which it is, the key, and its name.
fn read_file(path: &Path) -> Result<(Said, Vec<ServiceRule>)> {
    let shown = || format!("read the configuration {}", path.display());
    let text = std::fs::read_to_string(path).with_context(shown)?;
    let mut said: Said = toml::from_str(&text).with_context(shown)?;
    if let Some(thresholds) = &said.analysis {
        thresholds
            .check()
            .map_err(anyhow::Error::msg)
            .with_context(shown)?;
    }
    let rules = std::mem::take(&mut said.service).into_iter().enumerate();
    let rules = rules.map(|(index, raw)| {
        let rule = ServiceRule::try_from(raw);
        rule.map_err(|error| error.within(&format!("service number {}", index + 1)))
    });
    let rules = rules.collect::<Result<_, _>>().with_context(shown)?;
    Ok((said, rules))
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, line: Said) -> Result<AgentConfig> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        AgentConfig::load(line, Some(file.path()))
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let line = Said {
            log_level: Some(LogLevel::Warn),
            ..Said::default()
        };
        let config = load(
            "listen = \"off\"\nlog-level = \"trace\"\nstate-dir = \"/s\"",
            line,
        )
        .unwrap();
        assert_eq!((config.listen, config.log_level), (Listen::Off, LogLevel::Warn));
        assert_eq!(config.state_dir, Path::new("/s"));
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
    }

    #[test]
    fn a_wrong_file_names_the_key() {
        for (toml, wanted) in [
            ("socket_path = \"/x\"", "socket_path"),
            ("listen = \"0.0.0.0:7390\"", "loopback"),
            ("listen = 7390", "listen"),
            ("log-level = \"loud\"", "loud"),
            ("decode-budget = 101.0", "0 to 100"),
            ("metrics-edges = 0", "1 to 8192"),
            ("otlp = \"collector:4318\"", "neither http"),
            ("otlp-interval = \"10s\"", "need otlp"),
            ("otlp = \"http://c\"\notlp-header = [\"x\"]", "NAME=VALUE"),
            ("[[service]]\nname = \"pay\"", "service number 1.name"),
            (
                "[[service]]\nname = \"a\"\nport = 1\n[[service]]\nname = \"b\"\nunit = \"[\"",
                "number 2.unit",
            ),
            ("[[service]]\nname = \"a\"\nport = 1\nportt = 2", "portt"),
            ("[service]\nname = \"a\"", "service"),
            ("history-step = \"2m\"", "1s to 60s"),
            ("history-size = \"4kB\"", "1MiB"),
            ("[analysis]\nchain-lenght = 3", "chain-lenght"),
            ("[analysis]\nchain-length = 1", "analysis.chain-length"),
            ("[analysis]\nidle = 5", "idle"),
            ("[analysis]\nerror-percent = 0.0", "analysis.error-percent"),
        ] {
            let error = format!("{:#}", load(toml, Said::default()).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
        let missing = AgentConfig::load(Said::default(), Some(Path::new("/nowhere/spike.toml")));
        assert!(missing.unwrap_err().to_string().contains("/nowhere/spike.toml"));
    }

    #[test]
    fn the_example_is_a_whole_configuration() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spike.toml");
        let config = AgentConfig::load(Said::default(), Some(Path::new(path))).unwrap();
        assert_eq!(config.listen, Listen::default());
        assert_eq!(config.state_dir, Path::new(DEFAULT_STATE_DIR));
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
        let names: Vec<&str> = config.services.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["pay", "search", "orders-db", "batch"]);
        let built_in = AgentConfig::load(Said::default(), None).unwrap();
        assert_eq!(config.analysis, built_in.analysis);
        assert_eq!(config.history_step, built_in.history_step);
        assert_eq!(config.history_size, built_in.history_size);
    }
}

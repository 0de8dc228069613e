//! `spike replay drive`: sends recorded requests again, and reports where the answers differ; works without an agent.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    super::output::{note, print, print_json},
    noise,
};
use crate::{
    model::units::parse_duration,
    replay::{
        Noise,
        drive::{Changes, Login, Options, Pace, Target, drive, report},
        load,
    },
};

/// Width of the progress bar.
const BAR: u64 = 30;

#[derive(Debug, Args)]
pub(super) struct DriveArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the requests are sent: host:port, or a URL such as http://localhost:8080
    #[arg(long, value_name = "URL|HOST:PORT")]
    target: Target,
    /// The recorded server whose requests are sent; not needed when there is one
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: Option<String>,
    /// Send them so many times as fast as recorded, such as 2x or 0.5x
    #[arg(long, value_name = "FACTOR", default_value = "1x", value_parser = speed, conflicts_with = "rate")]
    speed: f64,
    /// Send so many requests a second, in recorded order
    #[arg(long, value_name = "PER SECOND", value_parser = positive)]
    rate: Option<f64>,
    /// Requests under way at one time; without --rate they are sent as fast as answers come
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
    /// Send all of it so many times; without a number until Ctrl-C
    #[arg(long = "loop", value_name = "TIMES", num_args = 0..=1, default_missing_value = "0", require_equals = true)]
    rounds: Option<u64>,
    /// Header that is set in each request, such as 'Authorization: Bearer x'; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Text that is replaced in path, headers and body; may be given several times
    #[arg(long, value_name = "OLD=NEW")]
    replace: Vec<String>,
    /// Part of answers, such as body.token, whose new value takes the recorded one's place in later requests
    #[arg(long, value_name = "PART")]
    carry: Vec<String>,
    /// Send the recorded Host header, and not the target's
    #[arg(long)]
    keep_host: bool,
    /// File with rules of noise, as `spike replay learn` writes it; may be given several times
    #[arg(long, value_name = "FILE")]
    noise: Vec<PathBuf>,
    /// User of PostgreSQL to log in as, in place of the recorded one; PGPASSWORD has the password
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Database of PostgreSQL to log in to, in place of the recorded one
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Also write the report as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also write the report as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn speed(text: &str) -> Result<f64, String> {
    positive(text.strip_suffix('x').unwrap_or(text))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (1e-3..=1e6).contains(number))
        .ok_or_else(|| format!("`{text}` is not a number from 0.001 to 1000000"))
}

pub(super) async fn run(args: DriveArgs, json: bool) -> Result<ExitCode> {
    let headers = pairs(&args.headers, ':', "--header", "NAME: VALUE")?;
    let replace = pairs(&args.replace, '=', "--replace", "OLD=NEW")?;
    let loaded = load(&args.file)?;
    let options = Options {
        target: args.target,
        server: args.server,
        pace: args.rate.map_or(Pace::Speed(args.speed), Pace::Rate),
        concurrency: args.concurrency.map(usize::from),
        rounds: args.rounds.unwrap_or(1),
        changes: Changes {
            keep_host: args.keep_host,
            headers,
            replace,
            carry: args.carry,
        },
        noise: Noise {
            rules: noise(&args.noise)?,
        },
        patience: args.timeout,
        login: Login {
            user: args.user,
            database: args.database,
            password: std::env::var("PGPASSWORD").ok(),
        },
    };
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        interrupt.recv().await;
        stopping.cancel();
    });
    let shows = stderr().is_terminal();
    let shown = |done, total| {
        if shows {
            show(done, total);
        }
    };
    let report = drive(&loaded.talks, options, shown, stop).await?;
    if shows {
        let _ = write!(stderr(), "\r\x1b[K");
    }
    if let Some(path) = &args.junit {
        write(path, report::junit(&report))?;
    }
    if let Some(path) = &args.html {
        write(path, report::html(&report))?;
    }
    if json {
        print_json(&report)?;
    } else {
        print(report::text(&report))?;
    }
    if report.requests == 0 {
        note("nothing was sent");
    }
    Ok(if report.is_same() && report.requests > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(path: &Path, text: String) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn pairs(words: &[String], between: char, option: &str, shape: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for word in words {
        match word.split_once(between) {
            Some((name, value)) if !name.trim().is_empty() => {
                let value = if between == ':' { value.trim() } else { value };
                pairs.push((name.trim().to_owned(), value.to_owned()));
            }
            _ => bail!("{option} '{word}': say {shape}"),
        }
    }
    Ok(pairs)
}

/// Draws how far it is.
fn show(done: u64, total: u64) {
    let bar = match total {
        0 => String::new(),
        total => {
            let full = (done * BAR / total).min(BAR) as usize;
            format!("[{}{}] ", "#".repeat(full), " ".repeat(BAR as usize - full))
        }
    };
    let of = if total == 0 {
        String::new()
    } else {
        format!(" of {total}")
    };
    // A terminal that cannot be written to is no reason to stop.
    let _ = write!(stderr(), "\r{bar}{done}{of} requests\x1b[K");
}

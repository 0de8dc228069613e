//! `spike replay stub`: has the agent answer calls from a recording, and tells what it was asked in vain.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    super::{
        client::Client,
        output::{note, print, print_json},
    },
    noise, stub_path,
};
use crate::model::{
    Lifetime, OnMiss, RawEnd, RawStub,
    fault_words::EndWords,
    view::{MissList, StubView},
};

/// Exit status of what is strict when a request was not recorded.
const MISSED: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct StubArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    ends: EndWords,
    #[command(flatten)]
    words: StubWords,
    /// Name of the stub
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Leave the stub in the agent, and return at once
    #[arg(long)]
    detach: bool,
    /// Time after which it ends by itself, at most 24h [default: 24h; with --detach 10m]
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
}

/// How a stub answers, in words.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct StubWords {
    /// Recorded waits: recorded, none, or a factor such as 2x [default: none]
    #[arg(long, value_name = "recorded|none|2x")]
    latency: Option<String>,
    /// What becomes of a request that was not recorded [default: fail]
    #[arg(
        long,
        value_enum,
        value_name = "fail|pass|record",
        hide_default_value = true,
        default_value_t
    )]
    miss: OnMiss,
    /// How long it is remembered which answers were given [default: session]
    #[arg(long, value_enum, hide_default_value = true, default_value_t)]
    lifetime: Lifetime,
    /// Header that requests of HTTP are also found by; may be given several times
    #[arg(long = "match-header", value_name = "NAME")]
    headers: Vec<String>,
    /// File with rules of noise, as `spike replay learn` writes it; may be given several times
    #[arg(long, value_name = "FILE")]
    noise: Vec<PathBuf>,
    /// Exit with status 3 when a request was not recorded
    #[arg(long)]
    pub(in crate::cli) strict: bool,
}

impl StubWords {
    /// The request for a stub with this recording.
    ///
    /// # Errors
    /// When a file is not there.
    pub(in crate::cli) fn to_raw(&self, file: &std::path::Path) -> Result<RawStub> {
        let absolute = std::fs::canonicalize(file).with_context(|| format!("read {}", file.display()))?;
        let file = absolute.to_str().context("the recording's path is not UTF-8")?;
        Ok(RawStub {
            file: file.to_owned(),
            latency: self.latency.clone(),
            miss: self.miss,
            lifetime: self.lifetime,
            headers: self.headers.clone(),
            noise: noise(&self.noise)?,
            ..RawStub::default()
        })
    }
}

pub(super) async fn run(client: &Client, json: bool, args: StubArgs) -> Result<ExitCode> {
    // Before anything is started, so that no signal is missed.
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("watch for SIGHUP")?;
    let (from, to): (RawEnd, RawEnd) = (args.ends.from()?, args.ends.to()?);
    let request = RawStub {
        name: args.name,
        from,
        to,
        ttl: args.ttl.or_else(|| (!args.detach).then(|| "24h".to_owned())),
        attached: !args.detach,
        ..args.words.to_raw(&args.file)?
    };
    let view: StubView = client.post("/v1/replays", &request).await?;
    for why in &view.left_out {
        note(format_args!("not replayed: {why}"));
    }
    if args.detach {
        return if json {
            print_json(&view).map(|()| ExitCode::SUCCESS)
        } else {
            print(format_args!("{}\n", view.name)).map(|()| ExitCode::SUCCESS)
        };
    }
    note(format_args!(
        "{} answers for {}; Ctrl-C ends it",
        view.name,
        servers(&view)
    ));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    let path = stub_path(&view.name);
    let misses: MissList = client.get(&format!("{path}/misses")).await?;
    let view: StubView = client.delete(&path).await?;
    if json {
        print_json(&serde_json::json!({"stub": view, "misses": misses.misses}))?;
    } else {
        report(&view, &misses);
    }
    Ok(status(args.words.strict, &view))
}

/// Tells what a stub did, and what it was asked in vain.
pub(in crate::cli) fn report(view: &StubView, misses: &MissList) {
    note(format_args!(
        "{}: {} connections, {} requests answered, {} not recorded",
        view.name, view.connections, view.answered, view.missed
    ));
    for miss in &misses.misses {
        note(format_args!(
            "{} ({} times, asked of {})",
            miss.text, miss.count, miss.server
        ));
    }
}

fn status(strict: bool, view: &StubView) -> ExitCode {
    if strict && view.missed > 0 {
        ExitCode::from(MISSED)
    } else {
        ExitCode::SUCCESS
    }
}

fn servers(view: &StubView) -> String {
    let names = view.servers.iter().map(|server| match &server.host {
        Some(host) => format!("{host} ({})", server.server),
        None => server.server.clone(),
    });
    names.collect::<Vec<_>>().join(", ")
}

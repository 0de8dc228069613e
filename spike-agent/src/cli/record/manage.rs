//! Recordings of the agent: start, stop, list.

use anyhow::{Result, bail};
use clap::Args;

use super::words::RecordWords;
use crate::cli::{
    client::Client,
    human,
    output::{note, print, print_json},
    table::{Column, Table},
};
use crate::model::view::{RecordingList, RecordingView};

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    words: RecordWords,
    /// Print the recording as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StopArgs {
    #[command(flatten)]
    client: Client,
    /// Recordings, as `spike record list` shows them [default: the one that runs]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Print the recordings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn start(args: StartArgs) -> Result<()> {
    let view: RecordingView = args.client.post("/v1/recordings", &args.words.to_raw()?).await?;
    if args.json {
        return print_json(&view);
    }
    note(format_args!("recording to {}", view.file));
    print(format_args!("{}\n", view.id))
}

pub(super) async fn stop(args: StopArgs) -> Result<()> {
    let mut ids = args.ids;
    if ids.is_empty() {
        let list: RecordingList = args.client.get("/v1/recordings").await?;
        let running = list.recordings.into_iter().filter(|recording| recording.running);
        ids = running.map(|recording| recording.id).collect();
        match ids.len() {
            0 => bail!("no recording runs"),
            1 => {}
            _ => bail!("{} recordings run: say which, of {}", ids.len(), ids.join(", ")),
        }
    }
    let mut stopped = Vec::new();
    for id in &ids {
        let view: RecordingView = args
            .client
            .post(&format!("/v1/recordings/{id}/stop"), &())
            .await?;
        note(summary(&view));
        stopped.push(view);
    }
    if args.json {
        print_json(&RecordingList { recordings: stopped })?;
    }
    Ok(())
}

/// What is in a recording, in a line.
pub(in crate::cli) fn summary(view: &RecordingView) -> String {
    let mut text = format!(
        "{}: {} calls in {} connections, {}",
        view.file,
        view.calls,
        view.connections,
        human::bytes(view.bytes)
    );
    if view.lost_bytes > 0 {
        text += &format!("; {} lost as the disk was behind", human::bytes(view.lost_bytes));
    }
    if view.cut_bytes > 0 {
        text += &format!("; {} beyond the body limit", human::bytes(view.cut_bytes));
    }
    if let Some(why) = &view.note {
        text += &format!("; it ended early: {why}");
    }
    text
}

pub(super) async fn list(args: ListArgs) -> Result<()> {
    let list: RecordingList = args.client.get("/v1/recordings").await?;
    if args.json {
        return print_json(&list);
    }
    if list.recordings.is_empty() {
        return print("no recordings\n");
    }
    let mut table = Table::new([
        Column::Text("ID"),
        Column::Text("STATE"),
        Column::Number("CONNECTIONS"),
        Column::Number("CALLS"),
        Column::Number("SIZE"),
        Column::Number("LOST"),
        Column::Text("FILE"),
        Column::Text("NOTE"),
    ]);
    for view in &list.recordings {
        table.row([
            view.id.clone(),
            if view.running { "running" } else { "ended" }.to_owned(),
            view.connections.to_string(),
            view.calls.to_string(),
            human::bytes(view.bytes),
            human::bytes(view.lost_bytes),
            view.file.clone(),
            view.note.clone().unwrap_or_default(),
        ]);
    }
    print(table)
}

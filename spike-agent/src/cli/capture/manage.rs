//! Captures that the agent keeps: start, list, stop, export, remove, trigger.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{Format, words::CaptureWords};
use crate::cli::{
    client::Client,
    human,
    output::{note, print, print_json},
    recorder::{Recorder, Target},
    table::{Column, Table},
};
use crate::model::{
    RawCapture,
    view::{CaptureList, CaptureState, CaptureView},
};

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    words: CaptureWords,
    /// Print the capture as JSON
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

#[derive(Debug, Args)]
pub(super) struct IdArgs {
    #[command(flatten)]
    client: Client,
    /// Captures, as `spike capture list` shows them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    client: Client,
    /// The capture, as `spike capture list` shows it
    id: String,
    /// File to write, `-` for standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: PathBuf,
    /// Go on until the capture ends
    #[arg(long)]
    follow: bool,
    /// Format of the file
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn start(args: StartArgs) -> Result<()> {
    let request = RawCapture {
        keep: true,
        ..args.words.to_raw()?
    };
    let view: CaptureView = args.client.post("/v1/captures", &request).await?;
    if args.json {
        return print_json(&view);
    }
    print(format_args!("{}\n", view.id))
}

pub(super) async fn list(args: ListArgs) -> Result<()> {
    let list: CaptureList = args.client.get("/v1/captures").await?;
    if args.json {
        return print_json(&list);
    }
    if list.captures.is_empty() {
        return print("no captures\n");
    }
    let mut table = Table::new([
        Column::Text("ID"),
        Column::Text("STATE"),
        Column::Number("PACKETS"),
        Column::Number("LOST"),
        Column::Number("SIZE"),
        Column::Number("FILES"),
        Column::Text("INTERFACES"),
        Column::Text("NOTE"),
    ]);
    for capture in &list.captures {
        let state = match capture.state {
            CaptureState::Waiting => "waiting",
            CaptureState::Running => "running",
            CaptureState::Ended => "ended",
        };
        let triggered = capture
            .triggered
            .as_ref()
            .map(|what| format!("triggered: {what}"));
        let notes: Vec<String> = triggered.into_iter().chain(capture.note.clone()).collect();
        table.row([
            capture.id.clone(),
            state.to_owned(),
            capture.packets.to_string(),
            capture.dropped.to_string(),
            human::bytes(capture.bytes),
            capture.files.to_string(),
            shortened(&capture.interfaces),
            notes.join("; "),
        ]);
    }
    print(table)
}

/// A few names, and how many more there are.
fn shortened(names: &[String]) -> String {
    match names {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first} {second} {third} +{}", rest.len())
        }
        few => few.join(" "),
    }
}

pub(super) async fn stop(args: IdArgs) -> Result<()> {
    for id in &args.ids {
        let view: CaptureView = args.client.post(&format!("/v1/captures/{id}/stop"), &()).await?;
        note(format_args!(
            "{id}: {} packets, {} lost",
            view.packets, view.dropped
        ));
    }
    Ok(())
}

pub(super) async fn remove(args: IdArgs) -> Result<()> {
    for id in &args.ids {
        args.client
            .delete::<CaptureView>(&format!("/v1/captures/{id}"))
            .await?;
    }
    Ok(())
}

pub(super) async fn trigger(args: IdArgs) -> Result<()> {
    for id in &args.ids {
        args.client
            .post::<CaptureView>(&format!("/v1/captures/{id}/trigger"), &())
            .await?;
    }
    Ok(())
}

pub(super) async fn export(args: ExportArgs) -> Result<()> {
    let view: CaptureView = args.client.get(&format!("/v1/captures/{}", args.id)).await?;
    let target = Target {
        output: args.output,
        is_pcap: args.format == Format::Pcap,
        files: None,
    };
    let recorder = Recorder::read(&args.client, view, target, args.follow).await?;
    note(recorder.write_all().await?);
    Ok(())
}

//! `spike panic`: everything off.

use anyhow::Result;
use clap::Args;

use super::{
    client::Client,
    output::{print, print_json},
};
use crate::model::view::PanicView;

#[derive(Debug, Args)]
pub(super) struct PanicArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: PanicArgs) -> Result<()> {
    let undone: PanicView = args.client.post("/v1/panic", &()).await?;
    if args.json {
        return print_json(&undone);
    }
    let PanicView {
        faults,
        captures,
        recordings,
        stubs,
    } = undone;
    print(format_args!(
        "everything is off: {} faults removed, {} captures and {} recordings stopped, {} stubs ended\n",
        faults.len(),
        captures.len(),
        recordings.len(),
        stubs.len()
    ))
}

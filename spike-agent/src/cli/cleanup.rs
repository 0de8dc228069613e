//! `spike cleanup`: removes what a killed agent left behind.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::output::{note, print, print_json};
use crate::{
    config::DEFAULT_STATE_DIR,
    safety::{self, Cleanup, CleanupOptions},
};

#[derive(Debug, Args)]
pub(super) struct CleanupArgs {
    /// Only look: change nothing, and exit with 1 when something is left
    #[arg(long)]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// State directory of the agent
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
}

/// Fails when something is left in the end.
pub(super) fn run(args: &CleanupArgs) -> Result<ExitCode> {
    let options = CleanupOptions {
        state_dir: &args.state_dir,
        check: args.check,
        held: None,
    };
    let cleanup = safety::cleanup(options)?;
    if let Some(agent) = cleanup.agent {
        let pid = agent.pid.map(|pid| format!(", pid {pid},")).unwrap_or_default();
        note(format_args!(
            "an agent{pid} is at work: what may be its own was not looked at"
        ));
    }
    if args.json {
        print_json(&cleanup)?
    } else {
        print(describe(&cleanup))?
    }
    let is_clean = cleanup.leftovers.iter().all(|leftover| leftover.removed);
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(cleanup: &Cleanup) -> String {
    if cleanup.leftovers.is_empty() {
        return "nothing is left behind\n".to_owned();
    }
    let line = |leftover: &safety::Leftover| match (leftover.removed, &leftover.problem) {
        (true, _) => format!("removed: {}\n", leftover.what),
        (false, None) => format!("left behind: {}\n", leftover.what),
        (false, Some(problem)) => format!("left behind: {}: {problem}\n", leftover.what),
    };
    cleanup.leftovers.iter().map(line).collect()
}

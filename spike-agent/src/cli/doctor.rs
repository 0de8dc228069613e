//! `spike doctor`: which kernel facilities are there, and what is lost without the others.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{
    output::{print, print_json},
    table::{Column, Table},
};
use crate::doctor::{self, Check, Report};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Fails when something is missing that nothing works without.
pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let report = doctor::report();
    if args.json {
        print_json(&report)?;
    } else {
        print(describe(&report))?;
    }
    Ok(if report.is_ready() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(report: &Report) -> String {
    let mut table = Table::new([
        Column::Text("FACILITY"),
        Column::Text("STATE"),
        Column::Text("DETAIL"),
    ]);
    let mut missing = String::new();
    for check in &report.checks {
        let Check {
            name,
            detail,
            lost,
            remedy,
            ..
        } = check;
        table.row([(*name).to_owned(), state(check).to_owned(), detail.clone()]);
        if !check.present {
            missing += &format!(
                "\n{name}: {}\n  lost without it: {lost}\n  remedy: {remedy}\n",
                state(check)
            );
        }
    }
    let verdict = match report.is_ready() {
        true => "everything that the agent needs is there",
        false => "the agent cannot start here",
    };
    format!("{table}{missing}\n{verdict}\n")
}

fn state(check: &Check) -> &'static str {
    match check {
        Check { present: true, .. } => "present",
        Check { known: false, .. } => "unknown",
        Check { required: true, .. } => "MISSING, needed",
        Check { required: false, .. } => "missing",
    }
}

//! Spike's build, test, lint, bench, demo and VM verbs, so that a person and CI run the same commands.

mod bench;
mod build;
mod cargo;
mod demo;
mod kernel_build;
mod lint;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, tests and checks Spike.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(build::Options),
    Test(test::Options),
    Lint(lint::Options),
    Tidy(tidy::Options),
    Bench(bench::Options),
    Demo(demo::Options),
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().verb {
        Verb::Build(options) => build::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Lint(options) => lint::run(&options),
        Verb::Tidy(options) => tidy::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Vm(options) => vm::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

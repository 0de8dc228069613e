//! The `spike` program: reads the command line and runs what it says.

fn main() -> std::process::ExitCode {
    spike_agent::cli::main()
}

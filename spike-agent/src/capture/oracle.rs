//! Asks Wireshark's tools what they read in a capture, so that tests do not judge a writer by its own reader.

use std::io::Write;
use std::process::{Command, Output};

/// One row of `fields` for each packet of the file; none where tshark is not installed.
///
/// # Panics
///
/// When tshark says anything on standard error, or is missing although `SPIKE_REQUIRE_ROOT=1` asks for every test.
pub(crate) fn tshark(file: &[u8], fields: &[&str]) -> Option<Vec<Vec<String>>> {
    // Checksums are checked, names not looked up: the answer depends on the file alone.
    let mut args = vec![
        "-n",
        "-otcp.check_checksum:TRUE",
        "-oip.check_checksum:TRUE",
        "-Tfields",
        "-Eoccurrence=f",
    ];
    args.extend(fields.iter().flat_map(|field| ["-e", field]));
    let rows = run("tshark", &args, file)?;
    Some(
        rows.lines()
            .map(|row| row.split('\t').map(str::to_owned).collect())
            .collect(),
    )
}

/// What capinfos says of the file; none where it is not installed.
pub(crate) fn capinfos(file: &[u8]) -> Option<String> {
    run("capinfos", &[], file)
}

fn run(tool: &str, args: &[&str], file: &[u8]) -> Option<String> {
    let mut path = tempfile::Builder::new().suffix(".pcapng").tempfile().unwrap();
    path.write_all(file).unwrap();
    let mut command = Command::new(tool);
    if tool == "tshark" {
        command.arg("-r");
    }
    let output = match command
        .arg(path.path())
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .output()
    {
        Ok(output) => output,
        Err(error) if std::env::var_os("SPIKE_REQUIRE_ROOT").is_none_or(|value| value != "1") => {
            eprintln!("not compared with {tool}: {error}");
            return None;
        }
        Err(error) => panic!("run {tool}: {error}; install the package tshark"),
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let complaints: Vec<&str> = str::from_utf8(&stderr)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("Running as user \"root\""))
        .collect();
    assert!(
        status.success() && complaints.is_empty(),
        "{tool} {status}: {complaints:#?}"
    );
    Some(String::from_utf8(stdout).unwrap())
}

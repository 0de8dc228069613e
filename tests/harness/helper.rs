//! Small servers and clients with special habits, run as processes of their own: `system --helper NAME ARGS`.
//!
//! Each prints what it saw on standard output, one line a thing; errors have the kernel's names.

mod client;
mod datagram;
mod datagrams;
mod server;

use std::{io, process::ExitCode};

/// Runs a helper when the command line asks for one.
pub fn main() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != "--helper" {
        return None;
    }
    let args: Vec<String> = args.collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["echo", address] => server::echo(address),
        ["greet", address] => server::greet(address),
        ["count", address] => server::count(address),
        ["ask", address] => client::ask(address),
        ["listen-first", address] => client::listen_first(address),
        ["half-close", address] => client::half_close(address),
        ["nonblocking", address] => client::nonblocking(address),
        ["browse", address, calls, connections] => {
            client::browse(address, number(calls), number(connections))
        }
        ["bounce", address, bytes] => client::bounce(address, number(bytes)),
        ["churn", address, count, port] => client::churn(address, number(count), port_number(port)),
        ["spread", port, first, count] => client::spread(port_number(port), number(first), number(count)),
        ["many", address, count] => client::many(address, number(count)),
        ["hold", address] => client::hold(address),
        ["steady", address] => client::steady(address),
        ["connect", address] => client::connect(address),
        ["datagram-echo", address] => datagram::echo(address),
        ["datagrams", ref addresses @ ..] => datagram::unconnected(addresses),
        ["datagram-connected", address] => datagram::connected(address),
        ["send-datagrams", from, to, count, bytes, pause_us] => {
            datagrams::send(from, to, number(count), number(bytes), number(pause_us))
        }
        ["sink-datagrams", address] => datagrams::sink(address),
        ["compute-checksums", interface] => datagrams::compute_checksums(interface),
        _ => {
            eprintln!("no such helper: {words:?}");
            return Some(ExitCode::from(2));
        }
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", name_of(&error));
            ExitCode::FAILURE
        }
    })
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn port_number(text: &str) -> u16 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no port"))
}

/// The kernel's name of an error, as far as these helpers meet it.
fn name_of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "ECONNREFUSED".to_owned(),
        Some(libc::ECONNRESET) => "ECONNRESET".to_owned(),
        Some(libc::EPIPE) => "EPIPE".to_owned(),
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EAGAIN) => "EAGAIN".to_owned(),
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH".to_owned(),
        Some(libc::ETIMEDOUT) => "ETIMEDOUT".to_owned(),
        _ => error.to_string(),
    }
}

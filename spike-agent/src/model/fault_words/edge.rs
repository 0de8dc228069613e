//! The words of `spike fault add` that choose one edge of the map.

use std::net::IpAddr;

use crate::model::{ServiceKind, view::EdgeView};

/// ` --from ... --to ...` for the calls of an edge, to be put behind an effect and its options.
pub fn edge_words(view: &EdgeView) -> String {
    format!("{}{}", from_words(view), to_words(view))
}

/// ` --to ...` for all calls to where an edge leads.
pub fn to_words(view: &EdgeView) -> String {
    let port = format!(" --to port={}", view.destination.port);
    match view.destination.address.parse::<IpAddr>() {
        // A server's own wildcard is nobody's address.
        Ok(address) if !address.is_unspecified() => format!(" --to cidr={address}{port}"),
        _ => port,
    }
}

fn from_words(view: &EdgeView) -> String {
    let Some(caller) = &view.caller else {
        return String::new();
    };
    let program = caller.executable.rsplit('/').next().unwrap_or_default();
    let mut keys = Vec::new();
    if caller.cgroup.len() > 1 {
        keys.push(("cgroup", caller.cgroup.clone()));
    } else if caller.kind == ServiceKind::Executable && program != caller.service {
        // Named by its script: the program alone would be every script's.
        keys.push(("pid", caller.pid.to_string()));
    }
    // A bare name may be what the process calls itself, which no selector knows.
    if caller.executable.starts_with('/') {
        keys.push(("process", literal(&caller.executable)));
    }
    let word = |(key, value): &(&str, String)| match shlex::try_quote(value) {
        Ok(value) => format!(" --from {key}={value}"),
        // A path with a NUL in it: none that the kernel would give.
        Err(_) => String::new(),
    };
    keys.iter().map(word).collect()
}

/// A path as a pattern that means itself.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for letter in path.chars() {
        // A comma would divide the words.
        if "*?[]{},".contains(letter) {
            pattern.push('?');
        } else {
            pattern.push(letter);
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Fault,
        fault_words::FaultWords,
        view::{DestinationView, EndView},
    };

    fn edge(executable: &str, service: &str, cgroup: &str, address: &str) -> EdgeView {
        EdgeView {
            caller: Some(EndView {
                pid: 77,
                executable: executable.to_owned(),
                service: service.to_owned(),
                cgroup: cgroup.to_owned(),
                ..EndView::default()
            }),
            destination: DestinationView {
                address: address.to_owned(),
                port: 80,
                ..DestinationView::default()
            },
            ..EdgeView::default()
        }
    }

    #[test]
    fn the_words_are_a_fault_on_the_edge() {
        for (edge, wanted) in [
            (
                edge("/usr/bin/curl", "curl", "/shop/a", "10.0.0.1"),
                " --from cgroup=/shop/a --from process=/usr/bin/curl --to cidr=10.0.0.1 --to port=80",
            ),
            (
                edge("/usr/bin/python3.11", "pay.py", "/", "::1"),
                " --from pid=77 --from process=/usr/bin/python3.11 --to cidr=::1 --to port=80",
            ),
            (edge("curl", "curl", "/", "0.0.0.0"), " --to port=80"),
            (
                edge("/opt/a {b,c}/x", "x", "/", "::1"),
                " --from process='/opt/a ?b?c?/x' --to cidr=::1 --to port=80",
            ),
        ] {
            let words = edge_words(&edge);
            assert_eq!(words, wanted);
            let line = format!("latency --delay 1s{words} --ttl 1m");
            let raw = FaultWords::parse_str(&line).unwrap().to_raw().unwrap();
            Fault::try_from(&raw).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}

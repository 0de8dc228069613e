//! Which of the agent's modules may use which: dependencies point one way.

use std::path::Path;

use super::Finding;

/// A module of the agent and what it may use of the others; itself always.
///
/// The longest entry that a file lies under counts, so that a part may be given more than its whole. A module that is
/// not listed fails, so that its place is decided and not fallen into.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("lock", &[]),
    ("config", &["model"]),
    // The journal, for what a packet program leaves on an interface.
    ("kernel", &["lock", "model", "safety"]),
    ("fault", &["model"]),
    ("bus", &["model"]),
    ("identity", &["lock", "model"]),
    // Pure: fed with bytes by whoever has them.
    ("protocol", &[]),
    // The original destination comes to the proxy by a trait, so that it never needs `kernel`.
    ("proxy", &["lock", "model", "fault", "bus"]),
    ("calls", &["lock", "model", "protocol"]),
    // What is exported comes to it by a trait, so that it never needs `kernel` or `identity`.
    ("export", &["lock", "model", "config", "protocol", "calls"]),
    ("capture", &["model", "bus", "identity"]),
    // A file of its own, and what fills it; the way of the bytes to it is `app`'s.
    ("recording", &["model", "protocol"]),
    // Other formats are captures'.
    ("recording/export", &["protocol", "capture"]),
    ("recording/import", &["model", "protocol", "capture"]),
    // A capture file is decoded as live traffic is.
    ("capture/show", &["model", "protocol", "calls"]),
    // The timer that effects wait by; a stub is given its sockets.
    ("replay", &["model", "fault", "protocol", "recording"]),
    ("topology", &["model", "bus", "identity"]),
    ("audit", &["model"]),
    (
        "control",
        &[
            "model",
            "kernel",
            "fault",
            "bus",
            "identity",
            "proxy",
            "capture",
            "topology",
            "export",
            "audit",
            "recording",
            "model",
            "kernel",
            "fault",
            "bus",
            "identity",
            "proxy",
            "capture",
            "topology",
            "export",
            "audit",
            "replay",
        ],
    ),
    // Its listeners lead to the proxy by themselves.
    ("toxiproxy", &["model", "control", "fault", "proxy"]),
    // Of `capture` only the other format of the file.
    ("api", &["model", "config", "control", "export", "capture"]),
    // What an agent left behind, and what a host can do: both work without an agent.
    ("safety", &["model", "config"]),
    ("exec", &["model", "safety"]),
    ("doctor", &["model", "kernel", "safety"]),
    // Of `api` only the types that travel; the command line is a client of the API, but for these three.
    ("cli", &["model", "config", "api"]),
    ("cli/agent", &["config", "app"]),
    ("cli/doctor", &["doctor"]),
    ("cli/cleanup", &["config", "safety"]),
    // It reads and sends recordings without an agent.
    ("cli/replay", &["model", "replay"]),
    // It shows files without an agent, and cuts streams into files.
    ("cli/capture", &["model", "capture"]),
    ("cli/recorder", &["model", "capture"]),
    ("cli/record", &["model", "recording"]),
    ("app", ALL),
    ("main", ALL),
];

/// For the composition root, which sees everything.
const ALL: &[&str] = &["*"];

/// Checks one file, given by its path below the agent's `src`.
pub(super) fn check(file: &Path, content: &str) -> Vec<Finding> {
    let Some(path) = file.to_str().map(|path| path.trim_end_matches(".rs")) else {
        return Vec::new();
    };
    let module = path.split('/').next().unwrap_or(path);
    // It only declares the modules.
    if module == "lib" {
        return Vec::new();
    }
    let Some((_, may_use)) = entry(path) else {
        let what = format!("module {module} is not in the table of {}", file!());
        return vec![finding(1, what)];
    };
    if *may_use == ALL {
        return Vec::new();
    }
    uses(content)
        .into_iter()
        .filter(|(_, used)| *used != module && is_module(used) && !may_use.contains(used))
        .map(|(line, used)| {
            let allowed = if may_use.is_empty() {
                "no other module"
            } else {
                &may_use.join(", ")
            };
            let what = format!("{path} uses {used}, but may use {allowed} (table in {})", file!());
            finding(line, what)
        })
        .collect()
}

fn finding(line: usize, what: String) -> Finding {
    Finding {
        line,
        what,
        warning: false,
    }
}

/// The longest entry of the table that `path` is or lies under.
fn entry(path: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let lies_under = |module: &str| {
        path.strip_prefix(module)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let entries = MAY_USE.iter().filter(|(module, _)| lies_under(module));
    entries.max_by_key(|(module, _)| module.len())
}

fn is_module(name: &str) -> bool {
    MAY_USE.iter().any(|(module, _)| *module == name)
}

/// Every `crate::name` and each name of `crate::{a::B, c}`, with its line.
fn uses(content: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, path) in content.match_indices("crate::") {
        let before = &content[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let preceded = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if preceded || before[line_start..].contains("//") {
            continue;
        }
        let line = before.matches('\n').count() + 1;
        let rest = &content[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_members(group).map(|name| (line, name))),
            None => found.push((line, identifier(rest))),
        }
    }
    found
}

/// The first name of each member of a `{...}` group, given what follows its opening brace.
fn group_members(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    let mut starts = vec![0];
    let mut end = group.len();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                end = at;
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts
        .into_iter()
        .filter(move |start| *start < end)
        .map(move |start| identifier(group[start..end].trim_start()))
        .filter(|name| !name.is_empty())
}

fn identifier(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{check, uses};

    fn complaints(file: &str, content: &str) -> Vec<usize> {
        check(Path::new(file), content)
            .iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn paths_and_groups_are_seen() {
        let content =
            "use crate::model::Flow;\nuse crate::{\n    bus::{self, Bus},\n    kernel,\n};\n// crate::api\n";
        assert_eq!(uses(content), [(1, "model"), (2, "bus"), (2, "kernel")]);
    }

    #[test]
    fn dependencies_point_one_way() {
        assert!(complaints("model/flow.rs", "use crate::model::Rule;\n").is_empty());
        assert_eq!(complaints("model/flow.rs", "\nuse crate::bus::Bus;\n"), [2]);
        assert_eq!(complaints("proxy.rs", "fn f() { crate::kernel::load() }\n"), [1]);
        assert!(complaints("proxy.rs", "use crate::fault::Pipeline;\n").is_empty());
        assert_eq!(complaints("cli/status.rs", "use crate::app;\n"), [1]);
        assert!(complaints("cli/agent.rs", "use crate::app;\n").is_empty());
        assert!(complaints("app.rs", "use crate::{kernel, api};\n").is_empty());
    }

    #[test]
    fn a_module_out_of_the_table_is_a_finding() {
        assert_eq!(complaints("shiny.rs", ""), [1]);
        assert!(complaints("lib.rs", "pub mod shiny;\n").is_empty());
    }
}

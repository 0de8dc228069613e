//! Rules about a file's text alone.

use super::Finding;

/// Above this a file is usually two.
const LONG: usize = 600;
/// Above this it certainly is.
const TOO_LONG: usize = 900;

/// What no text of the project may mention. Written in halves, because this file is checked too.
const FOREIGN: [(&str, &str); 3] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one user"),
    (
        concat!("sha", "red/"),
        "a directory that is not in the repository",
    ),
];

/// Code that says it is not there yet.
const UNFINISHED: [&str; 2] = [concat!("todo", "!("), concat!("unimplemented", "!(")];

/// Rules for every text file.
pub(super) fn everywhere(content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in content.lines().enumerate() {
        for (path, why) in FOREIGN {
            if starts_a_path(line, path) {
                findings.push(finding(number + 1, format!("{path} is {why}")));
            }
        }
    }
    findings
}

/// Rules for Rust files.
pub(super) fn rust(content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !content.starts_with("//! ") {
        findings.push(finding(
            1,
            "the first line does not say why the file exists (//! ...)".to_owned(),
        ));
    }
    let length = content.lines().count();
    if length > LONG {
        let what = format!("{length} lines; above {LONG} a file is usually two, above {TOO_LONG} it fails");
        findings.push(Finding {
            line: length,
            what,
            warning: length <= TOO_LONG,
        });
    }
    for (number, line) in content.lines().enumerate() {
        let code = !line.trim_start().starts_with("//");
        for unfinished in UNFINISHED
            .into_iter()
            .filter(|unfinished| code && line.contains(unfinished))
        {
            findings.push(finding(number + 1, format!("{unfinished}...) is not finished")));
        }
    }
    findings
}

fn finding(line: usize, what: String) -> Finding {
    Finding {
        line,
        what,
        warning: false,
    }
}

/// Whether `path` stands in `line` as the start of a path, not in the middle of a longer one.
fn starts_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "/_-.~}".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::{everywhere, rust};

    fn lines(findings: &[super::Finding]) -> Vec<(usize, bool)> {
        findings
            .iter()
            .map(|finding| (finding.line, finding.warning))
            .collect()
    }

    #[test]
    fn a_path_of_one_machine_is_found_but_not_inside_another_path() {
        let machine = concat!("see /wo", "rk/notes");
        let content = format!("fine\n{machine}\n/home{machine}\nui{}x", concat!("/sha", "red/"));
        assert_eq!(lines(&everywhere(&content.replace("see ", ""))), [(2, false)]);
    }

    #[test]
    fn a_rust_file_says_why_it_exists_and_stays_short() {
        assert_eq!(lines(&rust("use std::fs;\n")), [(1, false)]);
        assert_eq!(
            lines(&rust(&("//! Why.\n".to_owned() + &"\n".repeat(700)))),
            [(701, true)]
        );
        assert_eq!(
            lines(&rust(&("//! Why.\n".to_owned() + &"\n".repeat(900)))),
            [(901, false)]
        );
    }

    #[test]
    fn unfinished_code_is_found_but_not_in_a_comment() {
        let call = concat!("todo", "!()");
        assert_eq!(
            lines(&rust(&format!("//! Why.\n// {call}\nfn f() {{ {call} }}\n"))),
            [(3, false)]
        );
    }
}

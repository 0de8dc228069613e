//! SQL as parts: the statement without its literals, and each literal, so that one that differs can be noise.

use super::Parts;

/// Adds a statement under `sql`, and its literals under `literal.1` and so on; gives the statement without them.
pub(in crate::replay) fn add_statement(parts: &mut Parts, text: &str) -> String {
    let (skeleton, literals) = split(text);
    parts.push("sql", skeleton.clone());
    for (number, literal) in (1..).zip(literals) {
        parts.push(format!("literal.{number}"), literal);
    }
    skeleton
}

/// A statement with `?` in the place of each literal and single spaces, and the literals.
fn split(text: &str) -> (String, Vec<String>) {
    let (mut skeleton, mut literals) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text.trim().trim_end_matches([';', ' ', '\n']);
    while let Some(first) = rest.chars().next() {
        let before = skeleton.chars().last();
        let in_word = before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '"'));
        let taken = match first {
            '\'' => {
                let end = quoted(rest, '\'');
                literals.push(rest[..end].to_owned());
                skeleton.push('?');
                end
            }
            '"' | '`' => {
                let end = quoted(rest, first);
                skeleton.push_str(&rest[..end]);
                end
            }
            c if c.is_ascii_digit() && !in_word => {
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
                    .unwrap_or(rest.len());
                literals.push(rest[..end].to_owned());
                skeleton.push('?');
                end
            }
            c if c.is_whitespace() => {
                skeleton.push(' ');
                rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
            }
            c => {
                skeleton.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    (skeleton, literals)
}

/// Where a quoted text that starts here ends; a doubled quote or one behind a backslash does not end it.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote == '\'' {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return at + c.len_utf8();
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_parts_of_their_own() {
        for (text, skeleton, literals) in [
            (
                "SELECT  *\nFROM t1 WHERE a = 'it''s' AND b>1.5;",
                "SELECT * FROM t1 WHERE a = ? AND b>?",
                vec!["'it''s'", "1.5"],
            ),
            (
                r#"INSERT INTO "T 1" VALUES ($1, E'a\'b', 0x1F)"#,
                r#"INSERT INTO "T 1" VALUES ($1, E?, ?)"#,
                vec![r"'a\'b'", "0x1F"],
            ),
            ("SELECT 'open", "SELECT ?", vec!["'open"]),
            ("", "", vec![]),
        ] {
            let (found, all) = split(text);
            assert_eq!(
                (found.as_str(), all),
                (skeleton, literals.iter().map(|l| (*l).to_owned()).collect()),
                "{text}"
            );
        }
    }
}

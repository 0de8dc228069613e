//! A pattern for the executable of a process.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// Longest pattern in bytes: as long as a path can be.
const MAX_PATTERN: usize = 4096;

/// Names an executable: a name matches the last part of its path, a text with `/` the whole path.
///
/// `*`, `?`, `[a-z]`, `[!a-z]` and `{a,b}` are as in a shell and do not match `/`; `**` does; `\` quotes.
#[derive(Clone)]
pub struct ProcessPattern {
    text: String,
    matcher: GlobMatcher,
}

impl ProcessPattern {
    /// Checks and compiles a pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(
                "must be an executable's name such as curl or its path such as /usr/bin/curl".to_owned(),
            );
        }
        if text.len() > MAX_PATTERN {
            return Err(format!("must be at most {MAX_PATTERN} bytes"));
        }
        if text.contains('/') && !text.starts_with(['/', '*', '{']) {
            return Err(format!(
                "`{text}` is a relative path: write a bare name or an absolute path"
            ));
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        let glob = glob.map_err(|error| format!("`{text}` is no pattern: {}", error.kind()))?;
        Ok(Self {
            text: text.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name, when the pattern is a plain one: no wildcard and no path.
    pub fn exact_name(&self) -> Option<&str> {
        (!self.text.contains(['/', '*', '?', '[', ']', '{', '}', '\\'])).then_some(self.text.as_str())
    }

    /// The name of the file, when that is plain: of a path its last part.
    pub fn file_name(&self) -> Option<&str> {
        let name = self.text.rsplit('/').next().unwrap_or(&self.text);
        // Braces and brackets may hold a slash.
        let is_plain = !self.text.contains(['[', ']', '{', '}', '\\']) && !name.contains(['*', '?']);
        (is_plain && !name.is_empty()).then_some(name)
    }

    /// Does the executable at `exe` match? `exe` is a full path, or a bare name if that is all that is known.
    pub fn matches(&self, exe: &str) -> bool {
        if self.text.contains('/') {
            return self.matcher.is_match(exe);
        }
        self.matcher.is_match(exe.rsplit('/').next().unwrap_or(exe))
    }
}

impl PartialEq for ProcessPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for ProcessPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProcessPattern").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_the_last_part_and_paths_the_whole() {
        for (pattern, exe, expected) in [
            ("curl", "/usr/bin/curl", true),
            ("curl", "curl", true),
            ("curl", "/usr/bin/curly", false),
            ("curl", "/curl/bin/wget", false),
            ("python3*", "/usr/bin/python3.11", true),
            ("p?thon", "/usr/bin/python", true),
            ("[a-c]url", "/usr/bin/curl", true),
            ("{curl,wget}", "/usr/bin/wget", true),
            ("/usr/bin/curl", "/usr/bin/curl", true),
            ("/usr/bin/curl", "curl", false),
            ("/usr/*/curl", "/usr/bin/curl", true),
            ("/usr/*/curl", "/usr/local/bin/curl", false),
            ("/usr/**/curl", "/usr/local/bin/curl", true),
            ("/opt/a b/x", "/opt/a b/x", true),
        ] {
            assert_eq!(
                ProcessPattern::parse(pattern).unwrap().matches(exe),
                expected,
                "{pattern} {exe}"
            );
        }
    }

    #[test]
    fn the_worst_pattern_is_compiled_or_refused() {
        for part in ["?", "*", "**/", "[!a]", "[a-z]", "{a,b}", "{*,?}", "é"] {
            let pattern = format!("/{}", part.repeat((MAX_PATTERN - 1) / part.len()));
            assert!(
                !ProcessPattern::parse(&pattern).is_ok_and(|pattern| pattern.matches("/usr/bin/curl/no")),
                "{part}"
            );
        }
        assert!(ProcessPattern::parse(&"x".repeat(MAX_PATTERN + 1)).is_err());
    }

    #[test]
    fn only_a_plain_name_is_exact() {
        assert_eq!(
            ProcessPattern::parse("redis-cli").unwrap().exact_name(),
            Some("redis-cli")
        );
        for pattern in ["redis-*", "/usr/bin/curl", "cur[l]", "c?", "{a,b}", "a\\*"] {
            assert_eq!(
                ProcessPattern::parse(pattern).unwrap().exact_name(),
                None,
                "{pattern}"
            );
        }
        for pattern in ["", "[a", "{a", "bin/curl"] {
            assert!(ProcessPattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}

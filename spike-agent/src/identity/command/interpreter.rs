//! Finds the script among an interpreter's arguments, which takes knowing which of its options have values.

/// A program that runs programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interpreter {
    Python,
    Node,
    Java,
    Ruby,
    Perl,
    Php,
}

/// What an interpreter was told to run, and the arguments after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Script(&'a str, &'a [&'a str]),
    Module(&'a str, &'a [&'a str]),
}

/// What Java was told to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Java<'a> {
    Jar(&'a str),
    Class(&'a str),
}

/// The options of an interpreter that change where the script is. Short ones are letters and may be bundled (`-uBm`).
struct Options {
    /// Short, with a value in the same or the next argument.
    valued: &'static str,
    /// Short, with a value in the same argument if at all, so that no letter of it is an option.
    attached: &'static str,
    /// Short, with code as the value: there is no script.
    code: &'static str,
    /// Short, with a module as the value.
    module: &'static str,
    /// Short, with the script as the value.
    script: &'static str,
    /// Long, with a value in the next argument unless it follows a `=`.
    long_valued: &'static [&'static str],
    /// Long, after which there is no script.
    long_code: &'static [&'static str],
    /// First words that are no script but come before it.
    verbs: &'static [&'static str],
}

/// `python3 --help-all`, 3.13.
const PYTHON: Options = Options {
    valued: "WXQ",
    attached: "",
    code: "c",
    module: "m",
    script: "",
    long_valued: &["--check-hash-based-pycs"],
    long_code: &[],
    verbs: &[],
};

/// `node --help`, 22; V8's own options have their values behind `=`.
const NODE: Options = Options {
    valued: "rC",
    attached: "",
    code: "ep",
    module: "",
    script: "",
    long_valued: &[
        "--conditions",
        "--diagnostic-dir",
        "--disable-warning",
        "--dns-result-order",
        "--env-file",
        "--env-file-if-exists",
        "--experimental-default-type",
        "--experimental-loader",
        "--heapsnapshot-signal",
        "--icu-data-dir",
        "--import",
        "--input-type",
        "--inspect-port",
        "--loader",
        "--max-http-header-size",
        "--openssl-config",
        "--redirect-warnings",
        "--report-dir",
        "--report-directory",
        "--report-filename",
        "--report-signal",
        "--require",
        "--secure-heap",
        "--secure-heap-min",
        "--stack-trace-limit",
        "--title",
        "--tls-cipher-list",
        "--tls-keylog",
        "--trace-event-categories",
        "--trace-event-file-pattern",
        "--unhandled-rejections",
        "--watch-path",
    ],
    long_code: &["--eval", "--print", "--run", "--test"],
    verbs: &["inspect", "debug"],
};

/// ruby(1), 3.3.
const RUBY: Options = Options {
    valued: "CEIXr",
    attached: "FKTWix0",
    code: "e",
    module: "",
    script: "",
    long_valued: &[
        "--encoding",
        "--external-encoding",
        "--internal-encoding",
        "--enable",
        "--disable",
    ],
    long_code: &[],
    verbs: &[],
};

/// perlrun(1), 5.40.
const PERL: Options = Options {
    valued: "I",
    attached: "CDFMVimx0",
    code: "eE",
    module: "",
    script: "",
    long_valued: &[],
    long_code: &[],
    verbs: &[],
};

/// php(1), 8.3; `-S` serves a directory and may be followed by a script.
const PHP: Options = Options {
    valued: "cdtzS",
    attached: "",
    code: "rBRE",
    module: "",
    script: "fF",
    long_valued: &[
        "--php-ini",
        "--define",
        "--docroot",
        "--zend-extension",
        "--server",
    ],
    long_code: &["--run", "--process-begin", "--process-code", "--process-end"],
    verbs: &[],
};

impl Interpreter {
    /// The interpreter whose executable has this name, with or without a version: `python3.11`, `nodejs`, `php8.2`.
    pub(super) fn named(exe: &str) -> Option<Self> {
        let name = exe.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        Some(match name.trim_end_matches('-') {
            "python" | "pypy" => Self::Python,
            "node" | "nodejs" => Self::Node,
            "java" => Self::Java,
            "ruby" | "jruby" | "truffleruby" => Self::Ruby,
            "perl" => Self::Perl,
            "php" => Self::Php,
            _ => return None,
        })
    }

    /// What is run, given the arguments without the first.
    pub(super) fn find<'a>(self, args: &'a [&'a str]) -> Option<Found<'a>> {
        match self {
            Self::Python => PYTHON.find(args),
            Self::Node => NODE.find(args),
            Self::Ruby => RUBY.find(args),
            Self::Perl => PERL.find(args),
            Self::Php => PHP.find(args),
            Self::Java => None,
        }
    }
}

impl Options {
    fn find<'a>(&self, args: &'a [&'a str]) -> Option<Found<'a>> {
        let mut at = 0;
        loop {
            let arg = *args.get(at)?;
            at += 1;
            if arg == "-" {
                return None;
            } else if arg == "--" {
                return found(Found::Script, args, at);
            } else if let Some(long) = arg.strip_prefix("--") {
                let name = long.split('=').next().unwrap_or(long);
                let is_in = |options: &[&str]| options.iter().any(|option| option[2..] == *name);
                if is_in(self.long_code) {
                    return None;
                }
                at += usize::from(name == long && is_in(self.long_valued));
            } else if let Some(letters) = arg.strip_prefix('-') {
                match self.bundle(letters) {
                    Bundle::Flags => {}
                    Bundle::ValueIsNext => at += 1,
                    Bundle::Code => return None,
                    Bundle::Module("") => return found(Found::Module, args, at),
                    Bundle::Module(name) => return Some(Found::Module(name, &args[at..])),
                    Bundle::Script("") => return found(Found::Script, args, at),
                    Bundle::Script(name) => return Some(Found::Script(name, &args[at..])),
                }
            } else if !self.verbs.contains(&arg) {
                return Some(Found::Script(arg, &args[at..]));
            }
        }
    }

    /// What follows from the letters behind a `-`.
    fn bundle<'a>(&self, letters: &'a str) -> Bundle<'a> {
        for (at, letter) in letters.char_indices() {
            let rest = &letters[at + letter.len_utf8()..];
            if self.code.contains(letter) {
                return Bundle::Code;
            } else if self.module.contains(letter) {
                return Bundle::Module(rest);
            } else if self.script.contains(letter) {
                return Bundle::Script(rest);
            } else if self.valued.contains(letter) {
                return if rest.is_empty() {
                    Bundle::ValueIsNext
                } else {
                    Bundle::Flags
                };
            } else if self.attached.contains(letter) {
                return Bundle::Flags;
            }
        }
        Bundle::Flags
    }
}

/// What an argument of short options says of those after it.
enum Bundle<'a> {
    Flags,
    ValueIsNext,
    Code,
    /// The name is in the next argument when it is empty; so below.
    Module(&'a str),
    Script(&'a str),
}

fn found<'a>(
    make: fn(&'a str, &'a [&'a str]) -> Found<'a>,
    args: &'a [&'a str],
    at: usize,
) -> Option<Found<'a>> {
    let name = *args.get(at)?;
    Some(make(name, &args[at + 1..]))
}

/// Options of the `java` launcher (JDK 21) with a value in the next argument.
const JAVA_VALUED: &[&str] = &[
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--add-exports",
    "--add-opens",
    "--add-reads",
    "--limit-modules",
    "--patch-module",
    "--enable-native-access",
    "--source",
];

/// What the `java` launcher runs, given its arguments without its own name.
pub(super) fn java<'a>(args: &[&'a str]) -> Option<Java<'a>> {
    let mut args = args.iter().copied();
    loop {
        let arg = args.next()?;
        if arg == "-jar" {
            return args.next().map(Java::Jar);
        } else if matches!(arg, "-m" | "--module") {
            return args.next().map(java_module);
        } else if let Some(module) = arg.strip_prefix("--module=") {
            return Some(java_module(module));
        } else if JAVA_VALUED.contains(&arg) {
            args.next();
        } else if !arg.starts_with(['-', '@']) {
            // A source file can be run, too.
            return Some(Java::Class(arg.strip_suffix(".java").unwrap_or(arg)));
        }
    }
}

/// `module` or `module/class`.
fn java_module(text: &str) -> Java<'_> {
    Java::Class(text)
}

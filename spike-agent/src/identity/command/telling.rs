//! Picks the part of a path or package name that tells one program from another.

/// Names that many programs give to the file they begin with.
const BEGINNINGS: &[&str] = &[
    "__main__",
    "api",
    "app",
    "application",
    "artisan",
    "asgi",
    "bootstrap",
    "cli",
    "entrypoint",
    "factory",
    "index",
    "init",
    "launcher",
    "main",
    "manage",
    "run",
    "server",
    "start",
    "startup",
    "wsgi",
];

/// Names of directories that hold programs of any kind.
const DIRECTORIES: &[&str] = &[
    "bin",
    "build",
    "cmd",
    "code",
    "current",
    "dist",
    "home",
    "html",
    "lib",
    "libexec",
    "libs",
    "local",
    "opt",
    "out",
    "public",
    "release",
    "releases",
    "root",
    "sbin",
    "scripts",
    "share",
    "src",
    "srv",
    "target",
    "tmp",
    "usr",
    "var",
    "workspace",
    "www",
];

/// The last part that tells something, the last of all when none does.
///
/// A part with `.` or `..` is stepped over, not resolved: it names nothing.
fn last_telling<'a>(parts: impl DoubleEndedIterator<Item = &'a str> + Clone) -> &'a str {
    let named = parts.filter(|part| !matches!(*part, "" | "." | ".."));
    let mut from_end = named.clone().rev();
    from_end
        .find(|part| is_telling(part))
        .or_else(|| named.clone().next_back())
        .unwrap_or_default()
}

/// Dates and numbers of releases tell nothing either.
fn is_telling(part: &str) -> bool {
    let lower = stem(part).to_ascii_lowercase();
    !BEGINNINGS.contains(&lower.as_str())
        && !DIRECTORIES.contains(&lower.as_str())
        && lower.contains(|c: char| c.is_alphabetic())
}

/// Names the program in the file at `path`.
///
/// One that npm installed into a project is the project's; one that it installed for all is the package.
pub(super) fn part_of_path(path: &str) -> &str {
    if let Some((project, package)) = path.rsplit_once("/node_modules/") {
        let name = last_telling(project.split('/'));
        if is_telling(name) {
            return stem(name);
        }
        let mut parts = package
            .split('/')
            .filter(|part| *part != ".bin" && !part.starts_with('@'));
        return stem(parts.next().unwrap_or(package));
    }
    stem(last_telling(path.split('/')))
}

/// Names the program that a Java class starts: `com.acme.shop.Main` is "shop".
pub(super) fn part_of_class(class: &str) -> &str {
    // A module may stand before it: `module/class`.
    let class = class.rsplit('/').next().unwrap_or(class);
    last_telling(class.split('.'))
}

/// Names the application in a Python module: `shop.wsgi` is "shop", and `app` is named by where it is.
pub(super) fn part_of_module<'a>(module: &'a str, cwd: &'a str) -> &'a str {
    // `flask --app shop/app.py` names a file.
    let module = module.strip_suffix(".py").unwrap_or(module);
    let parts = module.split(['.', '/']);
    let name = last_telling(parts.clone());
    if is_telling(name) {
        return name;
    }
    let directory = last_telling(cwd.split('/'));
    if is_telling(directory) { directory } else { name }
}

/// Names the application in the current directory.
pub(super) fn part_of_directory(cwd: &str) -> Option<&str> {
    Some(last_telling(cwd.split('/'))).filter(|name| is_telling(name))
}

/// The file's name without directory and extension.
pub(super) fn stem(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    match base.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && is_extension(extension) => stem,
        _ => base,
    }
}

/// Only those of programs: `node-1.2` and `http.server` have none.
fn is_extension(text: &str) -> bool {
    const KNOWN: &[&str] = &[
        "cjs", "class", "jar", "java", "js", "jsx", "mjs", "mts", "php", "phar", "pl", "psgi", "py", "pyc",
        "pyz", "rb", "ru", "ts", "tsx", "war",
    ];
    KNOWN.contains(&text)
}

/// Without what changes at each release: `shop-1.2.3-SNAPSHOT` is "shop".
pub(super) fn without_version(name: &str) -> &str {
    let version = name.match_indices('-').find(|(at, _)| {
        let rest = name[at + 1..].trim_start_matches('v');
        rest.starts_with(|c: char| c.is_ascii_digit())
    });
    match version {
        Some((at, _)) if at > 0 => &name[..at],
        _ => name,
    }
}

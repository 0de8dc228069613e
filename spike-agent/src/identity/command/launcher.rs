//! Sees through servers that run an application which is not their script.

use super::telling::{part_of_directory, part_of_module};

/// Where a server is told which application to run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// `module:attribute` among its arguments, as WSGI's and ASGI's servers have it.
    Module,
    /// By a `--app` or `-A` option.
    Option,
    /// By the directory that it runs in.
    Directory,
}

/// The name of the application that `launcher` runs; `None` when that is no such server or does not tell.
pub(super) fn application(launcher: &str, args: &[&str], cwd: &str) -> Option<String> {
    let told = match launcher {
        "gunicorn" | "uvicorn" | "hypercorn" | "daphne" | "waitress" | "waitress-serve" => Told::Module,
        "flask" => Told::Option,
        "puma" | "unicorn" | "unicorn_rails" | "rails" | "rackup" | "thin" => Told::Directory,
        _ => return None,
    };
    if launcher == "gunicorn"
        && let Some(name) = option(args, "--name", "-n")
    {
        return Some(name.to_owned());
    }
    let by_module = |module| Some(part_of_module(module, cwd).to_owned());
    match told {
        Told::Module => {
            if let Some(module) = args.iter().find_map(|arg| module_of(arg)) {
                return by_module(module);
            }
            // gunicorn's attribute may be left out; then the module comes last, where an option's value could be too.
            if let [before @ .., last] = args
                && launcher == "gunicorn"
                && is_dotted(last)
                && !before.last().is_some_and(|arg| arg.starts_with('-'))
            {
                return by_module(last);
            }
        }
        Told::Option => {
            if let Some(app) = option(args, "--app", "-A") {
                return by_module(app.split(':').next().unwrap_or(app));
            }
        }
        // A title: `puma 6.4.2 (tcp://0.0.0.0:3000) [shop]`.
        Told::Directory => {
            if let [only] = args
                && is_word(only)
                && only.parse::<f64>().is_err()
                && !matches!(*only, "server" | "s" | "start")
            {
                return Some((*only).to_owned());
            }
        }
    }
    part_of_directory(cwd).map(str::to_owned)
}

/// The value of an option, in the same or the next argument.
fn option<'a>(args: &[&'a str], long: &str, short: &str) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(at, arg)| {
        if *arg == long || *arg == short {
            return args.get(at + 1).copied();
        }
        let attached = arg.strip_prefix(long)?;
        attached.strip_prefix('=')
    })
}

/// The module in `module:attribute`; an address such as `localhost:8000` is none.
fn module_of(arg: &str) -> Option<&str> {
    let (module, attribute) = arg.split_once(':')?;
    // A factory is written as a call.
    let attribute = attribute.split('(').next().unwrap_or(attribute);
    (is_dotted(module) && is_dotted(attribute)).then_some(module)
}

/// Identifiers with dots between.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|part| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

/// One name, with nothing of an option or a path.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric())
        && text.chars().all(|c| c.is_alphanumeric() || "._-".contains(c))
}

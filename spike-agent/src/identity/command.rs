//! Names the program that an interpreter runs: `python3 /srv/shop/main.py` is "shop", not "python3".
//!
//! - A script is named by its file without extension, `-m` by the module, `-jar` by the file without version, a Java
//!   class by its last part.
//! - A name that says nothing (`main`, `app`, `index`, `server`, ...) gives way to the directory or package around it.
//! - A server that loads an application is named by that: `gunicorn shop.wsgi:app` is "shop", as is gunicorn's `--name`.
//!   One that takes it from the current directory, as `puma` and `flask run` do, is named by the directory.
//! - Code on the command line or from standard input has no name; there the interpreter's stands.

mod interpreter;
mod launcher;
mod telling;

use interpreter::{Found, Interpreter};
use telling::{part_of_class, part_of_path, stem, without_version};

/// A process's command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command<'a> {
    /// Base name of the executable file.
    pub(super) exe: &'a str,
    /// Its arguments, its own name first. A program may have overwritten them with a title.
    pub(super) args: &'a [&'a str],
    /// Where it runs; empty when unknown.
    pub(super) cwd: &'a str,
}

impl Command<'_> {
    /// What the interpreter runs; `None` when it is none, or has no name for that.
    pub(super) fn program(&self) -> Option<String> {
        let interpreter = Interpreter::named(self.exe)?;
        let (_, args) = self.args.split_first()?;
        if let [title] = self.args
            && title.contains([' ', ':'])
        {
            return self.of_title(title);
        }
        if interpreter == Interpreter::Java {
            return self.of_java(args);
        }
        let name = match interpreter.find(args)? {
            Found::Module(module, rest) => launcher::application(module, rest, self.cwd)
                .unwrap_or_else(|| module.trim_end_matches(".__main__").to_owned()),
            Found::Script(script, rest) => {
                let path = self.absolute(script);
                launcher::application(stem(script), rest, self.cwd)
                    .unwrap_or_else(|| part_of_path(&path).to_owned())
            }
        };
        (!name.is_empty()).then_some(name)
    }

    /// Servers write what they are into their arguments: `gunicorn: master [shop.wsgi:app]`, `puma 6.4 (...) [shop]`.
    fn of_title(&self, title: &str) -> Option<String> {
        let name = title.trim_start_matches('[').split([' ', ':']).next()?;
        let inside = title
            .trim_end()
            .strip_suffix(']')
            .and_then(|rest| rest.rsplit_once('['))
            .map(|(_, inside)| inside)
            .filter(|inside| !inside.contains(' '));
        let application = inside.and_then(|inside| launcher::application(name, &[inside], self.cwd));
        let name = application.unwrap_or_else(|| stem(name).to_owned());
        (!name.is_empty()).then_some(name)
    }

    fn of_java(&self, args: &[&str]) -> Option<String> {
        let spring = args.iter().find_map(|arg| {
            arg.strip_prefix("-Dspring.application.name=")
                .or_else(|| arg.strip_prefix("--spring.application.name="))
        });
        if let Some(name) = spring.filter(|name| !name.is_empty()) {
            return Some(name.to_owned());
        }
        let name = match interpreter::java(args)? {
            interpreter::Java::Jar(jar) => {
                let path = self.absolute(jar);
                without_version(part_of_path(&path)).to_owned()
            }
            interpreter::Java::Class(class) => part_of_class(class).to_owned(),
        };
        (!name.is_empty()).then_some(name)
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.cwd)
        }
    }
}

#[cfg(test)]
mod tests;

//! Methods: what they are called, what they are about, and what answers them.

use super::name;

/// What a method that asks has in it.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) name: &'static str,
    /// Bytes before its strings.
    skip: usize,
    /// Short strings; the first is what it is about.
    strings: usize,
    /// The bit behind these that says that no answer is wanted.
    no_wait: u8,
}

#[derive(Clone, Copy)]
pub(super) enum Method {
    Asks(Form),
    Answers,
    /// There is no answer.
    Tells(&'static str),
}

pub(super) fn known(code: (u16, u16)) -> Option<Method> {
    let asks = |name, skip, strings, no_wait| {
        Method::Asks(Form {
            name,
            skip,
            strings,
            no_wait,
        })
    };
    Some(match code {
        (10, 60) => Method::Tells("connection.blocked"),
        (10, 61) => Method::Tells("connection.unblocked"),
        (10, 70) => asks("connection.update-secret", 0, 0, 0),
        (20, 10) => asks("channel.open", 0, 0, 0),
        (20, 20) => asks("channel.flow", 0, 0, 0),
        (40, 10) => asks("exchange.declare", 2, 2, 16),
        (40, 20) => asks("exchange.delete", 2, 1, 2),
        (40, 30) => asks("exchange.bind", 2, 3, 1),
        (40, 40) => asks("exchange.unbind", 2, 3, 1),
        (50, 10) => asks("queue.declare", 2, 1, 16),
        (50, 20) => asks("queue.bind", 2, 3, 1),
        (50, 30) => asks("queue.purge", 2, 1, 1),
        (50, 40) => asks("queue.delete", 2, 1, 4),
        (50, 50) => asks("queue.unbind", 2, 3, 0),
        (60, 10) => asks("basic.qos", 0, 0, 0),
        (60, 20) => asks("basic.consume", 2, 2, 8),
        (60, 30) => asks("basic.cancel", 0, 1, 1),
        (60, 70) => asks("basic.get", 2, 1, 0),
        (60, 100) => Method::Tells("basic.recover-async"),
        (60, 110) => asks("basic.recover", 0, 0, 0),
        (85, 10) => asks("confirm.select", 0, 0, 1),
        (90, 10) => asks("tx.select", 0, 0, 0),
        (90, 20) => asks("tx.commit", 0, 0, 0),
        (90, 30) => asks("tx.rollback", 0, 0, 0),
        (10, 51 | 71) | (20, 11 | 21 | 41) => Method::Answers,
        (40, 11 | 21 | 31 | 51) | (50, 11 | 21 | 31 | 41 | 51) => Method::Answers,
        (60, 11 | 21 | 31 | 71 | 72 | 111) | (85, 11) | (90, 11 | 21 | 31) => Method::Answers,
        _ => return None,
    })
}

/// Whether `code` is a message with a content, or about one, a step of connecting or a close, which are not in the
/// table.
pub(super) fn is_special(code: (u16, u16)) -> bool {
    let connects = matches!(code, (10, 10 | 11 | 20 | 21 | 30 | 31 | 40 | 41));
    connects || matches!(code, (60, 40 | 50 | 60 | 80 | 90 | 120) | (10, 50) | (20, 40))
}

pub(super) fn answers(code: (u16, u16), asked: (u16, u16)) -> bool {
    code.0 == asked.0
        && match asked {
            (40, 40) => code.1 == 51,
            (60, 70) => matches!(code.1, 71 | 72),
            (_, method) => code.1 == method + 1,
        }
}

/// What is left of a method's arguments.
pub(super) struct Arguments<'a>(&'a [u8]);

pub(super) struct Read {
    pub(super) target: String,
    pub(super) consumer: Vec<u8>,
    pub(super) bits: u8,
    pub(super) no_wait: bool,
}

impl<'a> Arguments<'a> {
    /// Class and method, and what is behind these.
    pub(super) fn of(payload: &'a [u8]) -> Option<((u16, u16), Self)> {
        let mut arguments = Self(payload);
        Some(((arguments.number()?, arguments.number()?), arguments))
    }

    pub(super) fn read(&mut self, form: &Form) -> Option<Read> {
        self.skip(form.skip)?;
        let mut strings = [&[][..]; 3];
        for string in &mut strings[..form.strings] {
            *string = self.short()?;
        }
        let bits = self.0.first().copied().unwrap_or(0);
        Some(Read {
            // Names of consumers are made up.
            target: if form.name == "basic.cancel" {
                String::new()
            } else {
                name(strings[0])
            },
            consumer: strings[1].to_vec(),
            bits,
            no_wait: bits & form.no_wait != 0,
        })
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    fn number(&mut self) -> Option<u16> {
        let number = u16::from_be_bytes(*self.0.first_chunk()?);
        self.skip(2)?;
        Some(number)
    }

    pub(super) fn tag(&mut self) -> Option<u64> {
        let tag = u64::from_be_bytes(*self.0.first_chunk()?);
        self.skip(8)?;
        Some(tag)
    }

    pub(super) fn bits(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    /// A string of 255 bytes at most.
    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let (size, rest) = self.0.split_first()?;
        let (string, rest) = rest.split_at_checked(usize::from(*size))?;
        self.0 = rest;
        Some(string)
    }

    pub(super) fn name(&mut self) -> Option<String> {
        self.short().map(name)
    }

    /// An exchange, and how a message goes from there.
    pub(super) fn address(&mut self) -> Option<String> {
        let (exchange, key) = (self.short()?, self.short()?);
        Some(match (exchange, key) {
            // The default one goes to the queue of that name.
            (b"", key) => name(key),
            (exchange, b"") => name(exchange),
            (exchange, key) => format!("{}/{}", name(exchange), name(key)),
        })
    }

    /// `404 NOT_FOUND`
    pub(super) fn reason(&mut self) -> Option<String> {
        let code = self.number()?;
        let text = String::from_utf8_lossy(self.short()?).into_owned();
        let word = text.split([' ', '-']).next().unwrap_or_default();
        let named = !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        Some(if named {
            format!("{code} {word}")
        } else {
            code.to_string()
        })
    }
}

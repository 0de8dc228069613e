//! Words, quoted names and marks of a statement; comments are passed over, and literals have no content.

/// A piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, or a name without quotes.
    Word(&'a [u8]),
    /// In `"` or `` ` ``, without them; in MySQL `"` may hold a string, too.
    Quoted(&'a [u8]),
    /// A string, a number or a parameter.
    Literal,
    Mark(u8),
}

/// Ends early where dialects disagree about what is a literal or a comment, so that none is ever read as a name.
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, of: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|b| !of(*b));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// What is between a quote and the next; doubled quotes stay doubled.
    fn quoted(&mut self, quote: u8) -> Option<&'a [u8]> {
        let mut backslashes = 0_usize;
        let mut at = 1;
        while let Some(byte) = self.rest.get(at) {
            if *byte != quote {
                backslashes = if *byte == b'\\' { backslashes + 1 } else { 0 };
                at += 1;
            } else if backslashes % 2 == 1 && quote != b'`' {
                // The end of the string in standard SQL, not in MySQL.
                return None;
            } else if self.rest.get(at + 1) == Some(&quote) {
                backslashes = 0;
                at += 2;
            } else {
                let content = &self.take(at)[1..];
                self.take(1);
                return Some(content);
            }
        }
        None
    }

    /// `$1`, or PostgreSQL's `$tag$…$tag$`.
    fn dollar(&mut self) -> Option<()> {
        let tag = self.rest[1..]
            .iter()
            .position(|b| !is_of_word(*b) || *b == b'$')?
            + 2;
        let (tag, body) = self.rest.split_at_checked(tag)?;
        if !tag.ends_with(b"$") {
            self.take(1);
            self.take_while(|b| b.is_ascii_alphanumeric());
            return Some(());
        }
        let end = body.windows(tag.len()).position(|window| window == tag)?;
        self.take(2 * tag.len() + end);
        Some(())
    }

    /// A comment, or the start of one that MySQL executes.
    fn comment(&mut self) -> Option<()> {
        let executed = [&b"/*!"[..], b"/*M!"]
            .into_iter()
            .find(|start| self.rest.starts_with(start));
        if let Some(start) = executed {
            self.take(start.len());
            self.take_while(|b| b.is_ascii_digit());
            return Some(());
        }
        let body = &self.rest[2..];
        let end = body.windows(2).position(|pair| pair == b"*/")?;
        // Comments nest in PostgreSQL only.
        if body[..end].windows(2).any(|pair| pair == b"/*") {
            return None;
        }
        self.take(end + 4);
        Some(())
    }

    fn token(&mut self) -> Option<Token<'a>> {
        loop {
            let first = *self.rest.first()?;
            match (first, self.rest.get(1)) {
                (b'-', Some(b'-')) => {
                    self.take_while(|b| b != b'\n');
                }
                // Else an operator of PostgreSQL's.
                (b'#', next) if !matches!(next, Some(b'>' | b'-' | b'=' | b'#')) => {
                    self.take_while(|b| b != b'\n');
                }
                (b'/', Some(b'*')) => self.comment()?,
                (b'*', Some(b'/')) => {
                    self.take(2);
                }
                (b'\'', _) => return self.quoted(first).map(|_| Token::Literal),
                (b'"' | b'`', _) => return self.quoted(first).map(Token::Quoted),
                (b'$', _) => return self.dollar().map(|()| Token::Literal),
                (b'0'..=b'9', _) => {
                    self.take_while(|b| is_of_word(b) || b == b'.');
                    return Some(Token::Literal);
                }
                _ if first.is_ascii_whitespace() => {
                    self.take(1);
                }
                _ if is_of_word(first) => return Some(Token::Word(self.take_while(is_of_word))),
                _ => {
                    self.take(1);
                    return Some(Token::Mark(first));
                }
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.token();
        if token.is_none() {
            self.rest = &[];
        }
        token
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

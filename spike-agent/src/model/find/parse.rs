//! Reads a condition.

use globset::GlobBuilder;

use super::{Comparison, Field, Kind, Node, Number, Test};
use crate::model::units::{parse_bytes, parse_duration};

/// Parentheses and `not` within each other; more is no condition that a person writes.
const DEPTH: usize = 64;

const COMPARISONS: [(&str, Comparison); 6] = [
    // The longer ones first.
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// In quotation marks: never a keyword.
    Quoted(String),
    Compare(Comparison, &'static str),
    Open,
    Close,
}

pub(super) fn condition<T>(text: &str, fields: &'static [Field<T>]) -> Result<Node<T>, String> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
        fields,
    };
    let node = parser.any()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(format!(
            "{} does not belong there: join conditions by `and` or `or`",
            token.shown()
        )),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first == '(' {
            (Token::Open, 1)
        } else if first == ')' {
            (Token::Close, 1)
        } else if let Some((sign, comparison)) = COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign)) {
            (Token::Compare(*comparison, sign), sign.len())
        } else if first == '"' || first == '\'' {
            let inner = &rest[1..];
            let end = inner
                .find(first)
                .ok_or_else(|| format!("{rest} lacks its closing {first}"))?;
            (Token::Quoted(inner[..end].to_owned()), end + 2)
        } else {
            let ends = |letter: char| letter.is_whitespace() || "()=<>!\"'".contains(letter);
            let end = rest.find(ends).unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("`{rest}` cannot be read; comparisons are = != < <= > >="));
            }
            (Token::Word(rest[..end].to_owned()), end)
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Quoted(text) => format!("\"{text}\""),
            Self::Compare(_, sign) => format!("`{sign}`"),
            Self::Open => "`(`".to_owned(),
            Self::Close => "`)`".to_owned(),
        }
    }
}

struct Parser<T: 'static> {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    fields: &'static [Field<T>],
}

impl<T> Parser<T> {
    fn any(&mut self) -> Result<Node<T>, String> {
        let mut nodes = vec![self.all()?];
        while self.takes("or") {
            nodes.push(self.all()?);
        }
        Ok(Node::Any(nodes))
    }

    fn all(&mut self) -> Result<Node<T>, String> {
        let mut nodes = vec![self.one()?];
        while self.takes("and") {
            nodes.push(self.one()?);
        }
        Ok(Node::All(nodes))
    }

    fn one(&mut self) -> Result<Node<T>, String> {
        if self.depth == DEPTH {
            return Err(format!("more than {DEPTH} conditions within each other"));
        }
        self.depth += 1;
        let node = if self.takes("not") {
            Node::Not(Box::new(self.one()?))
        } else if self.peek() == Some(&Token::Open) {
            self.next += 1;
            let node = self.any()?;
            if self.peek() != Some(&Token::Close) {
                return Err("a `(` lacks its `)`".to_owned());
            }
            self.next += 1;
            node
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self) -> Result<Node<T>, String> {
        let name = match self.take() {
            Some(Token::Word(name)) => name,
            Some(other) => {
                return Err(format!(
                    "{} where a field belongs; {}",
                    other.shown(),
                    self.known()
                ));
            }
            None => return Err(format!("a condition is missing at the end; {}", self.known())),
        };
        let Some(field) = self.fields.iter().find(|field| field.name == name) else {
            return Err(format!("there is no field `{name}`; {}", self.known()));
        };
        let Some(Token::Compare(comparison, sign)) = self.peek().cloned() else {
            return match field.kind {
                Kind::Flag(get) => Ok(Node::Test(Test::Flag(get))),
                _ => Err(format!(
                    "`{name}` lacks what to compare it with, such as {}",
                    example(field)
                )),
            };
        };
        self.next += 1;
        let value = match self.take() {
            Some(Token::Word(value) | Token::Quoted(value)) => value,
            _ => {
                return Err(format!(
                    "`{name}{sign}` lacks its value, such as {}",
                    example(field)
                ));
            }
        };
        let within = |error: String| format!("{name}: {error}, such as {}", example(field));
        let number = |number, value: Result<f64, String>| {
            Ok(Node::Test(Test::Number(
                number,
                comparison,
                value.map_err(within)?,
            )))
        };
        match field.kind {
            Kind::Text(get) => {
                // Folded paths have braces that mean themselves.
                let pattern = value.replace('{', r"\{").replace('}', r"\}");
                let pattern = GlobBuilder::new(&pattern)
                    .case_insensitive(true)
                    .literal_separator(false)
                    .backslash_escape(true)
                    .build()
                    .map_err(|error| format!("{name}: {error}"))?;
                let test = Node::Test(Test::Text(get, pattern.compile_matcher()));
                match comparison {
                    Comparison::Equal => Ok(test),
                    Comparison::NotEqual => Ok(Node::Not(Box::new(test))),
                    _ => Err(format!("`{name}` is text: it is compared by = and !=")),
                }
            }
            Kind::Time(get) => number(
                Number::Time(get),
                parse_duration(&value).map(|time| time.as_secs_f64() * 1e6),
            ),
            Kind::Size(get) => number(Number::Whole(get), parse_bytes(&value).map(|bytes| bytes as f64)),
            Kind::Count(get) => number(Number::Whole(get), plain(&value)),
            Kind::Counts(get) => number(Number::Any(get), plain(&value)),
            Kind::Number(get) => number(Number::Real(get), plain(&value)),
            Kind::Percent(get) => number(Number::Percent(get), plain(value.trim_end_matches('%'))),
            Kind::Flag(_) => Err(format!(
                "`{name}` is true or false: write `{name}` or `not {name}`"
            )),
        }
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
        format!("fields are {}", names.join(", "))
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Word(word)) if word == keyword);
        self.next += usize::from(is_it);
        is_it
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.next += 1;
        token
    }
}

fn plain(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("`{text}` is not a number"))
}

fn example<T>(field: &Field<T>) -> String {
    let name = field.name;
    match field.kind {
        Kind::Text(_) => format!("`{name}=abc*`"),
        Kind::Time(_) => format!("`{name}>100ms`"),
        Kind::Size(_) => format!("`{name}>10kB`"),
        Kind::Count(_) | Kind::Counts(_) | Kind::Number(_) => format!("`{name}>10`"),
        Kind::Percent(_) => format!("`{name}>1%`"),
        Kind::Flag(_) => format!("`{name}`"),
    }
}

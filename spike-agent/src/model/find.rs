//! Conditions that operators write to find things: `protocol=redis and (failed or total>100ms)`.
//!
//! ```text
//! any  = all { "or" all }
//! all  = one { "and" one }
//! one  = "not" one | "(" any ")" | field | field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
//! ```

mod parse;

use std::cmp::Ordering;

use globset::GlobMatcher;

/// Something of a `T` that a condition can ask for.
#[derive(Debug)]
pub struct Field<T: 'static> {
    /// As operators write it.
    pub name: &'static str,
    /// What it is, and how to get it.
    pub kind: Kind<T>,
}

/// What a field is.
#[derive(Debug)]
pub enum Kind<T: 'static> {
    /// Text, compared with a pattern in which `*` stands for anything; true when one of them fits.
    Text(fn(&T) -> Vec<&str>),
    /// Microseconds, compared with a time such as `100ms`; none compares with nothing.
    Time(fn(&T) -> Option<u64>),
    /// Bytes, compared with a size such as `10kB`.
    Size(fn(&T) -> u64),
    /// A plain number.
    Count(fn(&T) -> u64),
    /// Several plain numbers; true when one of them fits.
    Counts(fn(&T) -> Vec<u64>),
    /// A number that may have a fraction.
    Number(fn(&T) -> f64),
    /// Percent, compared with `1%`; none compares with nothing.
    Percent(fn(&T) -> Option<f64>),
    /// True or false; stands alone.
    Flag(fn(&T) -> bool),
}

/// A condition on a `T`.
#[derive(Debug)]
pub struct Find<T: 'static>(Node<T>);

#[derive(Debug)]
enum Node<T: 'static> {
    All(Vec<Node<T>>),
    Any(Vec<Node<T>>),
    Not(Box<Node<T>>),
    Test(Test<T>),
}

#[derive(Debug)]
enum Test<T: 'static> {
    Text(fn(&T) -> Vec<&str>, GlobMatcher),
    Number(Number<T>, Comparison, f64),
    Flag(fn(&T) -> bool),
}

#[derive(Clone, Copy, Debug)]
enum Number<T: 'static> {
    Whole(fn(&T) -> u64),
    Any(fn(&T) -> Vec<u64>),
    Real(fn(&T) -> f64),
    Time(fn(&T) -> Option<u64>),
    Percent(fn(&T) -> Option<f64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl<T> Find<T> {
    /// Reads a condition on `fields`.
    ///
    /// # Errors
    /// With what is wrong and what would be right.
    pub fn parse(text: &str, fields: &'static [Field<T>]) -> Result<Self, String> {
        parse::condition(text, fields).map(Self)
    }

    /// Whether the condition is true of `subject`.
    pub fn matches(&self, subject: &T) -> bool {
        self.0.matches(subject)
    }
}

impl<T> Node<T> {
    fn matches(&self, subject: &T) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(subject)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(subject)),
            Self::Not(node) => !node.matches(subject),
            Self::Test(Test::Flag(get)) => get(subject),
            Self::Test(Test::Text(get, pattern)) => {
                get(subject).into_iter().any(|text| pattern.is_match(text))
            }
            Self::Test(Test::Number(number, comparison, value)) => {
                let holds = |found: f64| {
                    let order = found.partial_cmp(value);
                    order.is_some_and(|order| comparison.holds(order))
                };
                match number {
                    Number::Whole(get) => holds(get(subject) as f64),
                    Number::Any(get) => get(subject).into_iter().any(|found| holds(found as f64)),
                    Number::Real(get) => holds(get(subject)),
                    Number::Time(get) => get(subject).is_some_and(|micros| holds(micros as f64)),
                    Number::Percent(get) => get(subject).is_some_and(holds),
                }
            }
        }
    }
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests;

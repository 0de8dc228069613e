//! What differs from run to run and says nothing: dates, ids, tokens; by rules, written by hand or learned.

mod learn;

use serde::{Deserialize, Serialize};

pub use learn::{Learned, learn};

use super::parts::{Difference, Parts};
pub use crate::model::{NoiseRule as Rule, RuleSide};

/// Parts of answers that are noise without being named: they are about the moment, or the way.
const ALWAYS: [&str; 6] = [
    "header.date",
    "header.age",
    "header.expires",
    "header.server-timing",
    "header.traceparent",
    "header.x-request-id",
];

/// Rules of noise, as they are in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// In any order.
    #[serde(default, rename = "noise")]
    pub rules: Vec<Rule>,
}

/// Which parts of a request count when it is matched.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// Rules of noise.
    pub noise: Noise,
    /// Headers that count, in small letters; all others do not.
    pub headers: Vec<String>,
}

impl Noise {
    /// Reads rules.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let noise: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(rule) = noise.rules.iter().find(|rule| rule.part.is_empty()) {
            return Err(format!("a rule for `{}` names no part", rule.call));
        }
        Ok(noise)
    }

    /// The rules as text.
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Adds the rules of another one.
    pub fn merge(&mut self, other: Self) {
        for rule in other.rules {
            if !self.rules.contains(&rule) {
                self.rules.push(rule);
            }
        }
    }

    fn covers(&self, side: RuleSide, kind: &str, part: &str) -> bool {
        self.rules.iter().any(|rule| {
            (rule.side == side || rule.side == RuleSide::Both)
                && wildcard(&rule.part, part)
                && (rule.call == kind || wildcard(&rule.call, kind))
        })
    }

    /// Where an answer differs from the recorded one, noise left out.
    pub fn differences(&self, kind: &str, recorded: &Parts, came: &Parts) -> Vec<Difference> {
        let mut differences = recorded.differences(came);
        differences.retain(|difference| {
            let part = difference.part.as_str();
            !ALWAYS.contains(&part) && !self.covers(RuleSide::Response, kind, part)
        });
        differences
    }
}

impl Matcher {
    /// What a request is found by.
    #[must_use]
    pub fn key(&self, kind: &str, request: &Parts) -> Parts {
        request.only(|part, _| self.counts(kind, part))
    }

    fn counts(&self, kind: &str, part: &str) -> bool {
        let header = part.strip_prefix("header.");
        header.is_none_or(|header| self.headers.iter().any(|wanted| wanted == header))
            && !self.noise.covers(RuleSide::Request, kind, part)
    }
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else {
        return rest.is_empty();
    };
    for piece in middle {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("body.*.id", "body.0.id", true),
            ("body.*.id", "body.id", false),
            ("body*id", "body.id", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxc", false),
            ("*id", "idid", true),
            ("GET /*", "GET /users/{id}", true),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn noise_is_left_out_where_its_rule_says() {
        let noise = Noise::parse(
            "[[noise]]\nside = 'request'\ncall = 'POST /orders'\npart = 'body.at'\n\
             [[noise]]\nside = 'both'\npart = 'body.*.id'\n",
        )
        .unwrap();
        let matcher = Matcher {
            noise: noise.clone(),
            headers: vec!["accept".to_owned()],
        };
        let mut request = Parts::default();
        for (name, value) in [
            ("method", "POST"),
            ("header.accept", "x"),
            ("header.host", "h"),
            ("body.at", "1"),
            ("body.0.id", "2"),
        ] {
            request.push(name, value);
        }
        let names = |kind: &str| -> Vec<String> {
            let key = matcher.key(kind, &request);
            key.iter().map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names("POST /orders"), ["header.accept", "method"]);
        assert_eq!(names("POST /other"), ["body.at", "header.accept", "method"]);
        assert_eq!(Noise::parse(&noise.to_text()), Ok(noise));
    }

    #[test]
    fn a_typo_is_refused() {
        for text in [
            "[[noise]]\nside = 'request'\npart = 'a'\nwhen = 1\n",
            "[[noise]]\nside = 'requests'\npart = 'a'\n",
            "[[noise]]\nside = 'both'\npart = ''\n",
            "[[rules]]\n",
        ] {
            assert!(Noise::parse(text).is_err(), "{text}");
        }
    }
}

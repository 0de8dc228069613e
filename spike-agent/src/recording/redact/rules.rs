//! What is a secret, by its name.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

/// Headers that are secrets as a whole, whatever the rules for names say.
const HEADERS: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-amz-security-token",
    "x-vault-token",
    "www-authenticate-token",
];
/// Headers whose names sound like it and that are none.
const OPEN_HEADERS: [&str; 4] = [
    "sec-websocket-key",
    "idempotency-key",
    "x-idempotency-key",
    "surrogate-key",
];
/// A name with one of these words is a secret's.
const WORDS: [&str; 20] = [
    "password",
    "passwd",
    "pwd",
    "pass",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "tokens",
    "credential",
    "credentials",
    "apikey",
    "jwt",
    "bearer",
    "authorization",
    "sessionid",
    "otp",
    "pin",
    "cvv",
    "auth",
];
/// So is one in which these are hidden without a mark between words.
const WITHIN: [&str; 6] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
];
/// And one that ends so.
const ENDS: [&str; 9] = [
    "apikey",
    "secretkey",
    "privatekey",
    "accesskey",
    "authkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "accountkey",
];
/// What counts or describes secrets is none.
const OPEN: [&str; 14] = [
    "tokentype",
    "maxtokens",
    "totaltokens",
    "prompttokens",
    "completiontokens",
    "inputtokens",
    "outputtokens",
    "maxoutputtokens",
    "tokencount",
    "authtype",
    "authmethod",
    "tokenexpiresin",
    "primarykey",
    "foreignkey",
];
/// Longer names are cut: no secret's name is as long.
pub(super) const NAME_LIMIT: usize = 128;

/// The rules by which secrets are found.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    is_none: bool,
    own: Arc<Own>,
}

/// What an operator adds.
#[derive(Debug, Default)]
struct Own {
    headers: Vec<GlobMatcher>,
    fields: Vec<GlobMatcher>,
    text: Vec<String>,
}

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It is none.
    #[error(
        "`{0}` is no rule: say header=NAME or field=NAME, where NAME may have `*`, or `none` alone to keep secrets readable"
    )]
    Unknown(String),
    /// `none` and something else.
    #[error("`none` keeps every secret readable, so no other rule can stand beside it")]
    NoneAndMore,
    /// Its name is not a pattern.
    #[error("`{rule}`: {why}")]
    Pattern {
        /// The rule.
        rule: String,
        /// What is wrong.
        why: String,
    },
}

impl Redaction {
    /// Reads rules, which add to those that are always there; `none` alone turns all of them off.
    ///
    /// # Errors
    /// The first that is no rule.
    pub fn parse<T: AsRef<str>>(rules: &[T]) -> Result<Self, RuleError> {
        let words = rules.iter().map(|rule| rule.as_ref().trim());
        let words: Vec<&str> = words
            .filter(|rule| !rule.is_empty() && *rule != "default")
            .collect();
        if words.contains(&"none") {
            return match words.len() {
                1 => Ok(Self {
                    is_none: true,
                    own: Arc::default(),
                }),
                _ => Err(RuleError::NoneAndMore),
            };
        }
        let mut own = Own::default();
        for word in words {
            let (list, name) = match word.split_once('=') {
                Some(("header", name)) if !name.is_empty() => (&mut own.headers, name),
                Some(("field", name)) if !name.is_empty() => (&mut own.fields, name),
                _ => return Err(RuleError::Unknown(word.to_owned())),
            };
            let glob = GlobBuilder::new(name).case_insensitive(true).build();
            let glob = glob.map_err(|error| RuleError::Pattern {
                rule: word.to_owned(),
                why: error.kind().to_string(),
            })?;
            list.push(glob.compile_matcher());
            own.text.push(word.to_owned());
        }
        Ok(Self {
            is_none: false,
            own: Arc::new(own),
        })
    }

    /// Everything stays readable.
    pub fn is_none(&self) -> bool {
        self.is_none
    }

    /// The rules as text, as [`parse`](Self::parse) reads them; empty for none at all.
    pub fn to_words(&self) -> Vec<String> {
        if self.is_none {
            return Vec::new();
        }
        let default = ["default".to_owned()];
        default.into_iter().chain(self.own.text.iter().cloned()).collect()
    }

    /// The rules of a recording, by [`About::redaction`](crate::recording::About::redaction).
    ///
    /// # Errors
    /// When a later Spike has written rules that this one does not know.
    pub fn of_recording(words: &[String]) -> Result<Self, RuleError> {
        if words.is_empty() {
            return Self::parse(&["none"]);
        }
        Self::parse(words)
    }

    /// Is the value of this header a secret?
    pub fn is_secret_header(&self, name: &[u8]) -> bool {
        if self.is_none {
            return false;
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if self.own.headers.iter().any(|glob| glob.is_match(&name)) {
            return true;
        }
        if OPEN_HEADERS.contains(&&*name) {
            return false;
        }
        HEADERS.contains(&&*name) || is_secret(name.as_bytes())
    }

    /// Is the value of a field, parameter, column or key of this name a secret?
    pub fn is_secret_field(&self, name: &[u8]) -> bool {
        if self.is_none {
            return false;
        }
        let own = &self.own.fields;
        is_secret(name)
            || (!own.is_empty()
                && own
                    .iter()
                    .any(|glob| glob.is_match(&*String::from_utf8_lossy(name))))
    }
}

/// By the words of the name: `accessToken`, `access_token` and `ACCESS-TOKEN` have the same.
fn is_secret(name: &[u8]) -> bool {
    let name = &name[..name.len().min(NAME_LIMIT)];
    let mut joined = String::with_capacity(name.len());
    // Starts of words in it.
    let mut starts = vec![0];
    let mut before = b' ';
    for &byte in name {
        let begins = byte.is_ascii_uppercase() && before.is_ascii_lowercase()
            || byte.is_ascii_alphanumeric() && !before.is_ascii_alphanumeric();
        if begins && joined.len() > *starts.last().unwrap_or(&0) {
            starts.push(joined.len());
        }
        if byte.is_ascii_alphanumeric() {
            joined.push(char::from(byte.to_ascii_lowercase()));
        }
        before = byte;
    }
    if joined.is_empty() || OPEN.contains(&&*joined) {
        return false;
    }
    if WITHIN.iter().any(|word| joined.contains(word)) || ENDS.iter().any(|end| joined.ends_with(end)) {
        return true;
    }
    let ends = starts.iter().skip(1).copied().chain([joined.len()]);
    let mut words = starts.iter().zip(ends).map(|(start, end)| &joined[*start..end]);
    let last = words.clone().last();
    last == Some("key") || words.any(|word| WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets() {
        let rules = Redaction::default();
        for name in [
            "password",
            "Password",
            "user_password",
            "newPassword",
            "passwd",
            "pwd",
            "db-pass",
            "secret",
            "client_secret",
            "token",
            "access_token",
            "refreshToken",
            "ACCESS-TOKEN",
            "api_key",
            "apiKey",
            "APIKEY",
            "key",
            "x-api-key",
            "privateKey",
            "credentials",
            "userpassword",
            "accesstoken",
            "secretkey",
            "X-Session-Token",
            "tokens",
            "otp",
        ] {
            assert!(rules.is_secret_field(name.as_bytes()), "{name}");
        }
        for name in [
            "user",
            "monkey",
            "keyboard",
            "keys",
            "compass",
            "passenger",
            "token_type",
            "max_tokens",
            "primary_key",
            "",
            "passes",
            "author",
            "pinned",
            "spin",
            "name",
            "id",
            "-",
        ] {
            assert!(!rules.is_secret_field(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn headers_are_secrets_by_name_or_rule() {
        let rules = Redaction::parse(&["header=x-ssn*", "field=iban"]).unwrap();
        for name in [
            "Authorization",
            "COOKIE",
            "set-cookie",
            "X-Api-Key",
            "X-Csrf-Token",
            "X-SSN-Last",
        ] {
            assert!(rules.is_secret_header(name.as_bytes()), "{name}");
        }
        for name in ["Sec-WebSocket-Key", "Host", "Idempotency-Key", "Accept", "iban"] {
            assert!(!rules.is_secret_header(name.as_bytes()), "{name}");
        }
        assert!(rules.is_secret_field(b"IBAN") && !Redaction::default().is_secret_field(b"iban"));
        assert_eq!(rules.to_words(), ["default", "header=x-ssn*", "field=iban"]);
        assert_eq!(
            Redaction::of_recording(&rules.to_words()).unwrap().to_words(),
            rules.to_words()
        );
    }

    #[test]
    fn rules_are_checked() {
        let none = Redaction::parse(&["none"]).unwrap();
        assert!(none.is_none() && !none.is_secret_header(b"cookie") && none.to_words().is_empty());
        assert!(Redaction::of_recording(&[]).unwrap().is_none());
        assert_eq!(
            Redaction::parse(&["none", "field=a"]).unwrap_err(),
            RuleError::NoneAndMore
        );
        for rule in ["cookie", "field=", "column=a", "=a"] {
            let error = Redaction::parse(&[rule]).unwrap_err();
            assert_eq!(error, RuleError::Unknown(rule.to_owned()));
        }
        assert!(matches!(
            Redaction::parse(&["field=["]).unwrap_err(),
            RuleError::Pattern { .. }
        ));
    }
}

//! Takes secrets out of text that others will read: what is known to be one, and what looks like one.
//!
//! Too much may go; too little may not. Nothing here knows where secrets are kept.

use std::ops::Range;

/// What stands in a secret's place.
pub const REMOVED: &str = "[removed]";
/// Shorter ones are not looked for: they would take words out of every sentence.
const SECRET_BYTES_MIN: usize = 6;

/// A name that has one of these in it has a secret for its value.
const TELLING: [&str; 9] = [
    "secret",
    "passw",
    "token",
    "credential",
    "authorization",
    "access_key",
    "accesskey",
    "private_key",
    "signature",
];

/// Secrets that are known.
#[derive(Debug, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Adds one; text around it that is no part of it does not matter.
    pub fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() >= SECRET_BYTES_MIN && !self.0.iter().any(|known| known == secret) {
            self.0.push(secret.to_owned());
            // one that is within another must not break that up
            self.0.sort_by_key(|known| std::cmp::Reverse(known.len()));
        }
    }

    /// The text without them.
    #[must_use]
    pub fn take_out(&self, text: &str) -> String {
        let mut text = private_keys(text);
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REMOVED);
            }
        }
        let lines = text.split_inclusive('\n');
        lines.map(|line| values(&urls(line))).collect()
    }
}

/// True if the name of a setting says that its value is a secret.
#[must_use]
pub fn is_telling(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TELLING.iter().any(|word| name.contains(word))
}

/// Where a URL has a password: what is behind the user's name, or all before the `@` where there is no
/// name.
fn passwords_in(text: &str) -> Vec<Range<usize>> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>');
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        from += at + 3;
        let rest = &text[from..];
        let authority = rest.find(ends).map_or(rest, |end| &rest[..end]);
        if let Some((user, _)) = authority.rsplit_once('@') {
            let name = user.find(':').map_or(0, |colon| colon + 1);
            found.push(from + name..from + user.len());
        }
    }
    found
}

/// The passwords in URLs.
#[must_use]
pub fn passwords(text: &str) -> Vec<&str> {
    passwords_in(text).into_iter().map(|at| &text[at]).collect()
}

/// The text without passwords in URLs: `scheme://user:[removed]@host`.
#[must_use]
pub fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for at in passwords_in(text) {
        out.push_str(&text[done..at.start]);
        out.push_str(REMOVED);
        done = at.end;
    }
    out + &text[done..]
}

/// A line without the values of names that tell of a secret: `name=value`, `name: value`, `"name":
/// "value"`. What is named so by a sentence keeps its next word at the least.
fn values(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut out = String::with_capacity(line.len());
    let mut done = 0;
    while let Some((start, telling)) = TELLING
        .iter()
        .filter_map(|word| Some((done + lower[done..].find(word)?, *word)))
        .min()
    {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let name_ends = lower[start..]
            .find(|c| !is_name(c))
            .map_or(line.len(), |n| start + n);
        let after = line[name_ends..].trim_start_matches(['"', '\'', ' ', '\t']);
        let Some(value) = after.strip_prefix(['=', ':']) else {
            out.push_str(&line[done..name_ends]);
            done = name_ends;
            continue;
        };
        let value = value.trim_start_matches([' ', '\t', '"', '\'']);
        let from = line.len() - value.len();
        let ends = |c: char| match telling {
            // a word before it says of which sort it is
            "authorization" => matches!(c, '"' | '\'' | '\n' | ','),
            _ => c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '&' | ';' | '}' | ']'),
        };
        let length = value.find(ends).unwrap_or(value.len());
        out.push_str(&line[done..from]);
        if length > 0 {
            out.push_str(REMOVED);
        }
        done = from + length;
    }
    out + &line[done..]
}

/// The text without private keys as PEM has them.
fn private_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let (before, block) = rest.split_at(begin);
        out.push_str(before);
        let label_ends = block[11..].find("-----").map_or(block.len(), |n| n + 11);
        if !block[..label_ends].contains("PRIVATE KEY") {
            out.push_str(&block[..label_ends]);
            rest = &block[label_ends..];
            continue;
        }
        out.push_str(REMOVED);
        let end = block.find("-----END ").map(|end| end + 9);
        let end = end.and_then(|end| Some(end + block[end..].find("-----")? + 5));
        rest = &block[end.unwrap_or(block.len())..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_goes() {
        let none = Secrets::default();
        for (text, left) in [
            ("http://u:pw@h/x", "http://u:[removed]@h/x"),
            (
                "mqtts://tok@h:1 and http://h/a@b",
                "mqtts://[removed]@h:1 and http://h/a@b",
            ),
            ("\"http://u:p@w@h\"", "\"http://u:[removed]@h\""),
            (
                "CVMFS_S3_SECRET_KEY=abc def",
                "CVMFS_S3_SECRET_KEY=[removed] def",
            ),
            (
                "{\"session_token\": \"abc\", \"x\": 1}",
                "{\"session_token\": \"[removed]\", \"x\": 1}",
            ),
            ("?X-Amz-Signature=ab&y=1", "?X-Amz-Signature=[removed]&y=1"),
            (
                "Authorization: Bearer abc.def\nnext",
                "Authorization: [removed]\nnext",
            ),
            (
                "rw,username=u,password=p,vers=3",
                "rw,username=u,password=[removed],vers=3",
            ),
            ("the token is not valid", "the token is not valid"),
            ("passwörter: ä", "passwörter: ä"),
            ("token=", "token="),
            ("", ""),
        ] {
            assert_eq!(none.take_out(text), left);
        }
    }

    #[test]
    fn private_keys_go_and_certificates_stay() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN RSA PRIVATE KEY-----\nBBB\n-----END RSA PRIVATE KEY-----";
        let text = format!("{certificate}{key}\nrest");
        let left = Secrets::default().take_out(&text);
        assert_eq!(left, format!("{certificate}{REMOVED}\nrest"));
        // one that is cut off goes to the end
        let cut = &text[..text.len() - 20];
        assert!(!Secrets::default().take_out(cut).contains("BBB"));
    }

    #[test]
    fn what_is_known_goes_wherever_it_is() {
        let mut secrets = Secrets::default();
        for secret in ["inner1", "an inner1 one", "short"] {
            secrets.add(secret);
        }
        let left = secrets.take_out("x an inner1 one, inner1y short");
        assert_eq!(left, "x [removed], [removed]y short");
    }
}

//! Takes secrets out of text that others will read.

use std::ops::Range;

/// What stands in a secret's place.
pub const REMOVED: &str = "[removed]";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_go() {
        for (text, left) in [
            ("http://u:pw@h/x", "http://u:[removed]@h/x"),
            (
                "mqtts://tok@h:1, http://h/a@b",
                "mqtts://[removed]@h:1, http://h/a@b",
            ),
            ("\"http://u:p@w@h\"", "\"http://u:[removed]@h\""),
            ("", ""),
        ] {
            assert_eq!(urls(text), left);
        }
    }
}

//! Paths of any bytes as text.

use formats::RepoPath;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path in the API's text form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathText(pub RepoPath);

impl std::fmt::Display for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_root() {
            return f.write_str("/");
        }
        for chunk in self.0.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    // a newline in a name must not forge a line of output
                    c if c.is_control() => {
                        let mut bytes = [0; 4];
                        for byte in c.encode_utf8(&mut bytes).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c => write!(f, "{c}")?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for PathText {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if matches!(s, "" | "/") {
            return Ok(Self(RepoPath::root()));
        }
        let mut bytes = Vec::with_capacity(s.len());
        let mut rest = s.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first != b'\\' {
                bytes.push(first);
                continue;
            }
            let hex = |at: usize| rest.get(at).and_then(|b| char::from(*b).to_digit(16));
            match (rest.first(), hex(1), hex(2)) {
                (Some(b'\\'), ..) => {
                    bytes.push(b'\\');
                    rest = &rest[1..];
                }
                (Some(b'x'), Some(high), Some(low)) => {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                    rest = &rest[3..];
                }
                _ => return Err(format!("{s:?}: after a backslash comes another one or xNN")),
            }
        }
        RepoPath::new(&bytes).map(Self).map_err(|e| e.to_string())
    }
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl From<RepoPath> for PathText {
    fn from(path: RepoPath) -> Self {
        Self(path)
    }
}

impl From<&RepoPath> for PathText {
    fn from(path: &RepoPath) -> Self {
        Self(path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_bytes_survive_text() {
        for bytes in [
            &b""[..],
            b"/a",
            b"/a\\b",
            b"/\xff\xfe/x",
            b"/n\nl",
            "/ü/\\x41".as_bytes(),
        ] {
            let path = PathText(RepoPath::new(bytes).unwrap());
            let text = path.to_string();
            assert!(!text.contains('\n'));
            assert_eq!(text.parse::<PathText>().unwrap(), path, "{text}");
        }
        assert_eq!(
            PathText(RepoPath::new(b"/\xff").unwrap()).to_string(),
            "/\\xff"
        );
        for bad in ["a", "/a/../b", "/\\q", "/\\x4", "/a\\"] {
            assert!(bad.parse::<PathText>().is_err(), "{bad}");
        }
    }
}

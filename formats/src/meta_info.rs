//! The repository's meta information: who runs it, for people. A JSON object of any content.
//!
//! Stored as an object of kind [`crate::ObjectKind::MetaInfo`], and named by the manifest.

use serde_json::{Map, Value};

/// Far above what anybody writes by hand.
pub const MAX_META_INFO_BYTES: usize = 1 << 20;

/// What a new repository says of itself: the fields to fill in, in the words and spacing of the
/// official tool, so that the object is the same.
pub const SKELETON: &str = r#"{
  "administrator" : "Your Name",
  "email"         : "you@organisation.org",
  "organisation"  : "Your Organisation",
  "description"   : "Repository content",
  "url"           : "Project website",
  "recommended-stratum0":  "stratum 0 url",
  "recommended-stratum1s" : [ "stratum1 url", "stratum1 url" ],

  "custom" : {
    "_comment" : "Put arbitrary structured data here"
  }
}
"#;

/// Why bytes are not meta information.
#[derive(Debug, thiserror::Error)]
pub enum MetaInfoError {
    /// The file is too large.
    #[error("meta information of {0} bytes; it must not exceed {MAX_META_INFO_BYTES}")]
    TooLarge(usize),
    /// Not a JSON object.
    #[error("meta information is not a JSON object")]
    Json(#[from] serde_json::Error),
}

/// Reads meta information.
///
/// # Errors
/// [`MetaInfoError`].
pub fn parse(bytes: &[u8]) -> Result<Map<String, Value>, MetaInfoError> {
    if bytes.len() > MAX_META_INFO_BYTES {
        return Err(MetaInfoError::TooLarge(bytes.len()));
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skeleton_is_the_official_one() {
        let golden = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/golden/sha1/dump/metainfo.json"
        );
        assert_eq!(SKELETON.as_bytes(), std::fs::read(golden).unwrap());
        assert_eq!(parse(SKELETON.as_bytes()).unwrap().len(), 8);
    }

    #[test]
    fn refuses_what_is_no_object() {
        let deep = "[".repeat(100_000);
        for bad in ["", "[]", "1", "{", "{}x", &deep] {
            assert!(parse(bad.as_bytes()).is_err());
        }
        assert!(parse(b"{}").unwrap().is_empty());
    }
}

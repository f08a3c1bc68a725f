//! Which files of a storage a client may ask for: those that CVMFS itself names.

/// How long caches keep a file that is replaced.
pub const ROOT_FILE_SECONDS: u32 = 61;
const OBJECT_SECONDS: u32 = 259_200;

/// Content type and age of a file that a client may ask for.
#[must_use]
pub fn kind_of(name: &str) -> Option<(&'static str, u32)> {
    if let Some(rest) = name.strip_prefix(".cvmfs") {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        return rest
            .bytes()
            .all(plain)
            .then_some(("application/x-cvmfs", ROOT_FILE_SECONDS));
    }
    let object = name.strip_prefix("data/")?;
    let (directory, rest) = object.split_once('/')?;
    let name: formats::ObjectName = format!("{directory}{rest}").parse().ok()?;
    (name.storage_path() == format!("data/{object}"))
        .then_some(("application/octet-stream", OBJECT_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cvmfs_names() {
        let hash = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78";
        let object = |suffix: &str| format!("data/{}/{}{suffix}", &hash[..2], &hash[2..]);
        for name in [object(""), object("C"), object("P"), object("-shake128X")] {
            assert_eq!(kind_of(&name).unwrap().1, OBJECT_SECONDS, "{name}");
        }
        for name in [
            ".cvmfspublished",
            ".cvmfswhitelist",
            ".cvmfs_master_replica",
        ] {
            assert_eq!(kind_of(name), Some(("application/x-cvmfs", 61)));
        }
        for name in [
            "data/txn/abc",
            "data/e8/../../x",
            ".cvmfs/../../etc/passwd",
            "../keys/x",
            "data/e8",
            "",
        ] {
            assert_eq!(kind_of(name), None, "{name}");
        }
        assert_eq!(kind_of(&object("Z")), None);
    }
}

//! Any bytes as an access control list, which any user may set on files of theirs.
//!
//! A module of fsimpl's tests too; both have `fsimpl/src/acl.rs` at `crate::acl`.

use crate::acl::{ACCESS, Acl, DEFAULT};

/// Reads a list, writes it again, and lets it follow a mode: the first two bytes.
pub fn acl(bytes: &[u8]) {
    let Some((mode, value)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let mode = u16::from_le_bytes(*mode) & 0o7777;
    let Some(mut list) = Acl::parse(value) else {
        return;
    };
    assert_eq!(list.render(), value);
    for is_dir in [false, true] {
        let inherited = list.inherit(mode, is_dir);
        assert_eq!(
            inherited.perm & !(mode & 0o7777),
            0,
            "more than was asked for"
        );
        let default = inherited.xattrs.get(DEFAULT).map(Vec::as_slice);
        assert_eq!(default, is_dir.then_some(value));
        if let Some(access) = inherited.xattrs.get(ACCESS) {
            let access = Acl::parse(access).expect("what was written");
            assert_eq!(access.mode_bits(), inherited.perm & 0o777);
        }
    }
    list.follow_mode(mode);
    assert_eq!(list.mode_bits(), mode & 0o777);
    assert_eq!(Acl::parse(&list.render()), Some(list));
}

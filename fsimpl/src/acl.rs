//! POSIX access control lists, as the kernel hands them in as extended attributes.
//!
//! ```text
//! version: u32 = 2, then entries of { tag: u16, perm: u16, id: u32 }, little-endian
//! ```
//!
//! The mode and the list say the same thing twice: a list that is set changes the mode, a mode that
//! is set changes the list. Nothing here decides who may do what: the kernel does.

use formats::Xattrs;

/// The list that says who may use the file.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that a directory's new entries get.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// An access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

/// What a new inode gets from its directory's default list.
pub(crate) struct Inherited {
    pub(crate) perm: u16,
    pub(crate) xattrs: Xattrs,
}

impl Acl {
    /// Reads an attribute's value; none if it is no list.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (version, rest) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
            return None;
        }
        let entries: Vec<Entry> = rest
            .chunks_exact(8)
            .map(|c| Entry {
                tag: u16::from_le_bytes([c[0], c[1]]),
                perm: u16::from_le_bytes([c[2], c[3]]),
                id: u32::from_le_bytes([c[4], c[5], c[6], c[7]]),
            })
            .collect();
        let known = |e: &Entry| {
            matches!(e.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && e.perm <= 7
        };
        let one = |tag: u16| entries.iter().filter(|e| e.tag == tag).count() == 1;
        let named = entries.iter().any(|e| matches!(e.tag, USER | GROUP));
        let whole = one(USER_OBJ) && one(GROUP_OBJ) && one(OTHER) && (!named || one(MASK));
        (whole && entries.iter().all(known)).then_some(Self(entries))
    }

    /// The attribute's value.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.perm.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    fn perm_of(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|e| e.tag == tag).map(|e| e.perm)
    }

    fn set(&mut self, tag: u16, perm: u16) {
        if let Some(entry) = self.0.iter_mut().find(|e| e.tag == tag) {
            entry.perm = perm;
        }
    }

    /// The entry that the mode's group bits stand for.
    fn group_tag(&self) -> u16 {
        if self.perm_of(MASK).is_some() {
            MASK
        } else {
            GROUP_OBJ
        }
    }

    /// The permission bits that say the same.
    pub(crate) fn mode_bits(&self) -> u16 {
        let of = |tag| self.perm_of(tag).unwrap_or(0);
        of(USER_OBJ) << 6 | of(self.group_tag()) << 3 | of(OTHER)
    }

    /// True if permission bits say all of it.
    pub(crate) fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// Follows a chmod.
    pub(crate) fn follow_mode(&mut self, perm: u16) {
        self.set(USER_OBJ, perm >> 6 & 7);
        self.set(self.group_tag(), perm >> 3 & 7);
        self.set(OTHER, perm & 7);
    }

    /// What an inode made with mode `perm` gets, where this is its directory's default list.
    pub(crate) fn inherit(&self, perm: u16, is_dir: bool) -> Inherited {
        let mut access = self.clone();
        let allowed = access.mode_bits() & perm & 0o777;
        access.follow_mode(allowed);
        let mut xattrs = Xattrs::new();
        if !access.is_minimal() {
            xattrs.insert(ACCESS.to_vec(), access.render());
        }
        if is_dir {
            xattrs.insert(DEFAULT.to_vec(), self.render());
        }
        Inherited {
            perm: perm & !0o777 | allowed,
            xattrs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |&(tag, perm, id): &(u16, u16, u32)| Entry { tag, perm, id };
        Acl(entries.iter().map(entry).collect()).render()
    }

    #[test]
    fn list_and_mode_follow_each_other() {
        let value = list(&[
            (USER_OBJ, 7, u32::MAX),
            (USER, 5, 1000),
            (GROUP_OBJ, 4, u32::MAX),
            (MASK, 6, u32::MAX),
            (OTHER, 1, u32::MAX),
        ]);
        let mut acl = Acl::parse(&value).unwrap();
        assert_eq!(acl.mode_bits(), 0o761);
        acl.follow_mode(0o640);
        assert_eq!(acl.mode_bits(), 0o640);
        assert_eq!(acl.perm_of(GROUP_OBJ), Some(4), "chmod moves the mask");
        assert_eq!(Acl::parse(&acl.render()), Some(acl));
    }

    #[test]
    fn a_default_list_is_masked_by_the_mode() {
        let value = list(&[
            (USER_OBJ, 7, u32::MAX),
            (GROUP_OBJ, 5, u32::MAX),
            (GROUP, 7, 50),
            (MASK, 7, u32::MAX),
            (OTHER, 5, u32::MAX),
        ]);
        let file = Acl::parse(&value).unwrap().inherit(0o2664, false);
        assert_eq!(file.perm, 0o2664);
        assert!(file.xattrs.contains_key(ACCESS) && !file.xattrs.contains_key(DEFAULT));
        let dir = Acl::parse(&value).unwrap().inherit(0o777, true);
        assert_eq!((dir.perm, &dir.xattrs[DEFAULT]), (0o775, &value));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let whole = list(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 5, 0)]);
        assert!(Acl::parse(&whole).is_some());
        assert!(Acl::parse(&whole[..whole.len() - 1]).is_none());
        assert!(Acl::parse(&[]).is_none());
        assert!(Acl::parse(&list(&[(USER_OBJ, 7, 0), (OTHER, 5, 0)])).is_none());
        assert!(Acl::parse(&list(&[(USER_OBJ, 9, 0), (GROUP_OBJ, 5, 0), (OTHER, 5, 0)])).is_none());
    }
}

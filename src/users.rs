//! Names and numbers of users and groups, as the machine has them.
//!
//! The files are looked at first; LDAP, sssd and their like are asked through `getent`, which speaks to
//! all of them.

use std::fs;
use std::process::{Command, Stdio};

/// Of users.
pub const USERS: &str = "passwd";
/// Of groups.
pub const GROUPS: &str = "group";

/// A number, or the number of a name in a database.
#[must_use]
pub fn id_of(name: &str, database: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let id = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.trim().parse().ok())?
    };
    let file = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    let known = file.lines().find_map(id);
    known.or_else(|| asked(database, name)?.lines().find_map(id))
}

/// A user's name, or that it has none.
#[must_use]
pub fn name_of(uid: u32) -> String {
    let line = asked(USERS, &uid.to_string());
    let name = line.as_deref().and_then(|line| line.split_once(':'));
    name.map_or_else(|| format!("user {uid}"), |(name, _)| name.to_owned())
}

fn asked(database: &str, key: &str) -> Option<String> {
    let output = Command::new("getent")
        .args(["--", database, key])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(id_of("root", USERS), Some(0));
        assert_eq!(id_of("17", GROUPS), Some(17));
        assert_eq!(id_of("no-such-user-here", USERS), None);
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(4_294_967_294), "user 4294967294");
    }
}

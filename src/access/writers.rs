//! The right to write on the mount, as the configuration grants it.

use std::path::PathBuf;

use formats::RepoPath;
use fsimpl::Caller;

use crate::config::{Right, Settings};
use crate::users::{self, GROUPS, USERS};

/// What the configuration says of a repository, with names looked up: who may write below which path.
pub struct WriteRules {
    /// The daemon's own user, who may everything, as root may.
    owner: u32,
    rules: Vec<Rule>,
}

struct Rule {
    below: RepoPath,
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl WriteRules {
    /// None where nobody is named: then the files' permissions alone decide.
    pub fn of(settings: &Settings, repo: &str, owner: u32) -> Option<Self> {
        let granting = settings.repository(repo).allow.iter();
        let granting = granting.filter(|allow| allow.may.contains(&Right::Write));
        let rules: Vec<Rule> = granting
            .map(|allow| Rule {
                below: match allow.path.as_deref() {
                    None | Some("/") => RepoPath::root(),
                    // the configuration was checked when it was read
                    Some(path) => path.parse().unwrap_or_else(|_| RepoPath::root()),
                },
                users: numbers(&allow.users, USERS, repo),
                groups: numbers(&allow.groups, GROUPS, repo),
            })
            .collect();
        (!rules.is_empty()).then_some(Self { owner, rules })
    }
}

/// Whoever the system does not know has no rights, and the log says so.
fn numbers(names: &[String], database: &str, repo: &str) -> Vec<u32> {
    let known = |name: &String| {
        let number = users::id_of(name, database);
        if number.is_none() {
            tracing::warn!(
                "{repo}: the configuration allows {name:?}, who is not in the {database} database"
            );
        }
        number
    };
    names.iter().filter_map(known).collect()
}

impl fsimpl::Writers for WriteRules {
    fn may_write(&self, caller: &Caller, path: &RepoPath) -> bool {
        if caller.uid == 0 || caller.uid == self.owner {
            return true;
        }
        let mut of_process = None;
        let mut is_in = |gid: &u32| {
            *gid == caller.gid
                || of_process
                    .get_or_insert_with(|| supplementary_groups(caller.pid))
                    .contains(gid)
        };
        self.rules.iter().any(|rule| {
            path.is_within(&rule.below)
                && (rule.users.contains(&caller.uid) || rule.groups.iter().any(&mut is_in))
        })
    }
}

/// Those of a process that waits for us, so that its number is its own. None where it cannot be seen.
fn supplementary_groups(pid: u32) -> Vec<u32> {
    let status = PathBuf::from(format!("/proc/{pid}/status"));
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let numbers = groups.unwrap_or_default().split_ascii_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fsimpl::Writers as _;

    use super::*;

    fn rules(allow: &str) -> Option<WriteRules> {
        let text = format!("[[repository.\"a.example.org\".allow]]\n{allow}");
        let settings = Settings {
            source: None,
            state_dir: "/s".into(),
            mountpoint: "/m".into(),
            file: crate::config::parse(&text, Path::new("x")).unwrap(),
            overrides: crate::config::Overrides::default(),
        };
        WriteRules::of(&settings, "a.example.org", 1000)
    }

    fn caller(uid: u32, gid: u32) -> Caller {
        Caller {
            uid,
            gid,
            ..Caller::default()
        }
    }

    #[test]
    fn who_may_write_where() {
        let rules = rules(
            "path = \"/sw\"\nusers = [\"2000\", \"no-such-user-here\"]\ngroups = [\"3000\"]\nmay = [\"write\"]\n",
        )
        .unwrap();
        let may = |caller: Caller, path: &str| rules.may_write(&caller, &path.parse().unwrap());
        for path in ["/sw", "/sw/x/y"] {
            assert!(may(caller(2000, 9), path));
            assert!(may(caller(9, 3000), path));
            assert!(!may(caller(9, 9), path));
        }
        for path in ["/swx", "/other"] {
            assert!(!may(caller(2000, 3000), path));
            assert!(may(caller(0, 0), path) && may(caller(1000, 9), path));
        }
    }

    #[test]
    fn without_such_a_right_everybody_may() {
        assert!(rules("users = [\"2000\"]\nmay = [\"commit\"]\n").is_none());
    }

    #[test]
    fn groups_of_this_process() {
        let mut seen = supplementary_groups(std::process::id());
        let mut groups = crate::peer::Peer::this_process().groups;
        seen.sort_unstable();
        groups.sort_unstable();
        assert_eq!(seen, groups);
    }
}

//! Who may ask what.
//!
//! Root and the daemon's own user may everything. Whoever else reaches the socket may look; to
//! change what is published they need an `allow` of the configuration. The right to write on the
//! mount ([`WriteRules`]) implies nothing here.

mod writers;

use formats::RepoPath;

use crate::api::Request;
use crate::config::{Allow, Right, Settings};
use crate::peer::Peer;
use crate::report::{Failure, Kind, Result};
use crate::users::{self, GROUPS, USERS};

pub use writers::WriteRules;

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Needs<'a> {
    /// Reaching the socket.
    Nothing,
    /// This right, at all of these paths; no path: the repository's root.
    Right(Right, &'a str, Vec<&'a RepoPath>),
    /// Being root or the owner.
    Owner,
}

fn needs(request: &Request) -> Needs<'_> {
    match request {
        Request::Health
        | Request::Status(_)
        | Request::Diff(_)
        | Request::TagList(_)
        | Request::Check(_) => Needs::Nothing,
        Request::Commit(commit) if commit.dry_run => Needs::Nothing,
        Request::Commit(commit) => {
            let paths = commit.paths.iter().map(|p| &p.0).collect();
            Needs::Right(Right::Commit, &commit.repo, paths)
        }
        Request::Abort(at) => Needs::Right(Right::Abort, &at.repo, vec![&at.path.0]),
        Request::TagAdd(tag) => Needs::Right(Right::Tag, &tag.repo, Vec::new()),
        Request::TagRemove(tag) => Needs::Right(Right::Tag, &tag.repo, Vec::new()),
        Request::Mkfs(_)
        | Request::Rollback(_)
        | Request::Resign(_)
        | Request::Rmfs(_)
        | Request::SiteAdd(_)
        | Request::SiteRevoke(_)
        | Request::SiteList
        | Request::SiteBroker(_)
        | Request::Drain(_)
        | Request::Reload
        | Request::LogLevel(_)
        | Request::Gc(_)
        | Request::Unmount(_) => Needs::Owner,
    }
}

/// Refuses what the peer may not.
///
/// # Errors
/// [`Kind::Denied`].
pub fn check(request: &Request, peer: &Peer, owner: u32, settings: &Settings) -> Result<()> {
    if peer.uid == 0 || peer.uid == owner {
        return Ok(());
    }
    let denied = |what: String| Err(Failure::new(Kind::Denied, what));
    let verb = request.verb();
    match needs(request) {
        Needs::Nothing => Ok(()),
        Needs::Owner => denied(format!(
            "{verb} is for root and the daemon's own user (uid {owner}) only; you are uid {}",
            peer.uid
        )),
        Needs::Right(right, repo, paths) => {
            let allow = settings.repository(repo).allow;
            let root = RepoPath::root();
            let paths = if paths.is_empty() { vec![&root] } else { paths };
            for path in paths {
                if !allow.iter().any(|a| grants(a, right, path, peer)) {
                    return denied(format!(
                        "uid {} may not {verb} {path} of {repo}",
                        peer.uid
                    ))
                    .map_err(|f: Failure| {
                        f.hint(format!(
                            "[[repository.\"{repo}\".allow]] in the daemon's configuration grants it"
                        ))
                    });
                }
            }
            // an empty tag moves nothing, but a tag set with a commit is a tag all the same
            if let Request::Commit(commit) = request
                && commit.tag.is_some()
                && !allow.iter().any(|a| grants(a, Right::Tag, &root, peer))
            {
                return denied(format!(
                    "uid {} may commit to {repo}, but not tag it",
                    peer.uid
                ));
            }
            Ok(())
        }
    }
}

fn grants(allow: &Allow, right: Right, path: &RepoPath, peer: &Peer) -> bool {
    // a tag names the whole repository's revision, wherever the right to commit ends
    let below = match allow.path.as_deref() {
        None | Some("/") => true,
        Some(_) if right == Right::Tag => true,
        Some(at) => at.parse().is_ok_and(|at| path.is_within(&at)),
    };
    let user = |name: &String| users::id_of(name, USERS) == Some(peer.uid);
    let group = |name: &String| users::id_of(name, GROUPS).is_some_and(|gid| peer.is_in(gid));
    below
        && allow.may.contains(&right)
        && (allow.users.iter().any(user) || allow.groups.iter().any(group))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const OWNER: u32 = 1000;
    const REPO: &str = "a.example.org";

    fn settings() -> Settings {
        let text = format!(
            "[[repository.\"{REPO}\".allow]]\npath = \"/sw\"\nusers = [\"2000\"]\ngroups = [\"3000\"]\nmay = [\"commit\", \"tag\"]\n\
             [[repository.\"{REPO}\".allow]]\nusers = [\"2001\"]\nmay = [\"abort\"]\n"
        );
        Settings {
            source: None,
            state_dir: "/s".into(),
            mountpoint: "/m".into(),
            file: crate::config::parse(&text, Path::new("x")).unwrap(),
            overrides: crate::config::Overrides::default(),
        }
    }

    fn request(verb: &str, more: &str) -> Request {
        let body = format!("{{\"repo\":\"{REPO}\"{more}}}");
        Request::from_http(verb, body.as_bytes()).unwrap()
    }

    /// verb and fields; may: a stranger, 2000, somebody in group 3000, 2001 (abort only)
    #[test]
    fn permission_table() {
        let requests = [
            (request("health", ""), [true; 4]),
            (request("status", ""), [true; 4]),
            (request("diff", ""), [true; 4]),
            (request("tag-list", ""), [true; 4]),
            (request("check", ""), [true; 4]),
            (request("commit", r#","dry_run":true"#), [true; 4]),
            (
                request("commit", r#","paths":["/sw"]"#),
                [false, true, true, false],
            ),
            (
                request("commit", r#","paths":["/sw/x","/sw/y"]"#),
                [false, true, true, false],
            ),
            (
                request("commit", r#","paths":["/sw"],"tag":"v1""#),
                [false, true, true, false],
            ),
            (request("commit", r#","paths":["/sw","/etc"]"#), [false; 4]),
            (request("commit", r#","paths":["/software"]"#), [false; 4]),
            (request("commit", ""), [false; 4]),
            (
                request("abort", r#","path":"/sw""#),
                [false, false, false, true],
            ),
            (request("abort", ""), [false, false, false, true]),
            (
                request("tag-add", r#","name":"t""#),
                [false, true, true, false],
            ),
            (
                request("tag-remove", r#","names":["t"]"#),
                [false, true, true, false],
            ),
            (request("mkfs", ""), [false; 4]),
            (request("rollback", r#","tag":"t""#), [false; 4]),
            (request("resign", r#","days":30"#), [false; 4]),
            (request("rmfs", ""), [false; 4]),
            (request("site-add", r#","site":"cern""#), [false; 4]),
            (request("site-revoke", r#","site":"cern""#), [false; 4]),
            (request("site-list", ""), [false; 4]),
            (request("site-broker", r#","hosts":["b"]"#), [false; 4]),
            (request("unmount", r#","staged":"discard""#), [false; 4]),
            (request("drain", ""), [false; 4]),
            (request("reload", ""), [false; 4]),
            (request("log-level", r#","filter":"debug""#), [false; 4]),
            (request("log-level", ""), [false; 4]),
            (request("gc", r#","dry_run":true"#), [false; 4]),
        ];
        let peer = |uid, groups: &[u32]| Peer {
            uid,
            gid: uid,
            groups: groups.to_vec(),
        };
        let peers = [
            peer(9, &[9]),
            peer(2000, &[]),
            peer(9, &[8, 3000]),
            peer(2001, &[]),
        ];
        for (request, may) in &requests {
            for (peer, may) in peers.iter().zip(may) {
                let result = check(request, peer, OWNER, &settings());
                assert_eq!(result.is_ok(), *may, "{request:?} by {peer:?}");
                if let Err(failure) = result {
                    assert_eq!(failure.kind, Kind::Denied);
                }
            }
            for uid in [0, OWNER] {
                check(request, &peer(uid, &[]), OWNER, &settings()).unwrap();
            }
        }
    }
}

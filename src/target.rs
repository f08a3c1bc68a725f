//! What a TARGET on the command line means: a repository and a path in it.
//!
//! `REPO[/PATH]`, or a path below the mount. Purely by name but for the directories on the way,
//! whose symbolic links are followed; the last name is taken as it is, so that a link, or a name
//! that was removed, can be committed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use formats::RepoPath;

use crate::report::{Failure, Result};

/// A repository and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The repository's name.
    pub repo: String,
    /// Where in it.
    pub path: RepoPath,
}

/// What targets are resolved against.
pub struct Surroundings {
    /// Registered repositories.
    pub repositories: Vec<String>,
    /// Where they are mounted, or were last.
    pub mountpoint: Option<PathBuf>,
    /// The working directory.
    pub cwd: PathBuf,
}

impl Surroundings {
    /// Resolves one target.
    ///
    /// # Errors
    /// [`crate::report::Kind::Usage`].
    pub fn resolve(&self, text: &str) -> Result<Target> {
        let is_path = text.starts_with('/') || matches!(text.split('/').next(), Some("." | ".."));
        if !is_path {
            let (repo, rest) = text.split_once('/').unwrap_or((text, ""));
            if self.repositories.iter().any(|known| known == repo) {
                return self.in_repository(repo, rest.as_bytes(), text);
            }
        }
        if text.is_empty() {
            return Err(Failure::usage("an empty TARGET").hint(self.known()));
        }
        self.below_mount(text, is_path)
    }

    /// Resolves all targets of a command that takes several of one repository; nested ones are
    /// folded into the outer one, which is said in the second value.
    ///
    /// # Errors
    /// As [`Surroundings::resolve`]; targets of several repositories.
    pub fn resolve_all(&self, texts: &[String]) -> Result<(String, Vec<RepoPath>, Vec<String>)> {
        let mut targets = Vec::new();
        for text in texts {
            targets.push(self.resolve(text)?);
        }
        let Some(first) = targets.first() else {
            return Err(Failure::usage("no TARGET"));
        };
        let repo = first.repo.clone();
        if let Some(other) = targets.iter().find(|t| t.repo != repo) {
            return Err(Failure::usage(format!(
                "{repo} and {} are two repositories, and a commit makes one revision of one",
                other.repo
            ))
            .hint("commit them one after the other"));
        }
        let mut paths: Vec<RepoPath> = targets.into_iter().map(|t| t.path).collect();
        paths.sort();
        let mut notes = Vec::new();
        let mut kept: Vec<RepoPath> = Vec::new();
        for path in paths {
            match kept.last() {
                Some(outer) if path.is_within(outer) => {
                    notes.push(format!(
                        "{path} lies within {outer}, which is published as a whole"
                    ));
                }
                _ => kept.push(path),
            }
        }
        Ok((repo, kept, notes))
    }

    fn in_repository(&self, repo: &str, rest: &[u8], text: &str) -> Result<Target> {
        let bad = |e: formats::path::PathError| {
            Failure::usage(format!("{text:?} is no path of {repo}")).because(&e)
        };
        let mut path = RepoPath::root();
        for name in rest
            .split(|b| *b == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
        {
            path = path.join(&formats::Name::new(name).map_err(bad)?);
        }
        Ok(Target {
            repo: repo.to_owned(),
            path,
        })
    }

    fn below_mount(&self, text: &str, is_path: bool) -> Result<Target> {
        let absolute = real_parent(&self.cwd.join(text));
        let outside = |why: String| {
            let message = match is_path {
                true => format!("{text} {why}"),
                false => format!("{text:?} is no repository here, and as a path it {why}"),
            };
            Err(Failure::usage(message).hint(self.known()))
        };
        let Some(mountpoint) = &self.mountpoint else {
            return outside("cannot be below the mount: nothing is mounted".into());
        };
        let real = real_parent(mountpoint);
        let below = absolute
            .strip_prefix(&real)
            .or(absolute.strip_prefix(mountpoint));
        let Ok(below) = below else {
            return outside(format!("lies outside the mount {}", mountpoint.display()));
        };
        let mut names = below
            .components()
            .map(Component::as_os_str)
            .map(OsStr::as_bytes);
        let Some(repo) = names.next().map(String::from_utf8_lossy) else {
            return Err(
                Failure::usage(format!("{text} is the mount point, not one repository"))
                    .hint(self.known()),
            );
        };
        if !self.repositories.iter().any(|known| *known == *repo) {
            return outside(format!("is below no repository: there is no {repo}"));
        }
        let rest: Vec<&[u8]> = names.collect();
        self.in_repository(&repo, &rest.join(&b'/'), text)
    }

    fn known(&self) -> String {
        match self.repositories.as_slice() {
            [] => "no repository is registered; `prepub mkfs NAME` makes one".into(),
            names => format!("registered: {}", names.join(", ")),
        }
    }
}

/// The path with the links of its parents followed, as far as they exist; `.` and `..` are gone.
fn real_parent(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                // what is above a link is above where it points to
                if let Ok(real) = plain.canonicalize() {
                    plain = real;
                }
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    let Some(name) = plain.file_name().map(OsStr::to_owned) else {
        return plain;
    };
    let mut tail = vec![name];
    let mut parent = plain;
    while parent.pop() {
        if let Ok(mut real) = parent.canonicalize() {
            real.extend(tail.iter().rev());
            return real;
        }
        match parent.file_name() {
            Some(name) => tail.push(name.to_owned()),
            None => break,
        }
    }
    let mut all = PathBuf::from("/");
    all.extend(tail.iter().rev());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Kind;

    fn here(dir: &Path) -> Surroundings {
        Surroundings {
            repositories: vec!["a.example.org".into(), "b.example.org".into()],
            mountpoint: Some(dir.join("mnt")),
            cwd: dir.join("mnt/a.example.org/sw"),
        }
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("mnt/a.example.org/sw/v1")).unwrap();
        std::os::unix::fs::symlink("v1", dir.path().join("mnt/a.example.org/sw/link")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("mnt"), dir.path().join("other")).unwrap();
        dir
    }

    #[test]
    fn every_spelling() {
        let dir = tree();
        let here = here(dir.path());
        let mnt = dir.path().join("mnt").display().to_string();
        let other = dir.path().join("other").display().to_string();
        for (text, repo, path) in [
            ("a.example.org", "a.example.org", ""),
            ("a.example.org/", "a.example.org", ""),
            ("b.example.org/x//y/", "b.example.org", "/x/y"),
            (".", "a.example.org", "/sw"),
            ("./v1", "a.example.org", "/sw/v1"),
            ("v1", "a.example.org", "/sw/v1"),
            ("v1/gone/deep", "a.example.org", "/sw/v1/gone/deep"),
            ("..", "a.example.org", ""),
            ("../../b.example.org/x", "b.example.org", "/x"),
            ("link", "a.example.org", "/sw/link"),
            ("link/x", "a.example.org", "/sw/v1/x"),
            (&format!("{mnt}/a.example.org/new"), "a.example.org", "/new"),
            (
                &format!("{other}/a.example.org/new"),
                "a.example.org",
                "/new",
            ),
        ] {
            let target = here.resolve(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (target.repo.as_str(), target.path),
                (repo, path.parse().unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn refusals_say_why() {
        let dir = tree();
        let here = here(dir.path());
        for (text, why) in [
            ("", "empty"),
            ("/etc", "outside the mount"),
            ("../../..", "outside the mount"),
            ("../..", "is the mount point"),
            ("/unknown.example.org", "outside the mount"),
            ("../../c.example.org", "no c.example.org"),
            ("a.example.org/../b", "no path"),
        ] {
            let failure = here.resolve(text).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage);
            assert!(failure.to_string().contains(why), "{text}: {failure}");
        }
        let unmounted = Surroundings {
            mountpoint: None,
            cwd: "/".into(),
            ..here
        };
        let text = unmounted.resolve("c.example.org").unwrap_err().to_string();
        assert!(
            text.contains("no repository here") && text.contains("a.example.org"),
            "{text}"
        );
    }

    #[test]
    fn several_of_one_repository() {
        let dir = tree();
        let here = here(dir.path());
        let all = |texts: &[&str]| {
            here.resolve_all(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
        };
        let (_, paths, notes) =
            all(&["a.example.org/b", "a.example.org/a/x", "a.example.org/a"]).unwrap();
        assert_eq!(paths, ["/a".parse().unwrap(), "/b".parse().unwrap()]);
        assert!(notes[0].contains("/a/x lies within /a"));
        let failure = all(&["a.example.org", "b.example.org"]).unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
    }
}

//! What an operator does to a daemon and its state: `drain`, `reload`, `log-level`, `gc`, `support`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Json;

/// `prepub drain`
#[derive(Args, Debug)]
#[command(after_help = "\
From then on whatever would publish a revision (commit, tag add, tag remove, rollback, also
on_unmount = \"commit\") is refused with exit code 4; what runs or waits for its turn comes to its
end. Staging, status, diff and abort go on, and what is staged is kept. It holds across restarts, in
STATE/drained, until `prepub drain --resume`; `prepub status` shows it.

Examples:
  prepub drain --wait       before maintenance of the storage, or a backup of a running service
  prepub drain --resume     afterwards")]
pub struct Drain {
    /// Return when no commit runs any more
    #[arg(long, conflicts_with = "resume")]
    pub wait: bool,
    /// Let commits in again
    #[arg(long, visible_alias = "undo")]
    pub resume: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub reload`
#[derive(Args, Debug)]
#[command(after_help = "\
Does what SIGHUP and `systemctl reload prepub` do. At once change: log_level; settle, quotas,
backing_max, on_unmount, refresh and refresh_interval of [stage] and of repositories; [commit];
quorum, deadline, reach_within, commit_anyway and push of [warm]; who may write, commit, abort and
tag; and repositories of cvmfs_server that are named for the first time. Anything else stays as it
was: \"restart needed for: ...\" names it. A configuration that cannot be used is refused with exit
code 2, and the former one holds.")]
pub struct Reload {
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub log-level`
#[derive(Args, Debug)]
#[command(after_help = "\
Holds until the next reload or restart, which go by `log_level` of the configuration. For root and
the daemon's own user.

Examples:
  prepub log-level                      what is logged
  prepub log-level debug
  prepub log-level info,fsimpl=trace    by module")]
pub struct LogLevel {
    /// error, warn, info, debug, trace, or filters by module [default: only show what is logged]
    pub filter: Option<String>,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub gc`
#[derive(Args, Debug)]
#[command(after_help = "\
Removed are, per repository:
  objects       sealed for files that were changed or removed since
  catalogs      of published revisions, fetched and not in use; fetched again when needed
  content       of published files, decompressed and not in use; likewise
  transactions  what commits left that are neither under way nor to be resumed
and for no repository:
  scratch       of checks and looks that were killed
  retired       caches, transactions and stages of repositories that are not served any more; a stage
                with changes in it is kept, and named
Nothing that a commit or staged files rely on is removed, and nothing of a repository's storage:
that is for `cvmfs_server gc`. Works with the daemon and without.

Examples:
  prepub gc --dry-run
  prepub gc demo.example.org")]
pub struct Gc {
    /// Only this repository [default: all, and what is left of former ones]
    pub repo: Option<String>,
    /// Remove nothing; print the same
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub support`
#[derive(Args, Debug)]
#[command(after_help = "\
In the bundle are: version, configuration with origins, status, doctor, the end of the log, names
and sizes of files in the state directory, mounts, kernel and distribution. No content of files, no
keys, no environment. Passwords in URLs, tokens, and the secrets that the configuration leads to
(keys of gateways, s3.conf, enrolments) are taken out of all of it; look through it all the same
before you send it.

Example:
  prepub support --output /tmp/prepub-support.tar.gz")]
pub struct Support {
    /// Where to write it [default: prepub-support-HOST-SECONDS.tar.gz]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

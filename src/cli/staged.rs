//! Staged changes, looked at, published or dropped: what `status`, `diff`, `commit` and `abort` take.

use clap::Args;

use super::Json;
use crate::config::{OnConflict, OpenFiles};

const AFTER_TARGET: &str = "\
A TARGET is a path below the mount (/prepub/demo.example.org/sw, ./sw) or REPO[/PATH]
(demo.example.org/sw).";

/// `prepub status`
#[derive(Args, Debug)]
#[command(after_help = "\
\"Unsealed\" files are closed and staged, but not yet compressed, hashed and stored; a commit
waits for them. Nothing is lost if the daemon dies before they are.

Examples:
  prepub status
  prepub status demo.example.org --wait     return when everything closed is sealed
  prepub status --json | jq '.repositories[].staged'")]
pub struct Status {
    /// Only the repository of this TARGET: a path below the mount, or REPO[/PATH]
    pub target: Option<String>,
    /// Return when every closed file is sealed
    #[arg(long)]
    pub wait: bool,
    /// How the Stratum 1s stand, too: connected or not, and what they lack
    #[arg(long)]
    pub sites: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub diff`
#[derive(Args, Debug)]
#[command(after_help = "\
Letters: A added, D removed, M content modified, m only metadata modified, R renamed. Behind each
path stand the size and the nested catalog it lands in; what commit generates (dirtab markers)
and what it cannot publish (long extended attributes, hard links) is listed too.

Examples:
  prepub diff demo.example.org
  prepub diff /prepub/demo.example.org/sw --stat")]
pub struct Diff {
    /// A path below the mount, or REPO[/PATH] [default: all repositories]
    pub target: Option<String>,
    /// Only figures, no paths
    #[arg(long)]
    pub stat: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub commit`
#[derive(Args, Debug)]
#[command(after_help = AFTER_TARGET, after_long_help = "\
A TARGET is a path below the mount (/prepub/demo.example.org/sw, ./sw) or REPO[/PATH]
(demo.example.org/sw). Several targets must be of one repository and become one revision; what
changed elsewhere stays staged. If nothing changed, no revision is made and the exit code is 0.

The snapshot holds every file that was closed before the call. Writers may go on meanwhile. When a
commit fails, or the machine does, the staged changes are as they were.

Examples:
  prepub commit demo.example.org -m \"ROOT 6.36\" --tag root-6.36
  prepub commit /prepub/demo.example.org/sw --dry-run
  prepub commit demo.example.org --wait 300        give writers five minutes to close
  prepub commit demo.example.org --open-files skip leave out what is being written")]
pub struct Commit {
    /// What to publish: paths below the mount, or REPO[/PATH]
    #[arg(required = true)]
    pub target: Vec<String>,
    /// Description of the tag
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub message: String,
    /// Name the new revision; letters, digits and "-_./:", not yet used
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Show what would be published, and publish nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Make a revision even if nothing changed
    #[arg(long)]
    pub allow_empty: bool,
    /// Longest wait for files that are open for writing, and for another commit of the same
    /// repository [default: `wait` of the configuration, 30]; and where another publisher is at work
    /// [default: none]
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// What to do about files that are open for writing [default: wait]
    #[arg(long, value_name = "HOW")]
    pub open_files: Option<OpenFiles>,
    /// When a newer revision changed the same paths [default: fail]
    #[arg(long, value_name = "HOW")]
    pub on_conflict: Option<OnConflict>,
    /// Publish files as they are that were not on disk when the machine stopped: bytes of them may
    /// be missing or zero; `prepub status` names them
    #[arg(long)]
    pub accept_unsynced: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub abort`
#[derive(Args, Debug)]
#[command(after_help = "\
Needs neither network nor whitelist nor a mount. What is dropped cannot be had back.

Examples:
  prepub abort demo.example.org/broken      this directory only
  prepub abort demo.example.org             everything staged in the repository")]
pub struct Abort {
    /// A path below the mount, or REPO[/PATH]
    pub target: String,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

//! What `mount` and `unmount` take.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Json;

/// `prepub mount`
#[derive(Args, Debug)]
#[command(after_help = "\
Returns once the mount can be used; the daemon goes on in the background and logs into
STATE/log/prepub.log. Mounted are the repositories that `prepub mkfs` made, and those of
cvmfs_server that have a [repository] table in the configuration. What an earlier daemon left
staged is staged again, what it left mounted when it died is cleaned up, and a commit it was in the
middle of is found done or not done.

Examples:
  prepub mount                        at the default place
  prepub mount ~/mnt
  prepub mount --foreground           under a service manager, or to watch it")]
pub struct Mount {
    /// An existing, empty directory [default: `mountpoint` of the configuration, made if missing;
    /// /prepub for root, $XDG_RUNTIME_DIR/prepub for others]
    #[arg(value_hint = ValueHint::DirPath, env = "PREPUB_MOUNTPOINT", hide_env_values = true)]
    pub mountpoint: Option<PathBuf>,
    /// Stay in the foreground and log to stderr (or to the journal, under systemd)
    #[arg(long)]
    pub foreground: bool,
    /// Where to serve the embedded repositories [default: 127.0.0.1:8330; another port if taken]
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "PREPUB_LISTEN",
        hide_env_values = true
    )]
    pub listen: Option<SocketAddr>,
    /// Set by `mount` itself for its background process: report on stdout, then let go of it.
    #[arg(long, hide = true)]
    pub background_child: bool,
}

/// `prepub unmount`
#[derive(Args, Debug)]
#[command(after_help = "\
Without --commit or --discard, staged changes stay in STATE and are there again at the next
mount (or are committed where the configuration says on_unmount = \"commit\").

Examples:
  prepub unmount
  prepub unmount ~/mnt --commit")]
pub struct Unmount {
    /// Where it is mounted [default: where this state's daemon mounted it]
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
    /// Commit every repository with staged changes first; if one fails, nothing is unmounted
    #[arg(long, conflicts_with = "discard")]
    pub commit: bool,
    /// Drop all staged changes first
    #[arg(long)]
    pub discard: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

//! The command line: clap definitions only. Doc comments here are the manual.

mod helpers;
mod mounting;
mod operations;
mod repository;
mod revisions;
mod site;
mod staged;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueHint};

pub use helpers::{Config, ConfigCheck, ConfigCommand, Doctor, Util, UtilCommand};
pub use mounting::{Mount, Unmount};
pub use operations::{Drain, Gc, LogLevel, Reload, Support};
pub use repository::{Check, CompressionArg, HashArg, Mkfs, Resign, Rmfs};
pub use revisions::{Rollback, Tag, TagAdd, TagCommand, TagList, TagRemove};
pub use site::{Site, SiteAdd, SiteBroker, SiteCommand};
pub use staged::{Abort, Commit, Diff, Status};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER: &str = "\
Exit codes:
  0  done, or nothing to do          4  lock or transaction busy
  1  failed                          5  files still open for writing
  2  wrong usage                     6  quorum of Stratum 1s not met
  3  conflict with a newer revision  7  daemon not reachable

Example, as root or as an ordinary user:
  prepub mkfs demo.example.org        make a repository
  prepub mount ~/mnt                  mount it, in the background
  cp -a software ~/mnt/demo.example.org/
  prepub status                       what is staged
  prepub diff demo.example.org        path by path
  prepub commit demo.example.org -m \"first software\"
  prepub unmount";

/// Publish into CernVM-FS: write into a mounted repository, then commit
///
/// Under MOUNTPOINT/REPO stands the published revision of each repository with your staged changes
/// over it. Files are chunked, compressed, hashed and stored while you go on working; `prepub commit`
/// then makes the whole change visible at one instant.
#[derive(Parser, Debug)]
#[command(
    name = "prepub",
    version,
    styles = STYLES,
    after_help = AFTER,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file [default: /etc/prepub/config.toml for root, ~/.config/prepub/config.toml
    /// for others]
    #[arg(long, global = true, value_name = "FILE", env = "PREPUB_CONFIG", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where state is kept: staged changes, keys, embedded repositories [default: /var/lib/prepub
    /// for root, ~/.local/state/prepub for others]
    #[arg(long, global = true, value_name = "DIR", env = "PREPUB_STATE_DIR", hide_env_values = true, value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or filters by module such as
    /// "info,fsimpl=debug" [default: info for the daemon, warn for other commands]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "PREPUB_LOG",
        hide_env_values = true
    )]
    pub log_level: Option<String>,
    /// No progress and no remarks on stderr; only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a repository: keys, whitelist, storage, first (empty) revision
    Mkfs(Mkfs),
    /// Mount all registered repositories, and start the daemon behind the mount
    Mount(Mount),
    /// Unmount, and end the daemon; staged changes are kept unless told otherwise
    Unmount(Unmount),
    /// What is mounted, staged, published; what is not sealed yet; what is wrong
    Status(Status),
    /// What a commit would publish, path by path
    Diff(Diff),
    /// Publish staged changes as one new revision, visible at one instant
    Commit(Commit),
    /// Drop staged changes; the published tree stands there again
    Abort(Abort),
    /// List, add or remove tags: names of revisions
    Tag(Tag),
    /// Publish an earlier revision again as the newest
    Rollback(Rollback),
    /// Check that the published repository is whole
    Check(Check),
    /// Renew the whitelist, so that clients trust the repository for another 30 days
    Resign(Resign),
    /// Delete a repository: storage, keys, staged changes
    Rmfs(Rmfs),
    /// Make Stratum 1s sites that have a revision's objects before it is visible
    Site(Site),
    /// Let no new commits in, for maintenance; running ones end
    Drain(Drain),
    /// Have the daemon read its configuration again
    Reload(Reload),
    /// Show or change what the daemon logs
    LogLevel(LogLevel),
    /// Remove what nobody needs: caches, and leftovers of stages and commits
    Gc(Gc),
    /// Find out why something does not work here
    Doctor(Doctor),
    /// Pack what others need to help you, without secrets
    Support(Support),
    /// Check a configuration file, or show what is in force
    Config(Config),
    /// Manual pages and shell completions
    Util(Util),
}

/// Machine-readable output.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct Json {
    /// Print one JSON object on stdout; an error too is one: {"error": {...}}
    #[arg(long)]
    pub json: bool,
}

impl Command {
    /// True where `--json` was given.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        let json = match self {
            Self::Mkfs(args) => &args.json,
            Self::Unmount(args) => &args.json,
            Self::Status(args) => &args.json,
            Self::Diff(args) => &args.json,
            Self::Commit(args) => &args.json,
            Self::Abort(args) => &args.json,
            Self::Rollback(args) => &args.json,
            Self::Check(args) => &args.json,
            Self::Resign(args) => &args.json,
            Self::Rmfs(args) => &args.json,
            Self::Drain(args) => &args.json,
            Self::Reload(args) => &args.json,
            Self::LogLevel(args) => &args.json,
            Self::Gc(args) => &args.json,
            Self::Doctor(args) => &args.json,
            Self::Support(args) => &args.json,
            Self::Config(args) => match &args.command {
                ConfigCommand::Check(args) => &args.json,
                ConfigCommand::Show(args) => &args.json,
            },
            Self::Tag(args) => match &args.command {
                TagCommand::List(args) => &args.json,
                TagCommand::Add(args) => &args.json,
                TagCommand::Remove(args) => &args.json,
            },
            Self::Site(args) => match &args.command {
                SiteCommand::Add(args) => &args.json,
                SiteCommand::Revoke(args) => &args.json,
                SiteCommand::List(args) => &args.json,
                SiteCommand::Broker(args) => &args.json,
            },
            Self::Mount(_) | Self::Util(_) => return false,
        };
        json.json
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_hold_together() {
        Cli::command().debug_assert();
    }
}

//! The command line: clap definitions only. Doc comments here are the manual.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::config::{OnConflict, OpenFiles};

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

const AFTER_TARGET: &str = "\
A TARGET is a path below the mount (/prepub/demo.example.org/sw, ./sw) or REPO[/PATH]
(demo.example.org/sw).";

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
    /// Find out why something does not work here
    Doctor(Doctor),
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

/// `prepub mkfs`
#[derive(Args, Debug)]
#[command(after_help = "\
Keys are made in STATE/keys: keep REPO.masterkey safe, and give REPO.pub to clients. Parameters
are in STATE/repositories/REPO/server.conf and are read afresh at every commit.

Examples:
  prepub mkfs demo.example.org
  prepub mkfs demo.example.org --storage /data/cvmfs/demo.example.org --hash shake128")]
pub struct Mkfs {
    /// Fully qualified name, such as software.example.org; at most 60 letters, digits, '-', '_' and
    /// at least one dot
    pub repo: String,
    /// Directory of the published objects; made if missing, refused if it holds a repository
    /// [default: STATE/srv/cvmfs/REPO]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub storage: Option<PathBuf>,
    /// Directory with REPO.masterkey, REPO.key, REPO.crt and REPO.pub to use instead of new ones
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub keys: Option<PathBuf>,
    /// How objects are named
    #[arg(long, value_name = "ALGORITHM", default_value = "sha1")]
    pub hash: HashArg,
    /// How objects are stored
    #[arg(long, value_name = "ALGORITHM", default_value = "zlib")]
    pub compression: CompressionArg,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// Hash algorithms of CVMFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HashArg {
    /// SHA-1, CVMFS's default
    Sha1,
    /// RIPEMD-160
    Rmd160,
    /// SHAKE128, 160 bits of it
    Shake128,
}

/// Compression algorithms of CVMFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// zlib at its default level
    Zlib,
    /// Not at all
    None,
}

/// `prepub mount`
#[derive(Args, Debug)]
#[command(after_help = "\
Returns once the mount can be used; the daemon goes on in the background and logs into
STATE/log/prepub.log. What an earlier daemon left staged is staged again, what it left mounted
when it died is cleaned up, and a commit it was in the middle of is found done or not done.

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
    /// repository [default: `wait` of the configuration, 30]
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// What to do about files that are open for writing [default: wait]
    #[arg(long, value_name = "HOW")]
    pub open_files: Option<OpenFiles>,
    /// When a newer revision changed the same paths [default: fail]
    #[arg(long, value_name = "HOW")]
    pub on_conflict: Option<OnConflict>,
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

/// `prepub tag`
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Tag {
    /// What to do.
    #[command(subcommand)]
    pub command: TagCommand,
}

/// `prepub tag ...`
#[derive(Subcommand, Debug)]
pub enum TagCommand {
    /// List the tags, newest revision first
    List(TagList),
    /// Name the newest revision
    Add(TagAdd),
    /// Forget names; the revisions themselves stay
    Remove(TagRemove),
}

/// `prepub tag list`
#[derive(Args, Debug)]
pub struct TagList {
    /// The repository
    pub repo: String,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub tag add`
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  prepub tag add demo.example.org v1.0 -m \"as used for the May run\""
)]
pub struct TagAdd {
    /// The repository
    pub repo: String,
    /// Letters, digits and "-_./:"; not yet used, not trunk or trunk-previous
    pub name: String,
    /// Description
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub message: String,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub tag remove`
#[derive(Args, Debug)]
pub struct TagRemove {
    /// The repository
    pub repo: String,
    /// Which
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub rollback`
#[derive(Args, Debug)]
#[command(after_help = "\
The tagged tree becomes a new revision, so that clients move on to it; tags of revisions in
between are removed, as cvmfs_server does. Staged changes stay staged.

Examples:
  prepub rollback demo.example.org             to trunk-previous: undo the last commit
  prepub rollback demo.example.org --tag v1.0")]
pub struct Rollback {
    /// The repository
    pub repo: String,
    /// To which revision
    #[arg(long, value_name = "NAME", default_value = "trunk-previous")]
    pub tag: String,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub check`
#[derive(Args, Debug)]
#[command(after_help = "\
Verifies signatures, every catalog with its counters, and that every object is there; --data also
reads and hashes each object. Exit code 1 if anything is wrong, with one line for each problem.

Example:
  prepub check demo.example.org --data")]
pub struct Check {
    /// The repository
    pub repo: String,
    /// Read and hash every object (takes as long as reading the storage)
    #[arg(long)]
    pub data: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub resign`
#[derive(Args, Debug)]
#[command(after_help = "\
Needs STATE/keys/REPO.masterkey. Clients refuse a repository whose whitelist has expired; `prepub
status` shows the days that are left. A monthly timer is enough. A whitelist that is missing or
cannot be read is made anew, for the certificate in STATE/keys alone.")]
pub struct Resign {
    /// The repository
    pub repo: String,
    /// For how long it shall be valid
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub days: u32,
    /// The keys in STATE/keys were replaced on purpose: put the repository under them. The published
    /// revision is signed anew, and the old certificate is not trusted any more
    #[arg(long)]
    pub new_keys: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub rmfs`
#[derive(Args, Debug)]
#[command(after_help = "\
What is deleted cannot be had back, the keys included. The name is asked for on the terminal unless
--force is given.")]
pub struct Rmfs {
    /// The repository
    pub repo: String,
    /// Do not ask. Needed where there is no terminal to ask on
    #[arg(short, long)]
    pub force: bool,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub doctor`
#[derive(Args, Debug)]
#[command(after_help = "\
Looks at FUSE, the state directory, the daemon and its mount, the clock, and each repository's
keys, whitelist and manifest. Changes nothing. Exit code 1 if something does not work.")]
pub struct Doctor {
    /// Only this repository [default: all]
    pub repo: Option<String>,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub config`
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// `prepub config ...`
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Read a configuration file and say what is wrong with it
    Check {
        /// The file [default: the one in force]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Print every key with the value in force, as TOML
    Show,
}

/// `prepub util`
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Util {
    /// What to do.
    #[command(subcommand)]
    pub command: UtilCommand,
}

/// `prepub util ...`
#[derive(Subcommand, Debug)]
pub enum UtilCommand {
    /// Write the manual pages, one for each command
    ///
    /// Without DIR the main page goes to stdout: prepub util man | man -l -
    Man {
        /// Where to write prepub.1, prepub-commit.1, ...
        #[arg(value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Print the completions of a shell
    ///
    /// Example: prepub util completions bash > /etc/bash_completion.d/prepub
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
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
            Self::Doctor(args) => &args.json,
            Self::Tag(args) => match &args.command {
                TagCommand::List(args) => &args.json,
                TagCommand::Add(args) => &args.json,
                TagCommand::Remove(args) => &args.json,
            },
            Self::Mount(_) | Self::Config(_) | Self::Util(_) => return false,
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

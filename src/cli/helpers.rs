//! What helps to use the rest: what `doctor`, `config` and `util` take.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::Json;

/// `prepub doctor`
#[derive(Args, Debug)]
#[command(after_help = "\
Looks at FUSE, the state directory, the daemon and its mount, the clock, and each repository's
keys, whitelist and manifest; beside cvmfs_server also at whose the repository is, and at what
stands in a commit's way. Changes nothing. Exit code 1 if something does not work.")]
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
    Check(ConfigCheck),
    /// Print every key with its value, as TOML, and where that comes from
    Show(ConfigShow),
}

/// `prepub config check`
#[derive(Args, Debug)]
pub struct ConfigCheck {
    /// The file [default: the one that a command reads]
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub config show`
#[derive(Args, Debug)]
#[command(after_help = "\
Behind each value stands where it comes from: \"default\", FILE:LINE, a flag, or a variable of the
environment. That is what a command, or a daemon that starts now, goes by; one that runs goes by
what it read at its start and at the last `prepub reload`. Passwords in URLs are left out; keys are
in files of their own.")]
pub struct ConfigShow {
    /// Output.
    #[command(flatten)]
    pub json: Json,
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

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

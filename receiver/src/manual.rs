//! Manual pages and shell completions, from the command line's own definitions.

use std::io::Write;
use std::path::PathBuf;

use clap::{Command, Subcommand, ValueHint};

/// `prepub-receiver util ...`
#[derive(Subcommand)]
pub enum Util {
    /// Write the manual pages, one for each command
    Man {
        /// Where to write prepub-receiver.1, prepub-receiver-serve.1, ...
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Writes what is asked for.
///
/// # Errors
/// When it cannot be written.
pub fn write(what: &Util, mut program: Command) -> std::io::Result<()> {
    match what {
        Util::Man { dir } => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(program, dir)
        }
        Util::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut program, "prepub-receiver", &mut script);
            std::io::stdout().lock().write_all(&script)
        }
    }
}

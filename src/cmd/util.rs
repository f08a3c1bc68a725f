//! `prepub util`: manual pages and completions, made from the command line's own definitions.

use std::process::ExitCode;

use clap::CommandFactory;

use super::output;
use crate::cli::{Cli, Util, UtilCommand};
use crate::report::{Context, Result};

pub fn run(args: &Util) -> Result<ExitCode> {
    let mut command = Cli::command();
    match &args.command {
        UtilCommand::Man { dir: Some(dir) } => {
            std::fs::create_dir_all(dir).context(format_args!("cannot make {}", dir.display()))?;
            clap_mangen::generate_to(command, dir)
                .context(format_args!("cannot write into {}", dir.display()))?;
        }
        UtilCommand::Man { dir: None } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .context("cannot write the page")?;
            output::text(&String::from_utf8_lossy(&page))?;
        }
        UtilCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "prepub", &mut script);
            output::text(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

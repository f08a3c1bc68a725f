//! `prepub config`: reads the configuration without using it.

use std::process::ExitCode;

use super::{output, overrides};
use crate::cli::{Config, ConfigCommand, Global};
use crate::config::Settings;
use crate::report::{Context, Result};

pub fn run(args: &Config, global: &Global) -> Result<ExitCode> {
    let mut overrides = overrides(global);
    match &args.command {
        ConfigCommand::Check { file } => {
            overrides.config = file.clone().or(overrides.config);
            let settings = Settings::load(&overrides)?;
            output::text(&match settings.source {
                Some(path) => format!("{} is fine\n", path.display()),
                None => "there is no configuration file; the defaults hold\n".into(),
            })?;
        }
        ConfigCommand::Show => {
            let settings = Settings::load(&overrides)?;
            let mut file = settings.file.clone();
            file.state_dir = Some(settings.state_dir);
            file.mountpoint = Some(settings.mountpoint);
            let text = toml::to_string(&file).context("cannot write TOML")?;
            let source = match settings.source {
                Some(path) => format!("# {}\n", path.display()),
                None => "# no configuration file; these are the defaults\n".into(),
            };
            output::text(&(source + &text))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

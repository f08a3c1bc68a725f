//! Stratum 1s: what `site` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::Json;
use crate::config::units::Bytes;

/// `prepub site`
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Site {
    /// What to do.
    #[command(subcommand)]
    pub command: SiteCommand,
}

/// `prepub site ...`
#[derive(Subcommand, Debug)]
pub enum SiteCommand {
    /// Make a Stratum 1 a site, or give a site a new certificate
    Add(SiteAdd),
    /// End a site: its certificate is good for nothing from now on
    Revoke(SiteRevoke),
    /// List the sites
    List(SiteList),
    /// Write what a broker for the sites is set up with
    Broker(SiteBroker),
}

/// `prepub site add`
#[derive(Args, Debug)]
#[command(after_help = "\
Writes an enrolment file, which holds the site's certificate and its key: bring it to the Stratum 1 in
a safe way, and put it into the receiver's directory of enrolments. The key is kept nowhere else; a
second `site add` makes a new one and ends the old. It takes effect at once, and survives restarts.

Examples:
  prepub site add cern --url https://stratum1.example.org:8443
  prepub site add behind-nat --pull --repo sw.example.org --output behind-nat.toml")]
pub struct SiteAdd {
    /// Its name: letters, digits, dots, dashes and underscores
    pub name: String,
    /// Where its receiver is: https://HOST:PORT
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "pull",
        conflicts_with = "pull"
    )]
    pub url: Option<String>,
    /// It allows no inbound connection, and comes for the objects; needs `listen` and `url` in [warm]
    #[arg(long)]
    pub pull: bool,
    /// Only this repository; may be given several times [default: all]
    #[arg(long = "repo", value_name = "REPO")]
    pub repositories: Vec<String>,
    /// Most bytes a second that are sent there, such as 10MiB [default: as many as go]
    #[arg(long, value_name = "BYTES")]
    pub bandwidth: Option<Bytes>,
    /// The enrolment file [default: NAME.enrolment.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub site revoke`
#[derive(Args, Debug)]
pub struct SiteRevoke {
    /// Which
    pub name: String,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub site list`
#[derive(Args, Debug)]
pub struct SiteList {
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

/// `prepub site broker`
#[derive(Args, Debug)]
#[command(after_help = "\
Writes a certificate for the broker with its key, the authority and the revoked certificates, an
access list, and a configuration for mosquitto that names these files in /etc/mosquitto/prepub. Each
call issues another certificate. docs/stratum1.md has the whole set-up.

Example:
  prepub site broker broker.example.org --output prepub-broker")]
pub struct SiteBroker {
    /// By which name or address the broker is called; may be given several times
    #[arg(required = true, value_name = "HOST")]
    pub hosts: Vec<String>,
    /// The directory for its files, which must not be there
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// Output.
    #[command(flatten)]
    pub json: Json,
}

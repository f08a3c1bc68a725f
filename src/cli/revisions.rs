//! Revisions by name: what `tag` and `rollback` take.

use clap::{Args, Subcommand};

use super::Json;

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

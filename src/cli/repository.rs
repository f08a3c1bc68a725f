//! Repositories from birth to death: what `mkfs`, `check`, `resign` and `rmfs` take.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::Json;

/// `prepub mkfs`
#[derive(Args, Debug)]
#[command(after_help = "\
Keys are made in STATE/keys: keep REPO.masterkey safe, and give REPO.pub to clients. Parameters
are in STATE/repositories/REPO/server.conf and are read afresh at every commit.

Examples:
  prepub mkfs demo.example.org
  prepub mkfs demo.example.org --storage /data/cvmfs/demo.example.org --hash shake128
  prepub mkfs demo.example.org --storage s3://software --s3-config /etc/cvmfs/s3.conf")]
pub struct Mkfs {
    /// Fully qualified name, such as software.example.org; at most 60 letters, digits, '-', '_' and
    /// at least one dot
    pub repo: String,
    /// Directory of the published objects, made if missing, or a place in a bucket (without PREFIX:
    /// REPO); refused if it holds anything [default: STATE/srv/cvmfs/REPO]
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX", value_hint = ValueHint::DirPath)]
    pub storage: Option<String>,
    /// How the bucket is reached: an s3.conf as cvmfs_server takes it, which stays where it is and is
    /// read again [default: AWS's own configuration and credentials]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "storage")]
    pub s3_config: Option<PathBuf>,
    /// Make the bucket if it is missing, and let everybody read what is below PREFIX
    #[arg(long, requires = "storage")]
    pub create_bucket: bool,
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

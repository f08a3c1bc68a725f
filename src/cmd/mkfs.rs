//! `prepub mkfs`: makes a repository.

use std::path::PathBuf;
use std::process::ExitCode;

use formats::Compression;

use super::{Context, print};
use crate::api::reply::Made;
use crate::api::{self, Request};
use crate::asker::Asker;
use crate::cli::{CompressionArg, HashArg, Mkfs};
use crate::report::{Context as _, Failure, Result};

pub fn run(context: &Context, args: Mkfs) -> Result<ExitCode> {
    commit::home::check_name(&args.repo).map_err(|e| {
        Failure::usage(format!("{:?} is no name of a repository", args.repo)).because(&e)
    })?;
    let request = Request::Mkfs(api::Mkfs {
        repo: args.repo,
        storage: args.storage.map(place).transpose()?,
        s3_config: absolute(args.s3_config)?,
        create_bucket: args.create_bucket,
        keys: absolute(args.keys)?,
        hash: Some(
            match args.hash {
                HashArg::Sha1 => "sha1",
                HashArg::Rmd160 => "rmd160",
                HashArg::Shake128 => "shake128",
            }
            .into(),
        ),
        compression: Some(match args.compression {
            CompressionArg::Zlib => Compression::Zlib,
            CompressionArg::None => Compression::None,
        }),
        owner: None,
    });
    let made: Made = Asker::create(&context.settings)?.ask(&request, &context.display)?;
    print(args.json.json, &made, describe)?;
    Ok(ExitCode::SUCCESS)
}

/// A bucket's address is taken as it is.
fn place(storage: String) -> Result<String> {
    if storage.starts_with(api::BUCKET_SCHEME) {
        return Ok(storage);
    }
    let path = std::path::absolute(&storage).context("no usable path")?;
    Ok(path.to_string_lossy().into_owned())
}

/// The daemon's working directory is not ours.
fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>> {
    path.map(std::path::absolute)
        .transpose()
        .context("no usable path")
}

fn describe(made: &Made) -> String {
    let Made {
        repo,
        config,
        storage,
        public_key,
        url,
        path,
        warnings,
    } = made;
    let next = match path {
        Some(path) => format!("mounted at {path}"),
        None => "next: prepub mount".into(),
    };
    let when = match storage.starts_with(api::BUCKET_SCHEME) {
        true => "",
        false => " (while mounted)",
    };
    let mut text = format!(
        "{repo} is made; {next}\n  storage     {storage}\n  parameters  {config}\n  clients     {public_key} and {url}{when}\n"
    );
    for warning in warnings {
        text.push_str(&format!("  warning     {warning}\n"));
    }
    text
}

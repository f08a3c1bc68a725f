//! `prepub tag`: names of revisions.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use super::{Context, output, print};
use crate::api::reply::{Standing, Tag, Tags};
use crate::api::{self, Repo, Request};
use crate::cli::{TagAdd, TagCommand, TagList, TagRemove};
use crate::report::{Failure, Result};

pub fn run(context: &Context, command: TagCommand) -> Result<ExitCode> {
    match command {
        TagCommand::List(args) => list(context, args),
        TagCommand::Add(args) => add(context, args),
        TagCommand::Remove(args) => remove(context, args),
    }
}

fn list(context: &Context, args: TagList) -> Result<ExitCode> {
    let tags: Tags = context.ask(&Request::TagList(Repo { repo: args.repo }))?;
    print(args.json.json, &tags, |tags| {
        if tags.tags.is_empty() {
            return format!("{} has no tags\n", tags.repo);
        }
        output::table(
            ["TAG", "REVISION", "PUBLISHED", "DESCRIPTION"],
            tags.tags.iter().map(row),
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn row(tag: &Tag) -> [String; 4] {
    [
        tag.name.clone(),
        tag.revision.to_string(),
        date(tag.timestamp),
        // a tag's text is anybody's: it must not steer the terminal
        tag.description.replace(char::is_control, " "),
    ]
}

/// `2026-05-17 08:15:00Z`
fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let days = since.as_secs() / 86_400;
    let (year, month, day) = civil(days);
    let in_day = (UNIX_EPOCH + since)
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60
    )
}

/// Year, month and day of a number of days since 1970, by counting eras of 400 years that begin in
/// March.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn add(context: &Context, args: TagAdd) -> Result<ExitCode> {
    formats::history::check_tag_name(&args.name)
        .map_err(|e| Failure::usage(format!("{:?} cannot be a tag", args.name)).because(&e))?;
    let name = args.name.clone();
    let request = Request::TagAdd(api::TagAdd {
        repo: args.repo,
        name: args.name,
        message: args.message,
    });
    let standing: Standing = context.ask(&request)?;
    print(args.json.json, &standing, |s| {
        format!("{}: revision {} is tagged {name}\n", s.repo, s.revision)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn remove(context: &Context, args: TagRemove) -> Result<ExitCode> {
    let request = Request::TagRemove(api::TagRemove {
        repo: args.repo,
        names: args.names,
    });
    let standing: Standing = context.ask(&request)?;
    print(args.json.json, &standing, |s| {
        format!("{}: removed {}\n", s.repo, s.removed_tags.join(", "))
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (4_102_444_800, "2100-01-01 00:00:00Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}

//! Results on stdout, failures on stderr, numbers as people read them.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};

use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;

use crate::api::PathText;
use crate::api::reply::{DroppedXattr, Limit, OpenFile};
use crate::report::{Context, Failure, Result};

/// Remarks of one sort that are printed one by one; the rest is counted.
const REMARKS_MAX: usize = 10;

/// Prints text as it is.
///
/// # Errors
/// When stdout cannot be written, but for a reader that has seen enough.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("cannot write the result"),
        _ => Ok(()),
    }
}

/// Prints one JSON object.
///
/// # Errors
/// As [`text`].
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    line.push('\n');
    text(&line)
}

/// Says why a command failed.
pub fn fail(failure: &Failure, as_json: bool) {
    // with stderr closed there is nobody to tell
    let _ = writeln!(std::io::stderr(), "error: {failure}");
    if as_json {
        let _ = json(&failure.to_json());
    }
}

/// `12.3 MB`
pub fn bytes(n: u64) -> String {
    DecimalBytes(n).to_string()
}

/// `12,345`
pub fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

/// `1 file`, `2 files`
pub fn plural(n: u64, one: &str, many: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{} {many}", count(n)),
    }
}

/// A column-aligned table without lines.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    if header.iter().any(|title| !title.is_empty()) {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Remarks under a heading, if there are any.
pub fn remarks<T: ToString>(out: &mut String, heading: &str, lines: impl IntoIterator<Item = T>) {
    let mut lines = lines.into_iter();
    let Some(first) = lines.next() else {
        return;
    };
    let _ = writeln!(out, "{heading}:");
    let _ = writeln!(out, "  {}", first.to_string());
    for line in lines.by_ref().take(REMARKS_MAX - 1) {
        let _ = writeln!(out, "  {}", line.to_string());
    }
    let more = lines.count();
    if more > 0 {
        let _ = writeln!(out, "  and {more} more");
    }
}

/// What a commit does not carry over, alike in `diff` and `commit`.
pub fn losses(
    out: &mut String,
    (dropped, unnamed): (&[DroppedXattr], u64),
    broken: &[Vec<PathText>],
    special: &[PathText],
    limits: &[Limit],
) {
    let attribute = |x: &DroppedXattr| format!("{}: {} ({})", x.path, x.name, x.why);
    remarks(
        out,
        "extended attributes that are not published",
        dropped.iter().map(attribute),
    );
    if unnamed > 0 {
        let _ = writeln!(out, "  and {} that are not named at all", count(unnamed));
    }
    let group = |names: &Vec<PathText>| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        names.join(" = ")
    };
    remarks(
        out,
        "hard links that become files of their own",
        broken.iter().map(group),
    );
    remarks(
        out,
        "special files that this repository does not keep",
        special,
    );
    remarks(
        out,
        "limits exceeded",
        limits.iter().map(|l| format!("{}: {}", l.path, l.message)),
    );
}

/// An open file and who has it.
pub fn open_file(file: &OpenFile) -> String {
    match file.pid {
        0 => file.path.to_string(),
        pid => format!("{} (process {pid} {})", file.path, file.command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_bounded() {
        let mut out = String::new();
        remarks(&mut out, "nothing", Vec::<String>::new());
        assert_eq!(out, "");
        remarks(&mut out, "some", (0..12).map(|i| i.to_string()));
        assert_eq!(out.lines().count(), 1 + 10 + 1);
        assert!(out.ends_with("  9\n  and 2 more\n"));
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let text = table(
            ["A", "B"],
            [["x".into(), "yy".into()], ["xxx".into(), String::new()]],
        );
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
        assert_eq!(text.lines().count(), 3);
    }
}

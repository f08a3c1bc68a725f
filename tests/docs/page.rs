//! A page of the documentation: its fenced blocks, words in code, tables and links. Of Markdown only what the
//! pages use: fences of three backticks, spans of one or two, tables with a leading bar, inline links.

use std::fs;
use std::path::PathBuf;

use crate::support::workspace_root;

pub struct Page {
    /// Relative to the project.
    pub name: String,
    pub text: String,
}

/// What stands between two fences.
pub struct Fence {
    /// What stands behind the opening one.
    pub info: String,
    pub text: String,
}

pub struct Table {
    /// The nearest heading above, without its marks.
    pub heading: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// README, CONTRIBUTING and docs/, but for what is generated.
pub fn pages() -> Vec<Page> {
    let root = workspace_root();
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    files.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    files.sort();
    files
        .into_iter()
        .map(|path| Page {
            name: path.strip_prefix(&root).unwrap().display().to_string(),
            text: fs::read_to_string(path).unwrap(),
        })
        .collect()
}

/// One of them.
pub fn page(name: &str) -> Page {
    let found = pages().into_iter().find(|page| page.name == name);
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

impl Page {
    /// Text and fences in turn, as they stand there.
    fn parts(&self) -> (Vec<&str>, Vec<Fence>) {
        let (mut outside, mut fences) = (Vec::new(), Vec::new());
        let mut open: Option<(usize, Fence)> = None;
        for line in self.text.lines() {
            let bare = line.trim_start();
            match (&mut open, bare.strip_prefix("```")) {
                (None, Some(info)) => {
                    let fence = Fence {
                        info: info.to_owned(),
                        text: String::new(),
                    };
                    open = Some((line.len() - bare.len(), fence));
                }
                (None, None) => outside.push(line),
                (Some(_), Some("")) => fences.extend(open.take().map(|(_, fence)| fence)),
                (Some((indent, fence)), _) => {
                    fence.text += line.get(*indent..).unwrap_or("");
                    fence.text.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.name);
        (outside, fences)
    }

    pub fn fences(&self) -> Vec<Fence> {
        self.parts().1
    }

    /// Lines that are no code: neither fenced nor indented by four.
    pub fn prose(&self) -> Vec<&str> {
        let (lines, _) = self.parts();
        lines
            .into_iter()
            .filter(|line| !line.starts_with("    "))
            .collect()
    }

    /// Lines of code: fenced or indented.
    pub fn code(&self) -> Vec<String> {
        let (lines, fences) = self.parts();
        let indented = lines.iter().filter_map(|line| line.strip_prefix("    "));
        let fenced = fences.iter().flat_map(|fence| fence.text.lines());
        indented.chain(fenced).map(str::to_owned).collect()
    }

    /// What stands in backticks in the prose.
    pub fn spans(&self) -> Vec<String> {
        spans(&self.prose().join("\n"))
    }

    pub fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<Table> = Vec::new();
        let mut heading = String::new();
        let mut within = false;
        for line in self.prose() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().to_owned();
            }
            let Some(row) = line.trim().strip_prefix('|') else {
                within = false;
                continue;
            };
            let cells = cells(row);
            if !within {
                within = true;
                tables.push(Table {
                    heading: heading.clone(),
                    header: cells,
                    rows: Vec::new(),
                });
            } else if !row.trim_start().starts_with("---") {
                tables.last_mut().unwrap().rows.push(cells);
            }
        }
        tables
    }

    /// Targets of its links.
    pub fn links(&self) -> Vec<String> {
        let text = self.prose().join("\n");
        let mut links = Vec::new();
        for part in text.split("](").skip(1) {
            links.extend(part.split(')').next().map(str::to_owned));
        }
        links
    }
}

/// What stands in backticks.
pub fn spans(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('`') {
        let marks = rest[at..].len() - rest[at..].trim_start_matches('`').len();
        let mark = "`".repeat(marks);
        let inner = &rest[at + marks..];
        let Some(end) = inner.find(&mark) else {
            break;
        };
        found.push(
            inner[..end]
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        );
        rest = &inner[end + marks..];
    }
    found
}

/// A row's cells; a bar in code belongs to its cell.
fn cells(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut in_code = false;
    for c in row.chars() {
        match c {
            '|' if !in_code => cells.push(String::new()),
            c => {
                in_code ^= c == '`';
                cells.last_mut().unwrap().push(c);
            }
        }
    }
    // behind the last bar
    cells.pop();
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

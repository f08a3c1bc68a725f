//! The shell's grammar, as far as a list of assignments needs it.
//!
//! A line of commands that are not assignments is kept and not looked at, except that words like
//! `if` and `fi` are counted: an assignment between them may or may not happen, and is in doubt.

use super::{ServerConf, ServerConfError, Setting};

/// A part of the file: an assignment, or whatever lies between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// `KEY=VALUE` as written.
    Assignment {
        /// The key.
        key: String,
        /// As written.
        raw: String,
    },
    /// Anything else, as written.
    Other(String),
}

impl Piece {
    pub(super) fn raw(&self) -> &str {
        match self {
            Self::Assignment { raw, .. } | Self::Other(raw) => raw,
        }
    }
}

const OPENERS: [&str; 8] = ["if", "for", "while", "until", "case", "select", "{", "("];
const CLOSERS: [&str; 5] = ["fi", "done", "esac", "}", ")"];

/// After these words a new command begins.
const BEFORE_COMMAND: [&str; 12] = [
    ";", "&&", "||", "|", "&", "!", "then", "do", "else", "elif", "{", "(",
];

/// Characters that end an unquoted word and mean something else than "next command".
const OPERATORS: &[char] = &['&', '|', '(', ')', '<', '>'];

pub(super) fn parse(text: &str) -> Result<ServerConf, ServerConfError> {
    let mut reader = Reader {
        text,
        at: 0,
        line: 1,
        depth: 0,
        other_from: 0,
        conf: ServerConf::default(),
    };
    while !reader.rest().is_empty() {
        reader.command()?;
    }
    reader.close_other(text.len());
    Ok(reader.conf)
}

pub(super) fn set(conf: &mut ServerConf, key: &str, value: &str) -> Result<(), ServerConfError> {
    if name_len(key) != key.len() || key.is_empty() {
        return Err(ServerConfError::Unwritable(key.to_owned()));
    }
    if value.contains(['\n', '\r', '\0']) {
        return Err(ServerConfError::Unwritable(value.to_owned()));
    }
    let written = format!("{key}={}", quoted(value));
    let in_doubt = conf.settings.get(key).is_some_and(|s| s.in_doubt);
    let place = conf.pieces.iter_mut().rev().find_map(|piece| match piece {
        Piece::Assignment { key: k, raw } if k == key => Some(raw),
        _ => None,
    });
    match place {
        Some(raw) if !in_doubt => *raw = written,
        // what shell code may set, a line at the end settles
        _ => {
            let text = conf.render();
            let line_ends = match text.strip_suffix('\n') {
                // a backslash at the end would join the lines
                Some(before) => {
                    if before.ends_with('\\') {
                        "\n"
                    } else {
                        ""
                    }
                }
                None if text.ends_with('\\') => "\n\n",
                None if text.is_empty() => "",
                None => "\n",
            };
            conf.pieces.push(Piece::Other(line_ends.to_owned()));
            conf.pieces.push(Piece::Assignment {
                key: key.to_owned(),
                raw: written,
            });
            conf.pieces.push(Piece::Other("\n".to_owned()));
        }
    }
    let line = conf.settings.get(key).map_or(0, |s| s.line);
    let setting = Setting {
        text: value.to_owned(),
        line,
        in_doubt: false,
    };
    conf.settings.insert(key.to_owned(), setting);
    Ok(())
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@,+%-".contains(c);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Length of the shell name that the text begins with; 0 if it begins with none.
fn name_len(text: &str) -> usize {
    let word = text
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
        .count();
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        0
    } else {
        word
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    // how many `if`s and the like are open
    depth: usize,
    // where the piece began that is no assignment
    other_from: usize,
    conf: ServerConf,
}

/// An assignment that was read but not yet taken as one.
struct Read {
    key: String,
    from: usize,
    to: usize,
    setting: Setting,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Moves on over `bytes` bytes.
    fn skip(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|b| *b == b'\n').count();
        self.at += bytes;
    }

    fn skip_blanks(&mut self) {
        loop {
            if self.rest().starts_with([' ', '\t', '\r']) {
                self.skip(1);
            } else if self.rest().starts_with("\\\n") {
                self.skip(2);
            } else {
                return;
            }
        }
    }

    fn rest_of_line(&self) -> usize {
        self.rest().find('\n').unwrap_or(self.rest().len())
    }

    fn close_other(&mut self, at: usize) {
        if at > self.other_from {
            let raw = self.text[self.other_from..at].to_owned();
            self.conf.pieces.push(Piece::Other(raw));
        }
    }

    /// Reads one simple command, or whatever stands up to the end of the line.
    fn command(&mut self) -> Result<(), ServerConfError> {
        self.skip_blanks();
        let (begin, begin_line) = (self.at, self.line);
        let export = self.rest().starts_with("export ") || self.rest().starts_with("export\t");
        if export {
            self.skip("export".len());
            self.skip_blanks();
        }
        let mut read = Vec::new();
        loop {
            if let Some(assignment) = self.assignment()? {
                read.push(assignment);
            } else if export && self.bare_name() > 0 {
                self.skip(self.bare_name());
            } else {
                break;
            }
            self.skip_blanks();
        }
        if self.rest().starts_with('#') {
            self.skip(self.rest_of_line());
        }
        if self.rest().is_empty() || self.rest().starts_with(['\n', ';']) {
            for assignment in read {
                self.take(assignment);
            }
        } else {
            // another command, perhaps with assignments that hold for it alone
            for Read { key, setting, .. } in read {
                self.doubt(key, setting.text);
            }
            self.skip(self.rest_of_line());
            let text = self.text[begin..self.at].trim_end().to_owned();
            self.survey(&text);
            self.conf.unread.push((begin_line, text));
        }
        self.skip(usize::from(!self.rest().is_empty()));
        Ok(())
    }

    /// Length of a name that stands here as a word of its own.
    fn bare_name(&self) -> usize {
        let name = name_len(self.rest());
        let after = &self.rest()[name..];
        let alone = after.is_empty() || after.starts_with([' ', '\t', '\r', '\n', ';']);
        if alone { name } else { 0 }
    }

    /// Looks through commands that are not run for what they would set, and for what they open
    /// and close.
    fn survey(&mut self, commands: &str) {
        let spaced = commands.replace(';', " ; ");
        let mut at_command = true;
        for word in spaced.split_ascii_whitespace() {
            if word.starts_with('#') {
                break;
            }
            if at_command && OPENERS.contains(&word) {
                self.depth += 1;
            } else if at_command && CLOSERS.contains(&word) {
                self.depth = self.depth.saturating_sub(1);
            }
            let bare = word.trim_start_matches(['(', '{', '&', '|']);
            let (name, rest) = bare.split_at(name_len(bare));
            let value = rest.strip_prefix('+').unwrap_or(rest).strip_prefix('=');
            if let (false, Some(value)) = (name.is_empty(), value) {
                self.doubt(name.to_owned(), value.to_owned());
            }
            at_command = BEFORE_COMMAND.contains(&word) || word.ends_with("()");
        }
    }

    fn doubt(&mut self, key: String, text: String) {
        let setting = Setting {
            text,
            line: self.line,
            in_doubt: true,
        };
        self.conf.settings.insert(key, setting);
    }

    fn take(&mut self, assignment: Read) {
        let Read {
            key,
            from,
            to,
            mut setting,
        } = assignment;
        self.close_other(from);
        self.other_from = to;
        setting.in_doubt |= self.depth > 0;
        self.conf.pieces.push(Piece::Assignment {
            key: key.clone(),
            raw: self.text[from..to].to_owned(),
        });
        self.conf.settings.insert(key, setting);
    }

    /// Reads `KEY=VALUE`; nothing if something else stands here.
    fn assignment(&mut self) -> Result<Option<Read>, ServerConfError> {
        let name = name_len(self.rest());
        if name == 0 || !self.rest()[name..].starts_with('=') {
            return Ok(None);
        }
        let (from, line) = (self.at, self.line);
        let key = self.rest()[..name].to_owned();
        self.skip(name + 1);
        let (text, in_doubt) = self.word()?;
        Ok(Some(Read {
            key,
            from,
            to: self.at,
            setting: Setting {
                text,
                line,
                in_doubt,
            },
        }))
    }

    /// Reads a word and takes its quotes off; true if a shell would have expanded something.
    fn word(&mut self) -> Result<(String, bool), ServerConfError> {
        let mut word = String::new();
        let mut in_doubt = self.rest().starts_with('~');
        while let Some(c) = self.rest().chars().next() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' => break,
                c if OPERATORS.contains(&c) => break,
                '\'' => {
                    let line = self.line;
                    self.skip(1);
                    let end = self
                        .rest()
                        .find('\'')
                        .ok_or(ServerConfError::OpenQuote { line })?;
                    word.push_str(&self.rest()[..end]);
                    self.skip(end + 1);
                }
                '"' => in_doubt |= self.double_quoted(&mut word)?,
                '\\' => {
                    self.skip(1);
                    let escaped = self.rest().chars().next();
                    word.extend(escaped.filter(|c| *c != '\n'));
                    self.skip(escaped.map_or(0, char::len_utf8));
                }
                c => {
                    in_doubt |= c == '$' || c == '`';
                    word.push(c);
                    self.skip(c.len_utf8());
                }
            }
        }
        Ok((word, in_doubt))
    }

    fn double_quoted(&mut self, word: &mut String) -> Result<bool, ServerConfError> {
        let line = self.line;
        let mut in_doubt = false;
        self.skip(1);
        loop {
            let mut chars = self.rest().chars();
            let c = chars.next().ok_or(ServerConfError::OpenQuote { line })?;
            match (c, chars.next()) {
                ('"', _) => {
                    self.skip(1);
                    return Ok(in_doubt);
                }
                ('\\', Some('\n')) => self.skip(2),
                ('\\', Some(escaped @ ('$' | '`' | '"' | '\\'))) => {
                    word.push(escaped);
                    self.skip(2);
                }
                _ => {
                    in_doubt |= c == '$' || c == '`';
                    word.push(c);
                    self.skip(c.len_utf8());
                }
            }
        }
    }
}

//! What people and programs hand to `prepub` itself: its configuration, what goes over the control
//! socket, and the addresses that clients ask for.
//!
//! A module of the program's tests too; both have its modules at `crate`.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{Event, PathText, Request, reply};
use crate::config::units::{Bytes, Span};
use crate::config::{self, Settings};
use crate::report::Kind;
use crate::serve::names::kind_of;
use crate::state::DaemonInfo;

/// The configuration file, and the sizes and durations in it.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    text_again::<Bytes>(text);
    text_again::<Span>(text);
    let path = Path::new("config.toml");
    let file = match config::parse(text, path) {
        Ok(file) => file,
        Err(failure) => {
            assert_eq!(failure.kind, Kind::Usage);
            assert!(failure.message.starts_with("config.toml"), "{failure}");
            return;
        }
    };
    // as `prepub config show` does
    let written = toml::to_string(&file).expect("what was read can be written");
    assert_eq!(config::parse(&written, path), Ok(file.clone()));
    let settings = Settings {
        source: None,
        state_dir: "/s".into(),
        mountpoint: "/m".into(),
        file,
        overrides: config::Overrides::default(),
    };
    for (name, own) in &settings.file.repository {
        let holds = settings.repository(name);
        assert_eq!(holds.allow, own.allow);
        assert!(own.quota.is_none_or(|quota| holds.quota == Some(quota.0)));
    }
}

/// A request, its first line the verb; a line of an answer; each answer; a path; the name of a file
/// that a client asks for; what a daemon says of itself.
pub fn control(bytes: &[u8]) {
    let line_end = bytes.iter().position(|b| *b == b'\n');
    let (verb, body) = bytes.split_at(line_end.unwrap_or(bytes.len()));
    if let Ok(verb) = std::str::from_utf8(verb) {
        request(verb, body);
        text_again::<PathText>(verb);
        if kind_of(verb).is_some() {
            assert!(!verb.split('/').any(|name| matches!(name, "" | "." | "..")));
            assert!(verb.starts_with(".cvmfs") || verb.starts_with("data/"));
        }
    }
    let event: Option<Event> = json_again(bytes);
    if let Some(Event::Done(value)) = event {
        answers(value.to_string().as_bytes());
    }
    answers(bytes);
    json_again::<DaemonInfo>(bytes);
}

fn request(verb: &str, body: &[u8]) {
    match Request::from_http(verb, body) {
        Ok(request) => {
            assert_eq!(request.verb(), verb);
            // as the client does
            let mut value = serde_json::to_value(&request).expect("what was read can be written");
            let fields = value.as_object_mut().expect("an object");
            fields.remove("verb");
            let again = Request::from_http(verb, value.to_string().as_bytes());
            assert_eq!(again, Ok(request));
        }
        Err(failure) => assert!(matches!(failure.kind, Kind::Usage | Kind::NotFound)),
    }
}

fn answers(bytes: &[u8]) {
    json_again::<reply::Status>(bytes);
    json_again::<reply::Diff>(bytes);
    json_again::<reply::Committed>(bytes);
    json_again::<reply::Aborted>(bytes);
    json_again::<reply::Tags>(bytes);
    json_again::<reply::Standing>(bytes);
    json_again::<reply::Checked>(bytes);
    json_again::<reply::Made>(bytes);
    json_again::<reply::Removed>(bytes);
    json_again::<reply::Unmounted>(bytes);
    json_again::<reply::Reloaded>(bytes);
    json_again::<reply::Collected>(bytes);
    json_again::<reply::Diagnosis>(bytes);
}

/// What is read as JSON can be written, and reads the same then.
fn json_again<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written");
    assert_eq!(again, read);
    Some(read)
}

/// The same of plain text, which must fit into one line.
fn text_again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let written = read.to_string();
        assert!(!written.contains(char::is_control), "{written:?}");
        assert_eq!(written.parse().ok(), Some(read));
    }
}

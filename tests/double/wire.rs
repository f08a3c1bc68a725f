//! Recorded requests of the official publisher, sent to the double: status and shape of every reply
//! are those that the official gateway gave.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::{Key, Stage};
use crate::support::workspace_root;

const REPO: &str = "gwtest.example.org";

/// One recorded request, and what was answered.
struct Exchange {
    name: String,
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    status: u64,
    reply: String,
}

fn recorded(folder: &str) -> Vec<Exchange> {
    let dir = workspace_root().join("tests/data/wire").join(folder);
    let files = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().unwrap() == "json")
        .collect();
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let told: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        let headers = serde_json::from_value(told["request_headers"].clone()).unwrap();
        Exchange {
            name: format!("{folder}/{}", file.file_stem().unwrap().display()),
            method: text("method"),
            path: text("path"),
            headers,
            body: fs::read(file.with_extension("request.body")).unwrap(),
            status: told["status"].as_u64().unwrap(),
            reply: text("response_body"),
        }
    };
    files.iter().map(read).collect()
}

fn stage() -> Stage {
    let key = Key {
        id: "gwkey1".into(),
        secret: "gwsecret1".into(),
        path: "/".into(),
    };
    Stage::called(REPO, vec![key])
}

/// What differs from one run to the next, and is of no shape.
const VARIABLE: [&str; 4] = [
    "session_token",
    "time_remaining",
    "expires",
    "final_revision",
];

/// A reply with what is variable replaced by its type.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::String(_) if VARIABLE.contains(&key.as_str()) => {
                    (key.clone(), "text".into())
                }
                Value::Number(_) if VARIABLE.contains(&key.as_str()) => {
                    (key.clone(), "number".into())
                }
                value => (key.clone(), shape(value)),
            })
            .collect(),
        other => other.clone(),
    }
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    if from.is_empty() {
        return bytes.to_vec();
    }
    assert_eq!(from.len(), to.len(), "lengths are signed too");
    let mut replaced = bytes.to_vec();
    let found = bytes.windows(from.len()).enumerate();
    let found = found.filter(|(_, window)| *window == from.as_bytes());
    for (at, _) in found {
        replaced[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    replaced
}

/// Sends what was recorded; tokens and root catalogs become those that there are here, and with them
/// the signatures, where the recorded one was right.
fn replay(stage: &Stage, exchange: &Exchange, tokens: &mut (String, String)) {
    let head = stage.draft().base.to_string();
    let path = exchange.path.replace(&tokens.0, &tokens.1);
    let mut body = replace(&exchange.body, &tokens.0, &tokens.1);
    if let Ok(commit) = serde_json::from_slice::<Value>(&exchange.body) {
        for key in ["old_root_hash", "new_root_hash"] {
            let hash = commit[key].as_str().and_then(|hash| hash.strip_suffix('C'));
            body = replace(&body, hash.unwrap_or_default(), &head);
        }
    }
    let signed = |path: &str, body: &[u8]| {
        let token = path.split('/').nth(4).unwrap_or_default().to_owned();
        let message = exchange
            .headers
            .get("Message-Size")
            .map(|size| size.parse().unwrap());
        match (token.is_empty(), message) {
            (false, _) => token.into_bytes(),
            (true, Some(bytes)) => body[..bytes].to_vec(),
            (true, None) => body.to_vec(),
        }
    };
    let mut headers = Vec::new();
    for (name, value) in &exchange.headers {
        let was_right = *value == stage.client.sign(&signed(&exchange.path, &exchange.body));
        match name.as_str() {
            "Host" | "Connection" | "Content-Length" => {}
            "Authorization" if was_right => {
                headers.push(format!(
                    "{name}: {}",
                    stage.client.sign(&signed(&path, &body))
                ));
            }
            _ => headers.push(format!("{name}: {value}")),
        }
    }
    let response = stage
        .client
        .send(&exchange.method, &path, &headers, &body)
        .unwrap();
    assert_eq!(
        u64::from(response.status),
        exchange.status,
        "{}: {response:?}",
        exchange.name
    );
    let Ok(was) = serde_json::from_str::<Value>(&exchange.reply) else {
        assert_eq!(response.body, exchange.reply, "{}", exchange.name);
        return;
    };
    let is = response.json();
    assert_eq!(shape(&is), shape(&was), "{}", exchange.name);
    if let (Some(was), Some(is)) = (was["session_token"].as_str(), is["session_token"].as_str()) {
        *tokens = (was.to_owned(), is.to_owned());
    }
}

#[test]
fn recorded_exchanges_are_answered_as_they_were() {
    let stage = stage();
    let mut answered = 0;
    for folder in ["publish", "subpath", "abort", "leases"] {
        let mut tokens = ("-".repeat(56), "-".repeat(56));
        for exchange in recorded(folder) {
            replay(&stage, &exchange, &mut tokens);
            answered += 1;
        }
    }
    assert_eq!(answered, 25, "every recording was replayed");
    assert_eq!(stage.draft().revision, 3, "both commits made a revision");
}

#[test]
fn recorded_signatures_are_ours() {
    let stage = stage();
    for folder in ["publish", "subpath", "abort"] {
        for exchange in recorded(folder) {
            let token = exchange.path.split('/').nth(4);
            let message = exchange
                .headers
                .get("Message-Size")
                .map(|size| size.parse().unwrap());
            let signed = token.map_or(
                &exchange.body[..message.unwrap_or(exchange.body.len())],
                str::as_bytes,
            );
            assert_eq!(
                exchange.headers["Authorization"],
                stage.client.sign(signed),
                "{}",
                exchange.name
            );
        }
    }
}

#[test]
fn every_reply_is_text_to_http() {
    let stage = stage();
    let url = format!(
        "http://{}/api/v1/repos/other.example.org",
        stage.gateway.address()
    );
    let output = std::process::Command::new("curl")
        .args(["-si", &url])
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: needs curl");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(
        text.contains("content-type: text/plain; charset=utf-8"),
        "{text}"
    );
    assert!(
        text.contains(r#"{"reason":"invalid_repo","status":"error"}"#),
        "{text}"
    );
}

//! Against what real gateways were recorded to answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;

use serde_json::Value;

use super::*;

/// Answers one request with a recorded reply; what was asked comes out of the channel.
fn answer(status: u16, reply: &str) -> (String, mpsc::Receiver<Asked>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/api/v1/", listener.local_addr().unwrap());
    let (told, asked) = mpsc::channel();
    let reply = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{reply}",
        reply.len()
    );
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.eq_ignore_ascii_case("content-length")).then(|| value.trim().parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(reply.as_bytes()).unwrap();
        told.send(Asked { head, body }).unwrap();
    });
    (url, asked)
}

struct Asked {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, wanted: &str) -> &str {
        let value = self.head.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case(wanted).then_some(value)
        });
        value.unwrap_or_else(|| panic!("no {wanted} in {:?}", self.head))
    }
}

fn key() -> Key {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.gw");
    std::fs::write(&file, "plain_text gwkey1 gwsecret1\n").unwrap();
    Key::read(&file).unwrap()
}

fn client(url: &str) -> Client {
    Client::new(url, "gwtest.example.org", key(), "publisher.example.org").unwrap()
}

fn exchanges() -> Vec<Value> {
    serde_json::from_slice(include_bytes!("../../../tests/data/wire/exchanges.json")).unwrap()
}

fn text<'v>(exchange: &'v Value, field: &str) -> &'v str {
    exchange[field].as_str().unwrap()
}

/// Each recorded request is signed as the official client signed it.
#[test]
fn signatures_are_those_recorded() {
    let mut checked = 0;
    for exchange in exchanges() {
        let (method, path) = (text(&exchange, "method"), text(&exchange, "path"));
        let authorization = text(&exchange, "authorization");
        // those that were made with other keys on purpose
        if text(&exchange, "reply").contains("invalid_hmac") {
            continue;
        }
        let message = match path.strip_prefix("/api/v1/leases/") {
            Some(token) => token,
            None if method == "POST" && path == "/api/v1/leases" => text(&exchange, "request"),
            None => continue,
        };
        assert_eq!(key().authorize(message.as_bytes()).unwrap(), authorization);
        checked += 1;
    }
    assert!(checked >= 10, "{checked} were recorded");
}

/// What the recorded answers to a wish for a lease are taken for.
#[test]
fn answers_about_leases() {
    let mut seen = Vec::new();
    for exchange in exchanges() {
        if text(&exchange, "path") != "/api/v1/leases" || text(&exchange, "method") != "POST" {
            continue;
        }
        let reply = text(&exchange, "reply");
        let (url, _) = answer(200, reply);
        seen.push(match client(&url).acquire("/busy") {
            Ok((token, version)) => {
                assert!(reply.contains(token.reveal()));
                assert!(matches!(version, Some(2 | 3)), "{version:?}");
                "token"
            }
            Err(GatewayError::Busy {
                left: Some(left), ..
            }) => {
                assert!(left.as_secs() == 7199, "{left:?}");
                "busy"
            }
            Err(GatewayError::InvalidKey { .. }) => "key",
            Err(GatewayError::UnknownRepository { .. }) => "repository",
            Err(other) => panic!("{reply}: {other}"),
        });
    }
    assert_eq!(
        seen,
        [
            "token",
            "busy",
            "busy",
            "busy",
            "busy",
            "key",
            "key",
            "repository",
            "token"
        ]
    );
}

#[test]
fn a_lease_is_asked_for_in_strings() {
    let (url, asked) = answer(200, r#"{"status":"path_busy","time_remaining":"59.5s"}"#);
    let left = client(&url).time_left("/a\"b").unwrap();
    assert_eq!(left, Duration::from_millis(59_500));
    let asked = asked.recv().unwrap();
    assert_eq!(asked.head[0], "POST /api/v1/leases HTTP/1.1");
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(body["path"], "gwtest.example.org/a\"b");
    assert_eq!(body["api_version"], "2");
    assert_eq!(
        asked.header("authorization"),
        key().authorize(&asked.body).unwrap()
    );
}

#[test]
fn a_commit_and_its_answers() {
    let commit = Commit {
        old_root: "13ee57481d6191748861b955108f49e4da9eb337C".to_owned(),
        new_root: "81681398d387071050438cc43c6d699ad8430172C".to_owned(),
        tag: "wire-1.0",
        message: "wire-test",
    };
    let token = Token::new("AB====").unwrap();
    let ask = |reply: &str| {
        let (url, asked) = answer(200, reply);
        let answered = client(&url).commit(&token, &commit, Duration::from_secs(9));
        (answered, asked.recv().unwrap())
    };
    let recorded = exchanges();
    let reply_to = |part: &str| {
        let found = recorded.iter().find(|e| text(e, "reply").contains(part));
        text(found.unwrap(), "reply").to_owned()
    };
    let (answered, asked) = ask(&reply_to("final_revision"));
    assert_eq!(answered.unwrap(), 7);
    let said: Value = serde_json::from_slice(&asked.body).unwrap();
    let found = recorded
        .iter()
        .find(|e| text(e, "reply").contains("final_revision"));
    let was: Value = serde_json::from_str(text(found.unwrap(), "request")).unwrap();
    assert_eq!(said, was);
    assert_eq!(
        asked.header("authorization"),
        key().authorize(b"AB====").unwrap()
    );
    let (answered, _) = ask(&reply_to("receiver crashed"));
    assert!(matches!(answered, Err(GatewayError::Failed { .. })));
    let (answered, _) = ask(&reply_to("invalid lease"));
    assert!(matches!(answered, Err(GatewayError::InvalidLease)));
    let (answered, _) = ask("ok\n");
    let error = answered.unwrap_err();
    assert!(matches!(error, GatewayError::Strange { .. }));
    assert!(!format!("{error} {error:?}").contains("AB===="));
}

#[test]
fn a_lost_reply_shows_no_token() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut some = [0; 16];
        let _ = stream.read(&mut some);
    });
    let error = client(&url)
        .drop_lease(&Token::new("AB====").unwrap())
        .unwrap_err();
    server.join().unwrap();
    assert!(matches!(error, GatewayError::NoReply { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("AB"), "{error:?}");
}

#[test]
fn nobody_there() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = client(&format!("http://127.0.0.1:{port}/api/v1")).standing();
    assert!(matches!(error, Err(GatewayError::Unreachable { .. })));
}

#[test]
fn what_the_key_may_do() {
    let recorded = exchanges();
    let repos = recorded.iter().find(|e| text(e, "path") == "/api/v1/repos");
    let (url, _) = answer(200, text(repos.unwrap(), "reply"));
    assert_eq!(client(&url).standing().unwrap().path, "/");
}

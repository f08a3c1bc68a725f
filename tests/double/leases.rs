//! Who holds which path: the gateway's own rules, odd as they are.

use std::time::Duration;

use serde_json::json;

use super::{Stage, crashed, key};

fn is_busy(stage: &Stage, path: &str) -> bool {
    let answer = stage.client.try_lease(path);
    match answer["status"].as_str() {
        Some("path_busy") => true,
        Some("ok") => {
            let token = answer["session_token"].as_str().unwrap();
            assert_eq!(stage.client.drop_lease(token)["status"], "ok");
            false
        }
        _ => panic!("{path}: {answer}"),
    }
}

#[test]
fn a_prefix_is_in_the_way_and_so_are_wildcards() {
    let stage = Stage::new();
    for (held, busy, free) in [
        (
            "/foo",
            &["/foo", "/foo/x", "/foobar", "/FOO", "/fo", "/"][..],
            &["/bar", "/f/oo"][..],
        ),
        ("/bar_1", &["/barX1", "/bar_1"], &["/bar1", "/ba_2"]),
        ("/a%z", &["/a/b/z", "/az"], &["/b"]),
        ("/", &["/anything"], &[]),
    ] {
        let token = stage.client.lease(held);
        for path in busy {
            assert!(is_busy(&stage, path), "{path} while {held} is held");
        }
        for path in free {
            assert!(!is_busy(&stage, path), "{path} while {held} is held");
        }
        stage.client.drop_lease(&token);
    }
}

#[test]
fn a_lease_ends_with_its_time() {
    let stage = Stage::new();
    let token = stage.client.lease("/a");
    stage.gateway.advance(Duration::from_millis(3_600_250));
    let busy = stage.client.try_lease("/a");
    assert_eq!(
        busy,
        json!({"status": "path_busy", "time_remaining": "59m59.75s"})
    );
    stage.gateway.advance(Duration::from_secs(3600));
    let shown = stage
        .client
        .send("GET", &format!("/api/v1/leases/{token}"), &[], b"");
    let shown = shown.unwrap();
    assert_eq!(
        (shown.status, shown.body.as_str()),
        (500, "invalid lease\n")
    );
    let made = stage.draft().make();
    let invalid = json!({"status": "error", "reason": "invalid lease"});
    assert_eq!(stage.client.commit(&token, &made, ""), invalid);
    assert_eq!(
        stage
            .client
            .payload(&token, &super::client::Pack::of(&[]))
            .unwrap(),
        invalid
    );
    // it is there until another is granted, and can be dropped
    let other = stage.client.lease("/a");
    assert_eq!(stage.client.drop_lease(&token), invalid);
    assert_eq!(stage.client.drop_lease(&other)["status"], "ok");
    let again = stage.client.lease("/a");
    stage.gateway.advance(Duration::from_secs(7201));
    assert_eq!(stage.client.drop_lease(&again)["status"], "ok");
}

#[test]
fn keys_are_for_paths() {
    let stage = Stage::called(
        crate::support::REPO,
        vec![key("key", "/"), key("part", "/x/y")],
    );
    let part = stage.client.with_key("part", "part's secret");
    let refused = json!({"status": "error", "reason": "authorization error: invalid_path"});
    for path in ["/", "/x", "/x/z", "/x/yy"] {
        assert_eq!(part.try_lease(path), refused, "{path}");
    }
    let token = part.lease("/x/y/z");
    // a token is good with any key
    assert_eq!(stage.client.drop_lease(&token)["status"], "ok");
    let unsigned = json!({"status": "error", "reason": "invalid_hmac"});
    for wrong in [
        stage.client.with_key("part", "no secret"),
        stage.client.with_key("nobody", "x"),
    ] {
        assert_eq!(wrong.try_lease("/x/y"), unsigned);
    }
}

#[test]
fn requests_that_are_malformed() {
    let stage = Stage::new();
    let ask = |body: &str| {
        let headers = [format!(
            "Authorization: {}",
            stage.client.sign(body.as_bytes())
        )];
        let response = stage
            .client
            .send("POST", "/api/v1/leases", &headers, body.as_bytes());
        response.unwrap()
    };
    for body in [
        "",
        "no json",
        r#"{"path":"r/","api_version":3}"#,
        r#"{"path":"r/"}"#,
    ] {
        let response = ask(body);
        assert_eq!(
            (response.status, response.body.as_str()),
            (400, "invalid request body\n"),
            "{body}"
        );
    }
    for (body, reason) in [
        (
            r#"{"path":"r/","api_version":"1"}"#,
            "incompatible request version: 1, min version: 2",
        ),
        (
            r#"{"path":"test.example.org","api_version":"3"}"#,
            "missing repository name or subpath",
        ),
        (
            r#"{"path":"/test.example.org/","api_version":"3"}"#,
            "input has leading slash",
        ),
        (
            r#"{"path":"other.example.org/","api_version":"3"}"#,
            "repository not found: %!w(<nil>)",
        ),
    ] {
        assert_eq!(ask(body).json()["reason"], reason, "{body}");
    }
    // of unknown length
    let body = r#"{"path":"test.example.org/","api_version":"3"}"#;
    let headers = [
        format!("Authorization: {}", stage.client.sign(body.as_bytes())),
        "Transfer-Encoding: chunked".to_owned(),
    ];
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    assert!(
        stage
            .client
            .send("POST", "/api/v1/leases", &headers, chunked.as_bytes())
            .is_err()
    );
    for (method, path, status) in [
        ("PUT", "/api/v1/leases", 405),
        ("GET", "/api/v1/nothing", 404),
    ] {
        assert_eq!(
            stage.client.send(method, path, &[], b"").unwrap().status,
            status
        );
    }
}

#[test]
fn a_commit_that_failed_leaves_a_lease_that_is_good_for_nothing() {
    let mut stage = Stage::new();
    let made = stage.draft().make();
    let uncounted = |path: &str| {
        let lease = format!("no statistics counters for lease test.example.org/{path}");
        json!({"status": "error", "reason": format!("could not obtain statistics counters: {lease}")})
    };
    let token = stage.client.lease("/");
    let mut broken = stage.draft().make();
    broken.root = formats::Hash::null();
    assert_eq!(stage.client.commit(&token, &broken, "")["status"], "error");
    assert_eq!(stage.client.commit(&token, &made, ""), uncounted(""));
    stage.client.drop_lease(&token);
    // so does a restart of the gateway
    let token = stage.client.lease("/");
    stage.gateway.restart();
    assert_eq!(stage.client.commit(&token, &made, ""), uncounted(""));
    assert_eq!(stage.client.drop_lease(&token)["status"], "ok");
    let token = stage.client.lease("/");
    let headers = [format!(
        "Authorization: {}",
        stage.client.sign(token.as_bytes())
    )];
    let path = format!("/api/v1/leases/{token}");
    let empty = stage.client.send("POST", &path, &headers, b"{}").unwrap();
    assert_eq!(empty.json()["reason"], crashed("commit"));
}

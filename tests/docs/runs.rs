//! The pages whose `sh` fences are run, as a reader would who types them in order.

use std::net::TcpListener;

use super::page::page;
use crate::support::shell::{Shell, Who, have};
use crate::support::{receiver, skip_unless, workspace_root};

/// All fences of a page that are marked `sh`, in order, and a way out if they fail in their midst.
fn script(name: &str) -> String {
    let fences = page(name).fences();
    let shown = fences.iter().filter(|fence| fence.info == "sh");
    let text: String = shown.map(|fence| fence.text.as_str()).collect();
    assert!(!text.is_empty(), "{name} has commands");
    let way_out = "{ kill $(jobs -p); prepub unmount --discard; } >/dev/null 2>&1 || :";
    format!("trap '{way_out}' EXIT\n{text}")
}

/// A port that nobody has at the moment.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn the_tutorial(who: Who) {
    if receiver().is_none() || skip_unless(have(&["curl", "rsync", "cmp"]), "curl, rsync, cmp") {
        return;
    }
    let Some(shell) = Shell::of(who) else {
        return;
    };
    let mut text = script("docs/tutorial.md");
    for port in ["18443", "19101"] {
        assert!(text.contains(port));
        text = text.replace(port, &free_port());
    }
    let said = shell.ok(&text);
    // in the order in which the page promises it
    let mut rest = said.as_str();
    for promised in [
        "demo.example.org is made",
        "mounted on",
        "revision 2 is published, tagged v1",
        "\nS2\n",
        "revision 3 is published, tagged v2",
        "\n200\n",
        "\nhello\n",
        "revision 5 is published, tagged tool-1.0",
        "tool 1.0 in ",
        "it failed with 1\n1.0\n",
        "connected",
        "revision 6 is published",
        "here is warm: 100 objects",
        "\n100\n",
        "unmounted",
    ] {
        let (_, after) = rest
            .split_once(promised)
            .unwrap_or_else(|| panic!("{promised:?} is not in\n{rest}"));
        rest = after;
    }
    assert!(!shell.home().join("tutorial").exists());
}

#[test]
fn the_tutorial_as_root() {
    the_tutorial(Who::Root);
}

#[test]
fn the_tutorial_as_an_ordinary_user() {
    the_tutorial(Who::User);
}

#[test]
fn the_steps_of_the_readme() {
    let Some(shell) = Shell::of(Who::User) else {
        return;
    };
    shell.ok("mkdir -p some/tree/with && echo content >some/tree/with/file");
    let said = shell.ok(&script("README.md"));
    assert!(said.contains("revision 2 is published"), "{said}");
    assert!(said.contains("unmounted"), "{said}");
}

#[test]
fn the_builds() {
    if skip_unless(have(&["cmake", "make", "cc"]), "cmake, make, cc") {
        return;
    }
    let Some(shell) = Shell::of(Who::User) else {
        return;
    };
    let source = workspace_root().join("tests/data/greeting");
    shell.ok(&format!(
        "cp -r {} .\nprepub mkfs demo.example.org\nprepub mount \"$MOUNT\"",
        source.display()
    ));
    let script = script("docs/builds.md");
    let said = shell.ok(&format!(
        "{script}\nls \"$MOUNT/demo.example.org/greeting\" \"$MOUNT/demo.example.org/counted\""
    ));
    for tag in ["greeting-1.0", "greeting-1.1"] {
        assert!(
            said.contains(&format!("is published, tagged {tag}")),
            "{said}"
        );
    }
    assert!(said.contains("counted:\n1.0\n"), "{said}");
}

/// Where a page has commands of which none is run, it says so by another mark.
#[test]
fn nothing_else_is_marked_to_be_run() {
    let run = ["docs/tutorial.md", "docs/builds.md", "README.md"];
    for page in super::page::pages() {
        let is_marked = page.fences().iter().any(|fence| fence.info == "sh");
        assert_eq!(
            is_marked,
            run.contains(&page.name.as_str()),
            "{}",
            page.name
        );
    }
}

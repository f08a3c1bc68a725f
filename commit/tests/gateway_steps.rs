//! An error at each step of a publisher behind a gateway: nothing is published, or everything is, no
//! lease is left, and the next commit needs no help. `tests/sweep` of the workspace kills it there.

use commit::Outcome;
use fail::FailScenario;

use crate::support::changes::path;
use crate::support::gateway::{Behind, Make, Way, behind_each};
use crate::support::node::Node;

behind_each! {
    an_error_at_each_step,
    an_error_when_a_leftover_is_dropped,
}

/// Who passes a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    Always,
    /// Only where objects go through the gateway.
    WithPayloads,
}

/// Every step, and whether the revision is visible although the step fails each time.
const STEPS: [(&str, Passed, bool); 10] = [
    ("gateway::before_lease", Passed::Always, false),
    ("gateway::granted", Passed::Always, false),
    ("gateway::noted", Passed::Always, false),
    ("gateway::before_payload", Passed::WithPayloads, false),
    ("gateway::after_payload", Passed::WithPayloads, false),
    // of the lease for payloads: it is left to the next one, which drops it
    ("gateway::before_drop", Passed::WithPayloads, true),
    ("gateway::after_drop", Passed::WithPayloads, true),
    ("gateway::brought", Passed::Always, false),
    ("gateway::before_commit", Passed::Always, false),
    ("gateway::after_commit", Passed::Always, true),
];

fn is_published(site: &Behind, at: &str) -> bool {
    site.repo.head().lookup(&path(at)).unwrap().is_some()
}

fn an_error_at_each_step(make: Make) {
    let _alone = crate::alone();
    let site = Behind::start(make, &[]);
    for way in [Way::Payloads, Way::Storage] {
        let steps = STEPS
            .iter()
            .filter(|(_, passed, _)| way == Way::Payloads || *passed == Passed::Always);
        for (step, _, visible) in steps {
            let node = Node::new(&site, way);
            let at = format!("/{way:?}-{}", step.replace("::", "-"));
            let changes = site.repo.changes().file(&at, at.as_bytes());
            let request = site.repo.request(changes.done());
            let scenario = FailScenario::setup();
            fail::cfg(*step, "return").unwrap();
            let outcome = node.commit(&request);
            scenario.teardown();
            let done = matches!(outcome, Ok(Outcome::Visible(_)));
            assert_eq!(done, *visible, "{at}: {outcome:?}");
            assert_eq!(is_published(&site, &at), *visible, "{at}");
            assert!(!node.was_done(), "{at}: it was told");
            site.assert_no_lease();
            let again = node.commit(&request).unwrap();
            assert_eq!(matches!(again, Outcome::Nothing), *visible, "{at}");
            assert!(is_published(&site, &at), "{at}");
            site.assert_no_lease();
            node.assert_no_token();
        }
    }
    site.judge();
}

fn an_error_when_a_leftover_is_dropped(make: Make) {
    let _alone = crate::alone();
    let site = Behind::start(make, &[]);
    let node = Node::new(&site, Way::Storage);
    let request = site
        .repo
        .request(site.repo.changes().file("/f", b"").done());
    let failing = |steps: &[&str]| {
        let scenario = FailScenario::setup();
        for step in steps {
            fail::cfg(*step, "return").unwrap();
        }
        let outcome = node.commit(&request);
        scenario.teardown();
        assert!(outcome.is_err(), "{steps:?}: {outcome:?}");
    };
    failing(&["gateway::noted", "gateway::before_drop"]);
    assert_ne!(site.leases(), serde_json::json!({}), "it is left");
    failing(&["gateway::leftover_dropped"]);
    site.assert_no_lease();
    node.commit(&request).unwrap();
    assert!(is_published(&site, "/f"));
    site.assert_no_lease();
    node.assert_no_token();
}

//! The network fails at each request of a commit in turn, before the gateway hears of it or when it
//! has answered: the old revision or the new one is published, whole and once, and the next commit
//! needs no help.

use std::time::Duration;

use commit::{Outcome, Request};

use crate::support::changes::path;
use crate::support::gateway::{Behind, MAX_LEASE, Make, WAYS, Way, behind_each};
use crate::support::node::Node;
use crate::support::proxy::{Asked, Cut, Proxy};

behind_each! {
    each_request,
}

/// Long enough for a commit through a real gateway; a test waits for it to be over.
const SHORT_LEASE: Duration = Duration::from_secs(12);

struct Cuts<'s> {
    site: &'s Behind,
    node: Node<'s>,
    lease: Duration,
    cut: Cut,
}

impl Cuts<'_> {
    fn is_published(&self, at: &str) -> bool {
        self.site.repo.head().lookup(&path(at)).unwrap().is_some()
    }

    /// Cuts one request of a commit; false if there were none so many.
    fn cut_nth(&self, nth: usize, at: &str) -> bool {
        let repo = &self.site.repo;
        let proxy = Proxy::cutting_nth(&self.site.url, self.cut, nth);
        let before = revision(self.site);
        let request = repo.request(repo.changes().file(at, at.as_bytes()).done());
        let outcome = self.node.commit_at(&proxy.url, &request);
        let asked = proxy.cut();
        let context = format!("{at}, {asked:?}: {outcome:?}");
        let done = match outcome {
            Ok(Outcome::Visible(_)) => true,
            Ok(Outcome::Nothing) => panic!("{context}"),
            Err(_) => self.node.was_done(),
        };
        assert_eq!(self.is_published(at), done, "{context}");
        assert_eq!(revision(self.site), before + u64::from(done), "{context}");
        self.expect_leases(&asked, &context);
        if !done {
            self.commits_without_help(&request, &context);
        }
        assert_eq!(revision(self.site), before + 1, "{context}");
        self.node.assert_no_token();
        !asked.is_empty()
    }

    /// None is left, but for one whose token was lost with the answer: that ends with its time.
    fn expect_leases(&self, asked: &[Asked], context: &str) {
        let is_lost = self.site.leases() != serde_json::json!({});
        let may_be_lost = asked == [Asked::Lease] && self.cut == Cut::After;
        assert!(!is_lost || may_be_lost, "{context}: {}", self.site.leases());
        if is_lost {
            self.site.pass(self.lease + Duration::from_secs(1));
        }
        self.site.assert_no_lease();
    }

    fn commits_without_help(&self, request: &Request, context: &str) {
        let outcome = self.node.commit(request);
        let done = matches!(outcome, Ok(Outcome::Visible(_)));
        assert!(
            done,
            "{context}, and again: {outcome:?}\n{}",
            self.site.log()
        );
        self.site.assert_no_lease();
    }
}

fn revision(site: &Behind) -> u64 {
    let head = site.repo.head();
    head.root_catalog().with(|c| Ok(c.revision())).unwrap()
}

fn each_request(make: Make) {
    let lease = match make {
        Make::Double => MAX_LEASE,
        Make::Real => SHORT_LEASE,
    };
    let site = Behind::start_with(make, &[], lease);
    for way in WAYS {
        for cut in [Cut::Before, Cut::After] {
            let cuts = Cuts {
                site: &site,
                node: Node::new(&site, way),
                lease,
                cut,
            };
            let mut nth = 0;
            while cuts.cut_nth(nth, &format!("/{way:?}-{cut:?}-{nth}")) {
                nth += 1;
            }
            // a lease and how long it lasts, the commit; payloads need another lease, and its end
            let least = if way == Way::Storage { 3 } else { 8 };
            assert!(nth >= least, "{way:?}: only {nth} requests");
        }
    }
    site.judge();
}

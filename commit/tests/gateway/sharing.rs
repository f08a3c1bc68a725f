//! Many publishers at once through one gateway: four on disjoint paths, two on the same. Every commit
//! that was acknowledged is in the final tree, in one revision of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use commit::{CommitError, Outcome, Publisher, Visible};
use formats::hash::Hash;
use store::{Repository, Revision};

use super::aimed;
use crate::support::changes::path;
use crate::support::gateway::{Behind, Make, Way, behind_each};

behind_each! {
    six_publishers,
}

/// Where each publishes. A lease on `/a` keeps others off `/ab`, too.
const PUBLISHERS: [(&str, Way); 6] = [
    ("/a", Way::Payloads),
    ("/ab", Way::Storage),
    ("/c", Way::Payloads),
    ("/d", Way::Storage),
    (SHARED, Way::Payloads),
    (SHARED, Way::Storage),
];
const SHARED: &str = "/shared";

/// Commits of each. Through a real gateway they take a second, so that there are few of them unless
/// `PREPUB_COMMITS` says otherwise.
fn commits(make: Make) -> u32 {
    let asked = std::env::var("PREPUB_COMMITS").ok();
    let few = match make {
        Make::Double => 50,
        Make::Real => 4,
    };
    asked.and_then(|n| n.parse().ok()).unwrap_or(few)
}

/// A commit that was acknowledged: its file, the last one's mark, and its revision.
struct Acknowledged {
    file: String,
    mark: String,
    visible: Box<Visible>,
}

/// As on a machine of its own: publishes `times` times below a path, and what collides again.
fn publish(site: &Behind, number: usize, times: u32) -> Vec<Acknowledged> {
    let (target, way) = PUBLISHERS[number];
    let publisher = site.publisher(way);
    let mut done = Vec::new();
    while done.len() < times as usize {
        let (head, _) = publisher.head(site.repo.now()).unwrap();
        let base = publisher.repository().revision_of(&head).unwrap();
        let text = format!("{number}-{}", done.len());
        let (file, mark) = (format!("{target}/{text}"), format!("{target}/mark"));
        let changes = site.repo.changes_on(base);
        let changes = changes.file(&file, text.as_bytes());
        let changes = changes.file(&mark, text.as_bytes()).done();
        let mut request = site.repo.request(aimed(changes, target));
        request.patience = Duration::from_secs(3600);
        match site.try_publish(&publisher, &request) {
            Ok(Outcome::Visible(visible)) => done.push(Acknowledged {
                file,
                mark: text,
                visible,
            }),
            // the other one was faster: again on what it made
            Err(CommitError::Conflicts { .. }) if target == SHARED => {}
            other => panic!("{target}: {other:?}\n{}", site.log()),
        }
    }
    done
}

/// The root catalogs of all revisions since one, by number.
fn chain(repo: &Arc<Repository>, head: &Revision, begin: &Hash) -> BTreeMap<u64, Hash> {
    let mut found = BTreeMap::new();
    let mut root = *head.root_hash();
    while root != *begin {
        let catalog = repo.catalog(&root, None).unwrap();
        let (number, previous) = catalog
            .with(|c| Ok((c.revision(), c.previous_revision())))
            .unwrap();
        assert_eq!(found.insert(number, root), None);
        root = previous.unwrap();
    }
    found
}

fn six_publishers(make: Make) {
    let site = Behind::start(make, &[]);
    let mut changes = site.repo.changes();
    let targets: BTreeSet<&str> = PUBLISHERS.iter().map(|(target, _)| *target).collect();
    for target in &targets {
        changes = changes.dir(target);
    }
    let begin = site.publish(&site.publisher(Way::Payloads), changes.done());
    let times = commits(make);
    let done: Vec<Vec<Acknowledged>> = std::thread::scope(|scope| {
        let all = (0..PUBLISHERS.len()).map(|number| {
            let site = &site;
            scope.spawn(move || publish(site, number, times))
        });
        let all: Vec<_> = all.collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    site.assert_no_lease();

    let done: Vec<Acknowledged> = done.into_iter().flatten().collect();
    let head = site.repo.head();
    let repository = site.repo.publisher.repository();
    let chain = chain(repository, &head, &begin.root_hash);
    assert_eq!(chain.len(), done.len(), "a revision for each, and no other");
    let numbers: BTreeSet<u64> = done.iter().map(|one| one.visible.revision).collect();
    assert_eq!(numbers.len(), done.len(), "none twice");
    for one in &done {
        assert_eq!(chain[&one.visible.revision], one.visible.root_hash);
        let found = head.lookup(&path(&one.file)).unwrap();
        let found = found.unwrap_or_else(|| panic!("{} is lost", one.file));
        assert_eq!(found.entry.size(), one.mark.len() as u64);
    }
    for target in targets {
        let below = |one: &&Acknowledged| one.file.starts_with(&format!("{target}/"));
        let newest = done
            .iter()
            .filter(below)
            .max_by_key(|one| one.visible.revision);
        let newest = head.lookup(&path(&newest.unwrap().file)).unwrap().unwrap();
        let mark = head
            .lookup(&path(&format!("{target}/mark")))
            .unwrap()
            .unwrap();
        assert_eq!(
            mark.entry.kind, newest.entry.kind,
            "{target}: the last one's"
        );
        // its own commits alone
        let files = head.list(&path(target)).unwrap().len();
        assert_eq!(files, done.iter().filter(below).count() + 1, "{target}");
    }
    site.judge();
}

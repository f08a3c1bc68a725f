//! Where rows land: nested catalogs, markers, moves, and what makes no revision.

use std::collections::BTreeSet;

use commit::policy::DropReason;
use commit::{CommitError, Publisher};
use formats::catalog::Role;
use formats::changeset::Children;
use formats::entry::Kind;
use formats::path::RepoPath;

use crate::support::changes::{dir, entry, path};
use crate::support::golden::Rows;
use crate::support::healthy::assert_healthy;
use crate::support::repo::Repo;

fn healthy(repo: &Repo) -> Rows {
    assert_healthy(repo.publisher.repository(), repo.head().root_hash())
}

fn catalogs(repo: &Repo) -> Vec<String> {
    healthy(repo)
        .catalogs
        .keys()
        .map(ToString::to_string)
        .collect()
}

fn names(rows: &Rows) -> BTreeSet<String> {
    rows.rows.keys().map(ToString::to_string).collect()
}

/// `/sw` and `/sw/app` are nested catalogs with a file each; `/plain` is none.
fn software() -> Repo {
    let repo = Repo::new();
    repo.publish(
        repo.changes()
            .dir("/plain")
            .file("/plain/file", b"plain")
            .dir("/sw")
            .file("/sw/.cvmfscatalog", b"")
            .file("/sw/readme", b"sw")
            .dir("/sw/app")
            .file("/sw/app/.cvmfscatalog", b"")
            .file("/sw/app/bin", b"app")
            .dir("/sw/app/lib")
            .file("/sw/app/lib/so", b"so")
            .done(),
    );
    repo
}

#[test]
fn a_marker_begins_a_catalog() {
    let repo = software();
    assert_eq!(catalogs(&repo), ["/", "/sw", "/sw/app"]);
    // deeper catalogs are handed over to one that is split off above them
    repo.publish(repo.changes().dir("/x").dir("/x/y").done());
    repo.publish(repo.changes().file("/x/y/.cvmfscatalog", b"").done());
    repo.publish(repo.changes().file("/x/.cvmfscatalog", b"").done());
    assert_eq!(catalogs(&repo), ["/", "/sw", "/sw/app", "/x", "/x/y"]);
}

#[test]
fn removing_a_marker_merges_the_catalog_into_its_parent() {
    let repo = software();
    repo.publish(repo.changes().remove("/sw/.cvmfscatalog").done());
    assert_eq!(catalogs(&repo), ["/", "/sw/app"]);
    repo.publish(repo.changes().remove("/sw/app/.cvmfscatalog").done());
    assert_eq!(catalogs(&repo), ["/"]);
    assert!(names(&healthy(&repo)).contains("/sw/app/lib/so"));
}

#[test]
fn only_catalogs_on_changed_paths_are_written() {
    let repo = software();
    let hash = |at: &str| *repo.head().catalog(&path(at)).unwrap().hash();
    let (sw, app) = (hash("/sw"), hash("/sw/app"));
    let visible = repo.publish(repo.changes().file("/plain/more", b"more").done());
    assert_eq!(visible.catalogs, 1);
    assert_eq!((sw, app), (hash("/sw"), hash("/sw/app")));
    let visible = repo.publish(repo.changes().file("/sw/more", b"more").done());
    assert_eq!(visible.catalogs, 2);
    assert_eq!(app, hash("/sw/app"));
    assert_ne!(sw, hash("/sw"));
    healthy(&repo);
}

#[test]
fn removing_a_tree_drops_its_catalogs() {
    let repo = software();
    let visible = repo.publish(repo.changes().remove("/sw").done());
    assert_eq!(catalogs(&repo), ["/"]);
    assert_eq!((visible.removed, visible.catalogs), (1, 1));
    assert_eq!(
        names(&healthy(&repo)),
        ["/", "/plain", "/plain/file"].map(str::to_owned).into()
    );
}

#[test]
fn a_moved_tree_brings_its_catalogs_along_and_no_bytes() {
    let repo = software();
    let visible = repo.publish(
        repo.changes()
            .moved("/sw", "/plain/software")
            .file("/plain/software/new", b"new")
            .remove("/plain/software/readme")
            .done(),
    );
    assert_eq!(visible.objects_new, 1);
    assert_eq!(
        catalogs(&repo),
        ["/", "/plain/software", "/plain/software/app"]
    );
    let rows = names(&healthy(&repo));
    assert!(rows.contains("/plain/software/app/lib/so"));
    assert!(rows.contains("/plain/software/new"));
    assert!(!rows.contains("/plain/software/readme"));
    assert!(!rows.contains("/sw"));
}

#[test]
fn a_changed_directory_inside_a_moved_one_keeps_its_source() {
    let repo = software();
    let app = repo.head().lookup(&path("/sw/app")).unwrap().unwrap();
    let mut changed = app.entry;
    changed.perm = 0o700;
    repo.publish(
        repo.changes()
            .moved("/sw", "/moved")
            .put_moved("/moved/app", changed, "/sw/app")
            .file("/moved/app/added", b"added")
            .done(),
    );
    let rows = healthy(&repo);
    assert_eq!(rows.rows[&path("/moved/app")].entry.perm, 0o700);
    assert!(rows.rows.contains_key(&path("/moved/app/lib/so")));
    assert!(rows.rows.contains_key(&path("/moved/app/added")));
    // the marker goes along, and can go
    repo.publish(repo.changes().remove("/moved/app/.cvmfscatalog").done());
    assert_eq!(catalogs(&repo), ["/", "/moved"]);
}

#[test]
fn two_directories_change_places() {
    let repo = software();
    let head = repo.head();
    let (sw, plain) = (
        head.lookup(&path("/sw")).unwrap().unwrap().entry,
        head.lookup(&path("/plain")).unwrap().unwrap().entry,
    );
    repo.publish(
        repo.changes()
            .put_moved("/plain", sw, "/sw")
            .put_moved("/sw", plain, "/plain")
            .done(),
    );
    assert_eq!(catalogs(&repo), ["/", "/plain", "/plain/app"]);
    let rows = names(&healthy(&repo));
    assert!(rows.contains("/plain/app/bin") && rows.contains("/sw/file"));
}

#[test]
fn types_change_both_ways() {
    let repo = software();
    repo.publish(
        repo.changes()
            .file("/sw", b"now a file")
            .dir("/plain/file")
            .file("/plain/file/in", b"now a directory")
            .done(),
    );
    assert_eq!(catalogs(&repo), ["/"]);
    let rows = healthy(&repo);
    assert!(rows.rows[&path("/sw")].entry.regular().is_some());
    assert!(rows.rows.contains_key(&path("/plain/file/in")));
}

#[test]
fn a_replaced_directory_loses_what_is_not_listed() {
    let repo = software();
    repo.publish(
        repo.changes()
            .dir("/sw")
            .file("/sw/readme", b"other")
            .done(),
    );
    assert_eq!(catalogs(&repo), ["/"]);
    assert_eq!(
        names(&healthy(&repo)),
        ["/", "/plain", "/plain/file", "/sw", "/sw/readme"]
            .map(str::to_owned)
            .into()
    );
}

#[test]
fn what_is_published_already_makes_no_revision() {
    let repo = software();
    // the same content, metadata and target, written again
    repo.publish_nothing(
        repo.changes()
            .file("/plain/file", b"plain")
            .file("/sw/app/bin", b"app")
            .done(),
    );
    // a directory made anew with everything that was in it
    repo.publish_nothing(
        repo.changes()
            .dir("/plain")
            .file("/plain/file", b"plain")
            .done(),
    );
    // times that followed from changes that came to nothing
    repo.publish_nothing(repo.changes().implicit("/plain", 1_750_000_000).done());
    // a path that is not there is removed easily
    repo.publish_nothing(repo.changes().remove("/never").done());
    // nothing at all
    repo.publish_nothing(repo.changes().done());
    let mut request = repo.request(repo.changes().done());
    request.allow_empty = true;
    repo.try_publish(&request).unwrap();
    assert_eq!(
        repo.publisher
            .head(repo.now())
            .unwrap()
            .0
            .manifest()
            .revision,
        3
    );
    healthy(&repo);
}

#[test]
fn implicit_times_go_along_with_a_real_change() {
    let repo = software();
    repo.publish(
        repo.changes()
            .implicit("/plain", 1_750_000_000)
            .file("/plain/new", b"new")
            .done(),
    );
    let time = |at: &str| healthy(&repo).rows[&path(at)].entry.mtime.secs;
    assert_eq!(time("/plain"), 1_750_000_000);
    // both copies of a mountpoint's row follow
    repo.publish(
        repo.changes()
            .implicit("/sw", 1_760_000_000)
            .file("/sw/new", b"new")
            .done(),
    );
    assert_eq!(time("/sw"), 1_760_000_000);
}

#[test]
fn the_root_directory_changes_only_when_told_to() {
    let repo = software();
    let time = healthy(&repo).rows[&RepoPath::root()].entry.mtime;
    repo.publish(
        repo.changes()
            .implicit("", 1_750_000_000)
            .file("/new", b"new")
            .done(),
    );
    assert_eq!(healthy(&repo).rows[&RepoPath::root()].entry.mtime, time);
    repo.publish(repo.changes().chmod_dir("", 0o711).done());
    assert_eq!(healthy(&repo).rows[&RepoPath::root()].entry.perm, 0o711);
    repo.publish_nothing(repo.changes().chmod_dir("", 0o711).done());
}

#[test]
fn what_no_catalog_may_hold_is_refused_and_changes_nothing() {
    let repo = software();
    let before = *repo.head().root_hash();
    let refused = |changes: formats::ChangeSet| {
        let error = repo.try_publish(&repo.request(changes)).unwrap_err();
        assert_eq!(*repo.head().root_hash(), before);
        error.to_string()
    };
    let changes = || repo.changes();
    let text = refused(changes().file("/.cvmfscatalog", b"").done());
    assert!(text.contains("/.cvmfscatalog"), "{text}");
    let text = refused(changes().dir("/plain/.cvmfscatalog").done());
    assert!(text.contains("/plain/.cvmfscatalog"), "{text}");
    let text = refused(changes().dir("/.cvmfs").done());
    assert!(text.contains("/.cvmfs"), "{text}");
    let text = refused(changes().file("/.cvmfs/x", b"").done());
    assert!(text.contains("/.cvmfs"), "{text}");
    // a name that only begins alike is no business of CVMFS's
    repo.publish(changes().file("/.cvmfsx", b"").done());
}

#[test]
fn a_dirtab_marks_what_is_touched() {
    let repo = Repo::new();
    let visible = repo.publish(
        repo.changes()
            .file("/.cvmfsdirtab", b"/data/*\n! */skip\n")
            .dir("/data")
            .dir("/data/run1")
            .file("/data/run1/event", b"1")
            .dir("/data/skip")
            .file("/data/skip/event", b"1")
            .file("/data/file", b"no directory")
            .done(),
    );
    assert_eq!(visible.generated, [path("/data/run1/.cvmfscatalog")]);
    assert_eq!(catalogs(&repo), ["/", "/data/run1"]);
    let rows = healthy(&repo);
    assert_eq!(
        rows.rows[&path("/data/run1")].entry.mtime.secs,
        1_700_000_000
    );
    let marker = &rows.rows[&path("/data/run1/.cvmfscatalog")].entry;
    assert_eq!((marker.perm, marker.size()), (0o644, 0));

    let visible = repo.publish(
        repo.changes()
            .dir("/data/run2")
            .file("/data/run2/event", b"2")
            .done(),
    );
    assert_eq!(visible.generated, [path("/data/run2/.cvmfscatalog")]);
}

#[test]
fn a_changed_dirtab_looks_at_the_whole_tree() {
    let repo = software();
    let visible = repo.publish(
        repo.changes()
            .file("/.cvmfsdirtab", b"/*\n/sw/app/*\n")
            .done(),
    );
    assert_eq!(
        visible.generated,
        [
            path("/plain/.cvmfscatalog"),
            path("/sw/app/lib/.cvmfscatalog")
        ]
    );
    assert_eq!(
        catalogs(&repo),
        ["/", "/plain", "/sw", "/sw/app", "/sw/app/lib"]
    );
}

#[test]
fn a_generated_marker_that_is_removed_while_its_rule_matches_is_no_change() {
    let repo = software();
    repo.publish(repo.changes().file("/.cvmfsdirtab", b"/*\n").done());
    // as a nightly rsync --delete does
    repo.publish_nothing(
        repo.changes()
            .implicit("/plain", 1_750_000_000)
            .remove("/plain/.cvmfscatalog")
            .done(),
    );
    repo.publish_nothing(
        repo.changes()
            .dir("/plain")
            .file("/plain/file", b"plain")
            .done(),
    );
    // along with a real change elsewhere the directory keeps its time
    repo.publish(
        repo.changes()
            .implicit("/plain", 1_750_000_000)
            .remove("/plain/.cvmfscatalog")
            .file("/other", b"other")
            .done(),
    );
    let rows = healthy(&repo);
    assert_eq!(rows.rows[&path("/plain")].entry.mtime.secs, 1_700_000_000);
    assert_eq!(catalogs(&repo), ["/", "/plain", "/sw", "/sw/app"]);
    // once the rule is gone the marker goes like any file
    repo.publish(
        repo.changes()
            .file("/.cvmfsdirtab", b"# none\n")
            .remove("/plain/.cvmfscatalog")
            .done(),
    );
    assert_eq!(catalogs(&repo), ["/", "/sw", "/sw/app"]);
}

#[test]
fn a_dirtab_follows_a_moved_tree() {
    let repo = software();
    repo.publish(repo.changes().file("/.cvmfsdirtab", b"/archive/*\n").done());
    repo.publish(
        repo.changes()
            .dir("/archive")
            .moved("/plain", "/archive/plain")
            .done(),
    );
    assert_eq!(catalogs(&repo), ["/", "/archive/plain", "/sw", "/sw/app"]);
}

#[test]
fn a_broken_dirtab_is_refused() {
    let repo = Repo::new();
    let set = repo.changes().file("/.cvmfsdirtab", b"relative/*\n").done();
    let error = repo.try_publish(&repo.request(set)).unwrap_err();
    assert!(error.to_string().contains(".cvmfsdirtab"), "{error}");
}

fn weighty(
    count: usize,
    changes: crate::support::changes::Changes,
    at: &str,
) -> crate::support::changes::Changes {
    (0..count).fold(changes, |changes, i| {
        changes.file(&format!("{at}/f{i:03}"), format!("{at}{i}").as_bytes())
    })
}

const BALANCED: [(&str, &str); 3] = [
    ("CVMFS_AUTOCATALOGS", "true"),
    ("CVMFS_AUTOCATALOGS_MAX_WEIGHT", "40"),
    ("CVMFS_AUTOCATALOGS_MIN_WEIGHT", "5"),
];

#[test]
fn balancing_splits_what_is_heavy_and_merges_what_has_become_light() {
    let repo = Repo::with(&BALANCED);
    let set = weighty(30, repo.changes().dir("/big"), "/big").dir("/small");
    let set = weighty(10, set, "/small");
    repo.publish(set.done());
    assert_eq!(catalogs(&repo), ["/", "/big"]);
    let rows = healthy(&repo);
    let marker = &rows.rows[&path("/big/.cvmfsautocatalog")].entry;
    assert_eq!((marker.perm, marker.size()), (0o600, 0));
    assert_eq!(rows.rows[&path("/big")].role, Role::Mountpoint);

    // removed markers come back as long as the weight is there
    repo.publish_nothing(
        repo.changes()
            .remove("/big/.cvmfscatalog")
            .remove("/big/.cvmfsautocatalog")
            .done(),
    );
    // and go once it is not
    let set = (0..29).fold(repo.changes(), |set, i| {
        set.remove(&format!("/big/f{i:03}"))
    });
    repo.publish(set.done());
    assert_eq!(catalogs(&repo), ["/"]);
    assert!(!names(&healthy(&repo)).contains("/big/.cvmfscatalog"));
}

#[test]
fn hard_links_are_broken_up_and_named() {
    let repo = Repo::new();
    let visible = repo.publish(
        repo.changes()
            .dir("/d")
            .linked("/d/a", b"one", 7)
            .linked("/d/b", b"one", 7)
            .linked("/d/single", b"two", 8)
            .done(),
    );
    assert_eq!(visible.broken_links, [vec![path("/d/a"), path("/d/b")]]);
    for row in healthy(&repo)
        .rows
        .values()
        .filter(|row| !row.entry.is_dir())
    {
        assert_eq!((row.linkcount, row.link_group), (1, 0));
    }
}

#[test]
fn hard_links_within_a_directory_stay_groups_where_configured() {
    let repo = Repo::with(&[("PREPUB_HARDLINKS", "groups")]);
    let set = |repo: &Repo| {
        repo.changes()
            .dir("/d")
            .linked("/d/a", b"one", 7)
            .linked("/d/b", b"one", 7)
            .linked("/d/c", b"one", 7)
            .linked("/d/x", b"two", 8)
            .linked("/d/y", b"two", 8)
            .dir("/e")
            .linked("/e/far", b"one", 7)
            .done()
    };
    repo.publish(set(&repo));
    let group = |at: &str| {
        let row = healthy(&repo).rows[&path(at)].clone();
        (row.link_group, row.linkcount)
    };
    let (first, links) = group("/d/a");
    assert_eq!((first != 0, links), (true, 3));
    assert_eq!((group("/d/b"), group("/d/c")), ((first, 3), (first, 3)));
    assert_eq!(group("/d/x").1, 2);
    assert_ne!(group("/d/x").0, first);
    assert_eq!(group("/e/far"), (0, 1));
    // linked again alike: no change
    repo.publish_nothing(set(&repo));
    // a member goes, another becomes a file of its own
    repo.publish(repo.changes().remove("/d/a").done());
    assert_eq!(group("/d/b"), (first, 2));
    repo.publish(repo.changes().file("/d/b", b"own").done());
    assert_eq!((group("/d/b"), group("/d/c")), ((0, 1), (0, 1)));
    // groups survive a split, a merge and a move
    repo.publish(repo.changes().file("/d/.cvmfscatalog", b"").done());
    assert_eq!(group("/d/x").1, 2);
    repo.publish(repo.changes().remove("/d/.cvmfscatalog").done());
    assert_eq!(group("/d/x").1, 2);
    repo.publish(repo.changes().moved("/d", "/moved").done());
    assert_eq!(group("/moved/x").1, 2);
}

#[test]
fn extended_attributes_that_do_not_fit_are_named() {
    let repo = Repo::new();
    let mut with = dir();
    for (name, len) in [
        ("security.selinux", 3),
        ("user.long", 256),
        ("user.ok", 255),
    ] {
        with.xattrs
            .insert(name.as_bytes().to_vec(), vec![b'x'; len]);
    }
    let visible = repo.publish(repo.changes().put("/d", with, Children::None).done());
    let dropped: Vec<_> = visible.dropped_xattrs.iter().map(|d| d.why).collect();
    assert_eq!(dropped, [DropReason::HostPolicy, DropReason::TooLong]);
    let row = &healthy(&repo).rows[&path("/d")];
    assert_eq!(row.entry.xattrs.len(), 1);
}

#[test]
fn limits_warn_or_refuse() {
    let over = |settings: &[(&str, &str)]| {
        let repo = Repo::with(settings);
        let kind = |file: formats::Regular| {
            let size = 2 << 20;
            Kind::Regular(formats::Regular { size, ..file })
        };
        // sizes are believed: nobody reads two mebibytes here
        let content = crate::support::changes::seal(
            repo.staged.as_ref(),
            &repo.params(),
            b"pretends to be large",
        );
        let set = repo
            .changes()
            .put("/large", entry(kind(content)), Children::None);
        let request = repo.request(weighty(1100, set, "").done());
        repo.try_publish(&request)
    };
    let limits = [
        ("CVMFS_FILE_MBYTE_LIMIT", "1"),
        ("CVMFS_ROOT_KCATALOG_LIMIT", "1"),
        ("CVMFS_ENFORCE_LIMITS", "true"),
    ];
    let Ok(commit::Outcome::Visible(visible)) = over(&limits[..2]) else {
        panic!("limits that are not enforced must not stop a commit");
    };
    assert_eq!(visible.warnings.len(), 2);
    match over(&limits).unwrap_err() {
        CommitError::Limits { exceeded, .. } => assert!(!exceeded.is_empty()),
        error => panic!("{error}"),
    }
}

#[test]
fn special_files_are_kept_or_skipped() {
    let fifo = || entry(Kind::Fifo);
    let repo = Repo::new();
    repo.publish(repo.changes().put("/fifo", fifo(), Children::None).done());
    assert!(names(&healthy(&repo)).contains("/fifo"));
    let repo = Repo::with(&[("CVMFS_IGNORE_SPECIAL_FILES", "true")]);
    let visible = repo.publish(
        repo.changes()
            .put("/fifo", fifo(), Children::None)
            .file("/file", b"")
            .done(),
    );
    assert_eq!(visible.special_skipped, [path("/fifo")]);
    assert!(!names(&healthy(&repo)).contains("/fifo"));
}

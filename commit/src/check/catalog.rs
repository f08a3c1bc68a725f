//! Rules 8 to 20: each catalog, from the root down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formats::catalog::{Catalog, Role, Row};
use formats::{Content, Counts, Hash, Kind, Name, NestedRef, ObjectKind, ObjectName, RepoPath};
use store::repository::CatalogFile;

use super::{Report, Subject, Watch, chain, entry, place};

const MARKER: &[u8] = b".cvmfscatalog";

/// A walk over all catalogs of a revision.
pub(super) struct Walk<'a> {
    pub subject: &'a Subject<'a>,
    pub report: &'a mut Report,
    pub watch: &'a dyn Watch,
}

/// A catalog still to be inspected.
struct Next {
    reference: NestedRef,
    /// The parent's row of the directory where it begins; none for the root catalog.
    mountpoint: Option<Row>,
    /// The catalog that refers to it.
    parent: RepoPath,
}

/// What rule 17 needs of a catalog once all below it are known.
struct Counted {
    parent: Option<RepoPath>,
    own: Counts,
    recorded_subtree: Counts,
}

impl Walk<'_> {
    /// Inspects the tree of catalogs below a root catalog.
    pub fn tree(&mut self, root: &Hash, bytes: u64) {
        let reference = NestedRef {
            path: RepoPath::root(),
            hash: *root,
            size: bytes,
        };
        let mut pending = vec![Next {
            reference,
            mountpoint: None,
            parent: RepoPath::root(),
        }];
        let mut counted = BTreeMap::new();
        while let Some(next) = pending.pop() {
            let path = next.reference.path.clone();
            if counted.contains_key(&path) {
                self.report
                    .find(14, place(&path), "is referred to by two catalogs");
                continue;
            }
            self.watch
                .checked(self.report.catalogs, self.report.rows, self.report.objects);
            let parent = next.mountpoint.is_some().then(|| next.parent.clone());
            if let Some((own, recorded_subtree, below)) = self.catalog(&next) {
                counted.insert(
                    path,
                    Counted {
                        parent,
                        own,
                        recorded_subtree,
                    },
                );
                pending.extend(below);
            }
        }
        self.subtree_counters(&counted);
    }

    /// One catalog; its counters and the catalogs below it, unless it cannot be read.
    fn catalog(&mut self, next: &Next) -> Option<(Counts, Counts, Vec<Next>)> {
        let NestedRef { path, hash, size } = &next.reference;
        let name = ObjectName::new(*hash, ObjectKind::Catalog);
        let subject = format!("catalog {name} of {}", place(path));
        let file = match self.subject.repository.catalog(hash, Some(*size)) {
            Ok(file) => file,
            Err(error) => {
                // rule 9, the length, is among what the repository verifies
                self.report.find(8, subject, chain(&error));
                return None;
            }
        };
        self.report.catalogs += 1;
        if file.root_prefix() != path {
            let problem = format!("says that it begins at {}", place(file.root_prefix()));
            self.report.find(10, &subject, problem);
            return None;
        }
        let outcome = file.with(|catalog| {
            let mut inspection = Inspection {
                walk: self,
                catalog,
                root: path,
                subject: &subject,
                reached: 0,
                mountpoints: BTreeMap::new(),
            };
            inspection.run(next, &file)
        });
        match outcome {
            Ok(found) => found,
            Err(error) => {
                self.report.find(8, subject, chain(&error));
                None
            }
        }
    }

    /// Rule 17 for the sums over what lies below.
    fn subtree_counters(&mut self, counted: &BTreeMap<RepoPath, Counted>) {
        let mut sums: BTreeMap<&RepoPath, Counts> = BTreeMap::new();
        // paths sort before what is below them, so children come first in reverse
        for (path, catalog) in counted.iter().rev() {
            let below = sums.get(path).copied().unwrap_or_default();
            for ((name, actual), (_, recorded)) in
                below.by_name().zip(catalog.recorded_subtree.by_name())
            {
                if actual != recorded {
                    let problem = format!("counter subtree_{name} is {recorded}, counted {actual}");
                    self.report
                        .find(17, format!("catalog of {}", place(path)), problem);
                }
            }
            if let Some(parent) = &catalog.parent {
                let sum = sums.entry(parent).or_default();
                *sum += catalog.own;
                *sum += below;
            }
        }
    }
}

/// One catalog while it is inspected.
struct Inspection<'a, 'w> {
    walk: &'a mut Walk<'w>,
    catalog: &'a Catalog,
    root: &'a RepoPath,
    subject: &'a str,
    /// Rows that a walk from the root row came to.
    reached: u64,
    /// Rows of directories that go on in another catalog, by path.
    mountpoints: BTreeMap<RepoPath, Row>,
}

type Found = Option<(Counts, Counts, Vec<Next>)>;
type Result<T> = std::result::Result<T, formats::catalog::CatalogError>;

impl Inspection<'_, '_> {
    fn report(&mut self) -> &mut Report {
        self.walk.report
    }

    fn run(&mut self, next: &Next, file: &Arc<CatalogFile>) -> Result<Found> {
        let Some(root_row) = self.catalog.lookup_path(self.root)? else {
            let subject = self.subject.to_owned();
            self.report()
                .find(11, subject, "has no row for its own root");
            return Ok(None);
        };
        self.root_row(&root_row, next.mountpoint.as_ref());
        let objects = entry::rows(self.catalog, self.subject, self.walk.report)?;
        self.existence(&objects);
        self.traverse(root_row)?;
        self.row_count()?;
        let below = self.nested(file)?;
        let (own, subtree) = self.own_counters()?;
        self.walk.report.rows += self.reached;
        Ok(Some((own, subtree, below)))
    }

    /// Rules 11 and 12.
    fn root_row(&mut self, row: &Row, mountpoint: Option<&Row>) {
        let subject = self.subject.to_owned();
        if !row.entry.is_dir() {
            self.report()
                .find(11, &subject, "its root row is no directory");
        }
        match mountpoint {
            None if row.role == Role::Root => {
                self.report()
                    .find(12, &subject, "the root catalog is flagged as a nested one");
            }
            None => {}
            Some(parent) => {
                if row.role != Role::Root {
                    self.report()
                        .find(12, &subject, "its root row lacks the nested root flag");
                }
                let same = Row {
                    role: Role::Mountpoint,
                    hidden: parent.hidden,
                    ..row.clone()
                };
                if same != *parent {
                    let problem =
                        format!("its root row differs from its parent's: {row:?}, {parent:?}");
                    self.report().find(12, &subject, problem);
                }
            }
        }
    }

    /// Rules 22 and 31: the objects are there.
    fn existence(&mut self, objects: &BTreeSet<ObjectName>) {
        for name in objects {
            self.walk.report.objects += 1;
            let rule = if name.kind == ObjectKind::Chunk {
                31
            } else {
                22
            };
            let subject = format!("{name} in {}", self.subject);
            match self.walk.subject.store().has(name) {
                Ok(true) => {}
                Ok(false) => self.report().find(rule, subject, "is missing"),
                Err(error) => self.report().find(rule, subject, chain(&error)),
            }
        }
    }

    /// Rules 18 to 20, 24, 26, 27: the tree that the rows make.
    fn traverse(&mut self, root_row: Row) -> Result<()> {
        self.reached = 1;
        let mut pending = vec![(self.root.clone(), root_row)];
        while let Some((path, row)) = pending.pop() {
            let children = self.catalog.list(&path)?;
            self.reached += children.len() as u64;
            let is_catalog_root = path == *self.root;
            let marker = children.iter().any(|child| child.name == MARKER);
            if marker && (!is_catalog_root || path.is_root()) {
                self.report().find(
                    19,
                    place(&path),
                    "has a .cvmfscatalog but is no nested catalog",
                );
            }
            if is_catalog_root && !path.is_root() && !marker && !path_is_virtual(&path) {
                self.report().find(
                    20,
                    place(&path),
                    "is a nested catalog without .cvmfscatalog",
                );
            }
            self.link_groups(&path, &children);
            let subdirectories = children.iter().filter(|c| c.entry.is_dir()).count() as u64;
            if u64::from(row.linkcount) != subdirectories + 2 {
                let problem = format!(
                    "has link count {}, and {subdirectories} subdirectories",
                    row.linkcount
                );
                self.report().find(26, place(&path), problem);
            }
            for child in children {
                // list() has proven that it is a name
                let Ok(name) = Name::new(&child.name) else {
                    continue;
                };
                let child_path = path.join(&name);
                match child.role {
                    Role::Mountpoint | Role::Bind => self.transition(child_path, child)?,
                    Role::Root => {
                        let problem = "is flagged as a nested root inside another catalog";
                        self.report().find(12, place(&child_path), problem);
                    }
                    Role::Plain if child.entry.is_dir() => pending.push((child_path, child)),
                    Role::Plain => {}
                }
            }
        }
        Ok(())
    }

    /// Rule 27: nothing of a directory that goes on elsewhere is here.
    fn transition(&mut self, path: RepoPath, row: Row) -> Result<()> {
        let children = self.catalog.children(&path.path_hash())?;
        if !children.is_empty() {
            let problem = format!(
                "goes on in another catalog, yet has {} rows here",
                children.len()
            );
            self.report().find(27, place(&path), problem);
        }
        self.mountpoints.insert(path, row);
        Ok(())
    }

    /// Rule 24: members of a group in one directory are alike, and as many as they say.
    fn link_groups(&mut self, directory: &RepoPath, children: &[Row]) {
        let mut groups: BTreeMap<u32, Vec<&Row>> = BTreeMap::new();
        for child in children
            .iter()
            .filter(|c| c.link_group != 0 && !c.entry.is_dir())
        {
            groups.entry(child.link_group).or_default().push(child);
        }
        for (group, members) in groups {
            let first = members[0];
            let alike = members
                .iter()
                .all(|m| m.entry == first.entry && m.linkcount == first.linkcount);
            if !alike {
                let problem = format!("link group {group}: its members differ");
                self.report().find(24, place(directory), problem);
            } else if members.len() as u64 != u64::from(first.linkcount) {
                let (n, count) = (members.len(), first.linkcount);
                let problem = format!("link group {group}: {n} members, link count {count}");
                self.report().find(24, place(directory), problem);
            }
        }
    }

    /// Rule 13: no row that nothing leads to.
    fn row_count(&mut self) -> Result<()> {
        let rows = self.catalog.row_count()?;
        if rows != self.reached {
            let (subject, reached) = (self.subject.to_owned(), self.reached);
            self.report().find(
                13,
                subject,
                format!("{rows} rows, but a walk reaches {reached}"),
            );
        }
        Ok(())
    }

    /// Rules 14 to 16: references and rows go together.
    fn nested(&mut self, file: &Arc<CatalogFile>) -> Result<Vec<Next>> {
        let subject = self.subject.to_owned();
        let mountpoints = std::mem::take(&mut self.mountpoints);
        let nested: BTreeSet<&RepoPath> = file.nested().iter().map(|r| &r.path).collect();
        for bound in file.bound() {
            if nested.contains(&bound.path) {
                self.report()
                    .find(15, place(&bound.path), "is both nested and bound in");
            }
            if mountpoints
                .get(&bound.path)
                .is_none_or(|row| row.role != Role::Bind)
            {
                self.report()
                    .find(16, place(&bound.path), "is bound in but has no such row");
            }
        }
        let flagged = mountpoints
            .values()
            .filter(|row| row.role == Role::Mountpoint)
            .count();
        if flagged != nested.len() {
            let problem = format!(
                "{} nested catalogs, {flagged} mountpoint rows",
                nested.len()
            );
            self.report().find(14, &subject, problem);
        }
        let mut below = Vec::new();
        for reference in file.nested() {
            match mountpoints.get(&reference.path) {
                Some(row) if row.role == Role::Mountpoint => below.push(Next {
                    reference: reference.clone(),
                    mountpoint: Some(row.clone()),
                    parent: self.root.clone(),
                }),
                _ => {
                    let problem = "is a nested catalog but has no mountpoint row";
                    self.report().find(16, place(&reference.path), problem);
                }
            }
        }
        Ok(below)
    }

    /// Rule 17 for what is in this catalog.
    fn own_counters(&mut self) -> Result<(Counts, Counts)> {
        let recorded = self.catalog.counters()?;
        let own = self.catalog.recount_self()?;
        let subject = self.subject.to_owned();
        for ((name, actual), (_, recorded)) in own.by_name().zip(recorded.self_.by_name()) {
            if actual != recorded {
                let problem = format!("counter self_{name} is {recorded}, counted {actual}");
                self.report().find(17, &subject, problem);
            }
        }
        Ok((own, recorded.subtree))
    }
}

/// `/.cvmfs` and below are generated, their marker included; an older layout has none.
fn path_is_virtual(path: &RepoPath) -> bool {
    path.as_bytes().starts_with(b"/.cvmfs/")
}

/// What rules 22 and 31 look for.
pub(super) fn objects_of(row: &Row) -> impl Iterator<Item = ObjectName> + '_ {
    let file = match &row.entry.kind {
        Kind::Regular(file) if !file.external => Some(file),
        _ => None,
    };
    let known = |name: &ObjectName| !name.hash.is_null();
    file.into_iter()
        .flat_map(|file| Content::objects(&file.content))
        .filter(known)
}

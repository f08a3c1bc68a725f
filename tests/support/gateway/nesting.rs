//! Catalogs that come, go, and are exchanged whole.

use formats::catalog::{Role, Row};
use formats::{Counters, Hash, Kind, RepoPath};

use super::halt::Halt;
use super::node::Node;
use super::output::Output;
use super::reading;

type Result<T, E = Halt> = std::result::Result<T, E>;

impl Output {
    /// Makes a directory the beginning of a new catalog, which takes what is below it.
    pub fn create_nested(&mut self, path: &RepoPath) -> Result<()> {
        let missing = || {
            let what = "mountpoint was not found in current catalog structure";
            Halt::panic(format!("failed to create nested catalog '{path}': {what}"))
        };
        let (old, dir) = self.host(path)?.ok_or_else(missing)?;
        if dir.role == Role::Root || !dir.entry.is_dir() {
            return Err(Halt::Crash);
        }
        let root = Row {
            role: Role::Root,
            ..dir.clone()
        };
        let mut new = Node::create(&self.new_file(), &old, path, &root)?;
        let mut moved = Vec::new();
        rows_below(self.node(&old), path, &mut moved)?;
        let node = self.node(&old);
        node.update(&Row {
            role: Role::Mountpoint,
            ..dir
        })?;
        node.delta.subtree.dir += 1;
        for (path, row) in &moved {
            new.add(row)?;
            node.remove(path)?;
        }
        let taken: Vec<RepoPath> = node
            .nested
            .keys()
            .filter(|at| at.is_within(path))
            .cloned()
            .collect();
        for at in &taken {
            let (hash, bytes) = node.unrefer(at)?;
            new.refer(at, hash, bytes);
        }
        node.refer(path, Hash::null(), 0);
        self.nodes.insert(path.clone(), new);
        for at in &taken {
            if let Some(open) = self.nodes.get_mut(at) {
                open.parent = path.clone();
            }
            // what the catalogs below it say of themselves, before their own changes
            let (grand, _) = self.host(at)?.ok_or(Halt::Crash)?;
            let total = self.node(&grand).before.total();
            self.node(path).before.subtree += total;
        }
        Ok(())
    }

    /// Ends a catalog. With `merge` what it holds becomes part of the one above, else it is gone
    /// with all that is nested in it.
    pub fn remove_nested(&mut self, path: &RepoPath, merge: bool) -> Result<()> {
        let missing = || {
            let what = "mountpoint was not found in current catalog structure";
            Halt::panic(format!("failed to remove nested catalog '{path}': {what}"))
        };
        let (at, _) = self.host(path)?.ok_or_else(missing)?;
        if at != *path || path.is_root() {
            return Err(Halt::Crash);
        }
        if merge {
            return self.merge_into_parent(path);
        }
        let node = self.node(path);
        let (parent, total) = (node.parent.clone(), node.before.total());
        let parent = self.node(&parent);
        parent.unrefer(path)?;
        parent.delta.subtree -= total;
        self.close(path);
        Ok(())
    }

    fn merge_into_parent(&mut self, path: &RepoPath) -> Result<()> {
        let mut node = self.nodes.remove(path).ok_or(Halt::Crash)?;
        let parent_path = node.parent.clone();
        node.remove(path)?;
        let parent = self.node(&parent_path);
        let groups = parent.writer.max_link_group()?;
        let put = &mut |mut row: Row| {
            if row.link_group > 0 {
                row.link_group += groups;
                if let Kind::Regular(file) = &mut row.entry.kind {
                    file.link_group = row.link_group.into();
                }
            }
            parent.writer.put(&row)
        };
        node.writer.for_each_row(put)?;
        if let Some(dir) = parent.writer.lookup_path(path)? {
            parent.update(&Row {
                role: Role::Plain,
                ..dir
            })?;
        }
        for (at, (hash, bytes)) in &node.nested {
            parent.nested.insert(at.clone(), (*hash, *bytes));
        }
        parent.delta.subtree += node.delta.total();
        let own = node.counters().self_;
        parent.delta.self_ += own;
        parent.delta.subtree -= own;
        parent.unrefer(path)?;
        for open in self.nodes.values_mut().filter(|open| open.parent == *path) {
            open.parent = parent_path.clone();
        }
        Ok(())
    }

    /// Puts a publisher's catalog in place of one, as it is: nothing in it is looked at but its
    /// first row and its counters.
    pub fn swap_nested(&mut self, path: &RepoPath, hash: Hash, bytes: u64) -> Result<()> {
        let failed =
            |why: &str| Halt::panic(format!("failed to swap nested catalog '{path}': {why}"));
        let dir = path.parent().ok_or(Halt::Crash)?;
        let (at, _) = self
            .host(&dir)?
            .ok_or_else(|| failed("could not find parent"))?;
        let old = if let Some(open) = self.nodes.get(path) {
            if self.is_dirty(path) {
                return Err(failed("already modified"));
            }
            open.before
        } else {
            let reference = self.node(&at).nested.get(path).map(|(hash, _)| *hash);
            let old = reference.ok_or_else(|| failed("not found in parent"))?;
            counters_of(self, &old)?
        };
        self.close(path);
        let new = counters_of(self, &hash)?;
        let catalog = reading::load(self.repository(), &hash)?;
        let root = catalog
            .with(|catalog| catalog.lookup_path(path))
            .map_err(|_| Halt::Crash)?;
        let root = root.ok_or_else(|| failed("missing dirent in new catalog"))?;
        let mountpoint = Row {
            role: Role::Mountpoint,
            ..root
        };
        let node = self.node(&at);
        node.unrefer(path)?;
        node.refer(path, hash, bytes);
        node.update(&mountpoint)?;
        node.touch(path, &mountpoint)?;
        node.delta.subtree += new.total();
        node.delta.subtree -= old.total();
        Ok(())
    }
}

fn counters_of(output: &Output, hash: &Hash) -> Result<Counters> {
    let catalog = reading::load(output.repository(), hash)?;
    let counters = catalog.with(|catalog| catalog.counters());
    counters.map_err(|_| Halt::Crash)
}

/// Every row below a directory, down to where nested catalogs begin.
fn rows_below(node: &Node, dir: &RepoPath, rows: &mut Vec<(RepoPath, Row)>) -> Result<()> {
    for row in node.writer.list(dir)? {
        let name = formats::Name::new(&row.name).map_err(|_| Halt::Crash)?;
        let path = dir.join(&name);
        let goes_on = row.entry.is_dir() && row.role != Role::Mountpoint;
        rows.push((path.clone(), row));
        if goes_on {
            rows_below(node, &path, rows)?;
        }
    }
    Ok(())
}

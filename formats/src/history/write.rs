//! Changing a tag database: a fresh one, or a private copy of a published one.

use std::ops::Deref;
use std::path::Path;

use rusqlite::params;

use crate::hash::Hash;
use crate::history::{
    Branch, Head, History, HistoryError, REVISION, Result, SCHEMAS, TRUNK, TRUNK_PREVIOUS, Tag,
    is_auto_tag,
};
use crate::sqlite::{self, Database};

const PROPERTIES: &str =
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));";
const BRANCHES: &str = "\
CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER, \
\x20CONSTRAINT pk_branch PRIMARY KEY (branch), \
\x20 FOREIGN KEY (parent) REFERENCES branches (branch), \
\x20 CHECK ((branch <> '') OR (parent IS NULL)), \
\x20 CHECK ((branch = '') OR (parent IS NOT NULL)));
INSERT INTO branches (branch, parent, initial_revision) VALUES ('', NULL, 0);";
const TAGS: &str = "\
CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, \
\x20 timestamp INTEGER, channel INTEGER, description TEXT, size INTEGER, \
\x20 branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name), \
\x20 FOREIGN KEY (branch) REFERENCES branches (branch));";
const RECYCLE_BIN: &str = "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, \
\x20 CONSTRAINT pk_hash PRIMARY KEY (hash))";

/// A tag database that is being changed. It reads like a [`History`], and sees the changes.
#[derive(Debug)]
pub struct HistoryWriter {
    history: History,
}

impl Deref for HistoryWriter {
    type Target = History;

    fn deref(&self) -> &History {
        &self.history
    }
}

impl HistoryWriter {
    /// Begins an empty one in a file that does not exist yet.
    ///
    /// # Errors
    /// [`HistoryError`] when the file exists or cannot be written.
    pub fn create(file: &Path, fqrn: &str) -> Result<Self> {
        const DOING: &str = "create the tables";
        let db = Database::create(file)?;
        for sql in [PROPERTIES, BRANCHES, TAGS, RECYCLE_BIN] {
            db.batch(DOING, sql)?;
        }
        db.set_property("schema", b"1.0")?;
        db.set_property("schema_revision", REVISION.to_string().as_bytes())?;
        db.set_property("fqrn", fqrn.as_bytes())?;
        Ok(Self {
            history: History::new(db)?,
        })
    }

    /// Goes on with a private copy of a published one, and brings its schema up to date.
    ///
    /// # Errors
    /// [`HistoryError`] when the file is not one of a known schema.
    pub fn open_update(file: &Path) -> Result<Self> {
        let db = Database::open_update(file)?;
        upgrade(&db)?;
        Ok(Self {
            history: History::new(db)?,
        })
    }

    /// Inserts a tag. Its name is not judged here; see
    /// [`check_tag_name`](crate::history::check_tag_name).
    ///
    /// # Errors
    /// [`HistoryError::Exists`], [`HistoryError::MissingBranch`].
    pub fn insert(&mut self, tag: &Tag) -> Result<()> {
        const SQL: &str = "INSERT INTO tags \
             (name, hash, revision, timestamp, channel, description, size, branch) \
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7)";
        if self.tag(&tag.name)?.is_some() {
            return Err(HistoryError::Exists(tag.name.clone()));
        }
        if !self.branches()?.iter().any(|b| b.name == tag.branch) {
            return Err(HistoryError::MissingBranch(tag.branch.clone()));
        }
        let values = params![
            tag.name,
            tag.hash.to_string(),
            tag.revision.cast_signed(),
            tag.timestamp,
            tag.description,
            tag.size.cast_signed(),
            tag.branch,
        ];
        self.db.execute("insert a tag", SQL, values)?;
        Ok(())
    }

    /// Puts a tag in place of the one of its name. Unlike removing and inserting, that leaves a
    /// branch alone whose only tag it is.
    ///
    /// # Errors
    /// [`HistoryError::Missing`], [`HistoryError::MissingBranch`].
    pub fn replace(&mut self, tag: &Tag) -> Result<()> {
        if !self.delete(&tag.name)? {
            return Err(HistoryError::Missing(tag.name.clone()));
        }
        self.insert(tag)?;
        self.prune_branches()
    }

    /// Removes a tag; false if there is none. A branch that lost its last tag goes with it.
    ///
    /// # Errors
    /// [`HistoryError`] when it cannot be written.
    pub fn remove(&mut self, name: &str) -> Result<bool> {
        let removed = self.delete(name)?;
        if removed {
            self.prune_branches()?;
        }
        Ok(removed)
    }

    fn delete(&mut self, name: &str) -> Result<bool> {
        const SQL: &str = "DELETE FROM tags WHERE name = ?1";
        Ok(self.db.execute("remove a tag", SQL, [name])? > 0)
    }

    /// Makes `head` the newest revision: `trunk`, and what was `trunk` is `trunk-previous`.
    ///
    /// # Errors
    /// [`HistoryError`] when it cannot be written.
    pub fn set_trunk(&mut self, head: &Head) -> Result<()> {
        self.update_undo_tags(head, true)
    }

    fn update_undo_tags(&mut self, head: &Head, keep_previous: bool) -> Result<()> {
        self.delete(TRUNK_PREVIOUS)?;
        if let Some(mut before) = self.tag(TRUNK)? {
            self.delete(TRUNK)?;
            if keep_previous {
                before.name = TRUNK_PREVIOUS.to_owned();
                before.description = "default undo target".to_owned();
                self.insert(&before)?;
            }
        }
        self.insert(&Tag {
            name: TRUNK.to_owned(),
            hash: head.hash,
            size: head.size,
            revision: head.revision,
            timestamp: head.timestamp,
            description: "current HEAD".to_owned(),
            branch: String::new(),
        })
    }

    /// Rolls back: the target tag names `head`, the republished catalog; tags of the default branch
    /// that came after it are gone, and `trunk` is `head`. Back to `trunk-previous` there is no
    /// `trunk-previous` afterwards, so that an undo is not undone by another.
    ///
    /// # Errors
    /// As [`rolled_back`](Self::rolled_back).
    pub fn rollback(&mut self, target: &str, head: &Head) -> Result<Vec<Tag>> {
        let removed = self.rolled_back(target)?;
        let mut moved = removed
            .iter()
            .find(|tag| tag.name == target)
            .cloned()
            .ok_or_else(|| HistoryError::Missing(target.to_owned()))?;
        for tag in &removed {
            self.delete(&tag.name)?;
        }
        moved.hash = head.hash;
        moved.size = head.size;
        moved.revision = head.revision;
        moved.timestamp = head.timestamp;
        self.insert(&moved)?;
        self.update_undo_tags(head, target != TRUNK_PREVIOUS)?;
        Ok(removed)
    }

    /// Removes automatic tags of revisions committed before a time; their names.
    ///
    /// # Errors
    /// [`HistoryError`] when it cannot be written.
    pub fn remove_auto_tags(&mut self, before: i64) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for tag in self.tags()? {
            if tag.timestamp < before && is_auto_tag(&tag.name) {
                self.remove(&tag.name)?;
                removed.push(tag.name);
            }
        }
        Ok(removed)
    }

    /// Records which tag database this one replaces; [`Hash::null`] for none.
    ///
    /// # Errors
    /// [`HistoryError`] when it cannot be written.
    pub fn set_previous_revision(&mut self, previous: &Hash) -> Result<()> {
        Ok(self
            .db
            .set_property("previous_revision", previous.to_string().as_bytes())?)
    }

    /// Commits, drops free pages and closes; the file's length in bytes.
    ///
    /// # Errors
    /// [`HistoryError`] when it cannot be written.
    pub fn finish(self) -> Result<u64> {
        let db = self.history.db;
        db.commit()?;
        let file = db.file().to_path_buf();
        if db.integer("measure", "PRAGMA freelist_count", [])? > 0 {
            db.quick_check()?;
            db.compact()?;
        } else {
            db.close()?;
        }
        Ok(sqlite::file_bytes(&file)?)
    }

    /// Removes branches without tags. What began on one of them began on its parent.
    fn prune_branches(&mut self) -> Result<()> {
        let mut branches = self.branches()?;
        let tags = self.tags()?;
        let abandoned = |b: &Branch| !b.name.is_empty() && !tags.iter().any(|t| t.branch == b.name);
        while let Some(at) = branches.iter().position(abandoned) {
            let gone = branches.remove(at);
            const REPARENT: &str = "UPDATE branches SET parent = ?2 WHERE parent = ?1";
            const DELETE: &str = "DELETE FROM branches WHERE branch = ?1";
            let parent = gone.parent.unwrap_or_default();
            self.db
                .execute("remove a branch", REPARENT, [&gone.name, &parent])?;
            self.db.execute("remove a branch", DELETE, [&gone.name])?;
            for branch in &mut branches {
                if branch.parent.as_deref() == Some(&gone.name) {
                    branch.parent = Some(parent.clone());
                }
            }
        }
        Ok(())
    }
}

/// Brings schema 1.0 to [`REVISION`].
fn upgrade(db: &Database) -> Result<()> {
    const DOING: &str = "upgrade the schema";
    db.require("properties", &["key", "value"])?;
    db.require("tags", &["name"])?;
    if db.schema_revision(&SCHEMAS)? >= REVISION {
        return Ok(());
    }
    if !db.has_column("tags", "size")? {
        db.batch(DOING, "ALTER TABLE tags ADD size INTEGER;")?;
    }
    if db.has_table("recycle_bin")? {
        db.batch(DOING, "DELETE FROM recycle_bin;")?;
    } else {
        db.batch(DOING, RECYCLE_BIN)?;
    }
    if !db.has_table("branches")? {
        db.batch(DOING, BRANCHES)?;
    }
    if !db.has_column("tags", "branch")? {
        db.batch(
            DOING,
            "ALTER TABLE tags ADD branch TEXT REFERENCES branches (branch);",
        )?;
        db.batch(DOING, "UPDATE tags SET branch = '';")?;
    }
    db.set_property("schema_revision", REVISION.to_string().as_bytes())?;
    Ok(())
}

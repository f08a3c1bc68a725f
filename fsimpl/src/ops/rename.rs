//! Moving names: within the tree nothing but names and, for a published directory, a reference.

use formats::Name;

use super::{changeable, known_child, require_changeable};
use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::tree::{Tree, Txn};
use crate::types::{Ino, RenameMode};

/// A name in a directory.
type Place<'a> = (Ino, &'a Name);

impl Stage {
    pub(crate) fn rename(
        &self,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        let name = changeable(parent, name)?;
        let new_name = changeable(new_parent, new_name)?;
        self.warm(parent, &name)?;
        self.warm(new_parent, &new_name)?;
        let replaced = {
            let mut tree = self.tree.write();
            known_child(&mut tree, new_parent, &new_name)?
        };
        if let Some(ino) = replaced {
            self.warm_listing(ino)?;
        }
        let (from, to) = ((parent, &name), (new_parent, &new_name));
        let touched = self.add(|txn| match mode {
            RenameMode::Exchange => txn.exchange(from, to),
            RenameMode::Replace => txn.replace(from, to, true),
            RenameMode::NoReplace => txn.replace(from, to, false),
        })?;
        if let Some(ino) = touched.or(replaced) {
            self.closed_if_unknown(ino);
        }
        Ok(())
    }
}

impl Txn<'_> {
    /// Moves `from` to `to`; the inode that lost its name there.
    fn replace(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        may_replace: bool,
    ) -> Result<Option<Ino>> {
        let ino = self.movable(from, to)?;
        let target = known_child(self.tree, to.0, to.1)?;
        if let Some(target) = target {
            if !may_replace {
                return Err(FsError::Exists);
            }
            if target == ino {
                // two names of one file: POSIX wants nothing done
                return Ok(None);
            }
            self.tree.require_replaceable(ino, target)?;
            require_changeable(self.tree, target)?;
        }
        let is_dir = self.tree.is_dir(ino)?;
        self.stage(from.0)?;
        self.stage(to.0)?;
        self.stage(ino)?;
        self.tree.require_outside(ino, to.0)?;
        if let Some(target) = target {
            self.remove(to.0, to.1, target)?;
        }
        self.move_name(ino, from, to)?;
        if is_dir {
            self.count_subdir(from.0, -1)?;
            if target.is_none() {
                self.count_subdir(to.0, 1)?;
            }
        }
        self.touch_dir(from.0)?;
        if from.0 != to.0 {
            self.touch_dir(to.0)?;
        }
        Ok(target)
    }

    /// Lets two names change places.
    fn exchange(&mut self, one: Place<'_>, other: Place<'_>) -> Result<Option<Ino>> {
        let first = self.movable(one, other)?;
        let second = known_child(self.tree, other.0, other.1)?.ok_or(FsError::NotFound)?;
        require_changeable(self.tree, second)?;
        if first == second {
            return Ok(None);
        }
        for ino in [one.0, other.0, first, second] {
            self.stage(ino)?;
        }
        self.tree.require_outside(first, other.0)?;
        self.tree.require_outside(second, one.0)?;
        for (ino, place) in [(first, one), (second, other)] {
            if self.tree.is_dir(ino)? {
                self.pin_origin(ino)?;
            }
            self.vacate(place.0, place.1)?;
        }
        let now = self.now;
        for (ino, place, left) in [(first, other, one), (second, one, other)] {
            self.occupy(place.0, place.1, ino)?;
            self.record(ino)?.ctime = now;
            if self.tree.is_dir(ino)? {
                self.settle_origin(ino)?;
                self.count_subdir(left.0, -1)?;
                self.count_subdir(place.0, 1)?;
            }
        }
        self.touch_dir(one.0)?;
        self.touch_dir(other.0)?;
        Ok(None)
    }

    /// The inode that is to move, if it may go there.
    fn movable(&mut self, from: Place<'_>, to: Place<'_>) -> Result<Ino> {
        let ino = self.removable(from.0, from.1)?;
        self.tree.require_dir(to.0)?;
        if self.tree.is_gone(to.0) {
            return Err(FsError::NotFound);
        }
        require_changeable(self.tree, to.0)?;
        self.tree.require_outside(ino, to.0)?;
        Ok(ino)
    }

    fn move_name(&mut self, ino: Ino, from: Place<'_>, to: Place<'_>) -> Result<()> {
        let is_dir = self.tree.is_dir(ino)?;
        if is_dir {
            self.pin_origin(ino)?;
        }
        self.vacate(from.0, from.1)?;
        self.occupy(to.0, to.1, ino)?;
        let now = self.now;
        self.record(ino)?.ctime = now;
        if is_dir {
            self.settle_origin(ino)?;
        }
        Ok(())
    }
}

impl Tree {
    fn require_replaceable(&self, ino: Ino, target: Ino) -> Result<()> {
        match (self.is_dir(ino)?, self.is_dir(target)?) {
            (false, true) => Err(FsError::IsDirectory),
            (true, false) => Err(FsError::NotDirectory),
            (true, true) if !self.is_empty(target)? => Err(FsError::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Errors if `dir` is `ino` or lies below it.
    fn require_outside(&self, ino: Ino, dir: Ino) -> Result<()> {
        let mut at = dir;
        loop {
            if at == ino {
                return Err(FsError::Invalid("a directory cannot move below itself"));
            }
            if at == Ino::ROOT {
                return Ok(());
            }
            at = match (self.node(at), self.lower.get(&at)) {
                (Some(node), _) => match node.names.first() {
                    Some((parent, _)) => parent,
                    None => return Ok(()),
                },
                (None, Some(lower)) => lower.parent,
                (None, None) => return Ok(()),
            };
        }
    }
}

//! How many sites a commit waits for, how long, and what then.

use std::collections::BTreeSet;
use std::time::Duration;

use formats::warm::NodeName;

/// Which sites must have the objects before a revision becomes visible.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Quorum {
    /// Each that takes the repository.
    #[default]
    All,
    /// This part of them, above 0 and at most 1; rounded up to whole sites.
    Fraction(f64),
    /// So many, or all where there are fewer.
    Number(u32),
    /// These, whatever becomes of others. One that is no site any more cannot be waited for, and is
    /// missing.
    Named(BTreeSet<NodeName>),
}

/// What is asked of sites for a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Who must have the objects.
    pub quorum: Quorum,
    /// How long to wait for them.
    pub deadline: Duration,
    /// A site that cannot be reached for so long is not waited for.
    pub reach_within: Duration,
    /// Publish all the same where the quorum is not met.
    pub commit_anyway: bool,
}

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The quorum is met.
    Met,
    /// It is not, and can be no more: too many sites failed. Where the commit goes on all the same, the
    /// others have what they can get.
    Impossible,
    /// It was not by the deadline.
    Late,
    /// Nobody wants the commit any more.
    CalledOff,
}

impl Quorum {
    /// True if the quorum is met when these have everything, out of all sites.
    #[must_use]
    pub fn is_met(&self, have: &BTreeSet<&NodeName>, all: usize) -> bool {
        match self {
            Self::All => have.len() >= all,
            Self::Fraction(part) => have.len() >= share(*part, all),
            Self::Number(number) => have.len() >= all.min(*number as usize),
            Self::Named(names) => names.iter().all(|name| have.contains(name)),
        }
    }
}

/// Whole sites of `all`, rounded up; never more than there are.
fn share(part: f64, all: usize) -> usize {
    (1..=all)
        .find(|n| *n as f64 >= part * all as f64)
        .unwrap_or(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<NodeName> {
        of.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn met(quorum: &Quorum, have: &[&str], all: usize) -> bool {
        let have = names(have);
        quorum.is_met(&have.iter().collect(), all)
    }

    #[test]
    fn quorums() {
        let named = |of: &[&str]| Quorum::Named(names(of).into_iter().collect());
        for (quorum, enough, short) in [
            (Quorum::All, &["a", "b", "c"][..], &["a", "b"][..]),
            (Quorum::Fraction(0.5), &["a", "c"], &["a"]),
            (Quorum::Fraction(0.01), &["a"], &[]),
            (Quorum::Fraction(1.0), &["a", "b", "c"], &["b", "c"]),
            (Quorum::Number(2), &["b", "c"], &["b"]),
            (Quorum::Number(9), &["a", "b", "c"], &["b", "c"]),
            (named(&["a", "c"]), &["a", "c"], &["a", "b"]),
            (named(&["gone"]), &["gone"], &["a", "b", "c"]),
        ] {
            assert!(met(&quorum, enough, 3), "{quorum:?}");
            assert!(!met(&quorum, short, 3), "{quorum:?}");
        }
        assert!(met(&Quorum::Number(0), &[], 3));
        // a third of three is one, whatever a third is in binary
        assert!(met(&Quorum::Fraction(1.0 / 3.0), &["a"], 3));
    }
}

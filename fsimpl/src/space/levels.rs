//! How much room is left for whom, by the size of the filesystem.

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// At which free space what happens, in bytes. Each is a fixed amount, and a part of a small
/// filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    /// What the reserve takes: as much as the journals write while some hundred thousand files are
    /// removed.
    pub reserve: u64,
    /// The reserve is let go: the journal engine's next table (8 MiB) and what it rewrites then
    /// would no longer fit.
    pub journal: u64,
    /// Writers are refused: what is queued for sealing still needs room for its objects, a few of
    /// the largest at a time.
    pub floor: u64,
    /// Dropping raw bytes begins: early enough that a fast writer need not wait for it.
    pub low: u64,
    /// Dropping raw bytes ends: so far above that it does not begin again at once.
    pub target: u64,
}

impl Levels {
    pub fn of(total: u64) -> Self {
        let floor = (64 * MIB).min(total / 8);
        Self {
            reserve: (64 * MIB).min((16 * MIB).max(total / 16)).min(total / 8),
            journal: (24 * MIB).min(floor / 2),
            floor,
            low: GIB.min(total / 4),
            target: (2 * GIB).min(total / 8 * 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_in_order_whatever_the_size() {
        let sizes = [
            0,
            1,
            4096,
            MIB,
            64 * MIB,
            200 * MIB,
            GIB,
            10 * GIB,
            u64::MAX,
        ];
        for total in sizes {
            let levels = Levels::of(total);
            assert!(levels.journal <= levels.floor, "{total}");
            assert!(levels.floor <= levels.low, "{total}");
            assert!(levels.low <= levels.target, "{total}");
            // else the reserve would never be made again
            assert!(levels.reserve + levels.floor <= levels.target, "{total}");
        }
        assert_eq!(Levels::of(u64::MAX).floor, 64 * MIB);
        assert_eq!(Levels::of(64 * MIB).reserve, 8 * MIB);
    }
}

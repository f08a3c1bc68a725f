//! A map that forgets what was used longest ago. Weights in, evicted values out; no locks here.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, K>,
    tick: u64,
    weight: u64,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    pub fn new() -> Self {
        Self {
            slots: HashMap::new(),
            order: BTreeMap::new(),
            tick: 0,
            weight: 0,
        }
    }

    /// The sum of all weights.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The value, which counts as used now.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slots.get_mut(key)?;
        self.tick += 1;
        if let Some(key) = self.order.remove(&slot.used) {
            self.order.insert(self.tick, key);
        }
        slot.used = self.tick;
        Some(&mut slot.value)
    }

    /// Keys, values and weights, in no order; none of them counts as used.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V, u64)> {
        self.slots
            .iter()
            .map(|(key, slot)| (key, &slot.value, slot.weight))
    }

    /// Adds or replaces a value; returns the former.
    pub fn insert(&mut self, key: K, value: V, weight: u64) -> Option<V> {
        let former = self.remove(&key);
        self.tick += 1;
        self.order.insert(self.tick, key.clone());
        let used = self.tick;
        self.slots.insert(
            key,
            Slot {
                value,
                weight,
                used,
            },
        );
        self.weight += weight;
        former
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.slots.remove(key)?;
        self.order.remove(&slot.used);
        self.weight -= slot.weight;
        Some(slot.value)
    }

    /// Takes out the value used longest ago among those that `may_go`.
    pub fn pop_oldest(&mut self, may_go: impl Fn(&V) -> bool) -> Option<(K, V)> {
        let free = |key: &&K| self.slots.get(*key).is_some_and(|slot| may_go(&slot.value));
        let key = self.order.values().find(free)?.clone();
        let value = self.remove(&key)?;
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_unless_it_may_not() {
        let mut lru = Lru::new();
        for (key, weight) in [("a", 1), ("b", 2), ("c", 3)] {
            assert!(lru.insert(key, key, weight).is_none());
        }
        assert_eq!((lru.weight(), lru.len()), (6, 3));
        assert_eq!(lru.get(&"a"), Some(&mut "a"));
        assert_eq!(lru.pop_oldest(|v| *v != "b"), Some(("c", "c")));
        assert_eq!(lru.pop_oldest(|_| true), Some(("b", "b")));
        assert_eq!(lru.insert("a", "z", 7), Some("a"));
        assert_eq!(lru.weight(), 7);
        assert_eq!(lru.pop_oldest(|_| true), Some(("a", "z")));
        assert_eq!(lru.pop_oldest(|_| true), None);
        assert_eq!((lru.weight(), lru.len()), (0, 0));
    }
}

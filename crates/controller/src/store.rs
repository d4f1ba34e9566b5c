//! What the watches keep: objects in the core's own types, by key, in an order that never depends on chance.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A value with the resource version that it was read at.
#[derive(Debug)]
pub struct Entry<V> {
    version: u64,
    value: Arc<V>,
}

#[derive(Debug)]
struct Inner<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    synced: bool,
}

/// Objects of one kind.
#[derive(Debug)]
pub struct Store<K, V>(RwLock<Inner<K, V>>);

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self(RwLock::new(Inner { entries: BTreeMap::new(), synced: false }))
    }
}

impl<V> Entry<V> {
    /// A value as read at a resource version.
    pub fn new(resource_version: Option<&str>, value: V) -> Self {
        Self { version: ordinal(resource_version), value: Arc::new(value) }
    }
}

/// Resource versions are comparable as numbers (KEP-5504); one that is no number counts as the oldest.
pub fn ordinal(resource_version: Option<&str>) -> u64 {
    resource_version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl<K: Ord + Clone, V: PartialEq> Store<K, V> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<K, V>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K, V>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the initial list is in.
    pub fn is_synced(&self) -> bool {
        self.read().synced
    }

    /// One value.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.read().entries.get(key).map(|entry| Arc::clone(&entry.value))
    }

    /// All values.
    pub fn all(&self) -> BTreeMap<K, Arc<V>> {
        let inner = self.read();
        let entries = inner.entries.iter();
        entries.map(|(key, entry)| (key.clone(), Arc::clone(&entry.value))).collect()
    }

    /// The values of a range of keys, in order.
    pub fn range(&self, range: impl RangeBounds<K>, mut visit: impl FnMut(&K, &Arc<V>) -> bool) {
        for (key, entry) in self.read().entries.range(range) {
            if !visit(key, &entry.value) {
                break;
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over a complete list. What we know in a newer version (the answer to a write) stays. Returns whether
    /// something changed.
    pub fn replace(&self, mut listed: BTreeMap<K, Entry<V>>) -> bool {
        let mut inner = self.write();
        let old = std::mem::take(&mut inner.entries);
        let mut changed = !inner.synced || old.len() != listed.len();
        for (key, entry) in old {
            match listed.get_mut(&key) {
                Some(new) if new.version < entry.version => *new = entry,
                Some(new) => changed |= new.value != entry.value,
                None => changed = true,
            }
        }
        inner.entries = listed;
        inner.synced = true;
        changed
    }

    /// Takes over one object unless a newer version of it is known. Returns whether something changed.
    pub fn upsert(&self, key: K, entry: Entry<V>) -> bool {
        let mut inner = self.write();
        let known = inner.entries.get(&key);
        if known.is_some_and(|known| entry.version != 0 && entry.version < known.version) {
            return false;
        }
        let changed = known.is_none_or(|known| known.value != entry.value);
        inner.entries.insert(key, entry);
        changed
    }

    /// Drops an object that was deleted at this version, unless it is known to exist again.
    pub fn remove(&self, key: &K, resource_version: Option<&str>) -> bool {
        let mut inner = self.write();
        let deleted = ordinal(resource_version);
        let newer = inner.entries.get(key).is_some_and(|known| deleted != 0 && known.version > deleted);
        !newer && inner.entries.remove(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: &str, value: u32) -> Entry<u32> {
        Entry::new(Some(version), value)
    }

    #[test]
    fn an_event_older_than_the_answer_to_our_write_is_ignored() {
        let store = Store::default();
        assert!(store.upsert("a", entry("10", 1)));
        assert!(!store.upsert("a", entry("9", 0)));
        assert!(!store.remove(&"a", Some("9")));
        assert_eq!(store.get(&"a").as_deref(), Some(&1));
        assert!(store.remove(&"a", Some("11")));
    }

    #[test]
    fn a_change_that_we_do_not_look_at_is_no_change() {
        let store = Store::default();
        assert!(store.upsert("a", entry("10", 1)));
        assert!(!store.upsert("a", entry("11", 1)));
        assert!(store.upsert("a", entry("12", 2)));
    }

    #[test]
    fn a_list_replaces_all_but_what_is_known_to_be_newer() {
        let store = Store::default();
        store.upsert("answered", entry("20", 2));
        store.upsert("gone", entry("5", 5));
        assert!(!store.is_synced());
        let listed = BTreeMap::from([("answered", entry("10", 1)), ("new", entry("11", 3))]);
        assert!(store.replace(listed));
        assert!(store.is_synced());
        let all: Vec<(&str, u32)> = store.all().into_iter().map(|(key, value)| (key, *value)).collect();
        assert_eq!(all, [("answered", 2), ("new", 3)]);
    }

    #[test]
    fn the_same_list_again_changes_nothing() {
        let store = Store::default();
        assert!(store.replace(BTreeMap::from([("a", entry("1", 1))])));
        assert!(!store.replace(BTreeMap::from([("a", entry("2", 1))])));
    }
}

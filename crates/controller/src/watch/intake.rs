//! From the events of a watch to a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::watcher::Event;

use crate::observe::{Observed, StoreOf};
use crate::store::Entry;

/// Takes events in, as far as `keep` wants them.
pub struct Intake<S: Observed, F> {
    store: Arc<StoreOf<S>>,
    keep: F,
    /// The list that is being read: it replaces what the store has only when it is complete.
    listed: BTreeMap<S::Key, Entry<S::Value>>,
}

impl<S: Observed, F: Fn(&S::Key) -> bool> Intake<S, F> {
    /// An intake for a store.
    pub fn new(store: Arc<StoreOf<S>>, keep: F) -> Self {
        Self { store, keep, listed: BTreeMap::new() }
    }

    /// Takes one event. Returns whether something changed that a decision may look at.
    pub fn take(&mut self, event: Event<S>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                if let Some((key, entry)) = self.convert(object) {
                    self.listed.insert(key, entry);
                }
                false
            }
            Event::InitDone => self.store.replace(std::mem::take(&mut self.listed)),
            Event::Apply(object) => {
                let (key, version) = (object.key(), object.meta().resource_version.clone());
                match self.convert(object) {
                    Some((key, entry)) => self.store.upsert(key, entry),
                    None => self.store.remove(&key, version.as_deref()),
                }
            }
            Event::Delete(object) => {
                self.store.remove(&object.key(), object.meta().resource_version.as_deref())
            }
        }
    }

    fn convert(&self, object: S) -> Option<(S::Key, Entry<S::Value>)> {
        let key = object.key();
        if !(self.keep)(&key) {
            return None;
        }
        let version = object.meta().resource_version.clone();
        let value = object.observe()?;
        Some((key, Entry::new(version.as_deref(), value)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observe::webhook::RawMutating;

    fn webhook(name: &str, version: &str, entry: &str) -> RawMutating {
        serde_json::from_value(json!({
            "metadata": {"name": name, "resourceVersion": version}, "webhooks": [{"name": entry}],
        }))
        .unwrap()
    }

    fn injector(name: &str, version: &str) -> RawMutating {
        webhook(name, version, "rev.namespace.sidecar-injector.istio.io")
    }

    fn names(store: &StoreOf<RawMutating>) -> Vec<String> {
        store.all().into_keys().collect()
    }

    #[test]
    fn a_list_counts_only_when_it_is_complete() {
        let store = Arc::new(StoreOf::<RawMutating>::default());
        let mut intake = Intake::new(Arc::clone(&store), |_: &String| true);
        assert!(!intake.take(Event::Init));
        assert!(!intake.take(Event::InitApply(injector("a", "1"))));
        assert!(names(&store).is_empty() && !store.is_synced());
        assert!(intake.take(Event::InitDone));
        assert_eq!(names(&store), ["a"]);
        // A relist that is cut off and begins again leaves nothing of its first attempt.
        intake.take(Event::Init);
        intake.take(Event::InitApply(injector("cut", "2")));
        intake.take(Event::Init);
        intake.take(Event::InitApply(injector("b", "3")));
        assert_eq!(names(&store), ["a"]);
        assert!(intake.take(Event::InitDone));
        assert_eq!(names(&store), ["b"]);
    }

    #[test]
    fn an_object_that_stops_to_matter_goes() {
        let store = Arc::new(StoreOf::<RawMutating>::default());
        let mut intake = Intake::new(Arc::clone(&store), |_: &String| true);
        assert!(intake.take(Event::Apply(injector("a", "1"))));
        assert!(!intake.take(Event::Apply(injector("a", "2"))), "only its version changed");
        assert!(intake.take(Event::Apply(webhook("a", "3", "pods.example.com"))));
        assert!(names(&store).is_empty());
    }

    #[test]
    fn what_nobody_wants_is_not_kept() {
        let store = Arc::new(StoreOf::<RawMutating>::default());
        let mut intake = Intake::new(Arc::clone(&store), |name: &String| name != "other");
        assert!(!intake.take(Event::Apply(injector("other", "1"))));
        assert!(intake.take(Event::Apply(injector("a", "1"))));
        assert!(intake.take(Event::Delete(injector("a", "2"))));
        assert!(names(&store).is_empty());
    }
}

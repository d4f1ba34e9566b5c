//! Watches of one kind in those namespaces that some MeshUpgrade has to do with: the operator has no right to read it elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Api;
use kube::core::NamespaceResourceScope;
use meshupgrade_core::ids::NamespaceName;

use super::Poke;
use super::on_demand::OnDemand;
use crate::client::Clients;
use crate::health::Health;
use crate::observe::Observed;
use crate::store::Entry;

/// What is known of the objects of a kind in a namespace.
#[derive(Debug)]
pub enum Look<V> {
    /// Those that matter.
    Known(Vec<Arc<V>>),
    /// The right to list or to watch them is missing. What a list told before is not kept up then.
    Unreadable,
    /// They are being read.
    Awaited,
}

/// The watches of a kind by namespace.
#[derive(Debug)]
pub struct NamespacedWatches<S: Observed> {
    clients: Clients,
    poke: Poke,
    health: Health,
    running: Mutex<BTreeMap<NamespaceName, OnDemand<S>>>,
}

impl<S: Observed<Scope = NamespaceResourceScope>> NamespacedWatches<S> {
    /// No watch yet.
    pub fn new(clients: Clients, poke: Poke, health: Health) -> Self {
        Self { clients, poke, health, running: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<NamespaceName, OnDemand<S>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of a namespace that matter; `None` until they are known. Begins to watch when asked first.
    pub fn get(&self, namespace: &NamespaceName) -> Option<Vec<Arc<S::Value>>> {
        let mut running = self.lock();
        running.retain(|_, watch| !watch.is_broken());
        let watch = running.entry(namespace.clone()).or_insert_with(|| self.start(namespace));
        Some(watch.known()?.all().into_values().collect())
    }

    /// The same, for who goes on without them where there is no right to them.
    pub fn look(&self, namespace: &NamespaceName) -> Look<S::Value> {
        let known = self.get(namespace);
        if self.health.is_refused(&S::url_path(&(), Some(namespace.as_str()))) {
            return Look::Unreadable;
        }
        known.map_or(Look::Awaited, Look::Known)
    }

    /// Takes over what the API server answered to a write: the watch may be behind it.
    pub fn remember(&self, namespace: &NamespaceName, answer: S) {
        let running = self.lock();
        let Some(store) = running.get(namespace).and_then(OnDemand::known) else { return };
        let (key, version) = (answer.key(), answer.meta().resource_version.clone());
        if let Some(value) = answer.observe() {
            store.upsert(key, Entry::new(version.as_deref(), value));
        }
    }

    /// Why the objects of a namespace cannot be read, if they cannot.
    pub fn problem(&self, namespace: &NamespaceName) -> Option<String> {
        self.health.failure(&S::url_path(&(), Some(namespace.as_str())))
    }

    /// Why the objects of a namespace are still awaited ([`Look::Awaited`]), if something is wrong besides the right to them.
    pub fn delay(&self, namespace: &NamespaceName) -> Option<String> {
        let refused = self.health.is_refused(&S::url_path(&(), Some(namespace.as_str())));
        self.problem(namespace).filter(|_| !refused)
    }

    /// Ends the watches of namespaces that nobody names any more.
    pub fn retain(&self, named: &BTreeSet<NamespaceName>) {
        self.lock().retain(|namespace, _| named.contains(namespace));
    }

    fn start(&self, namespace: &NamespaceName) -> OnDemand<S> {
        let api: Api<S> = Api::namespaced(self.clients.watches(), namespace.as_str());
        OnDemand::start(api, |_| true, self.poke.clone(), self.health.clone())
    }
}

//! ConfigMaps are watched only in the Istio namespaces that some MeshUpgrade names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use kube::{Api, Resource};
use meshupgrade_core::ids::{ConfigMapRef, NamespaceName};

use super::Poke;
use super::on_demand::OnDemand;
use crate::client::Clients;
use crate::health::Health;
use crate::observe::Observed;
use crate::observe::config_map::{ConfigMapSeen, RawConfigMap};
use crate::store::Entry;

/// The watches of ConfigMaps by namespace.
#[derive(Debug)]
pub struct ConfigMapWatches {
    clients: Clients,
    poke: Poke,
    health: Health,
    running: Mutex<BTreeMap<NamespaceName, OnDemand<RawConfigMap>>>,
}

impl ConfigMapWatches {
    /// No watch yet.
    pub fn new(clients: Clients, poke: Poke, health: Health) -> Self {
        Self { clients, poke, health, running: Mutex::default() }
    }

    /// The ConfigMaps of a namespace that matter; `None` until they are known. Begins to watch when asked first.
    pub fn get(&self, namespace: &NamespaceName) -> Option<Vec<Arc<ConfigMapSeen>>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, watch| !watch.is_broken());
        let watch = running.entry(namespace.clone()).or_insert_with(|| self.start(namespace));
        Some(watch.known()?.all().into_values().collect())
    }

    /// Takes over what the API server answered to a write: the watch may be behind it.
    pub fn remember(&self, namespace: &NamespaceName, answer: RawConfigMap) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = running.get(namespace).and_then(OnDemand::known) else { return };
        let (key, version) = (answer.key(), answer.meta().resource_version.clone());
        if let Some(value) = answer.observe() {
            store.upsert(key, Entry::new(version.as_deref(), value));
        }
    }

    /// Drops one that was deleted as it was at this resource version.
    pub fn drop_deleted(&self, map: &ConfigMapRef, resource_version: &str) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = running.get(&map.namespace).and_then(OnDemand::known) {
            store.remove(&map.name, Some(resource_version));
        }
    }

    /// Why the ConfigMaps of a namespace cannot be read, if they cannot.
    pub fn problem(&self, namespace: &NamespaceName) -> Option<String> {
        self.health.failure(&format!("/api/v1/namespaces/{namespace}/configmaps"))
    }

    /// Ends the watches of namespaces that nobody names any more.
    pub fn retain(&self, named: &BTreeSet<NamespaceName>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|namespace, _| named.contains(namespace));
    }

    fn start(&self, namespace: &NamespaceName) -> OnDemand<RawConfigMap> {
        let api: Api<RawConfigMap> = Api::namespaced(self.clients.watches(), namespace.as_str());
        OnDemand::start(api, |_| true, self.poke.clone(), self.health.clone())
    }
}

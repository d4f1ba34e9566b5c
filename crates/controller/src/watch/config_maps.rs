//! ConfigMaps are watched only in the Istio namespaces that some MeshUpgrade names.

use kube::Resource;
use meshupgrade_core::ids::{ConfigMapRef, NamespaceName};

use super::namespaced::NamespacedWatches;
use super::on_demand::OnDemand;
use crate::observe::Observed;
use crate::observe::config_map::RawConfigMap;
use crate::store::Entry;

/// The watches of ConfigMaps by namespace.
pub type ConfigMapWatches = NamespacedWatches<RawConfigMap>;

impl ConfigMapWatches {
    /// Takes over what the API server answered to a write: the watch may be behind it.
    pub fn remember(&self, namespace: &NamespaceName, answer: RawConfigMap) {
        let running = self.lock();
        let Some(store) = running.get(namespace).and_then(OnDemand::known) else { return };
        let (key, version) = (answer.key(), answer.meta().resource_version.clone());
        if let Some(value) = answer.observe() {
            store.upsert(key, Entry::new(version.as_deref(), value));
        }
    }

    /// Drops one that was deleted as it was at this resource version.
    pub fn drop_deleted(&self, map: &ConfigMapRef, resource_version: &str) {
        let running = self.lock();
        if let Some(store) = running.get(&map.namespace).and_then(OnDemand::known) {
            store.remove(&map.name, Some(resource_version));
        }
    }
}

//! ConfigMaps are watched only in the Istio namespaces that some MeshUpgrade names.

use meshupgrade_core::ids::ConfigMapRef;

use super::namespaced::NamespacedWatches;
use super::on_demand::OnDemand;
use crate::observe::config_map::RawConfigMap;

/// The watches of ConfigMaps by namespace.
pub type ConfigMapWatches = NamespacedWatches<RawConfigMap>;

impl ConfigMapWatches {
    /// Drops one that was deleted as it was at this resource version.
    pub fn drop_deleted(&self, map: &ConfigMapRef, resource_version: &str) {
        let running = self.lock();
        if let Some(store) = running.get(&map.namespace).and_then(OnDemand::known) {
            store.remove(&map.name, Some(resource_version));
        }
    }
}

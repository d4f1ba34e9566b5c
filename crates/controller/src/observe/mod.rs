//! The first step: from what the watches keep to the [`Snapshot`] of one pass. No I/O, nothing is remembered.

pub mod budget;
pub mod config_map;
pub mod namespace;
pub mod pod;
pub mod webhook;
pub mod workload;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use kube::Resource;
use meshupgrade_core::ids::{NamespaceName, Revision, WorkloadRef};
use meshupgrade_core::observed::{
    ControlPlane, DisruptionBudget, Namespace, Snapshot, WebhookConfiguration, Workload,
};
use serde::de::DeserializeOwned;

use self::config_map::{ConfigMapSeen, mesh_configs};
use self::workload::WorkloadSeen;
use crate::store::Store;

/// An object as a watch reads it, and what of it is kept.
pub trait Observed:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Which object it is.
    type Key: Ord + Clone + Send + Sync + 'static;
    /// What is kept.
    type Value: PartialEq + Send + Sync + 'static;

    /// Which object this is.
    fn key(&self) -> Self::Key;

    /// What is kept of it; `None` when it does not matter to us.
    fn observe(self) -> Option<Self::Value>;
}

/// A store for the objects of one kind.
pub type StoreOf<S> = Store<<S as Observed>::Key, <S as Observed>::Value>;

/// What the cluster-wide watches keep.
#[derive(Debug, Default)]
pub struct Stores {
    /// All namespaces.
    pub namespaces: Arc<StoreOf<namespace::RawNamespace>>,
    /// All Deployments.
    pub deployments: Arc<StoreOf<workload::RawDeployment>>,
    /// All StatefulSets.
    pub stateful_sets: Arc<StoreOf<workload::RawStatefulSet>>,
    /// All DaemonSets.
    pub daemon_sets: Arc<StoreOf<workload::RawDaemonSet>>,
    /// Istio's injectors.
    pub webhooks: Arc<StoreOf<webhook::RawMutating>>,
    /// All pod disruption budgets.
    pub budgets: Arc<StoreOf<budget::RawBudget>>,
}

impl Stores {
    /// The watches whose initial list is not in yet.
    pub fn unsynced(&self) -> Vec<&'static str> {
        let all = [
            ("namespaces", self.namespaces.is_synced()),
            ("deployments", self.deployments.is_synced()),
            ("statefulsets", self.stateful_sets.is_synced()),
            ("daemonsets", self.daemon_sets.is_synced()),
            ("mutatingwebhookconfigurations", self.webhooks.is_synced()),
            ("poddisruptionbudgets", self.budgets.is_synced()),
        ];
        all.into_iter().filter(|(_name, synced)| !synced).map(|(name, _)| name).collect()
    }

    /// The workloads of the three kinds.
    fn workloads(&self) -> BTreeMap<WorkloadRef, Arc<Workload>> {
        let stores = [&self.deployments, &self.stateful_sets, &self.daemon_sets];
        stores
            .into_iter()
            .flat_map(|store| store.all())
            .map(|(reference, seen)| (reference, Arc::clone(&seen.workload)))
            .collect()
    }

    fn control_planes(
        &self,
        istio_namespace: &NamespaceName,
        config_maps: &[Arc<ConfigMapSeen>],
    ) -> BTreeMap<Revision, ControlPlane> {
        let mut planes: BTreeMap<Revision, ControlPlane> = BTreeMap::new();
        let first = workload::first_in(istio_namespace);
        self.deployments.range(first.., |reference, seen: &Arc<WorkloadSeen>| {
            let here = reference.namespace == *istio_namespace;
            if let Some((revision, istiod)) = seen.istiod.as_ref().filter(|_| here) {
                planes.entry(revision.clone()).or_default().istiod = Some(istiod.clone());
            }
            here
        });
        for seen in config_maps {
            if let ConfigMapSeen::Injector(revision) = &**seen {
                planes.entry(revision.clone()).or_default().injector_config = true;
            }
        }
        for (revision, config) in mesh_configs(config_maps.iter().map(|seen| &**seen)) {
            planes.entry(revision).or_default().mesh_config = config;
        }
        planes
    }

    fn budgets(&self) -> BTreeMap<NamespaceName, Vec<Arc<DisruptionBudget>>> {
        let mut budgets: BTreeMap<NamespaceName, Vec<Arc<DisruptionBudget>>> = BTreeMap::new();
        for ((namespace, _name), budget) in self.budgets.all() {
            budgets.entry(namespace).or_default().push(budget);
        }
        budgets
    }

    fn webhooks(&self) -> Vec<Arc<WebhookConfiguration>> {
        self.webhooks.all().into_values().collect()
    }

    fn namespaces(&self) -> BTreeMap<NamespaceName, Arc<Namespace>> {
        self.namespaces.all()
    }

    /// What the cluster-wide watches know, as a snapshot. The rest of it is filled in by the caller: pods, census,
    /// other upgrades, what was applied.
    pub fn snapshot(&self, istio_namespace: &NamespaceName, config_maps: &[Arc<ConfigMapSeen>]) -> Snapshot {
        Snapshot {
            webhooks: self.webhooks(),
            control_planes: self.control_planes(istio_namespace, config_maps),
            namespaces: self.namespaces(),
            workloads: self.workloads(),
            pods: BTreeMap::new(),
            budgets: self.budgets(),
            census: None,
            other_upgrades: Vec::new(),
            applied: BTreeMap::new(),
            operator: None,
        }
    }
}

//! The first step: from what the watches keep to the [`Snapshot`] of one pass. No I/O, nothing is remembered.

pub mod budget;
pub mod config_map;
pub mod gateway;
pub mod istiod_service;
pub mod namespace;
pub mod pod;
pub mod service;
pub mod webhook;
pub mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use kube::Resource;
use meshupgrade_core::ids::{NamespaceName, Revision, WorkloadRef};
use meshupgrade_core::observed::{
    ControlPlane, DisruptionBudget, Namespace, Snapshot, WebhookConfiguration, Workload,
};
use serde::de::DeserializeOwned;

use self::config_map::{ConfigMapSeen, mesh_configs, shared_mesh};
use self::workload::WorkloadSeen;
use crate::store::Store;

/// An object as a watch reads it, and what of it is kept.
pub trait Observed:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Which object it is.
    type Key: Ord + Clone + Debug + Send + Sync + 'static;
    /// What is kept.
    type Value: PartialEq + Debug + Send + Sync + 'static;

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
    /// All Rollouts of Argo Rollouts; empty where the cluster does not know the kind.
    pub rollouts: Arc<StoreOf<workload::RawRollout>>,
    /// All Gateways of the Gateway API; empty where the cluster does not know the kind.
    pub gateways: Arc<StoreOf<gateway::RawGateway>>,
    /// Istio's injectors.
    pub webhooks: Arc<StoreOf<webhook::RawMutating>>,
    /// All pod disruption budgets.
    pub budgets: Arc<StoreOf<budget::RawBudget>>,
}

impl Stores {
    /// For each kind: whether its first list is in, and how many objects are kept.
    pub fn kinds(&self) -> [(&'static str, bool, usize); 8] {
        [
            ("namespaces", self.namespaces.is_synced(), self.namespaces.len()),
            ("deployments", self.deployments.is_synced(), self.deployments.len()),
            ("statefulsets", self.stateful_sets.is_synced(), self.stateful_sets.len()),
            ("daemonsets", self.daemon_sets.is_synced(), self.daemon_sets.len()),
            ("rollouts", self.rollouts.is_synced(), self.rollouts.len()),
            ("gateways", self.gateways.is_synced(), self.gateways.len()),
            ("mutatingwebhookconfigurations", self.webhooks.is_synced(), self.webhooks.len()),
            ("poddisruptionbudgets", self.budgets.is_synced(), self.budgets.len()),
        ]
    }

    /// The kinds whose first list is not in yet.
    pub fn unsynced(&self) -> Vec<&'static str> {
        let kinds = self.kinds().into_iter();
        kinds.filter(|(_kind, synced, _count)| !synced).map(|(kind, ..)| kind).collect()
    }

    /// The workloads of all kinds. Read straight into one list: there may be ten thousand of them, each pass.
    fn workloads(&self) -> BTreeMap<WorkloadRef, Arc<Workload>> {
        let mut all = Vec::new();
        let mut add = |reference: &WorkloadRef, seen: &Arc<WorkloadSeen>| {
            all.push((reference.clone(), Arc::clone(&seen.workload)));
            true
        };
        self.deployments.range(.., &mut add);
        self.stateful_sets.range(.., &mut add);
        self.daemon_sets.range(.., &mut add);
        for (reference, seen) in self.rollouts.all() {
            let owner = seen.borrowed.as_ref().and_then(|owner| self.deployments.get(owner));
            all.push((reference, seen.with_template_of(owner.as_deref())));
        }
        all.into_iter().collect()
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
            if let ConfigMapSeen::Injector(revision, image) = &**seen {
                let plane = planes.entry(revision.clone()).or_default();
                (plane.injector_config, plane.proxy_image) = (true, image.clone());
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

    /// What the cluster-wide watches know, as a snapshot. The rest of it is filled in by the caller: pods, Services,
    /// census, other upgrades, what was applied.
    pub fn snapshot(&self, istio_namespace: &NamespaceName, config_maps: &[Arc<ConfigMapSeen>]) -> Snapshot {
        Snapshot {
            webhooks: self.webhooks(),
            istiod_services: None,
            control_planes: self.control_planes(istio_namespace, config_maps),
            shared_mesh: shared_mesh(config_maps.iter().map(|seen| &**seen)),
            namespaces: self.namespaces(),
            workloads: self.workloads(),
            gateways: self.gateways.all(),
            addon_namespaces: BTreeSet::new(),
            gateway_services: BTreeMap::new(),
            pods: BTreeMap::new(),
            budgets: self.budgets(),
            census: None,
            census_problem: None,
            proxies: None,
            other_upgrades: Vec::new(),
            applied: BTreeMap::new(),
            refused: BTreeMap::new(),
            operator: None,
            answers: BTreeMap::new(),
            aks: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::Entry;

    fn keep<S: Observed>(store: &StoreOf<S>, value: Value) {
        let object: S = serde_json::from_value(value).unwrap();
        let key = object.key();
        store.upsert(key, Entry::new(Some("1"), object.observe().unwrap()));
    }

    fn istiod(namespace: &str, revision: &str) -> Value {
        json!({
            "metadata": {
                "name": format!("istiod-{revision}"), "namespace": namespace,
                "labels": {"app": "istiod", "istio.io/rev": revision},
            },
            "spec": {"replicas": 2}, "status": {"readyReplicas": 2},
        })
    }

    #[test]
    fn control_planes_are_put_together_from_their_own_namespace_only() {
        let stores = Stores::default();
        keep::<workload::RawDeployment>(&stores.deployments, istiod("istio-system", "a"));
        keep::<workload::RawDeployment>(&stores.deployments, istiod("istio-other", "a-copy"));
        keep::<workload::RawDeployment>(&stores.deployments, istiod("zzz", "last"));
        let web = json!({"metadata": {"name": "web", "namespace": "istio-system"}});
        keep::<workload::RawDeployment>(&stores.deployments, web);
        let maps = [
            Arc::new(ConfigMapSeen::Injector("a".into(), None)),
            Arc::new(ConfigMapSeen::Injector("b".into(), None)),
        ];
        let snapshot = stores.snapshot(&"istio-system".into(), &maps);
        let revisions: Vec<&str> = snapshot.control_planes.keys().map(Revision::as_str).collect();
        assert_eq!(revisions, ["a", "b"]);
        let a = snapshot.control_planes.get(&Revision::from("a")).unwrap();
        assert_eq!(a.istiod.as_ref().map(|istiod| istiod.ready), Some(2));
        assert!(a.injector_config && a.mesh_config.is_none());
        assert_eq!(snapshot.control_planes.get(&Revision::from("b")).unwrap().istiod, None);
    }

    #[test]
    fn the_kinds_of_workloads_are_one_list() {
        let stores = Stores::default();
        let object = |name: &str| json!({"metadata": {"name": name, "namespace": "shop"}});
        keep::<workload::RawDeployment>(&stores.deployments, object("web"));
        keep::<workload::RawStatefulSet>(&stores.stateful_sets, object("web"));
        keep::<workload::RawDaemonSet>(&stores.daemon_sets, object("web"));
        keep::<workload::RawRollout>(&stores.rollouts, object("web"));
        let budget = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"minAvailable": 1}});
        keep::<budget::RawBudget>(&stores.budgets, budget);
        let snapshot = stores.snapshot(&"istio-system".into(), &[]);
        assert_eq!(snapshot.workloads.len(), 4);
        assert!(snapshot.workloads.iter().all(|(reference, workload)| *reference == workload.reference));
        assert_eq!(snapshot.budgets.get(&NamespaceName::from("shop")).map(Vec::len), Some(1));
        assert!(snapshot.control_planes.is_empty() && snapshot.pods.is_empty());
    }

    #[test]
    fn kinds_are_unsynced_until_their_list_is_in() {
        let stores = Stores::default();
        assert_eq!(stores.unsynced().len(), 8);
        stores.namespaces.replace(BTreeMap::new());
        assert!(!stores.unsynced().contains(&"namespaces"));
    }
}

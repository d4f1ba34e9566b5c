//! What a watch cache may show: the last versions of each kind of objects. An operator reads one of them, never an older
//! one than before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use meshupgrade_core::ids::{NamespaceName, Revision, WorkloadRef};
use meshupgrade_core::observed::{
    ControlPlane, DisruptionBudget, Istiod, IstiodService, MeshConfig, Namespace, OtherUpgrade, Pod,
    WebhookConfiguration, Workload,
};

use super::injector::{istiod_services, webhooks};
use super::{Labelled, World};

/// How many versions of each kind are kept.
const KEPT: usize = 8;

/// A kind of objects that is watched by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Namespaces.
    Namespaces,
    /// Workloads of the three kinds.
    Workloads,
    /// Pods.
    Pods,
    /// Pod disruption budgets.
    Budgets,
    /// Webhooks, control planes and other MeshUpgrades.
    Planes,
    /// The MeshUpgrade.
    Upgrade,
}

impl Kind {
    /// The kinds that a cache holds.
    pub const CACHED: [Self; 5] =
        [Self::Namespaces, Self::Workloads, Self::Pods, Self::Budgets, Self::Planes];
}

/// One version of all kinds.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// Namespaces.
    pub namespaces: Arc<BTreeMap<NamespaceName, Arc<Namespace>>>,
    /// Since when their labels are as they are.
    pub labelled: Arc<BTreeMap<NamespaceName, Labelled>>,
    /// Workloads.
    pub workloads: Arc<BTreeMap<WorkloadRef, Arc<Workload>>>,
    /// Pods by namespace.
    pub pods: Arc<BTreeMap<NamespaceName, Vec<Arc<Pod>>>>,
    /// Budgets.
    pub budgets: Arc<BTreeMap<NamespaceName, Vec<Arc<DisruptionBudget>>>>,
    /// Control planes.
    pub planes: Arc<BTreeMap<Revision, ControlPlane>>,
    /// Other MeshUpgrades.
    pub others: Arc<Vec<OtherUpgrade>>,
    /// Webhooks.
    pub webhooks: Arc<Vec<Arc<WebhookConfiguration>>>,
    /// Services of istiod.
    pub istiod_services: Arc<Vec<Arc<IstiodService>>>,
}

/// The last versions of the cluster, for caches that lag.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    kept: VecDeque<(u64, Arc<Views>)>,
}

impl Versions {
    /// Keeps what is there now, if anything changed.
    pub fn keep(&mut self, world: &World) {
        let last = self.kept.back();
        if last.is_some_and(|(version, _)| *version == world.version) {
            return;
        }
        let views = renew(world, last.map(|(version, views)| (*version, views.as_ref())));
        self.kept.push_back((world.version, Arc::new(views)));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// The newest version.
    pub fn newest(&self) -> Option<&(u64, Arc<Views>)> {
        self.kept.back()
    }

    /// The version that is `lag` behind the newest, but not older than `seen`.
    pub fn behind(&self, lag: usize, seen: u64) -> Option<&(u64, Arc<Views>)> {
        let index = self.kept.len().saturating_sub(1).saturating_sub(lag);
        self.kept.iter().skip(index).find(|(version, _)| *version >= seen).or_else(|| self.newest())
    }
}

/// Builds only what changed since the last version.
fn renew(world: &World, last: Option<(u64, &Views)>) -> Views {
    let mut views = last.map(|(_, views)| views.clone()).unwrap_or_default();
    let since = last.map_or(0, |(version, _)| version);
    for kind in Kind::CACHED {
        let changed = world.changed.get(&kind).copied().unwrap_or(0);
        if last.is_none() || changed > since {
            refresh(world, kind, &mut views);
        }
    }
    views
}

fn refresh(world: &World, kind: Kind, views: &mut Views) {
    match kind {
        Kind::Namespaces => {
            views.namespaces = Arc::new(world.namespaces.clone());
            views.labelled = Arc::new(world.labelled.clone());
        }
        Kind::Workloads => {
            let all = world.apps.iter().map(|(name, app)| (name.clone(), Arc::clone(&app.view)));
            views.workloads = Arc::new(all.collect());
        }
        Kind::Pods => views.pods = Arc::new(pods(world)),
        Kind::Budgets => views.budgets = Arc::new(world.budgets.clone()),
        Kind::Planes => {
            views.planes = Arc::new(control_planes(world));
            views.webhooks = Arc::new(webhooks(world));
            views.istiod_services = Arc::new(istiod_services(world));
            views.others = Arc::new(world.others.clone());
        }
        Kind::Upgrade => {}
    }
}

fn pods(world: &World) -> BTreeMap<NamespaceName, Vec<Arc<Pod>>> {
    let mut pods: BTreeMap<NamespaceName, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in world.pods.values() {
        pods.entry(pod.workload.namespace.clone()).or_default().push(Arc::clone(&pod.view));
    }
    pods
}

fn control_planes(world: &World) -> BTreeMap<Revision, ControlPlane> {
    let installed = world.planes.iter().filter(|(_, plane)| plane.installed);
    installed
        .map(|(revision, plane)| {
            let istiod = Istiod { name: format!("istiod-{revision}"), desired: 2, ready: plane.ready };
            let mesh_config =
                MeshConfig { trust_domain: "cluster.local".to_owned(), discovery_selectors: String::new() };
            let plane = ControlPlane {
                istiod: Some(istiod),
                injector_config: !plane.no_config,
                proxy_image: Some(plane.image(revision)).filter(|_| !plane.no_config),
                mesh_config: Some(mesh_config),
            };
            (revision.clone(), plane)
        })
        .collect()
}

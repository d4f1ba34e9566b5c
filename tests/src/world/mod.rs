//! The cluster in memory: what a real API server would hold, and little more.
//!
//! Time is a number that the runner moves. Every change gets a new version, as `resourceVersion` does, so that
//! "nothing changed" can be asked.

pub mod api;
pub mod build;
pub mod history;
pub mod injector;
pub mod pods;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use meshupgrade_core::census::Reference;
use meshupgrade_core::decision::View;
use meshupgrade_core::ids::{NamespaceName, Revision, WorkloadRef};
use meshupgrade_core::intent::Intent;
use meshupgrade_core::observed::{DisruptionBudget, Namespace, OtherUpgrade, PreviousLabels, Workload};
use meshupgrade_core::record::Record;

use crate::neighbours::telemetry::Telemetry;
use history::Happening;
pub use pods::{Pod, Template};
use views::Kind;

/// The cluster.
#[derive(Clone, Debug)]
pub struct World {
    /// What a clock on the wall says.
    pub now: Timestamp,
    /// Counts changes.
    pub version: u64,
    /// The version at which each kind changed last.
    pub changed: BTreeMap<Kind, u64>,
    /// Namespaces.
    pub namespaces: BTreeMap<NamespaceName, Arc<Namespace>>,
    /// Since when each namespace's injection labels are as they are, and who put them.
    pub labelled: BTreeMap<NamespaceName, Labelled>,
    /// Deployments, StatefulSets and DaemonSets.
    pub apps: BTreeMap<WorkloadRef, App>,
    /// Pods by serial number.
    pub pods: BTreeMap<u64, Pod>,
    /// The pods of each workload.
    pub pods_by_app: BTreeMap<WorkloadRef, BTreeSet<u64>>,
    /// Serial number of the next pod.
    pub next_pod: u64,
    /// Pod disruption budgets.
    pub budgets: BTreeMap<NamespaceName, Vec<Arc<DisruptionBudget>>>,
    /// Control planes.
    pub planes: BTreeMap<Revision, Plane>,
    /// Revision tags.
    pub tags: BTreeMap<String, Tag>,
    /// Objects that name a revision.
    pub references: Vec<Reference>,
    /// What Git says of namespaces that a GitOps tool manages.
    pub git: BTreeMap<NamespaceName, Git>,
    /// Workloads whose pods never become ready on a revision.
    pub sick: BTreeSet<(WorkloadRef, Revision)>,
    /// What platform people may do in this case.
    pub menu: Vec<crate::action::Action>,
    /// Other MeshUpgrades.
    pub others: Vec<OtherUpgrade>,
    /// Nodes, for DaemonSets.
    pub nodes: u32,
    /// What metric sources tell.
    pub telemetry: Telemetry,
    /// The MeshUpgrade.
    pub upgrade: Upgrade,
    /// What happened, in order.
    pub history: Vec<Happening>,
}

/// Who put a namespace's injection labels, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labelled {
    /// When.
    pub since: Timestamp,
    /// Whether the operator did.
    pub by_operator: bool,
}

/// A revision tag: where it points, and what the operator remembers on its webhook.
#[derive(Clone, Debug)]
pub struct Tag {
    /// What it points to.
    pub revision: Revision,
    /// The version at which it changed last.
    pub version: u64,
    /// What it was before the operator moved it.
    pub previous: Option<PreviousLabels>,
    /// The stamp of the operator's last write.
    pub relabelled_by: Option<String>,
    /// When it was pointed there.
    pub moved_at: Timestamp,
    /// Its Service.
    pub service: TagService,
}

/// The Service of a revision tag.
#[derive(Clone, Debug)]
pub struct TagService {
    /// Whose istiod it leads to.
    pub revision: Revision,
    /// The version at which it changed last.
    pub version: u64,
    /// The stamp of the operator's last write.
    pub relabelled_by: Option<String>,
}

/// A workload with what its controller knows.
#[derive(Clone, Debug)]
pub struct App {
    /// What the API server shows.
    pub view: Arc<Workload>,
    /// Version of the application in the template.
    pub release: u32,
    /// StatefulSet: the template before the rollout in work (`status.currentRevision`).
    pub previous: Option<Template>,
    /// The autoscaler changes its replicas.
    pub autoscaled: bool,
    /// It has had a pod with a sidecar.
    pub meshed: bool,
    /// When its rollout made progress last.
    pub progress: Timestamp,
}

/// A control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    /// Its Deployment, its injector's ConfigMap and its webhook exist.
    pub installed: bool,
    /// Replicas of istiod that are ready, of two.
    pub ready: u32,
    /// Its webhook is the default one too.
    pub default: bool,
    /// Its webhook is missing.
    pub no_webhook: bool,
    /// Its injector's ConfigMap is missing.
    pub no_config: bool,
    /// Its patch version: part of the image that its injector gives.
    pub patch: u32,
}

impl Plane {
    /// The image of the proxies that its injector adds.
    pub fn image(&self, revision: &Revision) -> String {
        format!("registry.example/proxyv2:{revision}.{}", self.patch)
    }
}

/// What a GitOps tool does with a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// Name of the tool's field manager.
    pub manager: String,
    /// The revision that Git asks for.
    pub revision: Revision,
    /// An ignore rule keeps the tool from the label.
    pub ignores: bool,
}

/// The MeshUpgrade as stored.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The request.
    pub intent: Arc<Intent>,
    /// `status`: durable facts.
    pub record: Arc<Record>,
    /// `status`: the summary.
    pub view: Arc<View>,
    /// Its resource version.
    pub resource_version: u64,
}

impl World {
    /// Records a change of a kind of objects.
    pub fn touch(&mut self, kind: Kind) -> u64 {
        self.version += 1;
        self.changed.insert(kind, self.version);
        self.version
    }

    /// Lets time pass.
    pub fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// What matters at the end of a run: phase, labels, and which revisions run, without names, times and attempts.
    pub fn essence(&self) -> Vec<String> {
        let phase = format!("phase {}", self.upgrade.view.phase);
        let namespaces = self.namespaces.values().map(|namespace| {
            let keys = [meshupgrade_core::labels::REVISION, meshupgrade_core::labels::INJECTION];
            let labels: Vec<_> = keys.iter().map(|key| namespace.labels.get(*key)).collect();
            format!("{} {labels:?} {:?}", namespace.name, namespace.previous)
        });
        let apps = self.apps.keys().map(|app| {
            let pods = self.pods_of(app);
            let mut pods: Vec<_> = pods.iter().map(|(_, pod)| (pod.revision(), pod.available())).collect();
            pods.sort();
            format!("{app} {pods:?}")
        });
        std::iter::once(phase).chain(namespaces).chain(apps).collect()
    }

    /// Adds a line for people to the history.
    pub fn note(&mut self, text: impl Into<String>) {
        self.history.push(Happening::Note(text.into()));
    }

    /// The labels of a namespace.
    pub fn labels_of(&self, namespace: &NamespaceName) -> BTreeMap<String, String> {
        self.namespaces.get(namespace).map(|namespace| namespace.labels.clone()).unwrap_or_default()
    }

    /// Changes a namespace; does nothing when it is gone.
    pub fn edit_namespace(&mut self, name: &NamespaceName, edit: impl FnOnce(&mut Namespace)) {
        let Some(mut namespace) = self.namespaces.get(name).cloned() else {
            return;
        };
        edit(Arc::make_mut(&mut namespace));
        let version = self.touch(Kind::Namespaces);
        Arc::make_mut(&mut namespace).resource_version = version.to_string();
        self.namespaces.insert(name.clone(), namespace);
    }

    /// Changes the spec of a workload: a new generation.
    pub fn edit_spec(&mut self, reference: &WorkloadRef, edit: impl FnOnce(&mut App)) {
        if let Some(app) = self.apps.get_mut(reference) {
            edit(app);
            Arc::make_mut(&mut app.view).generation += 1;
            self.touch(Kind::Workloads);
        }
    }

    /// Changes the request: a new generation, as a `kubectl apply` does.
    pub fn edit_intent(&mut self, edit: impl FnOnce(&mut Intent)) {
        let before = Arc::clone(&self.upgrade.intent);
        let intent = Arc::make_mut(&mut self.upgrade.intent);
        edit(intent);
        if *intent != *before {
            intent.generation += 1;
            self.upgrade.resource_version = self.touch(Kind::Upgrade);
        }
    }
}

//! Building the world that a case begins with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use meshupgrade_core::analysis::AnalysisIntent;
use meshupgrade_core::decision::View;
use meshupgrade_core::ids::{NamespaceName, Revision, Uid, WorkloadKind, WorkloadRef};
use meshupgrade_core::intent::{
    CompletionIntent, CompletionMode, InjectionMode, Intent, OnFailure, RestartIntent, RollbackControlPlane,
    RollbackScope, RunningJobs, WaveIntent, WaveSelect,
};
use meshupgrade_core::labels;
use meshupgrade_core::observed::{
    DisruptionBudget, IntOrPercent, Namespace, PodTemplate, RolloutStatus, Strategy, Workload,
};
use meshupgrade_core::record::Record;
use meshupgrade_core::selector::LabelSelector;

use super::views::Kind;
use super::{App, Git, Labelled, Plane, Tag, TagService, Upgrade, World};
use crate::neighbours::gitops::takes_label;

/// Revision that runs leave.
pub const OLD: &str = "asm-1-27";
/// Revision that runs go to.
pub const NEW: &str = "asm-1-28";
/// A third revision.
pub const OTHER: &str = "asm-1-26";
/// Namespace of the control planes.
pub const ISTIO: &str = "aks-istio-system";
/// Field manager of people with kubectl.
pub const KUBECTL: &str = "kubectl-label";

/// When every run begins.
pub fn epoch() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 50)
}

/// A reference to a Deployment.
pub fn deployment(namespace: &str, name: &str) -> WorkloadRef {
    WorkloadRef::new(WorkloadKind::Deployment, namespace, name)
}

/// A reference to a StatefulSet.
pub fn stateful_set(namespace: &str, name: &str) -> WorkloadRef {
    WorkloadRef::new(WorkloadKind::StatefulSet, namespace, name)
}

/// A reference to a DaemonSet.
pub fn daemon_set(namespace: &str, name: &str) -> WorkloadRef {
    WorkloadRef::new(WorkloadKind::DaemonSet, namespace, name)
}

/// The request of most cases: short times, one wave, completion by itself.
pub fn intent() -> Intent {
    Intent {
        aks: None,
        retired_mesh_config: meshupgrade_core::intent::RetiredMeshConfig::RemoveCopy,
        name: "mesh".to_owned(),
        uid: Uid::from("upgrade-1"),
        generation: 1,
        target: Revision::from(NEW),
        source: None,
        run_id: String::new(),
        istio_namespace: NamespaceName::from(ISTIO),
        injection: InjectionMode::NamespaceLabel,
        repairs_dropped: false,
        frozen_tags: None,
        settle_seconds: 30,
        waves: vec![wave("all", WaveSelect::Rest, 1)],
        restart: RestartIntent {
            timeout_seconds: 120,
            pause_seconds: 0,
            respect_budgets: true,
            grace_seconds: 60,
            max_failed_workloads: 0,
            progress_deadline_seconds: None,
            running_jobs: RunningJobs::Wait,
        },
        analysis: AnalysisIntent::default(),
        windows: Vec::new(),
        suspend: false,
        plan_only: false,
        rollback_requested: false,
        on_failure: OnFailure::Pause,
        rollback_scope: RollbackScope::All,
        rollback_control_plane: RollbackControlPlane::Keep,
        completion: CompletionIntent { mode: CompletionMode::Automatic, soak_seconds: 0 },
        skip_checks: BTreeSet::new(),
        retry: None,
        approval: None,
        action: None,
    }
}

/// A wave.
pub fn wave(name: &str, select: WaveSelect, max_concurrent: u32) -> WaveIntent {
    WaveIntent {
        name: name.to_owned(),
        select,
        max_concurrent_workloads: IntOrPercent::Int(max_concurrent),
        soak_seconds: 0,
        approval: false,
        analysis: None,
    }
}

/// Namespaces by name.
pub fn names(list: &[&str]) -> WaveSelect {
    WaveSelect::Names(list.iter().map(|name| NamespaceName::from(*name)).collect())
}

/// Rolling update in numbers.
pub fn rolling(max_surge: u32, max_unavailable: u32) -> Strategy {
    Strategy::RollingUpdate {
        max_unavailable: IntOrPercent::Int(max_unavailable),
        max_surge: IntOrPercent::Int(max_surge),
    }
}

/// The rolling update that a Deployment has by default.
pub fn default_rolling() -> Strategy {
    Strategy::RollingUpdate {
        max_unavailable: IntOrPercent::Percent(25),
        max_surge: IntOrPercent::Percent(25),
    }
}

impl World {
    /// A world with an old and a new control plane and nothing else.
    pub fn new(intent: Intent) -> Self {
        let mut world = Self {
            now: epoch(),
            version: 1,
            changed: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            labelled: BTreeMap::new(),
            apps: BTreeMap::new(),
            pods: BTreeMap::new(),
            pods_by_app: BTreeMap::new(),
            next_pod: 1,
            budgets: BTreeMap::new(),
            planes: BTreeMap::new(),
            tags: BTreeMap::new(),
            references: Vec::new(),
            git: BTreeMap::new(),
            sick: BTreeSet::new(),
            menu: Vec::new(),
            others: Vec::new(),
            nodes: 2,
            telemetry: crate::neighbours::telemetry::Telemetry::default(),
            upgrade: Upgrade {
                intent: Arc::new(intent),
                record: Arc::new(Record::default()),
                view: Arc::new(View::default()),
                resource_version: 1,
            },
            history: Vec::new(),
        };
        world.namespace("default", None);
        world.namespace(ISTIO, None);
        world.plane(OLD, Plane { installed: true, ready: 2, ..Plane::default() });
        world.plane(NEW, Plane { installed: true, ready: 2, ..Plane::default() });
        world
    }

    /// The request, while the world is built.
    pub fn request(&mut self) -> &mut Intent {
        Arc::make_mut(&mut self.upgrade.intent)
    }

    /// Sets a control plane.
    pub fn plane(&mut self, revision: &str, plane: Plane) {
        self.planes.insert(Revision::from(revision), plane);
        self.touch(Kind::Planes);
    }

    /// Points a revision tag at a revision, as somebody with istioctl does.
    pub fn tag(&mut self, name: &str, revision: &str) {
        let version = self.touch(Kind::Planes);
        let known = self.tags.remove(name);
        let tag = Tag {
            revision: Revision::from(revision),
            version,
            previous: known.as_ref().and_then(|tag| tag.previous.clone()),
            service: TagService {
                revision: Revision::from(revision),
                version,
                relabelled_by: known.as_ref().and_then(|tag| tag.service.relabelled_by.clone()),
            },
            relabelled_by: known.and_then(|tag| tag.relabelled_by),
            moved_at: self.now,
        };
        self.tags.insert(name.to_owned(), tag);
        self.tag_moved(name, false);
    }

    /// Points only the Service of a revision tag at a revision, with kubectl.
    pub fn tag_service(&mut self, name: &str, revision: &str) {
        let version = self.touch(Kind::Planes);
        if let Some(tag) = self.tags.get_mut(name) {
            (tag.service.revision, tag.service.version) = (Revision::from(revision), version);
        }
    }

    /// Creates a namespace, labelled with a revision by kubectl, or not at all.
    pub fn namespace(&mut self, name: &str, revision: Option<&str>) {
        let version = self.touch(Kind::Namespaces);
        let mut namespace = Namespace {
            name: NamespaceName::from(name),
            uid: Uid::from(format!("ns-{name}-{version}")),
            resource_version: version.to_string(),
            ..Namespace::default()
        };
        namespace.labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        if let Some(revision) = revision {
            namespace.labels.insert(labels::REVISION.to_owned(), revision.to_owned());
            takes_label(&mut namespace, KUBECTL, false, self.now);
        }
        let key = namespace.name.clone();
        self.labelled.insert(key.clone(), Labelled { since: self.now, by_operator: false });
        self.namespaces.insert(key, Arc::new(namespace));
    }

    /// A namespace that a GitOps tool manages.
    pub fn git_namespace(&mut self, name: &str, revision: &str, ignores: bool) {
        self.namespace(name, Some(revision));
        let key = NamespaceName::from(name);
        let manager = "argocd-controller".to_owned();
        let now = self.now;
        self.edit_namespace(&key, |namespace| {
            namespace.managers.clear();
            takes_label(namespace, &manager, true, now);
        });
        self.git.insert(key, Git { manager, revision: Revision::from(revision), ignores });
    }

    /// Creates a workload without pods.
    pub fn app(&mut self, reference: &WorkloadRef, replicas: u32, strategy: Strategy) {
        let version = self.touch(Kind::Workloads);
        let template = PodTemplate {
            labels: BTreeMap::from([("app".to_owned(), reference.name.clone())]),
            ..PodTemplate::default()
        };
        let view = Workload {
            reference: reference.clone(),
            uid: Uid::from(format!("{}-{}-{version}", reference.namespace, reference.name)),
            generation: 1,
            controller: None,
            managers: Vec::new(),
            replicas,
            strategy,
            paused: false,
            ordered: reference.kind == WorkloadKind::StatefulSet,
            rollout: RolloutStatus::default(),
            template,
            argo: None,
        };
        let app = App {
            view: Arc::new(view),
            release: 1,
            previous: None,
            autoscaled: false,
            meshed: false,
            progress: self.now,
        };
        self.apps.insert(reference.clone(), app);
    }

    /// Creates a workload whose pods run.
    pub fn running(&mut self, reference: &WorkloadRef, replicas: u32, strategy: Strategy) {
        self.app(reference, replicas, strategy);
        let template = self.template_of(reference);
        for slot in 0..replicas {
            let id = self.next_pod;
            self.create_pod(reference, slot, template.clone(), 0);
            self.edit_pod(id, |pod| pod.ready = true);
        }
        self.settle_status(reference);
    }

    /// A workload's status as its controller leaves it when all is done.
    fn settle_status(&mut self, reference: &WorkloadRef) {
        if let Some(app) = self.apps.get_mut(reference) {
            let view = Arc::make_mut(&mut app.view);
            let replicas = view.replicas;
            view.rollout = RolloutStatus {
                observed_generation: view.generation,
                current: replicas,
                updated: replicas,
                ready: replicas,
                available: replicas,
                deadline_exceeded: false,
                create_failure: None,
            };
        }
    }

    /// Changes a workload while the world is built.
    pub fn shape(&mut self, reference: &WorkloadRef, edit: impl FnOnce(&mut Workload)) {
        if let Some(app) = self.apps.get_mut(reference) {
            edit(Arc::make_mut(&mut app.view));
        }
    }

    /// Creates a pod disruption budget for the pods of one or more workloads (label `app`).
    pub fn budget(&mut self, namespace: &str, app: &str, min_available: u32) {
        let selector = LabelSelector {
            match_labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            match_expressions: Vec::new(),
        };
        let budget = DisruptionBudget {
            name: app.to_owned(),
            selector: Some(selector),
            min_available: Some(IntOrPercent::Int(min_available)),
            ..DisruptionBudget::default()
        };
        self.budgets.entry(NamespaceName::from(namespace)).or_default().push(Arc::new(budget));
        self.touch(Kind::Budgets);
        crate::neighbours::disruption::step(self, &mut crate::rng::Rng::ordered());
    }
}

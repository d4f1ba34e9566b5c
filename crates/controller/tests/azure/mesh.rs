//! A mesh by hand: two namespaces without workloads, and the control planes that are installed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use meshupgrade_core::aks::id::ClusterId;
use meshupgrade_core::analysis::AnalysisIntent;
use meshupgrade_core::census::Census;
use meshupgrade_core::decision::Needs;
use meshupgrade_core::effect::{PreviousEdit, Relabel};
use meshupgrade_core::ids::{NamespaceName, WorkloadKind, WorkloadRef};
use meshupgrade_core::intent::{
    CompletionIntent, CompletionMode, InjectionMode, Intent, OnFailure, RestartIntent, RollbackControlPlane,
    RollbackScope, RunningJobs, WaveIntent, WaveSelect,
};
use meshupgrade_core::labels;
use meshupgrade_core::observed::{
    ClientConfig, ControlPlane, FieldManager, IntOrPercent, Istiod, MeshConfig, Namespace, PodTemplate,
    RolloutStatus, ServiceReference, Snapshot, Strategy, WebhookConfiguration, WebhookEntry, Workload,
};
use meshupgrade_core::selector::{LabelSelector, Operator, Requirement};

pub const SOURCE: &str = "asm-1-27";
pub const TARGET: &str = "asm-1-28";
/// A revision that is neither.
pub const OTHER: &str = "asm-1-29";
const ISTIO: &str = "aks-istio-system";

/// An upgrade of the simulator's default cluster in two waves, which ends by itself.
pub fn intent() -> Intent {
    let wave = |name: &str, select| WaveIntent {
        name: name.to_owned(),
        select,
        max_concurrent_workloads: IntOrPercent::Int(1),
        soak_seconds: 0,
        approval: false,
        analysis: None,
    };
    Intent {
        retired_mesh_config: meshupgrade_core::intent::RetiredMeshConfig::RemoveCopy,
        aks: ClusterId::new("33333333-3333-3333-3333-333333333333", "mesh-rg", "mesh-test").ok(),
        name: "mesh".to_owned(),
        uid: "u".into(),
        generation: 1,
        target: TARGET.into(),
        source: None,
        run_id: String::new(),
        istio_namespace: ISTIO.into(),
        injection: InjectionMode::NamespaceLabel,
        repairs_dropped: false,
        frozen_tags: None,
        settle_seconds: 30,
        waves: vec![
            wave("canary", WaveSelect::Names(BTreeSet::from(["pay".into()]))),
            wave("all", WaveSelect::Rest),
        ],
        restart: RestartIntent {
            timeout_seconds: 600,
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
        rollback_control_plane: RollbackControlPlane::Remove,
        completion: CompletionIntent { mode: CompletionMode::Automatic, soak_seconds: 0 },
        skip_checks: BTreeSet::new(),
        retry: None,
        approval: None,
        action: None,
    }
}

/// Namespaces, and the last count.
pub struct Mesh {
    namespaces: BTreeMap<NamespaceName, Arc<Namespace>>,
    census: Option<Arc<Census>>,
}

impl Mesh {
    /// `pay` and `shop`, both on the source.
    pub fn new() -> Self {
        let namespace = |name: &str| Namespace {
            name: name.into(),
            uid: name.into(),
            resource_version: "1".to_owned(),
            labels: BTreeMap::from([(labels::REVISION.to_owned(), SOURCE.to_owned())]),
            ..Namespace::default()
        };
        let all = ["pay", "shop"].map(|name| (NamespaceName::from(name), Arc::new(namespace(name))));
        Self { namespaces: all.into(), census: None }
    }

    pub fn snapshot(&self, installed: &BTreeSet<String>, needs: &Needs) -> Snapshot {
        Snapshot {
            webhooks: installed.iter().map(|name| own_webhook(name)).collect(),
            control_planes: installed
                .iter()
                .map(|name| (name.as_str().into(), control_plane(name)))
                .collect(),
            namespaces: self.namespaces.clone(),
            workloads: installed.iter().flat_map(|revision| gateways(revision)).collect(),
            pods: needs.pods.iter().map(|name| (name.clone(), Vec::new())).collect(),
            census: self.census.clone(),
            ..Snapshot::default()
        }
    }

    /// The revisions that new pods would ask for.
    pub fn revisions(&self) -> BTreeSet<&str> {
        let values = self.namespaces.values().filter_map(|namespace| namespace.labels.get(labels::REVISION));
        values.map(String::as_str).collect()
    }

    /// Counts, if the last count is too old.
    pub fn count(&mut self, since: Option<Timestamp>, now: Timestamp) {
        let counted = self.census.as_ref().and_then(|census| census.taken_at);
        if since.is_some_and(|since| counted.is_none_or(|counted| counted < since)) {
            let census = Census { taken_at: Some(now), ..Census::default() };
            self.census = Some(Arc::new(census));
        }
    }

    /// Forgets what a process knows of it.
    pub fn forget_count(&mut self) {
        self.census = None;
    }

    pub fn relabel(&mut self, change: &Relabel, now: Timestamp) {
        let found = Arc::make_mut(self.namespaces.get_mut(&change.namespace).unwrap());
        if found.resource_version != change.resource_version {
            return;
        }
        found.labels.remove(labels::REVISION);
        if let Some(revision) = &change.revision {
            found.labels.insert(labels::REVISION.to_owned(), revision.to_string());
        }
        match &change.previous {
            PreviousEdit::Set(previous) => found.previous = Some(previous.clone()),
            PreviousEdit::Leave => {}
            PreviousEdit::Remove => found.previous = None,
        }
        found.relabelled_by = Some(change.stamp.clone());
        found.resource_version.push('1');
        found.managers = vec![FieldManager {
            name: labels::FIELD_MANAGER.to_owned(),
            wrote_at: Some(now),
            owns_revision: true,
            ..FieldManager::default()
        }];
    }
}

/// The add-on's own gateways of a revision, all of them ready.
fn gateways(revision: &str) -> [(WorkloadRef, Arc<Workload>); 3] {
    [
        ("aks-istio-ingress", "aks-istio-ingressgateway-external"),
        ("aks-istio-ingress", "aks-istio-ingressgateway-internal"),
        ("aks-istio-egress", "egress"),
    ]
    .map(|(namespace, name)| {
        let reference = WorkloadRef::new(WorkloadKind::Deployment, namespace, format!("{name}-{revision}"));
        let rollout = RolloutStatus {
            observed_generation: 1,
            current: 1,
            updated: 1,
            ready: 1,
            available: 1,
            ..RolloutStatus::default()
        };
        let workload = Workload {
            reference: reference.clone(),
            uid: reference.name.as_str().into(),
            generation: 1,
            controller: None,
            managers: Vec::new(),
            replicas: 1,
            strategy: Strategy::Recreate,
            paused: false,
            ordered: false,
            rollout,
            template: PodTemplate::default(),
            argo: None,
        };
        (reference, Arc::new(workload))
    })
}

fn own_webhook(revision: &str) -> Arc<WebhookConfiguration> {
    let term = |key: &str, operator, values: &[&str]| Requirement {
        key: key.to_owned(),
        operator,
        values: values.iter().map(|&value| value.to_owned()).collect(),
    };
    let selector = |match_expressions| LabelSelector { match_labels: BTreeMap::new(), match_expressions };
    let named = term(labels::REVISION, Operator::In, &[revision]);
    let absent = |key| term(key, Operator::DoesNotExist, &[]);
    let wanted = term(labels::SIDECAR_INJECT, Operator::NotIn, &["false"]);
    let entry = |name: &str, namespaces, pods| WebhookEntry {
        name: name.to_owned(),
        namespace_selector: selector(namespaces),
        object_selector: selector(pods),
        client: client(revision),
        fails_closed: true,
    };
    let by_namespace = vec![named.clone(), absent(labels::INJECTION)];
    let by_pod = vec![absent(labels::REVISION), absent(labels::INJECTION)];
    Arc::new(WebhookConfiguration {
        name: format!("istio-sidecar-injector-{revision}-{ISTIO}"),
        revision: Some(revision.into()),
        entries: vec![
            entry("rev.namespace.sidecar-injector.istio.io", by_namespace, vec![wanted.clone()]),
            entry("rev.object.sidecar-injector.istio.io", by_pod, vec![wanted, named]),
        ],
        ..WebhookConfiguration::default()
    })
}

fn client(revision: &str) -> ClientConfig {
    let service = ServiceReference {
        namespace: ISTIO.into(),
        name: format!("istiod-{revision}"),
        path: None,
        port: None,
    };
    let ca_bundle = "-----BEGIN CERTIFICATE-----\nMIIroot\n-----END CERTIFICATE-----\n".to_owned();
    ClientConfig { service: Some(service), url: None, ca_bundle }
}

fn control_plane(revision: &str) -> ControlPlane {
    ControlPlane {
        istiod: Some(Istiod { name: format!("istiod-{revision}"), desired: 2, ready: 2 }),
        injector_config: true,
        proxy_image: None,
        mesh_config: Some(MeshConfig {
            trust_domain: "cluster.local".to_owned(),
            discovery_selectors: String::new(),
        }),
    }
}

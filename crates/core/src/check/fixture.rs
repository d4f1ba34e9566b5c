//! A small mesh that passes every check, to be broken in one place by each test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::{CheckInput, completion, preflight, rollback_proof};
use crate::analysis::AnalysisIntent;
use crate::census::Census;
use crate::decision::{CheckOutcome, CheckResult};
use crate::ids::{NamespaceName, Revision, ServiceRef, WorkloadKind, WorkloadRef};
use crate::intent::{
    CompletionIntent, CompletionMode, InjectionMode, Intent, OnFailure, RestartIntent, RetiredMeshConfig,
    RollbackControlPlane, RollbackScope, RunningJobs, WaveIntent, WaveSelect,
};
use crate::labels;
use crate::observed::{
    ClientConfig, ControlPlane, IntOrPercent, Istiod, IstiodService, Labels, MeshConfig, Namespace,
    PodTemplate, RolloutStatus, ServiceReference, Snapshot, Strategy, WebhookConfiguration, WebhookEntry,
    Workload,
};
use crate::plan::{Plan, PlannedWave, Unrestartable};
use crate::selector::{LabelSelector, Operator, Requirement};

pub(crate) const SOURCE: &str = "asm-1-27";
pub(crate) const TARGET: &str = "asm-1-28";
pub(crate) const ROOT: &str = "-----BEGIN CERTIFICATE-----\nMIIroot\n-----END CERTIFICATE-----\n";

/// Everything that a check looks at, owned.
pub(crate) struct Mesh {
    pub intent: Intent,
    pub source: Revision,
    pub target: Revision,
    pub snapshot: Snapshot,
    pub plan: Plan,
    pub unrestartable: Vec<Unrestartable>,
}

impl Mesh {
    /// Two ready revisions and the namespaces `shop` and `pay` on the source, in one wave.
    pub fn before() -> Self {
        let mut mesh = Self {
            intent: intent(),
            source: SOURCE.into(),
            target: TARGET.into(),
            snapshot: Snapshot {
                webhooks: vec![own_webhook(SOURCE), own_webhook(TARGET)],
                istiod_services: Some(vec![istiod_service(SOURCE), istiod_service(TARGET)]),
                control_planes: [SOURCE, TARGET]
                    .into_iter()
                    .map(|name| (name.into(), control_plane(name)))
                    .collect(),
                ..Snapshot::default()
            },
            plan: Plan::default(),
            unrestartable: Vec::new(),
        };
        mesh.add_namespace("shop", &[(labels::REVISION, SOURCE)]);
        mesh.add_namespace("pay", &[(labels::REVISION, SOURCE)]);
        mesh.plan.waves.push(PlannedWave {
            name: "all".to_owned(),
            namespaces: vec!["shop".into(), "pay".into()],
            ..PlannedWave::default()
        });
        mesh
    }

    /// The same with everything on the target, and counted.
    pub fn after() -> Self {
        let mut mesh = Self::before();
        for name in ["shop", "pay"] {
            mesh.namespace(name, |namespace| {
                namespace.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
            });
        }
        mesh.census(|census| census.taken_at = Some(Timestamp::UNIX_EPOCH));
        mesh.proxies("shop", TARGET, 3);
        mesh
    }

    pub fn add_namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let namespace = Namespace { name: name.into(), labels: map(labels), ..Namespace::default() };
        self.snapshot.namespaces.insert(name.into(), Arc::new(namespace));
    }

    pub fn namespace(&mut self, name: &str, change: impl FnOnce(&mut Namespace)) {
        let namespace = self.snapshot.namespaces.get_mut(&NamespaceName::from(name)).unwrap();
        change(Arc::make_mut(namespace));
    }

    pub fn census(&mut self, change: impl FnOnce(&mut Census)) {
        change(Arc::make_mut(self.snapshot.census.get_or_insert_default()));
    }

    pub fn proxies(&mut self, namespace: &str, revision: &str, count: u32) {
        self.census(|census| {
            let counts = census.proxies.entry(namespace.into()).or_default();
            counts.insert(revision.into(), count);
        });
    }

    pub fn add_workload(&mut self, namespace: &str, name: &str, template_labels: &[(&str, &str)]) {
        let reference = WorkloadRef::new(WorkloadKind::Deployment, namespace, name);
        let workload = Workload {
            reference: reference.clone(),
            uid: name.into(),
            generation: 1,
            controller: None,
            managers: Vec::new(),
            replicas: 1,
            strategy: Strategy::Recreate,
            paused: false,
            ordered: false,
            rollout: RolloutStatus::default(),
            argo: None,
            template: PodTemplate { labels: map(template_labels), ..PodTemplate::default() },
        };
        self.snapshot.workloads.insert(reference, Arc::new(workload));
    }

    pub fn plane(&mut self, revision: &str, change: impl FnOnce(&mut ControlPlane)) {
        change(self.snapshot.control_planes.get_mut(&Revision::from(revision)).unwrap());
    }

    /// Changes the own webhook of a revision.
    pub fn webhook(&mut self, revision: &str, change: impl FnOnce(&mut WebhookConfiguration)) {
        let webhook =
            self.snapshot.webhooks.iter_mut().find(|webhook| webhook.revision == Some(revision.into()));
        change(Arc::make_mut(webhook.unwrap()));
    }

    pub fn add_tag(&mut self, tag: &str, revision: &str) {
        let mut webhook = WebhookConfiguration::clone(&own_webhook(tag));
        webhook.name = format!("istio-revision-tag-{tag}");
        webhook.revision = Some(revision.into());
        webhook.tag = Some(tag.to_owned());
        for entry in &mut webhook.entries {
            entry.client = client(revision);
        }
        self.snapshot.webhooks.push(Arc::new(webhook));
    }

    /// The Service of a tag, as Istio's chart makes it.
    pub fn add_tag_service(&mut self, tag: &str, revision: &str) {
        let mut service = IstiodService::clone(&istiod_service(revision));
        service.reference.name = format!("istiod-revision-tag-{tag}");
        service.tag = Some(tag.to_owned());
        self.snapshot.istiod_services.get_or_insert_default().push(Arc::new(service));
    }

    /// Another revision, which nothing uses.
    pub fn add_revision(&mut self, revision: &str) {
        self.snapshot.webhooks.push(own_webhook(revision));
        self.snapshot.control_planes.insert(revision.into(), control_plane(revision));
    }

    pub fn skip(&mut self, name: &str) {
        self.intent.skip_checks.insert(name.to_owned());
    }

    fn input(&self) -> CheckInput<'_> {
        CheckInput {
            intent: &self.intent,
            source: &self.source,
            target: &self.target,
            snapshot: &self.snapshot,
            plan: &self.plan,
            unrestartable: &self.unrestartable,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    pub fn preflight(&self) -> Vec<CheckResult> {
        preflight(&self.input())
    }

    pub fn completion(&self) -> Vec<CheckResult> {
        completion(&self.input())
    }

    pub fn rollback_proof(&self) -> Vec<CheckResult> {
        rollback_proof(&self.input())
    }
}

/// The results that say something, as `Name outcome: message`.
pub(crate) fn said(results: &[CheckResult]) -> Vec<String> {
    results
        .iter()
        .filter(|result| result.outcome != CheckOutcome::Passed)
        .map(|result| format!("{} {:?}: {}", result.name, result.outcome, result.message))
        .collect()
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn own_webhook(revision: &str) -> Arc<WebhookConfiguration> {
    let term = |key: &str, operator, values: &[&str]| Requirement {
        key: key.to_owned(),
        operator,
        values: values.iter().map(ToString::to_string).collect(),
    };
    let selector = |match_expressions| LabelSelector { match_labels: BTreeMap::new(), match_expressions };
    let entry = |name: &str, namespace, object| WebhookEntry {
        name: name.to_owned(),
        namespace_selector: selector(namespace),
        object_selector: selector(object),
        client: client(revision),
        fails_closed: true,
    };
    let named = || term(labels::REVISION, Operator::In, &[revision]);
    let absent = |key| term(key, Operator::DoesNotExist, &[]);
    let not_out = || term(labels::SIDECAR_INJECT, Operator::NotIn, &["false"]);
    let by_namespace = entry(
        "rev.namespace.sidecar-injector.istio.io",
        vec![named(), absent(labels::INJECTION)],
        vec![not_out()],
    );
    let by_pod = entry(
        "rev.object.sidecar-injector.istio.io",
        vec![absent(labels::REVISION), absent(labels::INJECTION)],
        vec![not_out(), named()],
    );
    Arc::new(WebhookConfiguration {
        name: format!("istio-sidecar-injector-{revision}"),
        revision: Some(revision.into()),
        entries: vec![by_namespace, by_pod],
        ..WebhookConfiguration::default()
    })
}

fn istiod_service(revision: &str) -> Arc<IstiodService> {
    let reference = ServiceRef { namespace: "istio-system".into(), name: format!("istiod-{revision}") };
    Arc::new(IstiodService {
        reference,
        revision: Some(revision.into()),
        selector: map(&[("app", "istiod"), (labels::REVISION, revision)]),
        ..IstiodService::default()
    })
}

/// Where the webhooks of a revision point.
pub(crate) fn client(revision: &str) -> ClientConfig {
    let name = format!("istiod-{revision}");
    let service = ServiceReference {
        namespace: "istio-system".into(),
        name,
        path: Some("/inject".to_owned()),
        port: None,
    };
    ClientConfig { service: Some(service), url: None, ca_bundle: ROOT.to_owned() }
}

fn control_plane(revision: &str) -> ControlPlane {
    ControlPlane {
        istiod: Some(Istiod { name: format!("istiod-{revision}"), desired: 2, ready: 2 }),
        injector_config: true,
        proxy_image: Some("hub/proxyv2:1.28.1".to_owned()),
        mesh_config: Some(MeshConfig {
            trust_domain: "cluster.local".to_owned(),
            discovery_selectors: String::new(),
        }),
    }
}

fn intent() -> Intent {
    Intent {
        aks: None,
        name: "mesh".to_owned(),
        uid: "u".into(),
        generation: 1,
        target: TARGET.into(),
        source: None,
        run_id: String::new(),
        istio_namespace: "istio-system".into(),
        retired_mesh_config: RetiredMeshConfig::RemoveCopy,
        injection: InjectionMode::NamespaceLabel,
        repairs_dropped: false,
        frozen_tags: None,
        settle_seconds: 30,
        waves: vec![WaveIntent {
            name: "all".to_owned(),
            select: WaveSelect::Rest,
            max_concurrent_workloads: IntOrPercent::Int(1),
            soak_seconds: 0,
            approval: false,
            analysis: None,
        }],
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
        completion: CompletionIntent { mode: CompletionMode::Manual, soak_seconds: 0 },
        skip_checks: BTreeSet::new(),
        retry: None,
        approval: None,
        action: None,
    }
}

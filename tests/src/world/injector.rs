//! The injector: what the API server makes of a new pod. Written from the webhooks' definition and from nothing in
//! `core`, because it is the oracle that `core`'s own view of injection is held against.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use meshupgrade_core::ids::{NamespaceName, Revision, ServiceRef};
use meshupgrade_core::labels;
use meshupgrade_core::observed::{
    ClientConfig, FieldManager, IstiodService, PodTemplate, ServiceReference, WebhookConfiguration,
    WebhookEntry,
};
use meshupgrade_core::selector::{LabelSelector, Operator, Requirement};

use super::build::ISTIO;
use super::{Plane, Tag, World};

/// What becomes of a new pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No webhook selects it: it starts without a sidecar, and nobody is told.
    Nothing,
    /// It gets this revision's sidecar.
    Injected(Revision),
    /// Several webhooks inject it.
    Twice(Vec<Revision>),
    /// The webhook's istiod does not answer: the pod is not created.
    Refused,
}

/// What becomes of a pod of this template in this namespace, now.
pub fn inject(world: &World, namespace: &NamespaceName, template: &PodTemplate) -> Outcome {
    let outcome = selected(&webhooks(world), &world.labels_of(namespace), namespace, template);
    match &outcome {
        Outcome::Injected(revision) if !world.planes.get(revision).is_some_and(Plane::answers) => {
            Outcome::Refused
        }
        _ => outcome,
    }
}

/// The same from any list of webhooks, for istiods that all answer.
pub fn selected(
    webhooks: &[Arc<WebhookConfiguration>],
    namespace_labels: &BTreeMap<String, String>,
    namespace: &NamespaceName,
    template: &PodTemplate,
) -> Outcome {
    let never = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
    if never.contains(&namespace.as_str()) || template.host_network {
        return Outcome::Nothing;
    }
    let mut found: Vec<Revision> = webhooks
        .iter()
        .filter(|webhook| {
            webhook.entries.iter().any(|entry| selects(entry, namespace_labels, &template.labels))
        })
        .filter_map(|webhook| webhook.revision.clone())
        .collect();
    match found.len() {
        0 => Outcome::Nothing,
        1 => Outcome::Injected(found.remove(0)),
        _ => Outcome::Twice(found),
    }
}

fn selects(
    entry: &WebhookEntry,
    namespace: &BTreeMap<String, String>,
    pod: &BTreeMap<String, String>,
) -> bool {
    holds(&entry.namespace_selector, namespace) && holds(&entry.object_selector, pod)
}

fn holds(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    equal && selector.match_expressions.iter().all(|term| term_holds(term, labels))
}

fn term_holds(term: &Requirement, labels: &BTreeMap<String, String>) -> bool {
    let listed = labels.get(&term.key).map(|value| term.values.contains(value));
    match term.operator {
        Operator::In => listed == Some(true),
        Operator::NotIn => listed != Some(true),
        Operator::Exists => listed.is_some(),
        Operator::DoesNotExist => listed.is_none(),
    }
}

impl Plane {
    /// Whether its webhook answers.
    pub fn answers(&self) -> bool {
        self.installed && self.ready > 0
    }
}

/// The webhooks of all installed control planes and of the tags, as Istio's chart renders them.
/// Source: manifests/charts/istio-control/istio-discovery/templates/{mutatingwebhook,revision-tags-mwc}.yaml in istio/istio.
pub fn webhooks(world: &World) -> Vec<Arc<WebhookConfiguration>> {
    let installed = world.planes.iter().filter(|(_, plane)| plane.installed && !plane.no_webhook);
    let own = installed.map(|(revision, plane)| revision_webhook(revision, plane.default));
    let tags = world.tags.iter().map(|(tag, revision)| tag_webhook(tag, revision));
    own.chain(tags).map(Arc::new).collect()
}

fn revision_webhook(revision: &Revision, default: bool) -> WebhookConfiguration {
    let mut entries = vec![
        entry("rev.namespace", revision, by_namespace(revision.as_str()), not_opted_out()),
        entry("rev.object", revision, unlabelled(), by_object(revision.as_str())),
    ];
    if default {
        entries.push(entry("namespace", revision, enabled(), not_opted_out()));
        entries.push(entry("object", revision, unlabelled(), opted_in()));
    }
    WebhookConfiguration {
        name: format!("istio-sidecar-injector-{revision}-istio-system"),
        revision: Some(revision.clone()),
        entries,
        ..WebhookConfiguration::default()
    }
}

fn tag_webhook(tag: &str, it: &Tag) -> WebhookConfiguration {
    let revision = &it.revision;
    WebhookConfiguration {
        name: format!("istio-revision-tag-{tag}-istio-system"),
        revision: Some(revision.clone()),
        tag: Some(tag.to_owned()),
        entries: vec![
            entry("rev.namespace", revision, by_namespace(tag), not_opted_out()),
            entry("rev.object", revision, unlabelled(), by_object(tag)),
        ],
        resource_version: it.version.to_string(),
        previous: it.previous.clone(),
        relabelled_by: it.relabelled_by.clone(),
        managers: vec![FieldManager {
            name: if it.relabelled_by.is_some() { labels::FIELD_MANAGER } else { "istioctl" }.to_owned(),
            // Whole seconds, rounded down.
            wrote_at: Timestamp::from_second(it.moved_at.as_second()).ok(),
            owns_revision: true,
            ..FieldManager::default()
        }],
        ..WebhookConfiguration::default()
    }
}

/// The Services of all installed istiods and of the tags.
/// Source: manifests/charts/istio-control/istio-discovery/templates/{service,revision-tags-svc}.yaml in istio/istio.
pub fn istiod_services(world: &World) -> Vec<Arc<IstiodService>> {
    let installed = world.planes.iter().filter(|(_, plane)| plane.installed);
    let own = installed.map(|(revision, _)| istiod_service(&format!("istiod-{revision}"), revision));
    let tags = world.tags.iter().map(|(tag, it)| IstiodService {
        tag: Some(tag.clone()),
        resource_version: it.service.version.to_string(),
        relabelled_by: it.service.relabelled_by.clone(),
        ..istiod_service(&format!("istiod-revision-tag-{tag}"), &it.service.revision)
    });
    own.chain(tags).map(Arc::new).collect()
}

fn istiod_service(name: &str, revision: &Revision) -> IstiodService {
    let selector = [("app", "istiod"), ("istio.io/rev", revision.as_str())];
    IstiodService {
        reference: ServiceRef { namespace: ISTIO.into(), name: name.to_owned() },
        revision: Some(revision.clone()),
        selector: selector.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..IstiodService::default()
    }
}

fn client(revision: &Revision) -> ClientConfig {
    let service = ServiceReference {
        namespace: ISTIO.into(),
        name: format!("istiod-{revision}"),
        path: Some("/inject".to_owned()),
        port: None,
    };
    ClientConfig { service: Some(service), url: None, ca_bundle: "-----BEGIN CERTIFICATE-----".to_owned() }
}

fn entry(name: &str, revision: &Revision, namespace: LabelSelector, object: LabelSelector) -> WebhookEntry {
    WebhookEntry {
        name: format!("{name}.sidecar-injector.istio.io"),
        namespace_selector: namespace,
        object_selector: object,
        client: client(revision),
        fails_closed: true,
    }
}

fn by_namespace(value: &str) -> LabelSelector {
    expressions(vec![
        term("istio.io/rev", Operator::In, &[value]),
        term("istio-injection", Operator::DoesNotExist, &[]),
    ])
}

fn unlabelled() -> LabelSelector {
    expressions(vec![
        term("istio.io/rev", Operator::DoesNotExist, &[]),
        term("istio-injection", Operator::DoesNotExist, &[]),
    ])
}

fn enabled() -> LabelSelector {
    expressions(vec![term("istio-injection", Operator::In, &["enabled"])])
}

fn not_opted_out() -> LabelSelector {
    expressions(vec![term("sidecar.istio.io/inject", Operator::NotIn, &["false"])])
}

fn by_object(value: &str) -> LabelSelector {
    expressions(vec![
        term("sidecar.istio.io/inject", Operator::NotIn, &["false"]),
        term("istio.io/rev", Operator::In, &[value]),
    ])
}

fn opted_in() -> LabelSelector {
    expressions(vec![
        term("sidecar.istio.io/inject", Operator::In, &["true"]),
        term("istio.io/rev", Operator::DoesNotExist, &[]),
    ])
}

fn expressions(terms: Vec<Requirement>) -> LabelSelector {
    LabelSelector { match_labels: BTreeMap::new(), match_expressions: terms }
}

fn term(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    Requirement {
        key: key.to_owned(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    }
}

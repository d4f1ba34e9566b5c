//! Injection truth: which revision, if any, a new pod gets its sidecar from.
//!
//! Nothing here knows which label beats which: the *live* webhooks' selectors are evaluated as the API server does it, so
//! that revisions, tags and hand-made webhooks all count as they are. What the injector itself refuses after it was called
//! is added. Not modelled, because no snapshot holds it: `neverInjectSelector` and `policy: disabled` of the injector's
//! ConfigMap.

use std::borrow::Cow;
use std::sync::Arc;

use crate::ids::{NamespaceName, Revision};
use crate::labels;
use crate::observed::{Labels, Pod, PodTemplate, WebhookConfiguration, WebhookEntry};

/// The label that the API server gives every namespace; its value is the namespace's name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// The injection template of gateways.
const GATEWAY_TEMPLATE: &str = "gateway";

/// What decides injection of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodShape<'a> {
    /// Labels of the pod.
    pub labels: &'a Labels,
    /// Annotations of the pod.
    pub annotations: &'a Labels,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// The template brings an `istio-proxy` container before anything is injected.
    pub own_proxy: bool,
}

/// A webhook configuration that injects a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injector {
    /// The revision whose istiod answers.
    pub revision: Revision,
    /// The tag, when this is a revision tag.
    pub tag: Option<String>,
    /// Name of the configuration.
    pub webhook: String,
}

/// What happens to a new pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injection {
    /// It gets no sidecar.
    None(NoInjection),
    /// It gets a sidecar.
    One(Injector),
    /// Several configurations inject it one after the other; in the order of their names. Istio calls that an error
    /// (IST0139).
    Several(Vec<Injector>),
}

impl Injection {
    /// The configurations that inject it, if any.
    pub fn injectors(&self) -> &[Injector] {
        match self {
            Self::None(_) => &[],
            Self::One(injector) => std::slice::from_ref(injector),
            Self::Several(injectors) => injectors,
        }
    }
}

/// Why a pod gets no sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoInjection {
    /// No live webhook selects it.
    NotSelected,
    /// It says `sidecar.istio.io/inject: "false"`.
    OptedOut,
    /// It uses the node's network.
    HostNetwork,
    /// Its namespace is one that Istio never injects.
    SystemNamespace,
    /// Nothing injects it, and it brings a proxy of its own: it has a sidecar that no restart and no label changes.
    OwnProxy,
}

impl PodTemplate {
    /// What decides injection of this template's pods.
    pub fn shape(&self) -> PodShape<'_> {
        PodShape {
            labels: &self.labels,
            annotations: &self.annotations,
            host_network: self.host_network,
            own_proxy: self.own_proxy,
        }
    }
}

impl Pod {
    /// What would decide injection if this pod were created again. Its proxy is not its own: in a live pod one cannot tell
    /// what the injector added.
    pub fn shape(&self) -> PodShape<'_> {
        PodShape {
            labels: &self.labels,
            annotations: &self.annotations,
            host_network: self.host_network,
            own_proxy: false,
        }
    }
}

/// What happens to a new pod in a namespace with these labels.
///
/// An `istio-proxy` container in the template does not keep the injector away: it is merged with what is injected. That
/// holds for `image: auto` (gateways, and sidecars with settings of their own) and for the result of
/// `istioctl kube-inject`, whose containers are replaced. Only where nothing injects the pod does its own proxy stay as it
/// is, which is [`NoInjection::OwnProxy`]; a template that asks for the gateway template without getting it has no proxy
/// that could run, and keeps the reason why it gets none.
/// Source: `injectRequired`, `stripPod` and `reapplyOverwrittenContainers` in istio/istio pkg/kube/inject.
pub fn injection(
    webhooks: &[Arc<WebhookConfiguration>],
    namespace: &NamespaceName,
    namespace_labels: &Labels,
    pod: &PodShape<'_>,
) -> Injection {
    let reason = match refusal(namespace, pod) {
        Some(reason) => reason,
        None => match selecting(webhooks, namespace, namespace_labels, pod.labels) {
            Some(injection) => return injection,
            None => NoInjection::NotSelected,
        },
    };
    if pod.own_proxy && !asks_for_gateway(pod) {
        return Injection::None(NoInjection::OwnProxy);
    }
    Injection::None(reason)
}

/// The same for a pod without any labels: what the namespace by itself asks for.
pub fn namespace_injection(
    webhooks: &[Arc<WebhookConfiguration>],
    namespace: &NamespaceName,
    namespace_labels: &Labels,
) -> Injection {
    let nothing = Labels::new();
    let pod = PodShape { labels: &nothing, annotations: &nothing, host_network: false, own_proxy: false };
    injection(webhooks, namespace, namespace_labels, &pod)
}

/// The labels that a namespace would have after relabelling to `revision`.
pub fn relabelled(labels: &Labels, revision: &Revision) -> Labels {
    let mut labels = labels.clone();
    labels.remove(labels::INJECTION);
    labels.insert(labels::REVISION.to_owned(), revision.as_str().to_owned());
    labels
}

/// Whether relabelling to `revision` would change nothing.
pub fn is_relabelled(labels: &Labels, revision: &Revision) -> bool {
    relabelled(labels, revision) == *labels
}

/// What the injector refuses, whatever the webhooks select.
fn refusal(namespace: &NamespaceName, pod: &PodShape<'_>) -> Option<NoInjection> {
    if labels::NEVER_INJECTED.contains(&namespace.as_str()) {
        Some(NoInjection::SystemNamespace)
    } else if pod.host_network {
        Some(NoInjection::HostNetwork)
    } else if opted_out(pod) {
        Some(NoInjection::OptedOut)
    } else {
        None
    }
}

/// The label wins over the annotation of the same name, also when it is empty. Values other than "true" and "false" are
/// read differently by different versions of Istio: they are left to the webhooks here.
fn opted_out(pod: &PodShape<'_>) -> bool {
    pod.labels
        .get(labels::SIDECAR_INJECT)
        .or_else(|| pod.annotations.get(labels::SIDECAR_INJECT))
        .is_some_and(|value| value == "false")
}

fn asks_for_gateway(pod: &PodShape<'_>) -> bool {
    pod.annotations
        .get(labels::INJECT_TEMPLATES)
        .is_some_and(|templates| templates.split(',').any(|name| name.trim() == GATEWAY_TEMPLATE))
}

/// The configurations that select a pod. Each counts once: entries of one configuration lead to the same istiod, and
/// injecting what it injected before changes nothing.
fn selecting(
    webhooks: &[Arc<WebhookConfiguration>],
    namespace: &NamespaceName,
    namespace_labels: &Labels,
    pod_labels: &Labels,
) -> Option<Injection> {
    let namespace_labels = with_name(namespace, namespace_labels);
    let matches = |entry: &WebhookEntry| {
        entry.namespace_selector.matches(&namespace_labels) && entry.object_selector.matches(pod_labels)
    };
    let mut injectors: Vec<Injector> = webhooks
        .iter()
        .filter(|webhook| webhook.entries.iter().any(matches))
        .map(|webhook| Injector {
            revision: webhook.revision.clone().unwrap_or_default(),
            tag: webhook.tag.clone(),
            webhook: webhook.name.clone(),
        })
        .collect();
    if injectors.len() > 1 {
        injectors.sort_by(|a, b| a.webhook.cmp(&b.webhook));
        return Some(Injection::Several(injectors));
    }
    injectors.pop().map(Injection::One)
}

/// Selectors may use the name label, which the API server sets on every namespace.
fn with_name<'a>(namespace: &NamespaceName, namespace_labels: &'a Labels) -> Cow<'a, Labels> {
    if namespace_labels.contains_key(NAMESPACE_NAME) {
        return Cow::Borrowed(namespace_labels);
    }
    let mut labels = namespace_labels.clone();
    labels.insert(NAMESPACE_NAME.to_owned(), namespace.as_str().to_owned());
    Cow::Owned(labels)
}

#[cfg(test)]
mod tests;

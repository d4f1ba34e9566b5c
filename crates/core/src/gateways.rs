//! Gateways of the Gateway API, whose proxies istiod renders by itself: which revision renders each one, and which label
//! moves it.
//!
//! Nobody restarts them: their istiod rolls their Deployment as soon as the label `istio.io/rev` of the Gateway or of its
//! namespace leads to another revision. A run pins them before it writes the label of their namespace, so that they do not
//! move with it, and moves each one later, when everything behind it runs on the target.

use crate::census::UnmanagedPod;
use crate::ids::{GatewayRef, Revision, WorkloadKind, WorkloadRef};
use crate::injection::{Injection, namespace_injection};
use crate::intent::Intent;
use crate::inventory::{Pair, own_injector};
use crate::labels;
use crate::observed::{Gateway, Namespace, PreviousLabels, Snapshot, Workload};
use crate::record::Direction;

/// The Gateway that a Deployment was rendered for, if it is one that istiod manages.
pub fn of_workload<'a>(snapshot: &'a Snapshot, workload: &Workload) -> Option<&'a Gateway> {
    let name = workload.template.labels.get(labels::GATEWAY_NAME)?;
    let reference = GatewayRef { namespace: workload.reference.namespace.clone(), name: name.clone() };
    let gateway = snapshot.gateways.get(&reference)?;
    is_managed(gateway).then_some(gateway)
}

fn is_managed(gateway: &Gateway) -> bool {
    gateway.managed && !gateway.terminating
}

/// Whether a run of this object wrote the label of the Gateway that a Deployment was rendered for: its pods are replaced by us.
pub fn was_moved(snapshot: &Snapshot, workload: &Workload, run: &str) -> bool {
    let gateway = of_workload(snapshot, workload);
    gateway.and_then(|gateway| gateway.relabelled_by.as_ref()).is_some_and(|stamp| stamp.starts_with(run))
}

/// The revision whose istiod renders a Gateway: the one that its own label names, else that of its namespace, else the cluster's default.
/// `None` where there is no default either.
/// Source: `IsMine` in pkg/revisions/tag_watcher.go of Istio.
pub fn revision_of(snapshot: &Snapshot, gateway: &Gateway) -> Option<Revision> {
    let own = gateway.revision.as_deref();
    own.map(|value| resolved(snapshot, value)).or_else(|| namespace_revision(snapshot, gateway))
}

/// Whether a run of this pair moves a Gateway: it is on one of the two, and not by a revision tag that it names itself.
pub fn takes_part(snapshot: &Snapshot, pair: Pair<'_>, gateway: &Gateway) -> bool {
    let one_of = |value: &str| value == pair.source.as_str() || value == pair.target.as_str();
    let by_namespace = || namespace_revision(snapshot, gateway);
    let decides = match gateway.revision.as_deref() {
        // A tag that it names itself moves it.
        Some(own) => one_of(own),
        None => by_namespace().is_some_and(|revision| one_of(revision.as_str())),
    };
    pair.source != pair.target && is_managed(gateway) && decides
}

/// Whether nothing says which revision a Gateway belongs to, under the AKS add-on: Azure gives it to the newest one that is installed, from the
/// start of that revision until it goes, and no run moves it.
/// Source: `istio-gateway-api.md` of Azure's documentation.
pub fn follows_newest(intent: &Intent, snapshot: &Snapshot, gateway: &Gateway) -> bool {
    let is_unnamed = |namespace: &Namespace| !namespace.labels.contains_key(labels::REVISION);
    intent.is_addon()
        && is_managed(gateway)
        && gateway.revision.is_none()
        && namespace(snapshot, gateway).is_some_and(is_unnamed)
}

/// Whether a counted pod is a proxy of such a Gateway.
pub fn pod_follows_newest(intent: &Intent, snapshot: &Snapshot, pod: &UnmanagedPod) -> bool {
    let Some((_, owner)) = pod.owner.as_ref().filter(|_| pod.gateway_api) else { return false };
    let deployment = WorkloadRef::new(WorkloadKind::Deployment, pod.namespace.clone(), owner.clone());
    let gateway = snapshot.workloads.get(&deployment).and_then(|workload| of_workload(snapshot, workload));
    gateway.is_some_and(|gateway| follows_newest(intent, snapshot, gateway))
}

/// Whether the label of its namespace is all that keeps a Gateway on the source: it would move with that label.
pub fn needs_pin(snapshot: &Snapshot, pair: Pair<'_>, gateway: &Gateway) -> bool {
    let follows = match namespace_revision(snapshot, gateway) {
        Some(revision) => revision == *pair.source,
        // A default without a name of its own shows in a namespace with `istio-injection`.
        None => namespace(snapshot, gateway).is_some_and(|namespace| {
            let found = namespace_injection(&snapshot.webhooks, &namespace.name, &namespace.labels);
            matches!(found, Injection::One(injector) if injector.revision == *pair.source)
        }),
    };
    gateway.revision.is_none() && pair.source != pair.target && is_managed(gateway) && follows
}

/// What a run of this pair remembers on a Gateway.
pub fn memory<'g>(pair: Pair<'_>, gateway: &'g Gateway) -> Option<&'g PreviousLabels> {
    gateway.previous.as_ref().filter(|previous| previous.from == *pair.source && previous.to == *pair.target)
}

/// The label that moves a Gateway to where a run goes; `None` removes it, because the label of the namespace leads there.
pub fn label_towards(
    snapshot: &Snapshot,
    pair: Pair<'_>,
    direction: Direction,
    gateway: &Gateway,
) -> Option<Revision> {
    let destination = match direction {
        Direction::Forward => pair.target,
        Direction::Back => pair.source,
    };
    let had_one = match memory(pair, gateway) {
        Some(before) => before.revision.is_some(),
        None => gateway.revision.is_some(),
    };
    let follows = !had_one && namespace_revision(snapshot, gateway).as_ref() == Some(destination);
    (!follows).then(|| destination.clone())
}

/// The namespace that a Gateway is in, unless it is being deleted.
fn namespace<'a>(snapshot: &'a Snapshot, gateway: &Gateway) -> Option<&'a Namespace> {
    let namespace = snapshot.namespaces.get(&gateway.reference.namespace)?;
    (!namespace.terminating).then_some(namespace)
}

/// The revision that the label of its namespace leads to, or the cluster's default where it has none.
fn namespace_revision(snapshot: &Snapshot, gateway: &Gateway) -> Option<Revision> {
    match namespace(snapshot, gateway)?.labels.get(labels::REVISION) {
        Some(value) => Some(resolved(snapshot, value)),
        None => default_revision(snapshot),
    }
}

/// The revision that has the name `default`, or that the tag of this name points at.
fn default_revision(snapshot: &Snapshot) -> Option<Revision> {
    let revision = resolved(snapshot, "default");
    own_injector(snapshot, &revision).map(|_| revision)
}

/// The revision behind the value of a label, which may be a tag.
fn resolved(snapshot: &Snapshot, value: &str) -> Revision {
    let literal = Revision::from(value);
    if own_injector(snapshot, &literal).is_some() {
        return literal;
    }
    let tag = snapshot.webhooks.iter().find(|webhook| webhook.tag.as_deref() == Some(value));
    tag.and_then(|webhook| webhook.revision.clone()).unwrap_or(literal)
}

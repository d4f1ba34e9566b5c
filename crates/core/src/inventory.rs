//! What takes part in a run: the scope of namespaces, and each workload's place in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::aks::gateways as addon;
use crate::census::is_gateway_api;
use crate::gate;
use crate::gateways;
use crate::ids::{NamespaceName, Revision, WorkloadRef};
use crate::injection::{Injection, Injector, NoInjection, injection, namespace_injection, relabelled};
use crate::intent::{InjectionMode, Intent};
use crate::labels;
use crate::observed::{Namespace, Snapshot, Workload};
use crate::plan::LeftNamespace;
use crate::tags;

mod unrestartable;

pub use unrestartable::{manual_proxy, unrestartable};

/// Reason of a namespace whose own label names the source, where the run changes no labels, in [`LeftNamespace`].
pub const LABEL_STAYS: &str = "LabelStays";

/// The two revisions of a run.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The revision that the run leaves.
    pub source: &'a Revision,
    /// The revision that the run goes to.
    pub target: &'a Revision,
}

/// Where a namespace stands towards a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It moves with the run.
    InScope,
    /// It is in a mesh and stays as it is.
    Left(LeftNamespace),
    /// It has nothing to do with the run.
    Outside,
}

/// Where a namespace stands: what the *live* webhooks resolve to the source is in scope, and what this pair of revisions
/// has moved before (annotation), nothing else.
pub fn standing(intent: &Intent, snapshot: &Snapshot, pair: Pair<'_>, namespace: &Namespace) -> Standing {
    let left = |reason: &str, message: String| {
        Standing::Left(LeftNamespace {
            namespace: namespace.name.clone(),
            reason: reason.to_owned(),
            message,
        })
    };
    if is_system(intent, &namespace.name) || namespace.terminating {
        return Standing::Outside;
    }
    if namespace.labels.get(labels::DATAPLANE_MODE).is_some_and(|mode| mode == "ambient") {
        return left(
            "Ambient",
            "is in ambient mode, which has no sidecars; revisions of sidecars do not concern it".into(),
        );
    }
    let moved_before = moved_by(namespace, pair);
    match namespace_injection(&snapshot.webhooks, &namespace.name, &namespace.labels) {
        // Nothing is moved: whoever gets this revision's sidecar takes part, by whatever label.
        Injection::One(injector) if pair.source == pair.target && injector.revision == *pair.source => {
            Standing::InScope
        }
        Injection::One(injector) if intent.injection == InjectionMode::Observe => {
            observed_standing(intent, snapshot, pair, namespace, &injector)
        }
        Injection::One(injector) => match &injector.tag {
            Some(tag) if intent.moves_tag(tag) => tag_standing(snapshot, pair, namespace, &injector),
            Some(tag) => left(
                "OnRevisionTag",
                format!("follows the revision tag {tag:?} (now {}): move it with the tag", injector.revision),
            ),
            None if injector.revision == *pair.source && intent.injection == InjectionMode::RevisionTag => {
                let label = labels::REVISION;
                left(
                    LABEL_STAYS,
                    format!(
                        "has the label {label}={}, and spec.injection.mode RevisionTag changes no label",
                        pair.source
                    ),
                )
            }
            None if injector.revision == *pair.source => Standing::InScope,
            // What an earlier run of the pair moved. Somewhere else it is because somebody moved it on.
            None if injector.revision == *pair.target && moved_before => Standing::InScope,
            None if injector.revision == *pair.target => Standing::Outside,
            None => other_revision(namespace, &injector),
        },
        Injection::Several(injectors) => {
            let names: Vec<&str> = injectors.iter().map(|injector| injector.webhook.as_str()).collect();
            left("SeveralInjectors", format!("several webhooks inject its pods: {}", names.join(", ")))
        }
        Injection::None(_)
            if (moved_before && names_one_of(namespace, pair))
                || hidden_by_injection_label(snapshot, pair, namespace)
                || (intent.repairs_labels() && is_dropped(snapshot, namespace)) =>
        {
            Standing::InScope
        }
        Injection::None(_) => match namespace.labels.get(labels::REVISION) {
            Some(_) if namespace.labels.get(labels::INJECTION).is_some_and(|value| value == "disabled") => {
                let both = format!(
                    "{}=disabled takes it out of the mesh, whatever {} says",
                    labels::INJECTION,
                    labels::REVISION
                );
                left("InjectionDisabled", both)
            }
            Some(value) => left(
                "UnknownRevision",
                format!(
                    "has the label {}={value}, which no webhook answers: its new pods get no sidecar",
                    labels::REVISION
                ),
            ),
            None => Standing::Outside,
        },
    }
}

/// Where a namespace stands that follows a tag which the run moves.
fn tag_standing(snapshot: &Snapshot, pair: Pair<'_>, namespace: &Namespace, injector: &Injector) -> Standing {
    let moved_before = || {
        let webhook = snapshot.webhooks.iter().find(|webhook| webhook.name == injector.webhook);
        webhook.is_some_and(|webhook| tags::moved_by(webhook, pair))
    };
    let is_due = || moved_before() || has_proxies_of(snapshot, namespace, pair.source);
    if injector.revision == *pair.source || (injector.revision == *pair.target && is_due()) {
        return Standing::InScope;
    }
    if injector.revision == *pair.target {
        return Standing::Outside;
    }
    other_revision(namespace, injector)
}

/// Whether proxies of a revision were counted in a namespace: its tag, or its label, was moved by others before the run began.
fn has_proxies_of(snapshot: &Snapshot, namespace: &Namespace, revision: &Revision) -> bool {
    let counts = snapshot.census.as_ref().and_then(|census| census.proxies.get(&namespace.name));
    counts.is_some_and(|counts| counts.contains_key(revision))
}

/// Where a namespace stands whose label somebody else sets, or whose tag somebody else moves: before that, and after it for as long as
/// pods of the source are left.
fn observed_standing(
    intent: &Intent,
    snapshot: &Snapshot,
    pair: Pair<'_>,
    namespace: &Namespace,
    injector: &Injector,
) -> Standing {
    if injector.tag.as_ref().is_some_and(|tag| intent.moves_tag(tag)) {
        return tag_standing(snapshot, pair, namespace, injector);
    }
    let on_source = || has_proxies_of(snapshot, namespace, pair.source);
    if injector.revision == *pair.source || (injector.revision == *pair.target && on_source()) {
        return Standing::InScope;
    }
    if injector.revision == *pair.target {
        return Standing::Outside;
    }
    other_revision(namespace, injector)
}

fn other_revision(namespace: &Namespace, injector: &Injector) -> Standing {
    Standing::Left(LeftNamespace {
        namespace: namespace.name.clone(),
        reason: "OtherRevision".to_owned(),
        message: format!("uses the revision {}", injector.revision),
    })
}

/// Whether a namespace dropped out of the mesh: it asks for a sidecar by a label that no webhook answers any more. New pods start
/// without one, and nobody is told.
pub fn is_dropped(snapshot: &Snapshot, namespace: &Namespace) -> bool {
    let asks =
        namespace.labels.contains_key(labels::REVISION) && !namespace.labels.contains_key(labels::INJECTION);
    asks && !namespace.terminating
        && namespace_injection(&snapshot.webhooks, &namespace.name, &namespace.labels)
            == Injection::None(NoInjection::NotSelected)
}

/// Whether the label of a namespace names one of the pair. One that was taken out of the mesh does not come back because
/// of what an earlier run remembered on it.
fn names_one_of(namespace: &Namespace, pair: Pair<'_>) -> bool {
    let value = namespace.labels.get(labels::REVISION);
    value.is_some_and(|value| value == pair.source.as_str() || value == pair.target.as_str())
}

/// Whether the previous-values annotation of a namespace names this pair.
pub fn moved_by(namespace: &Namespace, pair: Pair<'_>) -> bool {
    namespace
        .previous
        .as_ref()
        .is_some_and(|previous| previous.from == *pair.source && previous.to == *pair.target)
}

/// `istio-injection` hides `istio.io/rev` from the revision's webhook: new pods would get no sidecar, though pods with
/// one live here. Such a namespace is in the mesh, and relabelling mends it.
fn hidden_by_injection_label(snapshot: &Snapshot, pair: Pair<'_>, namespace: &Namespace) -> bool {
    // Any other value, such as `disabled`, says on purpose that there is to be no sidecar.
    namespace.labels.get(labels::INJECTION).is_some_and(|value| value == "enabled")
        && namespace.labels.get(labels::REVISION).is_some_and(|value| value == pair.source.as_str())
        && snapshot.census.as_ref().is_some_and(|census| {
            census.proxies.get(&namespace.name).is_some_and(|counts| counts.contains_key(pair.source))
        })
}

/// Namespaces that are never touched: Istio's own and those that Istio never injects.
pub fn is_system(intent: &Intent, namespace: &NamespaceName) -> bool {
    *namespace == intent.istio_namespace || labels::NEVER_INJECTED.contains(&namespace.as_str())
}

/// Finds the source: the one revision other than the target that namespaces resolve to, or that an interrupted run to
/// this target came from. An error says what was found instead.
pub fn discover_source(intent: &Intent, snapshot: &Snapshot) -> Result<Option<Revision>, String> {
    if let Some(source) = &intent.source {
        return Ok(Some(source.clone()));
    }
    let mut found: BTreeMap<Revision, Vec<&str>> = BTreeMap::new();
    let mut unresolved = Vec::new();
    for namespace in snapshot.namespaces.values().filter(|namespace| !is_system(intent, &namespace.name)) {
        let tag = tags::followed_and_moved(intent, snapshot, namespace);
        let on_tag = tag.as_ref().and_then(|tag| tags::find(snapshot, tag)?.previous.as_ref());
        let from_annotation = namespace
            .previous
            .as_ref()
            .or(on_tag)
            // What came from a source that is gone has arrived; only a rollback still asks for it.
            .filter(|previous| previous.to == intent.target)
            .filter(|previous| intent.rollback_requested || !gate::is_gone(snapshot, &previous.from))
            .map(|previous| previous.from.clone());
        let live = match namespace_injection(&snapshot.webhooks, &namespace.name, &namespace.labels) {
            Injection::One(injector)
                if injector.tag.is_none() || tag.is_some() || intent.injection == InjectionMode::Observe =>
            {
                Some(injector.revision)
            }
            Injection::One(_) | Injection::Several(_) => None,
            Injection::None(_) => {
                let named = named_revision(snapshot, namespace);
                if named.is_none()
                    && from_annotation.is_none()
                    && namespace.labels.contains_key(labels::REVISION)
                {
                    unresolved.push(namespace);
                }
                named
            }
        };
        for revision in
            [from_annotation, live].into_iter().flatten().filter(|revision| *revision != intent.target)
        {
            found.entry(revision).or_default().push(namespace.name.as_str());
        }
    }
    if found.is_empty() && (intent.injection == InjectionMode::Observe || intent.tags().next().is_some()) {
        // The commit that moves the labels may have come first: what runs tells where it came from.
        let census = snapshot.census.iter().flat_map(|census| &census.proxies);
        for (namespace, counts) in census.filter(|(namespace, _)| !is_system(intent, namespace)) {
            let others =
                counts.keys().filter(|revision| **revision != intent.target && !revision.as_str().is_empty());
            for revision in others {
                found.entry(revision.clone()).or_default().push(namespace.as_str());
            }
        }
    }
    if found.is_empty() && intent.repairs_dropped {
        // All that is left of the source is its name.
        for namespace in &unresolved {
            let value =
                namespace.labels.get(labels::REVISION).filter(|value| *value != intent.target.as_str());
            if let Some(value) = value {
                found.entry(Revision::from(value.as_str())).or_default().push(namespace.name.as_str());
            }
        }
    }
    match found.len() {
        0 if unresolved.is_empty() || intent.repairs_dropped => Ok(None),
        0 => {
            let names: Vec<&str> = unresolved.iter().map(|namespace| namespace.name.as_str()).collect();
            Err(format!(
                "no webhook answers for the label {} of {}: set spec.sourceRevision, or repair the control plane they name; \
                 spec.injection.droppedNamespaces: Repair brings them to the target",
                labels::REVISION,
                some_of(&names)
            ))
        }
        1 => Ok(found.into_keys().next()),
        _ => {
            let list: Vec<String> =
                found.iter().map(|(revision, names)| format!("{revision} ({})", some_of(names))).collect();
            Err(format!(
                "namespaces use several revisions: {}; set spec.sourceRevision to one of them",
                list.join(", ")
            ))
        }
    }
}

/// The revision that a namespace's label names, if that revision has an injector of its own. Used where
/// `istio-injection` hides the label from it.
fn named_revision(snapshot: &Snapshot, namespace: &Namespace) -> Option<Revision> {
    let revision = Revision::from(namespace.labels.get(labels::REVISION)?.as_str());
    own_injector(snapshot, &revision).map(|_| revision)
}

/// The injector of a revision itself, not of a tag.
pub fn own_injector<'a>(
    snapshot: &'a Snapshot,
    revision: &Revision,
) -> Option<&'a crate::observed::WebhookConfiguration> {
    snapshot
        .webhooks
        .iter()
        .find(|webhook| webhook.tag.is_none() && webhook.revision.as_ref() == Some(revision))
        .map(AsRef::as_ref)
}

/// Up to five names, then how many more.
pub fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The group of a wave that a workload is restarted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// With its namespace's wave.
    Application,
    /// With the gateways, after all waves.
    Last,
}

/// Whether a workload's pods get a sidecar from one of the two revisions when its namespace says so.
pub fn takes_part(snapshot: &Snapshot, pair: Pair<'_>, namespace: &Namespace, workload: &Workload) -> bool {
    if let Some(gateway) = gateways::of_workload(snapshot, workload) {
        return gateways::takes_part(snapshot, pair, gateway);
    }
    [pair.source, pair.target].into_iter().any(|revision| {
        let labels = relabelled(&namespace.labels, revision);
        matches!(
            injection(&snapshot.webhooks, &namespace.name, &labels, &workload.template.shape()),
            Injection::One(injector) if injector.revision == *revision
        )
    })
}

/// When a workload is restarted.
pub fn group(snapshot: &Snapshot, workload: &Workload) -> Group {
    let gateway = workload
        .template
        .annotations
        .get(labels::INJECT_TEMPLATES)
        .is_some_and(|templates| templates.split(',').any(|template| template.trim() == "gateway"));
    if gateway
        || is_gateway_api(&workload.template.labels)
        || snapshot.operator.as_ref() == Some(&workload.reference)
    {
        Group::Last
    } else {
        Group::Application
    }
}

/// The restartable workloads of some namespaces in one group, on the way from the source.
pub fn members<'a>(
    intent: &Intent,
    snapshot: &'a Snapshot,
    pair: Pair<'_>,
    namespaces: &BTreeSet<NamespaceName>,
    wanted: Group,
) -> Vec<&'a Workload> {
    members_leaving(intent, snapshot, pair, pair.source, namespaces, wanted)
}

/// The same on the way from one of the two revisions: gateways of the add-on that go with it are not worth a restart.
pub fn members_leaving<'a>(
    intent: &Intent,
    snapshot: &'a Snapshot,
    pair: Pair<'_>,
    leaving: &Revision,
    namespaces: &BTreeSet<NamespaceName>,
    wanted: Group,
) -> Vec<&'a Workload> {
    // The wave of gateways may have namespaces for the sake of their Gateways only.
    let homes: BTreeSet<&NamespaceName> = match wanted {
        Group::Application => BTreeSet::new(),
        // Where somebody else sets the labels, Gateways are not ours to move, and have no homes.
        Group::Last if intent.injection == InjectionMode::Observe => BTreeSet::new(),
        Group::Last => namespaces.iter().filter(|name| !is_in_scope(intent, snapshot, pair, name)).collect(),
    };
    let is_ours = |namespace: &Namespace, workload: &Workload| {
        gateways::of_workload(snapshot, workload).is_none() || tags::is_led_by_us(intent, snapshot, namespace)
    };
    let is_only_home = |workload: &Workload| {
        homes.contains(&workload.reference.namespace) && gateways::of_workload(snapshot, workload).is_none()
    };
    workloads_in(snapshot, namespaces)
        .filter(|(namespace, workload)| {
            group(snapshot, workload) == wanted
                && !is_only_home(workload)
                && is_ours(namespace, workload)
                && !addon::goes_with(intent, snapshot, leaving, &workload.reference)
                && takes_part(snapshot, pair, namespace, workload)
                && unrestartable(intent, snapshot, workload).is_none()
        })
        .map(|(_, workload)| workload)
        .collect()
}

fn is_in_scope(intent: &Intent, snapshot: &Snapshot, pair: Pair<'_>, name: &NamespaceName) -> bool {
    let namespace = snapshot.namespaces.get(name);
    namespace.is_some_and(|namespace| standing(intent, snapshot, pair, namespace) == Standing::InScope)
}

/// All workloads of some namespaces, each with its namespace.
pub fn workloads_in<'a>(
    snapshot: &'a Snapshot,
    namespaces: &BTreeSet<NamespaceName>,
) -> impl Iterator<Item = (&'a Namespace, &'a Workload)> {
    namespaces.iter().filter_map(|name| snapshot.namespaces.get(name)).flat_map(|namespace| {
        workloads_of(snapshot, &namespace.name).map(move |workload| (namespace.as_ref(), workload))
    })
}

/// The workloads of one namespace: references are ordered by namespace first, so this is a range.
fn workloads_of<'a>(snapshot: &'a Snapshot, namespace: &NamespaceName) -> impl Iterator<Item = &'a Workload> {
    let first = WorkloadRef {
        namespace: namespace.clone(),
        kind: crate::ids::WorkloadKind::Deployment,
        name: String::new(),
    };
    let namespace = namespace.clone();
    snapshot
        .workloads
        .range(first..)
        .take_while(move |(reference, _)| reference.namespace == namespace)
        .map(|(_, workload)| workload.as_ref())
}

#[cfg(test)]
mod tests;

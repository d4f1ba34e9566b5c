//! Makes the [`Plan`] of a run from what is seen now.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::aks::gateways::is_gateway;
use crate::census::{UnmanagedPod, is_gateway_api};
use crate::gateways;
use crate::ids::{NamespaceName, WorkloadKind, WorkloadRef};
use crate::injection::{Injection, injection};
use crate::intent::{InjectionMode, Intent, WaveSelect};
use crate::inventory::{
    Group, Pair, Standing, group, is_system, manual_proxy, members, standing, takes_part, unrestartable,
    workloads_in,
};
use crate::labels;
use crate::observed::{Gateway, Namespace, Snapshot};
use crate::plan::{LeftNamespace, MAX_EXCEPTIONS, NotRestarted, Plan, PlannedWave, Unrestartable, WaveKind};
use crate::record::{MAX_BATCH, Run};
use crate::tags;

/// Name of the wave that takes what appears after the plan was frozen.
pub const STRAGGLERS: &str = "stragglers";
/// Name of the wave of gateways.
pub const GATEWAYS: &str = "gateways";

/// The plan, and what it rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planning {
    /// The plan.
    pub plan: Plan,
    /// Workloads in scope that cannot be restarted.
    pub unrestartable: Vec<Unrestartable>,
}

/// Makes the plan.
pub fn make(intent: &Intent, snapshot: &Snapshot, pair: Pair<'_>) -> Planning {
    let (scope, mut left) = scope(intent, snapshot, pair);
    let (mut waves, unassigned) = assign(intent, snapshot, pair, &scope);
    left.extend(unassigned.into_iter().map(|namespace| LeftNamespace {
        message: "is in scope, but no wave selects it: add it to a wave, or let the last wave omit its selector".into(),
        reason: "NamespaceUnassigned".into(),
        namespace,
    }));
    // Unassigned namespaces first: they are the ones that a person must see before the list is cut.
    left.sort_by_key(|left| (left.reason != "NamespaceUnassigned", left.namespace.clone()));
    for (wave, declared) in waves.iter_mut().zip(&intent.waves) {
        let namespaces = wave.namespaces.iter().cloned().collect();
        let count = count(members(intent, snapshot, pair, &namespaces, Group::Application).len());
        wave.workloads = count;
        wave.max_concurrent = concurrency(declared.max_concurrent_workloads.of_rounded_up(count));
    }
    let all: BTreeSet<NamespaceName> =
        waves.iter().flat_map(|wave| wave.namespaces.iter().cloned()).collect();
    let homes = gateway_homes(intent, snapshot, pair).union(&all).cloned().collect();
    waves.extend(gateways_wave(intent, snapshot, pair, &homes));
    let unrestartable = unrestartable_in(intent, snapshot, pair, &all);
    let mut not_restarted = not_restarted(intent, snapshot, pair, &all, &unrestartable);
    let plan = Plan {
        injection: intent.injection,
        workloads: waves.iter().map(|wave| wave.workloads).sum(),
        not_restarted_count: count(not_restarted.len()),
        left_count: count(left.len()),
        not_restarted: {
            not_restarted.truncate(MAX_EXCEPTIONS);
            not_restarted
        },
        left: {
            left.truncate(MAX_EXCEPTIONS);
            left
        },
        waves,
    };
    Planning { plan, unrestartable }
}

/// What an approval is given for: a digest over source, target, injection mode, and which declared wave has which
/// namespaces, as JSON without spaces. Counts of workloads are left out, and so are the waves that the operator appends:
/// they come and go with ordinary life, which must not void an approval. From the second run of an object on its number is part
/// of it: what was approved for one run says nothing about the next.
pub fn digest(plan: &Plan, run: &Run) -> String {
    // Names of Kubernetes objects and of waves have no character that JSON would escape.
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    let quoted = |text: &str| format!("\"{text}\"");
    let declared = plan.waves.iter().filter(|wave| wave.kind == WaveKind::Declared);
    let waves = declared.map(|wave| {
        let namespaces = list(wave.namespaces.iter().map(|name| quoted(name.as_str())).collect());
        let tag = wave.tag.as_deref().map(quoted);
        list([quoted(&wave.name), namespaces].into_iter().chain(tag).collect())
    });
    let waves = list(waves.collect());
    let (source, target) = (quoted(run.source.as_str()), quoted(run.target.as_str()));
    let number = (run.counter > 1).then(|| run.counter.to_string());
    let parts = [source, target, quoted(plan.injection.as_str()), waves].into_iter().chain(number);
    let content = list(parts.collect());
    format!("sha256:{:x}", Sha256::digest(content))
}

/// The namespaces of the source that no wave of the plan has: they came after the plan was frozen.
pub fn stragglers(
    intent: &Intent,
    snapshot: &Snapshot,
    pair: Pair<'_>,
    plan: &Plan,
) -> BTreeSet<NamespaceName> {
    let moved = plan.waves.iter().filter(|wave| wave.kind != WaveKind::Gateways);
    let planned: BTreeSet<&NamespaceName> = moved.flat_map(|wave| &wave.namespaces).collect();
    let (scope, _) = scope(intent, snapshot, pair);
    let late = scope.into_iter().filter(|namespace| !planned.contains(&namespace.name));
    late.map(|namespace| namespace.name.clone()).collect()
}

/// A wave for namespaces that came late, or whose workloads fell back.
pub fn stragglers_wave(
    intent: &Intent,
    snapshot: &Snapshot,
    pair: Pair<'_>,
    namespaces: &BTreeSet<NamespaceName>,
) -> PlannedWave {
    let last = intent.waves.last();
    let workloads = count(members(intent, snapshot, pair, namespaces, Group::Application).len());
    PlannedWave {
        name: STRAGGLERS.into(),
        kind: WaveKind::Stragglers,
        namespaces: namespaces.iter().cloned().collect(),
        workloads,
        max_concurrent: last
            .map_or(1, |wave| concurrency(wave.max_concurrent_workloads.of_rounded_up(workloads))),
        soak_seconds: 0,
        ..PlannedWave::default()
    }
}

/// Namespaces of Gateways whose own label names the source: they need not be in scope themselves. Where somebody else sets the labels,
/// that of a Gateway is not ours either.
fn gateway_homes(intent: &Intent, snapshot: &Snapshot, pair: Pair<'_>) -> BTreeSet<NamespaceName> {
    if intent.injection == InjectionMode::Observe {
        return BTreeSet::new();
    }
    let named = |gateway: &&Gateway| gateway.revision.as_deref() == Some(pair.source.as_str());
    let moved = |gateway: &&Gateway| gateways::takes_part(snapshot, pair, gateway);
    let all = snapshot.gateways.values().map(AsRef::as_ref).filter(named).filter(moved);
    let homes = all.map(|gateway| &gateway.reference.namespace).filter(|name| !is_system(intent, name));
    homes.cloned().collect()
}

/// The wave of gateways (and the operator itself) of some namespaces, if there are any: injected ones, and those of the Gateway
/// API.
pub fn gateways_wave(
    intent: &Intent,
    snapshot: &Snapshot,
    pair: Pair<'_>,
    namespaces: &BTreeSet<NamespaceName>,
) -> Option<PlannedWave> {
    let gateways = members(intent, snapshot, pair, namespaces, Group::Last);
    // Those of the add-on that stay are not there yet, or are no members on the way there.
    let of_the_addon = workloads_in(snapshot, namespaces)
        .filter(|(_, workload)| group(snapshot, workload) == Group::Last)
        .filter(|(_, workload)| is_gateway(intent, snapshot, &workload.reference))
        .map(|(_, workload)| workload);
    let homes: BTreeSet<NamespaceName> =
        gateways.iter().copied().chain(of_the_addon).map(|it| it.reference.namespace.clone()).collect();
    (!homes.is_empty()).then(|| PlannedWave {
        name: GATEWAYS.into(),
        kind: WaveKind::Gateways,
        namespaces: homes.into_iter().collect(),
        workloads: count(gateways.len()),
        // Gateways carry everybody's traffic: one after the other.
        max_concurrent: 1,
        soak_seconds: 0,
        ..PlannedWave::default()
    })
}

/// The namespaces in scope.
pub fn scope_names(intent: &Intent, snapshot: &Snapshot, pair: Pair<'_>) -> BTreeSet<NamespaceName> {
    scope(intent, snapshot, pair).0.into_iter().map(|namespace| namespace.name.clone()).collect()
}

fn scope<'a>(
    intent: &Intent,
    snapshot: &'a Snapshot,
    pair: Pair<'_>,
) -> (Vec<&'a Namespace>, Vec<LeftNamespace>) {
    let mut scope = Vec::new();
    let mut left = Vec::new();
    for namespace in snapshot.namespaces.values() {
        match standing(intent, snapshot, pair, namespace) {
            Standing::InScope => scope.push(namespace.as_ref()),
            Standing::Left(namespace) => left.push(namespace),
            Standing::Outside => {}
        }
    }
    (scope, left)
}

/// First match wins; what follows a tag that a wave moves, moves with that wave and no other. Returns the waves of the spec with their
/// namespaces, and the namespaces that none took.
fn assign(
    intent: &Intent,
    snapshot: &Snapshot,
    pair: Pair<'_>,
    scope: &[&Namespace],
) -> (Vec<PlannedWave>, Vec<NamespaceName>) {
    let moves = |tag: &str| {
        tags::find(snapshot, tag).is_some_and(|webhook| {
            webhook.revision.as_ref() == Some(pair.source) || tags::moved_by(webhook, pair)
        })
    };
    let mut waves: Vec<PlannedWave> = intent
        .waves
        .iter()
        .map(|wave| PlannedWave {
            name: wave.name.clone(),
            kind: WaveKind::Declared,
            max_concurrent: 1,
            soak_seconds: wave.soak_seconds,
            approval: wave.approval,
            tag_moves: matches!(&wave.select, WaveSelect::Tag(tag) if moves(tag)),
            tag: match &wave.select {
                WaveSelect::Tag(tag) => Some(tag.clone()),
                WaveSelect::Selector(_) | WaveSelect::Names(_) | WaveSelect::Rest => None,
            },
            ..PlannedWave::default()
        })
        .collect();
    let mut unassigned = Vec::new();
    for namespace in scope {
        let tag = tags::followed_and_moved(intent, snapshot, namespace);
        let place = intent.waves.iter().position(|wave| match (&wave.select, &tag) {
            (WaveSelect::Tag(moved), tag) => tag.as_ref() == Some(moved),
            (_, Some(_)) => false,
            (WaveSelect::Selector(selector), None) => selector.matches(&namespace.labels),
            (WaveSelect::Names(names), None) => names.contains(&namespace.name),
            (WaveSelect::Rest, None) => true,
        });
        match place.and_then(|index| waves.get_mut(index)) {
            Some(wave) => wave.namespaces.push(namespace.name.clone()),
            None => unassigned.push(namespace.name.clone()),
        }
    }
    (waves, unassigned)
}

fn unrestartable_in(
    intent: &Intent,
    snapshot: &Snapshot,
    pair: Pair<'_>,
    namespaces: &BTreeSet<NamespaceName>,
) -> Vec<Unrestartable> {
    workloads_in(snapshot, namespaces)
        // Proxies of the Gateway API look like ones that were injected by hand. The count tells of those on the source.
        .filter(|(_, workload)| !is_gateway_api(&workload.template.labels))
        .filter(|(_, workload)| !is_gateway(intent, snapshot, &workload.reference))
        .filter_map(|(namespace, workload)| {
            (manual_proxy(snapshot, workload) || takes_part(snapshot, pair, namespace, workload))
                .then(|| unrestartable(intent, snapshot, workload))
                .flatten()
        })
        .collect()
}

fn not_restarted(
    intent: &Intent,
    snapshot: &Snapshot,
    pair: Pair<'_>,
    namespaces: &BTreeSet<NamespaceName>,
    unrestartable: &[Unrestartable],
) -> Vec<NotRestarted> {
    let workloads = unrestartable.iter().map(|workload| NotRestarted {
        kind: workload.workload.kind.to_string(),
        namespace: workload.workload.namespace.clone(),
        name: workload.workload.name.clone(),
        reason: workload.reason.to_owned(),
        message: workload.message.clone(),
    });
    workloads
        .chain(fixed_images(snapshot, pair, namespaces))
        .chain(template_decides(intent, snapshot, pair, namespaces))
        .chain(unmanaged(snapshot, pair, namespaces))
        .collect()
}

/// Patch upgrade: workloads whose template fixes the image of the proxy.
fn fixed_images<'a>(
    snapshot: &'a Snapshot,
    pair: Pair<'a>,
    namespaces: &'a BTreeSet<NamespaceName>,
) -> impl Iterator<Item = NotRestarted> + 'a {
    workloads_in(snapshot, namespaces).filter(move |_| pair.source == pair.target).filter_map(|(_, workload)| {
        let image = workload.template.annotations.get(labels::PROXY_IMAGE)?;
        let reference = &workload.reference;
        Some(NotRestarted {
            kind: reference.kind.to_string(),
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
            reason: "CustomProxyImage".into(),
            message: format!(
                "the annotation {} of its pod template fixes the proxy image to {image}, which no restart changes",
                labels::PROXY_IMAGE
            ),
        })
    })
}

/// Workloads outside of the scope whose own pod label names the source: relabelling a namespace does not reach them.
fn template_decides<'a>(
    intent: &'a Intent,
    snapshot: &'a Snapshot,
    pair: Pair<'a>,
    namespaces: &'a BTreeSet<NamespaceName>,
) -> impl Iterator<Item = NotRestarted> + 'a {
    snapshot.workloads.values().filter_map(move |workload| {
        let reference = &workload.reference;
        let own = workload.template.labels.get(labels::REVISION)?;
        let namespace = snapshot.namespaces.get(&reference.namespace)?;
        let decides = matches!(
            injection(&snapshot.webhooks, &namespace.name, &namespace.labels, &workload.template.shape()),
            Injection::One(injector) if injector.revision == *pair.source
        );
        let is_ours = !namespaces.contains(&reference.namespace) && !is_gateway(intent, snapshot, reference);
        (decides && is_ours).then(|| NotRestarted {
            kind: reference.kind.to_string(),
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
            reason: "PodTemplateDecidesRevision".into(),
            message: format!(
                "its pod template has the label {}={own} and its namespace has none: change the label in the template to {}",
                labels::REVISION,
                pair.target
            ),
        })
    })
}

fn unmanaged(snapshot: &Snapshot, pair: Pair<'_>, namespaces: &BTreeSet<NamespaceName>) -> Vec<NotRestarted> {
    let Some(census) = &snapshot.census else {
        return Vec::new();
    };
    let mut found: BTreeMap<(NamespaceName, String, String), NotRestarted> = BTreeMap::new();
    let of_the_run = |pod: &&UnmanagedPod| pod.revision == *pair.source && !moves(snapshot, pair, pod);
    for pod in census.unmanaged.iter().filter(of_the_run) {
        let (kind, name) = pod.owner.clone().unwrap_or_else(|| ("Pod".into(), pod.name.clone()));
        let (reason, message) = match (pod.gateway_api, kind.as_str()) {
            (true, _) => (
                "GatewayApiManaged",
                "istiod manages it for a Gateway of the Gateway API: it moves when the Gateway's label istio.io/rev or its \
                 namespace's changes"
                    .to_owned(),
            ),
            (_, "Pod") => {
                ("BarePod", "no controller makes it again: delete and create it by hand".to_owned())
            }
            (_, "Job") => {
                ("RunningJob", "a running Job keeps its sidecar: wait until it ends, or delete it".to_owned())
            }
            (_, kind) => (
                "UnknownOwner",
                format!(
                    "its owner is a {kind}, which MeshUpgrade does not restart: restart it through its owner"
                ),
            ),
        };
        found.entry((pod.namespace.clone(), kind.clone(), name.clone())).or_insert(NotRestarted {
            kind,
            namespace: pod.namespace.clone(),
            name,
            reason: reason.into(),
            message,
        });
    }
    for job in census.cron_jobs.iter().filter(|job| namespaces.contains(&job.namespace)) {
        found.entry((job.namespace.clone(), "CronJob".into(), job.name.clone())).or_insert(NotRestarted {
            kind: "CronJob".into(),
            namespace: job.namespace.clone(),
            name: job.name.clone(),
            reason: "CronJob".into(),
            message: "needs no restart: its next run takes the revision of the namespace; a run that is active keeps its sidecar".into(),
        });
    }
    found.into_values().collect()
}

/// Whether a proxy belongs to a Gateway that the run moves.
fn moves(snapshot: &Snapshot, pair: Pair<'_>, pod: &UnmanagedPod) -> bool {
    let Some((_, name)) = pod.owner.as_ref().filter(|(kind, _)| pod.gateway_api && kind == "Deployment")
    else {
        return false;
    };
    let reference = WorkloadRef::new(WorkloadKind::Deployment, pod.namespace.clone(), name);
    let workload = snapshot.workloads.get(&reference);
    let gateway = workload.and_then(|workload| gateways::of_workload(snapshot, workload));
    gateway.is_some_and(|gateway| gateways::takes_part(snapshot, pair, gateway))
}

fn concurrency(wanted: u32) -> u32 {
    wanted.clamp(1, count(MAX_BATCH))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

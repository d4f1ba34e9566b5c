//! Checks before the old revision may go: nothing may refer to it any more. Here `source` is the revision that is left and
//! `target` the one that stays, also for the proof of a rollback.

use super::{Check, CheckInput, Finding, label_owners, listed, planned, problem, proxies};
use crate::aks::gateways::is_gateway;
use crate::census::{Census, Reference, ReferenceKind};
use crate::gateways::pod_follows_newest;
use crate::ids::{NamespaceName, ServiceRef};
use crate::injection::{Injection, Injector, injection, namespace_injection};
use crate::labels;
use crate::observed::{IstiodService, Labels, Namespace, PodTemplate, WebhookConfiguration};
use crate::tags::{self, services};

/// All of them, in the order of their results.
pub(super) const CHAIN: [Check; 10] = [
    NAMESPACES_MOVED,
    Check { name: "PodTemplatesMoved", find: pod_templates_moved },
    Check { name: "TagsMoved", find: tags_moved },
    Check { name: "GatewaysMoved", find: gateways_moved },
    Check { name: "IstioResourcesMoved", find: istio_resources_moved },
    Check { name: PROXIES_MOVED, find: proxies::all_moved },
    Check { name: SIDECARS_PRESENT, find: proxies::none_lacking },
    Check { name: "DefaultValidatorMoved", find: default_validator_moved },
    Check { name: "NothingUncovered", find: nothing_uncovered },
    Check { name: GIT_AGREES, find: git_agrees },
];

/// What proves a rollback, in the order of the results. It needs nothing that the way forward may have left half done.
pub(super) const ROLLBACK_CHAIN: [Check; 2] = [
    Check { name: NAMESPACES_MOVED.name, find: planned_namespaces_moved },
    Check { name: PROXIES_MOVED, find: proxies::planned_moved },
];

const NAMESPACES_MOVED: Check = Check { name: "NamespacesMoved", find: namespaces_moved };
const PROXIES_MOVED: &str = "ProxiesMoved";
pub(super) const GIT_AGREES: &str = "GitAgrees";
pub(super) const SIDECARS_PRESENT: &str = "SidecarsPresent";

/// What a check says that needs a count when there is none. Nothing is assumed.
const NOT_COUNTED: &str = "not counted yet";

/// Looks at the census, or says that there is none.
pub(super) fn counted(input: &CheckInput<'_>, find: impl FnOnce(&Census) -> Finding) -> Finding {
    match &input.snapshot.census {
        Some(census) => find(census),
        None => Finding::Problem(NOT_COUNTED.to_owned()),
    }
}

/// A label that names the source counts even where no webhook answers it: what `istio-injection` hides today, or what the
/// removed webhook would leave without sidecars.
fn namespaces_moved(input: &CheckInput<'_>) -> Finding {
    moved(input, input.snapshot.namespaces.values().map(AsRef::as_ref))
}

/// A rollback answers for the plan's namespaces only: who chose that revision without the run keeps it.
fn planned_namespaces_moved(input: &CheckInput<'_>) -> Finding {
    moved(input, planned(input).into_iter())
}

fn moved<'a>(input: &CheckInput<'_>, namespaces: impl Iterator<Item = &'a Namespace>) -> Finding {
    let names: Vec<&str> = namespaces
        .filter(|namespace| !namespace.terminating && asks_for_source(input, namespace))
        .map(|namespace| namespace.name.as_str())
        .collect();
    let first = names.first().copied().unwrap_or_default();
    problem(&names, |listed| {
        format!(
            "new pods of {listed} would still get {}: kubectl label namespace {first} {}={} {}- --overwrite, and the same in Git",
            input.source,
            labels::REVISION,
            input.target,
            labels::INJECTION
        )
    })
}

fn asks_for_source(input: &CheckInput<'_>, namespace: &Namespace) -> bool {
    let injected = namespace_injection(&input.snapshot.webhooks, &namespace.name, &namespace.labels);
    names_source(input, &namespace.labels) || leads_to_source(input, &injected)
}

/// Whether the source's own webhook injects; a tag is told as a tag.
fn leads_to_source(input: &CheckInput<'_>, injected: &Injection) -> bool {
    let own = |injector: &Injector| injector.tag.is_none() && injector.revision == *input.source;
    injected.injectors().iter().any(own)
}

fn names_source(input: &CheckInput<'_>, labels: &Labels) -> bool {
    labels.get(labels::REVISION).is_some_and(|revision| revision == input.source.as_str())
}

/// A template that names the source, or whose pods the live webhooks send there though the namespace does not ask for it.
/// Templates that opt out are no users of the revision: istiod's own pods are labelled so.
fn template_asks_for_source(
    input: &CheckInput<'_>,
    namespace: &NamespaceName,
    template: &PodTemplate,
) -> bool {
    let opted_out = template.labels.get(labels::SIDECAR_INJECT).is_some_and(|value| value == "false");
    if opted_out || labels::NEVER_INJECTED.contains(&namespace.as_str()) {
        return false;
    }
    let by_webhook = |namespace: &Namespace| {
        let pod = template.shape();
        let injected = injection(&input.snapshot.webhooks, &namespace.name, &namespace.labels, &pod);
        leads_to_source(input, &injected) && !asks_for_source(input, namespace)
    };
    names_source(input, &template.labels)
        || input.snapshot.namespaces.get(namespace).is_some_and(|namespace| by_webhook(namespace))
}

fn pod_templates_moved(input: &CheckInput<'_>) -> Finding {
    let workloads: Vec<_> = input
        .snapshot
        .workloads
        .values()
        .filter(|workload| !is_gateway(input.intent, input.snapshot, &workload.reference))
        .filter(|workload| template_asks_for_source(input, &workload.reference.namespace, &workload.template))
        .map(|workload| &workload.reference)
        .collect();
    let jobs = input
        .snapshot
        .census
        .iter()
        .flat_map(|census| &census.cron_jobs)
        .filter(|job| template_asks_for_source(input, &job.namespace, &job.template))
        .map(|job| format!("CronJob {}/{}", job.namespace, job.name));
    let names = workloads.iter().map(ToString::to_string).chain(jobs);
    let command = workloads.first().map_or(String::new(), |first| {
        format!(
            r#": kubectl patch {} {} -n {} -p '{{"spec":{{"template":{{"metadata":{{"labels":{{"{}":"{}"}}}}}}}}}}'"#,
            first.kind.as_str().to_lowercase(),
            first.name,
            first.namespace,
            labels::REVISION,
            input.target
        )
    });
    problem(names, |names| {
        format!(
            "the pod template of {names} asks for {source}: set its label {label} to {target} (or remove it where the \
             namespace decides), in Git if Git has it{command}",
            source = input.source,
            target = input.target,
            label = labels::REVISION,
        )
    })
}

fn tags_moved(input: &CheckInput<'_>) -> Finding {
    let webhooks = tag_webhooks_moved(input);
    if webhooks == Finding::Nothing { tag_services_moved(input) } else { webhooks }
}

fn tag_webhooks_moved(input: &CheckInput<'_>) -> Finding {
    let on_source = |webhook: &&WebhookConfiguration| {
        webhook.revision.as_ref() == Some(input.source) || leads_to_the_source(input, webhook)
    };
    let webhooks = input.snapshot.webhooks.iter().map(AsRef::as_ref).filter(on_source);
    let mut tags: Vec<&str> = webhooks.filter_map(|webhook| webhook.tag.as_deref()).collect();
    tags.sort_unstable();
    let first = tags.first().copied().unwrap_or_default();
    problem(&tags, |names| {
        format!(
            "revision tag {names} points at {}, and pods of its namespaces could not be created without it: istioctl tag set \
             {first} --revision {} --istioNamespace {} --overwrite",
            input.source, input.target, input.intent.istio_namespace
        )
    })
}

/// Those of tags that no wave moves are only counted.
fn tag_services_moved(input: &CheckInput<'_>) -> Finding {
    let told = |names: String, command: String| {
        format!("{names} of a revision tag leads to {}: {command}", input.source)
    };
    let live = services::left_on(input.snapshot, input.source, input.target).map(|(_, service)| service);
    let live: Vec<&IstiodService> = live.map(AsRef::as_ref).collect();
    if let Some(first) = live.first() {
        let edits = services::edits(input.snapshot, first, input.target);
        let command = services::by_hand(&first.reference, edits.as_ref(), input.target);
        return problem(live.iter().map(|service| service.reference.to_string()), |names| {
            told(names, command)
        });
    }
    counted(input, |census| {
        references(input, census, ReferenceKind::TagService, |names, first| {
            let service = ServiceRef { namespace: place(first).into(), name: first.name.clone() };
            told(names, services::by_hand(&service, None, input.target))
        })
    })
}

/// Whether an entry of a tag points where the source's own injector does, whatever the tag's label says.
fn leads_to_the_source(input: &CheckInput<'_>, webhook: &WebhookConfiguration) -> bool {
    let place = |revision| tags::client_of(input.snapshot, revision);
    let (Some(source), target) = (place(input.source), place(input.target)) else { return false };
    let is_shared = target.is_some_and(|target| target.is_same_place(source));
    webhook.tag.is_some()
        && !is_shared
        && webhook.entries.iter().any(|entry| entry.client.is_same_place(source))
}

fn gateways_moved(input: &CheckInput<'_>) -> Finding {
    counted(input, |census| {
        let labelled = references(input, census, ReferenceKind::Gateway, |names, first| {
            format!(
                "{names} names {}: kubectl label gateways.gateway.networking.k8s.io {} -n {} {}={} --overwrite, and the same \
                 in Git",
                input.source,
                first.name,
                place(first),
                labels::REVISION,
                input.target
            )
        });
        if labelled != Finding::Nothing {
            return labelled;
        }
        let pods = census.unmanaged.iter().filter(|pod| pod.gateway_api && pod.revision == *input.source);
        let pods = pods.filter(|pod| !pod_follows_newest(input.intent, input.snapshot, pod));
        problem(pods.map(|pod| format!("{}/{}", pod.namespace, pod.name)), |names| {
            format!(
                "istiod of {} still runs the gateway pods {names}: they move when their Gateway's label {label}, or its \
                 namespace's, is {}; kubectl get gateways.gateway.networking.k8s.io -A -L {label}",
                input.source,
                input.target,
                label = labels::REVISION
            )
        })
    })
}

fn istio_resources_moved(input: &CheckInput<'_>) -> Finding {
    counted(input, |census| {
        references(input, census, ReferenceKind::IstioResource, |names, first| {
            format!(
                "only {} reads {names}, which then has no effect any more: kubectl label {} {} -n {} {}={} --overwrite, and the \
                 same in Git",
                input.source,
                resource_of(&first.object_kind),
                first.name,
                place(first),
                labels::REVISION,
                input.target
            )
        })
    })
}

/// What `kubectl` calls a kind of Istio. The Gateway API has a kind of the same name as Istio's Gateway.
fn resource_of(kind: &str) -> String {
    match kind {
        "Gateway" => "gateways.networking.istio.io".to_owned(),
        kind => kind.to_lowercase(),
    }
}

fn default_validator_moved(input: &CheckInput<'_>) -> Finding {
    if input.intent.is_addon() {
        // AKS manages it: the higher of two revisions validates, and the one that is left when the other goes.
        // Source: `istio-upgrade.md` of Azure's documentation.
        return Finding::Nothing;
    }
    counted(input, |census| {
        references(input, census, ReferenceKind::DefaultValidator, |names, _| {
            format!(
                "{names} asks istiod of {}, without which Istio resources could not be written. Where Helm has installed it: helm \
                 upgrade istio-base istio/base -n {namespace} --reuse-values --set defaultRevision={target}; otherwise istioctl tag set \
                 default --revision {target} --istioNamespace {namespace} --overwrite",
                input.source,
                target = input.target,
                namespace = input.intent.istio_namespace
            )
        })
    })
}

/// A problem about the references of one kind to the source, told with all their names and with the first of them.
fn references(
    input: &CheckInput<'_>,
    census: &Census,
    kind: ReferenceKind,
    text: impl FnOnce(String, &Reference) -> String,
) -> Finding {
    let found: Vec<&Reference> = census
        .references
        .iter()
        .filter(|reference| reference.kind == kind && reference.revision == *input.source)
        .collect();
    let Some(first) = found.first() else {
        return Finding::Nothing;
    };
    problem(found.iter().map(|reference| full_name(reference)), |names| text(names, first))
}

fn full_name(reference: &Reference) -> String {
    match &reference.namespace {
        Some(namespace) => format!("{} {namespace}/{}", reference.object_kind, reference.name),
        None => format!("{} {}", reference.object_kind, reference.name),
    }
}

fn place(reference: &Reference) -> &str {
    reference.namespace.as_ref().map_or("default", |namespace| namespace.as_str())
}

/// What is not covered may use the source without anybody seeing it here.
fn nothing_uncovered(input: &CheckInput<'_>) -> Finding {
    counted(input, |census| {
        let unreadable = listed(&census.unreadable).map(|names| format!("could not be read: {names}"));
        let uncovered = listed(&census.uncovered)
            .map(|names| format!("in the mesh, and not covered by MeshUpgrade: {names}"));
        let found: Vec<String> = [unreadable, uncovered].into_iter().flatten().collect();
        if found.is_empty() {
            return Finding::Nothing;
        }
        Finding::Problem(format!(
            "whether {source} is in use is unknown. {}. Look at istioctl proxy-status --revision {source} --istioNamespace {}, \
             then add NothingUncovered to spec.checks.skip",
            found.join(". "),
            input.intent.istio_namespace,
            source = input.source
        ))
    })
}

/// If a deployment tool owned the label before, its next sync would put the removed revision back and pods would silently
/// lose their sidecars. Evidence that it will not is a write of that tool after ours that left the target in place; that it
/// owns the label again is none, because ignore rules make Argo CD apply the live value.
fn git_agrees(input: &CheckInput<'_>) -> Finding {
    let behind: Vec<(&Namespace, &str)> = input
        .snapshot
        .namespaces
        .values()
        .filter_map(|namespace| Some((namespace.as_ref(), unproven_manager(input, namespace)?)))
        .collect();
    let names = behind.iter().map(|(namespace, manager)| format!("{} ({manager})", namespace.name));
    problem(names, |names| {
        format!(
            "no sync has shown yet that Git has {label}={target} for {names}, and the next one could put {source} back: set it \
             in Git, remove the ignore rule after that, and sync; or add GitAgrees to spec.checks.skip",
            label = labels::REVISION,
            target = input.target,
            source = input.source
        )
    })
}

/// The tool that owned a namespace's label before this run, unless it has written since and left the target in place.
fn unproven_manager<'a>(input: &CheckInput<'_>, namespace: &'a Namespace) -> Option<&'a str> {
    let previous = namespace
        .previous
        .as_ref()
        .filter(|previous| previous.from == *input.source && previous.to == *input.target)?;
    let manager = previous.manager.as_deref().filter(|manager| label_owners::deploys_again(manager))?;
    let on_target =
        namespace.labels.get(labels::REVISION).is_some_and(|revision| revision == input.target.as_str());
    let proven = on_target && label_owners::has_synced(namespace, manager);
    (!namespace.terminating && !proven).then_some(manager)
}

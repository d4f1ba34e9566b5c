//! Checks before anything is written.

use std::collections::BTreeSet;

use super::proxies::no_running_jobs;
use super::{
    Check, CheckInput, Finding, addon_labels, aks, envoy_filters, gateway_addresses, label_owners, listed,
    named, planned, problem, revision_tags, shown, warning,
};
use crate::aks::gateways::is_gateway;
use crate::gate;
use crate::ids::{NamespaceName, Revision};
use crate::injection::{Injection, PodShape, injection, relabelled};
use crate::intent::InjectionMode;
use crate::inventory::{is_dropped, is_system};
use crate::labels;
use crate::observed::{DEFAULT_TRUST_DOMAIN, Labels, MeshConfig, Workload};

/// All of them, in the order of their results.
pub(super) const CHAIN: [Check; 28] = [
    Check { name: "SourceIstiodReady", find: source_istiod_ready },
    Check { name: "InjectionLabelsUnambiguous", find: injection_labels_unambiguous },
    Check { name: "NamespacesAssigned", find: namespaces_assigned },
    Check { name: "NamespacesDropped", find: namespaces_dropped },
    Check { name: "PodLevelRevisions", find: pod_level_revisions },
    Check { name: "TrustDomainEqual", find: trust_domain_equal },
    Check { name: "DiscoverySelectorsEqual", find: discovery_selectors_equal },
    Check { name: "RootCertificateShared", find: root_certificate_shared },
    Check { name: "EnvoyFiltersMatchTarget", find: envoy_filters::find },
    Check { name: "LabelOwners", find: label_owners::find },
    Check { name: "RevisionTags", find: revision_tags::find },
    Check { name: "BudgetsCanBeMet", find: budgets_can_be_met },
    Check { name: "WorkloadsRestartable", find: workloads_restartable },
    Check { name: "NoRunningJobs", find: no_running_jobs },
    Check { name: "NoOtherUpgrade", find: no_other_upgrade },
    Check { name: "AksMeshInstalled", find: aks::mesh_installed },
    Check { name: "AksNoForeignUpgrade", find: aks::no_foreign_upgrade },
    Check { name: "AksNoDowngrade", find: aks::no_downgrade },
    Check { name: "AksTargetOffered", find: aks::target_offered },
    Check { name: "AksClusterCompatible", find: aks::cluster_compatible },
    Check { name: "AksClusterSettled", find: aks::cluster_settled },
    Check { name: "AksPluginCa", find: aks::plugin_ca },
    Check { name: "AksNoOpenServiceMesh", find: aks::no_open_service_mesh },
    Check { name: "AksNativeSidecars", find: aks::native_sidecars },
    Check { name: "AksMeshConfigCopied", find: aks::mesh_config_copied },
    Check { name: "AksLabelsWithoutEffect", find: addon_labels::find },
    Check { name: "AksGatewayAddressesReadable", find: gateway_addresses::find },
    Check { name: "AksGatewaysNamed", find: aks::gateways_named },
];

/// Reason of a namespace that no wave takes, in [`crate::plan::LeftNamespace`].
const UNASSIGNED: &str = "NamespaceUnassigned";
/// Reason of a workload whose budget never lets it restart, in [`crate::plan::Unrestartable`].
const BUDGET_NEVER_MET: &str = "BudgetNeverMet";
/// Reasons of what is not restarted that other checks speak of, or that need nothing done.
const SAID_ELSEWHERE: [&str; 3] = [BUDGET_NEVER_MET, "PodTemplateDecidesRevision", "CronJob"];

/// Whether the run repairs what a control plane left behind that is gone.
pub(super) fn repairs_what_is_left(input: &CheckInput<'_>) -> bool {
    input.intent.repairs_dropped
        && input.source != input.target
        && gate::is_gone(input.snapshot, input.source)
}

/// Namespaces that dropped out of the mesh, with what brings them back.
fn namespaces_dropped(input: &CheckInput<'_>) -> Finding {
    let dropped =
        input.snapshot.namespaces.values().filter(|namespace| is_dropped(input.snapshot, namespace));
    let outside = dropped.filter(|namespace| !is_system(input.intent, &namespace.name));
    // A target that is not there yet answers when it is.
    let left = outside.filter(|namespace| {
        namespace.labels.get(labels::REVISION).map(String::as_str) != Some(input.target.as_str())
    });
    let repairs = input.intent.repairs_labels();
    warning(left.map(|namespace| namespace.name.as_str()), |names| {
        let what = if repairs && input.intent.injection == InjectionMode::Observe {
            format!("their waves wait until their labels lead to {}", input.target)
        } else if repairs {
            format!("they are brought to {} with their waves", input.target)
        } else if input.intent.injection == InjectionMode::RevisionTag {
            "spec.injection.mode RevisionTag changes no label: set it, or use mode NamespaceLabel with droppedNamespaces: Repair".to_owned()
        } else {
            "spec.injection.droppedNamespaces: Repair brings them to the target: label, restart, and proof"
                .to_owned()
        };
        format!(
            "{names}: no webhook answers for the label {} of the namespace, so that new pods get no sidecar: {what}",
            labels::REVISION
        )
    })
}

/// Without the source's istiod and injector there is no way back.
fn source_istiod_ready(input: &CheckInput<'_>) -> Finding {
    let source = input.source;
    let look = format!(
        "kubectl get deployment -n {} -l app=istiod,{}={source}",
        input.intent.istio_namespace,
        labels::REVISION
    );
    let nowhere = "so a rollback would have nowhere to go";
    let istiod = input.snapshot.control_planes.get(source).and_then(|plane| plane.istiod.as_ref());
    if repairs_what_is_left(input) {
        return Finding::Warning(format!(
            "the control plane of {source} is gone: namespaces that name it are brought to {}, and there is no way back",
            input.target
        ));
    }
    let gate = gate::control_plane(input.snapshot, &input.intent.istio_namespace, source);
    match (istiod, gate) {
        (None, _) if gate::is_gone(input.snapshot, source) => Finding::Problem(format!(
            "the control plane of {source} is gone, {nowhere}: install it again, or let spec.injection.droppedNamespaces: Repair bring \
             what is left of it to {}",
            input.target
        )),
        (None, _) => Finding::Problem(format!("there is no istiod of revision {source}, {nowhere}: {look}")),
        (Some(istiod), _) if istiod.ready == 0 => {
            Finding::Problem(format!("{} has no ready pod, {nowhere}: {look}", istiod.name))
        }
        (Some(_), Some(gate)) => Finding::Problem(format!("{}, {nowhere}", gate.because)),
        (Some(istiod), None) if istiod.ready < istiod.desired => Finding::Warning(format!(
            "{} of {} pods of {} are ready: {look}",
            istiod.ready, istiod.desired, istiod.name
        )),
        (Some(_), None) => Finding::Nothing,
    }
}

fn injection_labels_unambiguous(input: &CheckInput<'_>) -> Finding {
    let both = planned(input).into_iter().filter(|namespace| {
        namespace.labels.contains_key(labels::INJECTION) && namespace.labels.contains_key(labels::REVISION)
    });
    warning(both.map(|namespace| namespace.name.as_str()), |names| {
        format!(
            "{names}: both {} and {} are set, so that the revision's webhook passes new pods by. Relabelling removes {}; \
             take it out of Git too",
            labels::INJECTION,
            labels::REVISION,
            labels::INJECTION
        )
    })
}

fn namespaces_assigned(input: &CheckInput<'_>) -> Finding {
    let unassigned = input.plan.left.iter().filter(|left| left.reason == UNASSIGNED);
    problem(unassigned.map(|left| left.namespace.as_str()), |names| {
        format!(
            "no wave takes {names}: select them in one of spec.waves, or let the last wave omit its selector so that it \
             takes the rest"
        )
    })
}

/// What a revision label in a pod template does, by the live webhooks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PodLabel {
    /// Its pods follow it to the source, or do not follow their namespace to the target.
    Decides,
    /// Its namespace is in scope and decides alone.
    Idle,
    /// It has nothing to do with this run.
    Unrelated,
}

fn pod_level_revisions(input: &CheckInput<'_>) -> Finding {
    let scope: BTreeSet<&NamespaceName> =
        planned(input).into_iter().map(|namespace| &namespace.name).collect();
    let names = |wanted: PodLabel| {
        let workloads = input.snapshot.workloads.values();
        let found = workloads.filter(|workload| pod_label(input, &scope, workload) == wanted);
        named(found.map(|workload| workload.reference.to_string()), 12)
    };
    let decides = names(PodLabel::Decides).map(|names| {
        format!(
            "the label {label} of a pod template decides, and no wave changes it; set it to {} there, in Git if Git has it: {names}",
            input.target,
            label = labels::REVISION
        )
    });
    let idle = names(PodLabel::Idle).map(|names| {
        format!(
            "the label {label} of a pod template does nothing where the namespace decides; remove it there before the old revision goes: \
             {names}",
            label = labels::REVISION
        )
    });
    let found: Vec<String> = [decides, idle].into_iter().flatten().collect();
    if found.is_empty() { Finding::Nothing } else { Finding::Warning(found.join(". ")) }
}

/// Precedence is not assumed: the label decides if the pods would go elsewhere without it. In scope that is asked of the
/// namespace as it will be after relabelling.
fn pod_label(input: &CheckInput<'_>, scope: &BTreeSet<&NamespaceName>, workload: &Workload) -> PodLabel {
    let template = &workload.template;
    let namespace = input.snapshot.namespaces.get(&workload.reference.namespace);
    let is_ours = template.labels.contains_key(labels::REVISION)
        && !is_system(input.intent, &workload.reference.namespace)
        && !is_gateway(input.intent, input.snapshot, &workload.reference);
    let Some(namespace) = namespace.filter(|_| is_ours) else {
        return PodLabel::Unrelated;
    };
    let mut without = template.labels.clone();
    without.remove(labels::REVISION);
    let resolve = |namespace_labels: &Labels, pod_labels: &Labels| {
        let shape = PodShape { labels: pod_labels, ..template.shape() };
        injection(&input.snapshot.webhooks, &namespace.name, namespace_labels, &shape)
    };
    if scope.contains(&namespace.name) {
        let moved = relabelled(&namespace.labels, input.target);
        let follows = resolve(&moved, &template.labels) == resolve(&moved, &without);
        return if follows { PodLabel::Idle } else { PodLabel::Decides };
    }
    let found = resolve(&namespace.labels, &template.labels);
    let on_source = matches!(&found, Injection::One(injector) if injector.revision == *input.source);
    if on_source && found != resolve(&namespace.labels, &without) {
        PodLabel::Decides
    } else {
        PodLabel::Unrelated
    }
}

fn trust_domain_equal(input: &CheckInput<'_>) -> Finding {
    mesh_config_equal(
        input,
        |mesh| mesh.trust_domain.as_str(),
        DEFAULT_TRUST_DOMAIN,
        "meshConfig.trustDomain",
        "proxies of the two would refuse each other, so set it alike in both",
    )
}

fn discovery_selectors_equal(input: &CheckInput<'_>) -> Finding {
    mesh_config_equal(
        input,
        |mesh| mesh.discovery_selectors.as_str(),
        "",
        "meshConfig.discoverySelectors",
        "one would not see what the other serves, and new namespaces may lack istio-ca-root-cert, so set them alike \
         in both",
    )
}

/// Compares one part of both mesh configurations. A target that is not there yet is compared when it is: these checks run
/// again until the first write.
fn mesh_config_equal(
    input: &CheckInput<'_>,
    part: fn(&MeshConfig) -> &str,
    unset: &str,
    what: &str,
    remedy: &str,
) -> Finding {
    let mesh = |revision: &Revision| {
        let plane = input.snapshot.control_planes.get(revision)?;
        plane.mesh_config.as_ref().map(|mesh| part(mesh).to_owned())
    };
    match (mesh(input.source), mesh(input.target)) {
        // What the target does not set by itself comes with the copy, which is made when the run starts.
        (Some(_), Some(target)) if aks::copy_is_due(input) && target == unset => Finding::Nothing,
        (Some(source), Some(target)) if source != target => Finding::Problem(format!(
            "{what} must be the same, but {} has {} and {} has {}: {remedy}",
            input.source,
            shown(&source),
            input.target,
            shown(&target)
        )),
        (None, Some(_)) => Finding::Warning(format!(
            "{what} cannot be compared, because the mesh configuration of {source} cannot be read: kubectl get configmap -n \
             {} {}",
            input.intent.istio_namespace,
            config_map(input.source),
            source = input.source
        )),
        (Some(_) | None, _) => Finding::Nothing,
    }
}

/// The mesh ConfigMap of a revision. Source: the istiod chart, which leaves out the suffix for the unnamed revision.
fn config_map(revision: &Revision) -> String {
    match revision.as_str() {
        "default" => "istio".to_owned(),
        name => format!("istio-{name}"),
    }
}

/// Two revisions that sign with different roots cannot talk to each other. What is compared is what both istiods wrote
/// into their webhooks.
fn root_certificate_shared(input: &CheckInput<'_>) -> Finding {
    let source = root_certificates(input, input.source);
    let target = root_certificates(input, input.target);
    if target.is_empty() || !source.is_disjoint(&target) {
        return Finding::Nothing;
    }
    if source.is_empty() {
        return Finding::Warning(format!(
            "root certificates cannot be compared, because the webhook of {source} has none: kubectl get \
             mutatingwebhookconfiguration -l {label}={source},!{tag}",
            source = input.source,
            label = labels::REVISION,
            tag = labels::TAG
        ));
    }
    Finding::Problem(format!(
        "{} and {} have no root certificate in common, so their proxies could not talk to each other: let both use the same \
         CA (secret cacerts or istio-ca-secret in {})",
        input.source, input.target, input.intent.istio_namespace
    ))
}

/// The certificates in the CA bundles of a revision's own webhooks: the text of each PEM block without white space.
fn root_certificates(input: &CheckInput<'_>, revision: &Revision) -> BTreeSet<String> {
    input
        .snapshot
        .webhooks
        .iter()
        .filter(|webhook| webhook.tag.is_none() && webhook.revision.as_ref() == Some(revision))
        .flat_map(|webhook| &webhook.entries)
        .flat_map(|entry| entry.client.ca_bundle.split("-----BEGIN CERTIFICATE-----").skip(1))
        .filter_map(|block| block.split("-----END CERTIFICATE-----").next())
        .map(|body| body.split_whitespace().collect())
        .filter(|body: &String| !body.is_empty())
        .collect()
}

fn budgets_can_be_met(input: &CheckInput<'_>) -> Finding {
    let never: Vec<_> =
        input.unrestartable.iter().filter(|workload| workload.reason == BUDGET_NEVER_MET).collect();
    let first = never.first().map(|workload| workload.message.as_str()).unwrap_or_default();
    warning(never.iter().map(|workload| workload.workload.to_string()), |names| {
        format!("{names} will not be restarted, because a pod disruption budget never allows it: {first}")
    })
}

fn workloads_restartable(input: &CheckInput<'_>) -> Finding {
    let from_plan =
        input.plan.not_restarted.iter().filter(|found| !SAID_ELSEWHERE.contains(&found.reason.as_str())).map(
            |found| {
                let name = format!("{} {}/{}", found.kind, found.namespace, found.name);
                (name, found.reason.as_str(), found.message.as_str())
            },
        );
    let from_workloads = input
        .unrestartable
        .iter()
        .filter(|found| !SAID_ELSEWHERE.contains(&found.reason))
        .map(|found| (found.workload.to_string(), found.reason, found.message.as_str()));
    let found: BTreeSet<(String, &str, &str)> = from_plan.chain(from_workloads).collect();
    let Some((_, _, first)) = found.first() else {
        return Finding::Nothing;
    };
    // The plan lists only so many; the rest is counted.
    let unlisted = usize::try_from(input.plan.not_restarted_count)
        .unwrap_or(usize::MAX)
        .saturating_sub(input.plan.not_restarted.len());
    let count = found.len().saturating_add(unlisted);
    listed(found.iter().map(|(name, reason, _)| format!("{name} ({reason})"))).map_or(Finding::Nothing, |names| {
        Finding::Warning(format!(
            "{count} workloads or pods with a sidecar will not be restarted and must leave {} before it goes: {names}. The first: {first}",
            input.source
        ))
    })
}

fn no_other_upgrade(input: &CheckInput<'_>) -> Finding {
    let others = &input.snapshot.other_upgrades;
    let active = others.iter().filter(|other| other.active);
    if let Some(names) = listed(active.map(|other| other.name.as_str())) {
        return Finding::Problem(format!(
            "MeshUpgrade {names} is in the middle of its run, and one mesh has one upgrade at a time: let it end, roll it back, \
             or delete it; kubectl get meshupgrades"
        ));
    }
    let first = others.iter().filter(|other| other.goes_first);
    problem(first.map(|other| other.name.as_str()), |names| {
        format!(
            "MeshUpgrade {names} was there before and goes first: let it end, or delete it; kubectl get meshupgrades"
        )
    })
}

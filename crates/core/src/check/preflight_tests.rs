use std::sync::Arc;

use super::fixture::{Mesh, ROOT, SOURCE, TARGET, map, said};
use super::{PREFLIGHT, failed};
use crate::census::UnmanagedPod;
use crate::decision::CheckOutcome;
use crate::ids::{WorkloadKind, WorkloadRef};
use crate::intent::RunningJobs;
use crate::inventory::Pair;
use crate::labels;
use crate::observed::{FieldManager, MeshConfig, OtherUpgrade, Owner, Pod, Proxy};
use crate::plan::{LeftNamespace, NotRestarted, Unrestartable};
use crate::planning;

/// What preflight says of a mesh that is broken in one way.
fn about(break_it: impl FnOnce(&mut Mesh)) -> Vec<String> {
    let mut mesh = Mesh::before();
    break_it(&mut mesh);
    said(&mesh.preflight())
}

/// The only thing that preflight says.
fn only(break_it: impl FnOnce(&mut Mesh)) -> String {
    let mut said = about(break_it);
    assert_eq!(said.len(), 1, "{said:?}");
    said.remove(0)
}

#[test]
fn a_mesh_in_order_passes_every_check() {
    let results = Mesh::before().preflight();
    let names: Vec<&str> = results.iter().map(|result| result.name).collect();
    assert_eq!(names, PREFLIGHT);
    assert_eq!(said(&results), Vec::<String>::new());
    assert!(results.iter().all(|result| result.message.is_empty()));
}

#[test]
fn the_names_are_those_of_the_guide_in_their_order() {
    let names = [
        "SourceIstiodReady",
        "InjectionLabelsUnambiguous",
        "NamespacesAssigned",
        "NamespacesDropped",
        "PodLevelRevisions",
        "TrustDomainEqual",
        "DiscoverySelectorsEqual",
        "RootCertificateShared",
        "EnvoyFiltersMatchTarget",
        "LabelOwners",
        "RevisionTags",
        "BudgetsCanBeMet",
        "WorkloadsRestartable",
        "NoRunningJobs",
        "NoOtherUpgrade",
        "AksMeshInstalled",
        "AksNoForeignUpgrade",
        "AksNoDowngrade",
        "AksTargetOffered",
        "AksClusterCompatible",
        "AksClusterSettled",
        "AksPluginCa",
        "AksNoOpenServiceMesh",
        "AksNativeSidecars",
        "AksMeshConfigCopied",
        "AksLabelsWithoutEffect",
        "AksGatewayAddressesReadable",
        "AksGatewaysNamed",
    ];
    assert_eq!(PREFLIGHT, names);
}

#[test]
fn a_skipped_check_says_what_it_would_have_said_and_holds_nothing_back() {
    let mut mesh = Mesh::before();
    mesh.plane(SOURCE, |plane| plane.istiod = None);
    assert_eq!(failed(&mesh.preflight()).len(), 1);
    mesh.skip("SourceIstiodReady");
    mesh.skip("TrustDomainEqual");
    let results = mesh.preflight();
    assert!(failed(&results).is_empty());
    assert_eq!(results.len(), PREFLIGHT.len());
    let said = said(&results);
    assert!(said[0].starts_with("SourceIstiodReady Skipped: there is no istiod"), "{said:?}");
    assert_eq!(said[1], "TrustDomainEqual Skipped: ");
}

#[test]
fn the_way_back_needs_the_istiod_of_the_source() {
    let command = "kubectl get deployment -n istio-system -l app=istiod,istio.io/rev=asm-1-27";
    let told = only(|mesh| mesh.plane(SOURCE, |plane| plane.istiod = None));
    assert!(told.starts_with("SourceIstiodReady Failed: there is no istiod of revision asm-1-27"), "{told}");
    assert!(told.ends_with(command), "{told}");
    let ready = |count| {
        move |mesh: &mut Mesh| {
            mesh.plane(SOURCE, |plane| {
                if let Some(istiod) = &mut plane.istiod {
                    istiod.ready = count;
                }
            });
        }
    };
    assert!(only(ready(0)).starts_with("SourceIstiodReady Failed: istiod-asm-1-27 has no ready pod"));
    assert!(
        only(ready(1)).starts_with("SourceIstiodReady Warning: 1 of 2 pods of istiod-asm-1-27 are ready")
    );
    let told = about(|mesh| drop(mesh.snapshot.control_planes.remove(&SOURCE.into())));
    assert!(told[0].starts_with("SourceIstiodReady Failed"), "{told:?}");
}

#[test]
fn the_way_back_needs_the_injector_of_the_source() {
    let told = only(|mesh| mesh.plane(SOURCE, |plane| plane.injector_config = false));
    assert!(
        told.starts_with("SourceIstiodReady Failed: there is no ConfigMap istio-sidecar-injector-asm-1-27"),
        "{told}"
    );
    assert!(told.ends_with("so a rollback would have nowhere to go"), "{told}");
    let told = about(|mesh| mesh.webhook(SOURCE, |webhook| webhook.entries[0].client.ca_bundle.clear()));
    assert!(told[0].starts_with("SourceIstiodReady Failed: istiod has not written its CA"), "{told:?}");
}

#[test]
fn two_injection_labels_on_one_namespace_are_worth_a_warning() {
    let told = only(|mesh| {
        mesh.namespace("pay", |namespace| {
            namespace.labels.insert(labels::INJECTION.to_owned(), "enabled".to_owned());
        });
    });
    assert!(told.starts_with("InjectionLabelsUnambiguous Warning: pay: both"), "{told}");
    assert!(told.contains("Relabelling removes istio-injection"), "{told}");
    let outside = about(|mesh| {
        mesh.add_namespace("else", &[(labels::REVISION, SOURCE), (labels::INJECTION, "enabled")]);
    });
    assert!(outside.is_empty(), "only namespaces in scope count: {outside:?}");
}

#[test]
fn a_namespace_that_no_wave_takes_fails() {
    let left = |name: &str, reason: &str| LeftNamespace {
        namespace: name.into(),
        reason: reason.to_owned(),
        message: String::new(),
    };
    let told = only(|mesh| {
        mesh.plan.left = vec![left("ops", "NamespaceUnassigned"), left("lab", "OtherRevision")];
    });
    assert!(
        told.starts_with("NamespacesAssigned Failed: no wave takes ops: select them in one of spec.waves"),
        "{told}"
    );
}

#[test]
fn a_pod_label_that_decides_is_told_with_the_value_that_it_needs() {
    let told = only(|mesh| {
        mesh.add_namespace("edge", &[]);
        mesh.add_workload("edge", "gateway", &[(labels::REVISION, SOURCE)]);
        mesh.add_workload("edge", "moved", &[(labels::REVISION, TARGET)]);
    });
    let expected = "PodLevelRevisions Warning: the label istio.io/rev of a pod template decides, and no wave changes it; set it to \
                    asm-1-28 there, in Git if Git has it: Deployment edge/gateway";
    assert_eq!(told, expected);
}

#[test]
fn a_pod_label_that_does_nothing_is_told_apart() {
    let told = only(|mesh| {
        mesh.add_workload("shop", "web", &[(labels::REVISION, SOURCE)]);
        mesh.add_workload("shop", "plain", &[]);
    });
    assert!(told.contains("does nothing where the namespace decides; remove it there"), "{told}");
    assert!(told.ends_with("before the old revision goes: Deployment shop/web"), "{told}");
}

#[test]
fn a_pod_label_in_a_namespace_that_follows_a_tag_is_not_of_this_run() {
    let told = only(|mesh| {
        mesh.add_tag("prod", SOURCE);
        mesh.add_namespace("tagged", &[(labels::REVISION, "prod")]);
        mesh.add_workload("tagged", "web", &[(labels::REVISION, SOURCE)]);
    });
    assert!(told.starts_with("RevisionTags Warning"), "{told}");
}

#[test]
fn whether_a_pod_label_decides_is_asked_of_the_live_webhooks() {
    let told = only(|mesh| {
        // Selectors by which the pod's label beats the namespace's.
        for revision in [SOURCE, TARGET] {
            mesh.webhook(revision, |webhook| {
                let own = webhook.entries[1].object_selector.match_expressions[1].clone();
                let absent = webhook.entries[1].namespace_selector.match_expressions[0].clone();
                webhook.entries[0].object_selector.match_expressions.push(absent);
                webhook.entries[1].namespace_selector.match_expressions.clear();
                webhook.entries[1].object_selector.match_expressions = vec![own];
            });
        }
        mesh.add_workload("shop", "web", &[(labels::REVISION, SOURCE)]);
    });
    assert!(
        told.contains("the label istio.io/rev of a pod template decides")
            && told.ends_with("Deployment shop/web"),
        "{told}"
    );
}

fn set_mesh_config(mesh: &mut Mesh, trust_domain: &str, discovery_selectors: &str) {
    mesh.plane(TARGET, |plane| {
        plane.mesh_config = Some(MeshConfig {
            trust_domain: trust_domain.to_owned(),
            discovery_selectors: discovery_selectors.to_owned(),
        });
    });
}

#[test]
fn trust_domains_that_differ_fail_with_both_values() {
    let told = only(|mesh| set_mesh_config(mesh, "prod.example", ""));
    assert!(
        told.starts_with("TrustDomainEqual Failed: meshConfig.trustDomain must be the same, but asm-1-27 has cluster.local and asm-1-28 has prod.example"),
        "{told}"
    );
}

#[test]
fn discovery_selectors_that_differ_fail_and_are_cut_to_a_readable_length() {
    let long = format!("[{}]", "é".repeat(300));
    let told = only(|mesh| set_mesh_config(mesh, "cluster.local", &long));
    assert!(
        told.starts_with("DiscoverySelectorsEqual Failed: meshConfig.discoverySelectors must be the same, but asm-1-27 has none"),
        "{told}"
    );
    assert!(told.chars().count() < 500, "{told}");
}

#[test]
fn a_mesh_configuration_that_is_not_there_yet_is_compared_later() {
    assert!(about(|mesh| mesh.plane(TARGET, |plane| plane.mesh_config = None)).is_empty());
    assert!(about(|mesh| drop(mesh.snapshot.control_planes.remove(&TARGET.into()))).is_empty());
    let told = about(|mesh| mesh.plane(SOURCE, |plane| plane.mesh_config = None));
    assert_eq!(told.len(), 2);
    assert!(
        told.iter().all(
            |told| told.contains("Warning") && told.ends_with("configmap -n istio-system istio-asm-1-27")
        )
    );
}

fn with_bundle(mesh: &mut Mesh, revision: &str, bundle: &str) {
    mesh.webhook(revision, |webhook| {
        for entry in &mut webhook.entries {
            bundle.clone_into(&mut entry.client.ca_bundle);
        }
    });
}

#[test]
fn roots_without_a_certificate_in_common_fail() {
    let other = "-----BEGIN CERTIFICATE-----\nMIIother\n-----END CERTIFICATE-----";
    let told = only(|mesh| with_bundle(mesh, TARGET, other));
    assert!(
        told.starts_with(
            "RootCertificateShared Failed: asm-1-27 and asm-1-28 have no root certificate in common"
        ),
        "{told}"
    );
    // One in common is enough, however it is wrapped.
    let both = format!("{other}\n-----BEGIN CERTIFICATE-----\nMII\nroot  \n-----END CERTIFICATE-----");
    assert!(about(|mesh| with_bundle(mesh, TARGET, &both)).is_empty());
}

#[test]
fn a_root_that_is_not_there_yet_is_compared_later() {
    assert!(about(|mesh| with_bundle(mesh, TARGET, "")).is_empty());
    let told = about(|mesh| with_bundle(mesh, SOURCE, ""));
    assert!(told[0].starts_with("SourceIstiodReady Failed"), "{told:?}");
    assert!(told[1].starts_with("RootCertificateShared Warning"), "{told:?}");
}

#[test]
fn the_root_of_a_tag_says_nothing_about_the_revision() {
    assert!(
        about(|mesh| {
            with_bundle(mesh, TARGET, "-----BEGIN CERTIFICATE-----\nMIIother\n-----END CERTIFICATE-----");
            mesh.add_tag("prod", TARGET);
            mesh.webhook(TARGET, |webhook| webhook.entries[0].client.ca_bundle = ROOT.to_owned());
        })
        .is_empty()
    );
    let told = only(|mesh| {
        with_bundle(mesh, TARGET, "-----BEGIN CERTIFICATE-----\nMIIother\n-----END CERTIFICATE-----");
        mesh.add_tag("prod", TARGET);
    });
    assert!(told.contains("no root certificate in common"), "{told}");
}

/// A field manager that owns the revision label.
fn owner(name: &str, applies: bool) -> FieldManager {
    FieldManager { name: name.to_owned(), applies, owns_revision: true, ..FieldManager::default() }
}

#[test]
fn of_several_owners_the_foreign_one_counts_and_of_those_the_one_that_deploys_again() {
    let later = |manager: FieldManager, second| FieldManager {
        wrote_at: Some(jiff::Timestamp::from_second(second).unwrap()),
        ..manager
    };
    let argo = later(owner("argocd-controller", true), 1);
    let us = later(owner(labels::FIELD_MANAGER, false), 2);
    let kubectl = later(owner("kubectl-label", false), 3);
    let bystander = FieldManager { owns_revision: false, ..later(owner("helm", false), 4) };
    let counts = |managers: &[&FieldManager]| {
        let managers = managers.iter().copied().cloned().collect();
        let namespace = crate::observed::Namespace { managers, ..Default::default() };
        super::revision_owner(&namespace).map(|owner| owner.name.clone())
    };
    assert_eq!(counts(&[&argo, &us, &kubectl, &bystander]).as_deref(), Some("argocd-controller"));
    assert_eq!(counts(&[&us, &kubectl]).as_deref(), Some("kubectl-label"));
    assert_eq!(counts(&[&us]).as_deref(), Some(labels::FIELD_MANAGER));
    assert_eq!(counts(&[&bystander]), None);
}

fn owned_by(manager: &str) -> String {
    only(|mesh| {
        mesh.namespace("shop", |namespace| {
            namespace.managers = vec![owner(manager, true)];
        });
    })
}

#[test]
fn argo_cd_is_told_with_the_rule_to_paste() {
    let told = owned_by("argocd-controller");
    assert!(told.starts_with("LabelOwners Warning: shop: Argo CD owns istio.io/rev"), "{told}");
    assert!(
        told.contains(
            "spec.ignoreDifferences: [{kind: Namespace, jsonPointers: [/metadata/labels/istio.io~1rev]}]"
        ),
        "{told}"
    );
    assert!(told.ends_with("spec.syncPolicy.syncOptions: [RespectIgnoreDifferences=true]"), "{told}");
}

#[test]
fn flux_is_told_with_the_rule_of_the_controller_that_owns_the_label() {
    let rule = "[{paths: [/metadata/labels/istio.io~1rev], target: {kind: Namespace}}]";
    let told = owned_by("kustomize-controller");
    assert!(told.contains(&format!("add to the Kustomization spec.ignore: {rule}")), "{told}");
    let told = owned_by("helm-controller");
    assert!(told.contains(&format!("add to the HelmRelease spec.driftDetection.ignore: {rule}")), "{told}");
}

#[test]
fn helm_and_kubectl_come_back_only_when_somebody_runs_them() {
    assert!(owned_by("helm").contains("set it to asm-1-28 in the chart's values"));
    for manager in ["kubectl-client-side-apply", "kubectl-label", "kubectl"] {
        assert!(owned_by(manager).contains("if a file or a script does so again"), "{manager}");
    }
}

#[test]
fn the_operator_itself_and_strangers_are_no_label_owners_to_warn_of() {
    for manager in [labels::FIELD_MANAGER, "some-operator"] {
        let told = about(|mesh| {
            mesh.namespace("shop", |namespace| {
                namespace.managers = vec![owner(manager, false)];
            });
        });
        assert!(told.is_empty(), "{told:?}");
    }
}

#[test]
fn the_rule_covers_istio_injection_where_it_is_set() {
    let told = about(|mesh| {
        mesh.namespace("shop", |namespace| {
            namespace.labels = map(&[(labels::REVISION, SOURCE), (labels::INJECTION, "enabled")]);
            namespace.managers = vec![owner("argocd-controller", true)];
        });
    });
    assert!(
        told[1].contains("[/metadata/labels/istio.io~1rev, /metadata/labels/istio-injection]"),
        "{told:?}"
    );
}

fn unrestartable(name: &str, reason: &'static str) -> Unrestartable {
    Unrestartable {
        workload: WorkloadRef::new(WorkloadKind::StatefulSet, "shop", name),
        reason,
        message: format!("what helps {name}"),
    }
}

#[test]
fn budgets_that_are_never_met_are_named() {
    let told = only(|mesh| {
        mesh.unrestartable =
            vec![unrestartable("db", "BudgetNeverMet"), unrestartable("queue", "BudgetNeverMet")];
    });
    let expected = "BudgetsCanBeMet Warning: StatefulSet shop/db, StatefulSet shop/queue will not be restarted, because a pod \
                    disruption budget never allows it: what helps db";
    assert_eq!(told, expected);
}

fn not_restarted(kind: &str, name: &str, reason: &str) -> NotRestarted {
    NotRestarted {
        kind: kind.to_owned(),
        namespace: "shop".into(),
        name: name.to_owned(),
        reason: reason.to_owned(),
        message: format!("what helps {name}"),
    }
}

#[test]
fn what_is_not_restarted_is_counted_once_and_the_first_are_named() {
    let told = only(|mesh| {
        mesh.unrestartable = vec![unrestartable("db", "OnDelete")];
        mesh.plan.not_restarted = vec![
            not_restarted("StatefulSet", "db", "OnDelete"),
            not_restarted("Pod", "tool", "BarePod"),
            not_restarted("CronJob", "nightly", "CronJob"),
        ];
        mesh.plan.not_restarted[0].message = "what helps db".to_owned();
        mesh.plan.not_restarted_count = 13;
    });
    let expected = "WorkloadsRestartable Warning: 12 workloads or pods with a sidecar will not be restarted and must leave asm-1-27 before it \
                    goes: Pod shop/tool (BarePod), StatefulSet shop/db (OnDelete). The first: what helps tool";
    assert_eq!(told, expected);
    assert!(
        about(|mesh| mesh.plan.not_restarted = vec![not_restarted("CronJob", "nightly", "CronJob")])
            .is_empty()
    );
}

#[test]
fn a_run_that_must_not_begin_while_jobs_run_waits_for_them() {
    let with_job = |policy| {
        about(|mesh| {
            mesh.intent.restart.running_jobs = policy;
            mesh.census(|census| {
                census.unmanaged.push(UnmanagedPod {
                    namespace: "shop".into(),
                    name: "migrate-x".into(),
                    owner: Some(("Job".into(), "migrate".into())),
                    revision: SOURCE.into(),
                    gateway_api: false,
                });
                census.job_count.insert(SOURCE.into(), 1);
            });
        })
    };
    let told = with_job(RunningJobs::Block).join("");
    assert!(told.starts_with("NoRunningJobs Failed: 1 proxy runs of Jobs on asm-1-27"), "{told}");
    assert!(told.contains("kubectl wait --for=delete pod/migrate-x"), "{told}");
    assert!(with_job(RunningJobs::Wait).is_empty());
}

/// Its template has a proxy of its own and is out of injection, like one that was injected by hand.
#[test]
fn a_proxy_of_the_gateway_api_is_planned_once_and_as_what_it_is() {
    let labels =
        [(labels::GATEWAY_NAME, "edge"), (labels::SIDECAR_INJECT, "false"), ("pod-template-hash", "5d9c7b")];
    let mut mesh = Mesh::before();
    mesh.add_workload("shop", "edge-istio", &labels[..2]);
    for workload in mesh.snapshot.workloads.values_mut() {
        Arc::make_mut(workload).template.own_proxy = true;
    }
    let set = Owner { kind: "ReplicaSet".into(), name: "edge-istio-5d9c7b".into(), group: "apps".into() };
    let proxy = Proxy { revision: Some(SOURCE.into()), ..Proxy::default() };
    let pod = Pod {
        namespace: "shop".into(),
        labels: map(&labels),
        controller: Some(set),
        proxy: Some(proxy),
        ..Pod::default()
    };
    mesh.census(|census| census.add_pod(&pod));
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let planned = planning::make(&mesh.intent, &mesh.snapshot, pair).plan.not_restarted;
    let rows: Vec<_> = planned.iter().map(|row| (row.kind.as_str(), &*row.name, &*row.reason)).collect();
    assert_eq!(rows, [("Deployment", "edge-istio", "GatewayApiManaged")]);
}

#[test]
fn another_upgrade_in_its_run_or_before_this_one_holds_it_back() {
    let other = |name: &str, active, goes_first| OtherUpgrade { name: name.to_owned(), active, goes_first };
    let told = only(|mesh| {
        mesh.snapshot.other_upgrades = vec![other("old", false, true), other("busy", true, false)];
    });
    assert!(
        told.starts_with("NoOtherUpgrade Failed: MeshUpgrade busy is in the middle of its run"),
        "{told}"
    );
    let told = only(|mesh| mesh.snapshot.other_upgrades = vec![other("old", false, true)]);
    assert!(told.starts_with("NoOtherUpgrade Failed: MeshUpgrade old was there before"), "{told}");
    assert!(about(|mesh| mesh.snapshot.other_upgrades = vec![other("late", false, false)]).is_empty());
}

#[test]
fn long_lists_of_names_are_cut() {
    let told = only(|mesh| {
        mesh.plan.left = (0..8)
            .map(|index| LeftNamespace {
                namespace: format!("n{index}").into(),
                reason: "NamespaceUnassigned".to_owned(),
                message: String::new(),
            })
            .collect();
    });
    assert!(told.contains("no wave takes n0, n1, n2, n3, n4 and 3 more:"), "{told}");
}

#[test]
fn only_failures_hold_a_run_back() {
    let mut mesh = Mesh::before();
    mesh.unrestartable = vec![unrestartable("db", "BudgetNeverMet")];
    let results = mesh.preflight();
    assert!(results.iter().any(|result| result.outcome == CheckOutcome::Warning));
    assert!(failed(&results).is_empty());
}

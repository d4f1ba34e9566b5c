use std::sync::Arc;

use jiff::Timestamp;

use super::COMPLETION;
use super::fixture::{Mesh, SOURCE, TARGET, map, said};
use crate::census::{CronJob, Reference, ReferenceKind, UnmanagedPod};
use crate::ids::{Revision, WorkloadKind, WorkloadRef};
use crate::intent::RunningJobs;
use crate::labels;
use crate::observed::{FieldManager, PodTemplate, PreviousLabels};

/// What completion says of a moved mesh that is broken in one way.
fn about(break_it: impl FnOnce(&mut Mesh)) -> Vec<String> {
    let mut mesh = Mesh::after();
    break_it(&mut mesh);
    said(&mesh.completion())
}

/// The only thing that completion says.
fn only(break_it: impl FnOnce(&mut Mesh)) -> String {
    let mut said = about(break_it);
    assert_eq!(said.len(), 1, "{said:?}");
    said.remove(0)
}

fn label(mesh: &mut Mesh, namespace: &str, pairs: &[(&str, &str)]) {
    mesh.namespace(namespace, |namespace| namespace.labels = map(pairs));
}

#[test]
fn a_mesh_that_moved_passes_every_check() {
    let results = Mesh::after().completion();
    let names: Vec<&str> = results.iter().map(|result| result.name).collect();
    assert_eq!(names, COMPLETION);
    assert_eq!(said(&results), Vec::<String>::new());
}

#[test]
fn the_names_are_those_of_the_guide_in_their_order() {
    let names = [
        "NamespacesMoved",
        "PodTemplatesMoved",
        "TagsMoved",
        "GatewaysMoved",
        "IstioResourcesMoved",
        "ProxiesMoved",
        "SidecarsPresent",
        "DefaultValidatorMoved",
        "NothingUncovered",
        "GitAgrees",
    ];
    assert_eq!(COMPLETION, names);
}

#[test]
fn without_a_count_nothing_that_needs_one_passes() {
    let told = about(|mesh| mesh.snapshot.census = None);
    let expected = [
        "TagsMoved",
        "GatewaysMoved",
        "IstioResourcesMoved",
        "ProxiesMoved",
        "SidecarsPresent",
        "DefaultValidatorMoved",
        "NothingUncovered",
    ]
    .map(|name| format!("{name} Failed: not counted yet"));
    assert_eq!(told, expected);
}

#[test]
fn a_namespace_that_resolves_to_the_source_fails() {
    let told = only(|mesh| label(mesh, "pay", &[(labels::REVISION, SOURCE)]));
    let expected = "NamespacesMoved Failed: new pods of pay would still get asm-1-27: kubectl label namespace pay \
                    istio.io/rev=asm-1-28 istio-injection- --overwrite, and the same in Git";
    assert_eq!(told, expected);
}

#[test]
fn a_label_counts_though_nobody_answers_it_today() {
    let hidden = [(labels::REVISION, SOURCE), (labels::INJECTION, "enabled")];
    assert!(only(|mesh| label(mesh, "pay", &hidden)).starts_with("NamespacesMoved Failed"));
    let told = only(|mesh| {
        mesh.snapshot.webhooks.retain(|webhook| webhook.revision != Some(SOURCE.into()));
        label(mesh, "pay", &[(labels::REVISION, SOURCE)]);
    });
    assert!(told.starts_with("NamespacesMoved Failed"), "{told}");
}

#[test]
fn a_namespace_counts_by_what_the_webhooks_select_whatever_its_labels_are_called() {
    let told = only(|mesh| {
        mesh.webhook(SOURCE, |webhook| {
            let mut by_team = webhook.entries[0].clone();
            by_team.namespace_selector.match_expressions.clear();
            by_team.namespace_selector.match_labels = map(&[("team", "a")]);
            webhook.entries.push(by_team);
        });
        mesh.add_namespace("lab", &[("team", "a")]);
    });
    assert!(told.contains("new pods of lab would still get asm-1-27"), "{told}");
}

#[test]
fn a_namespace_that_the_source_injects_besides_another_counts() {
    let told = only(|mesh| {
        mesh.webhook(SOURCE, |webhook| {
            let greedy = &mut webhook.entries[0].namespace_selector.match_expressions[0];
            greedy.values.push(TARGET.to_owned());
        });
    });
    assert!(told.contains("new pods of pay, shop would still get asm-1-27"), "{told}");
}

#[test]
fn a_namespace_that_is_going_does_not_count() {
    assert!(
        about(|mesh| {
            mesh.namespace("pay", |namespace| {
                namespace.labels = map(&[(labels::REVISION, SOURCE)]);
                namespace.terminating = true;
            });
        })
        .is_empty()
    );
}

#[test]
fn a_tag_is_told_as_a_tag_and_not_as_its_namespaces() {
    let told = only(|mesh| {
        mesh.add_tag("prod", SOURCE);
        label(mesh, "pay", &[(labels::REVISION, "prod")]);
    });
    assert!(told.starts_with("TagsMoved Failed: revision tag prod points at asm-1-27"), "{told}");
    assert!(
        told.ends_with("istioctl tag set prod --revision asm-1-28 --istioNamespace istio-system --overwrite"),
        "{told}"
    );
    assert!(about(|mesh| mesh.add_tag("prod", TARGET)).is_empty());
}

/// Gateways were put beside istiod for long. No run touches that namespace, and what is there keeps the source in use all the same.
#[test]
fn a_gateway_beside_istiod_keeps_its_revision() {
    let told = about(|mesh| {
        mesh.add_workload("istio-system", "istio-ingressgateway", &[(labels::REVISION, SOURCE)]);
        mesh.proxies("istio-system", SOURCE, 2);
    });
    let [template, proxies] = &told[..] else { panic!("{told:?}") };
    assert!(template.contains("kubectl patch deployment istio-ingressgateway -n istio-system"), "{template}");
    assert!(
        proxies.starts_with("ProxiesMoved Failed: 2 proxies run on asm-1-27 in istio-system"),
        "{proxies}"
    );
}

#[test]
fn a_pod_template_that_names_the_source_fails_with_the_patch() {
    let told = only(|mesh| {
        mesh.add_workload("edge", "gateway", &[(labels::REVISION, SOURCE)]);
        mesh.add_workload(
            "istio-system",
            "istiod-asm-1-27",
            &[(labels::REVISION, SOURCE), (labels::SIDECAR_INJECT, "false")],
        );
        mesh.add_workload("edge", "moved", &[(labels::REVISION, TARGET)]);
    });
    assert!(
        told.starts_with(
            "PodTemplatesMoved Failed: the pod template of Deployment edge/gateway asks for asm-1-27"
        ),
        "{told}"
    );
    let patch = r#"kubectl patch deployment gateway -n edge -p '{"spec":{"template":{"metadata":{"labels":{"istio.io/rev":"asm-1-28"}}}}}'"#;
    assert!(told.ends_with(patch), "{told}");
}

#[test]
fn a_pod_template_that_the_webhooks_send_to_the_source_fails_without_naming_it() {
    let by_opt_in = |mesh: &mut Mesh| {
        mesh.webhook(SOURCE, |webhook| {
            let mut object = webhook.entries[1].clone();
            object.object_selector.match_expressions.clear();
            object.object_selector.match_labels = map(&[(labels::SIDECAR_INJECT, "true")]);
            webhook.entries.push(object);
        });
    };
    let told = only(|mesh| {
        by_opt_in(mesh);
        mesh.add_namespace("edge", &[]);
        mesh.add_workload("edge", "in", &[(labels::SIDECAR_INJECT, "true")]);
        mesh.add_workload("edge", "plain", &[]);
        mesh.add_workload("shop", "web", &[(labels::SIDECAR_INJECT, "true")]);
    });
    assert!(
        told.starts_with(
            "PodTemplatesMoved Failed: the pod template of Deployment edge/in asks for asm-1-27"
        ),
        "{told}"
    );
}

#[test]
fn the_pods_of_a_namespace_that_did_not_move_are_told_once() {
    let told = only(|mesh| {
        label(mesh, "pay", &[(labels::REVISION, SOURCE)]);
        mesh.add_workload("pay", "web", &[]);
    });
    assert!(told.starts_with("NamespacesMoved Failed"), "{told}");
}

#[test]
fn a_cron_job_template_that_names_the_source_fails() {
    let told = only(|mesh| {
        mesh.census(|census| {
            census.cron_jobs.push(CronJob {
                namespace: "shop".into(),
                name: "nightly".to_owned(),
                template: PodTemplate {
                    labels: map(&[(labels::REVISION, SOURCE)]),
                    ..PodTemplate::default()
                },
            });
        });
    });
    assert!(
        told.starts_with(
            "PodTemplatesMoved Failed: the pod template of CronJob shop/nightly asks for asm-1-27"
        ),
        "{told}"
    );
}

fn reference(kind: ReferenceKind, object_kind: &str, namespace: Option<&str>, revision: &str) -> Reference {
    Reference {
        kind,
        object_kind: object_kind.to_owned(),
        namespace: namespace.map(Into::into),
        name: "one".to_owned(),
        revision: revision.into(),
    }
}

#[test]
fn every_kind_of_reference_to_the_source_fails_its_own_check() {
    for (kind, object_kind, check, command) in [
        (
            ReferenceKind::TagService,
            "Service",
            "TagsMoved",
            "kubectl patch service one -n shop --type merge -p ",
        ),
        (
            ReferenceKind::Gateway,
            "Gateway",
            "GatewaysMoved",
            "kubectl label gateways.gateway.networking.k8s.io one -n shop istio.io/rev=asm-1-28",
        ),
        (
            ReferenceKind::IstioResource,
            "EnvoyFilter",
            "IstioResourcesMoved",
            "kubectl label envoyfilter one -n shop istio.io/rev=asm-1-28",
        ),
        (
            ReferenceKind::DefaultValidator,
            "ValidatingWebhookConfiguration",
            "DefaultValidatorMoved",
            "istioctl tag set default --revision asm-1-28",
        ),
    ] {
        let told = only(|mesh| {
            mesh.census(|census| {
                census.references.push(reference(kind, object_kind, Some("shop"), SOURCE));
                let moved = reference(kind, object_kind, Some("moved"), TARGET);
                census.references.insert(0, moved);
            });
        });
        assert!(told.starts_with(&format!("{check} Failed: ")), "{told}");
        assert!(told.contains(&format!("{object_kind} shop/one")), "{told}");
        assert!(told.contains(command), "{told}");
        assert!(!told.contains("moved/one"), "{told}");
    }
}

#[test]
fn the_own_validator_goes_with_its_control_plane() {
    assert!(
        about(|mesh| {
            mesh.census(|census| {
                let own =
                    reference(ReferenceKind::OwnValidator, "ValidatingWebhookConfiguration", None, SOURCE);
                census.references.push(own);
            });
        })
        .is_empty()
    );
}

fn pod(name: &str, owner: Option<(&str, &str)>, gateway_api: bool) -> UnmanagedPod {
    UnmanagedPod {
        namespace: "shop".into(),
        name: name.to_owned(),
        owner: owner.map(|(kind, name)| (kind.to_owned(), name.to_owned())),
        revision: SOURCE.into(),
        gateway_api,
    }
}

#[test]
fn gateway_pods_of_the_source_fail_though_no_gateway_names_it() {
    let told = about(|mesh| {
        mesh.proxies("shop", SOURCE, 1);
        mesh.census(|census| {
            census.unmanaged.push(pod("gw-1", Some(("ReplicaSet", "gw")), true));
            census.unmanaged_count.insert(SOURCE.into(), 1);
        });
    });
    assert!(
        told[0].starts_with("GatewaysMoved Failed: istiod of asm-1-27 still runs the gateway pods shop/gw-1"),
        "{told:?}"
    );
    assert!(told[1].contains("Of the Gateway API: shop/gw-1 (ReplicaSet gw)"), "{told:?}");
}

#[test]
fn each_proxy_that_is_left_is_told_with_what_helps_its_owner() {
    let told = only(|mesh| {
        mesh.proxies("shop", SOURCE, 14);
        mesh.proxies("pay", SOURCE, 1);
        mesh.census(|census| {
            census.unmanaged = vec![
                pod("tool", None, false),
                pod("migrate-x", Some(("Job", "migrate")), false),
                pod("clone-0", Some(("CloneSet", "clone")), false),
            ];
            census.unmanaged_count.insert(SOURCE.into(), 13);
            let db = WorkloadRef::new(WorkloadKind::StatefulSet, "pay", "db");
            census.workloads.entry(SOURCE.into()).or_default().insert(db, 2);
        });
    });
    let expected = [
        "ProxiesMoved Failed: 15 proxies run on asm-1-27 in pay, shop",
        "Restart StatefulSet pay/db: kubectl rollout restart statefulset db -n pay",
        "10 more pods that MeshUpgrade does not restart are not listed here",
        "Without a controller: shop/tool; create each again from its manifest after kubectl delete pod tool -n shop",
        "Of Jobs: shop/migrate-x (Job migrate); wait until they end, kubectl wait --for=delete pod/migrate-x -n shop \
         --timeout=1h, or delete the Job",
        "Of controllers that MeshUpgrade does not know: shop/clone-0 (CloneSet clone); restart them through their owner",
    ];
    assert_eq!(told, expected.join(". "));
}

#[test]
fn running_jobs_can_be_ignored_and_nothing_else_with_them() {
    let with_jobs = |mesh: &mut Mesh, others: u32| {
        mesh.proxies("shop", SOURCE, 2 + others);
        mesh.census(|census| {
            census.unmanaged = vec![pod("migrate-x", Some(("Job", "migrate")), false)];
            census.unmanaged_count.insert(SOURCE.into(), 2);
            census.job_count.insert(SOURCE.into(), 2);
        });
    };
    assert!(only(|mesh| with_jobs(mesh, 0)).contains("Of Jobs: shop/migrate-x"));
    let ignoring = |others| {
        about(|mesh| {
            mesh.intent.restart.running_jobs = RunningJobs::Ignore;
            with_jobs(mesh, others);
        })
    };
    assert!(ignoring(0).is_empty());
    let told = ignoring(1).join("");
    assert!(told.contains("1 proxy runs on asm-1-27") && !told.contains("Of Jobs"), "{told}");
}

#[test]
fn a_workload_that_no_restart_moves_is_told_with_what_does() {
    let told = only(|mesh| {
        mesh.proxies("pay", SOURCE, 2);
        for name in ["by-hand", "halted", "web"] {
            let out = [(labels::SIDECAR_INJECT, "false")];
            mesh.add_workload("pay", name, if name == "by-hand" { &out } else { &[] });
            let reference = WorkloadRef::new(WorkloadKind::Deployment, "pay", name);
            let workload = mesh.snapshot.workloads.get_mut(&reference).unwrap();
            Arc::make_mut(workload).paused = name == "halted";
            Arc::make_mut(workload).template.own_proxy = name == "by-hand";
            mesh.census(|census| {
                census.workloads.entry(SOURCE.into()).or_default().insert(reference, 1);
            });
        }
    });
    let expected = [
        "ProxiesMoved Failed: 2 proxies run on asm-1-27 in pay",
        "Not restarted by MeshUpgrade: Deployment pay/by-hand (ManualInjection), Deployment pay/halted (Paused)",
        "The first: its template brings its own istio-proxy: a restart does not change it; inject it again and apply it",
        "Restart Deployment pay/web: kubectl rollout restart deployment web -n pay",
    ];
    assert_eq!(told, expected.join(". "));
}

#[test]
fn a_proxy_of_an_unknown_revision_is_not_taken_for_a_moved_one() {
    let told = only(|mesh| mesh.proxies("pay", "", 1));
    assert!(
        told.starts_with("ProxiesMoved Failed: 1 proxy runs in pay without any sign of a revision"),
        "{told}"
    );
}

#[test]
fn what_is_not_covered_or_not_readable_makes_the_answer_unknown() {
    let told = only(|mesh| {
        mesh.census(|census| {
            census.uncovered.push("WorkloadEntry vm/db".to_owned());
            census.unreadable.push("gateways: forbidden".to_owned());
        });
    });
    assert!(told.starts_with("NothingUncovered Failed: whether asm-1-27 is in use is unknown"), "{told}");
    assert!(told.contains("could not be read: gateways: forbidden"), "{told}");
    assert!(told.contains("not covered by MeshUpgrade: WorkloadEntry vm/db"), "{told}");
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// `pay` as it is after a relabelling at second 100 that took the label from `manager`.
fn taken_from(mesh: &mut Mesh, manager: &str, synced: Option<i64>) {
    mesh.namespace("pay", |namespace| {
        namespace.previous = Some(PreviousLabels {
            from: SOURCE.into(),
            to: TARGET.into(),
            manager: Some(manager.to_owned()),
            ..PreviousLabels::default()
        });
        let wrote = |name: &str, second| FieldManager {
            name: name.to_owned(),
            wrote_at: Some(at(second)),
            ..FieldManager::default()
        };
        namespace.managers.push(wrote(labels::FIELD_MANAGER, 100));
        namespace.managers.extend(synced.map(|second| wrote(manager, second)));
    });
}

#[test]
fn git_agrees_only_by_a_later_sync_that_left_the_target() {
    for manager in ["argocd-controller", "kustomize-controller", "helm-controller", "helm"] {
        for synced in [None, Some(99), Some(100)] {
            let told = only(|mesh| taken_from(mesh, manager, synced));
            assert!(
                told.starts_with(
                    "GitAgrees Failed: no sync has shown yet that Git has istio.io/rev=asm-1-28"
                ),
                "{told}"
            );
            assert!(told.contains(&format!("pay ({manager})")), "{told}");
        }
        assert!(about(|mesh| taken_from(mesh, manager, Some(101))).is_empty(), "{manager}");
    }
}

#[test]
fn a_later_sync_that_put_the_source_back_proves_the_opposite() {
    let told = about(|mesh| {
        taken_from(mesh, "argocd-controller", Some(101));
        label(mesh, "pay", &[(labels::REVISION, SOURCE)]);
    });
    assert!(told[0].starts_with("NamespacesMoved Failed"), "{told:?}");
    assert!(told[1].starts_with("GitAgrees Failed"), "{told:?}");
}

#[test]
fn git_has_no_say_in_what_it_did_not_own_or_what_another_run_moved() {
    assert!(about(|mesh| taken_from(mesh, "kubectl-label", None)).is_empty());
    assert!(
        about(|mesh| {
            taken_from(mesh, "argocd-controller", None);
            mesh.namespace("pay", |namespace| {
                if let Some(previous) = &mut namespace.previous {
                    previous.from = Revision::from("asm-1-26");
                }
            });
        })
        .is_empty()
    );
}

#[test]
fn a_check_can_be_skipped_by_name() {
    let mut mesh = Mesh::after();
    taken_from(&mut mesh, "argocd-controller", None);
    mesh.skip("GitAgrees");
    let said = said(&mesh.completion());
    assert!(said[0].starts_with("GitAgrees Skipped: no sync has shown"), "{said:?}");
}

#[test]
fn the_proof_of_a_rollback_asks_the_same_of_the_target() {
    let mut mesh = Mesh::before();
    assert_eq!(said(&mesh.rollback_proof()), ["ProxiesMoved Failed: not counted yet"]);
    mesh.proxies("shop", SOURCE, 3);
    mesh.proxies("shop", "", 1);
    assert_eq!(said(&mesh.rollback_proof()), Vec::<String>::new());
    mesh.proxies("shop", TARGET, 2);
    label(&mut mesh, "pay", &[(labels::REVISION, TARGET)]);
    let said = said(&mesh.rollback_proof());
    assert!(said[0].contains(
        "new pods of pay would still get asm-1-28: kubectl label namespace pay istio.io/rev=asm-1-27"
    ));
    assert!(said[1].starts_with("ProxiesMoved Failed: 2 proxies run on asm-1-28 in shop"), "{said:?}");
}

#[test]
fn who_chose_the_target_without_the_run_does_not_hold_up_a_rollback() {
    let mut mesh = Mesh::before();
    mesh.proxies("shop", SOURCE, 3);
    mesh.proxies("pioneer", TARGET, 2);
    mesh.add_namespace("pioneer", &[(labels::REVISION, TARGET)]);
    assert_eq!(said(&mesh.rollback_proof()), Vec::<String>::new());
}

#[test]
fn a_tag_that_only_says_that_it_moved_still_leads_to_the_source() {
    let mut mesh = Mesh::after();
    mesh.add_tag("prod", TARGET);
    assert!(said(&mesh.completion()).iter().all(|text| !text.starts_with("TagsMoved")));
    let webhook = mesh.snapshot.webhooks.last_mut().unwrap();
    std::sync::Arc::make_mut(webhook).entries[0].client = super::fixture::client(SOURCE);
    assert!(
        said(&mesh.completion()).iter().any(|text| text.starts_with("TagsMoved Failed: revision tag prod"))
    );
}

//! What must be ready of the AKS add-on before any label is written.

use std::sync::Arc;

use serde_json::{Value, json};

use super::tests::{app, at, pod, reference, run, stored};
use super::{Decision, decide};
use crate::aks::ISTIO_NAMESPACE;
use crate::aks::cluster::{
    EgressGateway, IngressGateway, ManagedCluster, MeshMode, ProvisioningState, SupportPlan,
};
use crate::aks::id::ClusterId;
use crate::aks::seen::ClusterSeen;
use crate::census::UnmanagedPod;
use crate::check::fixture::{Mesh, SOURCE, TARGET, map, said};
use crate::ids::{GatewayRef, NamespaceName, WorkloadKind, WorkloadRef};
use crate::intent::CompletionMode;
use crate::inventory::{Group, Pair, members, members_leaving};
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::{Gateway, LoadBalancer, PodProblem};
use crate::plan::WaveKind;
use crate::planning;
use crate::wait::WaitReason;

const INGRESS: &str = "aks-istio-ingress";
const SERVICE: &str = "aks-istio-ingressgateway-external";
const KEY: &str = "aks-istio-ingress/aks-istio-ingressgateway-external";
const OLD: &str = "aks-istio-ingressgateway-external-asm-1-27";
const NEW: &str = "aks-istio-ingressgateway-external-asm-1-28";

/// The add-on, whose revisions somebody else starts.
fn addon() -> Mesh {
    let mut mesh = Mesh::before();
    mesh.intent.istio_namespace = ISTIO_NAMESPACE.into();
    mesh
}

/// With Azure, which says that an external ingress gateway and one for egress are on.
fn with_azure(mut mesh: Mesh) -> Mesh {
    let ingress = |mode: &str, enabled| IngressGateway { mode: mode.into(), enabled };
    mesh.intent.aks = ClusterId::new("26fe00f8-9173-4872-9134-bb1d2e00343a", "rg", "mesh").ok();
    mesh.snapshot.aks = Some(ClusterSeen {
        read_at: at(9),
        cluster: Ok(ManagedCluster {
            location: "westeurope".into(),
            provisioning_state: ProvisioningState::Succeeded,
            kubernetes_version: None,
            current_kubernetes_version: None,
            support_plan: SupportPlan::KubernetesOfficial,
            mesh_mode: MeshMode::Istio,
            revisions: vec![SOURCE.into(), TARGET.into()],
            ingress_gateways: vec![ingress("External", true), ingress("Internal", false)],
            egress_gateways: vec![EgressGateway {
                name: Some("out".into()),
                namespace: "egress".into(),
                enabled: true,
            }],
            plugin_ca: None,
            key_vault_addon_enabled: false,
            open_service_mesh_enabled: false,
            etag_present: true,
        }),
        egress_gateways: Some(vec![EgressGateway {
            name: Some("out".into()),
            namespace: "egress".into(),
            enabled: true,
        }]),
        offers: None,
        write: None,
    });
    mesh
}

fn decided(mesh: &Mesh) -> Decision {
    decide(at(10), &mesh.intent, &stored(mesh, Phase::StartingControlPlane, &json!({})), &mesh.snapshot)
}

fn waits(decision: &Decision) -> Vec<(WaitReason, &str)> {
    decision.view.blocked.iter().map(|wait| (wait.reason, wait.because.as_str())).collect()
}

/// The Service of the external gateways has these addresses.
fn service(mesh: &mut Mesh, addresses: &[&str]) {
    let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
    let service = LoadBalancer { name: SERVICE.into(), addresses };
    mesh.snapshot.gateway_services.insert(INGRESS.into(), vec![service.into()]);
}

fn addresses(decision: &Decision) -> Vec<(&str, Vec<&str>)> {
    let kept = run(decision).gateway_addresses.iter();
    kept.map(|(key, all)| (key.as_str(), all.iter().map(String::as_str).collect())).collect()
}

/// After the start, with this address before it.
fn decided_with(mesh: &Mesh, before: &Value) -> Decision {
    let record = stored(mesh, Phase::StartingControlPlane, &json!({"gatewayAddresses": before}));
    decide(at(10), &mesh.intent, &record, &mesh.snapshot)
}

fn unschedulable(mesh: &mut Mesh, namespace: &str, name: &str) {
    pod(mesh, namespace, name, TARGET, |pod| {
        pod.ready = false;
        let message = "0/3 nodes are available: 3 Insufficient cpu".into();
        pod.problem = Some(PodProblem { reason: "Unschedulable".into(), message });
    });
}

#[test]
fn the_gateways_that_are_on_must_have_their_deployments_of_the_target() {
    let mut mesh = with_azure(addon());
    let decision = decided(&mesh);
    assert_eq!(run(&decision).phase, Phase::StartingControlPlane);
    let waits_for = |name: &str| {
        let says = |because: &str| because.contains(name) && because.contains("spec.rollback.requested");
        waits(&decision)
            .iter()
            .any(|(reason, because)| *reason == WaitReason::GatewayNotReady && says(because))
    };
    assert!(waits_for(NEW) && waits_for("egress/out-asm-1-28"), "{:?}", waits(&decision));
    assert_eq!(waits(&decision).len(), 2, "the internal one is off");
    app(&mut mesh, INGRESS, NEW, |_| {});
    app(&mut mesh, "egress", "out-asm-1-28", |_| {});
    assert_eq!(run(&decided(&mesh)).phase, Phase::Migrating, "{:?}", waits(&decided(&mesh)));
}

#[test]
fn without_azure_every_gateway_of_the_source_needs_its_counterpart() {
    let mut mesh = addon();
    app(&mut mesh, INGRESS, OLD, |_| {});
    app(&mut mesh, "shop", OLD, |_| {});
    let decision = decided(&mesh);
    let [(reason, because)] = waits(&decision)[..] else { panic!("{:?}", waits(&decision)) };
    assert_eq!(reason, WaitReason::GatewayNotReady);
    assert!(because.contains(NEW) && because.contains("az aks mesh upgrade rollback"), "{because}");
    app(&mut mesh, INGRESS, NEW, |_| {});
    assert_eq!(run(&decided(&mesh)).phase, Phase::Migrating);
}

#[test]
fn a_gateway_without_room_is_told_in_the_words_of_the_scheduler() {
    let mut mesh = addon();
    app(&mut mesh, INGRESS, OLD, |_| {});
    app(&mut mesh, INGRESS, NEW, |gateway| {
        gateway.replicas = 2;
        gateway.rollout.ready = 1;
    });
    let decision = decided(&mesh);
    assert!(decision.needs.pods.contains(&NamespaceName::from(INGRESS)), "{:?}", decision.needs);
    unschedulable(&mut mesh, INGRESS, NEW);
    let decision = decided(&mesh);
    let [(_, because)] = waits(&decision)[..] else { panic!("{:?}", waits(&decision)) };
    assert!(because.contains("1 of 2 pods are ready") && because.contains("Insufficient cpu"), "{because}");
    let gateway = Arc::make_mut(mesh.snapshot.workloads.get_mut(&reference(INGRESS, NEW)).unwrap());
    gateway.rollout.ready = 2;
    assert_eq!(run(&decided(&mesh)).phase, Phase::Migrating);
}

#[test]
fn an_istiod_without_room_is_told_in_the_words_of_the_scheduler() {
    let mut mesh = addon();
    let istiod = format!("istiod-{TARGET}");
    app(&mut mesh, ISTIO_NAMESPACE, &istiod, |_| {});
    mesh.plane(TARGET, |plane| plane.istiod.as_mut().unwrap().ready = 0);
    let decision = decided(&mesh);
    assert!(decision.needs.pods.contains(&NamespaceName::from(ISTIO_NAMESPACE)), "{:?}", decision.needs);
    unschedulable(&mut mesh, ISTIO_NAMESPACE, &istiod);
    let decision = decided(&mesh);
    let [(reason, because)] = waits(&decision)[..] else { panic!("{:?}", waits(&decision)) };
    assert_eq!(reason, WaitReason::IstiodNotReady);
    assert!(because.contains("Insufficient cpu"), "{because}");
}

/// Before the start: in a run that is not the first write's yet, everything is looked at anew in each pass.
fn before_the_start(mesh: &Mesh, known: &Value) -> Decision {
    let more = json!({"startedAt": null, "gatewayAddresses": known});
    let record = stored(mesh, Phase::StartingControlPlane, &more);
    decide(at(10), &mesh.intent, &record, &mesh.snapshot)
}

#[test]
fn addresses_are_remembered_until_the_target_is_there() {
    let mut mesh = addon();
    mesh.census(|census| census.taken_at = Some(at(9)));
    let there = mesh.snapshot.clone();
    mesh.snapshot.control_planes.remove(&TARGET.into());
    mesh.snapshot.webhooks.retain(|webhook| webhook.revision != Some(TARGET.into()));
    service(&mut mesh, &["20.0.0.1"]);
    let waiting =
        before_the_start(&mesh, &json!({"aks-istio-ingress/gone": ["20.9.9.9"], KEY: ["20.0.0.7"]}));
    assert_eq!(waits(&waiting)[0].0, WaitReason::RevisionNotFound);
    assert_eq!(addresses(&waiting), [(KEY, vec!["20.0.0.1"])]);
    // Not known now, as after a restart of the operator.
    mesh.snapshot.gateway_services.clear();
    let unknown = before_the_start(&mesh, &json!({KEY: ["20.0.0.1"]}));
    assert_eq!(addresses(&unknown), [(KEY, vec!["20.0.0.1"])]);
    // Somebody else started it, and what is there may be new already.
    mesh.snapshot = there;
    service(&mut mesh, &["20.0.0.2"]);
    let started = before_the_start(&mesh, &json!({KEY: ["20.0.0.1"]}));
    assert!(run(&started).started_at.is_some());
    assert_eq!(addresses(&started), [(KEY, vec!["20.0.0.1"])]);
    let next = decide(at(11), &mesh.intent, &started.record, &mesh.snapshot);
    assert_eq!(waits(&next)[0].0, WaitReason::GatewayAddressChanged, "{:?}", waits(&next));
}

#[test]
fn an_address_that_changes_with_the_start_holds_up_every_label() {
    let mut mesh = addon();
    let before = json!({KEY: ["20.0.0.1"]});
    let waits_with = |mesh: &Mesh, has: &str| {
        let decision = decided_with(mesh, &before);
        assert_eq!(run(&decision).phase, Phase::StartingControlPlane);
        let [(reason, because)] = waits(&decision)[..] else { panic!("{:?}", waits(&decision)) };
        assert_eq!(reason, WaitReason::GatewayAddressChanged);
        let text = format!("Service {KEY} had 20.0.0.1 before {TARGET} was started, and has {has} now");
        assert!(because.contains(&text), "{because}");
        assert!(because.contains("DNS records") && because.contains("spec.rollback.requested"), "{because}");
        assert!(because.contains("kubectl annotate meshupgrade mesh meshupgrade.io/retry="), "{because}");
    };
    service(&mut mesh, &["20.0.0.2"]);
    waits_with(&mesh, "20.0.0.2");
    service(&mut mesh, &[]);
    waits_with(&mesh, "no address");
    mesh.snapshot.gateway_services.insert(INGRESS.into(), Vec::new());
    waits_with(&mesh, "no address");
    // It comes back, or another one comes to it.
    service(&mut mesh, &["20.0.0.1", "fd00::1"]);
    assert_eq!(run(&decided_with(&mesh, &before)).phase, Phase::Migrating);
}

#[test]
fn a_person_accepts_the_new_address_by_a_retry() {
    let mut mesh = addon();
    mesh.intent.retry = Some("1".into());
    let before = json!({KEY: ["20.0.0.1"], "aks-istio-ingress/gone": ["20.0.0.9"]});
    service(&mut mesh, &["20.0.0.2"]);
    let accepted = decided_with(&mesh, &before);
    assert_eq!(run(&accepted).phase, Phase::Migrating);
    assert_eq!(addresses(&accepted), [(KEY, vec!["20.0.0.2"])]);
    let told =
        |event: &crate::decision::Event| event.reason == "RetryAccepted" && event.note.contains("20.0.0.2");
    assert!(accepted.events.iter().any(told), "{:?}", accepted.events);
    // One of a workload says nothing about it.
    mesh.intent.retry = Some("Deployment/shop/web#1".into());
    assert_eq!(run(&decided_with(&mesh, &before)).phase, Phase::StartingControlPlane);
}

#[test]
fn where_there_was_no_address_or_none_can_be_read_nothing_waits() {
    let mut mesh = addon();
    assert_eq!(run(&decided_with(&mesh, &json!({KEY: ["20.0.0.1"]}))).phase, Phase::Migrating);
    service(&mut mesh, &["20.0.0.2"]);
    assert_eq!(run(&decided_with(&mesh, &json!({}))).phase, Phase::Migrating);
}

/// `egress` is labelled, as Azure's guide does it: it has the add-on's gateway `out`, and `curl`, which is somebody's own.
fn egress(mut mesh: Mesh) -> Mesh {
    mesh.add_namespace("egress", &[(labels::REVISION, SOURCE)]);
    for name in ["out-asm-1-27", "curl", "mine-asm-1-27x"] {
        mesh.add_workload("egress", name, &[]);
    }
    for (name, pods) in [("out-asm-1-27", 2), ("curl", 1)] {
        let workload = WorkloadRef::new(WorkloadKind::Deployment, "egress", name);
        mesh.census(|census| census.workloads.entry(SOURCE.into()).or_default().extend([(workload, pods)]));
    }
    mesh.proxies("egress", SOURCE, 3);
    mesh
}

fn restarted(mesh: &Mesh) -> Vec<String> {
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let names = ["egress".into()].into();
    let all = [Group::Application, Group::Last];
    let members = all.iter().flat_map(|group| members(&mesh.intent, &mesh.snapshot, pair, &names, *group));
    members.map(|workload| workload.reference.name.clone()).collect()
}

#[test]
fn the_add_ons_gateways_are_known_one_by_one_and_what_is_beside_them_takes_part() {
    let mine = ["curl", "mine-asm-1-27x"];
    let mut mesh = egress(with_azure(addon()));
    assert_eq!(restarted(&mesh), mine);
    // One that the profile does not have is somebody's own; until it is known nothing is touched.
    mesh.snapshot.aks.as_mut().unwrap().egress_gateways = Some(Vec::new());
    assert_eq!(restarted(&mesh).len(), 3);
    mesh.snapshot.aks = None;
    assert_eq!(restarted(&mesh), mine);
    // Where Azure is not asked, the operator is told of the namespace.
    let mut mesh = egress(addon());
    assert_eq!(restarted(&mesh).len(), 3);
    mesh.snapshot.addon_namespaces = ["egress".into()].into();
    assert_eq!(restarted(&mesh), mine);
    mesh.intent.istio_namespace = "istio-system".into();
    assert_eq!(restarted(&mesh).len(), 3, "not the add-on");
}

#[test]
fn only_proxies_of_the_add_ons_gateways_keep_no_revision_in_use() {
    let told = |mesh: &Mesh| {
        let results = mesh.completion();
        said(&results).into_iter().find(|text| text.starts_with("ProxiesMoved")).unwrap_or_default()
    };
    let mut mesh = egress(with_azure(addon()));
    assert!(told(&mesh).contains("1 proxy runs on asm-1-27 in egress"), "{}", told(&mesh));
    // On the way back as well, where that namespace is part of the run.
    mesh.plan.waves[0].namespaces.push("egress".into());
    std::mem::swap(&mut mesh.source, &mut mesh.target);
    let back = said(&mesh.rollback_proof()).into_iter().find(|text| text.starts_with("ProxiesMoved"));
    assert!(back.as_ref().is_some_and(|text| text.contains("1 proxy runs on asm-1-27")), "{back:?}");
    std::mem::swap(&mut mesh.source, &mut mesh.target);
    mesh.census(|census| {
        census.workloads.get_mut(&SOURCE.into()).unwrap().retain(|workload, _| workload.name != "curl");
        *census.proxies.get_mut(&"egress".into()).unwrap().get_mut(&SOURCE.into()).unwrap() -= 1;
    });
    assert_eq!(told(&mesh), "");
    mesh.intent.aks = None;
    assert!(told(&mesh).contains("2 proxies run"), "{}", told(&mesh));
}

/// The label of its namespace decides which proxies the target's gateway gets: made before the label moved, it has those of the source.
#[test]
fn a_gateway_of_the_target_with_proxies_of_the_source_is_moved_like_anything_else() {
    let mut mesh = egress(with_azure(addon()));
    mesh.add_workload("egress", "out-asm-1-28", &[]);
    let new = WorkloadRef::new(WorkloadKind::Deployment, "egress", "out-asm-1-28");
    mesh.census(|census| {
        let workloads = census.workloads.get_mut(&SOURCE.into()).unwrap();
        workloads.retain(|workload, _| workload.name != "curl");
        workloads.insert(new, 1);
    });
    assert!(restarted(&mesh).contains(&"out-asm-1-28".to_owned()), "{:?}", restarted(&mesh));
    let told = said(&mesh.completion()).into_iter().find(|text| text.starts_with("ProxiesMoved"));
    assert!(told.as_ref().is_some_and(|text| text.contains("1 proxy runs on asm-1-27")), "{told:?}");
    // On the way back the one of the source is, and that of the target goes.
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let back = members_leaving(
        &mesh.intent,
        &mesh.snapshot,
        pair,
        &mesh.target,
        &["egress".into()].into(),
        Group::Application,
    );
    let names: Vec<&str> = back.iter().map(|workload| workload.reference.name.as_str()).collect();
    assert!(names.contains(&"out-asm-1-27") && !names.contains(&"out-asm-1-28"), "{names:?}");
}

/// On the way there the one that stays is not there yet, and on the way back it may have got the wrong proxies.
#[test]
fn the_wave_of_gateways_has_the_homes_of_the_add_ons_own() {
    let mut mesh = egress(with_azure(addon()));
    app(&mut mesh, "egress", "out-asm-1-27", |out| {
        out.template.annotations = map(&[(labels::INJECT_TEMPLATES, "gateway")]);
    });
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    let wave = plan.waves.iter().find(|wave| wave.kind == WaveKind::Gateways).unwrap();
    assert_eq!((wave.namespaces.as_slice(), wave.workloads), (["egress".into()].as_slice(), 0));
}

/// What stays has to carry the traffic alone, unless what goes carries none.
#[test]
fn no_revision_goes_while_its_gateway_has_more_pods_than_the_one_that_stays() {
    let mut mesh = with_azure(Mesh::after());
    mesh.intent.istio_namespace = ISTIO_NAMESPACE.into();
    mesh.intent.completion.mode = CompletionMode::Automatic;
    mesh.census(|census| census.taken_at = Some(at(11)));
    let mut gateway = |name: &str, ready: u32| {
        app(&mut mesh, INGRESS, name, |workload| {
            (workload.replicas, workload.rollout.ready) = (3, ready);
        });
    };
    gateway(OLD, 2);
    gateway(NEW, 1);
    let completing = json!({"soakSince": "1970-01-01T00:00:01Z", "settledSince": "1970-01-01T00:00:01Z", "removalDue": at(10)});
    let decided = |mesh: &Mesh| {
        decide(at(12), &mesh.intent, &stored(mesh, Phase::Completing, &completing), &mesh.snapshot)
    };
    let held = decided(&mesh);
    assert!(run(&held).cloud.is_none(), "{:?}", waits(&held));
    let [(WaitReason::GatewayNotReady, because)] = waits(&held)[..] else { panic!("{:?}", waits(&held)) };
    assert!(because.contains("1 of 3 pods") && because.contains("brings everything back"), "{because}");
    // No worse than the one that goes: there may be no room for more before that is gone.
    app(&mut mesh, INGRESS, NEW, |workload| (workload.replicas, workload.rollout.ready) = (3, 2));
    assert!(run(&decided(&mesh)).cloud.is_some(), "{:?}", waits(&decided(&mesh)));
    // One that comes up in neither revision holds up nothing.
    for name in [OLD, NEW] {
        app(&mut mesh, INGRESS, name, |workload| (workload.replicas, workload.rollout.ready) = (3, 0));
    }
    assert!(run(&decided(&mesh)).cloud.is_some(), "{:?}", waits(&decided(&mesh)));
}

/// Azure gives a Gateway of the Gateway API that nothing names a revision of to the newest one.
#[test]
fn a_gateway_that_names_no_revision_is_told_before_the_start_and_holds_up_no_removal() {
    let mut mesh = addon();
    mesh.add_namespace("edge", &[]);
    let key = GatewayRef { namespace: "edge".into(), name: "web".into() };
    let gateway = Gateway { reference: key.clone(), managed: true, ..Gateway::default() };
    mesh.snapshot.gateways.insert(key.clone(), gateway.into());
    app(&mut mesh, "edge", "web-istio", |workload| {
        workload.template.labels = map(&[(labels::GATEWAY_NAME, "web"), (labels::GATEWAY_MANAGED, "x")]);
    });
    mesh.proxies("edge", SOURCE, 1);
    mesh.census(|census| {
        census.unmanaged_count.insert(SOURCE.into(), 1);
        census.unmanaged.push(UnmanagedPod {
            namespace: "edge".into(),
            name: "web-istio-1".into(),
            owner: Some(("Deployment".into(), "web-istio".into())),
            revision: SOURCE.into(),
            gateway_api: true,
        });
    });
    let told = |mesh: &Mesh, name: &str| {
        let all = [mesh.preflight(), mesh.completion()].concat();
        said(&all).into_iter().find(|text| text.starts_with(name)).unwrap_or_default()
    };
    assert_eq!(told(&mesh, "AksGatewaysNamed"), "", "the target is there");
    assert!(!told(&mesh, "ProxiesMoved").contains("edge") && told(&mesh, "GatewaysMoved").is_empty());
    mesh.snapshot.control_planes.remove(&TARGET.into());
    mesh.snapshot.webhooks.retain(|webhook| webhook.revision != Some(TARGET.into()));
    let text = told(&mesh, "AksGatewaysNamed");
    assert!(text.contains("Warning: ") && text.contains("web -n edge istio.io/rev=asm-1-27"), "{text}");
    // Who names one decides.
    let named = |mesh: &mut Mesh, revision: Option<&str>| {
        let gateway = mesh.snapshot.gateways.get_mut(&key).unwrap();
        Arc::make_mut(gateway).revision = revision.map(str::to_owned);
    };
    named(&mut mesh, Some(SOURCE));
    assert_eq!(told(&mesh, "AksGatewaysNamed"), "");
    assert!(told(&mesh, "GatewaysMoved").contains("edge/web-istio-1"), "{}", told(&mesh, "GatewaysMoved"));
    assert!(told(&mesh, "ProxiesMoved").contains("edge"), "{}", told(&mesh, "ProxiesMoved"));
    named(&mut mesh, None);
    mesh.intent.istio_namespace = "istio-system".into();
    assert!(told(&mesh, "AksGatewaysNamed").is_empty() && told(&mesh, "ProxiesMoved").contains("edge"));
}

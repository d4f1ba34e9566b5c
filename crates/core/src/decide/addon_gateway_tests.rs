//! What must be ready of the AKS add-on before any label is written.

use std::sync::Arc;

use serde_json::json;

use super::tests::{app, at, pod, reference, run, stored};
use super::{Decision, decide};
use crate::aks::ISTIO_NAMESPACE;
use crate::aks::cluster::{
    EgressGateway, IngressGateway, ManagedCluster, MeshMode, ProvisioningState, SupportPlan,
};
use crate::aks::id::ClusterId;
use crate::aks::seen::ClusterSeen;
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::ids::NamespaceName;
use crate::machine::phase::Phase;
use crate::observed::PodProblem;
use crate::wait::WaitReason;

const INGRESS: &str = "aks-istio-ingress";
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

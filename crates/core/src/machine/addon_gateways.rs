//! The ingress and egress gateways of the AKS add-on. Each revision has Deployments of its own behind one Service, so those of the target
//! take traffic from its start: they are looked at before any label is written, and those that stay before a revision is removed.

use std::collections::BTreeSet;

use crate::aks::cluster::ManagedCluster;
use crate::aks::{INGRESS_NAMESPACE, gateways};
use crate::gate;
use crate::ids::{Revision, WorkloadKind, WorkloadRef};
use crate::machine::aks;
use crate::machine::pass::{Pass, about_workload};
use crate::observed::Snapshot;
use crate::record::Direction;
use crate::wait::WaitReason;

/// Whether those of the target are ready, which share the traffic from its start. Each that is not is noted, with what keeps it.
pub fn ready(pass: &mut Pass<'_>) -> bool {
    let (source, target) = pass.revisions();
    let remedy = match pass.intent.aks {
        Some(_) => "spec.rollback.requested: true removes it with its control plane",
        None => {
            "spec.rollback.requested: true, and az aks mesh upgrade rollback after it, remove it with its control plane"
        }
    };
    let missing: Vec<WorkloadRef> = expected(pass, &target, &source)
        .into_iter()
        .filter(|gateway| !is_ready(pass.snapshot, gateway))
        .collect();
    for gateway in &missing {
        let why = what_is_there(pass.snapshot, gateway);
        note(pass, gateway, &format!("is to share the traffic with that of {source}: {why}; {remedy}"));
    }
    missing.is_empty()
}

/// Whether those of a revision can carry the traffic without those of the other one. Each that cannot is noted.
pub fn can_stay_alone(pass: &mut Pass<'_>, stays: &Revision, goes: &Revision) -> bool {
    let remedy = match pass.run.direction() {
        Direction::Back => format!("spec.rollback.controlPlane: Keep ends the run with {goes} in place"),
        Direction::Forward => "spec.rollback.requested: true brings everything back".to_owned(),
    };
    let weaker = weaker(pass, stays, goes);
    for (gateway, why) in &weaker {
        note(pass, gateway, &format!("is to carry the traffic without that of {goes}: {why}; {remedy}"));
    }
    weaker.is_empty()
}

/// Those of a revision that have less pods than they want and than their counterpart of the other one has, with what there is. Where neither has
/// any, nothing is lost when the other one goes.
pub fn weaker(pass: &Pass<'_>, stays: &Revision, goes: &Revision) -> Vec<(WorkloadRef, String)> {
    let ready_pods = |gateway: &WorkloadRef| {
        pass.snapshot.workloads.get(gateway).map_or(0, |workload| workload.rollout.ready)
    };
    let counterpart = |gateway: &WorkloadRef| {
        let name = gateways::name_and_revision(&gateway.name)?.0;
        Some(WorkloadRef::new(gateway.kind, gateway.namespace.clone(), format!("{name}-{goes}")))
    };
    let is_weaker = |gateway: &WorkloadRef| {
        let other = counterpart(gateway).map_or(0, |other| ready_pods(&other));
        !is_ready(pass.snapshot, gateway) && ready_pods(gateway) < other
    };
    let weaker = expected(pass, stays, goes).into_iter().filter(is_weaker);
    weaker.map(|gateway| (gateway.clone(), what_is_there(pass.snapshot, &gateway))).collect()
}

fn note(pass: &mut Pass<'_>, gateway: &WorkloadRef, because: &str) {
    pass.needs.pods.insert(gateway.namespace.clone());
    let because = format!("{gateway} is not ready, and {because}");
    pass.wait(WaitReason::GatewayNotReady, about_workload(gateway), because);
}

/// The Deployments that a revision has beside those of another one.
fn expected(pass: &Pass<'_>, revision: &Revision, other: &Revision) -> BTreeSet<WorkloadRef> {
    if !pass.intent.is_addon() || revision == other {
        return BTreeSet::new();
    }
    match aks::cluster(pass) {
        Some(cluster) => enabled(cluster, revision),
        None => siblings(pass, other, revision),
    }
}

/// The Deployments of the gateways that are on, by the cluster's profile.
fn enabled(cluster: &ManagedCluster, revision: &Revision) -> BTreeSet<WorkloadRef> {
    let deployment =
        |namespace: &str, name: String| WorkloadRef::new(WorkloadKind::Deployment, namespace, name);
    let ingress = cluster.ingress_gateways.iter().filter(|gateway| gateway.enabled).map(|gateway| {
        let mode = gateway.mode.to_ascii_lowercase();
        deployment(INGRESS_NAMESPACE, format!("aks-istio-ingressgateway-{mode}-{revision}"))
    });
    let egress = cluster.egress_gateways.iter().filter(|gateway| gateway.enabled).filter_map(|gateway| {
        let name = gateway.name.as_ref()?;
        Some(deployment(&gateway.namespace, format!("{name}-{revision}")))
    });
    ingress.chain(egress).collect()
}

/// The counterparts of another revision's gateways, where nobody asks Azure which are on.
fn siblings(pass: &Pass<'_>, other: &Revision, revision: &Revision) -> BTreeSet<WorkloadRef> {
    let sibling = |workload: &WorkloadRef| {
        let (name, of) = gateways::name_and_revision(&workload.name)?;
        let name = (of == *other).then(|| format!("{name}-{revision}"))?;
        Some(WorkloadRef::new(WorkloadKind::Deployment, workload.namespace.clone(), name))
    };
    let all = pass.snapshot.workloads.keys();
    let gateways = all.filter(|workload| gateways::is_gateway(pass.intent, pass.snapshot, workload));
    gateways.filter_map(sibling).collect()
}

/// Whether a gateway has all its pods.
fn is_ready(snapshot: &Snapshot, gateway: &WorkloadRef) -> bool {
    snapshot.workloads.get(gateway).is_some_and(|workload| {
        workload.rollout.ready >= workload.replicas
            && workload.rollout.observed_generation >= workload.generation
    })
}

/// What there is of a gateway that is not ready, and what keeps it.
fn what_is_there(snapshot: &Snapshot, gateway: &WorkloadRef) -> String {
    let Some(workload) = snapshot.workloads.get(gateway) else {
        return "there is no such Deployment yet".to_owned();
    };
    let why = gate::what_keeps(snapshot, gateway).map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{} of {} pods are ready{why}", workload.rollout.ready, workload.replicas)
}

//! The ingress and egress gateways of the AKS add-on. Each revision has Deployments of its own behind one Service, so those of the target
//! take traffic from its start: they are looked at before any label is written.

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

/// Whether those of a revision are ready that share the traffic with those of the other one. Each that is not is noted, with what keeps it.
pub fn ready(pass: &mut Pass<'_>, revision: &Revision, other: &Revision) -> bool {
    if !pass.intent.is_addon() || revision == other {
        return true;
    }
    let expected = match aks::cluster(pass) {
        Some(cluster) => enabled(cluster, revision),
        None => siblings(pass, other, revision),
    };
    let remedy = remedy(pass, other);
    let mut all_ready = true;
    for gateway in expected {
        let Some(why) = not_ready(pass.snapshot, &gateway) else { continue };
        all_ready = false;
        pass.needs.pods.insert(gateway.namespace.clone());
        let because = format!(
            "{gateway} is not ready, and is to share the traffic with that of {other}: {why}; {remedy}"
        );
        pass.wait(WaitReason::GatewayNotReady, about_workload(&gateway), because);
    }
    all_ready
}

/// What becomes of a gateway that does not come up.
fn remedy(pass: &Pass<'_>, other: &Revision) -> String {
    match (pass.run.direction(), &pass.intent.aks) {
        (Direction::Back, _) => format!("that of {other} has to stay until then"),
        (Direction::Forward, Some(_)) => {
            "spec.rollback.requested: true removes it with its control plane".to_owned()
        }
        (Direction::Forward, None) => {
            "spec.rollback.requested: true, and az aks mesh upgrade rollback after it, remove it with its control plane".to_owned()
        }
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

/// Why a gateway cannot take its share; `None` when all its pods are ready.
fn not_ready(snapshot: &Snapshot, gateway: &WorkloadRef) -> Option<String> {
    let Some(workload) = snapshot.workloads.get(gateway) else {
        return Some("there is no such Deployment yet".to_owned());
    };
    let (ready, replicas) = (workload.rollout.ready, workload.replicas);
    if ready >= replicas && workload.rollout.observed_generation >= workload.generation {
        return None;
    }
    let why = gate::what_keeps(snapshot, gateway).map(|why| format!(" ({why})")).unwrap_or_default();
    Some(format!("{ready} of {replicas} pods are ready{why}"))
}

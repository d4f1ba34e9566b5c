//! The neighbours: everybody else who changes the cluster. Each is a plain function that takes one step.

pub mod autoscaler;
pub mod clock;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod gitops;
pub mod kubelet;
pub mod nodes;
pub mod people;
pub mod planes;
pub mod statefulset;
mod status;
pub mod telemetry;

use meshupgrade_core::ids::{WorkloadKind, WorkloadRef};

use crate::rng::Rng;
use crate::world::World;

/// One step of a neighbour.
pub type Step = fn(&mut World, &mut Rng);

/// A neighbour that a case may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    /// The Deployment and ReplicaSet controllers.
    Deployments,
    /// The StatefulSet controller.
    StatefulSets,
    /// The DaemonSet controller.
    DaemonSets,
    /// The kubelets.
    Kubelet,
    /// The disruption controller.
    Disruption,
    /// An autoscaler.
    Autoscaler,
    /// A GitOps tool.
    GitOps,
    /// istiods that die and return.
    Planes,
    /// Nodes that die.
    Nodes,
    /// Application teams: redeploy, create, delete.
    Teams,
    /// Platform people: suspend, retry, roll back, mend.
    Operators,
}

impl Neighbour {
    /// Those without whom nothing ever becomes ready.
    pub const CONTROLLERS: [Self; 5] =
        [Self::Deployments, Self::StatefulSets, Self::DaemonSets, Self::Kubelet, Self::Disruption];

    /// Its step.
    pub fn step(self) -> Step {
        match self {
            Self::Deployments => deployment::step,
            Self::StatefulSets => statefulset::step,
            Self::DaemonSets => daemonset::step,
            Self::Kubelet => kubelet::step,
            Self::Disruption => disruption::step,
            Self::Autoscaler => autoscaler::step,
            Self::GitOps => gitops::step,
            Self::Planes => planes::step,
            Self::Nodes => nodes::step,
            Self::Teams => people::teams,
            Self::Operators => people::platform,
        }
    }

    /// How often it acts in random order, of a hundred turns of all.
    pub fn weight(self) -> u64 {
        match self {
            Self::Kubelet => 24,
            Self::Deployments => 16,
            Self::StatefulSets | Self::DaemonSets | Self::Disruption => 8,
            Self::Autoscaler | Self::GitOps => 4,
            Self::Planes | Self::Nodes | Self::Teams | Self::Operators => 2,
        }
    }
}

/// The workloads of a kind.
fn of_kind(world: &World, kind: WorkloadKind) -> Vec<WorkloadRef> {
    world.apps.keys().filter(|reference| reference.kind == kind).cloned().collect()
}

/// Steps until a new pod is ready.
fn start_time(rng: &mut Rng) -> u32 {
    if rng.is_ordered() { 2 } else { 1 + u32::try_from(rng.below(4)).unwrap_or(0) }
}

/// Steps until a terminating pod is gone.
fn end_time(rng: &mut Rng) -> u32 {
    if rng.is_ordered() { 1 } else { u32::try_from(rng.below(6)).unwrap_or(0) }
}

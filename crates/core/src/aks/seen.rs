//! What one pass saw of a managed cluster, and what the next one must see.

use jiff::Timestamp;

use super::cluster::{EgressGateway, ManagedCluster};
use super::id::ClusterId;
use super::offers::{MeshRevision, MeshUpgrades};
use super::operation::OperationState;
use super::problem::ArmProblem;
use crate::ids::Revision;

/// The last reading of a managed cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSeen {
    /// When the reading began.
    pub read_at: Timestamp,
    /// The cluster, or why it could not be read.
    pub cluster: Result<ManagedCluster, ArmProblem>,
    /// The egress gateways of the add-on when it was last read; `None` where that was never.
    pub egress_gateways: Option<Vec<EgressGateway>>,
    /// What it is offered, if that was asked for.
    pub offers: Option<Offers>,
    /// The last write of this process, if there was one.
    pub write: Option<WriteSeen>,
}

/// What Azure offers to a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Offers {
    /// Where it can go from its revision.
    pub upgrades: Result<MeshUpgrades, ArmProblem>,
    /// The revisions of its region.
    pub revisions: Result<Vec<MeshRevision>, ArmProblem>,
}

/// A write of a cluster's revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteSeen {
    /// Stamp of the effect that asked for it.
    pub stamp: String,
    /// What became of it.
    pub outcome: WriteOutcome,
    /// When that was known. An older reading of the cluster says nothing about it.
    pub at: Timestamp,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteOutcome {
    /// It is on its way.
    Sent,
    /// Azure accepted it; its operation stands like this, as far as this process follows it.
    Accepted(OperationState),
    /// The cluster had the revisions already.
    AlreadySo,
    /// Azure did not accept it, or nobody knows.
    Failed(ArmProblem),
}

/// What the next snapshot must have of a managed cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNeed {
    /// Which cluster.
    pub cluster: ClusterId,
    /// A reading that began no earlier than this.
    pub since: Timestamp,
    /// With what Azure offers to it.
    pub offers: bool,
}

/// Writes the list of a cluster's mesh revisions. The shell reads the cluster again, and writes only if it has the expected ones
/// and no operation runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRevisions {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Precondition: the revisions that it has.
    pub expected: Vec<Revision>,
    /// The revisions that it is to have.
    pub wanted: Vec<Revision>,
    /// What tells one write from another.
    pub stamp: String,
    /// Why.
    pub because: String,
}

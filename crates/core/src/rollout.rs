//! Whether a workload has got all its pods from its newest template.

use crate::argo;
use crate::observed::{Strategy, Workload};

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// All pods are from the newest template and available, and no other is left.
    Done,
    /// It goes on; the text says what is missing.
    InProgress(String),
    /// Its controller gave up; the text says what is missing.
    Stuck(String),
}

/// How far the rollout of a workload is.
///
/// The order matters: before its controller has seen the newest generation every other number speaks of the template
/// before, and "available" counts old pods too until they are gone. A Deployment may keep its progress condition for a
/// moment after the last pod became available, so what runs is asked first.
pub fn rollout(workload: &Workload) -> Rollout {
    if workload.rollout.observed_generation < workload.generation {
        return Rollout::InProgress("its controller has not seen the change yet".to_owned());
    }
    if let Some(argo) = &workload.argo {
        return argo::rollout(workload, argo);
    }
    match missing(workload) {
        None => Rollout::Done,
        Some(missing) if workload.rollout.deadline_exceeded => {
            Rollout::Stuck(format!("progress deadline exceeded: {missing}"))
        }
        Some(missing) => Rollout::InProgress(missing),
    }
}

/// What is missing: first new pods, then the end of old ones, then availability.
fn missing(workload: &Workload) -> Option<String> {
    let status = &workload.rollout;
    let wanted = wanted(workload);
    if status.updated < wanted {
        let hint = hint(workload);
        return Some(format!("{} of {wanted} pods updated{hint}", status.updated));
    }
    let kept = workload.replicas - wanted;
    let old = status.current.saturating_sub(status.updated).saturating_sub(kept);
    if old > 0 {
        return Some(format!("{old} old {} still there", if old == 1 { "pod is" } else { "pods are" }));
    }
    if status.available < workload.replicas {
        return Some(format!("{} of {} pods available", status.available, workload.replicas));
    }
    None
}

/// How many pods the newest template is to have: all, except those that a partition keeps.
fn wanted(workload: &Workload) -> u32 {
    match workload.strategy {
        Strategy::Partitioned { partition } => workload.replicas.saturating_sub(partition),
        Strategy::RollingUpdate { .. } | Strategy::Recreate | Strategy::OnDelete => workload.replicas,
    }
}

/// Why no more pods are updated by themselves.
fn hint(workload: &Workload) -> &'static str {
    if workload.paused {
        return "; its rollouts are paused";
    }
    match workload.strategy {
        Strategy::OnDelete => "; its pods change only when they are deleted",
        Strategy::RollingUpdate { .. } | Strategy::Recreate | Strategy::Partitioned { .. } => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{WorkloadKind, WorkloadRef};
    use crate::observed::{IntOrPercent, PodTemplate, RolloutStatus};

    fn workload(kind: WorkloadKind, replicas: u32) -> Workload {
        Workload {
            reference: WorkloadRef::new(kind, "shop", "web"),
            uid: "u".into(),
            generation: 2,
            controller: None,
            managers: Vec::new(),
            replicas,
            strategy: Strategy::RollingUpdate {
                max_unavailable: IntOrPercent::Int(1),
                max_surge: IntOrPercent::Int(0),
            },
            paused: false,
            ordered: false,
            rollout: RolloutStatus {
                observed_generation: 2,
                current: replicas,
                updated: replicas,
                ready: replicas,
                available: replicas,
                deadline_exceeded: false,
                create_failure: None,
            },
            template: PodTemplate::default(),
            argo: None,
        }
    }

    fn in_progress(text: &str) -> Rollout {
        Rollout::InProgress(text.to_owned())
    }

    #[test]
    fn all_pods_new_and_available_is_done_for_every_kind() {
        for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet] {
            assert_eq!(rollout(&workload(kind, 3)), Rollout::Done);
        }
    }

    #[test]
    fn before_the_generation_is_observed_no_number_counts() {
        let mut web = workload(WorkloadKind::Deployment, 3);
        web.rollout.observed_generation = 1;
        web.rollout.deadline_exceeded = true;
        assert_eq!(rollout(&web), in_progress("its controller has not seen the change yet"));
    }

    #[test]
    fn missing_new_pods_are_told_before_old_ones_and_availability() {
        let mut web = workload(WorkloadKind::Deployment, 3);
        web.rollout.updated = 2;
        web.rollout.current = 4;
        web.rollout.available = 1;
        assert_eq!(rollout(&web), in_progress("2 of 3 pods updated"));
        web.rollout.updated = 3;
        assert_eq!(rollout(&web), in_progress("1 old pod is still there"));
        web.rollout.current = 5;
        assert_eq!(rollout(&web), in_progress("2 old pods are still there"));
        web.rollout.current = 3;
        assert_eq!(rollout(&web), in_progress("1 of 3 pods available"));
    }

    #[test]
    fn a_deadline_makes_it_stuck_only_while_something_is_missing() {
        let mut web = workload(WorkloadKind::Deployment, 3);
        web.rollout.deadline_exceeded = true;
        assert_eq!(rollout(&web), Rollout::Done);
        web.rollout.updated = 1;
        assert_eq!(
            rollout(&web),
            Rollout::Stuck("progress deadline exceeded: 1 of 3 pods updated".to_owned())
        );
    }

    #[test]
    fn a_paused_deployment_says_so() {
        let mut web = workload(WorkloadKind::Deployment, 3);
        web.paused = true;
        web.rollout.updated = 0;
        assert_eq!(rollout(&web), in_progress("0 of 3 pods updated; its rollouts are paused"));
    }

    #[test]
    fn no_replicas_is_done_once_the_old_pods_are_gone() {
        let mut web = workload(WorkloadKind::Deployment, 0);
        assert_eq!(rollout(&web), Rollout::Done);
        web.rollout.current = 1;
        assert_eq!(rollout(&web), in_progress("1 old pod is still there"));
    }

    #[test]
    fn a_partition_keeps_its_old_pods() {
        let mut db = workload(WorkloadKind::StatefulSet, 5);
        db.strategy = Strategy::Partitioned { partition: 3 };
        db.rollout.updated = 1;
        assert_eq!(rollout(&db), in_progress("1 of 2 pods updated"));
        db.rollout.updated = 2;
        assert_eq!(rollout(&db), Rollout::Done);
        db.rollout.available = 4;
        assert_eq!(rollout(&db), in_progress("4 of 5 pods available"));
        db.strategy = Strategy::Partitioned { partition: 9 };
        db.rollout.updated = 0;
        db.rollout.available = 5;
        assert_eq!(rollout(&db), Rollout::Done);
    }

    #[test]
    fn on_delete_says_who_has_to_act() {
        let mut agent = workload(WorkloadKind::DaemonSet, 3);
        agent.strategy = Strategy::OnDelete;
        agent.rollout.updated = 1;
        assert_eq!(
            rollout(&agent),
            in_progress("1 of 3 pods updated; its pods change only when they are deleted")
        );
    }

    #[test]
    fn more_pods_than_asked_for_are_no_reason_to_wait_while_it_scales_down() {
        let mut web = workload(WorkloadKind::Deployment, 5);
        web.replicas = 3;
        assert_eq!(rollout(&web), Rollout::Done);
    }
}

//! What the users of the mesh must not notice.

use std::collections::BTreeSet;

use super::history::Restart;
use super::pods::Life;
use super::{Evidence, Floor};

/// Rule 7: while workloads are in rollout because of the operator, as many pods stay ready as strategy and budget want.
pub fn enough_pods_ready(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.case.floors.iter().filter_map(|floor| below(evidence, floor)).collect()
}

fn below(evidence: &Evidence<'_>, floor: &Floor) -> Option<String> {
    let history = &evidence.history;
    let pods: Vec<&Life> = floor.workloads.iter().flat_map(|workload| history.pods.of(workload)).collect();
    let rollouts: Vec<(u64, u64)> = history
        .effective()
        .filter(|restart| floor.workloads.contains(&restart.workload))
        .map(|restart: &Restart| (restart.order, history.over(restart).unwrap_or(u64::MAX)))
        .collect();
    let moments: BTreeSet<u64> = pods
        .iter()
        .flat_map(|pod| pod.ready.iter().map(|(order, _)| *order).chain(pod.ending).chain(pod.gone))
        .filter(|order| rollouts.iter().any(|(from, to)| from < order && order <= to))
        .collect();
    let lowest = moments.iter().map(|order| (ready_at(&pods, *order), *order)).min()?;
    (lowest.0 < floor.ready).then(|| {
        let names: Vec<String> = floor.workloads.iter().map(ToString::to_string).collect();
        format!(
            "{} of {} pods of {} were ready at version {}",
            lowest.0,
            floor.ready,
            names.join(", "),
            lowest.1
        )
    })
}

fn ready_at(pods: &[&Life], order: u64) -> usize {
    let ready = |pod: &&&Life| {
        pod.ready.iter().rfind(|(since, _)| *since <= order).is_some_and(|(_, ready)| *ready)
            && pod.ending.is_none_or(|ending| ending > order)
            && pod.gone.is_none_or(|gone| gone > order)
    };
    pods.iter().filter(ready).count()
}

/// Rule 9: every pod that is made in the namespaces of the plan while the run writes has a sidecar of one of the two
/// revisions.
pub fn every_pod_has_a_sidecar(evidence: &Evidence<'_>) -> Vec<String> {
    let (case, history) = (evidence.case, &evidence.history);
    let Some(begin) = history.relabels.iter().map(|relabel| relabel.order).min() else { return Vec::new() };
    let ours = |pod: &&Life| {
        pod.created.is_some_and(|created| created > begin)
            && pod
                .owner
                .as_ref()
                .is_some_and(|owner| case.in_scope(&owner.namespace) && !case.plain.contains(owner))
    };
    let wrong = |pod: &Life| {
        let owner = pod.owner.as_ref()?;
        let revision = pod.proxy.as_deref().unwrap_or("no revision");
        if !pod.injected {
            return Some(format!("a pod of {owner} was made without a sidecar"));
        }
        let known = [case.source.as_str(), case.target.as_str()].contains(&revision);
        (!known).then(|| format!("a pod of {owner} was made with a sidecar of {revision}"))
    };
    history.pods.0.values().filter(ours).filter_map(wrong).collect()
}

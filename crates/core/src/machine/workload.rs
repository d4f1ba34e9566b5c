//! Where one workload stands on its way, and whether it may be restarted now.

use std::collections::BTreeMap;

use crate::argo;
use crate::budget::{Verdict, budget_verdict};
use crate::gateways;
use crate::ids::{NamespaceName, Revision, WorkloadRef};
use crate::injection::{Injection, injection};
use crate::machine::pass::{Pass, about_workload, after};
use crate::observed::{Pod, Workload};
use crate::pods::{Wanted, is_stale};
use crate::record::{BatchEntry, Direction};
use crate::rollout::{Rollout, rollout};
use crate::wait::WaitReason;

/// Pods of the front's namespaces by workload. A namespace whose pods are not known is missing.
pub type Pods<'a> = BTreeMap<NamespaceName, BTreeMap<WorkloadRef, Vec<&'a Pod>>>;

/// The pods of one workload.
pub fn of<'p>(pods: &'p Pods<'_>, workload: &WorkloadRef) -> &'p [&'p Pod] {
    pods.get(&workload.namespace).and_then(|by| by.get(workload)).map_or(&[], Vec::as_slice)
}

/// Where a workload stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Every pod runs where it should and is ready.
    Done,
    /// A live pod is stale.
    Stale,
    /// Its controller replaces pods.
    Rolling(String),
    /// A stale pod is still going away.
    Terminating(String),
    /// A pod is where it should be and not ready.
    NotReady(String),
    /// Its pods are not known yet.
    Unknown,
}

/// Whether our patch reached a workload.
pub enum Patched {
    /// No sign of our patch.
    NotYet,
    /// The template has our stamp, or the watch has not brought it yet.
    InPlace,
    /// The patch was there and is gone.
    Stripped,
}

/// How long an ordered StatefulSet may stand still before it is named, in seconds.
const STUCK_AFTER_SECONDS: u32 = 10;

/// Where a workload stands towards a revision.
pub fn state(pass: &Pass<'_>, workload: &Workload, pods: &Pods<'_>) -> State {
    let wanted = pass.wanted();
    if pass.run.patch && wanted.version.is_none() {
        return State::Unknown;
    }
    let Some(by) = pods.get(&workload.reference.namespace) else {
        return if pass.snapshot.namespaces.contains_key(&workload.reference.namespace) {
            State::Unknown
        } else {
            State::Done
        };
    };
    let pods: &[&Pod] = by.get(&workload.reference).map_or(&[], Vec::as_slice);
    let stale = |pod: &&&Pod| is_stale(pod, wanted);
    if pods.iter().filter(stale).any(|pod| pod.deletion.is_none()) {
        return State::Stale;
    }
    if let (Rollout::InProgress(why) | Rollout::Stuck(why), false) =
        (rollout(workload), argo::rests(workload))
    {
        return State::Rolling(explain(pods, why));
    }
    if let Some(pod) = pods.iter().find(stale) {
        return State::Terminating(pod.name.clone());
    }
    match pods.iter().find(|pod| !pod.ready && !pod.finished && pod.deletion.is_none()) {
        Some(pod) => State::NotReady(explain(&[*pod], "a pod is not ready".into())),
        None => State::Done,
    }
}

/// Adds the first pod's own problem to what the workload's controller says.
pub fn explain(pods: &[&Pod], why: String) -> String {
    let problem = pods
        .iter()
        .filter(|pod| !pod.finished && !pod.ready)
        .find_map(|pod| pod.problem.as_ref().map(|problem| format!("pod {}: {}", pod.name, problem.message)));
    match problem {
        Some(problem) => format!("{why}; {problem}"),
        None => why,
    }
}

/// Whether our restart reached the workload. The template says so; where it does not, the API server's answer or a pod
/// that was made from the stamped template tells a patch that was undone from one that never came.
pub fn patched(pass: &Pass<'_>, entry: &BatchEntry, workload: &Workload, pods: &Pods<'_>) -> Patched {
    let stamp = pass.restart_stamp(&entry.workload);
    if let Some(gateway) = gateways::of_workload(pass.snapshot, workload) {
        return if gateways::revision_of(pass.snapshot, gateway).as_ref() == Some(pass.run.destination()) {
            Patched::InPlace
        } else if gateway.relabelled_by.as_ref() == Some(&stamp) {
            Patched::Stripped
        } else {
            Patched::NotYet
        };
    }
    let in_place = match &workload.argo {
        Some(argo) => argo::is_due(argo, entry),
        None => workload.template.restart.as_ref() == Some(&stamp),
    };
    if in_place {
        return Patched::InPlace;
    }
    match pass.snapshot.applied.get(&(workload.uid.clone(), stamp.clone())) {
        // The watch is behind our own write.
        Some(generation) if workload.generation < *generation => Patched::InPlace,
        Some(_) => Patched::Stripped,
        None => {
            let made_from_it =
                of(pods, &entry.workload).iter().any(|pod| pod.restart.as_ref() == Some(&stamp));
            if made_from_it || workload.argo.as_ref().is_some_and(|argo| argo::was_done(argo, entry)) {
                Patched::Stripped
            } else {
                Patched::NotYet
            }
        }
    }
}

/// Budget and injection allow the restart of a workload now. Otherwise the reason is noted.
pub fn safe_to_restart(
    pass: &mut Pass<'_>,
    workload: &Workload,
    pods: &Pods<'_>,
    open: &[&WorkloadRef],
) -> bool {
    let reference = &workload.reference;
    let about = about_workload(reference);
    let destination = pass.run.destination().clone();
    if let Some(problem) = unsafe_injection(pass, workload, &destination) {
        pass.wait(WaitReason::InjectionUnsafe, about, problem);
        return false;
    }
    let exempt =
        pass.run.direction() == Direction::Back && only_unready_are_stale(pods, reference, pass.wanted());
    if !pass.intent.restart.respect_budgets || exempt {
        return true;
    }
    let open: Vec<&Workload> = open
        .iter()
        .filter(|other| other.namespace == reference.namespace)
        .filter_map(|other| pass.snapshot.workloads.get(*other).map(AsRef::as_ref))
        .collect();
    let budgets = pass.snapshot.budgets.get(&reference.namespace).map_or(&[][..], Vec::as_slice);
    match budget_verdict(workload, budgets, &open) {
        Verdict::Allowed => true,
        Verdict::Wait(why) => {
            pass.wait(WaitReason::BudgetExhausted, about, why);
            false
        }
        Verdict::Never(why) => {
            pass.wait(WaitReason::BudgetNeverMet, about, why);
            false
        }
    }
}

fn unsafe_injection(pass: &Pass<'_>, workload: &Workload, destination: &Revision) -> Option<String> {
    let reference = &workload.reference;
    if gateways::of_workload(pass.snapshot, workload).is_some() {
        // Its istiod renders it with a proxy of its own.
        return None;
    }
    let namespace = pass.snapshot.namespaces.get(&reference.namespace)?;
    let found =
        injection(&pass.snapshot.webhooks, &namespace.name, &namespace.labels, &workload.template.shape());
    match found {
        Injection::One(injector) if injector.revision == *destination => None,
        Injection::One(injector) => {
            Some(format!("new pods of {reference} would get the sidecar of {}", injector.revision))
        }
        Injection::None(why) => Some(format!("new pods of {reference} would get no sidecar ({why:?})")),
        Injection::Several(injectors) => {
            let names: Vec<String> = injectors.into_iter().map(|injector| injector.webhook).collect();
            Some(format!(
                "new pods of {reference} would be injected by several webhooks: {}",
                names.join(", ")
            ))
        }
    }
}

/// The pods that a restart would replace do not serve anyway.
pub fn only_unready_are_stale(pods: &Pods<'_>, workload: &WorkloadRef, wanted: Wanted<'_>) -> bool {
    of(pods, workload).iter().filter(|pod| is_stale(pod, wanted)).all(|pod| !pod.ready)
}

/// An ordered StatefulSet does not replace a pod while another one is not ready, even when it is the unready pod itself
/// that the new template would repair (Kubernetes documentation: StatefulSet, "Forced rollback").
pub fn stuck_stateful_set(
    pass: &mut Pass<'_>,
    entry: &BatchEntry,
    workload: &Workload,
    pods: &Pods<'_>,
) -> Option<String> {
    if !workload.ordered {
        return None;
    }
    let wanted = pass.wanted();
    let pod = of(pods, &entry.workload)
        .iter()
        .find(|pod| pod.deletion.is_none() && !pod.finished && !pod.ready && is_stale(pod, wanted))?;
    let late = after(entry.since, STUCK_AFTER_SECONDS);
    if late > pass.now {
        pass.wake_at(late);
        return None;
    }
    Some(format!(
        "{} waits for its pod {} to become ready, which the new template would replace: kubectl delete pod {} -n {}",
        entry.workload, pod.name, pod.name, entry.workload.namespace
    ))
}

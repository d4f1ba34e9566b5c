//! The control planes of the AKS add-on: which revisions a cluster has, and the three writes of a run (start, complete,
//! rollback), each of which is another list of revisions.
//!
//! What the cluster has decides, whoever wrote it: a run whose revisions are both there is started, by whomever.

use jiff::Timestamp;

use crate::aks::cluster::{ManagedCluster, ProvisioningState};
use crate::aks::id::ClusterId;
use crate::aks::operation::OperationState;
use crate::aks::problem::{ArmProblem, Class};
use crate::aks::seen::{ClusterNeed, ClusterSeen, SetRevisions, WriteOutcome, WriteSeen};
use crate::decision::About;
use crate::effect::Effect;
use crate::ids::Revision;
use crate::machine::complete;
use crate::machine::pass::{Pass, after, shown};
use crate::machine::phase::Phase;
use crate::machine::removed::without_a_way_back;
use crate::machine::staying;
use crate::record::CloudStep;
use crate::wait::WaitReason;

/// How old a reading may be that a write, or the beginning of a run, rests on, in seconds.
const FRESH_SECONDS: u32 = 120;
/// The first pause after a refusal that time may mend, in seconds. Azure asks for 30 to 60.
const AGAIN_SECONDS: u32 = 30;
/// The first pause after a race that was lost, in seconds.
const RACE_SECONDS: u32 = 2;
/// How long a request may be on its way before the cluster shows that it was accepted, in seconds. Inferred: no request of ours waits for
/// an answer that long, and Azure shows the list that it accepted at once.
const IN_FLIGHT_SECONDS: u32 = 180;
/// The longest pause, and the one after a refusal that a person must mend, in seconds.
const SELDOM_SECONDS: u32 = 300;

/// What a cluster is to have before and after a step.
fn lists(pass: &Pass<'_>, step: CloudStep) -> (Vec<Revision>, Vec<Revision>) {
    let (source, target) = pass.revisions();
    let both = vec![source.clone(), target.clone()];
    match step {
        CloudStep::Start => (vec![source], both),
        CloudStep::Complete => (both, vec![target]),
        CloudStep::Rollback => (both, vec![source]),
    }
}

/// Keeps an eye on the cluster in every pass of a run that has begun: a way back that somebody else took away is remembered.
pub fn watch(pass: &mut Pass<'_>) {
    if !pass.started() || pass.run.phase.is_over() {
        return;
    }
    look(pass, false);
    hold_completion(pass);
    let (source, target) = pass.revisions();
    let Some(cluster) = cluster(pass) else { return };
    let completed =
        source != target && cluster.revisions.contains(&target) && !cluster.revisions.contains(&source);
    if completed && at_rest(cluster) && pass.run.rollback.is_none() {
        if pass.run.cloud != Some(CloudStep::Complete) {
            let note = format!("somebody completed the upgrade: {}", without_a_way_back(&source));
            let about = pass.intent.aks.clone().map(About::Cluster);
            pass.event(true, "CompletedBySomebody", about, note);
        }
        settle(pass, CloudStep::Complete);
    }
}

/// Whether Azure has removed the source.
pub fn is_completed(pass: &Pass<'_>) -> bool {
    pass.run.cloud == Some(CloudStep::Complete) && pass.run.cloud_done
}

/// The last reading of the cluster, and the need for the next one. `None` where the control planes are not those of AKS.
fn look<'a>(pass: &mut Pass<'a>, offers: bool) -> Option<(&'a ClusterId, Option<&'a ClusterSeen>)> {
    let intent = pass.intent;
    let cluster = intent.aks.as_ref()?;
    let need = pass.needs.aks.get_or_insert_with(|| ClusterNeed {
        cluster: cluster.clone(),
        since: Timestamp::UNIX_EPOCH,
        offers: false,
    });
    need.offers |= offers;
    let snapshot = pass.snapshot;
    let seen = snapshot.aks.as_ref();
    Some((cluster, seen))
}

/// Whether nothing was read yet, not even in vain: a new process must not turn back because of what it does not know.
pub fn is_unknown(pass: &Pass<'_>) -> bool {
    pass.intent.aks.is_some() && pass.snapshot.aks.is_none()
}

/// Whether a reading is there that is fresh enough to act on. Otherwise that is noted, with what keeps it from coming.
pub fn is_readable(pass: &mut Pass<'_>, offers: bool) -> bool {
    let Some((_, seen)) = look(pass, offers) else { return true };
    let failed = |seen: &ClusterSeen| match (&seen.cluster, &seen.offers) {
        (Err(problem), _) => Some(problem.clone()),
        (Ok(_), Some(found)) if offers => {
            found.upgrades.as_ref().err().or(found.revisions.as_ref().err()).cloned()
        }
        (Ok(_), _) => None,
    };
    // However old it is: the next attempt may take long.
    if let Some(problem) = seen.and_then(failed) {
        note(pass, &problem);
        return false;
    }
    let fresh = |seen: &&ClusterSeen| after(seen.read_at, FRESH_SECONDS) > pass.now;
    if seen.filter(fresh).is_some_and(|seen| !offers || seen.offers.is_some()) {
        return true;
    }
    let since = pass.now;
    require(pass, since);
    wait(pass, WaitReason::Observing, "reading the cluster from Azure".to_owned());
    false
}

/// Whether the cluster's profile was never read: until then nobody knows which gateways are the add-on's. That is noted.
pub fn lacks_profile(pass: &mut Pass<'_>) -> bool {
    let snapshot = pass.snapshot;
    let known = snapshot.aks.as_ref().is_some_and(|seen| seen.egress_gateways.is_some());
    let lacks = look(pass, false).is_some() && !known;
    if lacks {
        wait(pass, WaitReason::Observing, "reading the cluster from Azure".to_owned());
    }
    lacks
}

/// Asks for a reading that began no earlier than this.
fn require(pass: &mut Pass<'_>, since: Timestamp) {
    if let Some(need) = &mut pass.needs.aks {
        need.since = need.since.max(since);
    }
}

fn wait(pass: &mut Pass<'_>, reason: WaitReason, because: String) {
    let about = pass.intent.aks.clone().map(About::Cluster);
    pass.wait(reason, about, because);
}

/// The cluster as it was last read. `None` where the control planes are not ours to start.
pub fn cluster<'a>(pass: &Pass<'a>) -> Option<&'a ManagedCluster> {
    pass.intent.aks.as_ref()?;
    pass.snapshot.aks.as_ref()?.cluster.as_ref().ok()
}

fn at_rest(cluster: &ManagedCluster) -> bool {
    cluster.provisioning_state == ProvisioningState::Succeeded
}

/// The one revision of the cluster besides the target, where no label says which revision is to be left.
pub fn other_revision(pass: &Pass<'_>) -> Option<Revision> {
    let mut others = cluster(pass)?.revisions.iter().filter(|revision| **revision != pass.run.target);
    let first = others.next()?.clone();
    others.next().is_none().then_some(first)
}

/// A step is done, by whomever.
fn settle(pass: &mut Pass<'_>, step: CloudStep) {
    if pass.run.cloud != Some(step) || !pass.run.cloud_done {
        (pass.run.cloud, pass.run.cloud_done) = (Some(step), true);
        (pass.run.cloud_failures, pass.run.cloud_failed_at) = (0, None);
    }
}

/// Whether the cluster has the revisions that it is to have after a step, and is at rest. Writes them where that is due, and says
/// what is waited for.
pub fn done(pass: &mut Pass<'_>, step: CloudStep) -> bool {
    let Some((id, _)) = look(pass, false) else { return true };
    let id = id.clone();
    if !is_readable(pass, false) || !is_known(pass) {
        return false;
    }
    let (source, target) = pass.revisions();
    let (expected, wanted) = lists(pass, step);
    let Some(cluster) = cluster(pass) else { return false };
    let over = match step {
        CloudStep::Start => cluster.revisions.contains(&target),
        CloudStep::Complete => !cluster.revisions.contains(&source),
        CloudStep::Rollback => !cluster.revisions.contains(&target),
    };
    let (expects, rests) = (is_same(&cluster.revisions, &expected), at_rest(cluster));
    if over && rests {
        settle(pass, step);
        return true;
    }
    if !over && !expects {
        let because = foreign(&cluster.revisions, &expected);
        wait(pass, WaitReason::RevisionsChanged, because);
        return false;
    }
    if !rests {
        return under_way(pass, step, over);
    }
    write(pass, &id, step, expected, wanted)
}

fn foreign(found: &[Revision], expected: &[Revision]) -> String {
    let what = format!(
        "the cluster has the mesh revisions {}, and {} were expected: somebody else changed them",
        listed(found),
        listed(expected)
    );
    if found.len() > 1 {
        return format!(
            "{what}; complete or roll back that upgrade first (az aks mesh upgrade complete, or rollback)"
        );
    }
    format!(
        "{what}. Relabel the namespaces to a revision that the cluster has, restart their workloads and check that their sidecars are \
         there; then apply the MeshUpgrade anew"
    )
}

/// Whether the last reading says what became of the last write of this process.
fn is_known(pass: &mut Pass<'_>) -> bool {
    let Some(seen) = pass.snapshot.aks.as_ref() else { return false };
    let Some(last) = &seen.write else { return true };
    if last.outcome == WriteOutcome::Sent {
        wait(
            pass,
            WaitReason::ControlPlaneOperation,
            "a change of the mesh revisions is sent to Azure".to_owned(),
        );
        return false;
    }
    if seen.read_at < last.at {
        require(pass, last.at);
        let because = "reading from Azure what became of the last change".to_owned();
        wait(pass, WaitReason::ControlPlaneOperation, because);
        return false;
    }
    true
}

/// An operation runs on the cluster, ours or another, or the last one failed.
fn under_way(pass: &mut Pass<'_>, step: CloudStep, over: bool) -> bool {
    let Some(cluster) = cluster(pass) else { return false };
    let state = cluster.provisioning_state.as_str().to_owned();
    let failed =
        matches!(cluster.provisioning_state, ProvisioningState::Failed | ProvisioningState::Canceled);
    if let Some((problem, _)) = failure(pass, step).filter(|_| failed) {
        note_write(pass, step, &problem);
    } else if failed {
        let because = format!(
            "the last operation on the cluster ended as {state}: az aks update with the cluster's own names repeats it; nothing is \
             written before it is Succeeded"
        );
        wait(pass, WaitReason::AzureRefused, because);
    } else if over {
        // Azure shows the list that it accepted at once.
        let because = format!("Azure works on {}: the cluster is {state}", step.as_str());
        wait(pass, WaitReason::ControlPlaneOperation, because);
    } else {
        let because =
            format!("another operation runs on the cluster ({state}): {} comes after it", step.as_str());
        wait(pass, WaitReason::ClusterBusy, because);
    }
    false
}

/// Asks for the write, once it is in the record that it may have been sent.
fn write(
    pass: &mut Pass<'_>,
    cluster: &ClusterId,
    step: CloudStep,
    expected: Vec<Revision>,
    wanted: Vec<Revision>,
) -> bool {
    // A rollback never asks.
    if step != CloudStep::Rollback && !pass.may_start() {
        return false;
    }
    if step == CloudStep::Complete && pass.run.completion_held_since.is_some() {
        let because = "a rollback is asked for: no other request to remove the source is sent".to_owned();
        wait(pass, WaitReason::ControlPlaneOperation, because);
        return false;
    }
    let (source, target) = pass.revisions();
    let is_well = match step {
        CloudStep::Start => true,
        CloudStep::Complete => staying::is_well(pass, &target, &source),
        CloudStep::Rollback => staying::is_well(pass, &source, &target),
    };
    if !is_well {
        return false;
    }
    let is_first = step == CloudStep::Complete && pass.run.cloud != Some(step);
    if is_first && !complete::counted_for_removal(pass) {
        return false;
    }
    if pass.run.cloud != Some(step) || pass.run.cloud_done {
        (pass.run.cloud, pass.run.cloud_done) = (Some(step), false);
        (pass.run.cloud_failures, pass.run.cloud_failed_at) = (0, None);
        return false;
    }
    if was_put_back(pass, step, &expected) {
        return false;
    }
    if let Some((problem, at)) = failure(pass, step)
        && is_paused(pass, step, &problem, at)
    {
        return false;
    }
    let stamp = stamp(pass, step);
    let because = format!("the cluster has {}", listed(&expected));
    let note = format!("asking Azure for the mesh revisions {}", listed(&wanted));
    pass.effect_event(false, step.event(), None, note);
    pass.effect(Effect::SetRevisions(SetRevisions {
        cluster: cluster.clone(),
        expected,
        wanted,
        stamp,
        because,
    }));
    wait(pass, WaitReason::ControlPlaneOperation, format!("asking Azure for {}", step.as_str()));
    false
}

/// Whether Azure accepted the same write a short time ago and the cluster does not show it any more; that is told. Whoever put the old
/// list back may do so again: it is asked for again later, or on a retry.
fn was_put_back(pass: &mut Pass<'_>, step: CloudStep, expected: &[Revision]) -> bool {
    let snapshot = pass.snapshot;
    let last = snapshot.aks.as_ref().and_then(|seen| seen.write.as_ref());
    let ours = stamp(pass, step);
    let accepted = |write: &&WriteSeen| {
        let good = matches!(
            write.outcome,
            WriteOutcome::AlreadySo
                | WriteOutcome::Accepted(OperationState::Running | OperationState::Succeeded)
        );
        good && write.stamp == ours
    };
    let Some(last) = last.filter(accepted) else { return false };
    let again = after(last.at, SELDOM_SECONDS);
    if again <= pass.now {
        return false;
    }
    if pass.retries_all() {
        // Another stamp, so that it is another write.
        pass.run.cloud_failures = pass.run.cloud_failures.saturating_add(1);
        pass.event(false, "RetryAccepted", None, format!("asking Azure once more for {}", step.as_str()));
        return true;
    }
    let because = format!(
        "Azure accepted {}, and the cluster has {} again: somebody else put that back, for example Terraform, whose next plan must \
         ignore the list of revisions; it is asked for again at {}",
        step.as_str(),
        listed(expected),
        shown(again)
    );
    wait(pass, WaitReason::RevisionsChanged, because);
    pass.wake_at(again);
    true
}

/// The stamp of a write: another one for each attempt that failed.
fn stamp(pass: &Pass<'_>, step: CloudStep) -> String {
    format!("{}.{}.{}", pass.run.stamp(&pass.intent.uid, 1), step.as_word(), pass.run.cloud_failures)
}

/// Whether a failed write is not tried again yet. Each failure is counted once, so that pauses grow; a retry ends the pause.
fn is_paused(pass: &mut Pass<'_>, step: CloudStep, problem: &ArmProblem, at: Timestamp) -> bool {
    if pass.run.cloud_failed_at.is_none_or(|counted| counted < at) {
        pass.run.cloud_failures = pass.run.cloud_failures.saturating_add(1);
        pass.run.cloud_failed_at = Some(at);
        note_write(pass, step, problem);
        return true;
    }
    if pass.run.cloud_failed_at > Some(at) {
        return false;
    }
    if pass.retries_all() {
        pass.run.cloud_failed_at = Some(pass.now);
        pass.event(false, "RetryAccepted", None, "Azure is asked once more");
        return true;
    }
    let again = after(at, pause(problem, pass.run.cloud_failures));
    if again <= pass.now {
        return false;
    }
    note_write(pass, step, problem);
    pass.wake_at(again);
    true
}

/// Why the last write of a step, or its operation, failed, and when that was known.
fn failure(pass: &Pass<'_>, step: CloudStep) -> Option<(ArmProblem, Timestamp)> {
    let WriteSeen { stamp, outcome, at } = pass.snapshot.aks.as_ref()?.write.as_ref()?;
    let ours = format!("{}.{}.", pass.run.stamp(&pass.intent.uid, 1), step.as_word());
    let problem = match outcome {
        WriteOutcome::Failed(problem) => problem.clone(),
        WriteOutcome::Accepted(OperationState::Failed(problem)) => (**problem).clone(),
        _ => return None,
    };
    stamp.starts_with(&ours).then_some((problem, *at))
}

/// A rollback that is asked for while the request to complete may be on its way: none is sent any more, and what became of the last one is
/// waited for.
fn hold_completion(pass: &mut Pass<'_>) {
    let pending = pass.run.cloud == Some(CloudStep::Complete) && !pass.run.cloud_done;
    let is_asked_for = pass.intent.rollback_requested || pass.intent.target == pass.run.source;
    if !pending || !is_asked_for || pass.run.phase != Phase::Completing {
        pass.run.completion_held_since = None;
        return;
    }
    let since = *pass.run.completion_held_since.get_or_insert(pass.now);
    let until = after(since, IN_FLIGHT_SECONDS);
    if until > pass.now {
        pass.wake_at(until);
    } else {
        require(pass, until);
    }
}

/// Whether it is known that Azure has not accepted the completion, and still has both revisions: then there is a way back. Known by what it
/// answered, or because nothing was sent for so long that it would show.
pub fn completion_was_refused(pass: &Pass<'_>) -> bool {
    let Some(seen) = pass.snapshot.aks.as_ref() else { return false };
    let answered = failure(pass, CloudStep::Complete).is_some_and(|(problem, at)| {
        let refused = matches!(
            problem.class,
            Class::Terminal
                | Class::Permission { .. }
                | Class::SignIn
                | Class::Wait { .. }
                | Class::Changed
                | Class::Throttled { .. }
        );
        refused && seen.read_at >= at
    });
    let held = pass.run.completion_held_since;
    let silent = held.is_some_and(|since| seen.read_at >= after(since, IN_FLIGHT_SECONDS));
    let has_both = |found: &ManagedCluster| {
        [&pass.run.source, &pass.run.target].iter().all(|revision| found.revisions.contains(revision))
    };
    (answered || silent) && cluster(pass).is_some_and(|found| at_rest(found) && has_both(found))
}

/// Notes a problem of Azure's as a reason to wait.
fn note(pass: &mut Pass<'_>, problem: &ArmProblem) {
    wait(pass, reason_of(problem), problem.to_string());
}

/// Notes why a write failed. A run that has begun keeps its target and its cluster, so that other advice is needed than before it.
fn note_write(pass: &mut Pass<'_>, step: CloudStep, problem: &ArmProblem) {
    let target = &pass.run.target;
    let way_out = match step {
        CloudStep::Start => {
            "If it stays so, spec.rollback.requested: true ends this run before anything is moved; set it to false after that, with another \
             spec.targetRevision."
                .to_owned()
        }
        CloudStep::Complete => {
            "Until Azure accepts it, spec.rollback.requested: true brings everything back.".to_owned()
        }
        CloudStep::Rollback => {
            format!("spec.rollback.controlPlane: Keep ends the run with {target} in place.")
        }
    };
    let because = match reason_of(problem) {
        WaitReason::AzureRefused | WaitReason::AzureAccess => format!("{problem} {way_out}"),
        _ => problem.to_string(),
    };
    wait(pass, reason_of(problem), because);
}

fn reason_of(problem: &ArmProblem) -> WaitReason {
    match problem.class {
        Class::Wait { .. } => WaitReason::ClusterBusy,
        Class::Terminal => WaitReason::AzureRefused,
        Class::Permission { .. } | Class::SignIn => WaitReason::AzureAccess,
        Class::Changed
        | Class::Throttled { .. }
        | Class::Transient { .. }
        | Class::UpgradeInProgress
        | Class::Unknown => WaitReason::AzureUnavailable,
    }
}

/// How long to wait after a failed write, in seconds: longer with each failure in a row.
fn pause(problem: &ArmProblem, failures: u32) -> u32 {
    let growing =
        |first: u32| first.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(SELDOM_SECONDS);
    match &problem.class {
        Class::Changed => growing(RACE_SECONDS),
        Class::Throttled { retry_after_seconds: Some(seconds) }
        | Class::Transient { retry_after_seconds: Some(seconds) } => {
            u32::try_from(*seconds).unwrap_or(u32::MAX).max(growing(1))
        }
        Class::Unknown
        | Class::UpgradeInProgress
        | Class::Throttled { .. }
        | Class::Transient { .. }
        | Class::Wait { .. } => growing(AGAIN_SECONDS),
        Class::Permission { .. } | Class::SignIn | Class::Terminal => SELDOM_SECONDS,
    }
}

/// The target's control plane was taken away in the middle of a run, by somebody else's rollback: what is on it must go back.
pub fn target_was_removed(pass: &Pass<'_>) -> bool {
    let (source, target) = pass.revisions();
    let began = pass.run.phase != Phase::StartingControlPlane
        || (pass.run.cloud == Some(CloudStep::Start) && pass.run.cloud_done);
    let removed = cluster(pass).is_some_and(|found| {
        at_rest(found) && found.revisions.contains(&source) && !found.revisions.contains(&target)
    });
    removed && began && source != target
}

/// Whether there is nowhere to go back to, because somebody completed the upgrade; that is noted.
pub fn nowhere_to_go_back(pass: &mut Pass<'_>) -> bool {
    let (source, target) = pass.revisions();
    let Some(found) = cluster(pass).filter(|found| !found.revisions.contains(&source)) else { return false };
    if source == target {
        return false;
    }
    let because = format!(
        "somebody completed the upgrade: the cluster has {}, and {source} is gone. There is no way back any more, and new pods of namespaces \
         that are back on {source} get no sidecar: delete the MeshUpgrade and apply it anew without spec.rollback.requested, with \
         spec.sourceRevision: {source} and spec.injection.droppedNamespaces: Repair, which moves everything to {target}",
        listed(&found.revisions)
    );
    wait(pass, WaitReason::RevisionsChanged, because);
    true
}

fn is_same(found: &[Revision], wanted: &[Revision]) -> bool {
    found.len() == wanted.len() && wanted.iter().all(|revision| found.contains(revision))
}

fn listed(revisions: &[Revision]) -> String {
    let names: Vec<&str> = revisions.iter().map(Revision::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" and ") }
}

//! From seen to the first write: preflight, plan, the target's control plane.

use jiff::Timestamp;

use crate::check::{self, CheckInput};
use crate::decision::{CheckOutcome, CheckResult};
use crate::gate;
use crate::inventory::discover_source;
use crate::machine::pass::{Pass, after, pair};
use crate::machine::people;
use crate::machine::phase::{Phase, Trigger};
use crate::machine::{addon_gateways, aks, gateway_addresses, gateways, mesh_config};
use crate::planning;
use crate::record::{CloudStep, RollbackCause};
use crate::tags;
use crate::wait::{Wait, WaitReason};

/// How old a count may be that a plan rests on, in seconds.
const COUNT_MAX_AGE_SECONDS: u32 = 600;
/// The same while the operator lacks a right that the run needs.
const DENIED_MAX_AGE_SECONDS: u32 = 60;
/// The check that finds such a right missing.
const REVISION_TAGS: &str = "RevisionTags";
/// The check that [`crate::check`] cannot run, because it comes before there is a pair of revisions.
const SOURCE_DISCOVERED: &str = "SourceDiscovered";
/// The check that holds back a rollback too: two runs at once would write the same labels.
const NO_OTHER_UPGRADE: &str = "NoOtherUpgrade";

/// The checks that say something where nothing changes its revision.
const PATCH_CHECKS: [&str; 5] =
    ["NamespacesAssigned", "BudgetsCanBeMet", "WorkloadsRestartable", "NoRunningJobs", NO_OTHER_UPGRADE];

/// Looks at the cluster: source, plan and named checks. Says whether the run may go on.
fn survey(pass: &mut Pass<'_>) -> bool {
    let counted = pass.snapshot.census.as_ref().and_then(|census| census.taken_at);
    let due = counted.map_or(Timestamp::UNIX_EPOCH, |counted| after(counted, count_again_after(pass)));
    if due <= pass.now {
        need_count(pass, counted.map_or(due, |counted| after(counted, 1)));
    } else {
        pass.wake_at(due);
    }
    if pass.surveyed {
        return check::failed(&pass.checks).is_empty();
    }
    match discover_source(pass.intent, pass.snapshot) {
        Err(found) => {
            pass.checks =
                vec![CheckResult { name: SOURCE_DISCOVERED, outcome: CheckOutcome::Failed, message: found }];
            return false;
        }
        // Nothing is on another revision: the run has nothing to move, and ends as soon as the target is there.
        Ok(source) => {
            let source =
                source.or_else(|| aks::other_revision(pass)).unwrap_or_else(|| pass.run.target.clone());
            if source != pass.run.source {
                pass.run.approved_waves = 0;
            }
            pass.run.source = source;
            pass.run.patch = is_patch(pass);
        }
    }
    let revisions = pass.revisions();
    let planning = planning::make(pass.intent, pass.snapshot, pair(&revisions));
    if planning::digest(&planning.plan, &pass.run) != planning::digest(&pass.plan, &pass.run) {
        // What was approved is not what would be done.
        pass.run.approved_waves = 0;
    }
    pass.plan.clone_from(&planning.plan);
    pass.checks = check::preflight(&CheckInput {
        intent: pass.intent,
        source: &revisions.0,
        target: &revisions.1,
        snapshot: pass.snapshot,
        plan: &planning.plan,
        unrestartable: &planning.unrestartable,
        now: pass.now,
    });
    if revisions.0 == revisions.1 {
        // There is no pair to compare. What restarts workloads is looked at all the same.
        let patch = pass.run.patch;
        pass.checks.retain(|check| patch && PATCH_CHECKS.contains(&check.name));
    }
    pass.surveyed = true;
    check::failed(&pass.checks).is_empty()
}

/// How old the count may be that a plan rests on, in seconds: none will do that was not asked about the tags of now.
fn count_max_age(pass: &Pass<'_>) -> u32 {
    let census = pass.snapshot.census.as_ref();
    let asked = census.is_some_and(|it| tags::to_patch(pass.intent, pass.snapshot).is_subset(&it.rights));
    if asked { COUNT_MAX_AGE_SECONDS } else { 1 }
}

/// After how many seconds the cluster is counted again: a right that was missing may have been given meanwhile.
fn count_again_after(pass: &Pass<'_>) -> u32 {
    let rights = tags::to_patch(pass.intent, pass.snapshot);
    let denied = pass.snapshot.census.as_ref().is_some_and(|census| !rights.is_disjoint(&census.denied));
    if denied && !pass.intent.skip_checks.contains(REVISION_TAGS) {
        DENIED_MAX_AGE_SECONDS
    } else {
        count_max_age(pass)
    }
}

/// Asks for a look at the cluster that begins no earlier than this.
fn need_count(pass: &mut Pass<'_>, since: Timestamp) {
    pass.needs.census_since = Some(since);
    pass.needs.rights = tags::to_patch(pass.intent, pass.snapshot);
}

/// Whether the same revision as source and target is asked for, by name or as another run. An object that was only applied again
/// restarts nothing that is on its target.
fn is_patch(pass: &Pass<'_>) -> bool {
    let named = pass.intent.source.as_ref() == Some(&pass.run.target) || !pass.run.run_id.is_empty();
    pass.run.source == pass.run.target && named
}

/// Whether the proxies of the cluster were counted a short time ago: the plan lists what is not restarted, and the scope rests on
/// it too. Otherwise that is awaited.
fn counted_lately(pass: &mut Pass<'_>) -> bool {
    let counted = pass.snapshot.census.as_ref().and_then(|census| census.taken_at);
    let lately = counted.is_some_and(|counted| after(counted, count_max_age(pass)) > pass.now);
    if !lately {
        pass.wait_for_count("the proxies of the cluster");
    }
    lately
}

/// Runs the named checks; nothing is written.
pub fn preflight(pass: &mut Pass<'_>) -> bool {
    // The way back needs nothing but its source.
    if !pass.intent.rollback_requested && !aks::is_readable(pass, true) {
        return false;
    }
    let passed = survey(pass);
    if pass.snapshot.census.is_none() {
        pass.wait_for_count("the proxies of the cluster");
        return false;
    }
    let alone = !pass
        .checks
        .iter()
        .any(|check| check.name == NO_OTHER_UPGRADE && check.outcome == CheckOutcome::Failed);
    if pass.intent.rollback_requested && pass.surveyed && alone {
        // The way back needs nothing but its source, and waits for that by itself.
        return roll_back_before_the_start(pass);
    }
    if passed {
        return pass.go(Trigger::PreflightPassed);
    }
    for result in pass.checks.clone().into_iter().filter(|result| result.outcome == CheckOutcome::Failed) {
        let reason = if result.name == NO_OTHER_UPGRADE {
            WaitReason::OtherUpgradeActive
        } else {
            WaitReason::PreflightFailed
        };
        pass.wait(reason, None, format!("{}: {}", result.name, result.message));
    }
    false
}

/// An object that asks for rollback before it wrote anything: what an earlier object of the same pair moved goes back.
fn roll_back_before_the_start(pass: &mut Pass<'_>) -> bool {
    if pass.repairs_what_has_no_source() {
        let because = format!(
            "spec.rollback.requested is set, and there is nothing to go back to: the control plane of {} is gone. Set it to false: the \
             run then repairs what dropped out of the mesh by moving it to {}",
            pass.run.source, pass.run.target
        );
        pass.wait(WaitReason::PreflightFailed, None, because);
        return false;
    }
    freeze(pass);
    pass.run.wave = u32::try_from(pass.plan.waves.len().saturating_sub(1)).unwrap_or(u32::MAX);
    pass.turn_back(RollbackCause::Requested, "spec.rollback.requested is set".into());
    true
}

/// Publishes the plan; nothing is written.
pub fn planned(pass: &mut Pass<'_>) -> bool {
    if !pass.intent.rollback_requested && !aks::is_readable(pass, true) {
        return false;
    }
    if pass.snapshot.census.is_none() {
        // After a restart of the operator. Without a count the plan would be another one.
        need_count(pass, Timestamp::UNIX_EPOCH);
        return counted_lately(pass);
    }
    if !survey(pass) {
        return pass.go(Trigger::PreflightFailed);
    }
    if pass.intent.rollback_requested {
        return roll_back_before_the_start(pass);
    }
    if pass.intent.suspend {
        pass.wait(
            WaitReason::Suspended,
            None,
            "spec.suspend is set: the plan is published and nothing is written",
        );
        return false;
    }
    if pass.intent.plan_only {
        pass.wait(
            WaitReason::PlanOnly,
            None,
            "spec.planOnly is set: the plan is published and nothing else is written",
        );
        return false;
    }
    people::may_begin(pass) && pass.go(Trigger::PlanAccepted)
}

/// Waits for the target's control plane, then freezes the plan.
pub fn control_plane(pass: &mut Pass<'_>) -> bool {
    if pass.started() {
        return addon_control_plane(pass);
    }
    if !pass.intent.rollback_requested && !aks::is_readable(pass, true) {
        return false;
    }
    if pass.snapshot.census.is_none() {
        need_count(pass, Timestamp::UNIX_EPOCH);
        return counted_lately(pass);
    }
    if !survey(pass) {
        return pass.go(Trigger::PreflightFailed);
    }
    if pass.intent.rollback_requested {
        return roll_back_before_the_start(pass);
    }
    gateway_addresses::remember(pass);
    if !people::may_begin(pass) || !pass.may_start() {
        return false;
    }
    let target = pass.run.target.clone();
    let addon = pass.intent.is_addon() && pass.run.source != pass.run.target;
    let cloud = addon && pass.intent.aks.is_some();
    let ready = gate::new_control_plane(pass.snapshot, &pass.intent.istio_namespace, &target);
    if let Some(wait) = ready.filter(|_| !cloud) {
        wait_for_istiod(pass, wait);
        return false;
    }
    if !counted_lately(pass) {
        return false;
    }
    freeze(pass);
    started(pass);
    // The first writes of all are those that prepare the control plane, and start it.
    !addon && pass.go(Trigger::ControlPlaneReady)
}

/// The plan is frozen. What the target needs is prepared, and Azure is asked for it where it is ours to start.
fn addon_control_plane(pass: &mut Pass<'_>) -> bool {
    if !mesh_config::copied(pass) || !gateways::pinned(pass) || !aks::done(pass, CloudStep::Start) {
        return false;
    }
    let (target, namespace) = (pass.run.target.clone(), pass.intent.istio_namespace.clone());
    if let Some(mut wait) = gate::new_control_plane(pass.snapshot, &namespace, &target) {
        if wait.reason == WaitReason::RevisionNotFound && pass.intent.aks.is_some() {
            // Nobody else is to install it.
            wait.because = format!(
                "Azure has added {target}, and neither its istiod nor its webhook is in the cluster yet: kubectl get pods -n \
                 {namespace} shows what is there"
            );
        }
        wait_for_istiod(pass, wait);
        return false;
    }
    // Both are told.
    let (ready, kept) = (addon_gateways::ready(pass), gateway_addresses::kept(pass));
    ready && kept && pass.go(Trigger::ControlPlaneReady)
}

/// Notes what the control plane lacks. Why pods of istiod do not come up is told by the pods themselves.
fn wait_for_istiod(pass: &mut Pass<'_>, wait: Wait) {
    if wait.reason == WaitReason::IstiodNotReady {
        pass.needs.pods.insert(pass.intent.istio_namespace.clone());
    }
    pass.waits.push(wait);
}

fn started(pass: &mut Pass<'_>) {
    let (source, target) = pass.revisions();
    pass.event(
        false,
        "UpgradeStarted",
        None,
        format!(
            "from {source} to {target}: {} waves, {} workloads",
            pass.plan.waves.len(),
            pass.plan.workloads
        ),
    );
}

/// From here on source, target and scope cannot change.
fn freeze(pass: &mut Pass<'_>) {
    pass.run.started_at = Some(pass.now);
}

/// Whether the phase is one before the first write.
pub fn is_before_the_start(phase: Phase) -> bool {
    matches!(phase, Phase::Pending | Phase::Preflight | Phase::Planned | Phase::StartingControlPlane)
}

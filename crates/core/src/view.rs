//! What people and other tools see of a run: phase, message, counters and conditions. Derived in one place at the end of
//! each pass, and never read back.

use std::collections::BTreeSet;

use crate::conditions::{ConditionStatus, ConditionType, Conditions};
use crate::decision::{ActionOffer, Outdated, View};
use crate::gate;
use crate::intent::Verb;
use crate::machine::batch;
use crate::machine::git;
use crate::machine::pass::Pass;
use crate::machine::people;
use crate::machine::phase::Phase;
use crate::machine::remains;
use crate::machine::removed;
use crate::machine::start::is_before_the_start;
use crate::machine::wave::front_of;
use crate::plan::PlannedWave;
use crate::pods::image_version;
use crate::record::{Direction, WaveStep};
use crate::wait::{Wait, WaitReason};

/// How many waits status lists.
pub const MAX_BLOCKED: usize = 20;

/// How many workloads with outdated proxies are named.
const MAX_EXAMPLES: usize = 10;

use ConditionStatus::{False, True, Unknown};

/// Makes the view of a pass.
pub fn of(pass: &Pass<'_>) -> View {
    let mut waits = pass.waits.clone();
    // What a person must act on comes first; within that, the order in which it was found.
    waits.sort_by_key(|wait| !wait.reason.needs_human());
    let message = message(pass, waits.first());
    View {
        phase: pass.run.phase,
        progress: progress(pass),
        wave: wave(pass),
        conditions: conditions(pass, waits.first(), &message),
        blocked: waits.into_iter().take(MAX_BLOCKED).collect(),
        checks: pass.checks.clone(),
        actions: actions(pass),
        outdated: outdated(pass),
        message,
    }
}

/// What is offered. A retry only while something is stuck: anything else goes on without it.
fn actions(pass: &Pass<'_>) -> Vec<ActionOffer> {
    let is_stuck = |wait: &Wait| wait.reason.needs_human() || wait.reason == WaitReason::WorkloadPassedOver;
    let stuck = pass.waits.iter().any(is_stuck);
    people::offers(pass).into_iter().filter(|offer| stuck || offer.verb != Verb::Retry).collect()
}

/// Proxies of the revision that the run goes to, or went to, with another image than its injector gives now.
fn outdated(pass: &Pass<'_>) -> Option<Outdated> {
    let revision = pass.run.destination();
    let image = pass.snapshot.control_planes.get(revision)?.proxy_image.as_deref()?;
    let version = image_version(image);
    let count = pass.snapshot.proxies.as_ref()?;
    // What was counted before the end of the run says nothing about what is there now.
    let is_old = pass.run.ended_at.is_some_and(|ended| count.taken_at.is_none_or(|taken| taken < ended));
    let old = if is_old { return None } else { count.outdated(revision, version) };
    Some(Outdated {
        revision: revision.clone(),
        version: version.to_owned(),
        proxies: old.values().sum(),
        workloads: u32::try_from(old.len()).unwrap_or(u32::MAX),
        examples: old.keys().take(MAX_EXAMPLES).map(|workload| (*workload).clone()).collect(),
    })
}

fn message(pass: &Pass<'_>, wait: Option<&Wait>) -> String {
    let run = &pass.run;
    let name = pass.current_wave().map_or("", |wave| wave.name.as_str());
    let doing = match run.phase {
        Phase::Pending => "seen".to_owned(),
        Phase::Preflight => "preflight".to_owned(),
        Phase::Planned => format!("plan: {} waves, {} workloads", pass.plan.waves.len(), pass.plan.workloads),
        Phase::StartingControlPlane => format!("waiting for the control plane of {}", run.target),
        Phase::Migrating | Phase::Soaking => match removed::told(pass) {
            Some(because) => format!("wave {name:?} ({because})"),
            None if pass.intent.rollback_requested && pass.repairs_what_has_no_source() => {
                format!(
                    "wave {name:?} (spec.rollback.requested changes nothing, because the control plane of {} is gone)",
                    run.source
                )
            }
            None => format!("wave {name:?}"),
        },
        Phase::Completing if run.completion_held_since.is_some() => {
            format!(
                "completing: a rollback is asked for, and a request to remove {} may be on its way: the run turns back when it is \
                 known that Azure has not accepted it",
                run.source
            )
        }
        Phase::Completing if pass.intent.rollback_requested && !pass.can_turn_back() => {
            format!(
                "completing: spec.rollback.requested changes nothing, because the removal of {} is accepted",
                run.source
            )
        }
        Phase::Completing => format!("completing: {} is to go", run.source),
        Phase::Succeeded => return succeeded(pass),
        Phase::RollingBack => {
            let why = run.rollback.as_ref().map_or("", |rollback| rollback.message.as_str());
            let only = run.rollback.as_ref().is_some_and(|rollback| rollback.wave_only);
            let what = if only { format!("wave {name:?} goes back") } else { "going back".to_owned() };
            format!("{what} to {} ({why})", run.source)
        }
        Phase::RolledBack => return rolled_back(pass),
    };
    match wait {
        Some(wait) => format!("{doing}: {}", wait.because),
        None => doing,
    }
}

fn succeeded(pass: &Pass<'_>) -> String {
    let Pass { run, intent, .. } = pass;
    let old = outdated(pass).filter(|old| old.proxies > 0).map_or_else(String::new, |old| {
        format!(
            "; {} proxies of {} workloads have another image than {}: sourceRevision and targetRevision {} with a new runId \
             replace them in the same waves",
            old.proxies, old.workloads, old.version, run.target
        )
    });
    let done = format!("everything runs on {}{old}", run.target);
    if !intent.rollback_requested || run.source == run.target {
        return done;
    }
    format!(
        "{done}; spec.rollback.requested came too late and changes nothing: to go back, set it to false and \
         spec.targetRevision to {}, which starts a run in the other direction",
        run.source
    )
}

fn rolled_back(pass: &Pass<'_>) -> String {
    let run = &pass.run;
    let why = run.rollback.as_ref().map_or("", |rollback| rollback.message.as_str());
    let remains = remains::told(pass);
    let git = git::told(pass).filter(|_| remains.is_some());
    let done = format!("everything runs on {} again ({why})", run.source);
    let told: Vec<String> = [Some(done), git, remains].into_iter().flatten().collect();
    told.join("; ")
}

fn wave(pass: &Pass<'_>) -> String {
    let total = pass.plan.waves.len();
    if is_before_the_start(pass.run.phase) || total == 0 {
        return format!("0/{total}");
    }
    let current = usize::try_from(pass.run.wave).unwrap_or(usize::MAX).saturating_add(1).min(total);
    format!("{current}/{total}")
}

fn progress(pass: &Pass<'_>) -> String {
    let run = &pass.run;
    let (done, total) = match run.phase {
        Phase::RollingBack | Phase::RolledBack => back_progress(pass),
        Phase::Migrating => (run.workloads_done.saturating_add(done_now(pass)), pass.plan.workloads),
        _ => (run.workloads_done, pass.plan.workloads),
    };
    format!("{}/{total}", done.min(total))
}

fn back_progress(pass: &Pass<'_>) -> (u32, u32) {
    let range = pass.run.rollback.as_ref().map_or(0..=0, |rollback| rollback.to_wave()..=rollback.from_wave);
    let waves = || {
        let range = range.clone();
        (0u32..).zip(&pass.plan.waves).filter(move |(index, _)| range.contains(index))
    };
    let total: u32 = waves().map(|(_, wave)| wave.workloads).sum();
    if pass.run.phase == Phase::RolledBack || pass.run.step == WaveStep::Proven {
        return (total, total);
    }
    let back: u32 = waves().filter(|(index, _)| *index > pass.run.wave).map(|(_, wave)| wave.workloads).sum();
    let now = if pass.run.step == WaveStep::Restart { done_now(pass) } else { 0 };
    (back.saturating_add(now), total)
}

fn done_now(pass: &Pass<'_>) -> u32 {
    pass.current_wave().map_or(0, |wave: &PlannedWave| {
        let namespaces: BTreeSet<_> = wave.namespaces.iter().cloned().collect();
        batch::done_count(pass, &front_of(pass, wave, &namespaces, true))
    })
}

fn conditions(pass: &Pass<'_>, wait: Option<&Wait>, message: &str) -> Conditions {
    let mut conditions = Conditions::default();
    summary(pass, wait, message, &mut conditions);
    preflight(pass, &mut conditions);
    control_plane(pass, &mut conditions);
    data_plane(pass, &mut conditions);
    let paused = pass.waits.iter().find(|wait| is_pause(pass, wait.reason));
    match paused {
        Some(wait) => conditions.set(ConditionType::Paused, True, wait.reason.as_str(), wait.because.clone()),
        None => conditions.set(ConditionType::Paused, False, "Running", ""),
    }
    let (status, reason) =
        if pass.run.phase == Phase::RolledBack { (True, "Proven") } else { (False, "NotRolledBack") };
    conditions.set(ConditionType::RolledBack, status, reason, "");
    conditions
}

/// `Ready`, `Reconciling`, `Stalled`, `Succeeded`: what kstatus, Flux and Argo CD read.
fn summary(pass: &Pass<'_>, wait: Option<&Wait>, message: &str, conditions: &mut Conditions) {
    let stalled = wait.filter(|wait| wait.reason.needs_human());
    let back = pass.run.direction() == Direction::Back;
    match pass.run.phase {
        Phase::Succeeded => {
            conditions.set(ConditionType::Ready, True, "UpgradeSucceeded", message);
            conditions.set(ConditionType::Succeeded, True, "UpgradeSucceeded", message);
        }
        Phase::RolledBack => {
            conditions.set(ConditionType::Ready, False, "RolledBack", message);
            conditions.set(ConditionType::Stalled, True, "RolledBack", message);
            conditions.set(ConditionType::Succeeded, False, "RolledBack", message);
        }
        phase => {
            let special = wait.filter(|wait| stalled.is_some() || (!back && !is_ordinary(wait.reason)));
            let reason = match special {
                Some(wait) => wait.reason.as_str(),
                _ if back => "RollingBack",
                _ => phase.as_str(),
            };
            let ready = if back || stalled.is_some() { False } else { Unknown };
            conditions.set(ConditionType::Ready, ready, reason, message);
            let kind = if stalled.is_some() { ConditionType::Stalled } else { ConditionType::Reconciling };
            conditions.set(kind, True, reason, message);
            // A failed preflight has an outcome; everything else is still open.
            let refused = stalled.is_some_and(|wait| wait.reason == WaitReason::PreflightFailed);
            conditions.set(ConditionType::Succeeded, if refused { False } else { Unknown }, reason, "");
        }
    }
}

fn preflight(pass: &Pass<'_>, conditions: &mut Conditions) {
    let kind = ConditionType::PreflightPassed;
    if pass.run.phase == Phase::Pending {
        return conditions.set(kind, Unknown, "Pending", "");
    }
    if pass.run.phase != Phase::Preflight {
        return conditions.set(kind, True, "Passed", "");
    }
    match pass.waits.first() {
        Some(wait) if wait.reason == WaitReason::Observing => {
            conditions.set(kind, Unknown, "Observing", wait.because.clone())
        }
        Some(wait) => conditions.set(kind, False, wait.reason.as_str(), wait.because.clone()),
        None => conditions.set(kind, Unknown, "Pending", ""),
    }
}

fn control_plane(pass: &Pass<'_>, conditions: &mut Conditions) {
    let kind = ConditionType::ControlPlaneReady;
    if matches!(pass.run.phase, Phase::Pending | Phase::Preflight) {
        return conditions.set(kind, Unknown, "NotChecked", "");
    }
    let revision = pass.run.destination();
    match gate::control_plane(pass.snapshot, &pass.intent.istio_namespace, revision) {
        None => conditions.set(kind, True, "Ready", format!("istiod and injector of {revision} are ready")),
        Some(wait) => conditions.set(kind, False, wait.reason.as_str(), wait.because),
    }
}

fn data_plane(pass: &Pass<'_>, conditions: &mut Conditions) {
    let run = &pass.run;
    let sick = pass.waits.iter().find(|wait| is_sickness(wait.reason));
    let unknown = pass.waits.iter().find(|wait| is_unknown(wait.reason));
    match sick {
        Some(wait) => {
            conditions.set(ConditionType::Healthy, False, wait.reason.as_str(), wait.because.clone())
        }
        None if unknown.is_some() => {
            let (reason, because) =
                unknown.map_or(("", ""), |wait| (wait.reason.as_str(), wait.because.as_str()));
            conditions.set(ConditionType::Healthy, Unknown, reason, because);
        }
        None if is_before_the_start(run.phase) => {
            conditions.set(ConditionType::Healthy, Unknown, "NotStarted", "")
        }
        None => conditions.set(ConditionType::Healthy, True, "NothingFailed", ""),
    }
    let migrated = match run.phase {
        Phase::Completing | Phase::Succeeded => (True, "AllWavesDone"),
        Phase::RollingBack | Phase::RolledBack => (False, "RolledBack"),
        _ => (False, "WavesRemain"),
    };
    conditions.set(ConditionType::DataPlaneMigrated, migrated.0, migrated.1, "");
    let (status, reason, message) = old_revision(pass);
    conditions.set(ConditionType::OldRevisionInUse, status, reason, message);
}

/// Three-valued: only a confirmed False allows the removal of the source.
fn old_revision(pass: &Pass<'_>) -> (ConditionStatus, &'static str, String) {
    match pass.run.phase {
        Phase::Succeeded => (False, "NotReferenced", String::new()),
        Phase::Completing if pass.checks.is_empty() => (Unknown, "NotCounted", String::new()),
        Phase::Completing => {
            let failed = crate::check::failed(&pass.checks);
            match failed.first() {
                None => (False, "NotReferenced", String::new()),
                Some(first) if failed.iter().all(|result| result.name == "NothingUncovered") => {
                    (Unknown, "NotCovered", first.message.clone())
                }
                Some(first) => (True, first.name, first.message.clone()),
            }
        }
        _ => (True, "WavesRemain", String::new()),
    }
}

/// Whether workloads are not well, as opposed to held up.
fn is_sickness(reason: WaitReason) -> bool {
    use WaitReason::{AnalysisFailed, NoProgress, StatefulSetStuck, WorkloadFailed, WorkloadNotReady};
    matches!(reason, WorkloadFailed | WorkloadNotReady | NoProgress | StatefulSetStuck | AnalysisFailed)
}

/// Whether nobody knows how workloads are, although metrics were to tell.
fn is_unknown(reason: WaitReason) -> bool {
    use WaitReason::{AnalysisError, AnalysisInconclusive, AnalysisNoData};
    matches!(reason, AnalysisError | AnalysisInconclusive | AnalysisNoData)
}

/// What belongs to every step of the work: naming it would change the conditions with each batch and say nothing.
fn is_ordinary(reason: WaitReason) -> bool {
    matches!(reason, WaitReason::RolloutInProgress | WaitReason::Observing)
}

/// What a person asked to wait for, or chose to be stopped by.
fn is_pause(pass: &Pass<'_>, reason: WaitReason) -> bool {
    match reason {
        WaitReason::Suspended
        | WaitReason::Paused
        | WaitReason::PlanOnly
        | WaitReason::ApprovalRequired
        | WaitReason::AnalysisFailed
        | WaitReason::WaveRolledBack => true,
        reason if is_unknown(reason) => true,
        WaitReason::WorkloadFailed => pass.run.direction() == Direction::Forward,
        _ => false,
    }
}

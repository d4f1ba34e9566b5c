//! The working state of one call of [`crate::decide()`].

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

use crate::decision::{About, CheckResult, Event, Needs, Wake};
use crate::effect::Effect;
use crate::gate;
use crate::ids::{NamespaceName, Revision, WorkloadKind, WorkloadRef};
use crate::intent::{InjectionMode, Intent, RollbackScope};
use crate::inventory::{Pair, moved_by};
use crate::labels;
use crate::machine::phase::{Phase, Trigger};
use crate::machine::{self, aks};
use crate::observed::Snapshot;
use crate::plan::{Plan, PlannedWave, WaveKind};
use crate::pods::{Wanted, image_version};
use crate::record::{
    CloudStep, MAX_HISTORY, Record, Rollback, RollbackCause, Run, RunSummary, SCHEMA, Sample, WaveStep,
    attempt_key,
};
use crate::tags;
use crate::wait::{Wait, WaitReason};
use crate::window::{Opening, opening};

/// How long a count that proved nothing is good enough at most, in seconds.
const MAX_COUNT_GAP_SECONDS: u32 = 300;

/// What one call knows and collects.
pub struct Pass<'a> {
    pub now: Timestamp,
    pub intent: &'a Intent,
    pub snapshot: &'a Snapshot,
    pub run: Run,
    pub plan: Plan,
    pub history: Vec<RunSummary>,
    /// The last measurements, newest first.
    pub samples: Vec<Sample>,
    /// The cluster was looked at for the plan in this call.
    pub surveyed: bool,
    /// The retry annotation has a value that was not acted on yet.
    pub retry: bool,
    /// The workload that the retry is for, as [`attempt_key`] writes it; everything if there is none.
    pub retry_of: Option<String>,
    pub effects: Vec<Effect>,
    pub events: Vec<Event>,
    /// Events of effects: they happen only if the effects do.
    pub effect_events: Vec<Event>,
    pub waits: Vec<Wait>,
    pub checks: Vec<CheckResult>,
    pub wake: Wake,
    pub needs: Needs,
}

impl<'a> Pass<'a> {
    /// Starts from what status says.
    pub fn new(now: Timestamp, intent: &'a Intent, persisted: &'a Record, snapshot: &'a Snapshot) -> Self {
        let mut history = persisted.history.clone();
        let mut samples = persisted.samples.clone();
        let run = match &persisted.run {
            None => new_run(intent, 1),
            Some(run) if wants_next_run(intent, run) => {
                history.insert(0, summary(run));
                history.truncate(MAX_HISTORY);
                samples.clear();
                new_run(intent, run.counter + 1)
            }
            Some(run) => run.clone(),
        };
        let mut pass = Self {
            now,
            intent,
            snapshot,
            retry: intent.retry.is_some() && intent.retry != run.handled_retry,
            retry_of: intent.retry.as_deref().and_then(named_workload),
            run,
            plan: persisted.plan.clone().unwrap_or_default(),
            history,
            samples,
            surveyed: false,
            effects: Vec::new(),
            events: Vec::new(),
            effect_events: Vec::new(),
            waits: Vec::new(),
            checks: Vec::new(),
            wake: Wake::OnChange,
            needs: Needs::default(),
        };
        if pass.run.started_at.is_none() && !pass.run.phase.is_over() {
            // Nothing is written yet: the spec may still change everything, and what was approved is void then.
            if pass.run.target != intent.target {
                pass.run.approved_waves = 0;
            }
            pass.run.target = intent.target.clone();
            pass.run.run_id.clone_from(&intent.run_id);
        }
        pass
    }

    /// What the proxies of the run's workloads are to be.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { revision: self.run.destination(), version: self.version() }
    }

    /// The version of the proxies that a patch upgrade asks for: what the injector gives now. It may change on the way.
    fn version(&self) -> Option<&'a str> {
        let plane = self.snapshot.control_planes.get(&self.run.target).filter(|_| self.run.patch)?;
        plane.proxy_image.as_deref().map(image_version)
    }

    /// Whether a patch upgrade does not know which version to ask for; that is noted.
    pub fn lacks_version(&mut self) -> bool {
        if !self.run.patch || self.version().is_some() {
            return false;
        }
        let because = format!(
            "the ConfigMap of the injector of {} in {} does not say which image its proxies get (key values, global.proxy)",
            self.run.target, self.intent.istio_namespace
        );
        self.wait(WaitReason::InjectorConfigMissing, None, because);
        true
    }

    /// The restart stamp of a workload. In a patch upgrade it names the version: another one on the way is another restart.
    pub fn restart_stamp(&self, workload: &WorkloadRef) -> String {
        let stamp = self.run.restart_stamp(&self.intent.uid, workload);
        match self.version() {
            Some(version) => format!("{stamp}.{version}"),
            None => stamp,
        }
    }

    /// The two revisions of the run. Owned, so that the run can be changed while they are in use.
    pub fn revisions(&self) -> (Revision, Revision) {
        (self.run.source.clone(), self.run.target.clone())
    }

    /// Whether the plan is frozen and writes have begun.
    pub fn started(&self) -> bool {
        self.run.started_at.is_some()
    }

    /// Whether there is a way back: something was moved, and whoever removed the source did not accept the completion.
    pub fn can_turn_back(&self) -> bool {
        let run = &self.run;
        let completing = run.phase == Phase::Completing;
        let accepted = (completing && gate::is_gone(self.snapshot, &run.source))
            || (run.cloud == Some(CloudStep::Complete) && !aks::completion_was_refused(self));
        let forward = run.rollback.as_ref().is_none_or(|rollback| rollback.wave_only);
        let under_way = self.started() && !run.phase.is_over() && forward;
        under_way && run.source != run.target && !accepted && !self.repairs_what_has_no_source()
    }

    /// Whether the run brings over what dropped out of the mesh when its control plane went: there is nothing to go back to.
    pub fn repairs_what_has_no_source(&self) -> bool {
        self.intent.repairs_dropped && gate::is_gone(self.snapshot, &self.run.source)
    }

    /// The wave in work.
    pub fn current_wave(&self) -> Option<&PlannedWave> {
        self.plan.waves.get(usize::try_from(self.run.wave).ok()?)
    }

    /// Takes a transition of the table. One that the table does not have is a defect of the caller and changes nothing.
    pub fn go(&mut self, trigger: Trigger) -> bool {
        let Some(to) = self.run.phase.on(trigger) else {
            debug_assert!(false, "no transition {trigger:?} from {}", self.run.phase);
            return false;
        };
        self.run.phase = to;
        true
    }

    /// Whether a person asked to try this workload once more: by a retry of everything, or of it.
    pub fn retries(&self, workload: &WorkloadRef) -> bool {
        self.retry && self.retry_of.as_ref().is_none_or(|named| *named == attempt_key(workload))
    }

    /// Whether a person asked to try once more whatever is blocked.
    pub fn retries_all(&self) -> bool {
        self.retry && self.retry_of.is_none()
    }

    /// Asks for a write. It is dropped at the end if the facts that it rests on are not stored yet.
    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Notes a reason to wait.
    pub fn wait(&mut self, reason: WaitReason, about: Option<About>, because: impl Into<String>) {
        let wait = Wait { reason, about, because: because.into() };
        if !self.waits.contains(&wait) {
            self.waits.push(wait);
        }
    }

    /// Notes a write that was refused a moment ago. It is asked for all the same: the shell spaces the attempts.
    pub fn note_refusal(&mut self, about: About, stamp: &str) -> bool {
        let Some(answer) = self.snapshot.refused.get(&(about.clone(), stamp.to_owned())) else {
            return false;
        };
        let of_a_tag = matches!(about, About::Webhook(_) | About::Service(_));
        let hint = if of_a_tag && answer.contains("cannot patch") {
            " (the chart's value revisionTags gives the right, by the name of the tag)"
        } else {
            ""
        };
        let because = format!("the write was refused: {answer}{hint}; it is tried again until it is allowed");
        self.wait(WaitReason::WriteRefused, Some(about), because);
        true
    }

    /// Whether something new may start; the reason is noted if not. A rollback never asks.
    pub fn may_start(&mut self) -> bool {
        if self.intent.suspend {
            self.wait(WaitReason::Suspended, None, "spec.suspend is set: nothing new is started");
            return false;
        }
        if self.run.paused {
            self.wait(
                WaitReason::Paused,
                None,
                "paused by annotation: status.actions has the value that resumes",
            );
            return false;
        }
        if self.run.progress.as_ref().is_some_and(|progress| progress.exceeded) {
            // The reason is noted where the time is measured.
            return false;
        }
        if self.intent.plan_only {
            self.wait(WaitReason::PlanOnly, None, "spec.planOnly is set: nothing new is started");
            return false;
        }
        match opening(&self.intent.windows, self.now) {
            Opening::Open => true,
            Opening::Closed(until) => {
                let because = format!(
                    "no window of spec.windows is open: nothing new is started before {}",
                    shown(until)
                );
                self.wait(WaitReason::OutsideWindow, None, because);
                self.wake_at(until);
                false
            }
        }
    }

    /// Notes an event.
    pub fn event(
        &mut self,
        warning: bool,
        reason: &'static str,
        about: Option<About>,
        note: impl Into<String>,
    ) {
        self.events.push(Event { warning, reason, note: note.into(), about });
    }

    /// Notes an event that happens only if the effects of this pass do.
    pub fn effect_event(
        &mut self,
        warning: bool,
        reason: &'static str,
        about: Option<About>,
        note: impl Into<String>,
    ) {
        self.effect_events.push(Event { warning, reason, note: note.into(), about });
    }

    /// Asks to be called again at this time at the latest.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = self.wake.earliest(Wake::At(at));
    }

    /// Notes that a count of the cluster is awaited, and what keeps it from coming.
    pub fn wait_for_count(&mut self, what: &str) {
        let because = match &self.snapshot.census_problem {
            Some(problem) => format!("counting {what}; the last attempt failed: {problem}"),
            None => format!("counting {what}"),
        };
        self.wait(WaitReason::Observing, None, because);
    }

    /// Asks for another count, because the last one proved nothing. The longer this has been so the later: what is waited for
    /// may take a person days, and a count reads the whole cluster.
    pub fn count_again(&mut self, counted: Timestamp, waiting_since: Timestamp) {
        let waited = counted.duration_since(waiting_since).as_secs().max(0);
        let gap = u32::try_from(waited / 10).unwrap_or(u32::MAX).min(MAX_COUNT_GAP_SECONDS);
        let due = after(counted, gap);
        if due > self.now {
            self.wake_at(due);
        } else {
            if self.snapshot.census_problem.is_some() {
                self.wait_for_count("once more");
            }
            // Anything that began after the last one will do.
            self.needs.census_since = counted.checked_add(SignedDuration::from_nanos(1)).ok();
        }
    }

    /// How a person asks for a retry.
    pub fn how_to_retry(&self, effect: &str) -> String {
        let name = &self.intent.name;
        format!("kubectl annotate meshupgrade {name} {}=$(date +%s) --overwrite {effect}", labels::RETRY)
    }

    /// Turns the run back. Latched: there is no way to turn it forward again.
    pub fn turn_back(&mut self, cause: RollbackCause, message: String) {
        self.event(true, "RollbackStarted", None, message.clone());
        let asked_for = matches!(
            cause,
            RollbackCause::Requested | RollbackCause::TargetReverted | RollbackCause::TargetRemoved
        );
        let in_a_wave = matches!(self.run.phase, Phase::Migrating | Phase::Soaking);
        // Gateways live in namespaces of other waves, whose labels stay: they cannot go back alone.
        let own_labels = self.current_wave().is_some_and(|wave| wave.kind != WaveKind::Gateways);
        let wave_only =
            self.intent.rollback_scope == RollbackScope::Wave && !asked_for && in_a_wave && own_labels;
        if wave_only && self.run.phase == Phase::Soaking {
            // It had been counted as done.
            let workloads = self.current_wave().map_or(0, |wave| wave.workloads);
            self.run.workloads_done = self.run.workloads_done.saturating_sub(workloads);
        }
        machine::tags::followers_join(self);
        let from_wave = if wave_only { self.run.wave } else { self.last_moved_wave() };
        self.run.wave = from_wave;
        self.run.rollback = Some(Rollback {
            cause,
            message,
            since: self.now,
            from_wave,
            wave_only,
            looked_for_dropped: false,
        });
        self.run.returned = None;
        self.run.batch = None;
        self.run.batch_closed_at = None;
        self.run.held_since = None;
        self.run.settled_since = None;
        self.run.soak_since = None;
        self.run.idle_since = None;
        self.run.gate = None;
        self.run.progress = None;
        self.run.wave_began = None;
        self.run.astray.clear();
        self.run.relabel_again.clear();
        self.run.step = WaveStep::Relabel;
        self.go(Trigger::RollbackBegun);
    }

    /// The last wave that has something to take back: the one in work, or a later one that an earlier object of the same
    /// pair had moved.
    fn last_moved_wave(&self) -> u32 {
        let revisions = self.revisions();
        let observes = self.plan.injection == InjectionMode::Observe;
        let moved = |name: &NamespaceName| {
            self.snapshot.namespaces.get(name).is_some_and(|namespace| {
                moved_by(namespace, pair(&revisions))
                    || (observes && tags::leads_to(self.snapshot, namespace, &revisions.1))
            })
        };
        let tag_moved = |wave: &PlannedWave| {
            let webhook = wave.tag.as_ref().and_then(|tag| tags::find(self.snapshot, tag));
            webhook.is_some_and(|webhook| {
                let by_others = wave.tag_moves && webhook.revision.as_ref() == Some(&revisions.1);
                by_others || tags::moved_by(webhook, pair(&revisions))
            })
        };
        let last = (0u32..)
            .zip(&self.plan.waves)
            .filter(|(_, wave)| wave.namespaces.iter().any(moved) || tag_moved(wave))
            .map(|(index, _)| index)
            .last();
        last.unwrap_or_default().max(self.run.wave)
    }

    /// The record to store.
    pub fn record(&self) -> Record {
        Record {
            plan: Some(self.plan.clone()),
            run: Some(self.run.clone()),
            history: self.history.clone(),
            samples: self.samples.clone(),
        }
    }
}

/// The workload that a retry is for: `Kind/namespace/name`, before a `#` that tells one retry from the next.
fn named_workload(retry: &str) -> Option<String> {
    let name = retry.split('#').next()?;
    let kind = name.split('/').next()?;
    let known = WorkloadKind::ALL.iter().any(|known| known.as_str() == kind);
    (known && name.split('/').count() == 3).then(|| name.to_owned())
}

/// The pair of a run.
pub fn pair(revisions: &(Revision, Revision)) -> Pair<'_> {
    Pair { source: &revisions.0, target: &revisions.1 }
}

/// `at` plus seconds, without overflow.
pub fn after(at: Timestamp, seconds: u32) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

/// A time as people read it: whole seconds, never earlier than it is.
pub fn shown(at: Timestamp) -> Timestamp {
    let up = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
    at.round(up).unwrap_or(at)
}

/// What a wait or event about a namespace points at.
#[expect(clippy::unnecessary_wraps, reason = "callers pass it where there may be none")]
pub fn about_namespace(name: &NamespaceName) -> Option<About> {
    Some(About::Namespace(name.clone()))
}

/// What a wait or event about a workload points at.
#[expect(clippy::unnecessary_wraps, reason = "callers pass it where there may be none")]
pub fn about_workload(workload: &WorkloadRef) -> Option<About> {
    Some(About::Workload(workload.clone()))
}

/// A finished run is followed by another when the target moves on or a new `runId` is given. After a rollback, a target
/// that is one of the run's two revisions changes nothing, and a target that is the source asks for nothing: a revert of
/// the commit that set target and `runId` brings back both.
fn wants_next_run(intent: &Intent, run: &Run) -> bool {
    let new_id = intent.run_id != run.run_id;
    match run.phase {
        Phase::Succeeded => intent.target != run.target || new_id,
        Phase::RolledBack => intent.target != run.source && (intent.target != run.target || new_id),
        _ => false,
    }
}

fn new_run(intent: &Intent, counter: u32) -> Run {
    Run {
        schema: SCHEMA,
        counter,
        run_id: intent.run_id.clone(),
        source: Revision::default(),
        target: intent.target.clone(),
        phase: Phase::Pending,
        started_at: None,
        ended_at: None,
        wave: 0,
        step: WaveStep::Relabel,
        settled_since: None,
        soak_since: None,
        batch: None,
        batches: 0,
        batch_closed_at: None,
        workloads_done: 0,
        rollback: None,
        held_since: None,
        restart_attempts: std::collections::BTreeMap::new(),
        idle_since: None,
        another_round: false,
        astray: std::collections::BTreeSet::new(),
        relabel_again: std::collections::BTreeSet::new(),
        label_attempts: std::collections::BTreeMap::new(),
        tag_attempts: std::collections::BTreeMap::new(),
        // A value that was there before the run asks for nothing of this run.
        handled_retry: intent.retry.clone(),
        handled_action: intent.action.as_ref().map(|action| action.value.clone()),
        approved_waves: 0,
        completion_approved: false,
        paused: false,
        retries: 0,
        wave_began: None,
        patch: false,
        turns: 0,
        returned: None,
        counted_from: None,
        progress: None,
        gate: None,
        source_gone: false,
        target_gone_since: None,
        removal_due: None,
        completion_held_since: None,
        cloud: None,
        cloud_done: false,
        cloud_failures: 0,
        cloud_failed_at: None,
        gateway_addresses: std::collections::BTreeMap::new(),
        git_on_target: std::collections::BTreeMap::new(),
        mesh_config_settled: false,
    }
}

fn summary(run: &Run) -> RunSummary {
    RunSummary {
        counter: run.counter,
        run_id: run.run_id.clone(),
        source: run.source.clone(),
        target: run.target.clone(),
        result: run.phase,
        started_at: run.started_at,
        ended_at: run.ended_at,
    }
}

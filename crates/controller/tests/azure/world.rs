//! A run: the simulated Azure, the mesh, and an operator that does what a pass of the controller does. Its referee looks at every
//! pass, and at the journal at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use meshupgrade_arm_simulator::{Call, ClusterConfig, Config, Entry, Fault, InMemory, Simulator};
use meshupgrade_controller::arm::Options;
use meshupgrade_core::aks::seen::{SetRevisions, WriteOutcome};
use meshupgrade_core::decide;
use meshupgrade_core::decision::{Needs, View, Wake};
use meshupgrade_core::effect::Effect;
use meshupgrade_core::intent::Intent;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::{CloudStep, Record, Run};
use meshupgrade_core::wait::WaitReason;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::clock::Clock;
use crate::mesh::{Mesh, SOURCE, TARGET, intent};
use crate::process::{Process, options};

/// After so long without anything new the clock is moved on.
const QUIET: Duration = Duration::from_millis(25);
const TICK: Duration = Duration::from_millis(8);
/// By how much at most, in seconds: less than a reading stays fresh.
const STEP_SECONDS: i64 = 45;
/// How long a run may take, by the clock of the system.
const LIMIT: Duration = Duration::from_secs(20);
/// How many runs go on at once. They wait most of the time.
const AT_ONCE: usize = 8;

/// Where the simulators run: never in a process of the operator.
static CLOUD: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From start to completion.
    Forward,
    /// From start into the waves, and back.
    Back,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Back];

    /// The revisions of the two writes.
    pub fn writes(self) -> [&'static [&'static str]; 2] {
        let end: &[&str] = if self == Self::Forward { &[TARGET] } else { &[SOURCE] };
        [&[SOURCE, TARGET], end]
    }

    fn end(self) -> (Phase, &'static str) {
        match self {
            Self::Forward => (Phase::Succeeded, TARGET),
            Self::Back => (Phase::RolledBack, SOURCE),
        }
    }
}

/// A moment of a run, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing was asked yet.
    Begin,
    /// It is stored that the start may have been sent, and it was not.
    StartDue,
    /// Azure has accepted the start.
    Started,
    /// The first wave moves.
    Moving,
    /// It is stored that completion or rollback may have been sent, and it was not.
    EndDue,
    /// Azure has accepted that.
    EndAccepted,
}

impl Stage {
    pub const ALL: [Self; 6] =
        [Self::Begin, Self::StartDue, Self::Started, Self::Moving, Self::EndDue, Self::EndAccepted];
}

type Action = Box<dyn FnOnce(&mut World) + Send>;

/// Everything.
pub struct World {
    pub azure: Simulator,
    pub planes: Arc<InMemory>,
    pub clock: Clock,
    pub intent: Intent,
    pub record: Record,
    pub view: View,
    /// Every reason that was shown, with its last words.
    pub shown: BTreeMap<WaitReason, String>,
    /// The reasons of all events.
    pub events: Vec<&'static str>,
    /// Whether it is others who drop namespaces from the mesh.
    pub others_break_it: bool,
    /// Whether the clock is not moved on.
    pub holds_still: bool,
    mesh: Mesh,
    process: Option<Process>,
    options: Options,
    needs: Needs,
    wake: Wake,
    actions: Vec<(Stage, Action)>,
    before_writes: Vec<(Stage, Action)>,
    _directory: TempDir,
}

impl World {
    /// A mesh on the source in a cluster of the simulator's default form, and an operator that was just started. It signs in with
    /// workload identity.
    pub fn new() -> Self {
        Self::of(Call::Token)
    }

    /// The same, in which this call is made: the token of a managed identity is asked for only where there is no other.
    pub fn of(call: Call) -> Self {
        // The operator does this when it starts; here it is done more than once.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let planes = InMemory::with(&[SOURCE]);
        let mut config = Config::new(vec![ClusterConfig::new(planes.clone(), &[SOURCE])]);
        config.operation_time = Duration::from_millis(30);
        // Operations are looked at ten times a second.
        config.retry_after = Some(0);
        let azure = CLOUD.block_on(Simulator::start(config)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = options(&azure, directory.path(), call);
        let (clock, intent) = (Clock::default(), intent());
        Self {
            process: Some(Process::start(&options, &clock, &intent.uid)),
            azure,
            planes,
            clock,
            intent,
            record: Record::default(),
            view: View::default(),
            shown: BTreeMap::new(),
            events: Vec::new(),
            others_break_it: false,
            holds_still: false,
            mesh: Mesh::new(),
            options,
            needs: Needs::default(),
            wake: Wake::Again,
            actions: Vec::new(),
            before_writes: Vec::new(),
            _directory: directory,
        }
    }

    /// A run that goes this way: rollback is asked for once the first wave moves.
    pub fn going(way: Way) -> Self {
        Self::new().turned(way)
    }

    pub fn turned(mut self, way: Way) -> Self {
        if way == Way::Back {
            self.at(Stage::Moving, |world| world.intent.rollback_requested = true);
        }
        self
    }

    /// Does something when this stage is reached.
    pub fn at(&mut self, stage: Stage, action: impl FnOnce(&mut World) + Send + 'static) {
        self.actions.push((stage, Box::new(action)));
    }

    /// Does something when the write that is due at this stage was decided on, before anything of it is sent: also not the GET that
    /// it begins with.
    pub fn before_write(&mut self, stage: Stage, action: impl FnOnce(&mut World) + Send + 'static) {
        self.before_writes.push((stage, Box::new(action)));
    }

    /// Passes until this stage is reached.
    pub fn reaches(&mut self, stage: Stage) -> Result<(), String> {
        self.until(&format!("it is {stage:?}"), |world| world.stage() >= stage)
    }

    /// Lets the last operation take so long that what is planted after its acceptance is met.
    pub fn ends_slowly(&mut self) {
        self.at(Stage::EndDue, |world| {
            let takes = Fault::OperationTakes(Duration::from_millis(500));
            world.azure.plant(Call::PutCluster, takes).unwrap();
        });
    }

    /// The id of the cluster.
    pub fn cluster(&self) -> String {
        self.azure.config().clusters[0].id()
    }

    /// What others write.
    pub fn put_by_somebody_else(&self, revisions: &[&str]) {
        let _inside = CLOUD.enter();
        self.azure.put_by_somebody_else(&self.cluster(), revisions).unwrap();
    }

    pub fn state(&self) -> String {
        let document = self.azure.document(&self.cluster()).unwrap();
        document["properties"]["provisioningState"].as_str().unwrap().to_owned()
    }

    /// The process dies, and another one goes on with what is stored.
    pub fn die(&mut self) {
        self.process = None;
        self.mesh.forget_count();
        self.needs = Needs::default();
        let stored = serde_json::to_string(&self.record.run).unwrap();
        self.record.run = serde_json::from_str::<Option<Run>>(&stored).unwrap();
        self.process = Some(Process::start(&self.options, &self.clock, &self.intent.uid));
    }

    pub fn phase(&self) -> Phase {
        self.record.run.as_ref().map_or(Phase::Pending, |run| run.phase)
    }

    /// Whether a write may have been sent that is not done yet.
    pub fn is_due(&self) -> bool {
        self.record.run.as_ref().is_some_and(|run| run.cloud.is_some())
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase(), Phase::Succeeded | Phase::RolledBack)
    }

    fn stage(&self) -> Stage {
        let cloud = self.record.run.as_ref().and_then(|run| run.cloud);
        let accepted = self.azure.accepted_puts().len();
        match (cloud, self.phase()) {
            _ if accepted >= 2 => Stage::EndAccepted,
            (Some(CloudStep::Complete | CloudStep::Rollback), _) => Stage::EndDue,
            (_, Phase::Migrating | Phase::Soaking | Phase::Completing | Phase::RollingBack) => Stage::Moving,
            _ if accepted == 1 => Stage::Started,
            (Some(CloudStep::Start), _) => Stage::StartDue,
            _ => Stage::Begin,
        }
    }

    fn act(&mut self) {
        if self.actions.is_empty() {
            return;
        }
        let stage = self.stage();
        for (_, action) in self.actions.extract_if(.., |(at, _)| *at <= stage).collect::<Vec<_>>() {
            action(self);
        }
    }

    fn send(&mut self, change: &SetRevisions) {
        let stage = self.stage();
        for (_, action) in self.before_writes.extract_if(.., |(at, _)| *at == stage).collect::<Vec<_>>() {
            action(self);
        }
        if let Some(process) = &self.process {
            process.write(change);
        }
    }

    /// One pass: what `reconcile` does. Says whether it changed anything.
    fn pass(&mut self) -> bool {
        let now = self.clock.now();
        let Some(process) = &self.process else { return false };
        let mut snapshot = self.mesh.snapshot(&self.planes.installed(), &self.needs);
        snapshot.aks = process.last();
        let decision = decide(now, &self.intent, &self.record, &snapshot);
        process.want(decision.needs.aks.as_ref());
        self.mesh.count(decision.needs.census_since, now);
        let changed = decision.record != self.record || decision.view != self.view;
        self.events.extend(decision.events.iter().map(|event| event.reason));
        (self.record, self.view) = (decision.record, decision.view);
        (self.needs, self.wake) = (decision.needs, decision.wake);
        for wait in &self.view.blocked {
            self.shown.insert(wait.reason, wait.because.clone());
        }
        let some = !decision.effects.is_empty();
        for effect in decision.effects {
            match effect {
                Effect::Relabel(change) => self.mesh.relabel(&change, now),
                Effect::SetRevisions(change) => self.send(&change),
                other => panic!("nobody expects {other:?}"),
            }
        }
        changed || some
    }

    /// What must hold at every moment.
    fn referee(&self) -> Result<(), String> {
        let revisions = self.azure.revisions(&self.cluster());
        if revisions.len() > 2 {
            return Err(format!("too many revisions: {revisions:?}"));
        }
        let installed = self.planes.installed();
        let dropped: Vec<&str> =
            self.mesh.revisions().into_iter().filter(|revision| !installed.contains(*revision)).collect();
        if !dropped.is_empty() && !self.others_break_it {
            return Err(format!("dropped from the mesh: label {dropped:?}, installed {installed:?}"));
        }
        Ok(())
    }

    /// Passes until something holds. When nothing happens any more, the clock is moved on.
    pub fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), String> {
        let (begun, mut quiet) = (Instant::now(), Instant::now());
        loop {
            self.act();
            let changed = self.pass();
            self.referee().map_err(|why| self.told(&why))?;
            self.act();
            if holds(self) {
                return Ok(());
            }
            if changed {
                quiet = Instant::now();
            }
            if quiet.elapsed() > QUIET {
                if !self.holds_still && !self.is_busy() {
                    self.clock.advance(self.step());
                }
                quiet = Instant::now();
            }
            if begun.elapsed() > LIMIT {
                return Err(self.told(&format!("it takes too long until {what}")));
            }
            if !changed {
                std::thread::sleep(TICK);
            }
        }
    }

    /// Passes for so long by the moved clock.
    pub fn for_seconds(&mut self, seconds: i64) -> Result<(), String> {
        let end = self.clock.advanced() + seconds;
        self.until("time has passed", |world| world.clock.advanced() >= end)
    }

    /// Whether something goes on that takes time by the clock of the system: an operation, a write, a reading.
    fn is_busy(&self) -> bool {
        let seen = self.process.as_ref().and_then(Process::last);
        let sent = seen.as_ref().and_then(|seen| seen.write.as_ref());
        let is_sent = sent.is_some_and(|write| write.outcome == WriteOutcome::Sent);
        let is_awaited = self.needs.aks.as_ref().is_some_and(|need| {
            seen.as_ref().is_none_or(|seen| {
                seen.read_at < need.since || (need.offers && seen.offers.is_none() && seen.cluster.is_ok())
            })
        });
        is_sent || is_awaited || self.state() == "Updating"
    }

    fn step(&self) -> i64 {
        match self.wake {
            Wake::At(at) => (at.duration_since(self.clock.now()).as_secs() + 1).clamp(1, STEP_SECONDS),
            Wake::Again | Wake::OnChange => STEP_SECONDS,
        }
    }

    fn told(&self, why: &str) -> String {
        let seen = self.process.as_ref().and_then(Process::last);
        let calls: Vec<String> = self.azure.journal().iter().rev().take(12).map(line).collect();
        format!(
            "{why}\n  phase {} {:?}, +{} s, cluster {:?} {}: {}\n  seen: {seen:?}\n  last calls, newest first: {}",
            self.phase(),
            self.record.run.as_ref().and_then(|run| run.cloud),
            self.clock.advanced(),
            self.azure.revisions(&self.cluster()),
            self.state(),
            self.view.message,
            calls.join("; "),
        )
    }

    /// To the end of this way, which is as it is without faults.
    pub fn ends(&mut self, way: Way) -> Result<(), String> {
        let (phase, revision) = way.end();
        self.until(&format!("it is {phase}"), |world| world.phase() == phase)?;
        self.is_at(revision)
    }

    /// Whether cluster, control planes and labels all say this revision.
    pub fn is_at(&self, revision: &str) -> Result<(), String> {
        let installed: BTreeSet<String> = BTreeSet::from([revision.to_owned()]);
        let labels: BTreeSet<&str> = BTreeSet::from([revision]);
        if self.planes.installed() != installed
            || self.azure.revisions(&self.cluster()) != [revision]
            || self.mesh.revisions() != labels
            || self.state() != "Succeeded"
        {
            return Err(self.told(&format!("not everything is at {revision}")));
        }
        Ok(())
    }

    /// Whether exactly these writes were accepted, which changed nothing else, and none was sent that was not needed.
    pub fn wrote(&self, expected: &[&[&str]]) -> Result<(), String> {
        self.accepted(expected)?;
        // In the order in which they were sent: one that was late is refused after the one that took its place.
        let mut puts = self.puts();
        puts.sort_by_key(|entry| entry.at);
        let mut in_effect = None;
        for entry in puts {
            if !entry.foreign_changes.is_empty() {
                return Err(self.told(&format!("a write changed {:?}", entry.foreign_changes)));
            }
            if in_effect.is_some() && in_effect == entry.revisions {
                return Err(self.told(&format!("{in_effect:?} was asked for although it was in effect")));
            }
            if entry.accepted {
                in_effect = entry.revisions;
            }
        }
        Ok(())
    }

    /// How many calls of a kind were made.
    pub fn calls(&self, call: Call) -> usize {
        self.azure.journal().iter().filter(|entry| entry.call == call).count()
    }

    /// Whether the last write of this process failed, or nobody knows.
    pub fn write_failed(&self) -> bool {
        let seen = self.process.as_ref().and_then(Process::last);
        let last = seen.and_then(|seen| seen.write);
        last.is_some_and(|write| matches!(write.outcome, WriteOutcome::Failed(_)))
    }

    /// Whether the list of revisions was accepted as often as this, and in this order.
    pub fn accepted(&self, expected: &[&[&str]]) -> Result<(), String> {
        let found: Vec<Vec<String>> =
            self.azure.accepted_puts().into_iter().filter_map(|entry| entry.revisions).collect();
        if found == expected {
            return Ok(());
        }
        Err(self.told(&format!("accepted were {found:?} and not {expected:?}")))
    }

    /// The writes that were sent.
    pub fn puts(&self) -> Vec<Entry> {
        self.azure.journal().into_iter().filter(|entry| entry.call == Call::PutCluster).collect()
    }
}

fn line(entry: &Entry) -> String {
    let lost = if entry.lost { " lost" } else { "" };
    let status = entry.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    format!("{:?} {status}{lost} at {} ms", entry.call, entry.at.as_millis())
}

/// A case: its name, and what must go well.
pub type Case = (String, Box<dyn FnOnce() -> Result<(), String> + Send>);

/// Makes a case.
pub fn case(name: impl Into<String>, body: impl FnOnce() -> Result<(), String> + Send + 'static) -> Case {
    (name.into(), Box::new(body))
}

/// Runs all, some at once, and tells of all that failed.
pub fn run_all(cases: Vec<Case>) {
    let (total, queue, failures) = (cases.len(), Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, body)) = { queue.lock().unwrap().pop() } {
                    let result = catch_unwind(AssertUnwindSafe(body));
                    if let Err(why) = result.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
                        failures.lock().unwrap().push(format!("{name}: {why}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {total} failed:\n{}", failures.len(), failures.join("\n"));
}

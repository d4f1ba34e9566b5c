//! A run: the simulated Azure, the mesh, and an operator that does what a pass of the controller does. Its referee looks at every
//! pass, and at the journal at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use meshupgrade_arm_simulator::{Call, ClusterConfig, Config, Entry, InMemory, Simulator};
use meshupgrade_controller::arm::Options;
use meshupgrade_core::aks::seen::WriteOutcome;
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
use crate::process::{Process, TIMEOUT_SECONDS};

/// After so long without anything new the clock is moved on.
const QUIET: Duration = Duration::from_millis(25);
const TICK: Duration = Duration::from_millis(6);
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
    mesh: Mesh,
    process: Option<Process>,
    options: Options,
    needs: Needs,
    wake: Wake,
    actions: Vec<(Stage, Action)>,
    _directory: TempDir,
}

impl World {
    /// A mesh on the source in a cluster of the simulator's default form, and an operator that was just started.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with a simulator that is configured otherwise.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        // The operator does this when it starts; here it is done more than once.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let planes = InMemory::with(&[SOURCE]);
        let mut config = Config::new(vec![ClusterConfig::new(planes.clone(), &[SOURCE])]);
        config.operation_time = Duration::from_millis(30);
        // Operations are looked at ten times a second.
        config.retry_after = Some(0);
        change(&mut config);
        let azure = CLOUD.block_on(Simulator::start(config)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = options(&azure, &directory);
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
            mesh: Mesh::new(),
            options,
            needs: Needs::default(),
            wake: Wake::Again,
            actions: Vec::new(),
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
        let stage = self.stage();
        let (due, later) = std::mem::take(&mut self.actions).into_iter().partition(|(at, _)| *at <= stage);
        self.actions = later;
        let due: Vec<(Stage, Action)> = due;
        for (_, action) in due {
            action(self);
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
                Effect::SetRevisions(change) => process.write(&change),
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
                if !self.is_busy() {
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
        let accepted: Vec<Vec<String>> =
            self.azure.accepted_puts().into_iter().filter_map(|entry| entry.revisions).collect();
        if accepted != expected {
            return Err(self.told(&format!("accepted were {accepted:?} and not {expected:?}")));
        }
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

fn options(azure: &Simulator, directory: &TempDir) -> Options {
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // Only the shape of an assertion, and whom it is for, is looked at.
    let assertion = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJhcGk6Ly9BenVyZUFEVG9rZW5FeGNoYW5nZSJ9.x";
    Options {
        endpoint: azure.base_url().to_owned(),
        authority_host: azure.base_url().to_owned(),
        ca_file: Some(file("ca.pem", azure.ca_pem())),
        timeout_seconds: TIMEOUT_SECONDS,
        client_id: azure.config().clients.first().cloned(),
        tenant_id: Some(azure.config().tenant.clone()),
        federated_token_file: Some(file("token", assertion)),
        ..Options::default()
    }
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

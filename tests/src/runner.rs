//! Runs a case: once in the default order, or in the random order of a seed.

use jiff::{SignedDuration, Timestamp};
use meshupgrade_core::ids::Revision;
use meshupgrade_core::wait::WaitReason;

use crate::action::Action;
use crate::case::{Beat, Case, When};
use crate::faults::{Fault, Faults};
use crate::neighbours::{Neighbour, clock, nodes, planes};
use crate::operator::{Around, Operator};
use crate::referee::{Referee, Violation};
use crate::rng::Rng;
use crate::world::World;
use crate::world::build::{OLD, epoch};
use crate::world::views::Versions;

/// Steps that an operator may take in a row before it is called a hot loop.
const HOT: usize = 400;
/// Rounds until a run must have come to rest.
const MAX_ROUNDS: usize = 6_000;
/// Rounds in a row in which nothing happened: then the run is at rest.
const QUIET_ROUNDS: usize = 25;

/// A run of a case.
#[derive(Clone)]
pub struct Run {
    case: Case,
    /// The cluster.
    pub world: World,
    versions: Versions,
    operators: Vec<Operator>,
    /// What goes wrong.
    pub faults: Faults,
    rng: Rng,
    /// The referee.
    pub referee: Referee,
    script: Vec<Beat>,
    last_beat: Timestamp,
    lag: usize,
    /// Rounds of the default order so far.
    pub round: usize,
}

impl Run {
    /// A run that begins now, in the default order.
    pub fn new(case: &Case) -> Self {
        let world = (case.world)();
        let mut script = (case.script)();
        script.reverse();
        let mut versions = Versions::default();
        versions.keep(&world);
        Self {
            case: *case,
            world,
            versions,
            operators: vec![Operator::default()],
            faults: Faults::default(),
            rng: Rng::ordered(),
            referee: Referee::new(case.tolerate),
            script,
            last_beat: epoch(),
            lag: 0,
            round: 0,
        }
    }

    /// Runs in the default order until everything rests.
    pub fn ordered(&mut self) -> Result<(), Violation> {
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            if self.round()? {
                quiet = 0;
            } else {
                quiet += 1;
            }
            if self.round > MAX_ROUNDS {
                return Err(format!("I10: no rest after {MAX_ROUNDS} rounds"));
            }
        }
        self.referee.judge_rest(&self.world)
    }

    /// Runs so many rounds of the default order.
    pub fn rounds(&mut self, rounds: usize) -> Result<(), Violation> {
        for _ in 0..rounds {
            self.round()?;
        }
        Ok(())
    }

    /// People do something now.
    pub fn act(&mut self, actions: &[Action]) -> Result<(), Violation> {
        for action in actions {
            crate::action::act(&mut self.world, action.clone());
        }
        self.settle()
    }

    /// Runs in a random order for a while, then mends everything and lets it come to rest.
    pub fn random(&mut self, seed: u64) -> Result<(), Violation> {
        self.rng = Rng::new(seed);
        self.lag = self.case.chaos.lag;
        self.faults.percent = self.case.chaos.faults;
        for _ in 0..self.case.chaos.turns {
            self.turn()?;
        }
        self.calm();
        self.ordered()
    }

    /// No more faults; what platform people hold back is let go.
    fn calm(&mut self) {
        self.rng = Rng::ordered();
        self.lag = 0;
        self.faults.percent = 0;
        self.operators.retain(|operator| !operator.deposed);
        nodes::heal(&mut self.world);
        let revisions: Vec<_> = self.world.planes.keys().cloned().collect();
        for revision in revisions {
            planes::set_ready(&mut self.world, &revision, 2);
        }
        self.world.edit_intent(|intent| {
            intent.suspend = false;
            intent.plan_only = false;
        });
        self.world.note("everything calms down");
    }

    /// One round of the default order. Says whether anything happened.
    fn round(&mut self) -> Result<bool, Violation> {
        self.round += 1;
        let (version, activity) = (self.world.version, self.referee.activity);
        let acted = self.play();
        self.settle()?;
        self.operate()?;
        for neighbour in self.neighbours() {
            neighbour.step()(&mut self.world, &mut self.rng);
            self.settle()?;
        }
        let happened = acted || self.world.version != version || self.referee.activity != activity;
        self.pass_time(happened);
        Ok(happened)
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        Neighbour::CONTROLLERS.iter().chain(self.case.neighbours).copied().collect()
    }

    /// Lets the operator work until it waits.
    fn operate(&mut self) -> Result<(), Violation> {
        for _ in 0..HOT {
            if !self.operator_step(0)? {
                return Ok(());
            }
        }
        Err(format!("I10: {HOT} steps of the operator without an end: a hot loop"))
    }

    fn operator_step(&mut self, index: usize) -> Result<bool, Violation> {
        let mut around = Around {
            world: &mut self.world,
            versions: &self.versions,
            lag: self.lag,
            faults: &mut self.faults,
            rng: &mut self.rng,
        };
        let Some(operator) = self.operators.get_mut(index) else {
            return Ok(false);
        };
        let worked = operator.step(&mut around);
        self.settle()?;
        Ok(worked)
    }

    /// Keeps the new version for caches, and lets the referee look.
    fn settle(&mut self) -> Result<(), Violation> {
        self.versions.keep(&self.world);
        self.referee.check(&mut self.world)
    }

    /// A second passes, or, where nothing happens, the time until the next appointment.
    fn pass_time(&mut self, happened: bool) {
        let soon = self.world.now + SignedDuration::from_secs(1);
        if happened {
            self.world.now = soon;
            return;
        }
        let beat = self.script.last().and_then(|beat| match beat.when {
            When::After(seconds) => Some(self.last_beat + SignedDuration::from_secs(seconds)),
            _ => None,
        });
        let wakes = self.operators.first().and_then(Operator::wakes_at);
        let next = [beat, wakes].into_iter().flatten().min().unwrap_or(soon);
        self.world.now = next.max(soon);
    }

    /// The next beat of the script, if its moment has come.
    fn play(&mut self) -> bool {
        let asked = When::Waits(WaitReason::RemovalPending).has_come(&self.world, self.last_beat);
        if self.case.remover
            && asked
            && self.world.planes.get(&Revision::from(OLD)).is_some_and(|it| it.installed)
        {
            crate::action::act(&mut self.world, Action::Uninstall(OLD));
            return true;
        }
        let Some(beat) = self.script.last() else {
            return false;
        };
        if !beat.when.has_come(&self.world, self.last_beat) {
            return false;
        }
        if let Some(beat) = self.script.pop() {
            self.last_beat = self.world.now;
            crate::action::act(&mut self.world, beat.what);
        }
        true
    }

    /// Somebody takes a turn.
    fn turn(&mut self) -> Result<(), Violation> {
        let neighbours = self.neighbours();
        let weights: u64 = neighbours.iter().map(|neighbour| neighbour.weight()).sum();
        let mut ticket = self.rng.below(weights + 60);
        for neighbour in neighbours {
            if ticket < neighbour.weight() {
                neighbour.step()(&mut self.world, &mut self.rng);
                return self.settle();
            }
            ticket -= neighbour.weight();
        }
        match ticket {
            0..=9 => clock::step(&mut self.world, &mut self.rng),
            10 => self.sleep(),
            11..=13 => {
                self.play();
            }
            14 if self.case.chaos.handover => self.hand_over(),
            _ => {
                let index = self.rng.index(self.operators.len());
                self.operator_step(index)?;
            }
        }
        self.settle()
    }

    /// Time passes until the operator wants to be woken.
    fn sleep(&mut self) {
        if let Some(at) = self.operators.first().and_then(Operator::wakes_at) {
            self.world.now = self.world.now.max(at);
        }
    }

    /// The operator is replaced by another one. The old one may end what it is about to do: its status cannot be stored
    /// any more once the new one stored its own.
    fn hand_over(&mut self) {
        self.world.note("another operator takes over");
        self.operators.truncate(1);
        for old in &mut self.operators {
            old.deposed = true;
        }
        self.operators.retain(Operator::is_busy);
        self.operators.insert(0, Operator::warm(&self.versions, self.lag, &mut self.rng));
    }

    /// Whether the operator is in the middle of a decision.
    pub fn operator_is_busy(&self) -> bool {
        self.operators.first().is_some_and(Operator::is_busy)
    }

    /// When time alone makes the operator go on: it wants to be woken, or a census is due.
    pub fn operator_wakes_at(&self) -> Option<Timestamp> {
        let operator = self.operators.first()?;
        [operator.wakes_at(), operator.counts_at()].into_iter().flatten().min()
    }

    /// One step of the operator.
    pub fn operator_once(&mut self) -> Result<(), Violation> {
        self.operator_step(0).map(drop)
    }

    /// The operator dies, and another one starts.
    pub fn crash(&mut self) {
        self.operators = vec![Operator::default()];
    }

    /// Adds what the operator and the referee know, apart from the world, to the identity of a state.
    pub fn fingerprint(&self, text: &mut String) {
        for operator in &self.operators {
            operator.fingerprint(&self.world, text);
        }
        self.referee.fingerprint(text);
    }

    /// How many decisions the operators took that are still there.
    pub fn decisions(&self) -> u64 {
        self.operators.iter().map(|operator| operator.decisions).sum()
    }

    /// How it failed, and how to see it again.
    pub fn failure(&self, seed: Option<u64>, violation: &str) -> String {
        let order = seed.map_or_else(|| "default order".to_owned(), |seed| format!("seed {seed}"));
        let seed = seed.map_or_else(String::new, |seed| format!("SEED={seed} "));
        format!(
            "case {}, {order}: {violation}\n{}\nreplay: {seed}CASE={} cargo test -p meshupgrade-sequences replay -- --nocapture\n",
            self.case.name,
            self.referee.log.tail(60),
            self.case.name,
        )
    }
}

/// Runs a case in the default order and checks how it ends.
pub fn run_ordered(case: &Case, planned: &[(u64, Fault)]) -> Result<Run, String> {
    let mut run = Run::new(case);
    run.faults.planned.extend(planned.iter().copied());
    run.ordered().map_err(|violation| run.failure(None, &violation))?;
    if !case.ends.is_reached(&run.world) {
        let view = &run.world.upgrade.view;
        let text = format!("ends in {} ({}) instead of {:?}", view.phase, view.message, case.ends);
        return Err(run.failure(None, &text));
    }
    if let Some(beat) = run.script.last().filter(|_| planned.is_empty()) {
        return Err(run.failure(None, &format!("never came to: {:?} {}", beat.when, beat.what)));
    }
    Ok(run)
}

/// Runs a case in the order of a seed and checks how it ends.
pub fn run_random(case: &Case, seed: u64) -> Result<Run, String> {
    let mut run = Run::new(case);
    run.random(seed).map_err(|violation| run.failure(Some(seed), &violation))?;
    let allowed = case.random_ends;
    if !allowed.is_empty() && !allowed.iter().any(|end| end.is_reached(&run.world)) {
        let view = &run.world.upgrade.view;
        let text = format!("ends in {} ({}) instead of one of {allowed:?}", view.phase, view.message);
        return Err(run.failure(Some(seed), &text));
    }
    Ok(run)
}

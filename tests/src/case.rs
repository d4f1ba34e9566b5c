//! A scenario: the world it begins with, who takes part, what people do, and how it may end.

use jiff::{SignedDuration, Timestamp};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::WaveStep;
use meshupgrade_core::wait::WaitReason;

use crate::action::Action;
use crate::neighbours::Neighbour;
use crate::world::World;

/// A scenario.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, and that of its golden log.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The world that it begins with.
    pub world: fn() -> World,
    /// Neighbours besides the controllers.
    pub neighbours: &'static [Neighbour],
    /// What people do, one after the other.
    pub script: fn() -> Vec<Beat>,
    /// Whoever installed the old control plane removes it when asked to.
    pub remover: bool,
    /// What the referee lets pass, because somebody other than the operator breaks it.
    pub tolerate: Tolerate,
    /// How the run in the default order ends.
    pub ends: End,
    /// How runs in random order may end; empty: anyhow, as long as it is over or waits for something named.
    pub random_ends: &'static [End],
    /// What is random.
    pub chaos: Chaos,
}

/// Something that somebody does when its time has come. Beats come one after the other.
#[derive(Clone, Debug)]
pub struct Beat {
    /// When.
    pub when: When,
    /// What.
    pub what: Action,
}

/// A moment in a run.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// At once.
    Now,
    /// The published phase is this one.
    Phase(Phase),
    /// A batch is open in this wave.
    Wave(u32),
    /// Labels of this wave are settling.
    Settling(u32),
    /// A batch is open in the rollback.
    Back,
    /// This is waited for.
    Waits(WaitReason),
    /// So many seconds after the beat before.
    After(i64),
}

/// What the referee lets pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerate {
    /// Workloads lose their sidecar: people take labels or control planes away.
    pub lost_sidecars: bool,
    /// Budgets are not met: pods are lost, or applications change in ways that their budgets do not allow.
    pub budgets: bool,
    /// A workload is restarted once more: after a crash, a patch that its owner took back before a pod was made from it
    /// looks like one that never came.
    pub lost_answer: bool,
}

/// How a run may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In this phase.
    In(Phase),
    /// Waiting for this.
    Waiting(WaitReason),
    /// In this phase, waiting for this.
    InWaiting(Phase, WaitReason),
}

/// What is random in runs in random order.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// How many versions a cache may lag.
    pub lag: usize,
    /// So many of a hundred writes go wrong.
    pub faults: u64,
    /// Operators are killed and replaced by others, which may overlap.
    pub handover: bool,
    /// Turns before everything calms down.
    pub turns: usize,
}

impl Chaos {
    /// Stale caches, failing writes, handovers.
    pub const USUAL: Self = Self { lag: 3, faults: 8, handover: true, turns: 350 };
    /// Nothing but the order is random.
    pub const ORDER: Self = Self { lag: 0, faults: 0, handover: false, turns: 350 };
}

/// The defaults of a case.
pub const CASE: Case = Case {
    name: "",
    about: "",
    world: || World::new(crate::world::build::intent()),
    neighbours: &[],
    script: Vec::new,
    remover: true,
    tolerate: Tolerate { lost_sidecars: false, budgets: false, lost_answer: false },
    ends: End::In(Phase::Succeeded),
    random_ends: &[],
    chaos: Chaos::USUAL,
};

/// A beat.
pub fn beat(when: When, what: Action) -> Beat {
    Beat { when, what }
}

impl When {
    /// Whether the moment has come.
    pub fn has_come(self, world: &World, since: Timestamp) -> bool {
        let upgrade = &world.upgrade;
        let run = upgrade.record.run.as_ref();
        let open = run.is_some_and(|run| run.batch.is_some());
        let back = run.is_some_and(|run| run.rollback.is_some());
        match self {
            Self::Now => true,
            Self::Phase(phase) => upgrade.view.phase == phase,
            Self::Wave(wave) => open && !back && run.is_some_and(|run| run.wave == wave),
            Self::Settling(wave) => {
                !back && run.is_some_and(|run| run.wave == wave && run.step == WaveStep::Settle)
            }
            Self::Back => open && back,
            Self::Waits(reason) => upgrade.view.blocked.iter().any(|wait| wait.reason == reason),
            Self::After(seconds) => world.now >= since + SignedDuration::from_secs(seconds),
        }
    }
}

impl End {
    /// Whether a run ended so.
    pub fn is_reached(self, world: &World) -> bool {
        let view = &world.upgrade.view;
        let waits = |reason| view.blocked.iter().any(|wait| wait.reason == reason);
        match self {
            Self::In(phase) => view.phase == phase,
            Self::Waiting(reason) => waits(reason),
            Self::InWaiting(phase, reason) => view.phase == phase && waits(reason),
        }
    }
}

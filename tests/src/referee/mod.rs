//! The referee: holds the history against the invariants, after every step, from what was written and from the world
//! itself, never from what the operator says of itself.
//!
//! Facts that a decision may rely on are judged on what it saw ([`Seen`]), which may lag; consequences are judged on the
//! world.

mod pods;
mod rest;
mod status;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use meshupgrade_core::decision::View;
use meshupgrade_core::ids::{NamespaceName, Revision, Uid, WorkloadRef};
use meshupgrade_core::observed::Labels;
use meshupgrade_core::record::{Direction, Record};

use crate::case::Tolerate;
use crate::log::Log;
use crate::report::Reached;
use crate::world::World;
use crate::world::history::{Happening, Seen};

/// A broken invariant, in words.
pub type Violation = String;

/// Checks that a statement holds.
macro_rules! rule {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
use rule;

/// A workload in rollout.
#[derive(Clone, Debug)]
struct Rolling {
    uid: Uid,
    destination: Revision,
}

/// What the referee remembers.
#[derive(Clone, Debug)]
pub struct Referee {
    tolerate: Tolerate,
    /// Effective writes by object and stamp.
    restarts: BTreeMap<(Uid, String), u32>,
    relabels: BTreeMap<(Uid, String), u32>,
    /// Restart stamps that a stored status rests on as being in place: nobody can say that they were not known.
    known: BTreeSet<(Uid, String)>,
    /// Workloads that the operator set rolling and that did not come to rest since, by the stamp without its attempt.
    rolling: BTreeMap<(WorkloadRef, String), Rolling>,
    /// When a decision saw last that a label had been taken away after the operator's write.
    reverted: BTreeMap<NamespaceName, Timestamp>,
    /// Injection labels before the operator's first write, by namespace uid.
    first: BTreeMap<Uid, Labels>,
    /// The status before.
    last: Option<(Uid, Arc<Record>, Arc<View>)>,
    pods_checked: u64,
    /// What the run reached.
    pub reached: Reached,
    /// The log.
    pub log: Log,
    /// How many writes and events there were.
    pub activity: u64,
}

impl Referee {
    /// A referee for a run that begins now.
    pub fn new(tolerate: Tolerate) -> Self {
        Self {
            tolerate,
            restarts: BTreeMap::new(),
            relabels: BTreeMap::new(),
            known: BTreeSet::new(),
            rolling: BTreeMap::new(),
            reverted: BTreeMap::new(),
            first: BTreeMap::new(),
            last: None,
            pods_checked: 0,
            reached: Reached::default(),
            log: Log::default(),
            activity: 0,
        }
    }

    /// Adds what is remembered to the identity of a state.
    pub fn fingerprint(&self, text: &mut String) {
        let rolling: Vec<_> = self.rolling.keys().collect();
        let _ = write!(text, "{:?}{:?}{:?}{rolling:?}", self.restarts, self.relabels, self.known);
    }

    /// Checks everything that happened since the last call. The history is used up.
    pub fn check(&mut self, world: &mut World) -> Result<(), Violation> {
        for happening in std::mem::take(&mut world.history) {
            self.log.add(world.now, &happening);
            self.judge(world, &happening)?;
        }
        self.judge_pods(world)
    }

    fn judge(&mut self, world: &World, happening: &Happening) -> Result<(), Violation> {
        if let Happening::Relabelled { seen, .. }
        | Happening::TagMoved { seen, .. }
        | Happening::TagServiceMoved { seen, .. }
        | Happening::Restarted { seen, .. }
        | Happening::Published { seen, .. } = happening
        {
            self.remember_reverts(seen);
        }
        match happening {
            Happening::Relabelled { effect, seen } => {
                self.activity += 1;
                self.reached.effects.insert("Relabel");
                self.judge_relabel(world, effect, seen)
            }
            Happening::TagMoved { effect, seen } => {
                self.activity += 1;
                self.reached.effects.insert("Tag");
                self.judge_tag(effect, seen)
            }
            Happening::TagServiceMoved { effect, seen } => {
                self.activity += 1;
                self.reached.effects.insert("TagService");
                self.judge_tag_service(world, effect, seen)
            }
            Happening::Restarted { effect, changed, seen } => {
                self.activity += 1;
                self.reached.effects.insert("Restart");
                self.judge_restart(world, effect, *changed, seen)
            }
            Happening::Published { before, record, view, seen, .. } => {
                self.activity += 1;
                self.judge_status(world, before, record, view, seen)
            }
            Happening::Event(reason) => {
                self.activity += 1;
                self.reached.events.insert(reason);
                Ok(())
            }
            Happening::Failed(_) => {
                self.activity += 1;
                Ok(())
            }
            Happening::Note(_) => Ok(()),
        }
    }
}

/// Direction and attempt of a stamp.
fn direction_of(stamp: &str) -> Option<Direction> {
    // After a wave went back by itself they are `forward-2`, `back-2` and so on.
    match stamp.rsplit('.').nth(1)?.split('-').next() {
        Some("forward") => Some(Direction::Forward),
        Some("back") => Some(Direction::Back),
        _ => None,
    }
}

/// The source, the target and the destination of a run.
fn revisions(seen: &Seen) -> Option<(&Revision, &Revision, &Revision)> {
    let run = seen.record.run.as_ref()?;
    Some((&run.source, &run.target, run.destination()))
}

/// The namespaces of a plan.
fn planned(record: &Record) -> BTreeSet<&NamespaceName> {
    record.plan.iter().flat_map(|plan| &plan.waves).flat_map(|wave| &wave.namespaces).collect()
}

//! What the runs reached, and what none of them did.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use meshupgrade_core::decision::CheckOutcome;
use meshupgrade_core::machine::phase::{Phase, Trigger};
use meshupgrade_core::wait::WaitReason;

/// What some runs reached.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// Transitions by their trigger.
    pub triggers: BTreeSet<Trigger>,
    /// Phases.
    pub phases: BTreeSet<Phase>,
    /// Reasons to wait.
    pub waits: BTreeSet<WaitReason>,
    /// Kinds of writes.
    pub effects: BTreeSet<&'static str>,
    /// Reasons of events.
    pub events: BTreeSet<&'static str>,
    /// Named checks with their outcome.
    pub checks: BTreeSet<(&'static str, CheckOutcome)>,
}

impl Reached {
    /// Adds what others reached.
    pub fn merge(&mut self, other: &Self) {
        self.triggers.extend(&other.triggers);
        self.phases.extend(&other.phases);
        self.waits.extend(&other.waits);
        self.effects.extend(&other.effects);
        self.events.extend(&other.events);
        self.checks.extend(&other.checks);
    }

    /// Lists what was never reached.
    pub fn missing(&self) -> String {
        let mut text = String::new();
        let triggers = Trigger::ALL.into_iter().filter(|trigger| !self.triggers.contains(trigger));
        let phases = Phase::ALL.into_iter().filter(|phase| !self.phases.contains(phase));
        let waits = WaitReason::ALL.iter().filter(|reason| !self.waits.contains(reason));
        let effects = ["Relabel", "Restart"].into_iter().filter(|effect| !self.effects.contains(effect));
        line(&mut text, "transitions", triggers.map(|trigger| format!("{trigger:?}")));
        line(&mut text, "phases", phases.map(|phase| phase.to_string()));
        line(&mut text, "wait reasons", waits.map(ToString::to_string));
        line(&mut text, "effects", effects.map(str::to_owned));
        text
    }

    /// Lists the events and check results that were reached.
    pub fn seen(&self) -> String {
        let mut text = String::new();
        let events = self.events.iter().map(|event| (*event).to_owned());
        let checks = self.checks.iter().map(|(name, outcome)| format!("{name}={outcome:?}"));
        line(&mut text, "events seen", events);
        line(&mut text, "check results seen", checks);
        text
    }
}

fn line(text: &mut String, what: &str, list: impl Iterator<Item = String>) {
    let list: Vec<String> = list.collect();
    let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let _ = writeln!(text, "{what:>20}: {list}");
}

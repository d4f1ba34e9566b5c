//! The log of a run, as golden files keep it: each write with its reason, each change of phase, each wait that begins or
//! ends, and what the neighbours did that is worth a line.

use std::collections::BTreeMap;

use jiff::Timestamp;
use meshupgrade_core::decision::{About, View};
use meshupgrade_core::wait::WaitReason;

use crate::world::build::epoch;
use crate::world::history::Happening;

/// The log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: Vec<String>,
    waits: BTreeMap<(WaitReason, Option<About>), ()>,
}

impl Log {
    /// Adds what happened.
    pub fn add(&mut self, now: Timestamp, happening: &Happening) {
        match happening {
            Happening::Relabelled { effect, .. } => {
                let revision = effect.revision.as_ref().map_or("none", |revision| revision.as_str());
                self.line(now, format!("relabel  {} to {revision}: {}", effect.namespace, effect.because));
            }
            Happening::Restarted { effect, changed, .. } => {
                let again = if *changed { "" } else { " (nothing changes)" };
                let stamp = effect.stamp.rsplit('.').take(2).collect::<Vec<_>>();
                let stamp = stamp.into_iter().rev().collect::<Vec<_>>().join(".");
                self.line(now, format!("restart  {} [{stamp}]{again}: {}", effect.workload, effect.because));
            }
            Happening::Published { before, record, view, .. } => {
                let old = before.run.as_ref().map(|run| run.phase).unwrap_or_default();
                let new = record.run.as_ref().map(|run| run.phase).unwrap_or_default();
                if old != new {
                    self.line(now, format!("phase    {old} -> {new}"));
                }
                self.waits(now, view);
            }
            Happening::Failed(what) => self.line(now, format!("failed   {what}")),
            Happening::Note(what) => self.line(now, format!("-------- {what}")),
            Happening::Event(_) => {}
        }
    }

    fn waits(&mut self, now: Timestamp, view: &View) {
        let mut waits = BTreeMap::new();
        for wait in &view.blocked {
            let key = (wait.reason, wait.about.clone());
            if !self.waits.contains_key(&key) && !waits.contains_key(&key) {
                self.line(now, format!("wait     {}: {}", wait.reason, wait.because));
            }
            waits.insert(key, ());
        }
        let ended: Vec<(WaitReason, Option<About>)> =
            self.waits.keys().filter(|key| !waits.contains_key(*key)).cloned().collect();
        for (reason, about) in ended {
            self.line(now, format!("go on    {reason}{}", of(about.as_ref())));
        }
        self.waits = waits;
    }

    fn line(&mut self, now: Timestamp, text: String) {
        let seconds = now.duration_since(epoch()).as_secs();
        self.lines.push(format!("+{:02}:{:02} {text}", seconds / 60, seconds % 60));
    }

    /// All lines.
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        self.lines[self.lines.len().saturating_sub(lines)..].join("\n")
    }
}

fn of(about: Option<&About>) -> String {
    match about {
        None => String::new(),
        Some(About::Namespace(name)) => format!(" (namespace {name})"),
        Some(About::Workload(workload)) => format!(" ({workload})"),
    }
}

//! The log of a run, as golden files keep it: each write with its reason, each change of phase, each wait that begins or
//! ends, and what the neighbours did that is worth a line.

use std::collections::BTreeSet;

use jiff::Timestamp;
use meshupgrade_core::decision::{About, View};
use meshupgrade_core::wait::WaitReason;

use crate::world::build::epoch;
use crate::world::history::Happening;

/// What happened, with its time. Written out only when somebody wants to read it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Nothing is kept.
    pub off: bool,
    entries: Vec<(Timestamp, Happening)>,
}

/// The log as text.
#[derive(Default)]
struct Writer {
    lines: Vec<String>,
    waits: BTreeSet<(WaitReason, Option<About>)>,
}

impl Log {
    /// Adds what happened.
    pub fn add(&mut self, now: Timestamp, happening: &Happening) {
        if !self.off {
            self.entries.push((now, happening.clone()));
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut writer = Writer::default();
        for (now, happening) in &self.entries {
            writer.add(*now, happening);
        }
        writer.lines
    }

    /// All lines.
    pub fn text(&self) -> String {
        let mut text = self.lines().join("\n");
        text.push('\n');
        text
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        let all = self.lines();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Writer {
    fn add(&mut self, now: Timestamp, happening: &Happening) {
        match happening {
            Happening::Relabelled { effect, .. } => {
                let revision = effect.revision.as_ref().map_or("none", |revision| revision.as_str());
                let injection = effect
                    .injection
                    .as_ref()
                    .map_or_else(String::new, |it| format!(", istio-injection={it}"));
                let because = &effect.because;
                self.line(now, &format!("relabel  {} to {revision}{injection}: {because}", effect.namespace));
            }
            Happening::TagMoved { effect, .. } => {
                let because = &effect.because;
                self.line(now, &format!("tag      {} to {}: {because}", effect.tag, effect.revision));
            }
            Happening::TagServiceMoved { effect, .. } => {
                let because = &effect.because;
                self.line(now, &format!("service  of tag {} to {}: {because}", effect.tag, effect.revision));
            }
            Happening::Restarted { effect, changed, .. } => {
                let again = if *changed { "" } else { " (nothing changes)" };
                let stamp = effect.stamp.rsplit('.').take(2).collect::<Vec<_>>();
                let stamp = stamp.into_iter().rev().collect::<Vec<_>>().join(".");
                self.line(now, &format!("restart  {} [{stamp}]{again}: {}", effect.workload, effect.because));
            }
            Happening::Published { before, record, view, .. } => {
                let old = before.run.as_ref().map(|run| run.phase).unwrap_or_default();
                let new = record.run.as_ref().map(|run| run.phase).unwrap_or_default();
                if old != new {
                    self.line(now, &format!("phase    {old} -> {new}"));
                }
                self.waits(now, view);
            }
            Happening::Failed(what) => self.line(now, &format!("failed   {what}")),
            Happening::Note(what) => self.line(now, &format!("-------- {what}")),
            Happening::Event(_) => {}
        }
    }

    fn waits(&mut self, now: Timestamp, view: &View) {
        let mut waits = BTreeSet::new();
        for wait in &view.blocked {
            let key = (wait.reason, wait.about.clone());
            if !self.waits.contains(&key) && !waits.contains(&key) {
                self.line(now, &format!("wait     {}: {}", wait.reason, wait.because));
            }
            waits.insert(key);
        }
        let ended: Vec<(WaitReason, Option<About>)> = self.waits.difference(&waits).cloned().collect();
        for (reason, about) in ended {
            self.line(now, &format!("go on    {reason}{}", of(about.as_ref())));
        }
        self.waits = waits;
    }

    fn line(&mut self, now: Timestamp, text: &str) {
        let seconds = now.duration_since(epoch()).as_secs();
        self.lines.push(format!("+{:02}:{:02} {text}", seconds / 60, seconds % 60));
    }
}

fn of(about: Option<&About>) -> String {
    match about {
        None => String::new(),
        Some(About::Namespace(name)) => format!(" (namespace {name})"),
        Some(About::Workload(workload)) => format!(" ({workload})"),
        Some(About::Gateway(gateway)) => format!(" ({gateway})"),
        Some(About::Webhook(name)) => format!(" (webhook {name})"),
        Some(About::ConfigMap(map)) => format!(" ({map})"),
        Some(About::Service(service)) => format!(" ({service})"),
        Some(About::Cluster(cluster)) => format!(" ({cluster})"),
    }
}

//! A run as lines that are only ever appended: where there is no terminal to draw on.

use std::collections::BTreeSet;
use std::time::Duration;

use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::plan::PlannedWave;
use meshupgrade_core::record::{BatchEntry, Rollback, Run};

use crate::line::{Line, Style};
use crate::stage::{self, Stage};
use crate::view::{bar, clock, size, titled, told};

/// Between two lines that differ in nothing but numbers.
const PAUSE: Duration = Duration::from_secs(2);
/// How wide explanations are.
const WIDTH: usize = 110;
/// Below the phase of a line.
const INDENT: usize = 8;
/// How many workloads in work are named.
const NAMED: usize = 2;
/// What belongs to every run: the stage of the wave, or what Azure has, says it already.
const ORDINARY: [&str; 5] =
    ["RolloutInProgress", "Observing", "Settling", "Soaking", "ControlPlaneOperation"];

/// Remembers what was told.
#[derive(Debug, Default)]
pub struct Journal {
    /// Phase and wave with its stage, without numbers.
    milestone: Option<(String, Option<(usize, &'static str)>)>,
    numbers: String,
    told_at: Duration,
    causes: BTreeSet<(String, String)>,
    plan_told: bool,
    turned_back: bool,
}

impl Journal {
    /// What is new in a status that was seen so long after the MeshUpgrade was applied.
    pub fn note(&mut self, status: &MeshUpgradeStatus, elapsed: Duration) -> Vec<Line> {
        let stages = stage::stages(status);
        let wave = stage::current(status).map(|index| (index, name_of(stages[index])));
        let milestone = Some((status.phase.clone(), wave));
        let numbers = numbers(status);
        let due = self.numbers != numbers && elapsed.saturating_sub(self.told_at) >= PAUSE;
        let mut lines = self.plan(status);
        if self.milestone != milestone || due {
            lines.push(line(status, &stages, elapsed));
            self.milestone = milestone;
            self.numbers = numbers;
            self.told_at = elapsed;
        }
        lines.extend(self.turned_back(status));
        lines.extend(self.new_causes(status));
        lines
    }

    fn plan(&mut self, status: &MeshUpgradeStatus) -> Vec<Line> {
        let waves = status.plan.as_ref().map_or(&[][..], |plan| &plan.waves);
        if waves.is_empty() || std::mem::replace(&mut self.plan_told, true) {
            return Vec::new();
        }
        let row = |(index, wave): (usize, &PlannedWave)| {
            let title = if index == 0 { "plan:" } else { "" };
            let names: Vec<&str> = wave.namespaces.iter().map(NamespaceName::as_str).collect();
            let text = format!("        {title:<6}{:<10}{}   {}", wave.name, size(wave), names.join(" "));
            Line::of(Style::Faint, text)
        };
        waves.iter().enumerate().map(row).collect()
    }

    fn turned_back(&mut self, status: &MeshUpgradeStatus) -> Vec<Line> {
        let rollback = status.run.as_ref().and_then(|run| run.rollback.as_ref());
        let news = rollback.filter(|_| !std::mem::replace(&mut self.turned_back, rollback.is_some()));
        let told =
            |rollback: &Rollback| titled(INDENT, &format!("{:?}", rollback.cause), &rollback.message, WIDTH);
        news.map_or_else(Vec::new, told)
    }

    fn new_causes(&mut self, status: &MeshUpgradeStatus) -> Vec<Line> {
        let special = status.blocked.iter().filter(|row| !ORDINARY.contains(&row.reason.as_str()));
        let key = |reason: &str, name: Option<&str>| (reason.to_owned(), name.unwrap_or_default().to_owned());
        special
            .filter(|row| self.causes.insert(key(&row.reason, row.name.as_deref())))
            .flat_map(|row| titled(INDENT, &row.reason, &row.message, WIDTH))
            .collect()
    }
}

fn line(status: &MeshUpgradeStatus, stages: &[Stage], elapsed: Duration) -> Line {
    let phase = if status.phase.is_empty() { "applied" } else { &status.phase };
    let waves = status.plan.as_ref().map_or(&[][..], |plan| &plan.waves);
    let current = stage::current(status).and_then(|index| Some((index, waves.get(index)?)));
    let wave = current.map_or_else(String::new, |(index, wave)| {
        format!("{}/{} {}: {}", index + 1, waves.len(), wave.name, told(stages[index], wave))
    });
    // The longest phase is one without a wave.
    let place = format!("{phase:<11}  {wave}");
    let text = format!("{:>6}  {place:<49}{}", clock(elapsed), numbers(status));
    Line::plain(text.trim_end())
}

fn numbers(status: &MeshUpgradeStatus) -> String {
    let (done, all) = stage::progress(status);
    let (full, empty) = bar(done, all, 20);
    let names = status.run.as_ref().map(in_work).unwrap_or_default();
    format!("  {full}{empty} {done:>2}/{all}  {names}")
}

/// The first workloads in work, and how many more there are.
fn in_work(run: &Run) -> String {
    let entries = run.batch.as_ref().map_or(&[][..], |batch| &batch.entries);
    let name = |entry: &BatchEntry| format!("{}/{}", entry.workload.namespace, entry.workload.name);
    let names: Vec<String> = entries.iter().take(NAMED).map(name).collect();
    let more = entries.len().saturating_sub(NAMED);
    if more > 0 { format!("{} +{more}", names.join(" ")) } else { names.join(" ") }
}

fn name_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting",
        Stage::Labels => "labels",
        Stage::Settling => "settling",
        Stage::Restarting(_) => "restarting",
        Stage::Soaking => "soaking",
        Stage::Done => "done",
        Stage::LabelsBack => "labels back",
        Stage::WaitingBack => "waiting back",
        Stage::GoingBack(_) => "going back",
        Stage::Back => "back",
        Stage::Untouched => "untouched",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(Line::text).collect()
    }

    #[test]
    fn what_is_new_is_told_once_and_mere_numbers_with_a_pause() {
        let mut journal = Journal::default();
        let mut status = fixture::migrating();
        let first = texts(&journal.note(&status, Duration::from_secs(61)));
        assert_eq!(
            first,
            [
                "        plan: canary     1 ns   3 workloads   3 at once   sandbox",
                "              shops      3 ns  12 workloads   3 at once   payments shop-eu shop-us",
                "              rest       1 ns  23 workloads   3 at once   search",
                "  1:01  Migrating    2/3 shops: restarting, 4/12 done      \
                 ███░░░░░░░░░░░░░░░░░  7/38  payments/api payments/ledger",
                "        BudgetExhausted",
                "          its budget leaves no room",
            ]
        );
        assert!(journal.note(&status, Duration::from_secs(90)).is_empty());
        status.progress = "8/38".into();
        assert_eq!(journal.note(&status, Duration::from_secs(92)).len(), 1);
        status.progress = "9/38".into();
        assert!(journal.note(&status, Duration::from_secs(93)).is_empty());
        "Succeeded".clone_into(&mut status.phase);
        assert_eq!(journal.note(&status, Duration::from_secs(93)).len(), 1);
    }
}

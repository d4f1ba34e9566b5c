//! How a run is shown while it goes on: a pure function from a status to lines.

use std::time::Duration;

use jiff::Timestamp;
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_api::status::Blocked;
use meshupgrade_core::plan::PlannedWave;
use meshupgrade_core::record::{BatchEntry, Run};

use crate::cloud::AzureSight;
use crate::line::{Line, Style, wrapped};
use crate::sight::PodSight;
use crate::stage::{self, Stage};

/// How many workloads in work are listed by name.
const LISTED: usize = 6;
/// How many causes of waiting are told.
const CAUSES: usize = 2;

/// What one picture is made of.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Name of the MeshUpgrade.
    pub name: &'a str,
    /// What the operator published last.
    pub status: &'a MeshUpgradeStatus,
    /// The pods of the demo.
    pub pods: &'a [PodSight],
    /// What Azure has, where it is asked for control planes.
    pub azure: Option<&'a AzureSight>,
    /// How long each wave took or is taking, as far as they have begun.
    pub waves: &'a [Option<Duration>],
    /// Since the MeshUpgrade was applied.
    pub elapsed: Duration,
    /// The time of day, for how long a workload has been in work.
    pub now: Timestamp,
    /// How many columns there are.
    pub width: usize,
}

/// The whole picture.
pub fn picture(frame: &Frame<'_>) -> Vec<Line> {
    let mut lines = vec![Line::empty(), header(frame), bar_line(frame)];
    lines.extend(
        frame.azure.map(|azure| Line::of(Style::Faint, "  Azure has ").and(Style::Busy, azure.told())),
    );
    lines.extend(waves(frame));
    lines.push(Line::empty());
    lines.extend(turned_back(frame));
    lines.extend(work(frame));
    lines.extend(checks(frame.status));
    lines.extend(causes(frame));
    lines
}

/// Why the run turned back, if it did.
fn turned_back(frame: &Frame<'_>) -> Vec<Line> {
    let rollback = frame.status.run.as_ref().and_then(|run| run.rollback.as_ref());
    rollback.map_or_else(Vec::new, |rollback| {
        titled(2, &format!("turned back: {:?}", rollback.cause), &rollback.message, frame.width)
    })
}

/// How the named checks of preflight or completion stand.
fn checks(status: &MeshUpgradeStatus) -> Option<Line> {
    let all = status.checks.len();
    let passed = status.checks.iter().filter(|check| check.outcome == "Passed").count();
    let rest = status.checks.iter().filter(|check| check.outcome != "Passed");
    let rest: Vec<String> = rest.map(|check| format!("{} {}", check.name, check.outcome)).collect();
    (all > 0).then(|| {
        Line::of(Style::Faint, format!("  checks: {passed} of {all} passed  "))
            .and(Style::Alert, rest.join(", "))
    })
}

fn header(frame: &Frame<'_>) -> Line {
    let status = frame.status;
    let (from, to) = status.run.as_ref().map_or(("", ""), |run| (run.source.as_str(), run.target.as_str()));
    let from = if from.is_empty() { "?" } else { from };
    let route = format!("{from} → {to}   ");
    let phase = if status.phase.is_empty() { "applied" } else { &status.phase };
    Line::of(Style::Strong, format!("  {}   ", frame.name))
        .and(Style::Plain, route)
        .and(phase_style(&status.phase), phase)
        .and(Style::Faint, format!("   {}", clock(frame.elapsed)))
}

fn phase_style(phase: &str) -> Style {
    match phase {
        "Succeeded" => Style::Good,
        "RollingBack" | "RolledBack" => Style::Alert,
        _ => Style::Busy,
    }
}

fn bar_line(frame: &Frame<'_>) -> Line {
    let (done, all) = stage::progress(frame.status);
    let back = frame.status.run.as_ref().is_some_and(|run| run.rollback.is_some());
    let (full, empty) = bar(done, all, frame.width.saturating_sub(40).clamp(10, 60));
    let what = if back { "workloads back" } else { "workloads" };
    Line::plain("  ")
        .and(if back { Style::Alert } else { Style::Good }, full)
        .and(Style::Faint, empty)
        .and(Style::Plain, format!("  {done}/{all} {what}"))
}

/// The full and the empty part of a bar.
pub fn bar(done: u32, all: u32, width: usize) -> (String, String) {
    let (done, all) = (done as usize, (all as usize).max(1));
    let full = (done.min(all) * width) / all;
    ("█".repeat(full), "░".repeat(width - full))
}

fn waves(frame: &Frame<'_>) -> Vec<Line> {
    let Some(plan) = &frame.status.plan else { return Vec::new() };
    let widest = plan.waves.iter().map(|wave| wave.name.len()).max().unwrap_or(0);
    let stages = stage::stages(frame.status);
    let rows = plan.waves.iter().zip(stages).enumerate();
    rows.map(|(index, (wave, stage))| {
        let time = frame.waves.get(index).copied().flatten().map(seconds).unwrap_or_default();
        let (style, sign) = sign(stage);
        Line::of(style, format!("  {sign} {:<widest$}", wave.name))
            .and(Style::Faint, format!("  {}  ", size(wave)))
            .and(style, format!("{:<26}", told(stage, wave)))
            .and(Style::Faint, format!("{time:>7}"))
    })
    .collect()
}

/// How much a wave has to do.
pub fn size(wave: &PlannedWave) -> String {
    let workloads = if wave.workloads == 1 { "workload " } else { "workloads" };
    let PlannedWave { namespaces, workloads: count, max_concurrent, .. } = wave;
    format!("{:>2} ns {count:>3} {workloads} {max_concurrent:>3} at once", namespaces.len())
}

fn sign(stage: Stage) -> (Style, char) {
    match stage {
        Stage::Waiting | Stage::Untouched => (Style::Faint, '·'),
        Stage::Labels | Stage::Settling | Stage::Restarting(_) | Stage::Soaking => (Style::Busy, '▶'),
        Stage::Done => (Style::Good, '✔'),
        Stage::LabelsBack | Stage::WaitingBack | Stage::GoingBack(_) | Stage::Back => (Style::Alert, '◀'),
    }
}

/// A stage in words.
pub fn told(stage: Stage, wave: &PlannedWave) -> String {
    match stage {
        Stage::Waiting => String::new(),
        Stage::Labels => "setting labels".into(),
        Stage::Settling => "labels settle".into(),
        Stage::Restarting(done) => format!("restarting, {done}/{} done", wave.workloads),
        Stage::Soaking => "soaking".into(),
        Stage::Done => "done".into(),
        Stage::LabelsBack => "labels go back".into(),
        Stage::WaitingBack => "labels are back".into(),
        Stage::GoingBack(done) => format!("going back, {done}/{} done", wave.workloads),
        Stage::Back => "back".into(),
        Stage::Untouched => "untouched".into(),
    }
}

/// The workloads that are in rollout now, each with its pods and what it waits for.
fn work(frame: &Frame<'_>) -> Vec<Line> {
    let Some((run, batch)) = frame.status.run.as_ref().and_then(|run| Some((run, run.batch.as_ref()?)))
    else {
        return Vec::new();
    };
    let name = |entry: &BatchEntry| {
        format!("{} {}/{}", entry.workload.kind, entry.workload.namespace, entry.workload.name)
    };
    let listed = || batch.entries.iter().take(LISTED).map(|entry| (entry, dots(frame, run, entry)));
    let widest = listed().map(|(entry, _)| name(entry).len()).max().unwrap_or(0);
    let most = listed().map(|(_, dots)| dots.chars().count()).max().unwrap_or(0);
    let mut lines = vec![Line::of(Style::Faint, format!("  in work (batch {})", batch.number))];
    lines.extend(listed().map(|(entry, dots)| {
        let age = frame.now.duration_since(entry.since).as_secs().max(0);
        let why = blocked_on(frame.status, entry).map_or("", |row| without_name(&row.message, entry));
        Line::plain(format!("    {:<widest$}  ", name(entry)))
            .and(Style::Busy, format!("{dots:<most$}"))
            .and(Style::Faint, format!(" {age:>3} s  "))
            .and(if entry.timed_out { Style::Alert } else { Style::Faint }, why)
    }));
    if batch.entries.len() > LISTED {
        lines.push(Line::of(Style::Faint, format!("    and {} more", batch.entries.len() - LISTED)));
    }
    lines
}

/// The pods of a workload: ready where the run goes, there but not ready yet, still to be replaced.
fn dots(frame: &Frame<'_>, run: &Run, entry: &BatchEntry) -> String {
    let there = run.destination().as_str();
    let own = frame.pods.iter().filter(|pod| {
        pod.namespace == entry.workload.namespace.as_str() && pod.app == entry.workload.name && !pod.ending
    });
    let mut dots: Vec<(u8, char)> = own
        .map(|pod| match (pod.revision.as_deref() == Some(there), pod.ready) {
            (true, true) => (0, '●'),
            (true, false) => (1, '◐'),
            (false, _) => (2, '○'),
        })
        .collect();
    dots.sort_unstable();
    dots.into_iter().map(|(_, dot)| dot).collect()
}

fn blocked_on<'a>(status: &'a MeshUpgradeStatus, entry: &BatchEntry) -> Option<&'a Blocked> {
    status.blocked.iter().find(|row| is_about(row, entry))
}

fn is_about(row: &Blocked, entry: &BatchEntry) -> bool {
    row.kind.as_deref() == Some(entry.workload.kind.as_str())
        && row.namespace.as_deref() == Some(entry.workload.namespace.as_str())
        && row.name.as_deref() == Some(entry.workload.name.as_str())
}

fn without_name<'a>(message: &'a str, entry: &BatchEntry) -> &'a str {
    let name = entry.workload.to_string();
    message.strip_prefix(&name).map_or(message, |rest| rest.trim_start_matches([':', ' ']))
}

/// What the run waits for beyond the workloads in work.
fn causes(frame: &Frame<'_>) -> Vec<Line> {
    let status = frame.status;
    let entries: &[BatchEntry] =
        status.run.as_ref().and_then(|run| run.batch.as_ref()).map_or(&[], |batch| &batch.entries);
    let others = status.blocked.iter().filter(|row| !entries.iter().any(|entry| is_about(row, entry)));
    others.take(CAUSES).flat_map(|row| cause(row, frame.width)).collect()
}

fn cause(row: &Blocked, width: usize) -> Vec<Line> {
    titled(2, &format!("waits: {}", row.reason), &row.message, width)
}

/// A title with its text below it, indented by so much.
pub fn titled(indent: usize, title: &str, text: &str, width: usize) -> Vec<Line> {
    let texts = wrapped(&without_fractions(text), width.saturating_sub(indent + 2));
    let title = Line::of(Style::Alert, format!("{:indent$}{title}", ""));
    let texts = texts.into_iter().map(|text| Line::of(Style::Faint, format!("{:indent$}  {text}", "")));
    std::iter::once(title).chain(texts).collect()
}

/// Points in time as a person tells them: the time of day, in seconds.
fn without_fractions(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.parse::<Timestamp>() {
        Ok(time) => time.strftime("%H:%M:%SZ").to_string(),
        Err(_) => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The time that a wave took, in words.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Minutes and seconds.
pub fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn shown(status: &MeshUpgradeStatus) -> Vec<String> {
        shown_with(status, None)
    }

    fn shown_with(status: &MeshUpgradeStatus, azure: Option<&AzureSight>) -> Vec<String> {
        let frame = Frame {
            name: "mesh",
            status,
            pods: &[
                pod("api", "asm-1-27", true),
                pod("api", "asm-1-28", false),
                pod("api", "asm-1-28", true),
            ],
            azure,
            waves: &[Some(Duration::from_millis(21_040)), Some(Duration::from_secs(9))],
            elapsed: Duration::from_secs(62),
            now: "2026-01-01T12:00:10Z".parse().unwrap(),
            width: 60,
        };
        picture(&frame).iter().map(|line| line.text().trim_end().to_owned()).collect()
    }

    fn pod(app: &str, revision: &str, ready: bool) -> PodSight {
        PodSight {
            namespace: "payments".into(),
            app: app.into(),
            revision: Some(revision.into()),
            ready,
            ..PodSight::default()
        }
    }

    #[test]
    fn a_run_in_the_middle_shows_waves_batch_and_what_it_waits_for() {
        let expected = [
            "",
            "  mesh   asm-1-27 → asm-1-28   Migrating   1:02",
            "  ███░░░░░░░░░░░░░░░░░  7/38 workloads",
            "  ✔ canary   1 ns   3 workloads   3 at once  done                       21.0 s",
            "  ▶ shops    3 ns  12 workloads   3 at once  restarting, 4/12 done       9.0 s",
            "  · rest     1 ns  23 workloads   3 at once",
            "",
            "  in work (batch 4)",
            "    Deployment payments/api      ●◐○  10 s  1 of 3 pods updated",
            "    StatefulSet payments/ledger        2 s",
            "  waits: BudgetExhausted",
            "    its budget leaves no room",
        ];
        assert_eq!(shown(&fixture::migrating()), expected);
    }

    #[test]
    fn what_azure_has_is_shown_above_the_waves() {
        let revisions = vec!["asm-1-27".to_owned(), "asm-1-28".to_owned()];
        let azure = AzureSight { revisions, state: "Updating".into() };
        let lines = shown_with(&fixture::migrating(), Some(&azure));
        assert_eq!(lines[3], "  Azure has asm-1-27 asm-1-28  Updating");
        assert!(lines[4].contains("canary"), "{lines:#?}");
    }

    #[test]
    fn the_way_back_is_told_as_such() {
        let lines = shown(&fixture::rolling_back());
        assert_eq!(lines[2], "  ████░░░░░░░░░░░░░░░░  3/15 workloads back");
        assert!(lines[3].contains("◀ canary") && lines[3].contains("labels are back"), "{lines:#?}");
        assert!(lines[4].contains("going back, 3/12 done"), "{lines:#?}");
        assert!(lines[5].contains("untouched"), "{lines:#?}");
        assert_eq!(lines[7], "  turned back: WorkloadFailed");
        assert_eq!(lines[8], "    Deployment payments/api did not come through");
    }

    #[test]
    fn a_removal_that_is_asked_for_is_told_in_full() {
        let lines = shown(&fixture::completing());
        let text = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        assert!(text.contains("checks: 1 of 2 passed  TagsMoved Skipped waits: RemovalPending"), "{text}");
        assert!(text.contains("helm uninstall istiod-asm-1-27 -n istio-system"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    }

    #[test]
    fn a_fresh_object_is_shown_too() {
        let lines = shown(&MeshUpgradeStatus::default());
        assert_eq!(lines[1], "  mesh   ? →    applied   1:02");
        assert_eq!(lines[2], "  ░░░░░░░░░░░░░░░░░░░░  0/0 workloads");
    }

    #[test]
    fn times_are_told_as_a_person_does() {
        let told = without_fractions("wave \"canary\" soaks until 2026-01-01T15:09:19.040653294Z and on");
        assert_eq!(told, "wave \"canary\" soaks until 15:09:19Z and on");
    }

    #[test]
    fn bars_are_as_full_as_the_work_is_done() {
        assert_eq!(bar(0, 0, 4), (String::new(), "░░░░".into()));
        assert_eq!(bar(39, 40, 10), ("█████████".into(), "░".into()));
        assert_eq!(bar(40, 40, 3), ("███".into(), String::new()));
        assert_eq!(bar(50, 40, 3), ("███".into(), String::new()));
    }
}

//! Where each wave stands, read from a status.

use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::{Rollback, Run, WaveStep};

/// Where one wave stands. Numbers are workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its turn has not come.
    Waiting,
    /// Its namespaces get their labels.
    Labels,
    /// Its labels must stay for a while.
    Settling,
    /// Its workloads are restarted; so many are done.
    Restarting(u32),
    /// All of it is done and is watched.
    Soaking,
    /// All of it runs on the target.
    Done,
    /// Its labels go back.
    LabelsBack,
    /// Its labels are back, its workloads wait for those of later waves.
    WaitingBack,
    /// Its workloads go back; so many have.
    GoingBack(u32),
    /// All of it runs on the source again.
    Back,
    /// The run turned back before its turn came.
    Untouched,
}

/// Workloads that are done, of all that count in the direction of the run.
pub fn progress(status: &MeshUpgradeStatus) -> (u32, u32) {
    let parts = status.progress.split_once('/');
    parts.and_then(|(done, all)| Some((done.parse().ok()?, all.parse().ok()?))).unwrap_or((0, 0))
}

/// The stages of all waves of the plan.
pub fn stages(status: &MeshUpgradeStatus) -> Vec<Stage> {
    let (Some(run), Some(plan)) = (&status.run, &status.plan) else { return Vec::new() };
    let indexes = (0u32..).take(plan.waves.len());
    match &run.rollback {
        None => indexes.map(|index| forward(run, index, done_in_wave(status, run))).collect(),
        Some(rollback) => indexes.map(|index| back(status, run, rollback, index)).collect(),
    }
}

/// The wave in work, if there is one.
pub fn current(status: &MeshUpgradeStatus) -> Option<usize> {
    let works = |stage: &Stage| {
        use Stage::{GoingBack, Labels, Restarting, Settling, Soaking};
        matches!(stage, Labels | Settling | Restarting(_) | Soaking | GoingBack(_))
    };
    stages(status).iter().position(works)
}

fn forward(run: &Run, index: u32, done: u32) -> Stage {
    match run.phase {
        Phase::Completing | Phase::Succeeded => Stage::Done,
        Phase::Migrating | Phase::Soaking if index < run.wave => Stage::Done,
        Phase::Soaking if index == run.wave => Stage::Soaking,
        Phase::Migrating if index == run.wave => match run.step {
            WaveStep::Relabel => Stage::Labels,
            WaveStep::Settle => Stage::Settling,
            WaveStep::Restart => Stage::Restarting(done),
            WaveStep::Proven => Stage::Soaking,
        },
        _ => Stage::Waiting,
    }
}

fn back(status: &MeshUpgradeStatus, run: &Run, rollback: &Rollback, index: u32) -> Stage {
    if index > rollback.from_wave {
        return Stage::Untouched;
    }
    let all_back = run.phase == Phase::RolledBack || run.step == WaveStep::Proven;
    match run.step {
        _ if all_back => Stage::Back,
        WaveStep::Restart if index > run.wave => Stage::Back,
        WaveStep::Restart if index == run.wave => Stage::GoingBack(back_in_wave(status, run, rollback)),
        WaveStep::Restart => Stage::WaitingBack,
        _ => Stage::LabelsBack,
    }
}

fn done_in_wave(status: &MeshUpgradeStatus, run: &Run) -> u32 {
    progress(status).0.saturating_sub(run.workloads_done)
}

fn back_in_wave(status: &MeshUpgradeStatus, run: &Run, rollback: &Rollback) -> u32 {
    let waves = status.plan.iter().flat_map(|plan| (0u32..).zip(&plan.waves));
    let before: u32 = waves
        .filter(|(index, _)| (run.wave + 1..=rollback.from_wave).contains(index))
        .map(|(_, wave)| wave.workloads)
        .sum();
    progress(status).0.saturating_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn on_the_way_forward_one_wave_is_in_work() {
        let mut status = fixture::migrating();
        assert_eq!(stages(&status), [Stage::Done, Stage::Restarting(4), Stage::Waiting]);
        assert_eq!(current(&status), Some(1));
        fixture::run(&mut status).step = WaveStep::Settle;
        assert_eq!(stages(&status)[1], Stage::Settling);
        fixture::run(&mut status).phase = Phase::Soaking;
        assert_eq!(stages(&status)[1], Stage::Soaking);
        fixture::run(&mut status).phase = Phase::Completing;
        assert_eq!(stages(&status), [Stage::Done; 3]);
        assert_eq!(current(&status), None);
    }

    #[test]
    fn on_the_way_back_later_waves_are_untouched() {
        let mut status = fixture::rolling_back();
        assert_eq!(stages(&status), [Stage::WaitingBack, Stage::GoingBack(3), Stage::Untouched]);
        fixture::run(&mut status).wave = 0;
        status.progress = "13/15".into();
        assert_eq!(stages(&status), [Stage::GoingBack(1), Stage::Back, Stage::Untouched]);
        fixture::run(&mut status).step = WaveStep::Relabel;
        assert_eq!(stages(&status), [Stage::LabelsBack, Stage::LabelsBack, Stage::Untouched]);
        fixture::run(&mut status).phase = Phase::RolledBack;
        assert_eq!(stages(&status), [Stage::Back, Stage::Back, Stage::Untouched]);
    }

    #[test]
    fn before_the_plan_there_are_no_waves() {
        assert!(stages(&MeshUpgradeStatus::default()).is_empty());
        assert_eq!(progress(&MeshUpgradeStatus::default()), (0, 0));
    }
}

//! How long each part takes, by the demo's own clock.

use std::time::{Duration, Instant};

use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_core::machine::phase::Phase;

use crate::line::{Line, Style};
use crate::stage;
use crate::view::seconds;

/// The finished parts in order.
#[derive(Debug)]
pub struct Parts {
    begun: Instant,
    done: Vec<(String, Duration)>,
}

impl Parts {
    /// With nothing done, and so much time spent before.
    pub fn new(spent: Duration) -> Self {
        let now = Instant::now();
        Self { begun: now.checked_sub(spent).unwrap_or(now), done: Vec::new() }
    }

    /// Notes a part that took so long.
    pub fn add(&mut self, name: impl Into<String>, time: Duration) {
        self.done.push((name.into(), time));
    }

    /// When the first part began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The table, with the total.
    pub fn table(&self) -> Vec<Line> {
        let row = |(name, time): &(String, Duration)| Line::plain(format!("{name:<24}{:>9}", seconds(*time)));
        let mut lines: Vec<Line> = self.done.iter().map(row).collect();
        let total = seconds(self.begun.elapsed());
        lines.push(Line::of(Style::Strong, format!("{:<24}{total:>9}", "total")));
        lines
    }
}

/// Begin and end of something.
#[derive(Clone, Copy, Debug)]
struct Span {
    begun: Instant,
    ended: Option<Instant>,
}

impl Span {
    fn time(self, now: Instant) -> Duration {
        self.ended.unwrap_or(now) - self.begun
    }
}

/// When the start of the control plane, the waves, the completion and the way back began and ended, as seen in the status.
#[derive(Debug, Default)]
pub struct RunClocks {
    start: Option<Span>,
    names: Vec<String>,
    waves: Vec<Option<Span>>,
    completion: Option<Span>,
    rollback: Option<Span>,
}

impl RunClocks {
    /// Takes note of a status that was seen at this time.
    pub fn see(&mut self, status: &MeshUpgradeStatus, now: Instant) {
        let (Some(run), Some(plan)) = (&status.run, &status.plan) else { return };
        self.names = plan.waves.iter().map(|wave| wave.name.clone()).collect();
        self.waves.resize(plan.waves.len(), None);
        let forward = run.rollback.is_none();
        let current = stage::current(status).filter(|_| forward);
        for (index, wave) in self.waves.iter_mut().enumerate() {
            follow(wave, current == Some(index), now);
        }
        follow(&mut self.start, run.phase == Phase::StartingControlPlane, now);
        follow(&mut self.completion, run.phase == Phase::Completing, now);
        follow(&mut self.rollback, run.phase == Phase::RollingBack, now);
    }

    /// How long each wave took or is taking on the way forward.
    pub fn waves(&self, now: Instant) -> Vec<Option<Duration>> {
        self.waves.iter().map(|wave| wave.map(|wave| wave.time(now))).collect()
    }

    /// All that has begun, by name.
    pub fn parts(&self) -> Vec<(String, Duration)> {
        let now = Instant::now();
        let start = ("start of the target".to_owned(), self.start);
        let waves = self.names.iter().zip(&self.waves).map(|(name, wave)| (format!("wave {name}"), *wave));
        let rest = [("completion".to_owned(), self.completion), ("rollback".to_owned(), self.rollback)];
        std::iter::once(start)
            .chain(waves)
            .chain(rest)
            .filter_map(|(name, span)| Some((name, span?.time(now))))
            .collect()
    }
}

/// Begins when it is first in work, ends when it is no more.
fn follow(span: &mut Option<Span>, in_work: bool, now: Instant) {
    match (span.as_mut(), in_work) {
        (None, true) => *span = Some(Span { begun: now, ended: None }),
        (Some(span), false) => {
            span.ended.get_or_insert(now);
        }
        // A wave that is taken up again, for stragglers: its time goes on.
        (Some(span), true) => span.ended = None,
        (None, false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn waves_are_timed_from_their_first_to_their_last_sight() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut clocks = RunClocks::default();
        let mut status = fixture::migrating();
        fixture::run(&mut status).wave = 0;
        clocks.see(&status, at(1));
        fixture::run(&mut status).wave = 1;
        clocks.see(&status, at(5));
        clocks.see(&fixture::rolling_back(), at(8));
        fixture::run(&mut status).rollback = fixture::rolling_back().run.unwrap().rollback;
        fixture::run(&mut status).phase = Phase::RolledBack;
        clocks.see(&status, at(20));
        assert_eq!(clocks.waves(at(30)), [Some(Duration::from_secs(4)), Some(Duration::from_secs(3)), None]);
        let parts = clocks.parts();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[2], ("rollback".to_owned(), Duration::from_secs(12)));
    }
}

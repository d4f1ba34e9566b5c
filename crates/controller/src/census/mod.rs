//! The cluster-wide look: at most one at a time per MeshUpgrade and not more often than every few seconds, in a task
//! of its own that asks for a pass when it is done.

mod collect;
mod kinds;
mod rights;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use meshupgrade_core::census::Census;
use meshupgrade_core::decision::Needs;
use meshupgrade_core::ids::Uid;
use meshupgrade_core::intent::Intent;

pub use collect::proxies;

use crate::context::Context;
use crate::watch::Poke;

/// The looks, by MeshUpgrade.
#[derive(Clone, Debug, Default)]
pub struct Censuses(Arc<Mutex<BTreeMap<Uid, State>>>);

#[derive(Debug, Default)]
struct State {
    last: Option<Arc<Census>>,
    /// Why the last look came to nothing.
    problem: Option<String>,
    began: Option<Instant>,
    running: bool,
}

/// What to do about a census that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// There is one, or it is on its way.
    Never,
    /// Begin.
    Now,
    /// The last one began a moment ago.
    After(Duration),
}

impl State {
    fn due(&self, since: Timestamp, interval: Duration, now: Instant) -> Due {
        let fresh = self.last.as_ref().and_then(|census| census.taken_at);
        if self.running || fresh.is_some_and(|taken| taken >= since) {
            return Due::Never;
        }
        let left = self.began.and_then(|began| (began + interval).checked_duration_since(now));
        match left.filter(|left| !left.is_zero()) {
            Some(left) => Due::After(left),
            None => Due::Now,
        }
    }
}

impl Censuses {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last census, however old: it says itself when it began.
    pub fn last(&self, upgrade: &Uid) -> Option<Arc<Census>> {
        self.lock().get(upgrade)?.last.clone()
    }

    /// Why the last look came to nothing, if it did.
    pub fn problem(&self, upgrade: &Uid) -> Option<String> {
        self.lock().get(upgrade)?.problem.clone()
    }

    /// A census that began no earlier than `since` is needed. Returns how long it has to wait, if it has to.
    pub fn want(
        &self,
        context: &Context,
        intent: &Intent,
        needs: &Needs,
        since: Timestamp,
    ) -> Option<Duration> {
        let now = Instant::now();
        let mut states = self.lock();
        let state = states.entry(intent.uid.clone()).or_default();
        match state.due(since, context.settings.census_interval, now) {
            Due::Never => return None,
            Due::After(left) => return Some(left),
            Due::Now => {}
        }
        state.running = true;
        state.began = Some(now);
        drop(states);
        let (clients, metrics) = (context.clients.clone(), context.metrics.clone());
        let (namespace, needs) = (intent.istio_namespace.clone(), needs.clone());
        let (censuses, upgrade, poke) = (self.clone(), intent.uid.clone(), context.poke.clone());
        let look = Look { censuses, upgrade, poke, result: Err("it broke down".to_owned()) };
        tokio::spawn(async move {
            let census = collect::take(&clients, &namespace, &needs).await;
            let complete = census.as_ref().is_ok_and(|census| census.unreadable.is_empty());
            metrics.process.census_ended(complete, now.elapsed());
            look.end(census.map_err(|error| error.to_string()));
        });
        None
    }

    /// Forgets a MeshUpgrade that is gone.
    pub fn forget(&self, upgrade: &Uid) {
        self.lock().remove(upgrade);
    }

    /// A MeshUpgrade that was deleted in the meantime stays forgotten.
    fn finish(&self, upgrade: &Uid, result: Result<Census, String>) {
        let mut states = self.lock();
        let Some(state) = states.get_mut(upgrade) else { return };
        state.running = false;
        match result {
            Ok(census) => (state.last, state.problem) = (Some(Arc::new(census)), None),
            Err(problem) => state.problem = Some(problem),
        }
    }
}

/// A look in progress. It ends in any case, also when its task breaks down: another one must be possible.
#[derive(Debug)]
struct Look {
    censuses: Censuses,
    upgrade: Uid,
    poke: Poke,
    result: Result<Census, String>,
}

impl Look {
    fn end(mut self, result: Result<Census, String>) {
        self.result = result;
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Err(String::new()));
        self.censuses.finish(&self.upgrade, result);
        self.poke.poke();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_census_is_taken_once_and_not_too_often() {
        let now = Instant::now();
        let mut state = State::default();
        assert_eq!(state.due(time(100), INTERVAL, now), Due::Now);
        state.began = Some(now);
        state.running = true;
        assert_eq!(state.due(time(100), INTERVAL, now), Due::Never);
        state.running = false;
        state.last = Some(Arc::new(Census { taken_at: Some(time(100)), ..Census::default() }));
        assert_eq!(state.due(time(100), INTERVAL, now), Due::Never);
        let later = now + Duration::from_secs(5);
        assert_eq!(state.due(time(101), INTERVAL, later), Due::After(Duration::from_secs(10)));
        assert_eq!(state.due(time(101), INTERVAL, now + INTERVAL), Due::Now);
    }

    #[test]
    fn a_census_of_a_forgotten_mesh_upgrade_is_dropped() {
        let censuses = Censuses::default();
        censuses.finish(&"u".into(), Ok(Census::default()));
        assert!(censuses.last(&"u".into()).is_none());
    }

    #[test]
    fn a_look_that_comes_to_nothing_leaves_the_last_census_and_says_why() {
        let censuses = Censuses::default();
        censuses.lock().insert("u".into(), State { running: true, ..State::default() });
        censuses.finish(&"u".into(), Ok(Census::default()));
        censuses.finish(&"u".into(), Err("refused: pods is forbidden".to_owned()));
        assert!(censuses.last(&"u".into()).is_some());
        assert_eq!(censuses.problem(&"u".into()).as_deref(), Some("refused: pods is forbidden"));
        censuses.finish(&"u".into(), Ok(Census::default()));
        assert_eq!(censuses.problem(&"u".into()), None);
    }
}

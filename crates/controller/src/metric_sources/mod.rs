//! Metric sources: queries on demand, each once, in a task of its own that asks for a pass when it is done.
//!
//! ```text
//!  file ─▶ config ─▶ want ─▶ address (look-up, checks) ─▶ client (one exchange) ─▶ answer ─▶ poke
//! ```

mod address;
mod answer;
mod client;
pub mod config;
mod istiod;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use meshupgrade_core::ids::Uid;
use meshupgrade_core::measure::{Answer, Problem, ProblemKind, Query};
use tokio::sync::{Semaphore, oneshot};

use self::config::Sources;
use crate::metrics::Metrics;
use crate::watch::Poke;

/// How many queries may be on their way at once, of all MeshUpgrades.
const CONCURRENCY: usize = 4;
/// The label of queries to a source that does not exist: the names in MeshUpgrades are not ours to bound.
const UNKNOWN: &str = "unknown";

/// The metric sources of this process, and what they were asked.
#[derive(Clone, Debug)]
pub struct MetricSources(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sources: Sources,
    metrics: Metrics,
    poke: Poke,
    permits: Semaphore,
    wanted: Mutex<Wanted>,
}

#[derive(Debug, Default)]
struct Wanted {
    queries: BTreeMap<Uid, BTreeMap<Query, State>>,
    /// The last number given to a task.
    last: u64,
}

/// A query that is wanted.
#[derive(Debug)]
struct State {
    /// The number of its task: an earlier task for the same query has nothing to say any more.
    number: u64,
    /// `None` while it is on its way.
    answer: Option<Answer>,
    /// Ends the task when it is dropped.
    _wanted: oneshot::Sender<()>,
}

impl MetricSources {
    /// These sources, none of them asked yet. A query that ends asks for a pass.
    pub fn new(sources: Sources, metrics: Metrics, poke: Poke) -> Self {
        let (permits, wanted) = (Semaphore::new(CONCURRENCY), Mutex::default());
        Self(Arc::new(Shared { sources, metrics, poke, permits, wanted }))
    }

    /// What a MeshUpgrade needs from now on: new queries begin, and those that are not among them end and are forgotten,
    /// with their answers. Must be called inside the runtime.
    pub fn want(&self, upgrade: &Uid, queries: &BTreeSet<Query>) {
        // Tasks begin without the lock: the one of a runtime that shuts down ends at once, and takes it.
        for asked in self.take_note(upgrade, queries) {
            tokio::spawn(asked.run());
        }
    }

    fn take_note(&self, upgrade: &Uid, queries: &BTreeSet<Query>) -> Vec<Asked> {
        let mut wanted = self.lock();
        let Wanted { queries: all, last } = &mut *wanted;
        let states = all.entry(upgrade.clone()).or_default();
        states.retain(|query, _| queries.contains(query));
        let mut begin = Vec::new();
        for query in queries {
            if !states.contains_key(query) {
                *last += 1;
                let (sender, receiver) = oneshot::channel();
                states.insert(query.clone(), State { number: *last, answer: None, _wanted: sender });
                begin.push(self.asked(upgrade, query, *last, receiver));
            }
        }
        all.retain(|_, states| !states.is_empty());
        begin
    }

    /// The answers that are there, of all that a MeshUpgrade wants.
    pub fn answers(&self, upgrade: &Uid) -> BTreeMap<Query, Answer> {
        let wanted = self.lock();
        let states = wanted.queries.get(upgrade).into_iter().flatten();
        states.filter_map(|(query, state)| Some((query.clone(), state.answer.clone()?))).collect()
    }

    /// Forgets a MeshUpgrade that is gone.
    pub fn forget(&self, upgrade: &Uid) {
        self.want(upgrade, &BTreeSet::new());
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self, upgrade: &Uid, query: &Query, number: u64, dropped: oneshot::Receiver<()>) -> Asked {
        Asked {
            sources: self.clone(),
            upgrade: upgrade.clone(),
            query: query.clone(),
            number,
            dropped,
            began: Instant::now(),
            answer: Err(problem(ProblemKind::BadAnswer, "the query broke down".to_owned())),
        }
    }

    async fn ask(&self, query: &Query) -> Answer {
        match self.0.sources.get(&query.source) {
            Some(source) => client::ask(source, query).await,
            None => Err(self.unknown(&query.source)),
        }
    }

    fn unknown(&self, name: &str) -> Problem {
        let names: Vec<&str> = self.0.sources.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let text = format!("the operator's configuration has no source {name:?}; it has: {known}");
        problem(ProblemKind::UnknownSource, text)
    }

    /// Whether somebody still wants the answer: then it is kept.
    fn keep(&self, upgrade: &Uid, query: &Query, number: u64, answer: Answer) -> bool {
        let mut wanted = self.lock();
        let state = wanted.queries.get_mut(upgrade).and_then(|states| states.get_mut(query));
        let Some(state) = state.filter(|state| state.number == number) else { return false };
        state.answer = Some(answer);
        true
    }

    fn count(&self, query: &Query, result: &'static str, began: Instant) {
        let known = self.0.sources.get_key_value(&query.source);
        let name = known.map_or(UNKNOWN, |(name, _)| name.as_str());
        self.0.metrics.process.metric_source_answered(name, result, began.elapsed());
    }
}

/// A query on its way. It ends in any case, also when its task breaks down: the decision must not wait for ever.
#[derive(Debug)]
struct Asked {
    sources: MetricSources,
    upgrade: Uid,
    query: Query,
    number: u64,
    /// Says that nobody wants it any more.
    dropped: oneshot::Receiver<()>,
    began: Instant,
    answer: Answer,
}

impl Asked {
    async fn run(mut self) {
        let sources = self.sources.clone();
        let asking = async {
            // It is never closed.
            let _permit = sources.0.permits.acquire().await;
            self.began = Instant::now();
            self.answer = sources.ask(&self.query).await;
        };
        tokio::select! {
            _ = &mut self.dropped => {}
            () = asking => {}
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let answer = std::mem::replace(&mut self.answer, Ok(Vec::new()));
        let result = answer.as_ref().map_or_else(|problem| problem.kind.as_str(), |_| "Answered");
        if self.sources.keep(&self.upgrade, &self.query, self.number, answer) {
            self.sources.count(&self.query, result, self.began);
            self.sources.0.poke.poke();
        }
    }
}

fn problem(kind: ProblemKind, message: String) -> Problem {
    Problem { kind, message }
}

#[cfg(test)]
mod tests;

//! A metric source: tells how many requests fail, from where pods run now. It knows one query, [`QUERY`].

use std::collections::BTreeSet;

use meshupgrade_core::analysis::{Decimal, Measure, MetricIntent, OnNoData};
use meshupgrade_core::ids::{Revision, WorkloadRef};
use meshupgrade_core::measure::{Answer, Problem, ProblemKind, Query, Row};

use crate::world::World;

/// The query that it understands: the share of failed requests, in percent.
pub const QUERY: &str = "errors $(namespaces) $(workloads)";

/// How a metric source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// It answers.
    #[default]
    Up,
    /// It cannot be reached.
    Down,
    /// It has no series.
    Empty,
    /// It answers with something that is not a number.
    NotANumber,
}

/// What a metric source knows.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// How it is.
    pub source: Source,
    /// Workloads whose requests fail on a revision.
    pub ailing: BTreeSet<(WorkloadRef, Revision)>,
}

/// A metric with short times: no more than one request of a hundred may fail.
pub fn errors() -> MetricIntent {
    MetricIntent {
        name: "errors".to_owned(),
        source: "default".to_owned(),
        measure: Measure::Promql { query: QUERY.to_owned(), samples: None },
        min: None,
        max: Some(Decimal::whole(1)),
        baseline: None,
        window_seconds: 20,
        interval_seconds: 10,
        count: 1,
        failure_limit: 0,
        error_limit: 2,
        inconclusive_limit: 2,
        no_data_limit: 2,
        min_samples: 0,
        max_age_seconds: 20,
        on_no_data: OnNoData::Pause,
        dry_run: false,
    }
}

/// Its answer to a query.
pub fn answer(world: &World, query: &Query) -> Answer {
    let row = |value: f64| Ok(vec![Row { value, ..Row::default() }]);
    match world.telemetry.source {
        Source::Up => row(if fails(world, &query.promql) { 50.0 } else { 0.1 }),
        Source::Down => Err(Problem { kind: ProblemKind::Unreachable, message: "no connection".to_owned() }),
        Source::Empty => Ok(Vec::new()),
        Source::NotANumber => row(f64::NAN),
    }
}

/// Whether a workload that the query names has a pod where its requests fail.
fn fails(world: &World, promql: &str) -> bool {
    let mut parts = promql.split(' ').skip(1).map(|names| names.split('|').collect::<BTreeSet<_>>());
    let (namespaces, workloads) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    world.telemetry.ailing.iter().any(|(workload, revision)| {
        let named =
            namespaces.contains(workload.namespace.as_str()) && workloads.contains(workload.name.as_str());
        named && world.pods_of(workload).iter().any(|(_, pod)| pod.revision() == Some(revision))
    })
}

use std::collections::BTreeSet;

use futures::StreamExt as _;
use meshupgrade_core::ids::Uid;

use super::server::{Behaviour, GOOD, Server, response};
use super::*;
use crate::metric_sources::MetricSources;
use crate::metrics::Metrics;
use crate::watch::Poke;

struct Handle {
    sources: MetricSources,
    metrics: Metrics,
    poke: Poke,
    upgrade: Uid,
}

impl Handle {
    fn new(server: &Server) -> Self {
        let (metrics, poke) = (Metrics::new().unwrap(), Poke::default());
        let sources = [("a".to_owned(), Arc::new(source(&server.url())))].into();
        let sources = MetricSources::new(sources, metrics.clone(), poke.clone());
        Self { sources, metrics, poke, upgrade: "u".into() }
    }

    fn want(&self, queries: &[&Query]) {
        let queries: BTreeSet<Query> = queries.iter().map(|query| (*query).clone()).collect();
        self.sources.want(&self.upgrade, &queries);
    }

    /// Whether a pass is asked for, which must come.
    async fn poked(&self) -> bool {
        self.poked_within(LONG).await
    }

    /// Whether none is asked for.
    async fn left_alone(&self) -> bool {
        !self.poked_within(SHORT).await
    }

    async fn poked_within(&self, limit: Duration) -> bool {
        let mut pokes = std::pin::pin!(self.poke.clone().stream());
        tokio::time::timeout(limit, pokes.next()).await.is_ok()
    }

    fn answer(&self, query: &Query) -> Option<Answer> {
        self.sources.answers(&self.upgrade).remove(query)
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.text().unwrap().lines().any(|shown| shown == line)
    }
}

/// Waits until it is so.
async fn until(mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap();
}

#[tokio::test]
async fn a_query_is_sent_once_and_its_end_asks_for_a_pass() {
    let server = Server::answering(GOOD).await;
    let handle = Handle::new(&server);
    let (one, two) = (query("one"), query("two"));
    handle.want(&[&one]);
    assert_eq!(handle.answer(&one), None);
    assert!(handle.poked().await);
    assert_eq!(handle.answer(&one).unwrap().unwrap().len(), 1);
    handle.want(&[&one]);
    handle.want(&[&one, &two]);
    assert!(handle.poked().await);
    assert!(handle.answer(&two).is_some());
    assert_eq!(server.connections(), 2);
    assert!(handle.shows(r#"meshupgrade_metric_source_queries_total{result="Answered",source="a"} 2"#));
    assert!(handle.shows(r#"meshupgrade_metric_source_query_time_seconds_count{source="a"} 2"#));
}

#[tokio::test]
async fn a_failure_is_an_answer_and_not_tried_again() {
    let server = Server::start(response("500 No", "", "")).await;
    let handle = Handle::new(&server);
    let query = query("up");
    handle.want(&[&query]);
    assert!(handle.poked().await);
    handle.want(&[&query]);
    assert!(handle.left_alone().await);
    assert_eq!(handle.answer(&query).unwrap().unwrap_err().kind, ProblemKind::Refused);
    assert_eq!(server.connections(), 1);
    assert!(handle.shows(r#"meshupgrade_metric_source_queries_total{result="Refused",source="a"} 1"#));
}

#[tokio::test]
async fn an_answer_lives_as_long_as_its_query_is_wanted() {
    let server = Server::answering(GOOD).await;
    let handle = Handle::new(&server);
    let query = query("up");
    handle.want(&[&query]);
    assert!(handle.poked().await);
    handle.want(&[]);
    assert_eq!(handle.answer(&query), None);
    handle.want(&[&query]);
    assert_eq!(handle.answer(&query), None);
    assert!(handle.poked().await);
    assert_eq!(server.connections(), 2);
    handle.sources.forget(&handle.upgrade);
    assert_eq!(handle.answer(&query), None);
    assert!(handle.sources.lock().queries.is_empty());
}

#[tokio::test]
async fn a_query_that_nobody_wants_any_more_ends_without_a_pass() {
    let server = Server::start(Behaviour::Dribble("HTTP/1.1 200 OK\r\n\r\n")).await;
    let handle = Handle::new(&server);
    handle.want(&[&query("up")]);
    until(|| server.connections() == 1).await;
    handle.sources.forget(&handle.upgrade);
    until(|| server.closed() == 1).await;
    assert!(handle.left_alone().await);
    assert!(!handle.metrics.text().unwrap().contains("source=\"a\""));
}

#[tokio::test]
async fn only_a_few_queries_are_on_their_way_at_once() {
    let server = Server::start(Behaviour::Dribble("HTTP/1.1 200 OK\r\n\r\n")).await;
    let handle = Handle::new(&server);
    let queries: Vec<Query> = (0..7).map(|number| query(&format!("up + {number}"))).collect();
    handle.want(&queries.iter().collect::<Vec<_>>());
    until(|| server.connections() == 4).await;
    tokio::time::sleep(SHORT).await;
    assert_eq!(server.connections(), 4);
    handle.want(&queries[4..].iter().collect::<Vec<_>>());
    until(|| server.connections() >= 5).await;
    assert_eq!(handle.sources.answers(&handle.upgrade).len(), 0);
}

#[tokio::test]
async fn an_unknown_source_is_named_with_those_that_exist() {
    let handle = Handle::new(&Server::answering(GOOD).await);
    let unknown = Query { source: "b".to_owned(), ..query("up") };
    handle.want(&[&unknown]);
    assert!(handle.poked().await);
    let problem = handle.answer(&unknown).unwrap().unwrap_err();
    assert_eq!(problem.kind, ProblemKind::UnknownSource);
    assert_eq!(problem.message, "the operator's configuration has no source \"b\"; it has: a");
    assert!(
        handle.shows(r#"meshupgrade_metric_source_queries_total{result="UnknownSource",source="unknown"} 1"#)
    );
}

#[tokio::test]
async fn a_task_that_breaks_down_leaves_a_problem_and_asks_for_a_pass() {
    let handle = Handle::new(&Server::answering(GOOD).await);
    let query = query("up");
    drop(handle.sources.take_note(&handle.upgrade, &BTreeSet::from([query.clone()])));
    assert!(handle.poked().await);
    assert_eq!(handle.answer(&query).unwrap().unwrap_err().message, "the query broke down");
}

#[tokio::test]
async fn a_task_that_was_given_up_does_not_answer_for_its_successor() {
    let handle = Handle::new(&Server::answering(GOOD).await);
    let wanted = BTreeSet::from([query("up")]);
    let first = handle.sources.take_note(&handle.upgrade, &wanted);
    handle.sources.forget(&handle.upgrade);
    let _second = handle.sources.take_note(&handle.upgrade, &wanted);
    drop(first);
    assert!(handle.sources.answers(&handle.upgrade).is_empty());
    assert!(handle.left_alone().await);
}

//! Tests against servers on loopback, most of which misbehave.

mod addresses;
mod config;
mod exchange;
mod handle;
mod server;
mod tls;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use meshupgrade_core::measure::{Answer, Problem, ProblemKind, Query};

use super::config::{self as sources, Source};
use super::{address, client};

/// How long the tests wait for what must not come. Also the timeout of sources that do not answer in time.
const SHORT: Duration = Duration::from_millis(400);
/// How long they wait for what must come. Also the timeout of all other sources.
const LONG: Duration = Duration::from_secs(8);

/// The process of the operator does this at its start.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A source with more settings, as lines of YAML.
fn source_with(url: &str, settings: &str) -> Source {
    install_tls();
    let text = format!("sources:\n- name: a\n  url: {url}\n{}", settings.replace("- ", "  "));
    Source::clone(&sources::parse(&text).unwrap()["a"])
}

/// A source that may be on loopback.
fn source(url: &str) -> Source {
    Source { timeout: LONG, ..source_with(url, "- allow: [Loopback]\n") }
}

fn query(promql: &str) -> Query {
    let at = "2026-01-01T00:00:00.25Z".parse().unwrap();
    Query { source: "a".to_owned(), promql: promql.to_owned(), at, max_age_seconds: 60 }
}

async fn ask(source: &Source) -> Answer {
    client::ask(&Arc::new(source.clone()), &query("up")).await
}

async fn problem(source: &Source) -> Problem {
    ask(source).await.unwrap_err()
}

async fn kind(source: &Source) -> ProblemKind {
    problem(source).await.kind
}

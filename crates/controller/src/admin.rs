//! The admin port: metrics, liveness, readiness.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::context::Context;

/// Serves the admin port until the process is to end.
pub async fn serve(listener: TcpListener, context: Arc<Context>) -> std::io::Result<()> {
    let stop = context.stop.clone();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(context);
    axum::serve(listener, router).with_graceful_shutdown(stop.wait()).await
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    for (kind, _synced, count) in context.stores.kinds() {
        context.metrics.process.set_watched(kind, count);
    }
    match context.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn livez(State(context): State<Arc<Context>>) -> Response {
    answer(&context.health.stuck(Instant::now()))
}

async fn readyz(State(context): State<Arc<Context>>) -> Response {
    answer(&missing(&context))
}

/// The gates that are still closed. Not to lead is no such gate: a process that waits for its turn is ready.
fn missing(context: &Context) -> Vec<String> {
    let unsynced = context.stores.unsynced();
    let mut missing: Vec<String> =
        unsynced.into_iter().map(|kind| format!("the first list of {kind} is not in")).collect();
    if !context.upgrades_synced() {
        missing.push("the first list of meshupgrades is not in: is the CRD installed?".to_owned());
    }
    missing.extend(context.health.failing());
    missing
}

fn answer(problems: &[String]) -> Response {
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_makes_the_answer_a_failure() {
        assert_eq!(answer(&[]).status(), StatusCode::OK);
        assert_eq!(answer(&["x".into()]).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

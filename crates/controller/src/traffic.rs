//! A layer of the clients that counts answers and tells the watchdog about them.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use tower::{Layer, Service};

use crate::health::Health;
use crate::metrics::Metrics;

/// Counts every answer by code and method.
#[derive(Clone, Debug)]
pub struct TrafficLayer {
    metrics: Metrics,
    health: Option<Health>,
}

impl TrafficLayer {
    /// A layer for the client of watches gets the watchdog, others do not.
    pub fn new(metrics: Metrics, health: Option<Health>) -> Self {
        Self { metrics, health }
    }
}

impl<S> Layer<S> for TrafficLayer {
    type Service = Traffic<S>;

    fn layer(&self, inner: S) -> Traffic<S> {
        Traffic { inner, layer: self.clone() }
    }
}

/// The service that [`TrafficLayer`] makes.
#[derive(Clone, Debug)]
pub struct Traffic<S> {
    inner: S,
    layer: TrafficLayer,
}

impl<S, B> Service<Request<Body>> for Traffic<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let TrafficLayer { metrics, health } = self.layer.clone();
        let method = request.method().clone();
        // The path is an address of the API server and goes into no label.
        let path = health.as_ref().map(|_| request.uri().path().to_owned());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let status = answer.as_ref().ok().map(Response::status);
            metrics.process.count_request(&method, status);
            // A refusal (no such kind, no right) is progress as well: starting anew would not help.
            let useful = status.filter(|code| !code.is_server_error() && code.as_u16() != 429);
            if let (Some(code), Some(health), Some(path)) = (useful, health, path) {
                health.answered(&path, code.is_success());
            }
            answer
        })
    }
}

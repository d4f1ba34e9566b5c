//! The clients: no hidden retries, a timeout on every call, and every answer counted.

use std::time::Duration;

use http::{HeaderValue, header::USER_AGENT};
use kube::client::ClientBuilder;
use kube::core::Status;
use kube::{Client, Config};

use crate::health::Health;
use crate::metrics::Metrics;
use crate::traffic::TrafficLayer;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a watch may be silent before its connection is given up: longer than a watch lasts
/// ([`crate::watch::WATCH_SECONDS`]) and shorter than the 240 s after which load balancers drop a connection unseen.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(215);

/// The connections to the API server.
#[derive(Clone)]
pub struct Clients {
    calls: Client,
    watches: Client,
    timeout: Duration,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time: whether a write took effect is not known.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The object changed since it was read, or its uid is another one.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Another field manager owns what we want to set.
    #[error("owned by another field manager: {0}")]
    Owned(String),
    /// There is no such object, or no such kind.
    #[error("not found: {0}")]
    NotFound(String),
    /// The API server or an admission policy refuses it.
    #[error("refused: {0}")]
    Refused(String),
    /// The API server is overloaded or broken: whether a write took effect is not known.
    #[error("the API server answered {code}: {message}")]
    Server {
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// No usable answer: connection, TLS, JSON.
    #[error("{0}")]
    Transport(#[source] Box<kube::Error>),
}

impl CallError {
    /// A fixed word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Conflict(_) => "conflict",
            Self::Owned(_) => "owned",
            Self::NotFound(_) => "not_found",
            Self::Refused(_) => "refused",
            Self::Server { .. } => "server",
            Self::Transport(_) => "transport",
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => from_status(&status),
            other => Self::Transport(Box::new(other)),
        }
    }
}

fn from_status(status: &Status) -> CallError {
    let message = status.message.clone();
    let owned = status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .any(|cause| cause.reason == "FieldManagerConflict");
    match status.code {
        409 if owned => CallError::Owned(message),
        409 => CallError::Conflict(message),
        404 | 410 => CallError::NotFound(message),
        400 | 401 | 403 | 405 | 413 | 415 | 422 => CallError::Refused(message),
        code => CallError::Server { code, message },
    }
}

impl Clients {
    /// Clients for a configuration. `timeout` bounds every call but watches.
    pub fn new(
        mut config: Config,
        timeout: Duration,
        metrics: &Metrics,
        health: &Health,
    ) -> Result<Self, kube::Error> {
        let agent = concat!("meshupgrade-operator/", env!("CARGO_PKG_VERSION"));
        config.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
        // kube's own layer repeats writes for minutes on 429 and 503: long after the lease may be lost.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT.min(timeout));
        config.write_timeout = Some(timeout);
        // Else the time that a pooled connection was idle counts as silence.
        config.reset_reader_on_write = true;
        let build = |read_timeout, health: Option<Health>| {
            let mut config = config.clone();
            config.read_timeout = Some(read_timeout);
            let layer = TrafficLayer::new(metrics.clone(), health);
            Ok::<Client, kube::Error>(ClientBuilder::try_from(config)?.with_layer(&layer).build())
        };
        Ok(Self {
            calls: build(timeout + CONNECT_TIMEOUT, None)?,
            watches: build(WATCH_READ_TIMEOUT, Some(health.clone()))?,
            timeout,
        })
    }

    /// The client for reads and writes that are awaited with [`Self::call`].
    pub fn calls(&self) -> Client {
        self.calls.clone()
    }

    /// The client for watches: its connections may be silent for as long as a watch lasts.
    pub fn watches(&self) -> Client {
        self.watches.clone()
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Awaits a call for no longer than the timeout.
    pub async fn call<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        within(self.timeout, request).await
    }
}

/// Awaits a call for no longer than this.
pub async fn within<T>(
    limit: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(CallError::from),
        Err(_elapsed) => Err(CallError::Timeout(limit)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn category(code: u16, causes: &serde_json::Value) -> &'static str {
        let status: Status = serde_json::from_value(json!({
            "kind": "Status", "code": code, "message": "m", "details": {"causes": causes},
        }))
        .unwrap();
        CallError::from(kube::Error::Api(Box::new(status))).category()
    }

    #[test]
    fn answers_are_sorted_by_what_they_mean_for_a_write() {
        assert_eq!(category(409, &json!([])), "conflict");
        assert_eq!(category(409, &json!([{"reason": "FieldManagerConflict"}])), "owned");
        assert_eq!(category(404, &json!([])), "not_found");
        assert_eq!(category(403, &json!([])), "refused");
        assert_eq!(category(422, &json!([])), "refused");
        assert_eq!(category(429, &json!([])), "server");
        assert_eq!(category(504, &json!([])), "server");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_answer_ends_as_unknown() {
        let call = within::<()>(Duration::from_secs(10), std::future::pending()).await;
        assert!(matches!(call, Err(CallError::Timeout(_))));
    }
}

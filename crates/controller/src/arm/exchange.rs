//! One request and its answer. No redirect is followed, nothing is repeated, and neither time nor memory is unbounded.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use meshupgrade_core::aks::problem::{Answer, ArmProblem, Asked, Class};
use reqwest::{Client, RequestBuilder, Response, redirect, retry};
use serde_json::Value;

use super::config::{Config, ConfigError, wrong};
use crate::transport::{self, BodyError, Broken};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What an answer may have at most: a cluster with a hundred node pools has less than one.
pub(super) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// The longest wait that a server can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
const REQUEST_ID: &str = "x-ms-request-id";

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `Err` if it is no JSON, too large, or did not come whole.
    pub body: Result<Value, &'static str>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether the server may have got the request.
    pub sent: bool,
    /// Why: a sentence without address.
    pub why: String,
}

/// A client for ARM and for Microsoft Entra ID. Reads the file of certificate authorities.
pub(super) fn web_client(config: &Config) -> Result<Client, ConfigError> {
    let mut builder = builder().https_only(true);
    if !config.proxy_from_environment {
        builder = builder.no_proxy();
    }
    if let Some(file) = &config.ca_file {
        let certificates =
            transport::certificates(file).map_err(|why| wrong("ARM CA file", format!("{why}: mount it")))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|_| {
        wrong(
            "ARM CA file",
            "the system has no certificate authorities that can be used: name a file that has them",
        )
    })
}

/// A client for the managed identities' endpoint, which is on the node itself: by http, and never through a proxy.
pub(super) fn node_client() -> Result<Client, ConfigError> {
    // The system's certificate authorities are not even looked for.
    let client = builder().no_proxy().tls_certs_only([]).build();
    client.map_err(|_| wrong("managed identity", "the TLS library cannot be used"))
}

fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("meshupgrade/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        // A request on a connection that the other side is closing is lost, and a write must not be.
        .pool_max_idle_per_host(0)
}

/// Sends a request, and waits no longer than this for the whole answer.
pub(super) async fn send(request: RequestBuilder, timeout: Duration) -> Result<Reply, Failure> {
    let deadline = tokio::time::Instant::now() + timeout;
    let response = match tokio::time::timeout_at(deadline, request.send()).await {
        Ok(response) => response.map_err(|error| failure(&error))?,
        Err(_elapsed) => {
            let why = format!("There was no answer within {} s.", timeout.as_secs());
            return Err(Failure { sent: true, why });
        }
    };
    let (status, headers) = (response.status(), response.headers().clone());
    // The head alone says whether a write was accepted: a body that is lost changes nothing about it.
    let body = tokio::time::timeout_at(deadline, json(response)).await;
    Ok(Reply { status, headers, body: body.unwrap_or(Err("the answer did not come to its end in time")) })
}

async fn json(response: Response) -> Result<Value, &'static str> {
    let body = transport::body(response, MAX_BODY_BYTES).await.map_err(|error| match error {
        BodyError::TooLarge => "the answer is larger than 4 MiB",
        BodyError::Broken(_) => "the answer did not come to its end",
    })?;
    serde_json::from_slice(&body).map_err(|_| "the answer is no JSON")
}

fn failure(error: &reqwest::Error) -> Failure {
    let why = match transport::broken(error) {
        Broken::Certificate => {
            "The server cannot prove who it is: check the address, and the file of certificate authorities."
                .to_owned()
        }
        Broken::Connection(Some(kind)) => format!("The connection failed: {kind}."),
        Broken::Connection(None) => "There is no connection.".to_owned(),
        Broken::NoHttp => "The connection ended before there was an answer.".to_owned(),
    };
    Failure { sent: !(error.is_connect() || error.is_builder()), why }
}

impl Reply {
    /// The text of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header("retry-after")?, Timestamp::now())
    }

    /// The answer as the core reads it.
    pub(super) fn answer(&self) -> Answer<'_> {
        Answer {
            status: Some(self.status.as_u16()),
            retry_after_seconds: self.retry_after().map(|wait| wait.as_secs()),
            request_id: self.header(REQUEST_ID).map(str::to_owned),
            body: self.body.as_ref().unwrap_or(&Value::Null),
        }
    }

    /// The body of a success, or what went wrong.
    pub(super) fn success(self, asked: Asked) -> Result<Value, ArmProblem> {
        if self.status != StatusCode::OK {
            return Err(ArmProblem::from_answer(asked, &self.answer()));
        }
        self.body.map_err(|why| unusable(&format!("Azure's answer cannot be used: {why}.")))
    }
}

/// A read that has no usable answer.
pub(super) fn unusable(why: &str) -> ArmProblem {
    let class = Class::Transient { retry_after_seconds: None };
    ArmProblem::own(
        class,
        "BadAnswer",
        "Azure could not be asked.",
        why,
        "The operator tries again by itself.",
    )
}

/// A read that had no answer at all.
pub(super) fn unanswered(failure: &Failure) -> ArmProblem {
    ArmProblem::own(
        Class::Transient { retry_after_seconds: None },
        "NoAnswer",
        "Azure could not be asked.",
        &failure.why,
        "The operator tries again by itself. Its pod has to reach that host: NetworkPolicy, firewall, and in a cluster with an HTTP proxy the \
         chart's value aks.proxyFromEnvironment.",
    )
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date. At most an hour.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(date.duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_given_in_seconds_or_as_a_date_and_is_bounded() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            (" 17 ", Some(17)),
            ("999999999", Some(3600)),
            ("Thu, 01 Jan 2026 00:01:30 GMT", Some(90)),
            ("Wed, 31 Dec 2025 23:59:59 GMT", Some(0)),
            ("Fri, 01 Jan 2027 00:00:00 GMT", Some(3600)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}

//! One query over HTTP. The source is not trusted: it gets no redirect, no second look-up of its name, no more time and
//! no more memory than its configuration says, and nothing of what it sends reaches a message, except what its query
//! parser says about the query.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderValue, StatusCode};
use meshupgrade_core::measure::{Answer, Problem, ProblemKind, Query};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, RequestBuilder, Response, Url, redirect, retry};

use super::config::Source;
use super::{address, answer, istiod, problem};
use crate::transport::{self, BodyError, Broken};

/// Asks a source, and waits no longer than its timeout.
pub(super) async fn ask(source: &Arc<Source>, query: &Query) -> Answer {
    let answer = tokio::time::timeout(source.timeout, exchange(source, query)).await;
    answer.unwrap_or_else(|_| {
        let text =
            format!("source {} has no complete answer within {} s", source.name, source.timeout.as_secs());
        Err(problem(ProblemKind::TimedOut, text))
    })
}

async fn exchange(source: &Arc<Source>, query: &Query) -> Answer {
    let promql = istiod::fill(&query.promql, &source.istiod_matchers)?;
    let addresses = address::resolve(&source.url).await?;
    address::check(source, &addresses)?;
    exchange_with(source, query, &promql, addresses).await
}

/// Speaks to these addresses, which are checked, and to no others.
async fn exchange_with(
    source: &Arc<Source>,
    query: &Query,
    promql: &str,
    addresses: Vec<SocketAddr>,
) -> Answer {
    let token = token(source).await?;
    let client = {
        // Certificates are read from files.
        let source = Arc::clone(source);
        tokio::task::spawn_blocking(move || http_client(&source, addresses)).await
    };
    let client = client.map_err(|_| problem(ProblemKind::BadAnswer, "the query broke down".to_owned()))??;
    let request = request(&client, source, query, promql, token.as_deref())?;
    let response = request.send().await.map_err(|error| failed(source, &error))?;
    let status = response.status();
    refuse_by_head(source, &response)?;
    let body = body(source, response).await?;
    if status == StatusCode::OK {
        return answer::rows(&source.name, &body);
    }
    Err(match answer::error_text(&body, token.as_deref()) {
        Some(text) => problem(ProblemKind::BadQuery, text),
        None => refused(source, status),
    })
}

/// The bearer token as it is now: it is replaced from time to time.
async fn token(source: &Source) -> Result<Option<String>, Problem> {
    let Some(file) = &source.token_file else { return Ok(None) };
    let unusable =
        |why: &str| problem(ProblemKind::Unauthorized, format!("tokenFile of source {} {why}", source.name));
    let token = tokio::fs::read_to_string(file)
        .await
        .map_err(|error| unusable(&format!("cannot be read ({})", error.kind())))?;
    match token.trim() {
        "" => Err(unusable("is empty")),
        token => Ok(Some(token.to_owned())),
    }
}

/// Gives the checked addresses for every name: what a second look-up says does not matter.
struct Checked(Vec<SocketAddr>);

impl Resolve for Checked {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// A client for one query: with the next one everything is read and looked up anew. Reads files.
pub(super) fn http_client(source: &Source, addresses: Vec<SocketAddr>) -> Result<Client, Problem> {
    let mut builder = Client::builder()
        .user_agent("meshupgrade-operator")
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .pool_max_idle_per_host(0)
        .https_only(source.url.scheme() == "https")
        .dns_resolver(Checked(addresses));
    if let Some(trusted) = trusted(source)? {
        builder = builder.tls_certs_only(trusted);
    }
    builder.build().map_err(|_| {
        let text = "the system has no certificate authorities that can be used: set caFile".to_owned();
        problem(ProblemKind::Unreachable, text)
    })
}

/// The only certificate authorities that count; `None` means those of the system.
fn trusted(source: &Source) -> Result<Option<Vec<Certificate>>, Problem> {
    if source.url.scheme() == "http" {
        // The system's are not even looked for: the operator's image has none.
        return Ok(Some(Vec::new()));
    }
    let Some(file) = &source.ca_file else { return Ok(None) };
    transport::certificates(file)
        .map(Some)
        .map_err(|why| problem(ProblemKind::Unreachable, format!("caFile of source {} {why}", source.name)))
}

fn request(
    client: &Client,
    source: &Source,
    query: &Query,
    promql: &str,
    token: Option<&str>,
) -> Result<RequestBuilder, Problem> {
    let form = [
        ("query", promql.to_owned()),
        ("time", query.at.to_string()),
        ("timeout", format!("{}s", source.timeout.as_secs())),
        // 0 would mean Prometheus' default.
        // Thanos: no answer rather than a part of one.
        ("partial_response", "false".to_owned()),
        ("lookback_delta", format!("{}s", query.max_age_seconds.max(1))),
    ];
    let mut request = client
        .post(endpoint(&source.url))
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .form(&form);
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            let text = format!("tokenFile of source {} holds no bearer token", source.name);
            problem(ProblemKind::Unauthorized, text)
        })?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    Ok(request)
}

fn endpoint(base: &Url) -> Url {
    let mut url = base.clone();
    // Every http address can be a base.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["api", "v1", "query"]);
    }
    url
}

/// What status and headers rule out before the body is read.
fn refuse_by_head(source: &Source, response: &Response) -> Result<(), Problem> {
    let (name, status) = (&source.name, response.status());
    match status {
        StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let text = format!("source {name} answers {}: check its tokenFile", status.as_u16());
            return Err(problem(ProblemKind::Unauthorized, text));
        }
        _ if status.is_redirection() => {
            let text = format!("source {name} answers {}: its url must be the final one", status.as_u16());
            return Err(problem(ProblemKind::Redirected, text));
        }
        _ => return Err(refused(source, status)),
    }
    // A few bytes of it may become gigabytes.
    if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let text = format!("source {name} answers in an encoding that was not asked for");
        return Err(problem(ProblemKind::BadAnswer, text));
    }
    Ok(())
}

fn refused(source: &Source, status: StatusCode) -> Problem {
    problem(ProblemKind::Refused, format!("source {} answers {}", source.name, status.as_u16()))
}

/// The body, as long as it is not larger than allowed.
async fn body(source: &Source, response: Response) -> Result<Vec<u8>, Problem> {
    let limit = source.max_body_bytes;
    transport::body(response, limit).await.map_err(|error| match error {
        BodyError::TooLarge => {
            let text = format!("source {} answers with more than {limit} bytes: aggregate more", source.name);
            problem(ProblemKind::TooLarge, text)
        }
        BodyError::Broken(error) => failed(source, &error),
    })
}

/// What kept an exchange from its end. The error's own words are not repeated: they have the address.
fn failed(source: &Source, error: &reqwest::Error) -> Problem {
    let name = &source.name;
    match transport::broken(error) {
        Broken::Certificate => {
            let text = format!("source {name} cannot prove who it is: check its certificate, url and caFile");
            problem(ProblemKind::Unreachable, text)
        }
        Broken::Connection(Some(kind)) => {
            problem(ProblemKind::Unreachable, format!("no connection to source {name}: {kind}"))
        }
        Broken::Connection(None) => {
            problem(ProblemKind::Unreachable, format!("no connection to source {name}"))
        }
        Broken::NoHttp => {
            problem(ProblemKind::BadAnswer, format!("source {name} does not answer in whole HTTP"))
        }
    }
}

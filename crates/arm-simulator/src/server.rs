//! Connections, and the way of a request through faults, sign-in and journal.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::answer::{
    Answer, forbidden, invalid_api_version, missing_api_version, nothing_there, server_error, throttled,
    unauthorized,
};
use crate::arm::{self, Ask, CONTAINER_SERVICE_VERSIONS, SUBSCRIPTION_VERSIONS};
use crate::compare::foreign_changes;
use crate::fault::Fault;
use crate::journal::{Entry, digest, revisions_of};
use crate::route::{Call, Target};
use crate::shared::{Shared, uuid};
use crate::{identity, lock, sign_in};

/// Source: Azure Resource Manager documentation, request limits: bodies up to 4 MB.
const MAX_BODY: usize = 4 << 20;

/// Accepts until it is dropped, and then ends its connections.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match tls {
                // A client that does not trust us ends here; it is not our error.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, shared, Door::Arm).await;
                    }
                }
                None => connection(stream, shared, Door::Identity).await,
            }
        });
    }
}

/// Which server was asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Arm,
    Identity,
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
    door: Door,
) {
    let hang_up = Notify::new();
    let service = service_fn(|request| {
        let (shared, hang_up) = (Arc::clone(&shared), &hang_up);
        async move {
            let response = match carried_out(shared, request, door).await {
                Some(response) => response,
                None => lose(hang_up).await,
            };
            Ok::<_, Infallible>(response)
        }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Errors are the client's hanging up.
        _ = serving => {}
        () = hang_up.notified() => {}
    }
}

/// Carries a request out, also when its client hangs up before the answer: what has arrived is not taken back.
async fn carried_out(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    door: Door,
) -> Option<Response<Full<Bytes>>> {
    let (answer, answered) = oneshot::channel();
    let for_task = Arc::clone(&shared);
    shared.spawn(async move {
        // Whether anybody still waits for it is the client's affair.
        let _ = answer.send(respond(&for_task, request, door).await);
    });
    answered.await.ok().flatten()
}

/// The response; none when the connection is to end without one.
async fn respond(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    door: Door,
) -> Option<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let target = Target::of(path);
    let call = match door {
        Door::Arm => target.call(&head.method),
        Door::Identity if path == identity::PATH && head.method == "GET" => Call::IdentityToken,
        Door::Identity => Call::Other,
    };
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        // Inferred: code and text.
        let answer =
            Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", "The body is too large.");
        return Some(sent(shared, answer, &head.headers));
    };
    let body = body.to_bytes();
    let faults = lock(&shared.state).faults.take(call);
    let mut entry = shared.entry(call, head.method.as_str(), path);
    describe(&mut entry, &head.headers, &body);
    if let (Call::PutCluster, Target::Cluster { id }) = (call, &target) {
        describe_put(&mut entry, shared, id, &body);
    }
    if faults.contains(&Fault::DropBefore) {
        entry.lost = true;
        lock(&shared.state).journal.push(entry);
        return None;
    }
    for fault in &faults {
        if let Fault::Delay(time) = fault {
            tokio::time::sleep(*time).await;
        }
    }
    let query = head.uri.query().unwrap_or_default();
    let exchange =
        Exchange { shared, target: &target, call, path, query, headers: &head.headers, body: &body };
    let answer = exchange.answer(&faults, &mut entry);
    entry.status = Some(answer.status.as_u16());
    entry.code.clone_from(&answer.code);
    entry.lost = faults.contains(&Fault::LoseAnswer);
    let lost = entry.lost;
    lock(&shared.state).journal.push(entry);
    (!lost).then(|| sent(shared, answer, &head.headers))
}

/// Ends the connection, and with it this future.
async fn lose(hang_up: &Notify) -> Response<Full<Bytes>> {
    hang_up.notify_one();
    std::future::pending().await
}

fn describe(entry: &mut Entry, headers: &HeaderMap, body: &[u8]) {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    entry.if_match = header("if-match");
    entry.client_request_id = header("x-ms-client-request-id");
    entry.user_agent = header("user-agent");
    entry.body_digest = digest(body);
}

fn describe_put(entry: &mut Entry, shared: &Shared, id: &str, body: &[u8]) {
    let Ok(sent) = serde_json::from_slice::<Value>(body) else { return };
    entry.revisions = Some(revisions_of(&sent));
    if let Some(cluster) = lock(&shared.state).clusters.get(id) {
        entry.foreign_changes = foreign_changes(&cluster.document, &sent);
    }
}

/// Source of the headers: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml. Inferred: the request ids, which the
/// recording leaves out.
fn sent(shared: &Shared, answer: Answer, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert("cache-control", HeaderValue::from_static("no-cache"));
    headers.insert("pragma", HeaderValue::from_static("no-cache"));
    headers.insert("expires", HeaderValue::from_static("-1"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&uuid(&format!("request {}", shared.number()))) {
        headers.insert("x-ms-request-id", id.clone());
        headers.insert("x-ms-correlation-request-id", id);
    }
    if let Some(id) = asked.get("x-ms-client-request-id") {
        headers.insert("x-ms-client-request-id", id.clone());
    }
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    response
}

/// One request, read in full.
struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    target: &'a Target,
    call: Call,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl Exchange<'_> {
    fn answer(&self, faults: &[Fault], entry: &mut Entry) -> Answer {
        if let Some(answer) = faults.iter().find_map(|fault| self.instead(fault)) {
            return answer;
        }
        match self.target {
            _ if self.call == Call::IdentityToken => {
                identity::token(self.shared, self.query, self.headers, faults)
            }
            Target::OpenIdConfiguration { tenant } => sign_in::openid_configuration(self.shared, tenant),
            Target::Token { tenant } if self.call == Call::Token => {
                sign_in::token(self.shared, tenant, self.body, faults)
            }
            _ => self.arm(faults, entry).unwrap_or_else(|refusal| refusal),
        }
    }

    /// Answers of faults that leave everything as it is.
    fn instead(&self, fault: &Fault) -> Option<Answer> {
        let client = self.shared.config.clients.first().map(String::as_str).unwrap_or_default();
        Some(match fault {
            Fault::Unauthorized => unauthorized("InvalidAuthenticationToken", "The access token is invalid."),
            Fault::Forbidden => forbidden(client, action(self.call), self.path),
            Fault::NotFound => crate::answer::cluster_not_found(self.path),
            Fault::TooManyRequests(seconds) => throttled(*seconds),
            Fault::ServerError(status) => server_error(*status),
            Fault::Garbage => Answer {
                body: Bytes::from_static(b"<html><body>Service unavailable</body></html>"),
                ..Answer::ok(&Value::Null)
            },
            Fault::Huge(bytes) => {
                Answer { body: Bytes::from(vec![b' '; *bytes]), ..Answer::ok(&Value::Null) }
            }
            Fault::Redirect(to) => {
                Answer::json(StatusCode::TEMPORARY_REDIRECT, &Value::Null).with("location", to)
            }
            _ => return None,
        })
    }

    fn arm(&self, faults: &[Fault], entry: &mut Entry) -> Result<Answer, Answer> {
        if *self.target == Target::Unknown {
            return Err(nothing_there(self.path));
        }
        sign_in::authenticated(self.shared, self.headers)?;
        let version = self.api_version()?;
        let ask = Ask {
            target: self.target,
            path: self.path,
            query: self.query,
            api_version: &version,
            headers: self.headers,
            faults,
        };
        match (self.call, self.target) {
            // Inferred: code and text for methods that are not simulated, such as PATCH and DELETE.
            (Call::Other, _) => Err(Answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                "HttpMethodNotAllowed",
                "This method is not simulated.",
            )),
            (Call::PutCluster, Target::Cluster { id }) => {
                let sent: Value = serde_json::from_slice(self.body).map_err(|error| unreadable(&error))?;
                let answer = arm::put(self.shared, id, &sent, &ask);
                entry.accepted = answer.status.is_success();
                Ok(answer)
            }
            _ => Ok(arm::get(self.shared, &ask)),
        }
    }

    fn api_version(&self) -> Result<String, Answer> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        let Some((_, version)) = pairs.find(|(name, _)| name == "api-version") else {
            return Err(missing_api_version());
        };
        let known = match self.target {
            Target::Subscriptions | Target::Subscription { .. } | Target::Tenants => SUBSCRIPTION_VERSIONS,
            // Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml, URL of the operation.
            Target::Operation { .. } => &["2016-03-30"],
            _ => CONTAINER_SERVICE_VERSIONS,
        };
        if known.contains(&version.as_ref()) {
            Ok(version.into_owned())
        } else {
            Err(invalid_api_version(&version, &known.join(",")))
        }
    }
}

/// Inferred: code and text.
fn unreadable(error: &serde_json::Error) -> Answer {
    let message = format!("The request content was invalid and could not be deserialized: '{error}'.");
    Answer::error(StatusCode::BAD_REQUEST, "InvalidRequestContent", &message)
}

/// Permissions, from the types of the resources.
///
/// Source: Azure permissions reference, Microsoft.ContainerService. Inferred: that of operations.
fn action(call: Call) -> &'static str {
    match call {
        Call::PutCluster => "Microsoft.ContainerService/managedClusters/write",
        Call::MeshUpgrades => "Microsoft.ContainerService/managedClusters/meshUpgradeProfiles/read",
        Call::MeshRevisions => "Microsoft.ContainerService/locations/meshRevisionProfiles/read",
        Call::Operation => "Microsoft.ContainerService/locations/operations/read",
        Call::Subscriptions => "Microsoft.Resources/subscriptions/read",
        _ => "Microsoft.ContainerService/managedClusters/read",
    }
}

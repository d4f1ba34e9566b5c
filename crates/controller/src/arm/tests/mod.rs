//! Tests against a server on loopback that is ARM and the sign-in service at once, and behaves as each test says.

mod config;
mod operations;
mod reads;
mod sign_in;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshupgrade_core::aks::id::ClusterId;
use meshupgrade_core::aks::problem::{ArmProblem, Class};
use meshupgrade_core::ids::Revision;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::config::{Config, Options};
use super::{Arm, SetRevisions};
use crate::tls_server::{Authority, Reply, Server};

const SUBSCRIPTION: &str = "26fe00f8-9173-4872-9134-bb1d2e00343a";
const PATH: &str = "/subscriptions/26fe00f8-9173-4872-9134-bb1d2e00343a/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/mesh";
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// How long tests wait for what does not come.
const SHORT: Duration = Duration::from_millis(700);

/// A cloud, and a client of it.
struct Cloud {
    server: Server,
    arm: Arm,
    directory: TempDir,
    authority: Authority,
}

impl Cloud {
    /// The same with a client that waits no longer than what does not come is waited for, if the reply is silence.
    fn hurried_by(mut self, reply: &Reply) -> Self {
        if matches!(reply, Reply::Silence(_) | Reply::Stall(_)) {
            self.arm = Arm::new(Config { timeout: SHORT, ..self.arm.config().clone() }).unwrap();
        }
        self
    }
}

fn id() -> ClusterId {
    ClusterId::new(SUBSCRIPTION, "rg", "mesh").unwrap()
}

fn revisions(names: &[&str]) -> Vec<Revision> {
    names.iter().map(|name| Revision::from(*name)).collect()
}

fn ok(body: &Value) -> Reply {
    answer("200 OK", "", body)
}

fn answer(status: &'static str, headers: &str, body: &Value) -> Reply {
    Reply::Answer(status, headers.to_owned(), body.to_string())
}

fn error(status: &'static str, code: &str, message: &str) -> Reply {
    answer(status, "", &json!({"error": {"code": code, "message": message}}))
}

/// The answer of the sign-in service.
fn token(name: &str, seconds: u64) -> Reply {
    ok(&json!({"token_type": "Bearer", "expires_in": seconds, "access_token": name}))
}

fn is_sign_in(request: &str) -> bool {
    request.starts_with(&format!("POST /{TENANT}/oauth2/v2.0/token "))
}

/// A cluster with fields at several depths that this program does not know.
fn cluster(names: &[&str]) -> Value {
    json!({
        "id": PATH, "name": "mesh", "location": "westeurope", "eTag": "e-1", "futureOuter": {"a": [1, {"b": 0.1}]},
        "properties": {
            "provisioningState": "Succeeded", "kubernetesVersion": "1.31", "currentKubernetesVersion": "1.31.7",
            "futureInner": [null, "x"], "spot": 0.987_654_321_012_345_6, "large": 18_446_744_073_709_551_615_u64,
            "agentPoolProfiles": [{"name": "pool", "nodeImageVersion": "image", "future": {"deep": true}}],
            "serviceMeshProfile": {"mode": "Istio", "future": 1, "istio": {
                "revisions": names, "future": {"deeper": ["y"]}, "components": {"ingressGateways": [
                    {"enabled": true, "mode": "External", "future": "z"}]}}},
        },
    })
}

/// A cloud that signs everybody in, and answers everything else as told.
fn cloud(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Cloud {
    cloud_with(move |request| if is_sign_in(request) { token("token-1", 3600) } else { answers(request) })
}

/// A cloud that answers everything as told.
fn cloud_with(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Cloud {
    let authority = Authority::new();
    let server = Server::tls(&authority, "127.0.0.1", answers);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "federated-hush\n").unwrap();
    let host = format!("https://{}", server.address);
    let options = Options {
        endpoint: host.clone(),
        authority_host: format!("{host}/"),
        ca_file: Some(authority.file.clone()),
        client_id: Some("client".to_owned()),
        tenant_id: Some(TENANT.to_owned()),
        federated_token_file: Some(file),
        ..Options::default()
    };
    Cloud { server, arm: arm(&options), directory, authority }
}

/// A client with short pauses.
fn arm(options: &Options) -> Arm {
    let config = Config::new(options).unwrap();
    let poll_interval = Duration::from_millis(100);
    Arm::new(Config {
        timeout: Duration::from_secs(20),
        poll_interval,
        pause: Duration::from_millis(5),
        ..config
    })
    .unwrap()
}

/// A cloud with one cluster that has asm-1-27, and this answer to a PUT.
fn writable(put: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Cloud {
    cloud(move |request| if request.starts_with("PUT") { put(request) } else { ok(&cluster(&["asm-1-27"])) })
}

/// Starts an upgrade to asm-1-28.
async fn start(cloud: &Cloud) -> Result<SetRevisions, ArmProblem> {
    cloud.arm.set_revisions(&id(), &revisions(&["asm-1-27"]), &revisions(&["asm-1-27", "asm-1-28"])).await
}

/// Counts how often it is called, from 0.
fn counter() -> impl Fn() -> usize + Send + Sync + 'static {
    let count = Arc::new(AtomicUsize::new(0));
    move || count.fetch_add(1, Ordering::SeqCst)
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let head = request.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

//! Operations: what happens between an accepted PUT and its end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::answer::{Answer, nothing_there};
use crate::cluster::Cluster;
use crate::config::ControlPlanes;
use crate::fault::{End, Fault};
use crate::lock;
use crate::shared::{Shared, State};

/// An operation as its URL shows it.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    id: String,
    status: &'static str,
    started: Timestamp,
    ended: Option<Timestamp>,
    error: Option<Value>,
    /// Whether a GET finds it.
    lost: bool,
}

impl Operation {
    /// Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml: name, status `InProgress`, startTime; endTime and
    /// `Succeeded` at the end. The form of `error`: Azure Resource Manager documentation, track asynchronous operations.
    /// Inferred: code and text in it, of which no recording was found.
    fn shown(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("name".to_owned(), json!(self.id));
        shown.insert("status".to_owned(), json!(self.status));
        shown.insert("startTime".to_owned(), json!(self.started.to_string()));
        if let Some(ended) = self.ended {
            shown.insert("endTime".to_owned(), json!(ended.to_string()));
        }
        if let Some(error) = &self.error {
            shown.insert("error".to_owned(), error.clone());
        }
        Value::Object(shown)
    }
}

/// What an operation does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub id: String,
    /// Id of the cluster in lower case.
    pub cluster: String,
    /// The revisions before the PUT.
    before: Vec<String>,
    time: Duration,
    end: Option<(End, bool)>,
    installs: bool,
    foreign: Option<Vec<String>>,
}

impl Plan {
    pub fn new(id: String, cluster: String, before: Vec<String>, time: Duration, faults: &[Fault]) -> Self {
        let mut plan = Self { id, cluster, before, time, end: None, installs: true, foreign: None };
        for fault in faults {
            match fault {
                Fault::OperationTakes(time) => plan.time = *time,
                Fault::OperationEnds { end, reverted } => plan.end = Some((*end, *reverted)),
                Fault::NeverInstalled => plan.installs = false,
                Fault::ForeignRevisions(names) => {
                    plan.foreign = Some(names.iter().map(|&name| name.to_owned()).collect());
                }
                _ => {}
            }
        }
        plan
    }
}

/// Notes the operation and starts it.
pub(crate) fn start(shared: &Arc<Shared>, state: &mut State, plan: Plan, lost: bool) {
    let operation = Operation {
        id: plan.id.clone(),
        status: "InProgress",
        started: Timestamp::now(),
        ended: None,
        error: None,
        lost,
    };
    state.operations.insert(plan.id.clone(), operation);
    let for_task = Arc::clone(shared);
    shared.spawn(async move { run(&for_task, plan).await });
}

/// The URL under which a client finds it: signed, and about 3 kB long.
///
/// Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml, header azure-asyncoperation of the PUT.
pub(crate) fn url(shared: &Shared, subscription: &str, location: &str, id: &str) -> String {
    format!(
        "{}/subscriptions/{subscription}/providers/Microsoft.ContainerService/locations/{location}/operations/{id}?{}",
        shared.base_url,
        signed_query(id)
    )
}

fn signed_query(id: &str) -> String {
    let part = |name: &str, length: usize| -> String {
        let block = |number| format!("{:x}", Sha256::digest(format!("{name} {number} {id}")));
        let mut text = (0..=length / 64).map(block).collect::<Vec<_>>().concat();
        text.truncate(length);
        text
    };
    format!(
        "api-version=2016-03-30&t=638555879529270430&c={}&s={}&h={}",
        part("c", 2580),
        part("s", 342),
        part("h", 43)
    )
}

/// The state of an operation.
pub(crate) fn answer(shared: &Shared, state: &State, id: &str, query: &str) -> Answer {
    // Inferred: an operation that is not known is not found, in ARM's usual form.
    let Some(operation) = state.operations.get(id).filter(|operation| !operation.lost) else {
        return nothing_there(&format!("operations/{id}"));
    };
    // Inferred: that the URL must be used as it was given follows from its signature; code and text are made up.
    if query != signed_query(id) {
        return Answer::error(
            hyper::StatusCode::FORBIDDEN,
            "InvalidAsyncOperationSignature",
            "The signature of the operation's URL is not valid.",
        );
    }
    let answer = Answer::ok(&operation.shown());
    match shared.config.retry_after {
        Some(seconds) if operation.ended.is_none() => answer.with("retry-after", &seconds.to_string()),
        _ => answer,
    }
}

async fn run(shared: &Shared, plan: Plan) {
    tokio::time::sleep(plan.time / 2).await;
    if let Some(foreign) = &plan.foreign {
        with_cluster(shared, &plan.cluster, |cluster| {
            cluster.change(|document| set_revisions(document, foreign))
        });
    }
    tokio::time::sleep(plan.time / 2).await;
    let failed = match plan.end {
        Some((end, reverted)) => {
            if reverted {
                with_cluster(shared, &plan.cluster, |cluster| {
                    set_revisions(&mut cluster.document, &plan.before)
                });
            }
            Some((end, "The operation was told to end like this.".to_owned()))
        }
        None if plan.installs => {
            converge(shared, &plan.cluster).await.err().map(|message| (End::Failed, message))
        }
        None => None,
    };
    finish(shared, &plan, failed);
}

/// Installs and removes control planes until they are those of the document.
async fn converge(shared: &Shared, id: &str) -> Result<(), String> {
    while let Some((control_planes, revision, install)) =
        with_cluster(shared, id, |cluster| next_step(cluster)).flatten()
    {
        if install {
            control_planes.install(&revision).await?;
        } else {
            control_planes.remove(&revision).await?;
        }
        with_cluster(shared, id, |cluster| {
            cluster.installed.retain(|other| *other != revision);
            if install {
                cluster.installed.push(revision.clone());
            }
        });
    }
    Ok(())
}

/// The next revision to install (true) or remove; installing comes first, so that a mesh is never without a control plane.
fn next_step(cluster: &Cluster) -> Option<(Arc<dyn ControlPlanes>, String, bool)> {
    let wanted = cluster.revisions();
    let missing = wanted.iter().find(|revision| !cluster.installed.contains(revision));
    let surplus = cluster.installed.iter().find(|revision| !wanted.contains(revision));
    let step = missing.map(|revision| (revision, true)).or(surplus.map(|revision| (revision, false)));
    step.map(|(revision, install)| (Arc::clone(&cluster.control_planes), revision.clone(), install))
}

fn finish(shared: &Shared, plan: &Plan, failed: Option<(End, String)>) {
    let status = match &failed {
        None => "Succeeded",
        Some((End::Failed, _)) => "Failed",
        Some((End::Canceled, _)) => "Canceled",
    };
    let mut state = lock(&shared.state);
    if let Some(cluster) = state.clusters.get_mut(&plan.cluster) {
        cluster.change(|document| Cluster::set_provisioning_state(document, status));
    }
    if let Some(operation) = state.operations.get_mut(&plan.id) {
        operation.status = status;
        operation.ended = Some(Timestamp::now());
        operation.error =
            failed.map(|(end, message)| json!({"code": format!("Operation{end:?}"), "message": message}));
    }
}

/// Puts these revisions into the document.
pub(crate) fn set_revisions(document: &mut Value, revisions: &[String]) {
    document["properties"]["serviceMeshProfile"]["istio"]["revisions"] = json!(revisions);
}

fn with_cluster<T>(shared: &Shared, id: &str, act: impl FnOnce(&mut Cluster) -> T) -> Option<T> {
    lock(&shared.state).clusters.get_mut(id).map(act)
}

//! The lives of pods, as the log tells them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::history::Workload;
use crate::audit::{Call, Log};

/// One pod.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Whose it is, if a workload made it.
    pub owner: Option<Workload>,
    /// When it was made; `None` when that was before the log began.
    pub created: Option<u64>,
    /// Revision of its proxy when it was made; `None` without a proxy.
    pub proxy: Option<String>,
    /// Whether its creation is in the log and showed a proxy.
    pub injected: bool,
    /// When its deletion began.
    pub ending: Option<u64>,
    /// When it was gone.
    pub gone: Option<u64>,
    /// From when on it was ready or not.
    pub ready: Vec<(u64, bool)>,
}

/// All pods by uid.
#[derive(Clone, Debug, Default)]
pub struct Pods(pub BTreeMap<String, Life>);

impl Pods {
    /// When the last pod of a workload was gone that was older than a restart. `None` when one is still there.
    pub fn last_gone(&self, workload: &Workload, restart: u64) -> Option<u64> {
        let older = self.of(workload).filter(|pod| {
            pod.created.is_none_or(|created| created < restart) && pod.gone.is_none_or(|gone| gone > restart)
        });
        older.map(|pod| pod.gone).try_fold(restart, |last, gone| Some(last.max(gone?)))
    }

    /// The pods of a workload.
    pub fn of<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Life> {
        self.0.values().filter(move |pod| pod.owner.as_ref() == Some(workload))
    }
}

/// Reads the pods of a log.
pub fn read(log: &Log) -> Pods {
    let mut pods = Pods::default();
    let calls = log.calls.iter().filter(|call| call.is_write() && call.succeeded());
    for call in calls.filter(|call| call.object.group.is_empty() && call.object.resource == "pods") {
        if let Some(uid) = call.response["metadata"]["uid"].as_str() {
            note(pods.0.entry(uid.to_owned()).or_default(), call);
        }
    }
    pods
}

fn note(pod: &mut Life, call: &Call) {
    let metadata = &call.response["metadata"];
    pod.owner = pod.owner.take().or_else(|| owner(&call.object.namespace, &call.response));
    if call.verb == "create" && call.object.subresource.is_empty() {
        pod.created = Some(call.order);
        pod.injected = has_proxy(&call.response["spec"]);
        pod.proxy = metadata["annotations"]["istio.io/rev"].as_str().map(ToOwned::to_owned);
    }
    if metadata["deletionTimestamp"].is_string() || call.verb == "delete" {
        pod.ending.get_or_insert(call.order);
    }
    if call.verb == "delete" && is_final(call) {
        pod.gone = Some(call.order);
    }
    let ready = is_ready(&call.response["status"]);
    if pod.ready.last().map(|(_, before)| *before) != Some(ready) {
        pod.ready.push((call.order, ready));
    }
}

/// A deletion with grace leaves the object until its kubelet ends it with a deletion without grace.
fn is_final(call: &Call) -> bool {
    let asked = call.request["gracePeriodSeconds"].as_i64();
    let granted = call.response["metadata"]["deletionGracePeriodSeconds"].as_i64();
    asked == Some(0) || granted.unwrap_or(0) == 0
}

fn has_proxy(spec: &Value) -> bool {
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| spec[list].as_array())
        .flatten()
        .any(|container| container["name"] == "istio-proxy")
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn owner(namespace: &str, pod: &Value) -> Option<Workload> {
    let metadata = &pod["metadata"];
    let owners = metadata["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let name = owner["name"].as_str()?;
    match owner["kind"].as_str()? {
        "ReplicaSet" if metadata["labels"]["rollouts-pod-template-hash"].is_string() => {
            let hash = metadata["labels"]["rollouts-pod-template-hash"].as_str()?;
            Some(Workload::new(namespace, "rollouts", name.strip_suffix(hash)?.strip_suffix('-')?))
        }
        "ReplicaSet" => {
            let hash = metadata["labels"]["pod-template-hash"].as_str()?;
            let deployment = name.strip_suffix(hash)?.strip_suffix('-')?;
            Some(Workload::new(namespace, "deployments", deployment))
        }
        "StatefulSet" => Some(Workload::new(namespace, "statefulsets", name)),
        "DaemonSet" => Some(Workload::new(namespace, "daemonsets", name)),
        _ => None,
    }
}

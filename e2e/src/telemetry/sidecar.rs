//! Which pods have a proxy, and for how long each of them has served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use meshupgrade_testbed::is_ready;

const PROXY: &str = "istio-proxy";

/// A live pod with a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sidecar {
    pub namespace: String,
    pub pod: String,
    pub workload: String,
    pub revision: String,
    /// When its proxy started, in seconds since 1970.
    pub started: i64,
}

impl Sidecar {
    /// `None` when the pod has no proxy or is being deleted.
    fn of(pod: &Pod) -> Option<Self> {
        let live = pod.metadata.deletion_timestamp.is_none();
        (live && has_proxy(pod)).then(|| Self {
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            workload: workload(pod),
            revision: pod.annotations().get("istio.io/rev").cloned().unwrap_or_default(),
            started: started(pod).as_second(),
        })
    }
}

fn has_proxy(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let native = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let classic = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    native.iter().chain(classic).any(|container| container.name == PROXY)
}

/// What a person calls the pod's workload, and Istio's telemetry too: the Deployment instead of its ReplicaSet.
fn workload(pod: &Pod) -> String {
    let Some(owner) = pod.owner_references().iter().find(|owner| owner.controller == Some(true)) else {
        return pod.name_any();
    };
    let hash = pod.labels().get("pod-template-hash").filter(|_| owner.kind == "ReplicaSet");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}")));
    deployment.unwrap_or(&owner.name).to_owned()
}

fn started(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let native = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let classic = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let running = |container: &ContainerStatus| {
        container.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|time| time.0)
    };
    let proxy = native.iter().chain(classic).find(|container| container.name == PROXY).and_then(running);
    proxy.unwrap_or_else(Timestamp::now)
}

/// How long each sidecar has been ready. Time that a pod is not ready does not count: nobody sends it requests.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<String, Served>);

#[derive(Debug)]
struct Served {
    sidecar: Sidecar,
    before: Duration,
    ready_since: Option<Instant>,
}

impl Served {
    fn total(&self, now: Instant) -> Duration {
        self.before + self.ready_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn set_ready(&mut self, ready: bool, now: Instant) {
        if self.ready_since.is_some() != ready {
            self.before = self.total(now);
            self.ready_since = ready.then_some(now);
        }
    }
}

impl Ledger {
    /// Takes note of all pods of the cluster. A sidecar counts from the first time that it is ready, until it ends.
    pub fn observe(&mut self, pods: &[Arc<Pod>], now: Instant) {
        let mut gone = std::mem::take(&mut self.0);
        for pod in pods {
            let Some((uid, sidecar)) = pod.uid().zip(Sidecar::of(pod)) else { continue };
            let ready = is_ready(pod);
            let mut served = match gone.remove(&uid) {
                Some(served) => served,
                None if ready => Served { sidecar, before: Duration::ZERO, ready_since: None },
                None => continue,
            };
            served.set_ready(ready, now);
            self.0.insert(uid, served);
        }
    }

    /// Every sidecar with the time that it has served.
    pub fn read(&self, now: Instant) -> Vec<(Sidecar, Duration)> {
        self.0.values().map(|served| (served.sidecar.clone(), served.total(now))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, ready: bool, deleted: bool) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {
                "name": format!("web-6d4cf56db6-{uid}"), "namespace": "shop", "uid": uid,
                "labels": {"pod-template-hash": "6d4cf56db6"}, "annotations": {"istio.io/rev": "asm-1-27"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                    "name": "web-6d4cf56db6", "uid": "1"}],
            },
            "spec": {"initContainers": [{"name": PROXY}], "containers": [{"name": "app"}]},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn seconds(ledger: &Ledger, now: Instant) -> Vec<u64> {
        ledger.read(now).iter().map(|(_, served)| served.as_secs()).collect()
    }

    #[test]
    fn only_ready_time_counts() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut ledger = Ledger::default();
        ledger.observe(&[pod("a", false, false)], begin);
        assert_eq!(seconds(&ledger, after(5)), [0; 0], "never ready yet");
        ledger.observe(&[pod("a", true, false)], after(10));
        ledger.observe(&[pod("a", false, false)], after(14));
        assert_eq!(seconds(&ledger, after(20)), [4]);
        ledger.observe(&[pod("a", true, false)], after(30));
        assert_eq!(seconds(&ledger, after(33)), [7]);
    }

    #[test]
    fn the_counters_of_a_pod_end_with_it() {
        let begin = Instant::now();
        let mut ledger = Ledger::default();
        ledger.observe(&[pod("a", true, false), pod("b", true, false)], begin);
        assert_eq!(ledger.read(begin).len(), 2);
        ledger.observe(&[pod("a", true, true), pod("b", true, false)], begin);
        assert_eq!(ledger.read(begin).len(), 1);
        ledger.observe(&[], begin);
        assert!(ledger.read(begin).is_empty());
    }

    #[test]
    fn a_deployment_lends_its_name() {
        let sidecar = Sidecar::of(&pod("a", true, false)).expect("a sidecar");
        assert_eq!((sidecar.workload.as_str(), sidecar.revision.as_str()), ("web", "asm-1-27"));
    }
}

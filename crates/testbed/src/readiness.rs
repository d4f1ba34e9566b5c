//! Ties the readiness of istiod's simulated pods to the life of the real process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use std::sync::Mutex;

use crate::istio::{Istiods, is_ready};
use crate::lock;
use crate::stages::ANNOTATIONS;

/// Runs until it is aborted: about as often as a kubelet with short probes, and only writes on a difference.
pub(crate) async fn follow(client: Client, namespace: String, istiods: Arc<Mutex<Istiods>>) {
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let (store, writer) = reflector::store();
    let changes =
        reflector::reflector(writer, watcher(pods.clone(), watcher::Config::default().labels("app=istiod")))
            .default_backoff()
            .touched_objects()
            .for_each(|_| std::future::ready(()));
    let checks = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for (revision, alive) in alive(&istiods).await {
                for pod in store.state() {
                    if pod.labels().get("istio.io/rev") == Some(&revision)
                        && let Err(error) = set(&pods, &pod, alive).await
                    {
                        tracing::debug!(%error, pod = pod.name_any(), "readiness of istiod not written");
                    }
                }
            }
        }
    };
    futures::future::join(changes, checks).await;
}

async fn alive(istiods: &Mutex<Istiods>) -> Vec<(String, bool)> {
    let running: Vec<_> = {
        let mut istiods = lock(istiods);
        istiods.iter_mut().map(|(name, istiod)| (name.clone(), istiod.is_running(), istiod.ports)).collect()
    };
    let mut result = Vec::new();
    for (name, running, ports) in running {
        result.push((name, running && is_ready(ports).await));
    }
    result
}

async fn set(pods: &Api<Pod>, pod: &Pod, ready: bool) -> Result<()> {
    let key = format!("{ANNOTATIONS}never-ready");
    if pod.annotations().contains_key(&key) != ready || pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let value = if ready { None } else { Some("true") };
    let patch = json!({"metadata": {"annotations": {key: value}}});
    pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

//! What Kubernetes says of new pods: shown at once, failed at once where it cannot heal, and after a grace where it may.

use anyhow::{Context as _, Result, ensure};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use serde_json::{Value, json};

use crate::deployment;

const IMAGE: &str = "fc-image";
const QUOTA: &str = "fc-quota";
const SECURE: &str = "fc-secure";
const NODE: &str = "fc-node";

fn mesh() -> Mesh {
    let image = App::deployment(IMAGE, "app").replicas(2).set("image-pull-failure-on", TARGET);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": QUOTA}, "spec": {"hard": {"pods": "2"}}});
    [IMAGE, QUOTA, SECURE, NODE]
        .into_iter()
        .fold(Mesh::new(), |mesh, name| mesh.on(SOURCE, name))
        .app(image)
        .app(App::deployment(QUOTA, "app").replicas(2))
        .app(App::deployment(SECURE, "app").replicas(2))
        .app(App::deployment(NODE, "app").replicas(2))
        .object(quota)
}

fn spec() -> Value {
    json!({
        "targetRevision": TARGET,
        "waves": [
            {"name": "facts", "namespaces": [IMAGE, QUOTA, SECURE], "maxConcurrentWorkloads": 3},
            {"name": "node", "namespaces": [NODE], "approval": "Required"},
        ],
        "restart": {"graceSeconds": 12},
        "completion": {"mode": "Keep"},
    })
}

/// Waits until the workload of a namespace is blocked for this reason, with these words.
async fn blocked(s: &Scenario, namespace: &str, reason: &str, words: &str) -> Result<()> {
    s.wait_status("mesh", &format!("{reason} of {namespace}: {words}"), |status| {
        status.blocked.iter().any(|row| {
            row.reason == reason && row.namespace.as_deref() == Some(namespace) && row.message.contains(words)
        })
    })
    .await
    .map(drop)
}

async fn kubectl(s: &Scenario, line: &str) -> Result<()> {
    s.cluster().kubectl(&line.split(' ').collect::<Vec<_>>()).await.map(drop)
}

/// Each heals in its own way, and the run goes on.
async fn mended(s: &Scenario) -> Result<()> {
    kubectl(s, "delete resourcequota small -n fc-quota").await?;
    kubectl(s, "label namespace fc-secure pod-security.kubernetes.io/enforce-").await?;
    let healthy = format!("{}image-pull-failure-on", meshupgrade_testbed::ANNOTATIONS);
    let template = json!({"spec": {"template": {"metadata": {"annotations": {healthy: null}}}}});
    s.patch_workload(&deployment(IMAGE, "app"), "team", template).await
}

#[test]
fn facts_are_shown_at_once_and_fail_a_workload_when_they_do_not_heal() {
    scenario("facts", async |s: &mut Scenario| {
        s.mesh(mesh()).await?;
        s.wave(&[IMAGE, QUOTA, SECURE], 3);
        s.wave(&[NODE], 1);
        kubectl(s, "label namespace fc-secure pod-security.kubernetes.io/enforce=restricted").await?;
        s.start_operator()?;
        s.upgrade("mesh", spec()).await?;
        blocked(s, SECURE, "WorkloadFailed", "violates PodSecurity").await?;
        blocked(s, QUOTA, "RolloutTroubled", "exceeded quota").await?;
        blocked(s, IMAGE, "RolloutTroubled", "ImagePullBackOff").await?;
        // The grace is over long before the timeout of ten minutes.
        blocked(s, QUOTA, "WorkloadFailed", "exceeded quota").await?;
        blocked(s, IMAGE, "WorkloadFailed", "ImagePullBackOff").await?;
        let status = s.status("mesh").await?;
        let healthy = status.condition("Healthy").context("no condition Healthy")?;
        ensure!(healthy.status == "False" && healthy.reason == "WorkloadFailed", "{healthy:?}");
        mended(s).await?;
        let status = s.wait_blocked("mesh", "ApprovalRequired").await?;
        for node in 1..=3 {
            kubectl(s, &format!("cordon node-{node}")).await?;
        }
        let approve = status.actions.iter().find(|offer| offer.action == "approve").context("no approve")?;
        let annotations = json!({"meshupgrade.io/action": approve.value});
        s.patch_upgrade("mesh", json!({"metadata": {"annotations": annotations}})).await?;
        let wait = blocked(s, NODE, "RolloutTroubled", "nodes are available").await;
        for node in 1..=3 {
            kubectl(s, &format!("uncordon node-{node}")).await?;
        }
        wait?;
        s.wait_phase("mesh", "Succeeded").await?;
        s.wait_mesh(&mesh(), TARGET).await?;
        s.judge(&[]).await
    });
}

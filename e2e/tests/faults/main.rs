//! What goes wrong around a run: crashes, other people's writes, missing control planes, and changes of the mesh itself.

mod admission;
mod churn;
mod completion;
mod control_plane;
mod crash;
mod crd;
mod dropped;
mod facts;
mod failures;
mod gateway_api;
mod gateways;
mod holds;
mod kinds;
mod labels;
mod patch;
mod people;
mod plugin;
mod replicas;
mod restarts;
mod rollouts;
mod sidecars;
mod tags;

use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, Workload};
use serde_json::{Value, json};

/// One wave for each namespace, in this order.
fn waves(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name, "namespaces": [name]})).collect()
}

/// A Deployment as the referee calls it.
fn deployment(namespace: &str, name: &str) -> Workload {
    Workload::new(namespace, "deployments", name)
}

/// Two waves of one namespace each. In the second one `slow` needs its time, and `waiting` waits for it.
fn slow_mesh(first: &str, second: &str) -> Mesh {
    Mesh::new()
        .on(SOURCE, first)
        .on(SOURCE, second)
        .app(App::deployment(first, "web").replicas(2))
        .app(App::stateful_set(first, "db").replicas(2))
        .app(App::deployment(second, "slow").replicas(3).set("ready-after", "1500ms"))
        .deployments(second, &["waiting"])
}

/// Applies the mesh and the MeshUpgrade, and tells the referee about its two waves.
async fn begin(s: &mut Scenario, names: [&str; 2]) -> Result<Mesh> {
    let mesh = slow_mesh(names[0], names[1]);
    s.mesh(mesh.clone()).await?;
    for name in names {
        s.wave(&[name], 1);
    }
    Ok(mesh)
}

/// A spec with a wave for each namespace that keeps the old control plane.
fn spec(names: &[&str]) -> Value {
    json!({"targetRevision": TARGET, "waves": waves(names), "completion": {"mode": "Keep"}})
}

/// Runs until `slow` is in rollout.
async fn up_to_the_middle(s: &mut Scenario, names: [&str; 2]) -> Result<Mesh> {
    let mesh = begin(s, names).await?;
    s.start_operator()?;
    s.upgrade("mesh", spec(&names)).await?;
    wait_patched(s, &deployment(names[1], "slow"), 2).await?;
    Ok(mesh)
}

/// Waits until a workload has this generation.
async fn wait_patched(s: &Scenario, workload: &Workload, generation: i64) -> Result<()> {
    meshupgrade_testbed::wait_for(&format!("a patch of {workload}"), Duration::from_mins(1), || async {
        Ok((s.generation(workload).await? >= generation).then_some(()))
    })
    .await
}

/// Fails if one of these workloads is changed within some seconds.
async fn untouched(s: &Scenario, seconds: u64, workloads: &[Workload]) -> Result<()> {
    let mut before = Vec::new();
    for workload in workloads {
        before.push(s.generation(workload).await?);
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    for (workload, before) in workloads.iter().zip(before) {
        let now = s.generation(workload).await?;
        ensure!(now == before, "{workload} was changed while the run should wait");
    }
    Ok(())
}

/// Applies a namespace's label as a GitOps tool does.
async fn sync(s: &Scenario, manager: &str, namespace: &str, revision: &str) -> Result<()> {
    let manifest = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {"istio.io/rev": revision, "e2e.meshupgrade.io/scenario": ""}}});
    s.cluster().apply_yaml_as(manager, &manifest.to_string()).await
}

/// Sets a namespace's label as a person does.
async fn label(s: &Scenario, namespace: &str, revision: &str) -> Result<()> {
    let label = format!("istio.io/rev={revision}");
    s.cluster().kubectl(&["label", "namespace", namespace, &label, "--overwrite"]).await.map(drop)
}

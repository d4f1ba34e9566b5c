//! The end: who removes the old control plane, and what Git says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::{App, Mesh, OperatorSpec, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use crate::{deployment, label, spec, sync, untouched, wait_patched};

async fn removal(s: &mut Scenario) -> Result<()> {
    let name = "rm-shop";
    s.mesh(Mesh::new().on(SOURCE, name).deployments(name, &["web"])).await?;
    s.wave(&[name], 1);
    s.start_operator()?;
    s.upgrade("mesh", json!({"targetRevision": TARGET, "completion": {"mode": "Manual"}})).await?;
    let status = s.wait_condition("mesh", "Paused", "True", "ApprovalRequired").await?;
    ensure!(status.phase == "Completing" && status.message.contains("helm uninstall"), "{}", status.message);
    let unused = status.condition("OldRevisionInUse").is_some_and(|condition| condition.status == "False");
    ensure!(unused, "only a confirmed False allows the removal");
    s.patch_upgrade("mesh", json!({"spec": {"completion": {"mode": "Automatic"}}})).await?;
    s.wait_blocked("mesh", "RemovalPending").await?;
    s.cluster().remove_revision(SOURCE).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn the_old_control_plane_is_removed_by_its_owner() {
    scenario("removal", async |s: &mut Scenario| removal(s).await);
}

/// `istio-injection` beside `istio.io/rev` keeps new pods from the sidecar: it comes back, but only after the workloads.
async fn both_labels(s: &mut Scenario) -> Result<()> {
    let name = "bl-both";
    let mesh = Mesh::new()
        .on(SOURCE, name)
        .deployments(name, &["web"])
        .app(App::deployment(name, "zz-sick").set("never-ready-on", TARGET));
    s.mesh(mesh.clone()).await?;
    s.cluster().kubectl(&["label", "namespace", name, "istio-injection=enabled"]).await?;
    s.wave(&[name], 1);
    s.start_operator()?;
    s.upgrade("mesh", spec(&[name])).await?;
    s.wait_event_about("InjectionLabelRemoved", name).await?;
    let labels = s.labels(name).await?;
    ensure!(labels.len() == 1 && labels["istio.io/rev"] == TARGET, "{labels:?}");
    wait_patched(s, &deployment(name, "zz-sick"), 2).await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    let labels = s.labels(name).await?;
    ensure!(
        labels.len() == 2 && labels["istio.io/rev"] == SOURCE && labels["istio-injection"] == "enabled",
        "{labels:?}"
    );
    s.wait_mesh(&mesh, SOURCE).await?;
    s.judge(&[]).await
}

#[test]
fn both_injection_labels_come_back_in_a_rollback() {
    scenario("both_labels", async |s: &mut Scenario| both_labels(s).await);
}

async fn both_labels_forward(s: &mut Scenario) -> Result<()> {
    let name = "bf-shop";
    s.mesh(Mesh::new().on(SOURCE, name).app(App::deployment(name, "web").replicas(2))).await?;
    s.cluster().kubectl(&["label", "namespace", name, "istio-injection=enabled"]).await?;
    s.wave(&[name], 1);
    s.start_operator()?;
    s.upgrade("mesh", spec(&[name])).await?;
    s.wait_event_about("InjectionLabelRemoved", name).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn both_injection_labels_are_sorted_out() {
    scenario("both_labels_forward", async |s: &mut Scenario| both_labels_forward(s).await);
}

async fn git_owned(s: &mut Scenario) -> Result<()> {
    let owners = [("go-argocd", "argocd-controller"), ("go-flux", "kustomize-controller")];
    let names = owners.map(|(name, _)| name);
    for (name, manager) in owners {
        sync(s, manager, name, SOURCE).await?;
    }
    s.mesh(Mesh::new().deployments(names[0], &["web"]).deployments(names[1], &["web"])).await?;
    for name in &names {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    s.upgrade("mesh", spec(&names)).await?;
    for (name, manager) in owners {
        let note = s.wait_event_about("LabelTakenOver", name).await?;
        ensure!(note.contains(manager), "{note}");
    }
    let status = s.wait_condition("mesh", "Stalled", "True", "GitStillOnOldRevision").await?;
    for (name, manager) in owners {
        ensure!(status.message.contains(&format!("{name} ({manager})")), "{}", status.message);
    }
    s.all_on(TARGET, &names).await?;
    sync(s, owners[1].1, owners[1].0, TARGET).await?;
    s.wait_status("mesh", "one left", |status| {
        status.message.contains("go-argocd") && !status.message.contains("go-flux")
    })
    .await?;
    untouched(s, 2, &[deployment(names[0], "web"), deployment(names[1], "web")]).await?;
    ensure!(s.status("mesh").await?.phase == "Completing");
    // That Argo CD owns the value again is no proof: it may have applied the live one. A sync that changes something is.
    sync(s, owners[0].1, owners[0].0, TARGET).await?;
    untouched(s, 2, &[deployment(names[0], "web")]).await?;
    ensure!(s.status("mesh").await?.phase == "Completing");
    sync_release(s, owners[0].1, names[0]).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.judge(&[]).await
}

/// A sync that sets the target and changes something else as well: evidence of what Git says.
async fn sync_release(s: &Scenario, manager: &str, namespace: &str) -> Result<()> {
    let release = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace,
        "labels": {"istio.io/rev": TARGET, "release": "2", "e2e.meshupgrade.io/scenario": ""}}});
    s.cluster().apply_yaml_as(manager, &release.to_string()).await
}

#[test]
fn completion_waits_until_git_agrees() {
    scenario("git_owned", async |s: &mut Scenario| git_owned(s).await);
}

const TOOL: &str = "argocd-controller";

/// Runs until everything is on the target and only Git does not say so.
async fn up_to_git(s: &mut Scenario, name: &str, operator: &OperatorSpec) -> Result<()> {
    sync(s, TOOL, name, SOURCE).await?;
    s.mesh(Mesh::new().app(App::deployment(name, "web").replicas(2))).await?;
    s.wave(&[name], 1);
    // A pod of a restarted template fell back: its workload is restarted once more, though nobody asked for a retry.
    s.case.retries = 1;
    s.start_operator_as(operator)?;
    s.upgrade("mesh", spec(&[name])).await?;
    s.wait_condition("mesh", "Stalled", "True", "GitStillOnOldRevision").await?;
    s.all_on(TARGET, &[name]).await
}

/// Somebody puts the label back, and a pod is replaced meanwhile: its successor has the source's sidecar.
async fn one_pod_falls(s: &Scenario, name: &str) -> Result<()> {
    label(s, name, SOURCE).await?;
    let pods = s.cluster().kubectl(&["get", "pods", "-n", name, "-o", "name"]).await?;
    let pod = pods.lines().next().context("no pods")?;
    s.cluster().kubectl(&["delete", "-n", name, pod]).await?;
    wait_for("a pod on the source", Duration::from_secs(20), || async {
        let proxies = s.proxies(name).await?;
        Ok((proxies.get(SOURCE) == Some(&1) && proxies.get(TARGET) == Some(&1)).then_some(()))
    })
    .await
}

fn has_stragglers(status: &MeshUpgradeStatus) -> bool {
    status.plan.as_ref().is_some_and(|plan| plan.waves.iter().any(|wave| wave.name == "stragglers"))
}

async fn fallen_pod(s: &mut Scenario) -> Result<()> {
    let name = "fp-shop";
    up_to_git(s, name, &OperatorSpec::default()).await?;
    one_pod_falls(s, name).await?;
    label(s, name, TARGET).await?;
    s.wait_status("mesh", "a wave of stragglers", has_stragglers).await?;
    // Git has not said anything yet: with the pod back, that is again all that is missing.
    s.wait_condition("mesh", "Stalled", "True", "GitStillOnOldRevision").await?;
    s.all_on(TARGET, &[name]).await?;
    sync_release(s, TOOL, name).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn a_pod_that_fell_back_is_found_and_moved() {
    scenario("fallen_pod", async |s: &mut Scenario| fallen_pod(s).await);
}

/// Git agrees in the same moment in which the label is back: every check passes then by the count from before, which
/// knows nothing of the pod. Only a newer one may end the run.
async fn counted_before_the_fall(s: &mut Scenario) -> Result<()> {
    let name = "cb-shop";
    // Seldom enough that the last count is from before.
    let seldom = OperatorSpec::default().flag("--census-interval-seconds=10");
    up_to_git(s, name, &seldom).await?;
    one_pod_falls(s, name).await?;
    sync_release(s, TOOL, name).await?;
    let status = s.wait_phase("mesh", "Succeeded").await?;
    let proxies = s.proxies(name).await?;
    ensure!(has_stragglers(&status), "the run ended by a count from before: {proxies:?}");
    s.all_on(TARGET, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn a_count_from_before_the_label_changed_ends_nothing() {
    scenario("counted_before_the_fall", async |s: &mut Scenario| counted_before_the_fall(s).await);
}

async fn kubectl_owned(s: &mut Scenario) -> Result<()> {
    let name = "ko-shop";
    s.apply_mesh(&Mesh::new().namespace(name, &[])).await?;
    crate::label(s, name, SOURCE).await?;
    s.mesh(Mesh::new().deployments(name, &["web"])).await?;
    s.wave(&[name], 1);
    s.start_operator()?;
    s.upgrade("mesh", spec(&[name])).await?;
    let note = s.wait_event_about("LabelTakenOver", name).await?;
    ensure!(note.contains("kubectl-label"), "{note}");
    // A person is no tool that deploys again: nothing to wait for.
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn a_label_of_kubectl_is_taken_over() {
    scenario("kubectl_owned", async |s: &mut Scenario| kubectl_owned(s).await);
}

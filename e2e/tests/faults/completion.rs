//! The end: who removes the old control plane, and what Git says.

use anyhow::{Result, ensure};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use serde_json::json;

use crate::{deployment, spec, sync, untouched, wait_patched};

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
    let release = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names[0],
        "labels": {"istio.io/rev": TARGET, "release": "2", "e2e.meshupgrade.io/scenario": ""}}});
    s.cluster().apply_yaml_as(owners[0].1, &release.to_string()).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.judge(&[]).await
}

#[test]
fn completion_waits_until_git_agrees() {
    scenario("git_owned", async |s: &mut Scenario| git_owned(s).await);
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

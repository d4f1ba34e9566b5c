//! The target's control plane is not there, or dies.

use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_e2e::{Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::{IstioRevision, wait_for};
use serde_json::json;

use crate::{deployment, spec, untouched, up_to_the_middle};

async fn one_namespace(s: &mut Scenario, name: &str) -> Result<()> {
    s.mesh(Mesh::new().on(SOURCE, name).deployments(name, &["web"])).await?;
    s.wave(&[name], 1);
    s.start_operator()
}

/// It waits before its first write, and says for what.
async fn waits(s: &Scenario, name: &str, reason: &str, word: &str) -> Result<()> {
    let status = s.wait_condition("mesh", "ControlPlaneReady", "False", reason).await?;
    ensure!(status.phase == "StartingControlPlane", "{}", status.phase);
    ensure!(status.message.contains(word), "{word} is not in {:?}", status.message);
    untouched(s, 1, &[deployment(name, "web")]).await?;
    ensure!(
        s.revision_label(name).await? == SOURCE,
        "the label was written before the control plane was there"
    );
    Ok(())
}

async fn ends(s: &Scenario, name: &str) -> Result<()> {
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    s.judge(&[]).await
}

async fn wait_unready(s: &Scenario, revision: &str) -> Result<()> {
    wait_for("the end of istiod", Duration::from_secs(20), || async {
        let args = ["get", "deployment", "-n", "istio-system", &format!("istiod-{revision}"), "-o"];
        let ready = s.cluster().kubectl(&[&args[..], &["jsonpath={.status.readyReplicas}"]].concat()).await?;
        Ok(matches!(ready.trim(), "" | "0").then_some(()))
    })
    .await
}

async fn istiod_stopped(s: &mut Scenario) -> Result<()> {
    let name = "is-shop";
    s.cluster().stop_istiod(TARGET).await?;
    wait_unready(s, TARGET).await?;
    s.case.unready.insert(TARGET.to_owned());
    one_namespace(s, name).await?;
    s.upgrade("mesh", spec(&[name])).await?;
    waits(s, name, "IstiodNotReady", "0 of 1 pods").await?;
    s.cluster().start_istiod(TARGET).await?;
    ends(s, name).await
}

#[test]
fn an_istiod_that_does_not_run_at_the_start() {
    scenario("istiod_stopped", async |s: &mut Scenario| istiod_stopped(s).await);
}

async fn no_webhook(s: &mut Scenario) -> Result<()> {
    let name = "nw-shop";
    s.cluster().delete_webhook(TARGET).await?;
    one_namespace(s, name).await?;
    s.upgrade("mesh", spec(&[name])).await?;
    waits(s, name, "WebhookNotReady", "no injector webhook").await?;
    s.cluster().restore_webhook(TARGET).await?;
    ends(s, name).await
}

#[test]
fn a_webhook_that_is_missing_at_the_start() {
    scenario("no_webhook", async |s: &mut Scenario| no_webhook(s).await);
}

async fn unknown_revision(s: &mut Scenario) -> Result<()> {
    let (name, target) = ("ur-shop", "asm-1-29");
    target.clone_into(&mut s.case.target);
    one_namespace(s, name).await?;
    let mut spec = spec(&[name]);
    spec["targetRevision"] = json!(target);
    s.upgrade("mesh", spec).await?;
    waits(s, name, "RevisionNotFound", target).await?;
    s.cluster().install_revision(&IstioRevision::new(target, "1.29.0")).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(target, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn a_revision_that_nobody_installed_yet() {
    scenario("unknown_revision", async |s: &mut Scenario| {
        let result = unknown_revision(s).await;
        // Whatever came of it: the next scenario knows two revisions.
        let running = s.cluster().pids().iter().any(|(name, _)| name == "istiod-asm-1-29");
        if running {
            s.cluster().remove_revision("asm-1-29").await?;
        }
        result
    });
}

/// Named in one object, so told there; the others do not suffer from it.
async fn wrong_namespace(s: &mut Scenario) -> Result<()> {
    let name = "wn-shop";
    one_namespace(s, name).await?;
    let mut spec = spec(&[name]);
    spec["controlPlane"] = json!({"external": {"namespace": "istio-sistem"}});
    s.upgrade("mesh", spec).await?;
    let status = s.wait_condition("mesh", "Stalled", "True", "ConfigMapsUnreadable").await?;
    for word in ["istio-sistem", "spec.controlPlane.external.namespace", "istioNamespaces"] {
        ensure!(status.message.contains(word), "{word} is not in {:?}", status.message);
    }
    untouched(s, 1, &[deployment(name, "web")]).await?;
    s.patch_upgrade("mesh", json!({"spec": {"controlPlane": {"external": {"namespace": "istio-system"}}}}))
        .await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    // To be refused is what this is about.
    s.judge(&["nothing-refused"]).await
}

#[test]
fn an_istio_namespace_that_the_operator_may_not_read() {
    scenario("wrong_namespace", async |s: &mut Scenario| wrong_namespace(s).await);
}

async fn istiod_killed(s: &mut Scenario) -> Result<()> {
    let names = ["ik-first", "ik-second"];
    let mesh = up_to_the_middle(s, names).await?;
    s.cluster().kill_istiod(TARGET).await?;
    let status = s.wait_blocked("mesh", "IstiodNotReady").await?;
    let ready = status.condition("ControlPlaneReady").is_some_and(|condition| condition.status == "True");
    ensure!(!ready && status.phase == "Migrating", "{}", status.phase);
    untouched(s, 4, &[deployment(names[1], "waiting"), deployment(names[1], "slow")]).await?;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1, "restarted without istiod");
    s.cluster().start_istiod(TARGET).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    // Proxies without their istiod are not ready: that is not the run's doing.
    s.judge(&["enough-pods-ready"]).await
}

#[test]
fn an_istiod_that_dies_in_the_middle_of_a_wave() {
    scenario("istiod_killed", async |s: &mut Scenario| istiod_killed(s).await);
}

//! Restarts that do not go through.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::PostParams;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use crate::{deployment, spec, untouched, up_to_the_middle};

/// The owner puts the whole object back as it is in Git: `kubectl replace`, or Argo CD's `Replace=true`.
async fn stripped(s: &mut Scenario) -> Result<()> {
    let names = ["st-first", "st-second"];
    up_to_the_middle(s, names).await?;
    let slow = deployment(names[1], "slow");
    let api = s.workloads(&slow)?;
    let mut object = api.get(&slow.name).await?;
    object.metadata.managed_fields = None;
    object.metadata.resource_version = None;
    let annotations = object.data["spec"]["template"]["metadata"]["annotations"].as_object_mut();
    annotations.context("no annotations")?.remove("meshupgrade.io/restart").context("not restarted")?;
    let manager = PostParams { field_manager: Some("kubectl-replace".into()), ..PostParams::default() };
    api.replace(&slow.name, &manager, &object).await?;
    let status = s.wait_condition("mesh", "Stalled", "True", "RestartReverted").await?;
    let row = status.blocked.iter().find(|row| row.reason == "RestartReverted").context("no row")?;
    ensure!(row.name.as_deref() == Some("slow") && row.message.contains("meshupgrade.io/retry"), "{row:?}");
    // Whether the replacing manager is among them depends on whether it owns anything that it changed.
    let named = row.message.contains("its field managers: ") && row.message.contains("testbed");
    ensure!(named, "it names who may have done it: {row:?}");
    untouched(s, 3, &[slow.clone(), deployment(names[1], "waiting")]).await?;
    s.case.retries = 1;
    s.retry("mesh", "1").await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn the_annotation_is_stripped_in_the_middle_of_a_rollout() {
    scenario("stripped", async |s: &mut Scenario| stripped(s).await);
}

/// An ordered StatefulSet does not replace an unready pod, not even by the template that would mend it.
async fn stuck_stateful_set(s: &mut Scenario) -> Result<()> {
    let name = "ss-shop";
    let db = App::stateful_set(name, "db").replicas(2).set("never-ready-on", TARGET);
    s.mesh(Mesh::new().on(SOURCE, name).app(db)).await?;
    s.wave(&[name], 1);
    s.start_operator()?;
    let mut spec = spec(&[name]);
    spec["restart"] = json!({"timeoutSeconds": 3});
    s.upgrade("mesh", spec).await?;
    s.wait_blocked("mesh", "WorkloadFailed").await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    let status = s.wait_condition("mesh", "Stalled", "True", "StatefulSetStuck").await?;
    ensure!(status.phase == "RollingBack", "{}", status.phase);
    let command = format!("kubectl delete pod db-1 -n {name}");
    ensure!(status.message.contains(&command), "{}", status.message);
    s.cluster().kubectl(&["delete", "pod", "db-1", "-n", name]).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.all_on(SOURCE, &[name]).await?;
    s.judge(&[]).await
}

#[test]
fn an_ordered_stateful_set_holds_up_a_rollback() {
    scenario("stuck_stateful_set", async |s: &mut Scenario| stuck_stateful_set(s).await);
}

/// A policy of the cluster's own that lets nobody change these Deployments.
fn policy(name: &str, namespace: &str) -> String {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["UPDATE"],
                    "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.template == oldObject.spec.template",
                "message": "templates change through the release train only"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    format!("{policy}\n---\n{binding}")
}

async fn refused(s: &mut Scenario) -> Result<()> {
    let name = "rf-shop";
    s.mesh(Mesh::new().on(SOURCE, name).deployments(name, &["web"])).await?;
    s.wave(&[name], 1);
    let policy = policy("release-train", name);
    s.cluster().apply_yaml(&policy).await?;
    wait_for("the policy", Duration::from_secs(20), || async {
        let patch = r#"{"spec":{"template":{"metadata":{"labels":{"a":"b"}}}}}"#;
        let args = ["patch", "deployment", "web", "-n", name, "--dry-run=server", "-p", patch];
        Ok(s.cluster().kubectl(&args).await.is_err().then_some(()))
    })
    .await?;
    s.start_operator()?;
    s.upgrade("mesh", spec(&[name])).await?;
    let status = s.wait_condition("mesh", "Stalled", "True", "WriteRefused").await?;
    let row = status.blocked.iter().find(|row| row.reason == "WriteRefused").context("no row")?;
    ensure!(row.name.as_deref() == Some("web") && row.message.contains("release train"), "{row:?}");
    s.cluster().kubectl_stdin(&["delete", "-f", "-"], &policy).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &[name]).await?;
    s.judge(&["nothing-refused", "write-budget"]).await
}

#[test]
fn a_policy_refuses_the_patch_of_a_workload() {
    scenario("refused", async |s: &mut Scenario| {
        let result = refused(s).await;
        let delete =
            ["delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "release-train"];
        s.cluster().kubectl(&[&delete[..], &["--ignore-not-found"]].concat()).await?;
        result
    });
}

//! Rollouts of Argo Rollouts, with its real controller.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, Workload, scenario};
use meshupgrade_testbed::{Program, ProgramSpec, wait_for};
use serde_json::json;

use crate::waves;

const SHOP: &str = "ro-shop";
/// Between two evictions the controller may look only every 30 s (`restartPodCheckTime` in its rollout/restart.go).
const PATIENCE: Duration = Duration::from_mins(2);

fn rollout(name: &str) -> Workload {
    Workload::new(SHOP, "rollouts", name)
}

/// Installs the CRDs and starts the controller, which ends with what is returned.
async fn start_argo(s: &Scenario) -> Result<Program> {
    let cluster = s.cluster();
    let crds = cluster.binaries().rollouts_crds();
    cluster.kubectl(&["apply", "--server-side", "-f", &crds.display().to_string()]).await?;
    let established = ["wait", "--for=condition=Established", "crd/rollouts.argoproj.io", "--timeout=30s"];
    cluster.kubectl(&established).await?;
    let args = vec![
        format!("--kubeconfig={}", cluster.kubeconfig().display()),
        format!("--metricsPort={}", cluster.take_port()?),
        format!("--healthzPort={}", cluster.take_port()?),
        "--leader-elect=false".into(),
    ];
    cluster.start_program(&ProgramSpec { program: "rollouts-controller".into(), args, dir: s.log_dir()? })
}

async fn remove_crds(s: &Scenario) -> Result<()> {
    let crds = s.cluster().binaries().rollouts_crds();
    s.cluster().kubectl(&["delete", "-f", &crds.display().to_string()]).await.map(drop)
}

async fn phase(s: &Scenario, name: &str) -> Result<String> {
    let object = s.workloads(&rollout(name))?.get(name).await?;
    Ok(object.data["status"]["phase"].as_str().unwrap_or_default().to_owned())
}

async fn wait_phase(s: &Scenario, name: &str, wanted: &str) -> Result<()> {
    wait_for(&format!("{name} to be {wanted}"), PATIENCE, || async {
        let phase = phase(s, name).await?;
        ensure!(phase == wanted, "{phase}");
        Ok(Some(()))
    })
    .await
}

/// How often the operator wrote a Rollout. Every write must be of its time and nothing else.
async fn writes(s: &Scenario, name: &str) -> Result<usize> {
    let log = s.log().await?;
    let ours = log.by(&s.case.operator).filter(|call| {
        call.object.resource == "rollouts" && call.object.name == name && call.is_write() && call.succeeded()
    });
    let mut count = 0;
    for call in ours {
        let spec = call.request["spec"].as_object().context("a write without a spec")?;
        ensure!(call.verb == "patch" && spec.keys().eq(["restartAt"]), "{call}: {}", call.request);
        count += 1;
    }
    Ok(count)
}

fn mesh() -> Mesh {
    Mesh::new()
        .on(SOURCE, SHOP)
        .app(App::rollout(SHOP, "web", &json!([])).replicas(2))
        .app(App::rollout(SHOP, "halted", &json!([{"setWeight": 50}, {"pause": {}}])).replicas(2))
        .deployments(SHOP, &["plain"])
}

/// `halted` gets a new version, whose canary waits for a person.
async fn up_to_a_pause(s: &Scenario) -> Result<()> {
    wait_phase(s, "web", "Healthy").await?;
    wait_phase(s, "halted", "Healthy").await?;
    let version =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2"}]}}}});
    s.patch_workload(&rollout("halted"), "owner", version).await?;
    wait_phase(s, "halted", "Paused").await
}

async fn promote(s: &Scenario) -> Result<()> {
    // What `kubectl argo rollouts promote` does at a pause.
    let patch = json!({"status": {"pauseConditions": null}}).to_string();
    let arguments =
        ["patch", "rollout", "halted", "-n", SHOP, "--subresource=status", "--type=merge", "-p", &patch];
    s.cluster().kubectl(&arguments).await.map(drop)
}

async fn there(s: &Scenario) -> Result<()> {
    let status = s
        .wait_status_within(PATIENCE, "mesh", "only halted left", |status| {
            status.blocked.iter().any(|row| row.message.contains("kubectl argo rollouts promote halted"))
                && status.progress == "2/3"
        })
        .await?;
    ensure!(status.phase == "Migrating", "{}", status.phase);
    ensure!((writes(s, "web").await?, writes(s, "halted").await?) == (1, 0), "one restart of web alone");
    promote(s).await?;
    s.wait_status_within(PATIENCE, "mesh", "Completing", |status| status.phase == "Completing").await?;
    s.all_on(TARGET, &[SHOP]).await?;
    ensure!((writes(s, "web").await?, writes(s, "halted").await?) == (1, 1), "each once");
    Ok(())
}

async fn and_back(s: &Scenario) -> Result<()> {
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true, "controlPlane": "Keep"}}}))
        .await?;
    s.wait_status_within(PATIENCE, "mesh", "RolledBack", |status| status.phase == "RolledBack").await?;
    s.wait_mesh(&mesh(), SOURCE).await?;
    s.all_on(SOURCE, &[SHOP]).await?;
    ensure!((writes(s, "web").await?, writes(s, "halted").await?) == (2, 2), "each once in each direction");
    Ok(())
}

/// What the chart's policy does not let the operator write, whatever its rights say.
async fn is_bound(s: &Scenario) -> Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
    let api: Api<DynamicObject> = Api::namespaced_with(s.operator_client().await?, SHOP, &resource);
    let image = json!([{"name": "app", "image": "evil:1"}]);
    let refused = [
        (json!({"spec": {"replicas": 9}}), "only change spec.restartAt"),
        (json!({"spec": {"paused": true}}), "only change spec.restartAt"),
        (json!({"spec": {"strategy": null}}), "only change spec.restartAt"),
        (json!({"spec": {"template": {"spec": {"containers": image}}}}), "only change spec.restartAt"),
        (json!({"metadata": {"annotations": {"meshupgrade.io/restart": "1"}}}), "not change the metadata"),
        (json!({"metadata": {"finalizers": ["example.com/a"]}}), "not change the metadata"),
    ];
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    for (patch, says) in refused {
        let Err(error) = api.patch("web", &dry, &Patch::Merge(&patch)).await else {
            bail!("accepted: {patch}");
        };
        ensure!(error.to_string().contains(says), "{patch}: {error}");
    }
    let allowed = json!({"spec": {"restartAt": "2026-03-01T10:00:01Z"}});
    api.patch("web", &dry, &Patch::Merge(&allowed)).await?;
    Ok(())
}

async fn argo(s: &mut Scenario) -> Result<()> {
    // The operator begins where nobody knows the kind.
    s.start_operator()?;
    let mut controller = start_argo(s).await?;
    s.mesh(mesh()).await?;
    s.wave(&[SHOP], 1);
    up_to_a_pause(s).await?;
    let spec = json!({"targetRevision": TARGET, "waves": waves(&[SHOP]), "planOnly": true});
    s.upgrade("mesh", spec).await?;
    s.wait_status("mesh", "a plan with the Rollouts", |status| {
        status.plan.as_ref().is_some_and(|plan| plan.workloads == 3 && plan.not_restarted.is_empty())
    })
    .await?;
    s.patch_upgrade("mesh", json!({"spec": {"planOnly": false}})).await?;
    there(s).await?;
    and_back(s).await?;
    controller.check()?;
    s.judge(&[]).await?;
    is_bound(s).await?;
    // A kind that vanishes is no failure of a watch.
    controller.stop().await?;
    remove_crds(s).await
}

#[test]
fn rollouts_of_argo_are_restarted_by_their_time() {
    scenario("argo_rollouts", async |s: &mut Scenario| argo(s).await);
}

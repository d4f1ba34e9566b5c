//! What a run does not restart: each is in the plan with its reason and the remedy, holds completion up, and is moved by
//! nothing but the remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::referee::restarts;
use meshupgrade_e2e::state::Proxies;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, Workload, scenario};
use meshupgrade_testbed::wait_for;
use serde_json::{Value, json};

use crate::{deployment, spec};

const SHOP: &str = "kd-shop";
/// Pods of [`mesh`] and [`others`] that a run moves by itself.
const MOVED: usize = 2 + 2 + 3;
/// Pods of [`mesh`] and [`others`] that it leaves to a person.
const LEFT: usize = 2 + 3 + 1 + 2 + 1 + 1 + 4;

/// Kind, name, reason, and words of the remedy.
const EXCEPTIONS: [(&str, &str, &str, &str); 11] = [
    (
        "StatefulSet",
        "by-hand",
        "OnDelete",
        "kubectl rollout restart statefulset by-hand -n kd-shop, then delete",
    ),
    (
        "DaemonSet",
        "on-nodes",
        "OnDelete",
        "kubectl rollout restart daemonset on-nodes -n kd-shop, then delete",
    ),
    ("Deployment", "halted", "Paused", "kubectl rollout resume deployment halted -n kd-shop"),
    ("StatefulSet", "parted", "Partitioned", "set the partition to 0"),
    ("Deployment", "owned", "OwnedByController", "ConfigMap owner owns it"),
    ("Deployment", "edge-istio", "GatewayApiManaged", "when the Gateway's label istio.io/rev"),
    ("Pod", "bare", "BarePod", "delete and create it by hand"),
    ("Job", "migrate", "RunningJob", "wait until it ends, or delete it"),
    ("Job", "report-now", "RunningJob", "wait until it ends, or delete it"),
    ("CronJob", "report", "CronJob", "its next run takes the revision of the namespace"),
    ("ReplicaSet", "lone", "UnknownOwner", "restart it through its owner"),
];

fn mesh() -> Mesh {
    let on_delete = || json!({"type": "OnDelete"});
    let parted = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    Mesh::new()
        .on(SOURCE, SHOP)
        .app(App::deployment(SHOP, "web").replicas(2))
        .app(App::stateful_set(SHOP, "db").replicas(2))
        .app(App::daemon_set(SHOP, "agent"))
        .app(App::stateful_set(SHOP, "by-hand").replicas(2).spec("updateStrategy", on_delete()))
        .app(App::daemon_set(SHOP, "on-nodes").spec("updateStrategy", on_delete()))
        .deployments(SHOP, &["halted", "owned"])
        .app(App::stateful_set(SHOP, "parted").replicas(2).spec("updateStrategy", parted))
        .app(of_the_gateway_api())
}

/// As istiod renders it for a Gateway (files/kube-gateway.yaml of its chart): with a proxy of its own, and out of injection.
fn of_the_gateway_api() -> App {
    App::deployment(SHOP, "edge-istio")
        .container("istio-proxy", "istio/proxyv2:1")
        .pod_annotation("istio.io/rev", SOURCE)
        .pod_label("sidecar.istio.io/inject", "false")
        .pod_label("gateway.networking.k8s.io/gateway-name", "edge")
        .pod_label("gateway.istio.io/managed", "istio.io-gateway-controller")
}

fn object(api: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": SHOP}, "spec": spec})
}

/// The template of pods that run for long, also those of Jobs.
fn template(name: &str, policy: &str) -> Value {
    let ends = format!("{}complete-after", meshupgrade_testbed::ANNOTATIONS);
    json!({"metadata": {"labels": {"app": name}, "annotations": {ends: "1h"}},
        "spec": {"restartPolicy": policy, "containers": [{"name": "app", "image": "app:1"}]}})
}

fn bare_pod() -> Value {
    object("v1", "Pod", "bare", &template("bare", "Always")["spec"])
}

/// What is no Deployment, StatefulSet or DaemonSet. `report` is due every fourth year.
fn others() -> Mesh {
    let migrate = json!({"template": template("migrate", "Never")});
    let report = json!({"schedule": "0 0 29 2 *",
        "jobTemplate": {"spec": {"template": template("report", "Never")}}});
    let lone = json!({"selector": {"matchLabels": {"app": "lone"}}, "template": template("lone", "Always")});
    let owner =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "namespace": SHOP}});
    Mesh::new()
        .object(bare_pod())
        .object(object("batch/v1", "Job", "migrate", &migrate))
        .object(object("batch/v1", "CronJob", "report", &report))
        .object(object("apps/v1", "ReplicaSet", "lone", &lone))
        .object(owner)
}

/// `kubectl` with the arguments of a line.
async fn kubectl(s: &Scenario, line: &str) -> Result<String> {
    s.cluster().kubectl(&line.split(' ').collect::<Vec<_>>()).await
}

async fn apply_all(s: &mut Scenario) -> Result<()> {
    s.mesh(mesh()).await?;
    s.apply_mesh(&others()).await?;
    kubectl(s, "create job report-now --from=cronjob/report -n kd-shop").await?;
    kubectl(s, "rollout pause deployment halted -n kd-shop").await?;
    let uid = kubectl(s, "get configmap owner -n kd-shop -o jsonpath={.metadata.uid}").await?;
    let owner =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": true});
    let patch = json!({"metadata": {"ownerReferences": [owner]}});
    s.patch_workload(&deployment(SHOP, "owned"), "owner", patch).await?;
    wait_proxies(s, &[(SOURCE, MOVED + LEFT)]).await
}

async fn wait_proxies(s: &Scenario, wanted: &[(&str, usize)]) -> Result<()> {
    let wanted: Proxies = wanted.iter().map(|(revision, count)| ((*revision).to_owned(), *count)).collect();
    wait_for(&format!("proxies {wanted:?}"), Duration::from_secs(30), || async {
        let found = s.proxies(SHOP).await?;
        ensure!(found == wanted, "{found:?}");
        Ok(Some(()))
    })
    .await
}

async fn generations(s: &Scenario) -> Result<BTreeMap<Workload, i64>> {
    let mut all = BTreeMap::new();
    for workload in mesh().apps.iter().map(App::workload) {
        all.insert(workload.clone(), s.generation(&workload).await?);
    }
    Ok(all)
}

/// Fails unless the operator restarted these, each once, and nothing else.
async fn only_restarted(s: &Scenario, names: &[&str]) -> Result<()> {
    let found = restarts(&s.case, &s.log().await?);
    let restarted: BTreeSet<&str> = found.keys().map(|workload| workload.name.as_str()).collect();
    let wanted: BTreeSet<&str> = names.iter().copied().collect();
    ensure!(restarted == wanted && found.values().all(|times| *times == 1), "restarted: {found:?}");
    Ok(())
}

/// Each is in the plan, once, with its reason and what a person does about it.
fn is_planned(status: &MeshUpgradeStatus) -> Result<()> {
    let plan = status.plan.as_ref().context("no plan")?;
    for (kind, name, reason, words) in EXCEPTIONS {
        let rows: Vec<_> =
            plan.not_restarted.iter().filter(|row| row.kind == kind && row.name == name).collect();
        let right =
            rows.len() == 1 && rows.iter().all(|row| row.reason == reason && row.message.contains(words));
        ensure!(right, "{kind} {name} should be {reason}: {rows:?}");
    }
    let strange = plan
        .not_restarted
        .iter()
        .find(|row| !EXCEPTIONS.iter().any(|(kind, name, ..)| row.kind == *kind && row.name == *name));
    ensure!(strange.is_none(), "nobody expects {strange:?}");
    Ok(())
}

/// The row that holds completion up because so many proxies are on the source.
async fn wait_left(s: &Scenario, words: &str) -> Result<(MeshUpgradeStatus, String)> {
    let begin = format!("ProxiesMoved: {words} on {SOURCE} in {SHOP}");
    let is_it = |message: &str| message.starts_with(&begin);
    let status = s
        .wait_status("mesh", &begin, |status| {
            status.phase == "Completing" && status.blocked.iter().any(|row| is_it(&row.message))
        })
        .await?;
    let in_use = status.condition("OldRevisionInUse").is_some_and(|condition| condition.status == "True");
    ensure!(in_use, "only a confirmed False allows the removal: {:?}", status.conditions);
    let row = status.blocked.iter().find(|row| is_it(&row.message)).context("no row")?.clone();
    ensure!(row.reason == "RevisionInUse", "{row:?}");
    Ok((status, row.message))
}

/// Completion waits and says for what.
async fn is_blocked(s: &Scenario) -> Result<()> {
    let (status, message) = wait_left(s, &format!("{LEFT} proxies run")).await?;
    let workloads = [
        "Not restarted by MeshUpgrade: Deployment kd-shop/halted (Paused)",
        "Deployment kd-shop/owned (OwnedByController)",
        "StatefulSet kd-shop/by-hand (OnDelete)",
        "StatefulSet kd-shop/parted (Partitioned)",
        "DaemonSet kd-shop/on-nodes (OnDelete)",
        "kubectl rollout resume deployment halted",
    ];
    let pods = ["kd-shop/bare", "(Job migrate)", "(Job report-now)", "(ReplicaSet lone)"];
    for name in workloads.iter().chain(&pods) {
        ensure!(message.contains(name), "{name} is missing: {message}");
    }
    let gateway = status.blocked.iter().find(|row| row.message.starts_with("GatewaysMoved: "));
    ensure!(gateway.is_some_and(|row| row.message.contains("kd-shop/edge-istio-")), "{:?}", status.blocked);
    Ok(())
}

/// Pod after pod, each when the one before serves again.
async fn delete_pods(s: &Scenario, app: &str) -> Result<()> {
    let pods = kubectl(s, &format!("get pods -n {SHOP} -l app={app} -o name")).await?;
    for pod in pods.lines() {
        kubectl(s, &format!("delete {pod} -n {SHOP}")).await?;
        s.wait_mesh_on(&mesh(), &[SOURCE, TARGET]).await?;
    }
    Ok(())
}

/// What the plan says that a person does, for all but one.
async fn remedies(s: &Scenario) -> Result<()> {
    for (resource, name) in [("statefulset", "by-hand"), ("daemonset", "on-nodes")] {
        kubectl(s, &format!("rollout restart {resource} {name} -n {SHOP}")).await?;
        delete_pods(s, name).await?;
    }
    kubectl(s, "rollout resume deployment halted -n kd-shop").await?;
    let whole = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    s.patch_workload(&Workload::new(SHOP, "statefulsets", "parted"), "owner", whole).await?;
    kubectl(s, "rollout restart deployment owned -n kd-shop").await?;
    // The part of istiod, which sees that the label of the Gateway's namespace is another one.
    let rendered = json!({"spec": {"template": {"metadata": {"annotations": {"istio.io/rev": TARGET}}}}});
    s.patch_workload(&deployment(SHOP, "edge-istio"), "istiod", rendered).await?;
    kubectl(s, "delete pod bare -n kd-shop").await?;
    s.cluster().apply_yaml(&bare_pod().to_string()).await?;
    kubectl(s, "delete job report-now -n kd-shop").await?;
    kubectl(s, "create job report-next --from=cronjob/report -n kd-shop").await?;
    kubectl(s, "delete pod -l app=lone -n kd-shop").await.map(drop)
}

async fn every_kind(s: &mut Scenario) -> Result<()> {
    apply_all(s).await?;
    let before = generations(s).await?;
    s.wave(&[SHOP], 1);
    s.start_operator()?;
    s.upgrade("mesh", spec(&[SHOP])).await?;
    is_blocked(s).await?;
    is_planned(&s.status("mesh").await?)?;
    only_restarted(s, &["agent", "db", "web"]).await?;
    let after = generations(s).await?;
    let changed = before.iter().filter(|(workload, generation)| after[*workload] != **generation).count();
    ensure!(changed == 3, "from {before:?} to {after:?}");
    wait_proxies(s, &[(SOURCE, LEFT), (TARGET, MOVED)]).await?;
    s.judge(&[]).await?;
    remedies(s).await?;
    let (_, message) = wait_left(s, "1 proxy runs").await?;
    ensure!(message.contains("(Job migrate); wait until they end"), "{message}");
    wait_proxies(s, &[(SOURCE, 1), (TARGET, MOVED + LEFT - 1)]).await?;
    kubectl(s, "delete job migrate -n kd-shop").await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.wait_mesh(&mesh(), TARGET).await?;
    s.all_on(TARGET, &[SHOP]).await?;
    // Nothing stands against a restart of these any more: their owner need not ask for it.
    only_restarted(s, &["agent", "db", "web", "halted", "parted"]).await?;
    // What the person does bit by bit is told as it goes.
    s.judge(&["write-budget"]).await
}

#[test]
fn what_is_not_restarted_is_planned_and_holds_completion_up() {
    scenario("every_kind", async |s: &mut Scenario| every_kind(s).await);
}

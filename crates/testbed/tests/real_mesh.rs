//! The testbed does what it promises: real injection, settable faults, and nothing left behind.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_testbed::{Cluster, ClusterOptions, IstioRevision, ProxyRevision, client_for, wait_for};

const OLD: &str = "asm-1-27";
const NEW: &str = "asm-1-28";
const SOON: Duration = Duration::from_secs(30);

/// One cluster for all of it: every part has a namespace of its own and leaves the revisions as it found them.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_mesh() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    relabel_and_restart_move_sidecars(&cluster).await?;
    native_sidecars_are_init_containers(&cluster).await?;
    faults_follow_the_revision_and_heal(&cluster).await?;
    deleted_pods_stay_as_long_as_asked(&cluster).await?;
    the_scheduler_is_real(&cluster).await?;
    istiod_pods_are_ready_while_the_process_lives(&cluster).await?;
    a_dead_istiod_refuses_pods_and_a_missing_webhook_does_not(&cluster).await?;
    bound_tokens_have_the_rights_of_their_account(&cluster).await?;
    the_audit_log_shows_injection_and_readiness(&cluster)?;
    a_revision_can_be_removed_and_another_installed(&cluster).await?;
    cluster.shutdown().await
}

async fn relabel_and_restart_move_sidecars(cluster: &Cluster) -> Result<()> {
    namespace(cluster, "relabel", OLD).await?;
    deploy(cluster, "relabel", "web", 2, &[]).await?;
    let pods = settled(cluster, "relabel", 2, OLD).await?;
    assert!(
        pods.values().all(|pod| pod.image.as_deref().is_some_and(|image| image.ends_with(":1.27.5"))),
        "{pods:?}"
    );
    assert!(pods.values().all(|pod| !pod.native), "{pods:?}");

    cluster
        .kubectl(&["label", "--overwrite", "namespace", "relabel", &format!("istio.io/rev={NEW}")])
        .await?;
    noticed().await;
    restart(cluster, "relabel").await?;
    let pods = settled(cluster, "relabel", 2, NEW).await?;
    assert!(
        pods.values().all(|pod| pod.image.as_deref().is_some_and(|image| image.ends_with(":1.28.2"))),
        "{pods:?}"
    );
    Ok(())
}

/// The API server knows its namespaces and webhooks from a watch.
async fn noticed() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Tried again: kubectl writes the second into the pod template and refuses two restarts in the same one.
async fn restart(cluster: &Cluster, namespace: &str) -> Result<()> {
    wait_for("a restart", SOON, || async {
        cluster.kubectl(&["rollout", "restart", "-n", namespace, "deployment/web"]).await.map(Some)
    })
    .await
    .map(drop)
}

async fn native_sidecars_are_init_containers(cluster: &Cluster) -> Result<()> {
    namespace(cluster, "native", NEW).await?;
    deploy(cluster, "native", "web", 1, &[("sidecar.istio.io/nativeSidecar", "true")]).await?;
    let pods = settled(cluster, "native", 1, NEW).await?;
    assert!(pods.values().all(|pod| pod.native), "{pods:?}");
    let started =
        ["get", "pods", "-n", "native", "-o", "jsonpath={.items[*].status.initContainerStatuses[*].started}"];
    assert!(cluster.kubectl(&started).await?.contains("true"));
    Ok(())
}

async fn faults_follow_the_revision_and_heal(cluster: &Cluster) -> Result<()> {
    namespace(cluster, "faults", NEW).await?;
    let native = ("sidecar.istio.io/nativeSidecar", "true");
    deploy(cluster, "faults", "stuck", 1, &[("testbed.meshupgrade.io/never-ready-on", NEW)]).await?;
    deploy(cluster, "faults", "stuck-native", 1, &[native, ("testbed.meshupgrade.io/never-ready-on", NEW)])
        .await?;
    deploy(cluster, "faults", "no-image", 1, &[("testbed.meshupgrade.io/image-pull-failure-on", NEW)])
        .await?;
    deploy(cluster, "faults", "crashing", 1, &[("testbed.meshupgrade.io/fail-after", "200ms")]).await?;
    deploy(cluster, "faults", "slow", 1, &[("testbed.meshupgrade.io/ready-after", "2s")]).await?;
    deploy(cluster, "faults", "spared", 1, &[("testbed.meshupgrade.io/never-ready-on", OLD)]).await?;

    for (app, shown) in [
        ("stuck", "istio-proxy:,"),
        ("stuck-native", "app:PodInitializing,"),
        ("no-image", "istio-proxy:ImagePullBackOff,"),
        ("crashing", "app:CrashLoopBackOff,"),
    ] {
        wait_for(&format!("the fault of {app}"), SOON, || async {
            let broken = unready_containers(cluster, app).await?;
            Ok(broken.contains(shown).then_some(()))
        })
        .await?;
    }
    let ready = |app: &'static str| wait_ready(cluster, app);
    ready("spared").await?;
    ready("slow").await?;
    // Long enough for a fault that does not hold to show.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ready_pods(cluster, "stuck").await?, 0);
    assert_eq!(ready_pods(cluster, "stuck-native").await?, 0);

    for (app, fault) in [
        ("stuck", "never-ready-on"),
        ("stuck-native", "never-ready-on"),
        ("no-image", "image-pull-failure-on"),
        ("crashing", "fail-after"),
    ] {
        let annotation = format!("testbed.meshupgrade.io/{fault}-");
        cluster
            .kubectl(&["annotate", "pod", "-n", "faults", "-l", &format!("app={app}"), &annotation])
            .await?;
        ready(app).await?;
    }
    Ok(())
}

async fn deleted_pods_stay_as_long_as_asked(cluster: &Cluster) -> Result<()> {
    namespace(cluster, "slow-end", OLD).await?;
    deploy(cluster, "slow-end", "web", 1, &[("testbed.meshupgrade.io/terminate-after", "2s")]).await?;
    settled(cluster, "slow-end", 1, OLD).await?;
    let begun = std::time::Instant::now();
    cluster.kubectl(&["delete", "pod", "-n", "slow-end", "-l", "app=web"]).await?;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    Ok(())
}

async fn the_scheduler_is_real(cluster: &Cluster) -> Result<()> {
    namespace(cluster, "nowhere", OLD).await?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: lost, namespace: nowhere}\n\
               spec: {nodeSelector: {disk: none}, containers: [{name: app, image: app:1}]}";
    wait_for("the default ServiceAccount", SOON, || async { Ok(Some(cluster.apply_yaml(pod).await?)) })
        .await?;
    wait_for("the scheduler's refusal", SOON, || async {
        let said = ["get", "pod", "lost", "-n", "nowhere", "-o", "jsonpath={.status.conditions[*].message}"];
        Ok(cluster.kubectl(&said).await?.contains("didn't match Pod's node affinity/selector").then_some(()))
    })
    .await
}

async fn istiod_pods_are_ready_while_the_process_lives(cluster: &Cluster) -> Result<()> {
    cluster.kill_istiod(OLD).await?;
    available_istiods(cluster, OLD, "").await?;
    available_istiods(cluster, NEW, "1").await?;
    cluster.start_istiod(OLD).await?;
    available_istiods(cluster, OLD, "1").await?;
    cluster.stop_istiod(NEW).await?;
    available_istiods(cluster, NEW, "").await?;
    cluster.start_istiod(NEW).await?;
    available_istiods(cluster, NEW, "1").await
}

async fn a_dead_istiod_refuses_pods_and_a_missing_webhook_does_not(cluster: &Cluster) -> Result<()> {
    namespace(cluster, "gap", NEW).await?;
    cluster.kill_istiod(NEW).await?;
    deploy(cluster, "gap", "web", 1, &[]).await?;
    wait_for("the refusal", SOON, || async {
        let reason =
            ["get", "replicasets", "-n", "gap", "-o", "jsonpath={.items[*].status.conditions[*].reason}"];
        Ok(cluster.kubectl(&reason).await?.contains("FailedCreate").then_some(()))
    })
    .await?;
    cluster.delete_webhook(NEW).await?;
    restart(cluster, "gap").await?;
    wait_for("a pod without a proxy", SOON, || async {
        let pods = cluster.proxy_revisions("gap").await?;
        Ok(pods.values().any(|pod| pod.ready && pod.image.is_none()).then_some(()))
    })
    .await?;
    cluster.start_istiod(NEW).await?;
    cluster.restore_webhook(NEW).await?;
    noticed().await;
    restart(cluster, "gap").await?;
    settled(cluster, "gap", 1, NEW).await.map(drop)
}

async fn bound_tokens_have_the_rights_of_their_account(cluster: &Cluster) -> Result<()> {
    namespace(cluster, "account", OLD).await?;
    cluster.kubectl(&["create", "serviceaccount", "-n", "account", "robot"]).await?;
    let kubeconfig = cluster.service_account_kubeconfig("account", "robot", 600).await?;
    let kubeconfig = kubeconfig.display().to_string();
    let who = cluster.kubectl(&["--kubeconfig", &kubeconfig, "auth", "whoami"]).await?;
    assert!(who.contains("system:serviceaccount:account:robot"), "{who}");
    let refused = cluster.kubectl(&["--kubeconfig", &kubeconfig, "get", "namespaces"]).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("forbidden")));
    Ok(())
}

fn the_audit_log_shows_injection_and_readiness(cluster: &Cluster) -> Result<()> {
    let mut bytes = std::fs::read(cluster.audit_log())?;
    // The last line may be half written just now.
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let text = String::from_utf8(bytes)?;
    let mut injected = 0;
    let mut ready = 0;
    let mut refused = 0;
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        let (verb, resource) = (event["verb"].as_str(), event["objectRef"]["resource"].as_str());
        let subresource = event["objectRef"]["subresource"].as_str();
        let annotations = &event["responseObject"]["metadata"]["annotations"];
        injected += u32::from(
            (verb, resource, subresource) == (Some("create"), Some("pods"), None)
                && annotations["istio.io/rev"] == NEW,
        );
        let conditions =
            event["responseObject"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        ready += u32::from(
            event["user"]["username"] == "system:kwok"
                && subresource == Some("status")
                && conditions
                    .iter()
                    .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        );
        refused += u32::from(
            event["user"]["username"] == "system:serviceaccount:account:robot"
                && event["responseStatus"]["code"] == 403,
        );
    }
    ensure!(
        injected > 0 && ready > 0 && refused > 0,
        "{injected} injected, {ready} ready, {refused} refused"
    );
    Ok(())
}

async fn a_revision_can_be_removed_and_another_installed(cluster: &Cluster) -> Result<()> {
    cluster.remove_revision(OLD).await?;
    let left = [
        "get",
        "mutatingwebhookconfigurations,deployments",
        "-A",
        "-l",
        "istio.io/rev=asm-1-27",
        "-o",
        "name",
    ];
    assert_eq!(cluster.kubectl(&left).await?, "");
    assert!(cluster.pids().iter().all(|(name, _)| name != "istiod-asm-1-27"));

    cluster.install_revision(&IstioRevision::new("asm-1-29", "1.29.0")).await?;
    namespace(cluster, "newest", "asm-1-29").await?;
    deploy(cluster, "newest", "web", 1, &[]).await?;
    settled(cluster, "newest", 1, "asm-1-29").await.map(drop)
}

/// The owner cannot tidy up after SIGKILL: the keepers have to notice by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_takes_everything_along() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = temporary.path().join("cluster");
    let mut owner = std::process::Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["run", "--revision=asm-1-27=1.27.5", "--dir"])
        .arg(&dir)
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let owner_pid = owner.id();
    let started = wait_for("the cluster of the other process", Duration::from_mins(4), || async {
        ensure!(running(owner_pid), "it has ended");
        let client = client_for(&dir.join("kubeconfig")).await?;
        client.apiserver_version().await?;
        // etcd, API server, controller manager, scheduler, kwok and istiod, each with its keeper.
        let count = processes_with(&dir.display().to_string()).len();
        ensure!(count >= 12, "{count} processes");
        Ok(Some(()))
    })
    .await;
    owner.kill()?;
    owner.wait()?;
    started?;
    wait_for("the end of everything", Duration::from_secs(10), || async {
        let left = processes_with(&dir.display().to_string());
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(Some(()))
    })
    .await
}

/// Whether the process exists and is not only waiting to be collected.
fn running(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty())
}

/// Command lines of living processes that mention this text.
fn processes_with(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    // A process that only waits to be collected has an empty command line.
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .filter(|command| command.contains(text))
        .collect()
}

async fn namespace(cluster: &Cluster, name: &str, revision: &str) -> Result<()> {
    cluster
        .apply_yaml(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{istio.io/rev: {revision}}}}}"
        ))
        .await
}

async fn deploy(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    replicas: u32,
    annotations: &[(&str, &str)],
) -> Result<()> {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    cluster
        .apply_yaml(
            &serde_json::json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {
                        "metadata": {"labels": {"app": name}, "annotations": annotations},
                        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
                    },
                },
            })
            .to_string(),
        )
        .await
}

/// Waits until exactly so many pods exist, all ready and all with this revision.
async fn settled(
    cluster: &Cluster,
    namespace: &str,
    count: usize,
    revision: &str,
) -> Result<BTreeMap<String, ProxyRevision>> {
    wait_for(&format!("{count} pods of {revision} in {namespace}"), SOON, || async {
        let pods = cluster.proxy_revisions(namespace).await?;
        let done = pods.values().all(|pod| pod.ready && pod.revision.as_deref() == Some(revision));
        ensure!(done && pods.len() == count, "{pods:?}");
        Ok(Some(pods))
    })
    .await
}

async fn ready_pods(cluster: &Cluster, app: &str) -> Result<usize> {
    let pods = cluster.proxy_revisions("faults").await?;
    // Deployment, ReplicaSet hash, pod suffix.
    Ok(pods.iter().filter(|(name, pod)| name.rsplitn(3, '-').nth(2) == Some(app) && pod.ready).count())
}

async fn wait_ready(cluster: &Cluster, app: &str) -> Result<()> {
    wait_for(&format!("{app} to be ready"), SOON, || async {
        Ok((ready_pods(cluster, app).await? == 1).then_some(()))
    })
    .await
}

/// `name:reason,` of every container that is not ready.
async fn unready_containers(cluster: &Cluster, app: &str) -> Result<String> {
    let path = "jsonpath={range .items[*].status.containerStatuses[?(@.ready==false)]}{.name}:{.state.waiting.reason},{end}";
    cluster.kubectl(&["get", "pods", "-n", "faults", "-l", &format!("app={app}"), "-o", path]).await
}

async fn available_istiods(cluster: &Cluster, revision: &str, expected: &str) -> Result<()> {
    wait_for(&format!("{expected:?} available pods of istiod {revision}"), SOON, || async {
        let deployment = format!("deployment/istiod-{revision}");
        let path = "jsonpath={.status.availableReplicas}";
        let available = cluster.kubectl(&["get", "-n", "istio-system", &deployment, "-o", path]).await?;
        Ok((available == expected).then_some(()))
    })
    .await
}

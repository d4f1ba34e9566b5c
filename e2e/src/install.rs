//! CRD, rights and admission policies as the chart installs them. Its Deployment is left out: the operator runs as a
//! process here, with a bound token of the chart's ServiceAccount.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use meshupgrade_core::aks::ISTIO_NAMESPACE;
use meshupgrade_core::aks::gateways::default_namespaces;
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_testbed::{Cluster, client_for, wait_for};
use serde_json::{Value, json};

/// Namespace of the operator.
pub const NAMESPACE: &str = "meshupgrade-system";
/// Its user name.
pub const USER: &str = "system:serviceaccount:meshupgrade-system:meshupgrade-operator";
const RELEASE: &str = "meshupgrade-operator";
/// The chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/meshupgrade-operator");
/// Revision tags that the operator may move.
pub const TAGS: [&str; 2] = ["e2e-canary", "e2e-stable"];
/// What is not installed: nothing would run in it.
const LEFT_OUT: [&str; 4] = ["Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"];
/// The API server looks for new policies once a second, and needs some time to compile them.
const NEXT_LOOK: Duration = Duration::from_secs(3);
/// Longer than any test binary runs.
pub const TOKEN_SECONDS: i64 = 3 * 3600;

/// Installs the chart and returns the operator's kubeconfig.
pub async fn install(cluster: &Cluster) -> Result<PathBuf> {
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}");
    cluster.apply_yaml(&namespace).await?;
    if cluster.istio_namespace() == ISTIO_NAMESPACE {
        // The add-on brings them, and the chart puts Roles into them.
        cluster.apply_yaml(&gateway_namespaces()).await?;
    }
    let istio = format!("istioNamespaces={{{}}}", cluster.istio_namespace());
    let tags = format!("revisionTags={{{}}}", TAGS.join(","));
    let values = ["--set", &istio, "--set", &tags];
    let chart = ["template", RELEASE, CHART, "--namespace", NAMESPACE];
    let rendered = cluster.helm(&[&chart[..], &values].concat()).await?;
    cluster.apply_yaml(&installed(&rendered)?).await.context("cannot install the chart")?;
    let kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, RELEASE, TOKEN_SECONDS).await?;
    served(&cluster.client()).await?;
    in_force(&kubeconfig, NAMESPACE).await?;
    Ok(kubeconfig)
}

/// The namespaces of the AKS add-on's gateways.
pub fn gateway_namespaces() -> String {
    let namespace = |name: NamespaceName| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string()
    };
    default_namespaces().map(namespace).collect::<Vec<_>>().join("\n---\n")
}

/// What is installed of the rendered chart.
pub fn installed(rendered: &str) -> Result<String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered).context("the chart is no YAML")?;
    let kept = documents.iter().filter(|document| {
        document.is_object() && !LEFT_OUT.contains(&document["kind"].as_str().unwrap_or_default())
    });
    Ok(kept.map(Value::to_string).collect::<Vec<_>>().join("\n---\n"))
}

/// Waits until the API server serves the CRD.
pub async fn served(client: &Client) -> Result<()> {
    let upgrades: Api<meshupgrade_api::MeshUpgrade> = Api::all(client.clone());
    let list = || async { Ok(Some(upgrades.list(&kube::api::ListParams::default()).await?)) };
    wait_for("the CRD to be served", Duration::from_secs(20), list).await.map(drop)
}

/// Waits for the admission policies, which the API server compiles a moment after they are written: until the operator in
/// this namespace may not set a label that is not its own, and then for the policies that were written too late for that look.
pub async fn in_force(kubeconfig: &Path, namespace: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client_for(kubeconfig).await?);
    let strange = Patch::Merge(json!({"metadata": {"labels": {"team": "strange"}}}));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    wait_for("the admission policies", Duration::from_secs(20), || async {
        match namespaces.patch(namespace, &dry, &strange).await {
            Err(kube::Error::Api(status)) if status.message.contains("may only change the labels") => {
                Ok(Some(()))
            }
            Err(error) => bail!("{error}"),
            Ok(_) => Ok(None),
        }
    })
    .await?;
    tokio::time::sleep(NEXT_LOOK).await;
    Ok(())
}

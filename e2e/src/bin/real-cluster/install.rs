//! The operator: its chart under names of this run, a guard around it, and its process with a bound token.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use meshupgrade_e2e::OperatorSpec;
use meshupgrade_e2e::install::{CHART, TOKEN_SECONDS, in_force, installed, served};
use meshupgrade_e2e::operator::{self, Operator};
use meshupgrade_testbed::{Binaries, apply_yaml, client_for, wait_for};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::site::{RUN, Site};

/// Field manager of what this program applies.
pub const MANAGER: &str = "meshupgrade-e2e";
/// What the guard says.
const GUARDED: &str = "this operator may only change namespaces of its own scenarios";

/// Installs the operator and starts it.
pub async fn install(site: &Site) -> Result<Operator> {
    println!("installing the operator in {}", site.operator_namespace());
    let building = tokio::task::spawn_blocking(operator::build);
    let tools = tokio::task::spawn_blocking(|| Binaries::ensure_only_blocking(&["keeper", "helm"])).await??;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": site.operator_namespace(), "labels": {RUN: site.run}}});
    let chart = installed(&rendered(site, &tools).await?)?;
    let all = format!("{namespace}\n---\n{}\n---\n{chart}", guard(site));
    apply_yaml(&site.client, MANAGER, &all).await.context("cannot install the operator")?;
    let dir = directory(site)?;
    let kubeconfig = dir.join("kubeconfig");
    write_kubeconfig(&kubeconfig, &site.kubeconfig, &token(site).await?)?;
    served(&site.client).await?;
    in_force(&kubeconfig, &site.operator_namespace()).await?;
    guarded(&kubeconfig).await?;
    building.await??;
    let spec = OperatorSpec::with_defaults()
        .flag(&format!("--pod-namespace={}", site.operator_namespace()))
        .flag(&format!("--lease-name={}", site.run))
        .flag("--census-interval-seconds=2")
        .flag("--status-interval-seconds=1");
    Operator::start(&spec, &tools.path("keeper"), &kubeconfig, &dir)
}

async fn rendered(site: &Site, tools: &Binaries) -> Result<String> {
    let values = json!({
        "fullnameOverride": site.run,
        "commonLabels": {RUN: site.run},
        "istioNamespaces": [site.istio_namespace],
        // It goes with the rest of this run.
        "crds": {"keep": false},
    });
    let file = directory(site)?.join("values.json");
    fs::write(&file, values.to_string())?;
    let output = Command::new(tools.path("helm"))
        .args(["template", &site.run, CHART, "--namespace", &site.operator_namespace(), "--values"])
        .arg(&file)
        .output()
        .await
        .context("cannot run helm")?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Other people's namespaces are safe whatever the operator does: beside the chart's policies, which say what it may
/// change, one that says where.
fn guard(site: &Site) -> String {
    let name = format!("{}-guard", site.run);
    let user = format!("system:serviceaccount:{}:{}", site.operator_namespace(), site.run);
    let metadata = json!({"name": name, "labels": {RUN: site.run}});
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": resources});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": metadata,
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                rule("", &["namespaces"]),
                rule("apps", &["deployments", "statefulsets", "daemonsets"]),
            ]},
            "matchConditions": [
                {"name": "the-operator", "expression": format!("request.userInfo.username == '{user}'")},
            ],
            "validations": [{
                "expression": format!(
                    "(request.namespace == '' ? request.name : request.namespace).startsWith('{}-')", site.run
                ),
                "message": GUARDED,
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata, "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    format!("{policy}\n---\n{binding}")
}

/// Waits until the guard holds, by a write that would change nothing.
async fn guarded(kubeconfig: &Path) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client_for(kubeconfig).await?);
    let label = Patch::Merge(json!({"metadata": {"labels": {"istio.io/rev": "strange"}}}));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    wait_for("the guard", Duration::from_secs(20), || async {
        match namespaces.patch("default", &dry, &label).await {
            Err(kube::Error::Api(status)) if status.message.contains(GUARDED) => Ok(Some(())),
            Err(error) => bail!("{error}"),
            Ok(_) => Ok(None),
        }
    })
    .await
}

/// Files of this run: the operator's log stays after the end.
pub fn directory(site: &Site) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("the program is in no target directory")?;
    let dir = target.join("e2e").join(&site.run);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

async fn token(site: &Site) -> Result<String> {
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(site.client.clone(), &site.operator_namespace());
    let answer = accounts
        .create_token_request(&site.run, &PostParams::default(), &request)
        .await
        .context("no token for the operator's ServiceAccount")?;
    Ok(answer.status.context("the token request has no answer")?.token)
}

/// The caller's cluster with the operator's token, and nothing of the caller's own login.
fn write_kubeconfig(path: &Path, caller: &Kubeconfig, token: &str) -> Result<()> {
    let current = caller.current_context.as_ref().context("the kubeconfig has no current context")?;
    let context = caller.contexts.iter().find(|context| context.name == *current);
    let context = context.and_then(|context| context.context.as_ref()).context("its context is not there")?;
    let cluster = caller.clusters.iter().find(|cluster| cluster.name == context.cluster);
    let mut cluster: Value = serde_json::to_value(cluster.context("its cluster is not there")?)?;
    cluster["name"] = json!("cluster");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "operator",
        "clusters": [cluster],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "operator", "context": {"cluster": "cluster", "user": "operator"}}],
    });
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // JSON is YAML.
    Ok(file.write_all(config.to_string().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_kubeconfig_has_nothing_of_the_caller() {
        let caller = Kubeconfig::from_yaml(
            "{current-context: b, contexts: [{name: b, context: {cluster: c, user: u}}], \
             clusters: [{name: c, cluster: {server: \"https://example\", certificate-authority-data: Zm9v}}], \
             users: [{name: u, user: {token: secret}}]}",
        )
        .unwrap();
        let path = std::env::temp_dir().join(format!("meshupgrade-e2e-{}", std::process::id()));
        write_kubeconfig(&path, &caller, "ours").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!text.contains("secret") && text.contains("ours") && text.contains("Zm9v"), "{text}");
        let read = Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(read.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://example"));
    }
}

//! Revision tags, as `istioctl tag set` and Istio's chart make them: a webhook configuration and a Service.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::scenario::Scenario;

/// Where every installation of Istio is that does not say otherwise: its names carry no namespace.
const DEFAULT_NAMESPACE: &str = "istio-system";

/// The name of an object with the Istio namespace in it, as Istio's chart builds it.
fn in_namespace(s: &Scenario, name: String) -> String {
    match s.cluster().istio_namespace() {
        DEFAULT_NAMESPACE => name,
        namespace => format!("{name}-{namespace}"),
    }
}

/// The name of a tag's webhook configuration.
pub fn webhook_of(s: &Scenario, tag: &str) -> String {
    in_namespace(s, format!("istio-revision-tag-{tag}"))
}

/// The name of a tag's Service.
pub fn service_of(tag: &str) -> String {
    format!("istiod-revision-tag-{tag}")
}

/// All webhook configurations.
pub fn webhooks(s: &Scenario) -> Api<MutatingWebhookConfiguration> {
    Api::all(s.client())
}

fn services(s: &Scenario) -> Api<Service> {
    Api::namespaced(s.client(), s.cluster().istio_namespace())
}

async fn own_webhook(s: &Scenario, revision: &str) -> Result<MutatingWebhookConfiguration> {
    let name = in_namespace(s, format!("istio-sidecar-injector-{revision}"));
    webhooks(s).get(&name).await.with_context(|| name)
}

/// Makes a tag: the two entries of the revision's own injector, with the tag in the selectors, and a Service.
/// Source: istioctl/pkg/tag/generate.go and templates/revision-tags-{mwc,svc}.yaml of Istio.
pub async fn set(s: &Scenario, tag: &str, revision: &str) -> Result<()> {
    let own = own_webhook(s, revision).await?;
    let entries = serde_json::to_string(&own.webhooks.iter().flatten().collect::<Vec<_>>())?
        .replace(&format!("\"values\":[\"{revision}\"]"), &format!("\"values\":[\"{tag}\"]"));
    ensure!(entries.contains(tag), "the selectors of {revision} name no revision");
    let entries: Value = serde_json::from_str(&entries)?;
    let labels = json!({"istio.io/rev": revision, "istio.io/tag": tag});
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": webhook_of(s, tag), "labels": labels}, "webhooks": entries,
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": service_of(tag), "namespace": s.cluster().istio_namespace(), "labels": labels},
        "spec": {"selector": {"app": "istiod", "istio.io/rev": revision},
            "ports": [{"name": "https-dns", "port": 15012}, {"name": "https-webhook", "port": 443, "targetPort": 15017}]},
    });
    s.cluster().apply_yaml(&format!("{webhook}\n---\n{service}")).await
}

/// Where all entries of a webhook configuration point, as JSON.
fn clients(webhook: &MutatingWebhookConfiguration) -> Result<Vec<Value>> {
    let entries = webhook.webhooks.iter().flatten();
    entries.map(|entry| serde_json::to_value(&entry.client_config).context("no JSON")).collect()
}

/// The tag leads where the injector of a revision does, in all its entries and with its Service, and what it selects is as it was.
pub async fn leads_to(s: &Scenario, tag: &str, revision: &str) -> Result<()> {
    let wanted = clients(&own_webhook(s, revision).await?)?;
    let wanted = wanted.first().context("the injector has no entries")?;
    let found = webhooks(s).get(&webhook_of(s, tag)).await?;
    let clients = clients(&found)?;
    let all = clients.len() == 2 && clients.iter().all(|client| client == wanted);
    ensure!(all, "{tag} leads to {clients:?}");
    ensure!(found.labels().get("istio.io/rev").is_some_and(|it| it == revision), "{:?}", found.labels());
    let text = serde_json::to_string(&found)?;
    ensure!(text.contains(&format!("\"values\":[\"{tag}\"]")), "the selectors of {tag} changed");
    let service = services(s).get(&service_of(tag)).await?;
    ensure!(service.labels().get("istio.io/rev").is_some_and(|it| it == revision), "{:?}", service.labels());
    let selector = service.spec.and_then(|spec| spec.selector);
    let own = services(s).get(&format!("istiod-{revision}")).await?.spec.and_then(|spec| spec.selector);
    ensure!(selector == own, "the Service of {tag} selects {selector:?}, that of {revision} {own:?}");
    Ok(())
}

/// Whether a tag remembers where it pointed before a run.
pub async fn remembers(s: &Scenario, tag: &str) -> Result<bool> {
    let found = webhooks(s).get(&webhook_of(s, tag)).await?;
    Ok(found.annotations().contains_key("meshupgrade.io/previous-labels"))
}

/// Deletes tags.
pub async fn remove(s: &Scenario, tags: &[&str]) -> Result<()> {
    for tag in tags {
        webhooks(s).delete(&webhook_of(s, tag), &DeleteParams::default()).await?;
        services(s).delete(&service_of(tag), &DeleteParams::default()).await?;
    }
    Ok(())
}

//! Reading and writing the cluster: clients, apply, waiting.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::{Api, Client, Config};
use tokio::time::Instant;

/// A client for a kubeconfig: it does not wait for ever, and it does not retry behind the caller's back.
pub async fn client_for(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(Duration::from_secs(10));
    // Longer than the minute between two bookmarks of an idle watch.
    config.read_timeout = Some(Duration::from_secs(90));
    config.reset_reader_on_write = true;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Polls `check` until it has a value; errors count as "not yet" and are part of the message at the deadline.
pub async fn wait_for<T, F, Fut>(what: &str, within: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    loop {
        let outcome = check().await;
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if Instant::now() > deadline {
            let last = match outcome {
                Err(error) => format!(": {error:#}"),
                Ok(_) => String::new(),
            };
            bail!("waited {} s in vain for {what}{last}", within.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(75)).await;
    }
}

/// The documents of a YAML stream, without the empty ones.
pub(crate) fn documents(yaml: &str) -> Result<Vec<DynamicObject>> {
    let values: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).context("cannot parse YAML")?;
    let objects = values.into_iter().filter(serde_json::Value::is_object);
    objects.map(|value| serde_json::from_value(value).context("not a Kubernetes object")).collect()
}

/// Server-side apply of every document, with force.
pub async fn apply_yaml(client: &Client, manager: &str, yaml: &str) -> Result<()> {
    apply(client, manager, &documents(yaml)?).await
}

/// Server-side apply of every object, in the given order per kind and kinds in order of appearance.
pub(crate) async fn apply(client: &Client, manager: &str, objects: &[DynamicObject]) -> Result<()> {
    let mut kinds: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)> = HashMap::new();
    let mut group: Vec<(Api<DynamicObject>, &DynamicObject)> = Vec::new();
    let mut last: Option<GroupVersionKind> = None;
    for object in objects {
        let gvk = kind_of(object)?;
        // Objects of one kind do not depend on each other, objects of different kinds may.
        if last.as_ref() != Some(&gvk) {
            apply_group(manager, &group).await?;
            group.clear();
        }
        if !kinds.contains_key(&gvk) {
            let known = pinned_kind(client, &gvk).await.with_context(|| format!("no kind {}", gvk.kind))?;
            kinds.insert(gvk.clone(), known);
        }
        group.push((api_for(client, &kinds[&gvk], object), object));
        last = Some(gvk);
    }
    apply_group(manager, &group).await
}

async fn apply_group(manager: &str, group: &[(Api<DynamicObject>, &DynamicObject)]) -> Result<()> {
    let params = PatchParams::apply(manager).force();
    try_join_all(group.iter().map(|(api, object)| {
        let params = params.clone();
        async move {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let kind = object.types.as_ref().map_or("", |types| types.kind.as_str());
            api.patch(name, &params, &Patch::Apply(object))
                .await
                .map(|_| ())
                .with_context(|| format!("cannot apply {kind} {name}"))
        }
    }))
    .await?;
    Ok(())
}

/// Deletes every object that exists, the last applied first.
pub(crate) async fn delete(client: &Client, objects: &[DynamicObject]) -> Result<()> {
    for object in objects.iter().rev() {
        let gvk = kind_of(object)?;
        let known = pinned_kind(client, &gvk).await?;
        let name = object.metadata.name.as_deref().unwrap_or_default();
        match api_for(client, &known, object).delete(name, &kube::api::DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(anyhow!(error).context(format!("cannot delete {} {name}", gvk.kind))),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn kind_of(object: &DynamicObject) -> Result<GroupVersionKind> {
    let types = object.types.as_ref().context("an object without apiVersion and kind")?;
    Ok(GroupVersionKind::try_from(types)?)
}

fn api_for(
    client: &Client,
    (resource, capabilities): &(ApiResource, ApiCapabilities),
    object: &DynamicObject,
) -> Api<DynamicObject> {
    if capabilities.scope == Scope::Cluster {
        return Api::all_with(client.clone(), resource);
    }
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    Api::namespaced_with(client.clone(), namespace, resource)
}

/// What one pod runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRevision {
    /// The annotation `istio.io/rev`, set by the injector.
    pub revision: Option<String>,
    /// Image of the container `istio-proxy`, if there is one.
    pub image: Option<String>,
    /// Whether that container is a native sidecar (an init container that keeps running).
    pub native: bool,
    /// The pod's Ready condition.
    pub ready: bool,
}

/// Proxy and readiness of every pod of the namespace that is not being deleted.
pub async fn proxy_revisions(client: &Client, namespace: &str) -> Result<BTreeMap<String, ProxyRevision>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default()).await?;
    let alive = list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(alive.map(|pod| (pod.metadata.name.clone().unwrap_or_default(), proxy_of(&pod))).collect())
}

fn proxy_of(pod: &Pod) -> ProxyRevision {
    let image = |containers: &[Container]| {
        containers
            .iter()
            .find(|container| container.name == "istio-proxy")
            .and_then(|found| found.image.clone())
    };
    let spec = pod.spec.as_ref();
    let native = spec.and_then(|spec| spec.init_containers.as_deref()).and_then(image);
    ProxyRevision {
        revision: pod.metadata.annotations.as_ref().and_then(|all| all.get("istio.io/rev").cloned()),
        native: native.is_some(),
        image: native.or_else(|| spec.and_then(|spec| image(&spec.containers))),
        ready: is_ready(pod),
    }
}

/// Whether the pod's Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

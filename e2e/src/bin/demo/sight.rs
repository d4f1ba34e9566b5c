//! What the cluster has come to: labels of namespaces, pods and their proxies.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use meshupgrade_testbed::is_ready;

use crate::line::Line;
use crate::town;

/// One pod of the demo's namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSight {
    /// Namespace.
    pub namespace: String,
    /// Its own name.
    pub name: String,
    /// Name of its workload.
    pub app: String,
    /// A recreated pod has another one.
    pub uid: String,
    /// The revision that injected its proxy, if it has one.
    pub revision: Option<String>,
    /// Image of its proxy.
    pub image: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub ending: bool,
}

/// The demo's namespaces at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Labels by namespace.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    /// All pods.
    pub pods: Vec<PodSight>,
}

impl Sight {
    /// Looks at the cluster.
    pub async fn take(client: &Client) -> Result<Self> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let labels = namespaces.list(&ListParams::default()).await?.into_iter();
        let labels = labels.map(|namespace| (namespace.name_any(), namespace.labels().clone()));
        Ok(Self { labels: labels.filter(|(name, _)| is_ours(name)).collect(), pods: pods(client).await? })
    }
}

/// The pods of the demo's namespaces.
pub async fn pods(client: &Client) -> Result<Vec<PodSight>> {
    let pods: Api<Pod> = Api::all(client.clone());
    let all = pods.list(&ListParams::default()).await?;
    Ok(all.iter().map(seen).filter(|pod| is_ours(&pod.namespace)).collect())
}

fn is_ours(namespace: &str) -> bool {
    town::namespaces().any(|name| name == namespace)
}

fn seen(pod: &Pod) -> PodSight {
    let spec = pod.spec.as_ref();
    let native = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let mut containers = native.chain(spec.iter().flat_map(|spec| &spec.containers));
    let proxy = containers.find(|container| container.name == "istio-proxy");
    PodSight {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        app: pod.labels().get("app").cloned().unwrap_or_default(),
        uid: pod.uid().unwrap_or_default(),
        revision: pod.annotations().get("istio.io/rev").cloned().filter(|_| proxy.is_some()),
        image: proxy.and_then(|proxy| proxy.image.clone()),
        ready: is_ready(pod),
        ending: pod.metadata.deletion_timestamp.is_some(),
    }
}

/// Pods by namespace and proxy image.
pub fn images(pods: &[PodSight]) -> Vec<Line> {
    let mut counts: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for pod in pods {
        let image = pod.image.as_deref().unwrap_or("no proxy: outside of the mesh");
        let count = counts.entry((&pod.namespace, image)).or_default();
        count.0 += 1;
        count.1 += usize::from(pod.ready);
    }
    let title = Line::plain(format!("{:<16}{:>4}  {:>5}  {}", "NAMESPACE", "PODS", "READY", "PROXY IMAGE"));
    let rows = counts.into_iter().map(|((namespace, image), (pods, ready))| {
        Line::plain(format!("{namespace:<16}{pods:>4}  {ready:>5}  {image}"))
    });
    std::iter::once(title).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_counted_by_namespace() {
        let pod = |namespace: &str, image: Option<&str>, ready| PodSight {
            namespace: namespace.into(),
            name: "pod".into(),
            app: "app".into(),
            uid: "1".into(),
            revision: None,
            image: image.map(ToOwned::to_owned),
            ready,
            ending: false,
        };
        let pods =
            [pod("shop", Some("proxy:2"), true), pod("shop", Some("proxy:2"), false), pod("old", None, true)];
        let lines: Vec<String> = images(&pods).iter().map(Line::text).collect();
        assert_eq!(lines[1], "old                1      1  no proxy: outside of the mesh");
        assert_eq!(lines[2], "shop               2      1  proxy:2");
    }
}

//! The AKS add-on: what Azure has, and what the cluster has of each revision.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use meshupgrade_core::aks::ISTIO_NAMESPACE;
use meshupgrade_core::labels::MESH_CONFIG_COPY;
use meshupgrade_core::mesh_config;
use meshupgrade_e2e::azure::{Azure, GATEWAY};

use crate::line::{Line, Style};

/// The label that istiods, their webhooks and the gateways have.
const REVISION: &str = "istio.io/rev";

/// What Azure says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureSight {
    /// The revisions of its profile.
    pub revisions: Vec<String>,
    /// Its provisioning state.
    pub state: String,
}

impl AzureSight {
    /// As a GET of the cluster answers.
    pub fn take(azure: &Azure) -> Self {
        let document = azure.simulator.document(&azure.cluster).unwrap_or_default();
        let state = document.pointer("/properties/provisioningState").and_then(|state| state.as_str());
        Self {
            revisions: azure.simulator.revisions(&azure.cluster),
            state: state.unwrap_or_default().to_owned(),
        }
    }

    /// In a few words.
    pub fn told(&self) -> String {
        format!("{}  {}", self.revisions.join(" "), self.state)
    }
}

/// How many pods are ready, and how many there should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Ready.
    pub ready: i32,
    /// Wanted.
    pub wanted: i32,
}

impl Ready {
    fn add(&mut self, deployment: &Deployment) {
        let status = deployment.status.as_ref();
        self.ready += status.and_then(|status| status.ready_replicas).unwrap_or(0);
        self.wanted += deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    }

    fn told(self) -> String {
        if self.wanted == 0 { "-".into() } else { format!("{}/{}", self.ready, self.wanted) }
    }
}

/// The mesh configuration that users put beside that of the add-on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedConfig {
    /// The configuration.
    pub text: String,
    /// Whether MeshUpgrade wrote it.
    pub copied: bool,
}

/// What the cluster has of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    /// Its istiod.
    pub istiod: Ready,
    /// Whether there is a webhook that injects its sidecars.
    pub webhook: bool,
    /// The add-on's gateways.
    pub gateways: Ready,
    /// Its shared mesh configuration, if there is one.
    pub config: Option<SharedConfig>,
}

impl Plane {
    /// Whether all that Azure installs is there and ready.
    pub fn is_whole(&self) -> bool {
        let all = |pods: Ready| pods.wanted > 0 && pods.ready == pods.wanted;
        all(self.istiod) && all(self.gateways) && self.webhook
    }

    /// Whether nothing that Azure installs is there.
    pub fn is_gone(&self) -> bool {
        self.istiod.wanted == 0 && self.gateways.wanted == 0 && !self.webhook
    }

    fn row(&self, revision: &str) -> Line {
        let config = match &self.config {
            None => "-",
            Some(config) if config.copied => "copied by MeshUpgrade",
            Some(_) => "written by its users",
        };
        let webhook = if self.webhook { "yes" } else { "-" };
        let (istiod, gateways) = (self.istiod.told(), self.gateways.told());
        Line::plain(format!("{revision:<12}{istiod:<8}{webhook:<9}{gateways:<10}{config}"))
    }
}

/// Azure and the cluster at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planes {
    /// What Azure has.
    pub azure: AzureSight,
    /// What the cluster has, by revision.
    pub planes: BTreeMap<String, Plane>,
}

impl Planes {
    /// Looks at both.
    pub async fn take(azure: &Azure, client: &Client) -> Result<Self> {
        let mut all = Self { azure: AzureSight::take(azure), planes: BTreeMap::new() };
        let labelled = ListParams::default().labels(REVISION);
        for deployment in Api::<Deployment>::all(client.clone()).list(&labelled).await? {
            all.see(&deployment);
        }
        for webhook in Api::<MutatingWebhookConfiguration>::all(client.clone()).list(&labelled).await? {
            all.plane(&webhook.labels()[REVISION]).webhook = true;
        }
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), ISTIO_NAMESPACE);
        for map in maps.list(&ListParams::default()).await? {
            all.see_config(&map);
        }
        Ok(all)
    }

    fn plane(&mut self, revision: &str) -> &mut Plane {
        self.planes.entry(revision.to_owned()).or_default()
    }

    fn see(&mut self, deployment: &Deployment) {
        let labels = deployment.labels();
        let plane = self.plane(&labels[REVISION]);
        let is_gateway = |(key, value): (&str, &str)| labels.get(key).is_some_and(|found| found == value);
        if GATEWAY.split_once('=').is_some_and(is_gateway) {
            plane.gateways.add(deployment);
        } else if deployment.namespace().as_deref() == Some(ISTIO_NAMESPACE) {
            plane.istiod.add(deployment);
        }
    }

    fn see_config(&mut self, map: &ConfigMap) {
        let name = map.name_any();
        let Some(revision) = name.strip_prefix(&format!("{}-", mesh_config::NAME)) else { return };
        let text = map.data.as_ref().and_then(|data| data.get(mesh_config::KEY)).cloned().unwrap_or_default();
        let copied = map.annotations().contains_key(MESH_CONFIG_COPY);
        self.plane(revision).config = Some(SharedConfig { text, copied });
    }

    /// As a person would see it with az and kubectl; nothing runs az here.
    pub fn shown(&self, when: &str, azure: &Azure) -> Vec<Line> {
        let named = &azure.control_plane()["aks"];
        let name = |field: &str| named[field].as_str().unwrap_or_default().to_owned();
        let (group, cluster) = (name("resourceGroup"), name("clusterName"));
        let query = "--query serviceMeshProfile.istio.revisions";
        let mut lines = vec![
            Line::empty(),
            Line::of(Style::Strong, format!("{when}, az aks show -g {group} -n {cluster} {query} would say")),
            Line::plain(format!("{:?}", self.azure.revisions)),
            Line::of(Style::Faint, "and this is in the cluster"),
            Line::plain("REVISION    ISTIOD  WEBHOOK  GATEWAYS  SHARED MESH CONFIGURATION"),
        ];
        lines.extend(self.planes.iter().map(|(revision, plane)| plane.row(revision)));
        lines
    }
}

/// One write that Azure accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The revisions that it asked for.
    pub revisions: Vec<String>,
    /// Whether it was tied to what was read before.
    pub tied: bool,
    /// What else it changed.
    pub foreign: Vec<String>,
}

/// What Azure accepted, in order.
pub fn writes(azure: &Azure) -> Vec<Write> {
    let accepted = azure.simulator.accepted_puts().into_iter();
    accepted
        .map(|put| Write {
            revisions: put.revisions.unwrap_or_default(),
            tied: put.if_match.is_some(),
            foreign: put.foreign_changes,
        })
        .collect()
}

/// The writes as a table.
pub fn ledger(writes: &[Write]) -> Vec<Line> {
    let row = |write: &Write| {
        let Write { revisions, tied, foreign } = write;
        let tied = if *tied { "yes" } else { "no" };
        let foreign = if foreign.is_empty() { "nothing".into() } else { foreign.join(" ") };
        Line::plain(format!("{:<40}{tied:<10}{foreign}", format!("{revisions:?}")))
    };
    let title = Line::plain(format!("{:<40}{:<10}{}", "REVISIONS", "IF-MATCH", "ALSO CHANGED"));
    std::iter::once(title).chain(writes.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(namespace: &str, gateway: bool, ready: i32) -> Deployment {
        let mut labels = json!({"istio.io/rev": "asm-1-28"});
        if gateway {
            labels["gateway"] = json!("addon");
        }
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "labels": labels},
            "spec": {"replicas": 1, "selector": {}, "template": {}}, "status": {"readyReplicas": ready}}))
        .unwrap()
    }

    #[test]
    fn a_revision_is_whole_when_all_of_it_is_ready_and_gone_when_nothing_is_left() {
        let mut all = Planes::default();
        assert!(all.plane("asm-1-28").is_gone());
        all.see(&deployment(ISTIO_NAMESPACE, false, 1));
        all.see(&deployment("aks-istio-ingress", true, 1));
        assert!(!all.plane("asm-1-28").is_whole() && !all.plane("asm-1-28").is_gone());
        all.plane("asm-1-28").webhook = true;
        assert!(all.plane("asm-1-28").is_whole());
        all.see(&deployment("aks-istio-egress", true, 0));
        assert!(!all.plane("asm-1-28").is_whole());
        assert_eq!(all.planes["asm-1-28"].row("asm-1-28").text(), "asm-1-28    1/1     yes      1/2       -");
    }

    #[test]
    fn a_copy_is_told_from_what_users_wrote() {
        let map = |metadata: serde_json::Value| -> ConfigMap {
            serde_json::from_value(json!({"metadata": metadata, "data": {"mesh": "a: b"}})).unwrap()
        };
        let mut all = Planes::default();
        all.see_config(&map(json!({"name": "istio-shared-configmap-asm-1-27"})));
        all.see_config(&map(json!({"name": "istio-asm-1-27"})));
        let copy =
            json!({"name": "istio-shared-configmap-asm-1-28", "annotations": {MESH_CONFIG_COPY: "{}"}});
        all.see_config(&map(copy));
        assert_eq!(all.planes.len(), 2);
        let row = |revision: &str| all.planes[revision].row(revision).text();
        assert!(row("asm-1-27").ends_with("written by its users"));
        assert!(row("asm-1-28").ends_with("copied by MeshUpgrade"));
    }

    #[test]
    fn writes_are_told_with_what_they_changed() {
        let write =
            Write { revisions: vec!["asm-1-28".into()], tied: false, foreign: vec!["/tags/team".into()] };
        let row = ledger(&[write])[1].text();
        assert_eq!(row, format!("{:<40}{:<10}{}", "[\"asm-1-28\"]", "no", "/tags/team"));
    }
}

//! Namespaces and workloads for a scenario, applied in one go.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::referee::{Floor, Workload};

/// Label of every namespace that a scenario makes.
pub const MARK: &str = "e2e.meshupgrade.io/scenario";

/// One workload with its neighbours.
#[derive(Clone, Debug)]
pub struct App {
    namespace: String,
    kind: &'static str,
    name: String,
    replicas: usize,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    spec: Value,
    container: (String, String),
    host_network: bool,
    min_available: Option<usize>,
}

impl App {
    /// A Deployment with one replica.
    pub fn deployment(namespace: &str, name: &str) -> Self {
        // Not the 10 minutes of the default: a rollout that is stuck should say so before the scenario ends.
        Self::new("Deployment", namespace, name, json!({}))
    }

    /// A StatefulSet with one replica.
    pub fn stateful_set(namespace: &str, name: &str) -> Self {
        Self::new("StatefulSet", namespace, name, json!({"serviceName": name}))
    }

    /// A DaemonSet, which has a pod on each of the three nodes.
    pub fn daemon_set(namespace: &str, name: &str) -> Self {
        Self { replicas: 3, ..Self::new("DaemonSet", namespace, name, json!({})) }
    }

    /// A Rollout of Argo Rollouts with one replica, and these steps of its canary strategy.
    pub fn rollout(namespace: &str, name: &str, steps: &Value) -> Self {
        Self::new("Rollout", namespace, name, json!({"strategy": {"canary": {"steps": steps}}}))
    }

    fn new(kind: &'static str, namespace: &str, name: &str, spec: Value) -> Self {
        Self {
            namespace: namespace.to_owned(),
            kind,
            name: name.to_owned(),
            replicas: 1,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec,
            container: ("app".into(), "app:1".into()),
            host_network: false,
            min_available: None,
        }
    }

    /// With so many replicas.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// With an annotation of its pods, for example one of the testbed's.
    #[must_use]
    pub fn pod_annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a setting of the testbed.
    #[must_use]
    pub fn set(self, key: &str, value: &str) -> Self {
        self.pod_annotation(&format!("{}{key}", meshupgrade_testbed::ANNOTATIONS), value)
    }

    /// With a label of its pods.
    #[must_use]
    pub fn pod_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a field of its spec.
    #[must_use]
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    /// With another container than the usual one, for example a proxy of its own.
    #[must_use]
    pub fn container(mut self, name: &str, image: &str) -> Self {
        self.container = (name.to_owned(), image.to_owned());
        self
    }

    /// In the network of its node, where nothing is injected.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// With a pod disruption budget.
    #[must_use]
    pub fn min_available(mut self, pods: usize) -> Self {
        self.min_available = Some(pods);
        self
    }

    /// How the referee calls it.
    pub fn workload(&self) -> Workload {
        Workload::new(&self.namespace, &format!("{}s", self.kind.to_lowercase()), &self.name)
    }

    /// How many pods it has.
    pub fn pods(&self) -> usize {
        self.replicas
    }

    /// Its manifest.
    pub fn manifest(&self) -> Value {
        let mut labels = self.labels.clone();
        labels.insert("app".into(), self.name.clone());
        let (container, image) = &self.container;
        let mut spec = self.spec.clone();
        spec["selector"] = json!({"matchLabels": {"app": self.name}});
        spec["template"] = json!({
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": container, "image": image}]},
        });
        if self.host_network {
            spec["template"]["spec"]["hostNetwork"] = json!(true);
        }
        if !self.annotations.is_empty() {
            spec["template"]["metadata"]["annotations"] = json!(self.annotations);
        }
        if self.kind != "DaemonSet" {
            spec["replicas"] = json!(self.replicas);
        }
        let version = if self.kind == "Rollout" { "argoproj.io/v1alpha1" } else { "apps/v1" };
        json!({"apiVersion": version, "kind": self.kind,
            "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec})
    }

    fn budget(&self) -> Option<Value> {
        self.min_available.map(|pods| {
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": {"minAvailable": pods, "selector": {"matchLabels": {"app": self.name}}}})
        })
    }

    /// How many pods its default strategy, or its budget if that wants more, keeps ready.
    fn floor(&self) -> Floor {
        let by_strategy = match self.kind {
            // 25 % unavailable, rounded down.
            "Deployment" => self.replicas - self.replicas / 4,
            _ => self.replicas.saturating_sub(1),
        };
        let ready = by_strategy.max(self.min_available.unwrap_or(0));
        Floor { workloads: [self.workload()].into(), ready }
    }
}

/// A mesh under construction.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    namespaces: Vec<Value>,
    /// Its workloads.
    pub apps: Vec<App>,
    others: Vec<Value>,
}

impl Mesh {
    /// Without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a namespace with these labels.
    #[must_use]
    pub fn namespace(mut self, name: &str, labels: &[(&str, &str)]) -> Self {
        let mut all: BTreeMap<&str, &str> = labels.iter().copied().collect();
        all.insert(MARK, "");
        self.namespaces.push(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": all}}),
        );
        self
    }

    /// Adds a namespace of a revision.
    #[must_use]
    pub fn on(self, revision: &str, name: &str) -> Self {
        self.namespace(name, &[("istio.io/rev", revision)])
    }

    /// Adds a workload.
    #[must_use]
    pub fn app(mut self, app: App) -> Self {
        self.apps.push(app);
        self
    }

    /// Adds Deployments of one replica.
    #[must_use]
    pub fn deployments(mut self, namespace: &str, names: &[&str]) -> Self {
        self.apps.extend(names.iter().map(|name| App::deployment(namespace, name)));
        self
    }

    /// Adds any other object.
    #[must_use]
    pub fn object(mut self, object: Value) -> Self {
        self.others.push(object);
        self
    }

    /// All manifests, in an order in which they can be applied.
    pub fn manifests(&self) -> String {
        let apps =
            |kind: &'static str| self.apps.iter().filter(move |app| app.kind == kind).map(App::manifest);
        let documents = self
            .namespaces
            .iter()
            .cloned()
            .chain(self.apps.iter().filter_map(App::budget))
            .chain(apps("Deployment"))
            .chain(apps("StatefulSet"))
            .chain(apps("DaemonSet"))
            .chain(apps("Rollout"))
            .chain(self.others.iter().cloned());
        documents.map(|document| document.to_string()).collect::<Vec<_>>().join("\n---\n")
    }

    /// How many pods every workload must keep ready.
    pub fn floors(&self) -> Vec<Floor> {
        self.apps.iter().map(App::floor).collect()
    }
}

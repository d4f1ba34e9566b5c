//! Pods: their proxy, its revision, and why they are not ready.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshupgrade_core::ids::{NamespaceName, Revision};
use meshupgrade_core::labels;
use meshupgrade_core::observed::{Pod, PodProblem, Proxy};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Observed;
use crate::slim::{self, RawCondition, Slim, controller_of, istio_annotations};

/// Name of the proxy's container.
pub const PROXY_CONTAINER: &str = "istio-proxy";
/// Annotation in which the injector reports what it did.
pub const INJECTION_STATUS: &str = "sidecar.istio.io/status";
/// Longest text of a problem, in characters: it ends up in status messages.
const MAX_PROBLEM: usize = 300;

/// A pod, as far as it is parsed.
pub type RawPod = Slim<PodSpec, PodStatus>;

slim::resource!(RawPod, NamespaceResourceScope, "", "v1", "Pod", "pods");

/// `spec` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    image: Option<String>,
    restart_policy: Option<String>,
    env: Addresses,
}

/// The two variables that say which istiod a proxy connects to; the others are skipped.
#[derive(Clone, Debug, Default)]
struct Addresses {
    ca: Option<String>,
    proxy_config: Option<String>,
}

/// `status` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    phase: Option<String>,
    conditions: Vec<RawCondition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    ready: bool,
    restart_count: u32,
    state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    waiting: Option<Waiting>,
    running: Option<IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i64,
    reason: Option<String>,
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AddressesVisitor)
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Addresses;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a list of environment variables")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
        #[derive(Deserialize)]
        struct Variable {
            name: String,
            #[serde(default)]
            value: Option<String>,
        }
        let mut addresses = Addresses::default();
        while let Some(variable) = list.next_element::<Variable>()? {
            match variable.name.as_str() {
                "CA_ADDR" => addresses.ca = variable.value,
                "PROXY_CONFIG" => addresses.proxy_config = variable.value,
                _ => {}
            }
        }
        Ok(addresses)
    }
}

impl Observed for RawPod {
    type Key = (NamespaceName, String);
    type Value = Pod;

    fn key(&self) -> Self::Key {
        let metadata = &self.metadata;
        (metadata.namespace.clone().unwrap_or_default().into(), metadata.name.clone().unwrap_or_default())
    }

    fn observe(self) -> Option<Pod> {
        let Slim { metadata, spec, status } = self;
        let ready =
            status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let annotations = metadata.annotations.as_ref();
        Some(Pod {
            controller: controller_of(&metadata),
            annotations: istio_annotations(annotations),
            host_network: spec.host_network,
            proxy: proxy_of(&metadata, &spec),
            finished,
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            ready,
            deletion: metadata.deletion_timestamp.as_ref().map(|time| time.0),
            problem: if ready || finished { None } else { problem(&status) },
            restart: annotations.and_then(|all| all.get(labels::RESTART).cloned()),
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
        })
    }
}

/// The proxy, in either list of containers.
fn proxy_of(metadata: &ObjectMeta, spec: &PodSpec) -> Option<Proxy> {
    let find = |list: &'_ [Container]| list.iter().position(|one| one.name == PROXY_CONTAINER);
    let (container, native) = match (find(&spec.init_containers), find(&spec.containers)) {
        (Some(at), _) => {
            let container = &spec.init_containers[at];
            (container, container.restart_policy.as_deref() == Some("Always"))
        }
        (None, Some(at)) => (&spec.containers[at], false),
        (None, None) => return None,
    };
    Some(Proxy {
        revision: revision_of(metadata, container),
        image: container.image.clone().unwrap_or_default(),
        native,
    })
}

/// The revision of a proxy. Neither the label `istio.io/rev` (injection does not set it) nor the image decides.
fn revision_of(metadata: &ObjectMeta, container: &Container) -> Option<Revision> {
    let annotation = |key: &str| metadata.annotations.as_ref()?.get(key);
    annotation(labels::REVISION)
        .filter(|value| !value.is_empty())
        .cloned()
        .or_else(|| annotation(INJECTION_STATUS).and_then(|report| reported_revision(report)))
        .or_else(|| container.env.ca.as_deref().and_then(address_revision))
        .or_else(|| container.env.proxy_config.as_deref().and_then(discovery_revision))
        .map(Revision)
}

fn reported_revision(report: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Report {
        revision: Option<String>,
    }
    let report: Report = serde_json::from_str(report).ok()?;
    report.revision.filter(|revision| !revision.is_empty())
}

fn discovery_revision(config: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        discovery_address: Option<String>,
    }
    let config: Config = serde_json::from_str(config).ok()?;
    config.discovery_address.as_deref().and_then(address_revision)
}

/// `istiod-asm-1-28.aks-istio-system.svc:15012` names `asm-1-28`; plain `istiod` is the default revision.
pub fn address_revision(address: &str) -> Option<String> {
    let host = address.rsplit("//").next()?.split([':', '/']).next()?;
    let service = host.split('.').next()?;
    match service.strip_prefix("istiod")? {
        "" => Some("default".to_owned()),
        suffix => suffix.strip_prefix('-').map(str::to_owned),
    }
}

/// Why the pod is not ready.
fn problem(status: &PodStatus) -> Option<PodProblem> {
    let problem = unscheduled(status)
        .or_else(|| failing_container(status))
        .or_else(|| restarted_container(status))
        .or_else(|| unready_container(status))
        .or_else(|| unready_condition(status))?;
    Some(PodProblem { message: problem.message.chars().take(MAX_PROBLEM).collect(), ..problem })
}

/// Something that only has to start.
fn starting(message: String) -> PodProblem {
    PodProblem { reason: String::new(), message }
}

fn unscheduled(status: &PodStatus) -> Option<PodProblem> {
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.kind == "PodScheduled" && condition.status == "False")?;
    let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
    let message = condition.message.as_deref().unwrap_or(&reason);
    Some(PodProblem { message: format!("not scheduled: {message}"), reason })
}

/// A container that waits for a reason or has crashed. What merely starts comes last.
fn failing_container(status: &PodStatus) -> Option<PodProblem> {
    let all = || status.init_container_statuses.iter().chain(&status.container_statuses);
    let just_starting = ["ContainerCreating", "PodInitializing"];
    let waits = |starts: bool| {
        all().find_map(|container| {
            let waiting = container.state.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            if just_starting.contains(&reason) != starts {
                return None;
            }
            let mut message = format!("container {}: {reason}", container.name);
            if let Some(more) = waiting.message.as_deref().filter(|more| !more.is_empty()) {
                let _ = write!(message, ": {more}");
            }
            let reason = if starts { String::new() } else { reason.to_owned() };
            Some(PodProblem { reason, message })
        })
    };
    let crashed = || {
        all().find_map(|container| {
            let ended = container.state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
            let reason = ended.reason.clone().unwrap_or_else(|| "Error".to_owned());
            let message = format!("container {}: {reason} (exit code {})", container.name, ended.exit_code);
            Some(PodProblem { reason, message })
        })
    };
    waits(false).or_else(crashed).or_else(|| waits(true))
}

/// A container that had to start again and is not ready: between two crashes it runs, and looks as if it only started.
fn restarted_container(status: &PodStatus) -> Option<PodProblem> {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let container =
        all.into_iter().find(|one| !one.ready && one.restart_count > 0 && one.state.running.is_some())?;
    let times = if container.restart_count == 1 {
        "once".to_owned()
    } else {
        format!("{} times", container.restart_count)
    };
    Some(PodProblem {
        reason: "Restarted".to_owned(),
        message: format!("container {} is not ready and was started again {times}", container.name),
    })
}

/// A container that runs without being ready. A proxy's init container that is done is not meant.
fn unready_container(status: &PodStatus) -> Option<PodProblem> {
    let native = status.init_container_statuses.iter().filter(|container| container.name == PROXY_CONTAINER);
    let container = native
        .chain(&status.container_statuses)
        .find(|container| !container.ready && container.state.running.is_some())?;
    Some(starting(format!("container {} is not ready", container.name)))
}

fn unready_condition(status: &PodStatus) -> Option<PodProblem> {
    let condition = status.conditions.iter().find(|condition| condition.kind == "Ready")?;
    condition.message.clone().or_else(|| condition.reason.clone()).map(starting)
}

#[cfg(test)]
mod tests;

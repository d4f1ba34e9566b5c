//! Real istiod processes and the objects of their chart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::binaries::Binaries;
use crate::credentials::Credentials;
use crate::ports::Ports;
use crate::process::{Kept, Spec};
use crate::stages::ANNOTATIONS;

/// Where the control planes of the mesh live, unless something else is asked for.
pub const SYSTEM_NAMESPACE: &str = "istio-system";
/// Registry and repository of the images in the charts; nothing pulls them.
const HUB: &str = "mesh.example/istio";
/// Objects that have no use where nothing runs, or that would work against the simulated pods.
const LEFT_OUT: [&str; 3] = ["HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"];

/// One revision of istiod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioRevision {
    /// For example `asm-1-28`.
    pub name: String,
    /// Tag of the proxy image that this revision injects, for example `1.28.1`.
    pub tag: String,
}

impl IstioRevision {
    /// A revision with this name and proxy image tag.
    pub fn new(name: &str, tag: &str) -> Self {
        Self { name: name.to_owned(), tag: tag.to_owned() }
    }

    /// The name under which this istiod appears in the audit log.
    pub fn user(&self) -> String {
        format!("system:istiod:{}", self.name)
    }

    pub(crate) fn deployment(&self) -> String {
        format!("istiod-{}", self.name)
    }

    /// As the chart names it: with the namespace, where that is not the usual one.
    pub(crate) fn webhook(&self, namespace: &str) -> String {
        let suffix = if namespace == SYSTEM_NAMESPACE { String::new() } else { format!("-{namespace}") };
        format!("istio-sidecar-injector-{}{suffix}", self.name)
    }
}

/// The addresses of one istiod; they stay the same over restarts, because its webhooks name them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IstiodPorts {
    http: u16,
    https: u16,
    pub grpc: u16,
    secure_grpc: u16,
    pub monitoring: u16,
}

impl IstiodPorts {
    fn take(ports: &mut Ports) -> Result<Self> {
        Ok(Self {
            http: ports.take()?,
            https: ports.take()?,
            grpc: ports.take()?,
            secure_grpc: ports.take()?,
            monitoring: ports.take()?,
        })
    }

    pub fn all(self) -> [u16; 5] {
        [self.http, self.https, self.grpc, self.secure_grpc, self.monitoring]
    }
}

/// One installed revision: its objects and its process.
#[derive(Debug)]
pub(crate) struct Istiod {
    pub revision: IstioRevision,
    pub namespace: String,
    pub ports: IstiodPorts,
    /// Everything the chart installed, for removal and for putting parts back.
    pub objects: Vec<DynamicObject>,
    pub process: Option<Kept>,
    kubeconfig: PathBuf,
    dir: PathBuf,
}

impl Istiod {
    pub fn new(
        revision: &IstioRevision,
        namespace: &str,
        ports: &mut Ports,
        credentials: &Credentials,
        dir: &Path,
    ) -> Result<Self> {
        Ok(Self {
            revision: revision.clone(),
            namespace: namespace.to_owned(),
            ports: IstiodPorts::take(ports)?,
            objects: Vec::new(),
            process: None,
            kubeconfig: credentials.administrator_kubeconfig(&revision.user())?,
            dir: dir.join(revision.deployment()),
        })
    }

    /// Starts the process unless it runs.
    pub fn spawn(&mut self, binaries: &Binaries) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        self.process = Some(Kept::spawn(&binaries.path("keeper"), &self.spec(binaries))?);
        Ok(())
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Kept::is_running)
    }

    fn spec(&self, binaries: &Binaries) -> Spec {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let ports = self.ports;
        let env: [(&str, &str); 10] = [
            ("REVISION", &self.revision.name),
            ("POD_NAME", &self.revision.deployment()),
            ("POD_NAMESPACE", &self.namespace),
            ("SERVICE_ACCOUNT", &self.revision.deployment()),
            ("CLUSTER_ID", "Kubernetes"),
            ("PILOT_CERT_PROVIDER", "istiod"),
            ("INJECTION_WEBHOOK_CONFIG_NAME", &self.revision.webhook(&self.namespace)),
            (
                "VALIDATION_WEBHOOK_CONFIG_NAME",
                &format!("istio-validator-{}-{}", self.revision.name, self.namespace),
            ),
            ("ISTIOD_CUSTOM_HOST", "127.0.0.1,localhost"),
            ("PILOT_ENABLE_ANALYSIS", "false"),
        ];
        Spec {
            name: self.revision.deployment(),
            program: binaries.path("pilot-discovery"),
            args: vec![
                "discovery".into(),
                format!("--kubeconfig={}", self.kubeconfig.display()),
                format!("--httpAddr={}", local(ports.http)),
                format!("--httpsAddr={}", local(ports.https)),
                format!("--grpcAddr={}", local(ports.grpc)),
                format!("--secureGRPCAddr={}", local(ports.secure_grpc)),
                format!("--monitoringAddr={}", local(ports.monitoring)),
                "--ctrlz_port=0".into(),
                "--shutdownDuration=1s".into(),
                "--kubernetesApiQPS=500".into(),
                "--kubernetesApiBurst=1000".into(),
            ],
            env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            dir: self.dir.clone(),
        }
    }
}

/// Renders the chart for one revision.
pub(crate) async fn render(binaries: &Binaries, istiod: &Istiod, dir: &Path) -> Result<Vec<DynamicObject>> {
    let Istiod { revision, namespace, ports, .. } = istiod;
    let values = dir.join(format!("values-{}.yaml", revision.name));
    fs::write(&values, chart_values(revision, namespace, *ports).to_string())?;
    let output = tokio::process::Command::new(binaries.path("helm"))
        .args(["template", &revision.deployment()])
        .arg(binaries.chart())
        .args(["--namespace", namespace, "--values"])
        .arg(&values)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .output()
        .await?;
    if !output.status.success() {
        bail!("helm template {}: {}", revision.name, String::from_utf8_lossy(&output.stderr));
    }
    let objects =
        crate::access::documents(&String::from_utf8(output.stdout)?).context("the rendered chart")?;
    Ok(objects.into_iter().filter(|object| !left_out(object)).collect())
}

fn chart_values(revision: &IstioRevision, namespace: &str, ports: IstiodPorts) -> Value {
    json!({
        "revision": revision.name,
        "autoscaleEnabled": false,
        // The simulated pods are ready when the process is: see `readiness`.
        "podAnnotations": {format!("{ANNOTATIONS}never-ready"): "true"},
        "global": {"istioNamespace": namespace, "hub": HUB, "tag": revision.tag},
        // The API server is no part of the simulated pod network: it reaches webhooks by address, not by Service.
        "istiodRemote": {"injectionURL": format!("https://127.0.0.1:{}/inject", ports.https)},
        "base": {"validationURL": format!("https://127.0.0.1:{}/validate", ports.https)},
    })
}

fn left_out(object: &DynamicObject) -> bool {
    object.types.as_ref().is_some_and(|types| LEFT_OUT.contains(&types.kind.as_str()))
}

/// The validator of objects without a revision label, made from the validator of this revision.
pub(crate) fn default_validator(istiod: &Istiod) -> Result<DynamicObject> {
    let own = kind(&istiod.objects, "ValidatingWebhookConfiguration")
        .first()
        .copied()
        .cloned()
        .context("the chart has no validator")?;
    let mut validator = own;
    validator.metadata.name = Some("istiod-default-validator".into());
    let webhook = &mut validator.data["webhooks"][0];
    webhook["name"] = json!("validation.istio.io");
    webhook["objectSelector"] =
        json!({"matchExpressions": [{"key": "istio.io/rev", "operator": "DoesNotExist"}]});
    Ok(validator)
}

pub(crate) fn kind<'a>(objects: &'a [DynamicObject], kind: &str) -> Vec<&'a DynamicObject> {
    objects.iter().filter(|object| object.types.as_ref().is_some_and(|types| types.kind == kind)).collect()
}

/// Asks the process itself, as the kubelet's readiness probe would.
pub(crate) async fn is_ready(ports: IstiodPorts) -> bool {
    tokio::time::timeout(Duration::from_secs(2), probe(ports.http))
        .await
        .is_ok_and(|answer| answer.unwrap_or(false))
}

async fn probe(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(answer.ends_with(b" 200"))
}

/// The revisions of one cluster by name.
pub(crate) type Istiods = BTreeMap<String, Istiod>;

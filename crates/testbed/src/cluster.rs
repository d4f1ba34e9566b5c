//! One running control plane.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::access::{self, client_for, wait_for};
use crate::binaries::Binaries;
use crate::command::Tool;
use crate::control_plane::ControlPlane;
use crate::credentials::Credentials;
use crate::istio::{IstioRevision, Istiods, SYSTEM_NAMESPACE};
use crate::lock;
use crate::mesh::PATIENCE;
use crate::ports::Ports;
use crate::process::{Kept, Spec, end_all};

/// Field manager of [`Cluster::apply_yaml`].
const MANAGER: &str = "testbed";

/// A simulated node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name and hostname label.
    pub name: String,
    /// For example `v1.32.0`. From v1.33 on all nodes, istiod injects native sidecars.
    pub kubelet_version: String,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Where everything is kept; a temporary directory, removed at the end, when not given.
    pub dir: Option<PathBuf>,
    /// Where the istiods are.
    pub istio_namespace: String,
    /// The istiods to install at the start.
    pub revisions: Vec<IstioRevision>,
    /// The nodes, spread over three zones.
    pub nodes: Vec<NodeSpec>,
    /// Requests per second of the controller manager; its own default is 20.
    pub controller_qps: u32,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let node = |number| NodeSpec { name: format!("node-{number}"), kubelet_version: "v1.32.0".into() };
        Self {
            dir: None,
            istio_namespace: SYSTEM_NAMESPACE.to_owned(),
            revisions: vec![
                IstioRevision::new("asm-1-27", "1.27.5"),
                IstioRevision::new("asm-1-28", "1.28.2"),
            ],
            nodes: (1..=3).map(node).collect(),
            controller_qps: 2000,
        }
    }
}

/// A running control plane with simulated nodes and real istiods. Dropping it ends every process.
pub struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) binaries: Binaries,
    pub(crate) credentials: Credentials,
    pub(crate) ports: Mutex<Ports>,
    /// Installs and repairs under a name of its own, so that the audit log tells it from the tests.
    pub(crate) own: Client,
    pub(crate) istiods: Arc<Mutex<Istiods>>,
    pub(crate) istio_namespace: String,
    /// Whether the mesh has a root certificate: the first istiod makes it, the others must find it.
    pub(crate) root: tokio::sync::Mutex<bool>,
    client: Client,
    kubeconfig: PathBuf,
    processes: Mutex<Vec<Kept>>,
    readiness: JoinHandle<()>,
    temporary: Option<TempDir>,
}

impl Cluster {
    /// Builds what is missing, starts everything, and returns when both nodes and istiods are ready.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let binaries = Binaries::ensure().await?;
        let cluster = Self::start_api(&options, binaries).await?;
        tokio::select! {
            filled = cluster.start_rest(&options) => filled.map_err(|error| anyhow!("{error:#}\n{}", cluster.log_tails()))?,
            reason = cluster.part_ended() => return Err(reason),
        }
        Ok(cluster)
    }

    async fn start_rest(&self, options: &ClusterOptions) -> Result<()> {
        let prepare = try_join_all(options.revisions.iter().map(|revision| self.prepare_revision(revision)));
        futures::future::try_join(self.api_ready(), prepare).await?;
        self.start_controllers(options.controller_qps)?;
        self.fill(options).await
    }

    /// Starts etcd and the API server, without waiting for them.
    async fn start_api(options: &ClusterOptions, binaries: Binaries) -> Result<Self> {
        let (dir, temporary) = directory(options)?;
        let mut ports = Ports::reserve()?;
        let api_port = ports.take()?;
        let credentials = Credentials::create(&dir.join("credentials"), api_port)?;
        let plane = ControlPlane {
            dir: &dir,
            binaries: &binaries,
            credentials: &credentials,
            api_port,
            controller_qps: options.controller_qps,
        };
        let specs = plane.api(&mut ports)?;
        let processes = spawn_all(&binaries, &specs)?;
        let kubeconfig = dir.join("kubeconfig");
        std::fs::copy(credentials.static_kubeconfig("admin")?, &kubeconfig)?;
        let own = client_for(&credentials.static_kubeconfig("system:testbed")?).await?;
        let istiods = Arc::new(Mutex::new(Istiods::new()));
        Ok(Self {
            client: client_for(&kubeconfig).await?,
            readiness: tokio::spawn(crate::readiness::follow(
                own.clone(),
                options.istio_namespace.clone(),
                istiods.clone(),
            )),
            own,
            dir,
            binaries,
            credentials,
            ports: Mutex::new(ports),
            istiods,
            istio_namespace: options.istio_namespace.clone(),
            root: tokio::sync::Mutex::new(false),
            kubeconfig,
            processes: Mutex::new(processes),
            temporary,
        })
    }

    async fn api_ready(&self) -> Result<()> {
        wait_for("the API server", PATIENCE, || async {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(Some(self.own.request_text(request).await?))
        })
        .await
        .map(drop)
    }

    fn start_controllers(&self, controller_qps: u32) -> Result<()> {
        let plane = ControlPlane {
            dir: &self.dir,
            binaries: &self.binaries,
            credentials: &self.credentials,
            api_port: 0,
            controller_qps,
        };
        let specs = plane.controllers(&mut lock(&self.ports))?;
        let mut started = spawn_all(&self.binaries, &specs)?;
        lock(&self.processes).append(&mut started);
        Ok(())
    }

    /// Nodes, Istio's CRDs and the revisions.
    async fn fill(&self, options: &ClusterOptions) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.own.clone());
        let system = ObjectMeta { name: Some(self.istio_namespace.clone()), ..ObjectMeta::default() };
        let system = Namespace { metadata: system, ..Namespace::default() };
        namespaces.create(&PostParams::default(), &system).await?;
        let nodes =
            join_all(options.nodes.iter().zip(1..).map(|(node, number)| self.create_node(node, number)));
        let crds = std::fs::read_to_string(self.binaries.crds())?;
        let crds = async { access::apply(&self.own, MANAGER, &access::documents(&crds)?).await };
        let (nodes, crds) = futures::future::join(nodes, crds).await;
        nodes.into_iter().collect::<Result<()>>()?;
        crds?;
        try_join_all(options.revisions.iter().map(|revision| self.bring_up(&revision.name))).await?;
        Ok(())
    }

    async fn create_node(&self, node: &NodeSpec, number: usize) -> Result<()> {
        let version = &node.kubelet_version;
        let object: Node = serde_json::from_value(json!({
            "metadata": {"name": node.name, "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/region": "region-1",
                "topology.kubernetes.io/zone": format!("region-1-{}", (number - 1) % 3 + 1),
            }},
            "status": {"nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "osImage": "", "kernelVersion": "",
                "containerRuntimeVersion": "kwok", "kubeletVersion": version, "kubeProxyVersion": version,
                "bootID": "", "machineID": "", "systemUUID": "",
            }},
        }))?;
        Api::<Node>::all(self.own.clone()).create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Where the istiods are.
    pub fn istio_namespace(&self) -> &str {
        &self.istio_namespace
    }

    /// The names of the installed revisions.
    pub fn revisions(&self) -> Vec<String> {
        lock(&self.istiods).keys().cloned().collect()
    }

    /// A client of the administrator `admin`.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig of the administrator `admin`.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's audit log: one JSON event per line.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// The directory with all logs and configuration of this cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The built programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Name and pids (keeper and program) of everything that runs for this cluster.
    pub fn pids(&self) -> Vec<(String, Vec<u32>)> {
        let mut all: Vec<(String, Vec<u32>)> =
            lock(&self.processes).iter().map(|process| (process.name().to_owned(), process.pids())).collect();
        for istiod in lock(&self.istiods).values() {
            all.extend(istiod.process.iter().map(|process| (process.name().to_owned(), process.pids())));
        }
        all
    }

    /// Runs kubectl as `admin` and returns what it prints.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.tool("kubectl").run(args, None).await
    }

    /// Runs kubectl as `admin` with this text on its standard input.
    pub async fn kubectl_stdin(&self, args: &[&str], input: &str) -> Result<String> {
        self.tool("kubectl").run(args, Some(input)).await
    }

    /// Runs helm as `admin` and returns what it prints.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        self.tool("helm").run(args, None).await
    }

    fn tool(&self, program: &str) -> Tool {
        Tool {
            program: self.binaries.path(program),
            kubeconfig: self.kubeconfig.clone(),
            home: self.dir.clone(),
        }
    }

    /// Server-side apply of every document as `admin`, with the field manager `testbed` and force.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<()> {
        self.apply_yaml_as(MANAGER, yaml).await
    }

    /// [`Cluster::apply_yaml`] with a field manager of choice.
    pub async fn apply_yaml_as(&self, manager: &str, yaml: &str) -> Result<()> {
        access::apply_yaml(&self.client, manager, yaml).await
    }

    /// Proxy and readiness of every pod of the namespace that is not being deleted, by pod name.
    pub async fn proxy_revisions(
        &self,
        namespace: &str,
    ) -> Result<std::collections::BTreeMap<String, access::ProxyRevision>> {
        access::proxy_revisions(&self.client, namespace).await
    }

    /// Writes a kubeconfig with a bound token of this ServiceAccount and nothing else.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        seconds: i64,
    ) -> Result<PathBuf> {
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.own.clone(), namespace);
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
        let token = answer.status.context("the token request has no answer")?.token;
        let path = self.dir.join("credentials").join(format!("{namespace}-{name}.kubeconfig"));
        self.credentials.write_token_kubeconfig(&path, &format!("{namespace}:{name}"), &token)?;
        Ok(path)
    }

    /// Ends every process and waits until they are gone.
    pub async fn shutdown(self) -> Result<()> {
        tokio::task::spawn_blocking(move || drop(self)).await?;
        Ok(())
    }

    /// Returns when a program has ended by itself: no use in waiting for the rest then.
    async fn part_ended(&self) -> anyhow::Error {
        loop {
            if let Some(reason) = self.find_ended() {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn find_ended(&self) -> Option<anyhow::Error> {
        let mut istiods = lock(&self.istiods);
        let istiods = istiods.values_mut().filter_map(|istiod| istiod.process.as_mut());
        lock(&self.processes).iter_mut().chain(istiods).find_map(ended)
    }

    fn log_tails(&self) -> String {
        let tails: Vec<String> = lock(&self.processes)
            .iter()
            .map(|process| format!("--- {}\n{}", process.name(), process.log_tail()))
            .collect();
        tails.join("\n")
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cluster").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.readiness.abort();
        let mut processes = std::mem::take(&mut *lock(&self.processes));
        processes.extend(lock(&self.istiods).values_mut().filter_map(|istiod| istiod.process.take()));
        end_all(&mut processes);
        if std::env::var_os("MESHUPGRADE_TESTBED_KEEP").is_some()
            && let Some(temporary) = self.temporary.take()
        {
            eprintln!("kept {}", temporary.keep().display());
        }
    }
}

fn ended(process: &mut Kept) -> Option<anyhow::Error> {
    let ended = !process.is_running();
    ended.then(|| anyhow!("{} ended:\n{}", process.name(), process.log_tail()))
}

fn directory(options: &ClusterOptions) -> Result<(PathBuf, Option<TempDir>)> {
    let Some(dir) = &options.dir else {
        let temporary = tempfile::Builder::new().prefix("meshupgrade-testbed-").tempdir()?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    if dir.join("etcd").exists() {
        bail!("{} already holds the data of a cluster: remove it first", dir.display());
    }
    std::fs::create_dir_all(dir)?;
    // The programs run in it, so relative paths would mean something else to them.
    Ok((dir.canonicalize()?, None))
}

fn spawn_all(binaries: &Binaries, specs: &[Spec]) -> Result<Vec<Kept>> {
    let keeper = binaries.path("keeper");
    specs.iter().map(|spec| Kept::spawn(&keeper, spec)).collect()
}

//! A simulated Azure for scenarios of the AKS add-on: what it accepts really installs and removes istiods of the test cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures::future::{BoxFuture, FutureExt as _};
use meshupgrade_arm_simulator::{Call, ClusterConfig, Config, ControlPlanes, Entry, Fault, Simulator};
use meshupgrade_testbed::{Cluster, ClusterOptions, IstioRevision};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::install::{NAMESPACE, gateway_namespaces};
use crate::operator::OperatorSpec;
use crate::scenario::Scenario;

/// Whom Microsoft Entra wants tokens of workload identity to be for.
const AUDIENCE: &str = "api://AzureADTokenExchange";
/// The label of the gateways that Azure installs.
pub const GATEWAY: &str = "gateway=addon";
/// The operator's ServiceAccount.
const SERVICE_ACCOUNT: &str = "meshupgrade-operator";

/// A running simulator with one cluster.
pub struct Azure {
    /// The simulator.
    pub simulator: Simulator,
    /// The resource id of the cluster.
    pub cluster: String,
    spec: Value,
    client: String,
    tenant: String,
    dir: PathBuf,
    room: Arc<AtomicBool>,
}

/// What Azure wants done to the control planes of the test cluster.
struct Order {
    revision: String,
    install: bool,
    room: bool,
    done: oneshot::Sender<Result<(), String>>,
}

/// The control planes of a test cluster, for the simulator: it passes on what it wants, and holds nothing of the cluster, which
/// ends with its owner.
struct Istiods {
    orders: mpsc::UnboundedSender<Order>,
    room: Arc<AtomicBool>,
}

impl Istiods {
    async fn order(&self, revision: &str, install: bool) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let ended = "the test cluster has ended";
        let room = self.room.load(Ordering::SeqCst);
        self.orders.send(Order { revision: revision.to_owned(), install, room, done }).map_err(|_| ended)?;
        outcome.await.map_err(|_| ended)?
    }
}

impl ControlPlanes for Istiods {
    fn install<'a>(&'a self, revision: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.order(revision, true).boxed()
    }

    fn remove<'a>(&'a self, revision: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.order(revision, false).boxed()
    }
}

/// What Azure wants done, for the owner of the test cluster.
pub struct Orders(mpsc::UnboundedReceiver<Order>);

impl Orders {
    /// Does it, until Azure is dropped.
    pub async fn carry_out(mut self, cluster: &Cluster) {
        while let Some(Order { revision, install, room, mut done }) = self.0.recv().await {
            tokio::select! {
                outcome = carry_out(cluster, &revision, install, room) => {
                    // Nobody waits for it any more: as good as done.
                    let _ = done.send(outcome.map_err(|error| format!("{error:#}")));
                }
                () = done.closed() => {}
            }
        }
    }
}

async fn carry_out(cluster: &Cluster, revision: &str, install: bool, room: bool) -> Result<()> {
    if install {
        cluster.install_revision(&offered(revision)).await?;
        return cluster.apply_yaml(&gateways(revision, room)).await;
    }
    cluster.remove_revision(revision).await?;
    let selector = format!("istio.io/rev={revision},{GATEWAY}");
    cluster.kubectl(&["delete", "deployments", "-A", "-l", &selector]).await.map(drop)
}

/// A revision of the add-on: the proxies of asm-1-28 have the version 1.28.0, unless the testbed knows better.
fn offered(revision: &str) -> IstioRevision {
    let known = ClusterOptions::default().revisions.into_iter().find(|known| known.name == revision);
    let version = revision.trim_start_matches("asm-").replace('-', ".");
    known.unwrap_or_else(|| IstioRevision::new(revision, &format!("{version}.0")))
}

/// The gateways that the simulated cluster has on. Without `room` no node takes their pods.
pub fn gateways(revision: &str, room: bool) -> String {
    let names = [
        ("aks-istio-ingress", "aks-istio-ingressgateway-external"),
        ("aks-istio-ingress", "aks-istio-ingressgateway-internal"),
        ("aks-istio-egress", "egress"),
    ];
    let deployments = names.map(|(namespace, name)| gateway(namespace, name, revision, room));
    [vec![gateway_namespaces()], deployments.to_vec()].concat().join("\n---\n")
}

/// The Deployment of a gateway, as the add-on calls it. Its template names the revision, whose webhook makes a proxy of the container, as with
/// Istio's gateway chart (inferred for the add-on).
pub fn gateway(namespace: &str, name: &str, revision: &str, room: bool) -> String {
    let nodes = if room { json!({}) } else { json!({"pool": "gateways"}) };
    let pods = json!({"istio": name, "istio.io/rev": revision, "sidecar.istio.io/inject": "true"});
    let annotations = json!({"inject.istio.io/templates": "gateway"});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("{name}-{revision}"), "namespace": namespace,
            "labels": {"istio.io/rev": revision, "gateway": "addon"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": pods},
            "template": {"metadata": {"labels": pods, "annotations": annotations},
                "spec": {"nodeSelector": nodes, "containers": [{"name": "istio-proxy", "image": "auto"}]}}}})
    .to_string()
}

/// The Service in front of the external gateways of all revisions.
pub struct GatewayService(&'static Cluster);

impl GatewayService {
    /// Its namespace.
    pub const NAMESPACE: &str = "aks-istio-ingress";
    /// Its name.
    pub const NAME: &str = "aks-istio-ingressgateway-external";

    /// Creates it, with this address.
    pub async fn create(scenario: &Scenario, address: &str) -> Result<Self> {
        let service = Self(scenario.cluster());
        let spec =
            json!({"type": "LoadBalancer", "selector": {"gateway": Self::NAME}, "ports": [{"port": 443}]});
        let object = json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": Self::NAME, "namespace": Self::NAMESPACE}});
        service.0.apply_yaml(&object.to_string()).await?;
        service.has(address).await?;
        Ok(service)
    }

    /// Gives it another address, as the cloud does.
    pub async fn has(&self, address: &str) -> Result<()> {
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}).to_string();
        let name = ["patch", "service", Self::NAME, "-n", Self::NAMESPACE];
        let patch = ["--subresource=status", "--type=merge", "-p", &status];
        self.0.kubectl(&[name.as_slice(), &patch].concat()).await.map(drop)
    }

    /// Removes it.
    pub async fn delete(self) -> Result<()> {
        self.0.kubectl(&["delete", "service", Self::NAME, "-n", Self::NAMESPACE]).await.map(drop)
    }
}

impl Azure {
    /// Starts it for a scenario, with a cluster that has these revisions.
    pub async fn start(scenario: &Scenario, revisions: &[&str]) -> Result<Self> {
        let cluster = scenario.cluster();
        cluster.kubectl(&["delete", "deployments", "-A", "-l", GATEWAY]).await?;
        for revision in revisions {
            cluster.apply_yaml(&gateways(revision, true)).await?;
        }
        let (azure, orders) = Self::start_for(cluster, scenario.log_dir()?, revisions).await?;
        tokio::spawn(orders.carry_out(cluster));
        Ok(azure)
    }

    /// Starts it with a cluster that has these revisions, and files in this directory. The owner of the test cluster carries out
    /// the orders.
    pub async fn start_for(cluster: &Cluster, dir: PathBuf, revisions: &[&str]) -> Result<(Self, Orders)> {
        let (sender, orders) = mpsc::unbounded_channel();
        let room = Arc::new(AtomicBool::new(true));
        let istiods = Istiods { orders: sender, room: Arc::clone(&room) };
        let managed = ClusterConfig::new(Arc::new(istiods), revisions);
        let spec = json!({"subscriptionId": managed.subscription, "resourceGroup": managed.resource_group,
            "clusterName": managed.name});
        let id = managed.id();
        let config = Config { retry_after: Some(1), ..Config::new(vec![managed]) };
        let (client, tenant) = (config.clients.first().cloned().context("no client")?, config.tenant.clone());
        let simulator = Simulator::start(config).await?;
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("azure-ca.pem"), simulator.ca_pem())?;
        // What the cluster projects into the operator's pod.
        let audience = format!("--audience={AUDIENCE}");
        let token = ["create", "token", SERVICE_ACCOUNT, "-n", NAMESPACE, &audience];
        std::fs::write(dir.join("azure-token"), cluster.kubectl(&token).await?.trim())?;
        Ok((Self { simulator, cluster: id, spec, client, tenant, dir, room }, Orders(orders)))
    }

    /// An operator that signs in there.
    pub fn operator(&self) -> OperatorSpec {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let base = self.simulator.base_url();
        OperatorSpec::default()
            .flag(&format!("--arm-endpoint={base}"))
            .flag(&format!("--arm-ca-file={}", file("azure-ca.pem")))
            .flag("--aks-poll-seconds=1")
            .env("AZURE_AUTHORITY_HOST", base)
            .env("AZURE_CLIENT_ID", &self.client)
            .env("AZURE_TENANT_ID", &self.tenant)
            .env("AZURE_FEDERATED_TOKEN_FILE", &file("azure-token"))
    }

    /// `spec.controlPlane` of its cluster.
    pub fn control_plane(&self) -> Value {
        json!({"aks": self.spec})
    }

    /// The cluster's profile has another egress gateway.
    pub fn add_egress_gateway(&self, namespace: &str, name: &str) -> Result<()> {
        self.simulator.change(&self.cluster, |document| {
            let gateways =
                document.pointer_mut("/properties/serviceMeshProfile/istio/components/egressGateways");
            if let Some(gateways) = gateways.and_then(Value::as_array_mut) {
                gateways.push(json!({"enabled": true, "name": name, "namespace": namespace}));
            }
        })
    }

    /// From now on no node has room for the gateways of a revision that is installed.
    pub fn leave_no_room(&self) {
        self.room.store(false, Ordering::SeqCst);
    }

    /// Fails if somebody who signs in as the operator does has called.
    pub fn judge_no_calls(&self) -> Result<()> {
        let journal = self.simulator.journal();
        let others: Vec<_> = journal.iter().filter(|entry| !is_az(entry)).collect();
        ensure!(others.is_empty(), "somebody besides az has called: {others:?}");
        Ok(())
    }

    /// Plants a fault at the next call of a kind.
    pub fn plant(&self, call: Call, fault: Fault) -> Result<()> {
        self.simulator.plant(call, fault)
    }

    /// Fails unless the cluster has these revisions.
    pub fn has(&self, revisions: &[&str]) -> Result<()> {
        let found = self.simulator.revisions(&self.cluster);
        ensure!(found == revisions, "the cluster has {found:?}, not {revisions:?}");
        Ok(())
    }

    /// Fails unless so many writes of the operator were accepted, each of which changed the revisions and nothing else.
    pub fn judge(&self, accepted: usize) -> Result<()> {
        let puts = self.accepted(false);
        ensure!(puts.len() == accepted, "{} writes were accepted, not {accepted}: {puts:?}", puts.len());
        for put in &puts {
            ensure!(put.foreign_changes.is_empty(), "a write changed more than the revisions: {put:?}");
            ensure!(put.if_match.is_some(), "a write that is not tied to what was read: {put:?}");
        }
        Ok(())
    }

    /// Fails unless the accepted writes of the Azure CLI and SDK asked for these revisions.
    pub fn judge_az(&self, wanted: &[&[&str]]) -> Result<()> {
        let asked: Vec<_> = self.accepted(true).into_iter().filter_map(|put| put.revisions).collect();
        ensure!(asked == wanted, "az asked for {asked:?}, not for {wanted:?}");
        Ok(())
    }

    /// The accepted writes of the Azure CLI and SDK, or of everybody else.
    fn accepted(&self, by_az: bool) -> Vec<Entry> {
        self.simulator.accepted_puts().into_iter().filter(|put| is_az(put) == by_az).collect()
    }
}

/// Whether the Azure CLI or its SDK has called.
fn is_az(call: &Entry) -> bool {
    let agent = call.user_agent.as_deref().unwrap_or_default();
    agent.starts_with("AZURECLI/") || agent.starts_with("python-requests") || agent.contains("azsdk-python")
}

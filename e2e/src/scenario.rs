//! What a scenario works with.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use meshupgrade_api::MeshUpgrade;
use meshupgrade_testbed::{Cluster, IstioRevision, client_for, wait_for};

use crate::audit::Log;
use crate::cluster::World;
use crate::install::{NAMESPACE, USER};
use crate::mesh::{MARK, Mesh};
use crate::operator::{Operator, OperatorSpec};
use crate::referee::{Case, Wave, judge};
use crate::tail::{Follower, Tail};
use crate::{SOURCE, TARGET};

/// How long anything may take that is not slow on purpose.
pub const SOON: Duration = Duration::from_mins(1);

/// One scenario on the shared control plane.
#[derive(Debug)]
pub struct Scenario {
    world: &'static World,
    name: String,
    /// Where its part of the audit log begins.
    begin: Tail,
    operators: Vec<Operator>,
    /// What the referee is told.
    pub case: Case,
}

impl Scenario {
    /// Begins: only what comes from now on is judged.
    pub fn begin(world: &'static World, name: &str) -> Result<Self> {
        let case = Case {
            operator: USER.into(),
            operator_namespace: NAMESPACE.into(),
            istio_namespace: world.cluster.istio_namespace().into(),
            source: SOURCE.into(),
            target: TARGET.into(),
            settle: Duration::from_secs(1),
            ..Case::default()
        };
        let begin = Tail::at_end(&world.cluster.audit_log())?;
        Ok(Self { world, name: name.to_owned(), begin, operators: Vec::new(), case })
    }

    /// The control plane.
    pub fn cluster(&self) -> &'static Cluster {
        &self.world.cluster
    }

    /// Where programs of this scenario log.
    pub fn log_dir(&self) -> Result<PathBuf> {
        let dir = self.world.dir.join("logs").join(&self.name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A client of the administrator.
    pub fn client(&self) -> Client {
        self.world.cluster.client()
    }

    /// A client with the rights of the operator.
    pub async fn operator_client(&self) -> Result<Client> {
        client_for(&self.world.kubeconfig).await
    }

    /// Applies a mesh and waits until all of it runs on the source.
    pub async fn mesh(&mut self, mesh: Mesh) -> Result<()> {
        self.apply_mesh(&mesh).await?;
        self.wait_mesh(&mesh, SOURCE).await
    }

    /// Applies a mesh.
    pub async fn apply_mesh(&mut self, mesh: &Mesh) -> Result<()> {
        self.case.floors.extend(mesh.floors());
        self.cluster().apply_yaml(&mesh.manifests()).await
    }

    /// Tells the referee about a wave.
    pub fn wave(&mut self, namespaces: &[&str], at_once: usize) {
        let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        self.case.waves.push(Wave { namespaces, at_once });
    }

    /// Where the output of what the scenario starts is kept, also after the end.
    pub fn logs_dir(&self) -> PathBuf {
        self.world.dir.join("logs").join(&self.name)
    }

    /// The port of every Prometheus of this control plane: scenarios come one after the other.
    pub fn prometheus_port(&self) -> Result<u16> {
        if let Some(port) = self.world.prometheus_port.get() {
            return Ok(*port);
        }
        let port = self.cluster().take_port()?;
        Ok(*self.world.prometheus_port.get_or_init(|| port))
    }

    /// Starts an operator with short times.
    pub fn start_operator(&mut self) -> Result<()> {
        self.start_operator_as(&OperatorSpec::default())
    }

    /// Starts an operator.
    pub fn start_operator_as(&mut self, spec: &OperatorSpec) -> Result<()> {
        let keeper = self.cluster().binaries().path("keeper");
        let dir = self.logs_dir();
        self.operators.push(Operator::start(spec, &keeper, &self.world.kubeconfig, &dir)?);
        Ok(())
    }

    /// The operator that was started last.
    pub fn operator(&mut self) -> Result<&mut Operator> {
        self.operators.last_mut().ok_or_else(|| anyhow!("no operator was started"))
    }

    /// The operators in the order in which they were started.
    pub fn operators(&mut self) -> &mut [Operator] {
        &mut self.operators
    }

    /// The last lines of all operators' output.
    pub fn operator_log(&self) -> String {
        self.operators.iter().map(|operator| operator.log_tail(200)).collect()
    }

    /// SIGTERM for every operator, as when its Deployment is scaled to zero.
    pub fn stop_operators(&mut self) -> Result<()> {
        for mut operator in self.operators.drain(..) {
            operator.terminate()?;
        }
        Ok(())
    }

    /// SIGKILL for every operator.
    pub fn kill_operators(&mut self) -> Result<()> {
        self.case.crashes = true;
        for mut operator in self.operators.drain(..) {
            operator.kill()?;
        }
        Ok(())
    }

    /// Follows the operator's writes from now on.
    pub fn follow(&self) -> Result<Follower> {
        Ok(Follower::new(Tail::at_end(&self.cluster().audit_log())?, USER))
    }

    /// The scenario's part of the audit log, up to the newest version of every MeshUpgrade.
    pub async fn log(&self) -> Result<Log> {
        let upgrades: Api<MeshUpgrade> = Api::all(self.client());
        let newest: Vec<String> = upgrades
            .list(&ListParams::default())
            .await?
            .iter()
            .filter_map(ResourceExt::resource_version)
            .collect();
        wait_for("the audit log to have the newest status", Duration::from_secs(5), || async {
            let text = self.begin.read()?;
            let log = Log::parse(&text)?;
            let missing = newest.iter().find(|version| !log.has_version("meshupgrades", version));
            match missing {
                None => Ok(Some(log)),
                Some(version) => bail!("version {version} of a MeshUpgrade is not in it"),
            }
        })
        .await
    }

    /// Judges the scenario's part of the audit log by all rules except those that it breaks on purpose.
    pub async fn judge(&self, except: &[&str]) -> Result<()> {
        let violations = judge(&self.case, &self.log().await?, except);
        if violations.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = violations.iter().map(|violation| format!("  {violation}")).collect();
        bail!("the referee found {}:\n{}", lines.len(), lines.join("\n"))
    }

    /// What a person needs to see when a scenario failed.
    pub async fn report(&self) -> String {
        let upgrades: Api<MeshUpgrade> = Api::all(self.client());
        let mut parts: Vec<String> = match upgrades.list(&ListParams::default()).await {
            Ok(list) => list.iter().map(crate::upgrade::describe).collect(),
            Err(error) => vec![format!("no MeshUpgrades: {error}")],
        };
        parts
            .extend(self.operators.iter().map(|operator| format!("--- operator\n{}", operator.log_tail(40))));
        parts.push(format!("--- more in {}", self.logs_dir().display()));
        parts.join("\n")
    }

    /// Leaves the control plane as it was.
    pub async fn end(&mut self) -> Result<()> {
        let upgrades: Api<MeshUpgrade> = Api::all(self.client());
        upgrades.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        self.operators.clear();
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        self.remove_namespaces().await?;
        let wanted = self.world.kind.options().revisions;
        for name in self.cluster().revisions() {
            if wanted.iter().all(|revision| revision.name != name) {
                self.cluster().remove_revision(&name).await?;
            }
        }
        for revision in &wanted {
            self.restore(revision).await?;
        }
        Ok(())
    }

    async fn restore(&self, revision: &IstioRevision) -> Result<()> {
        let cluster = self.cluster();
        let deployments: Api<Deployment> = Api::namespaced(self.client(), self.cluster().istio_namespace());
        if deployments.get_opt(&format!("istiod-{}", revision.name)).await?.is_none() {
            return cluster.install_revision(revision).await;
        }
        let revision = &revision.name;
        if !cluster.pids().iter().any(|(name, _)| *name == format!("istiod-{revision}")) {
            cluster.start_istiod(revision).await?;
        }
        cluster.restore_webhook(revision).await?;
        wait_for(&format!("istiod of {revision}"), SOON, || async {
            let status = deployments.get(&format!("istiod-{revision}")).await?.status.unwrap_or_default();
            Ok(status.ready_replicas.filter(|ready| *ready > 0))
        })
        .await
        .map(drop)
    }

    /// Nothing new can be made in a namespace that is ending; its pods would only wait for their grace.
    async fn remove_namespaces(&self) -> Result<()> {
        let client = self.client();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let made = namespaces.list(&ListParams::default().labels(MARK)).await?;
        let names: BTreeSet<String> = made.iter().map(ResourceExt::name_any).collect();
        let alive = made.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_none());
        let removals = alive.map(|namespace| self.remove_namespace(namespace.name_any()));
        futures::future::try_join_all(removals).await?;
        let pods: Api<Pod> = Api::all(client);
        wait_for("the end of all pods", SOON, || async {
            let left = pods.list(&ListParams::default()).await?;
            let left =
                left.iter().filter_map(ResourceExt::namespace).find(|namespace| names.contains(namespace));
            Ok(left.is_none().then_some(()))
        })
        .await
    }

    async fn remove_namespace(&self, name: String) -> Result<()> {
        let client = self.client();
        let (background, all) = (DeleteParams::background(), ListParams::default());
        Api::<Namespace>::all(client.clone()).delete(&name, &background).await?;
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        Api::<Pod>::namespaced(client.clone(), &name).delete_collection(&at_once, &all).await?;
        Api::<Deployment>::namespaced(client.clone(), &name).delete_collection(&background, &all).await?;
        Api::<StatefulSet>::namespaced(client.clone(), &name).delete_collection(&background, &all).await?;
        Api::<DaemonSet>::namespaced(client, &name).delete_collection(&background, &all).await?;
        Ok(())
    }
}

//! The running simulator, and what tests read and change in it.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::fault::{Fault, Times};
use crate::journal::Entry;
use crate::operation::set_revisions;
use crate::route::Call;
use crate::shared::{Shared, State};
use crate::{arm, lock, server, tls};

/// A simulator; dropping it ends its servers, connections and operations.
pub struct Simulator {
    shared: Arc<Shared>,
    ca: String,
    identity_url: String,
    servers: Vec<JoinHandle<()>>,
}

impl Drop for Simulator {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
        lock(&self.shared.tasks).abort_all();
    }
}

impl Simulator {
    /// Starts both servers. Errors: a port that is taken.
    pub async fn start(config: Config) -> Result<Self> {
        let (tls, ca) = tls::create()?;
        let arm = listen(config.port).await?;
        let identity = listen(config.identity_port).await?;
        let identity_url = format!("http://127.0.0.1:{}", identity.local_addr()?.port());
        let base_url = format!("https://127.0.0.1:{}", arm.local_addr()?.port());
        let clusters =
            config.clusters.iter().map(|cluster| (key(&cluster.id()), Cluster::new(cluster))).collect();
        let shared = Arc::new(Shared {
            config,
            base_url,
            started: Instant::now(),
            state: Mutex::new(State { clusters, ..State::default() }),
            tasks: Mutex::new(JoinSet::new()),
        });
        let servers = vec![
            tokio::spawn(server::serve(arm, Some(TlsAcceptor::from(tls)), Arc::clone(&shared))),
            tokio::spawn(server::serve(identity, None, Arc::clone(&shared))),
        ];
        Ok(Self { shared, ca, identity_url, servers })
    }

    /// Of both ARM and sign-in, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// Of the managed-identity endpoint, for `AZURE_POD_IDENTITY_AUTHORITY_HOST`.
    pub fn identity_url(&self) -> &str {
        &self.identity_url
    }

    /// The certificate of the authority that proves the server.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// What it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Plants a fault at the next request of this kind. Errors: it cannot show there.
    pub fn plant(&self, call: Call, fault: Fault) -> Result<()> {
        self.plant_at(call, fault, Times::Next)
    }

    /// Plants a fault. Errors: it cannot show there.
    pub fn plant_at(&self, call: Call, fault: Fault, times: Times) -> Result<()> {
        lock(&self.shared.state).faults.plant(call, fault, times)
    }

    /// How many planted faults have not shown as often as they were to. A test that leaves one has not met it.
    pub fn pending_faults(&self) -> usize {
        lock(&self.shared.state).faults.pending()
    }

    /// Takes all planted faults away; running operations keep theirs.
    pub fn heal(&self) {
        lock(&self.shared.state).faults.clear();
    }

    /// All requests so far.
    pub fn journal(&self) -> Vec<Entry> {
        lock(&self.shared.state).journal.clone()
    }

    /// The PUTs that were accepted.
    pub fn accepted_puts(&self) -> Vec<Entry> {
        self.journal().into_iter().filter(|entry| entry.accepted).collect()
    }

    /// The stored document of a cluster, without id and eTags.
    pub fn document(&self, cluster: &str) -> Option<Value> {
        self.read(cluster, |cluster| cluster.document.clone())
    }

    /// The revisions that the cluster's document asks for; none for an unknown cluster.
    pub fn revisions(&self, cluster: &str) -> Vec<String> {
        self.read(cluster, Cluster::revisions).unwrap_or_default()
    }

    /// The eTag as a GET shows it.
    pub fn etag(&self, cluster: &str) -> Option<String> {
        self.read(cluster, Cluster::etag)
    }

    /// Changes the document as somebody else would: with a new eTag. Nothing is installed or removed; the next operation
    /// does that. Errors: no such cluster.
    pub fn change(&self, cluster: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut state = lock(&self.shared.state);
        state.clusters.get_mut(&key(cluster)).context("no such cluster")?.change(change);
        Ok(())
    }

    /// [`Simulator::change`] of the revisions.
    pub fn set_revisions(&self, cluster: &str, revisions: &[&str]) -> Result<()> {
        let revisions: Vec<String> = revisions.iter().map(|&revision| revision.to_owned()).collect();
        self.change(cluster, |document| set_revisions(document, &revisions))
    }

    /// What somebody else's accepted PUT of these revisions does: an operation that installs and removes. It is in no journal.
    /// Errors: no such cluster.
    pub fn put_by_somebody_else(&self, cluster: &str, revisions: &[&str]) -> Result<()> {
        let revisions: Vec<String> = revisions.iter().map(|&revision| revision.to_owned()).collect();
        anyhow::ensure!(
            arm::put_by_somebody_else(&self.shared, &key(cluster), &revisions),
            "no such cluster: {cluster}"
        );
        Ok(())
    }

    /// [`Simulator::change`] of the provisioning state, for example to `Upgrading`.
    pub fn set_provisioning_state(&self, cluster: &str, state: &str) -> Result<()> {
        self.change(cluster, |document| Cluster::set_provisioning_state(document, state))
    }

    /// [`Simulator::change`] of the Kubernetes version, such as `1.34.2`.
    pub fn set_kubernetes_version(&self, cluster: &str, version: &str) -> Result<()> {
        self.change(cluster, |document| {
            let minor = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
            document["properties"]["kubernetesVersion"] = minor.into();
            document["properties"]["currentKubernetesVersion"] = version.into();
        })
    }

    fn read<T>(&self, cluster: &str, read: impl FnOnce(&Cluster) -> T) -> Option<T> {
        lock(&self.shared.state).clusters.get(&key(cluster)).map(read)
    }
}

fn key(id: &str) -> String {
    id.to_lowercase()
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("cannot listen on 127.0.0.1:{port}"))
}

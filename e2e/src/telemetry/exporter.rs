//! Answers scrapes for all sidecars of the cluster.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::fault::Fault;
use super::series::render;
use super::sidecar::Ledger;

/// In this process: ends when it is dropped.
#[derive(Debug)]
pub(super) struct Exporter {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// The pods as they are, and what is remembered of them.
#[derive(Debug)]
struct Source {
    pods: Store<Pod>,
    ledger: Mutex<Ledger>,
    faults: Vec<Fault>,
}

impl Source {
    fn observe(&self) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.observe(&self.pods.state(), Instant::now());
    }

    fn scrape(&self) -> String {
        let served = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).read(Instant::now());
        render(&served, &self.faults)
    }
}

impl Exporter {
    /// Returns when it knows all pods.
    pub async fn start(client: Client, faults: &[Fault]) -> Result<Self> {
        let (pods, writer) = reflector::store();
        let source = Arc::new(Source { pods, ledger: Mutex::default(), faults: faults.to_vec() });
        let mut tasks = JoinSet::new();
        let watching = source.clone();
        // Whole events, because the store shows a first list only after its end.
        let events = watcher(Api::<Pod>::all(client), watcher::Config::default());
        let changes = reflector::reflector(writer, events).default_backoff().for_each(move |_| {
            watching.observe();
            std::future::ready(())
        });
        tasks.spawn(changes);
        let known = tokio::time::timeout(Duration::from_secs(20), source.pods.wait_until_ready());
        known.await.context("the exporter cannot list pods")??;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let answer = async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4")], source.scrape());
        let router = Router::new().route("/metrics", get(answer));
        tasks.spawn(async move {
            // Ends with the task only.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, _tasks: tasks })
    }
}

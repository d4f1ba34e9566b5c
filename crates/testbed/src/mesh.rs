//! Installing, breaking and removing the revisions of a running cluster.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DynamicObject;

use crate::access::{self, wait_for};
use crate::cluster::Cluster;
use crate::istio::{self, IstioRevision, Istiod};
use crate::lock;
use crate::process::Kept;

/// The Secret with the root certificate of the mesh.
const ROOT_SECRET: &str = "istio-ca-secret";
/// For an API server or an istiod. They normally need 3 seconds; on a machine that compiles something else they need more.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

impl Cluster {
    /// Installs a revision and waits until it injects and its Deployment is available.
    pub async fn install_revision(&self, revision: &IstioRevision) -> Result<()> {
        self.prepare_revision(revision).await?;
        self.bring_up(&revision.name).await
    }

    /// Removes every object of the revision's chart, and then its process.
    pub async fn remove_revision(&self, name: &str) -> Result<()> {
        let objects = self.with_istiod(name, |istiod| Ok(istiod.objects.clone()))?;
        // The webhook first: without it pods start without a proxy, with it and no istiod they do not start at all.
        let (webhooks, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(is_webhook);
        access::delete(&self.own, &webhooks).await?;
        access::delete(&self.own, &others).await?;
        self.end_istiod(name, Kept::terminate).await?;
        let removed = lock(&self.istiods).remove(name);
        lock(&self.ports).give_back(removed.into_iter().flat_map(|istiod| istiod.ports.all()));
        Ok(())
    }

    /// Ends the process in order (SIGTERM); its pods become unready.
    pub async fn stop_istiod(&self, name: &str) -> Result<()> {
        self.end_istiod(name, Kept::terminate).await
    }

    /// Ends the process as a crash would (SIGKILL); its pods become unready.
    pub async fn kill_istiod(&self, name: &str) -> Result<()> {
        self.end_istiod(name, Kept::kill).await
    }

    /// Starts the process again and waits until it answers its readiness probe; its pods become ready soon after.
    pub async fn start_istiod(&self, name: &str) -> Result<()> {
        let ports = self.with_istiod(name, |istiod| {
            istiod.spawn(&self.binaries)?;
            Ok(istiod.ports)
        })?;
        wait_for(&format!("istiod {name}"), PATIENCE, || async {
            Ok(istio::is_ready(ports).await.then_some(()))
        })
        .await
    }

    /// Deletes the revision's injector webhook: new pods start without a proxy and without an error.
    pub async fn delete_webhook(&self, name: &str) -> Result<()> {
        access::delete(&self.own, &self.objects_of(name, "MutatingWebhookConfiguration")?).await
    }

    /// Puts the revision's injector webhook back and waits until istiod has completed it.
    pub async fn restore_webhook(&self, name: &str) -> Result<()> {
        let webhook = self.objects_of(name, "MutatingWebhookConfiguration")?;
        access::apply(&self.own, "testbed", &webhook).await?;
        self.injector_ready(name).await
    }

    /// Installs the validator of Istio objects that name no revision, served by this revision.
    pub async fn install_default_validator(&self, name: &str) -> Result<()> {
        let validator = self.with_istiod(name, |istiod| istio::default_validator(istiod))?;
        access::apply(&self.own, "testbed", &[validator]).await
    }

    /// Takes ports and renders the chart, which needs no API server.
    pub(crate) async fn prepare_revision(&self, revision: &IstioRevision) -> Result<()> {
        if lock(&self.istiods).contains_key(&revision.name) {
            bail!("revision {} is installed already", revision.name);
        }
        let namespace = &self.istio_namespace;
        let mut istiod =
            Istiod::new(revision, namespace, &mut lock(&self.ports), &self.credentials, &self.dir)?;
        istiod.objects = istio::render(&self.binaries, &istiod, &self.dir).await?;
        lock(&self.istiods).insert(revision.name.clone(), istiod);
        Ok(())
    }

    /// Applies the chart, starts the process and waits for both.
    pub(crate) async fn bring_up(&self, name: &str) -> Result<()> {
        let objects = self.with_istiod(name, |istiod| Ok(istiod.objects.clone()))?;
        let (result, started) =
            futures::future::join(access::apply(&self.own, "helm", &objects), self.start_with_root(name))
                .await;
        result?;
        started?;
        self.injector_ready(name).await?;
        self.deployment_available(name).await
    }

    /// The first istiod makes the root certificate; two at once could make two.
    async fn start_with_root(&self, name: &str) -> Result<()> {
        let mut root = self.root.lock().await;
        self.with_istiod(name, |istiod| istiod.spawn(&self.binaries))?;
        if *root {
            return Ok(());
        }
        let secrets: Api<Secret> = Api::namespaced(self.own.clone(), &self.istio_namespace);
        wait_for("the root certificate of the mesh", PATIENCE, || async {
            Ok(secrets.get_opt(ROOT_SECRET).await?)
        })
        .await?;
        *root = true;
        Ok(())
    }

    async fn injector_ready(&self, name: &str) -> Result<()> {
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(self.own.clone());
        let webhook = self.with_istiod(name, |istiod| Ok(istiod.revision.webhook(&istiod.namespace)))?;
        wait_for(&format!("the webhook of {name}"), PATIENCE, || async {
            let found = webhooks.get(&webhook).await?.webhooks.unwrap_or_default();
            let complete =
                !found.is_empty() && found.iter().all(|entry| entry.client_config.ca_bundle.is_some());
            Ok(complete.then_some(()))
        })
        .await
    }

    async fn deployment_available(&self, name: &str) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.own.clone(), &self.istio_namespace);
        let deployment = self.with_istiod(name, |istiod| Ok(istiod.revision.deployment()))?;
        wait_for(&format!("Deployment {deployment}"), PATIENCE, || async {
            let status = deployments.get(&deployment).await?.status.unwrap_or_default();
            Ok(status.available_replicas.filter(|available| *available > 0))
        })
        .await
        .map(drop)
    }

    async fn end_istiod(&self, name: &str, end: fn(&mut Kept)) -> Result<()> {
        let process = self.with_istiod(name, |istiod| Ok(istiod.process.take()))?;
        if let Some(mut process) = process {
            tokio::task::spawn_blocking(move || {
                end(&mut process);
                process.wait_gone(Duration::from_secs(5));
            })
            .await?;
        }
        Ok(())
    }

    fn objects_of(&self, name: &str, kind: &str) -> Result<Vec<DynamicObject>> {
        self.with_istiod(name, |istiod| Ok(istio::kind(&istiod.objects, kind).into_iter().cloned().collect()))
    }

    fn with_istiod<T>(&self, name: &str, action: impl FnOnce(&mut Istiod) -> Result<T>) -> Result<T> {
        action(
            lock(&self.istiods).get_mut(name).with_context(|| format!("revision {name} is not installed"))?,
        )
    }
}

fn is_webhook(object: &DynamicObject) -> bool {
    object.types.as_ref().is_some_and(|types| types.kind.ends_with("WebhookConfiguration"))
}

//! The cluster as it is found, and whether the scenarios may run on it. Nothing is written here.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt as _};
use meshupgrade_testbed::client_for;

use crate::given::{Given, USAGE};

/// Label of everything that a run makes; its value is the run.
pub const RUN: &str = "e2e.meshupgrade.io/run";
/// The CustomResourceDefinition of the product.
pub const CRD: &str = "meshupgrades.meshupgrade.io";
const REVISION: &str = "istio.io/rev";
const TAG: &str = "istio.io/tag";
/// A cluster that answers at all answers sooner.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the caller must be allowed to do: group and resource.
const NEEDED: [(&str, &str); 8] = [
    ("", "namespaces"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
];

/// A cluster on which the scenarios may run.
pub struct Site {
    /// A client of the caller.
    pub client: Client,
    /// The caller's kubeconfig.
    pub kubeconfig: Kubeconfig,
    /// The revision to leave.
    pub source: String,
    /// The revision to go to.
    pub target: String,
    /// The namespace of the istiods.
    pub istio_namespace: String,
    /// Image of the workloads.
    pub image: String,
    /// Name of this run, and prefix of everything that it makes.
    pub run: String,
}

impl Site {
    /// The namespace of the operator.
    pub fn operator_namespace(&self) -> String {
        format!("{}-operator", self.run)
    }

    /// What removes everything of this run by hand.
    pub fn removal_command(&self) -> String {
        removal_command(&self.run)
    }
}

fn removal_command(run: &str) -> String {
    format!(
        "kubectl delete crd,clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding,namespace \
         -l {RUN}={run}; kubectl delete role,rolebinding -A -l {RUN}={run}"
    )
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, source, target, istio_namespace, .. } = self;
        write!(
            f,
            "run {run}: from {source} to {target} (istiods in {istio_namespace}), in namespaces {run}-*"
        )
    }
}

/// Looks at the cluster; fails with what has to be done first.
pub async fn find(given: &Given) -> Result<Site> {
    let path = given.kubeconfig.display();
    let not_valid =
        || format!("{path} cannot be used as a kubeconfig: see kubectl --kubeconfig {path} config view");
    let kubeconfig = Kubeconfig::read_from(&given.kubeconfig).with_context(not_valid)?;
    let client = client_for(&given.kubeconfig).await.with_context(not_valid)?;
    tokio::time::timeout(PATIENCE, look(given, client, kubeconfig))
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer in {} s", PATIENCE.as_secs())))
        .with_context(|| format!("the cluster of {path} cannot be used"))
}

async fn look(given: &Given, client: Client, kubeconfig: Kubeconfig) -> Result<Site> {
    client
        .apiserver_version()
        .await
        .context("no good answer from its API server: does kubectl version work with this kubeconfig?")?;
    may_do_everything(&client).await?;
    let found = revisions(&client).await?;
    let source = chosen("SOURCE", given.source.as_ref(), &found)?;
    let target = chosen("TARGET", given.target.as_ref(), &found)?;
    let istio_namespace = istiod_namespace(&client, &source).await?;
    let other = istiod_namespace(&client, &target).await?;
    ensure!(
        other == istio_namespace,
        "istiod of {source} is in {istio_namespace} and that of {target} in {other}: one MeshUpgrade covers one namespace, \
         choose two revisions of the same"
    );
    not_installed(&client).await?;
    not_used(&client, &source).await?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let run = format!("mup-e2e-{seconds:x}");
    Ok(Site { client, kubeconfig, source, target, istio_namespace, image: given.image.clone(), run })
}

async fn may_do_everything(client: &Client) -> Result<()> {
    let answers = NEEDED.map(|(group, resource)| async move {
        let verbs = ["create", "patch", "delete"].map(|verb| may(client, group, resource, verb));
        let allowed = try_join_all(verbs).await?.into_iter().all(|allowed| allowed);
        anyhow::Ok((!allowed).then_some(resource))
    });
    let missing: Vec<&str> = try_join_all(answers).await?.into_iter().flatten().collect();
    ensure!(
        missing.is_empty(),
        "its user may not create, patch and delete {}: the operator is installed with its rights and admission policies, which takes a cluster \
         administrator; give the kubeconfig of one",
        missing.join(", ")
    );
    Ok(())
}

async fn may(client: &Client, group: &str, resource: &str, verb: &str) -> Result<bool> {
    let attributes = ResourceAttributes {
        group: Some(group.into()),
        resource: Some(resource.into()),
        verb: Some(verb.into()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews
        .create(&PostParams::default(), &review)
        .await
        .context("it does not say what this user may do: is the login of the kubeconfig still valid?")?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Revisions that have an injector of their own.
async fn revisions(client: &Client) -> Result<BTreeSet<String>> {
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let list = webhooks.list(&ListParams::default().labels(REVISION)).await?;
    let own = list.iter().filter(|webhook| !webhook.labels().contains_key(TAG));
    Ok(own.filter_map(|webhook| webhook.labels().get(REVISION).cloned()).collect())
}

fn chosen(variable: &str, given: Option<&String>, found: &BTreeSet<String>) -> Result<String> {
    let names = match found.len() {
        0 => "no revision of Istio".to_owned(),
        _ => found.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    match given {
        None => bail!("which {variable}? The cluster has {names}: {USAGE}"),
        Some(given) if !found.contains(given) => bail!(
            "revision {given} has no injector: the cluster has {names}; install it first, or give another {variable}"
        ),
        Some(given) => Ok(given.clone()),
    }
}

async fn istiod_namespace(client: &Client, revision: &str) -> Result<String> {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let list =
        deployments.list(&ListParams::default().labels(&format!("app=istiod,{REVISION}={revision}"))).await?;
    let ready = list.iter().find(|istiod| {
        istiod.status.as_ref().and_then(|status| status.ready_replicas).is_some_and(|ready| ready > 0)
    });
    ready.and_then(kube::ResourceExt::namespace).with_context(|| {
        format!(
            "no istiod of {revision} is ready: kubectl get deployments -A -l app=istiod,{REVISION}={revision}"
        )
    })
}

/// Another operator would take part in the scenarios, and this one in its upgrades.
async fn not_installed(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let Some(crd) = crds.get_opt(CRD).await? else { return Ok(()) };
    match crd.labels().get(RUN) {
        Some(run) => {
            bail!("it still has what run {run} made, or that run goes on; if not: {}", removal_command(run))
        }
        None => bail!(
            "MeshUpgrade is installed in it, and its operator would take part: use a cluster without it, or uninstall it \
             (helm uninstall, then kubectl delete crd {CRD})"
        ),
    }
}

/// Whoever uses the source is in the scope of an upgrade from it.
async fn not_used(client: &Client, source: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let list = namespaces.list(&ListParams::default().labels(&format!("{REVISION}={source}"))).await?;
    let names: Vec<String> = list.iter().map(kube::ResourceExt::name_any).collect();
    ensure!(
        names.is_empty(),
        "{source} is used by {}, which an upgrade from it would have to move: give a SOURCE that no namespace uses",
        names.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_is_not_there_is_named_with_those_that_are() {
        let found = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(chosen("SOURCE", Some(&"a".to_owned()), &found).unwrap(), "a");
        let unknown = chosen("TARGET", Some(&"c".to_owned()), &found).unwrap_err().to_string();
        assert!(unknown.contains("revision c") && unknown.contains("a, b") && unknown.contains("TARGET"));
        assert!(chosen("SOURCE", None, &found).unwrap_err().to_string().contains("a, b"));
        assert!(chosen("SOURCE", None, &BTreeSet::new()).unwrap_err().to_string().contains("no revision"));
    }
}

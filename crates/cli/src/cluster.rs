//! The way to the cluster: kubeconfig, one client, and errors that say what to do.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Api, Client, Config};
use meshupgrade_api::MeshUpgrade;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Which cluster is spoken to: by default what kubectl speaks to.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct Connection {
    /// Kubeconfig to read in place of KUBECONFIG and ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig in place of its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Why the cluster was of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no usable kubeconfig.
    #[error("no way to a cluster: {0}; see KUBECONFIG, --kubeconfig and --context")]
    Configuration(String),
    /// There is no object of this name.
    #[error("meshupgrade/{0} does not exist: kubectl get meshupgrades lists those that do")]
    NoObject(String),
    /// The kind is not installed.
    #[error(
        "this cluster knows no MeshUpgrade: install the CustomResourceDefinition with the chart \
         charts/meshupgrade-operator, or look at another cluster with --context"
    )]
    NoKind,
    /// A right is missing.
    #[error(
        "forbidden: {message}; needed is a ClusterRole with the verb {verb:?} on meshupgrades of meshupgrade.io: \
         kubectl auth can-i {verb} meshupgrades.meshupgrade.io"
    )]
    Forbidden {
        /// The verb of the right.
        verb: &'static str,
        /// The words of the API server.
        message: String,
    },
    /// Credentials are missing or too old.
    #[error(
        "the API server does not know who you are ({0}): log in again, or choose another user with --context"
    )]
    Unauthorized(String),
    /// The object changed since it was read.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The API server answered something else.
    #[error("the API server answered {code}: {message}")]
    Answer {
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// There was no usable answer.
    #[error("no usable answer of the API server: {0}")]
    Transport(String),
}

impl Failure {
    /// What an error of a call with this verb on this object means.
    pub(crate) fn of(error: kube::Error, verb: &'static str, name: &str) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(*status, verb, name),
            other => Self::Transport(chain(&other)),
        }
    }

    /// What an answer to a call with this verb on this object means.
    pub(crate) fn of_status(status: Status, verb: &'static str, name: &str) -> Self {
        let Status { code, message, .. } = status;
        // Only the API server names the object: a path that it does not serve is answered by plain text.
        let named = status.details.is_some_and(|details| details.name == name);
        match code {
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden { verb, message },
            404 if named => Self::NoObject(name.to_owned()),
            404 => Self::NoKind,
            409 => Self::Conflict(message),
            _ => Self::Answer { code, message },
        }
    }
}

impl Connection {
    /// The MeshUpgrades of the cluster.
    pub(crate) async fn upgrades(&self) -> Result<Api<MeshUpgrade>, Failure> {
        // Before anything speaks TLS. It can be installed once only, and it is the one that we want in any case.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config =
            self.config().await.map_err(|error| Failure::Configuration(chain(error.as_ref())))?;
        // kube's own layer repeats calls for minutes without a word.
        config.default_retry = false;
        config.connect_timeout = Some(CALL_TIMEOUT);
        config.write_timeout = Some(CALL_TIMEOUT);
        let client = Client::try_from(config).map_err(|error| Failure::Configuration(chain(&error)))?;
        Ok(Api::all(client))
    }

    async fn config(&self) -> Result<Config, Box<dyn std::error::Error + Send + Sync>> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match &self.kubeconfig {
            Some(file) => Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?),
            None if self.context.is_some() => Ok(Config::from_kubeconfig(&options).await?),
            None => Ok(Config::infer().await?),
        }
    }

    /// The same cluster on kubectl's command line, with a blank before each flag.
    pub(crate) fn flags(&self) -> String {
        let kubeconfig = self.kubeconfig.as_ref().map(|file| format!(" --kubeconfig={}", file.display()));
        let context = self.context.as_ref().map(|context| format!(" --context={context}"));
        kubeconfig.unwrap_or_default() + &context.unwrap_or_default()
    }
}

/// Reads a MeshUpgrade.
pub(crate) async fn read(upgrades: &Api<MeshUpgrade>, name: &str) -> Result<MeshUpgrade, Failure> {
    call(upgrades.get(name)).await?.map_err(|error| Failure::of(error, "get", name))
}

/// Awaits a call for no longer than a person waits.
pub(crate) async fn call<T>(call: impl Future<Output = T>) -> Result<T, Failure> {
    let limit = CALL_TIMEOUT.as_secs();
    let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
    answer.map_err(|_elapsed| Failure::Transport(format!("none within {limit} s")))
}

/// An error with its causes, each of them once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(answer: serde_json::Value) -> String {
        let status: Status = serde_json::from_value(answer).unwrap();
        Failure::of(kube::Error::Api(Box::new(status)), "patch", "mesh").to_string()
    }

    #[test]
    fn errors_name_what_is_wrong_and_the_remedy() {
        let no_object = json!({"code": 404, "message": "not found", "reason": "NotFound",
            "details": {"name": "mesh", "group": "meshupgrade.io", "kind": "meshupgrades"}});
        assert!(words(no_object).starts_with("meshupgrade/mesh does not exist: kubectl get meshupgrades"));
        let no_kind = json!({"code": 404, "message": "404 page not found"});
        assert!(words(no_kind).contains("install the CustomResourceDefinition"));
        let forbidden =
            json!({"code": 403, "message": "User \"eve\" cannot patch", "details": {"name": "mesh"}});
        assert_eq!(
            words(forbidden),
            "forbidden: User \"eve\" cannot patch; needed is a ClusterRole with the verb \"patch\" on meshupgrades of \
             meshupgrade.io: kubectl auth can-i patch meshupgrades.meshupgrade.io"
        );
        assert!(words(json!({"code": 401, "message": "Unauthorized"})).contains("log in again"));
        assert_eq!(words(json!({"code": 503, "message": "busy"})), "the API server answered 503: busy");
    }

    #[test]
    fn the_cluster_is_named_to_kubectl_too() {
        let connection = Connection { kubeconfig: Some("a/b".into()), context: Some("prod".to_owned()) };
        assert_eq!(connection.flags(), " --kubeconfig=a/b --context=prod");
        assert_eq!(Connection::default().flags(), "");
    }
}

//! The command line. Every flag has an environment variable, for the chart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use meshupgrade_controller::arm::{self, Arm, ConfigError};
use meshupgrade_controller::election::{Timing, task::Election};
use meshupgrade_controller::metric_sources::config::{self, Sources};
use meshupgrade_core::aks::gateways::default_namespaces;
use meshupgrade_core::ids::{NamespaceName, WorkloadKind, WorkloadRef};

/// Upgrades Istio by revisions: carries out the `MeshUpgrade` objects of a cluster.
///
/// Runs inside a cluster, or outside with KUBECONFIG.
#[derive(Clone, Debug, Parser)]
#[command(name = "meshupgrade-operator", version)]
pub struct Args {
    /// Namespace of the Lease that elects the leader; the pod's own by default.
    #[arg(long, env = "LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of the Lease that elects the leader.
    #[arg(long, env = "LEASE_NAME", default_value = "meshupgrade-operator")]
    pub lease_name: String,
    /// How long others wait after the leader's last sign of life before they take over.
    #[arg(long, env = "LEASE_DURATION_SECONDS", default_value_t = 15)]
    pub lease_duration_seconds: u64,
    /// After how long without a renewal the leader gives up.
    #[arg(long, env = "LEASE_RENEW_DEADLINE_SECONDS", default_value_t = 10)]
    pub lease_renew_deadline_seconds: u64,
    /// How often the lease is renewed, or looked at.
    #[arg(long, env = "LEASE_RETRY_SECONDS", default_value_t = 2)]
    pub lease_retry_seconds: u64,
    /// Name of this process in the Lease and in events; POD_NAME by default, else host name and process id.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Namespace that the operator runs in.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,
    /// Deployment that the operator runs in: if it has a sidecar, it is restarted last.
    #[arg(long, env = "OPERATOR_DEPLOYMENT")]
    pub deployment: Option<String>,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,
    /// How often a status is written when only its words change.
    #[arg(long, env = "STATUS_INTERVAL_SECONDS", default_value_t = 10)]
    pub status_interval_seconds: u64,
    /// How often the whole cluster may be looked at for plan and completion.
    #[arg(long, env = "CENSUS_INTERVAL_SECONDS", default_value_t = 15)]
    pub census_interval_seconds: u64,
    /// How often the images of all proxies are counted, for status and metrics; 0 switches it off.
    #[arg(long, env = "PROXY_COUNT_INTERVAL_SECONDS", default_value_t = 600)]
    pub proxy_count_interval_seconds: u64,
    /// How long one call to the API server may take.
    #[arg(long, env = "CALL_TIMEOUT_SECONDS", default_value_t = 10)]
    pub call_timeout_seconds: u64,
    /// File that names the metric sources which MeshUpgrades may ask; without it there are none.
    #[arg(long, env = "METRIC_SOURCES", value_name = "FILE")]
    pub metric_sources: Option<PathBuf>,
    /// Azure Resource Manager; another one in sovereign clouds. The sign-in host comes from AZURE_AUTHORITY_HOST, and who we are from
    /// AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE, as Azure's workload identity sets them.
    #[arg(long, env = "ARM_ENDPOINT", default_value = arm::config::ENDPOINT)]
    pub arm_endpoint: String,
    /// Version of the API of managed clusters.
    #[arg(long, env = "ARM_API_VERSION", default_value = arm::config::API_VERSION)]
    pub arm_api_version: String,
    /// PEM file of the only certificate authorities that are trusted for Azure; those of the system without it.
    #[arg(long, env = "ARM_CA_FILE", value_name = "FILE")]
    pub arm_ca_file: Option<PathBuf>,
    /// How long one request to Azure may take.
    #[arg(long, env = "ARM_TIMEOUT_SECONDS", default_value_t = 30)]
    pub arm_timeout_seconds: u64,
    /// Use the managed identity of the node although a federated token is there.
    #[arg(long, env = "ARM_MANAGED_IDENTITY")]
    pub arm_managed_identity: bool,
    /// Reach Azure through HTTPS_PROXY and NO_PROXY of the environment.
    #[arg(long, env = "ARM_PROXY_FROM_ENVIRONMENT")]
    pub arm_proxy_from_environment: bool,
    /// Namespaces in which the AKS add-on has gateways, besides its own two: egress gateways may have others.
    #[arg(long, env = "AKS_GATEWAY_NAMESPACES", value_delimiter = ',')]
    pub aks_gateway_namespaces: Vec<String>,
    /// How often a managed cluster is read during a run.
    #[arg(long, env = "AKS_POLL_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub aks_poll_seconds: u64,
    /// How logs are written. What is logged is set by RUST_LOG.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl Args {
    /// How long one call may take.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.call_timeout_seconds)
    }

    /// The election, if its times make sense.
    pub fn election(&self, default_namespace: &str) -> Result<Election> {
        let timing = Timing {
            lease: Duration::from_secs(self.lease_duration_seconds),
            renew_deadline: Duration::from_secs(self.lease_renew_deadline_seconds),
            retry: Duration::from_secs(self.lease_retry_seconds),
        };
        ensure!(self.call_timeout_seconds > 0, "--call-timeout-seconds must not be 0");
        timing.check(self.call_timeout()).map_err(anyhow::Error::msg)?;
        let namespace = self.lease_namespace.as_ref().or(self.pod_namespace.as_ref());
        Ok(Election {
            namespace: namespace.map_or(default_namespace, String::as_str).to_owned(),
            name: self.lease_name.clone(),
            identity: self.identity(),
            timing,
        })
    }

    /// Namespaces in which the AKS add-on may have gateways.
    pub fn addon_namespaces(&self) -> BTreeSet<NamespaceName> {
        let others = self.aks_gateway_namespaces.iter().map(|name| NamespaceName::from(name.as_str()));
        default_namespaces().chain(others).collect()
    }

    /// The metric sources, if their file is right. Needs a TLS provider, and speaks to none of them.
    pub fn sources(&self) -> Result<Sources> {
        let Some(file) = &self.metric_sources else { return Ok(Sources::new()) };
        config::read(file).with_context(|| format!("--metric-sources {}", file.display()))
    }

    /// The client of Azure, or what is wrong with its settings. Needs a TLS provider, and speaks to nobody.
    pub fn arm(&self) -> Result<Arm, ConfigError> {
        let options = arm::Options {
            endpoint: self.arm_endpoint.clone(),
            api_version: self.arm_api_version.clone(),
            ca_file: self.arm_ca_file.clone(),
            timeout_seconds: self.arm_timeout_seconds,
            managed_identity: self.arm_managed_identity,
            proxy_from_environment: self.arm_proxy_from_environment,
            ..arm::Options::from_environment(|name| std::env::var(name).ok())
        };
        Arm::new(arm::Config::new(&options)?)
    }

    /// Our name among the processes of this operator.
    pub fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
            format!("{host}-{}", std::process::id())
        })
    }

    /// The workload that the operator runs in.
    pub fn operator(&self) -> Option<WorkloadRef> {
        let (namespace, name) = (self.pod_namespace.as_ref()?, self.deployment.as_ref()?);
        Some(WorkloadRef::new(WorkloadKind::Deployment, namespace.clone(), name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_defaults_make_sense() {
        Args::command().debug_assert();
        let args = Args::parse_from(["meshupgrade-operator"]);
        let election = args.election("here").unwrap();
        assert_eq!(election.namespace, "here");
        assert!(!election.identity.is_empty());
    }

    #[test]
    fn without_a_file_there_are_no_metric_sources_and_a_wrong_one_ends_the_start() {
        let args = Args::parse_from(["meshupgrade-operator"]);
        assert!(args.sources().unwrap().is_empty());
        let args = Args::parse_from(["meshupgrade-operator", "--metric-sources", "/missing"]);
        let error = format!("{:#}", args.sources().unwrap_err());
        assert!(error.starts_with("--metric-sources /missing: ") && error.contains("not found"), "{error}");
    }

    #[test]
    fn times_that_could_never_write_are_refused() {
        let args = Args::parse_from(["meshupgrade-operator", "--lease-duration-seconds", "11"]);
        let error = args.election("here").unwrap_err().to_string();
        assert!(error.contains("too short"), "{error}");
    }
}

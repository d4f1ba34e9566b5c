//! Where ARM is and who we are there: the operator's flags and the environment that the workload identity webhook sets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

/// ARM of the public cloud.
pub const ENDPOINT: &str = "https://management.azure.com";
/// Microsoft Entra ID of the public cloud.
pub const AUTHORITY_HOST: &str = "https://login.microsoftonline.com";
/// The endpoint of managed identities on every node (Azure Instance Metadata Service).
pub const MANAGED_IDENTITY_HOST: &str = "http://169.254.169.254";
/// The version of AKS' API.
///
/// It must be at least 2024-09-01, the first stable one with eTags. This is the newest one in which `nodeImageVersion` of
/// a node pool can only be read (azure-mgmt-containerservice 41.0.0): from 2026-08-01 on a PUT that has it rolls back the
/// pool. The operator leaves the field out in any case.
pub const API_VERSION: &str = "2026-01-01";
/// The oldest version with eTags.
const OLDEST_API_VERSION: &str = "2024-09-01";
const TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 1..=120;
/// How often an operation is looked at when Azure does not say (the default of Azure's SDKs).
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// The settings as they are given: flags, and the environment of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Address of ARM; another one for sovereign clouds.
    pub endpoint: String,
    /// Address of Microsoft Entra ID; `AZURE_AUTHORITY_HOST`.
    pub authority_host: String,
    /// The version of AKS' API.
    pub api_version: String,
    /// PEM file of the only certificate authorities that are trusted; `None` means those of the system. Read once.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take, in seconds.
    pub timeout_seconds: u64,
    /// Whether `HTTPS_PROXY` and `NO_PROXY` count. Never for managed identities.
    pub proxy_from_environment: bool,
    /// Use the managed identity of the node even if there is a federated token.
    pub managed_identity: bool,
    /// Client id of the identity; `AZURE_CLIENT_ID`. A managed identity may go without, if the node has only one.
    pub client_id: Option<String>,
    /// The tenant; `AZURE_TENANT_ID`.
    pub tenant_id: Option<String>,
    /// File of the projected ServiceAccount token; `AZURE_FEDERATED_TOKEN_FILE`. Read anew for each sign-in.
    pub federated_token_file: Option<PathBuf>,
    /// Address of the endpoint of managed identities; `AZURE_POD_IDENTITY_AUTHORITY_HOST`. The only one that may be http.
    pub managed_identity_host: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: ENDPOINT.to_owned(),
            authority_host: AUTHORITY_HOST.to_owned(),
            api_version: API_VERSION.to_owned(),
            ca_file: None,
            timeout_seconds: 30,
            proxy_from_environment: false,
            managed_identity: false,
            client_id: None,
            tenant_id: None,
            federated_token_file: None,
            managed_identity_host: MANAGED_IDENTITY_HOST.to_owned(),
        }
    }
}

impl Options {
    /// The defaults with what the workload identity webhook puts into the environment of a pod. `variable` looks one up.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let default = Self::default();
        Self {
            authority_host: variable("AZURE_AUTHORITY_HOST").unwrap_or(default.authority_host),
            client_id: variable("AZURE_CLIENT_ID"),
            tenant_id: variable("AZURE_TENANT_ID"),
            federated_token_file: variable("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            managed_identity_host: variable("AZURE_POD_IDENTITY_AUTHORITY_HOST")
                .unwrap_or(default.managed_identity_host),
            ..default
        }
    }
}

/// The settings, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    pub(super) endpoint: Url,
    pub(super) api_version: String,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) proxy_from_environment: bool,
    pub(super) identity: Identity,
    /// How often an operation is looked at when ARM does not say.
    pub(super) poll_interval: Duration,
    /// The shortest pause before a managed identity's endpoint is asked again.
    pub(super) pause: Duration,
}

/// Who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// An identity that trusts the cluster's ServiceAccount tokens.
    Workload { token_url: Url, client_id: String, token_file: PathBuf },
    /// An identity of the node.
    Managed { token_url: Url },
}

/// Addresses, ids and paths stay out of logs.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = match self.identity {
            Identity::Workload { .. } => "Workload",
            Identity::Managed { .. } => "Managed",
        };
        let mut debug = f.debug_struct("Config");
        debug.field("identity", &identity).field("api_version", &self.api_version).finish_non_exhaustive()
    }
}

/// Why settings are not used: which, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {remedy}")]
pub struct ConfigError {
    /// The setting.
    pub option: &'static str,
    /// What is wrong and what to do instead.
    pub remedy: String,
}

pub(super) fn wrong(option: &'static str, remedy: impl Into<String>) -> ConfigError {
    ConfigError { option, remedy: remedy.into() }
}

impl Config {
    /// Checks settings. Speaks to nobody; files are looked at, so that a wrong mount is known at the start.
    pub fn new(options: &Options) -> Result<Self, ConfigError> {
        let endpoint = https("ARM endpoint", &options.endpoint)?;
        if endpoint.path() != "/" {
            return Err(wrong("ARM endpoint", "leave the path away"));
        }
        check_api_version(&options.api_version)?;
        if !TIMEOUT_SECONDS.contains(&options.timeout_seconds) {
            let remedy = format!("write a number from {TIMEOUT_SECONDS:?}").replace("..=", " to ");
            return Err(wrong("ARM timeout", remedy));
        }
        Ok(Self {
            identity: identity(options, &endpoint)?,
            endpoint,
            api_version: options.api_version.clone(),
            ca_file: options.ca_file.clone(),
            timeout: Duration::from_secs(options.timeout_seconds),
            proxy_from_environment: options.proxy_from_environment,
            poll_interval: POLL_INTERVAL,
            pause: Duration::from_secs(1),
        })
    }

    /// The scope, or resource, that tokens are for.
    pub(super) fn scope(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.endpoint)
    }
}

fn check_api_version(version: &str) -> Result<(), ConfigError> {
    let shape = version.len() == 10
        && version.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    // Dates of this form are ordered as text.
    if shape && version >= OLDEST_API_VERSION {
        return Ok(());
    }
    Err(wrong(
        "ARM API version",
        format!("write a stable version from {OLDEST_API_VERSION} on, such as {API_VERSION}"),
    ))
}

fn identity(options: &Options, endpoint: &Url) -> Result<Identity, ConfigError> {
    match (&options.client_id, &options.tenant_id, &options.federated_token_file) {
        _ if options.managed_identity => managed(options, endpoint),
        (Some(client_id), Some(tenant_id), Some(file)) => workload(options, client_id, tenant_id, file),
        (_, None, None) => managed(options, endpoint),
        (None, ..) => Err(wrong("AZURE_CLIENT_ID", half("client id"))),
        (_, None, _) => Err(wrong("AZURE_TENANT_ID", half("tenant id"))),
        (.., None) => Err(wrong("AZURE_FEDERATED_TOKEN_FILE", half("file of the federated token"))),
    }
}

fn half(what: &str) -> String {
    format!(
        "workload identity needs client id, tenant id and token file, and there is no {what}: label the pod azure.workload.identity/use=true and annotate its ServiceAccount, or choose the managed identity"
    )
}

fn workload(
    options: &Options,
    client_id: &str,
    tenant_id: &str,
    file: &Path,
) -> Result<Identity, ConfigError> {
    let plain = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
            && !text.starts_with('.')
    };
    for (name, value) in [("AZURE_CLIENT_ID", client_id), ("AZURE_TENANT_ID", tenant_id)] {
        if !plain(value) {
            return Err(wrong(name, "write the id as Azure shows it, a UUID"));
        }
    }
    let readable = std::fs::read(file);
    readable.map_err(|error| {
        wrong("AZURE_FEDERATED_TOKEN_FILE", format!("cannot be read ({}): mount it", error.kind()))
    })?;
    let mut token_url = https("AZURE_AUTHORITY_HOST", &options.authority_host)?;
    extend(&mut token_url, &[tenant_id, "oauth2", "v2.0", "token"]);
    Ok(Identity::Workload { token_url, client_id: client_id.to_owned(), token_file: file.to_owned() })
}

fn managed(options: &Options, endpoint: &Url) -> Result<Identity, ConfigError> {
    let mut token_url = url("AZURE_POD_IDENTITY_AUTHORITY_HOST", &options.managed_identity_host)?;
    extend(&mut token_url, &["metadata", "identity", "oauth2", "token"]);
    token_url
        .query_pairs_mut()
        .append_pair("api-version", "2018-02-01")
        .append_pair("resource", endpoint.as_str());
    if let Some(client_id) = &options.client_id {
        token_url.query_pairs_mut().append_pair("client_id", client_id);
    }
    Ok(Identity::Managed { token_url })
}

/// Appends segments to the path of an address; what they contain cannot change anything else of it.
pub(super) fn extend(url: &mut Url, segments: &[&str]) {
    // Every http address has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
}

fn https(option: &'static str, text: &str) -> Result<Url, ConfigError> {
    let url = url(option, text)?;
    if url.scheme() == "https" {
        Ok(url)
    } else {
        Err(wrong(option, "begin it with https://: tokens go there"))
    }
}

fn url(option: &'static str, text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).map_err(|_| wrong(option, format!("write an address such as {ENDPOINT}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong(option, "begin it with https:// and the name of a host"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(wrong(option, "leave away user, password and what begins with \"?\" or \"#\""));
    }
    Ok(url)
}

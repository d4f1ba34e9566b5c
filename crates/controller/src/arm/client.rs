//! The calls: three that read, and the one that writes.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::{HeaderValue, Method, StatusCode};
use meshupgrade_core::aks::body;
use meshupgrade_core::aks::cluster::{ManagedCluster, ProvisioningState};
use meshupgrade_core::aks::id::ClusterId;
use meshupgrade_core::aks::offers::{self, MeshRevision, MeshUpgrades};
use meshupgrade_core::aks::problem::{ArmProblem, Asked, Class};
use meshupgrade_core::ids::Revision;
use reqwest::{Client, Url};
use serde_json::Value;
use tracing::{info, warn};

use super::config::{Config, ConfigError, extend};
use super::exchange::{self, Failure, Reply};
use super::operation::{self, OperationHandle};
use super::sign_in::SignIn;
use super::token::Token;

/// How many writes ARM still allows this subscription, of the kinds of limits that it has had.
const REMAINING_WRITES: [&str; 2] =
    ["x-ms-ratelimit-remaining-subscription-writes", "x-ms-ratelimit-remaining-subscription-global-writes"];
/// From here on somebody should look at who writes so much.
const FEW_WRITES: u64 = 10;

/// A client of Azure Resource Manager. Cheap to clone; all clones share one token.
///
/// A call takes no longer than its timeout and that of a sign-in, with a managed identity that is being updated 70 s more.
#[derive(Clone, Debug)]
pub struct Arm(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    http: Client,
    sign_in: SignIn,
}

/// A cluster as it was read.
#[derive(Clone, PartialEq)]
pub struct ReadCluster {
    /// The whole answer: what a write starts from.
    pub raw: Value,
    /// The eTag that a write is tied to, from the header or the body.
    pub etag: Option<String>,
    /// What decisions need of it.
    pub cluster: ManagedCluster,
}

/// The raw answer is large, and holds what only the owner of the cluster should see.
impl std::fmt::Debug for ReadCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadCluster").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// What came of setting revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetRevisions {
    /// The cluster has them already: nothing was written.
    AlreadySo,
    /// ARM accepted the change and carries it out.
    Accepted(Accepted),
}

/// A change that ARM has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The id of the operation, which may be stored and shown.
    pub operation_id: Option<String>,
    /// To follow it. `None` if ARM gave no address, or one that is not its own: then the cluster's state is to be read.
    pub handle: Option<OperationHandle>,
    /// How many writes ARM still allows in this subscription.
    pub remaining_writes: Option<u64>,
}

impl Arm {
    /// A client. Reads the file of certificate authorities, and needs a TLS provider.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let config = Arc::new(config);
        let http = exchange::web_client(&config)?;
        let sign_in = SignIn::new(Arc::clone(&config), http.clone())?;
        Ok(Self(Arc::new(Inner { config, http, sign_in })))
    }

    /// Reads a cluster.
    pub async fn read(&self, id: &ClusterId) -> Result<ReadCluster, ArmProblem> {
        let reply = self.get(Asked::Cluster, self.cluster_url(id, &[])).await?;
        let header = reply.header("etag").map(str::to_owned);
        let raw = reply.success(Asked::Cluster)?;
        let mut cluster = ManagedCluster::parse(&raw)
            .ok_or_else(|| exchange::unusable("Azure's answer is not that of a managed cluster."))?;
        let etag =
            header.or_else(|| raw.get("eTag")?.as_str().map(str::to_owned)).filter(|etag| !etag.is_empty());
        cluster.etag_present = etag.is_some();
        Ok(ReadCluster { raw, etag, cluster })
    }

    /// What AKS offers to a cluster.
    pub async fn upgrades(&self, id: &ClusterId) -> Result<MeshUpgrades, ArmProblem> {
        let reply = self.get(Asked::Upgrades, self.cluster_url(id, &["meshUpgradeProfiles"])).await?;
        match reply.success(Asked::Upgrades) {
            Ok(answer) => offers::upgrades(&answer)
                .ok_or_else(|| exchange::unusable("Azure's answer is not a list of mesh upgrades.")),
            Err(problem) if problem.class == Class::UpgradeInProgress => Ok(MeshUpgrades::UpgradeInProgress),
            Err(problem) => Err(problem),
        }
    }

    /// The revisions that AKS offers in a region, for the subscription of a cluster. None means: not in this region.
    pub async fn revisions(&self, id: &ClusterId, location: &str) -> Result<Vec<MeshRevision>, ArmProblem> {
        // `West Europe` is `westeurope`.
        let location: String =
            location.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        let provider =
            ["providers", "Microsoft.ContainerService", "locations", &location, "meshRevisionProfiles"];
        let url = self.url(&[&["subscriptions", id.subscription()], provider.as_slice()].concat());
        let answer = self.get(Asked::Revisions, url).await?.success(Asked::Revisions)?;
        offers::revisions(&answer)
            .ok_or_else(|| exchange::unusable("Azure's answer is not a list of mesh revisions."))
    }

    /// Gives a cluster other revisions: reads it, and writes it back with `wanted` instead of `expected`. In other words:
    /// with one more revision an upgrade starts, with one less it is completed or rolled back.
    ///
    /// Nothing is written unless the cluster's last operation went well and its revisions are `expected`, in any order.
    /// The write is sent once. [`Class::Unknown`] means that its outcome is not known.
    pub async fn set_revisions(
        &self,
        id: &ClusterId,
        expected: &[Revision],
        wanted: &[Revision],
    ) -> Result<SetRevisions, ArmProblem> {
        let read = self.read(id).await?;
        if same(&read.cluster.revisions, wanted) {
            return Ok(SetRevisions::AlreadySo);
        }
        check_state(&read.cluster.provisioning_state)?;
        check_expected(&read.cluster.revisions, expected)?;
        let body = checked_body(&read.raw, wanted)?;
        let token = self.0.sign_in.token().await?;
        let sent = self.put(self.cluster_url(id, &[]), &token, read.etag.as_deref(), &body).await;
        let reply = sent.map_err(|failure| lost(&failure))?;
        info!(
            cluster = id.name(),
            status = reply.status.as_u16(),
            etag = read.etag.is_some(),
            "mesh revisions sent"
        );
        if reply.status == StatusCode::UNAUTHORIZED {
            self.0.sign_in.forget(&token).await;
        }
        self.accepted(&reply).map(SetRevisions::Accepted)
    }

    fn accepted(&self, reply: &Reply) -> Result<Accepted, ArmProblem> {
        if !matches!(reply.status, StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED) {
            return Err(ArmProblem::from_answer(Asked::SetRevisions, &reply.answer()));
        }
        let remaining_writes =
            REMAINING_WRITES.iter().find_map(|name| reply.header(name)).and_then(|text| text.parse().ok());
        if remaining_writes.is_some_and(|remaining| remaining < FEW_WRITES) {
            warn!(remaining_writes, "Azure allows this subscription only a few more writes");
        }
        let address = reply.header("azure-asyncoperation");
        let handle = address.and_then(|address| OperationHandle::new(address, &self.0.config.endpoint));
        if address.is_some() && handle.is_none() {
            warn!(
                "the operation's address is not on the ARM endpoint: the cluster's own state is watched instead"
            );
        }
        Ok(Accepted { operation_id: address.and_then(operation::id), handle, remaining_writes })
    }

    /// Reads something. When the token is refused, once more with a new one.
    pub(super) async fn get(&self, asked: Asked, url: Url) -> Result<Reply, ArmProblem> {
        let token = self.0.sign_in.token().await?;
        let reply = self.get_with(asked, url.clone(), &token).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        self.0.sign_in.forget(&token).await;
        let token = self.0.sign_in.token().await?;
        self.get_with(asked, url, &token).await
    }

    async fn get_with(&self, asked: Asked, url: Url, token: &Token) -> Result<Reply, ArmProblem> {
        let reply = exchange::send(self.request(Method::GET, url, token), self.0.config.timeout).await;
        reply.map_err(|failure| exchange::unanswered(&failure).about(asked.failed()))
    }

    async fn put(&self, url: Url, token: &Token, etag: Option<&str>, body: &Value) -> Result<Reply, Failure> {
        let request = self.request(Method::PUT, url, token).header(CONTENT_TYPE, "application/json");
        let request = match etag {
            Some(etag) => request.header(IF_MATCH, quoted(etag)),
            // Missing from many answers of 2024 and 2025 (Azure/AKS CHANGELOG): then the write is not tied to the read.
            None => request,
        };
        exchange::send(request.body(body.to_string()), self.0.config.timeout).await
    }

    fn request(&self, method: Method, url: Url, token: &Token) -> reqwest::RequestBuilder {
        // A token without header value is not kept.
        let authorization = token.header().unwrap_or(HeaderValue::from_static(""));
        self.0
            .http
            .request(method, url)
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header("x-ms-client-request-id", request_id())
    }

    fn cluster_url(&self, id: &ClusterId, below: &[&str]) -> Url {
        let path = [
            "subscriptions",
            id.subscription(),
            "resourceGroups",
            id.resource_group(),
            "providers",
            "Microsoft.ContainerService",
            "managedClusters",
            id.name(),
        ];
        self.url(&[path.as_slice(), below].concat())
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.0.config.endpoint.clone();
        extend(&mut url, segments);
        url.query_pairs_mut().append_pair("api-version", &self.0.config.api_version);
        url
    }

    /// The settings that it was made with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(super) fn poll_interval(&self) -> Duration {
        self.0.config.poll_interval
    }
}

/// Whether two lists name the same revisions: ARM does not promise an order.
fn same(one: &[Revision], other: &[Revision]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect::<BTreeSet<_>>()
}

fn check_state(state: &ProvisioningState) -> Result<(), ArmProblem> {
    let word = state.as_str();
    let (why, remedy) = match state {
        ProvisioningState::Succeeded => return Ok(()),
        ProvisioningState::UnderWay(_) => (
            format!("Its state is {word:?}: another operation is not over."),
            "The operator tries again by itself.".to_owned(),
        ),
        ProvisioningState::Failed | ProvisioningState::Canceled => (
            format!("Its last operation ended as {word:?}, and a change now could end the same way."),
            "Find out why with az aks show and the activity log, then bring the cluster in order with az aks update (without any option); the operator goes on when its state is Succeeded.".to_owned(),
        ),
    };
    let class = Class::Wait { operation: word.to_owned() };
    Err(ArmProblem::own(class, "ClusterNotReady", "The cluster was not changed.", &why, &remedy))
}

fn check_expected(found: &[Revision], expected: &[Revision]) -> Result<(), ArmProblem> {
    if same(found, expected) {
        return Ok(());
    }
    let names = |revisions: &[Revision]| {
        let names: Vec<&str> = revisions.iter().map(Revision::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let why = format!(
        "Its mesh revisions are {}, not {}: somebody else changed them.",
        names(found),
        names(expected)
    );
    let remedy = "The operator decides anew from what the cluster has.";
    Err(ArmProblem::own(Class::Changed, "RevisionsChanged", "The cluster was not changed.", &why, remedy))
}

/// The body, looked at once more by a check that does not know how it was made.
fn checked_body(get: &Value, wanted: &[Revision]) -> Result<Value, ArmProblem> {
    let refused = |why: String| {
        let remedy = "Correct the cluster if this is so; otherwise please report it.";
        ArmProblem::own(
            Class::Terminal,
            "BodyRefused",
            "The operator refuses to write the cluster.",
            &why,
            remedy,
        )
    };
    let body =
        body::with_revisions(get, wanted).map_err(|error| refused(format!("Before sending: {error}.")))?;
    body::assert_only_revisions_differ(get, &body).map_err(|pointers| {
        let pointers: Vec<&str> = pointers.iter().take(5).map(String::as_str).collect();
        refused(format!("More than the revisions would change: {}.", pointers.join(", ")))
    })?;
    Ok(body)
}

/// A write without answer.
fn lost(failure: &Failure) -> ArmProblem {
    if !failure.sent {
        return exchange::unanswered(failure);
    }
    let remedy = "The operator reads the cluster before it does anything else.";
    let what = "Whether Azure accepted the cluster's new list of mesh revisions is not known.";
    ArmProblem::own(Class::Unknown, "AnswerLost", what, &failure.why, remedy)
}

/// As HTTP writes an entity tag; the body has it without quotes.
fn quoted(etag: &str) -> String {
    let is_quoted =
        etag.starts_with("W/") || (etag.len() >= 2 && etag.starts_with('"') && etag.ends_with('"'));
    if is_quoted { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// A UUID that finds a request in Azure's logs again. Its randomness is that of the standard library's hash maps: it need
/// only be another one each time.
fn request_id() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    let number = (u128::from(random()) << 64) | u128::from(random());
    let hex = format!("{number:032x}");
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_quoted_once() {
        for (etag, header) in
            [("a", "\"a\""), ("\"a\"", "\"a\""), ("W/\"a\"", "W/\"a\""), ("*", "\"*\""), ("\"", "\"\"\"")]
        {
            assert_eq!(quoted(etag), header);
        }
    }

    #[test]
    fn a_request_id_is_a_uuid_and_never_the_same() {
        let ids: BTreeSet<String> = (0..100).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 100);
        for id in ids {
            let lengths: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert!(id.chars().all(|c| c.is_ascii_hexdigit() || c == '-'), "{id}");
        }
    }

    #[test]
    fn revisions_are_compared_without_order() {
        let of = |names: &[&str]| names.iter().map(|name| Revision::from(*name)).collect::<Vec<_>>();
        assert!(same(&of(&["a", "b"]), &of(&["b", "a"])));
        assert!(!same(&of(&["a"]), &of(&["a", "b"])));
        assert!(check_expected(&of(&["a"]), &of(&["a"])).is_ok());
        let problem = check_expected(&of(&["a", "c"]), &of(&[])).unwrap_err();
        assert_eq!(problem.class, Class::Changed);
        assert!(problem.told.why.contains("are a, c, not none"), "{problem}");
    }
}

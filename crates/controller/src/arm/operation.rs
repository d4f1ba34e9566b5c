//! Long-running operations: the address that ARM gives for one is signed, so it is kept in memory only, and only if it is
//! on the host that our token is for.

use std::fmt;
use std::time::Duration;

use meshupgrade_core::aks::operation::{self, OperationState};
use meshupgrade_core::aks::problem::{ArmProblem, Asked, Class};
use reqwest::Url;
use tokio::time::Instant;

use super::client::Arm;

/// The longest address of an operation that is used. ARM asks clients to take 4 KiB at least.
const LONGEST_ADDRESS: usize = 16 * 1024;
/// Pauses between two looks, whatever ARM asks for.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(2);

/// An operation that can be looked at. Not to be stored: after a restart the cluster's `provisioningState` says it all.
#[derive(Clone, PartialEq, Eq)]
pub struct OperationHandle(Url);

/// The address is signed: whoever has it can read the operation.
impl fmt::Debug for OperationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperationHandle(<hidden>)")
    }
}

impl OperationHandle {
    /// A handle from the header `Azure-AsyncOperation`; `None` if its address is not on ARM's own host.
    pub(super) fn new(header: &str, endpoint: &Url) -> Option<Self> {
        let url = Url::parse(header).ok().filter(|_| header.len() <= LONGEST_ADDRESS)?;
        let anonymous = url.username().is_empty() && url.password().is_none();
        (anonymous && url.origin() == endpoint.origin()).then_some(Self(url))
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

/// The id of an operation, which may be shown: the last part of the path of its address, if it looks like an id.
pub(super) fn id(header: &str) -> Option<String> {
    let url = Url::parse(header).ok()?;
    let id = url.path_segments()?.next_back()?;
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && (1..=64).contains(&id.len())).then(|| id.to_owned())
}

/// One look at an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// How it stands.
    pub state: OperationState,
    /// How long to wait before the next look.
    pub next_in: Duration,
}

impl Arm {
    /// Looks at an operation once.
    pub async fn poll(&self, operation: &OperationHandle) -> Result<Poll, ArmProblem> {
        let reply = self.get(Asked::Operation, operation.url().clone()).await?;
        let next_in = bounded(reply.retry_after().unwrap_or_else(|| self.poll_interval()));
        // 202 is what some of ARM's operations answer while they go on.
        let body = if reply.status == http::StatusCode::ACCEPTED {
            reply.body.unwrap_or_default()
        } else {
            reply.success(Asked::Operation)?
        };
        Ok(Poll { state: operation::state(&body), next_in })
    }

    /// Looks at an operation until it ends or the time is over. Failures on the way that pass are outlasted.
    pub async fn follow(
        &self,
        operation: &OperationHandle,
        limit: Duration,
    ) -> Result<OperationState, ArmProblem> {
        let end = Instant::now() + limit;
        loop {
            let (pause, problem) = match self.poll(operation).await {
                Ok(Poll { state: OperationState::Running, next_in }) => (next_in, None),
                Ok(Poll { state, .. }) => return Ok(state),
                Err(problem) => (self.pause_after(&problem)?, Some(problem)),
            };
            if Instant::now() + pause >= end {
                return Err(problem.unwrap_or_else(|| too_long(limit)));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to wait after a problem that passes; any other one is the end.
    fn pause_after(&self, problem: &ArmProblem) -> Result<Duration, ArmProblem> {
        match problem.class {
            Class::Transient { retry_after_seconds } | Class::Throttled { retry_after_seconds } => {
                let asked = retry_after_seconds.map(Duration::from_secs);
                Ok(bounded(asked.unwrap_or_else(|| self.poll_interval())))
            }
            _ => Err(problem.clone()),
        }
    }
}

fn bounded(pause: Duration) -> Duration {
    pause.clamp(*PAUSES.start(), *PAUSES.end())
}

fn too_long(limit: Duration) -> ArmProblem {
    let why = format!("It has not ended within {} minutes.", limit.as_secs() / 60);
    let remedy = "The operator goes by the state of the cluster; az aks show says what goes on.";
    ArmProblem::own(
        Class::Unknown,
        "OperationTooLong",
        "The operation on the cluster takes long.",
        &why,
        remedy,
    )
}

//! Faults: fixed data, planted at the k-th request of a kind.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::route::Call;

/// How an operation ends that does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Status and provisioning state `Failed`.
    Failed,
    /// Status and provisioning state `Canceled`.
    Canceled,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 409 `OperationNotAllowed`: this operation of somebody else runs.
    OperationNotAllowed(&'static str),
    /// 409 `EtagMismatch` in the flat form: AKS lost a race in itself.
    EtagMismatch,
    /// 412 whatever `If-Match` says.
    PreconditionFailed,
    /// 400 "Requested change in revisions is not allowed" with this reason.
    RevisionsRefused(&'static str),
    /// 401: the token is refused.
    Unauthorized,
    /// 403 `AuthorizationFailed`.
    Forbidden,
    /// 404 `ResourceNotFound`.
    NotFound,
    /// 429 with this `Retry-After` in seconds.
    TooManyRequests(u64),
    /// 500, 502 or 503.
    ServerError(u16),
    /// The connection ends before anything is done.
    DropBefore,
    /// Everything is done, then the connection ends instead of the answer.
    LoseAnswer,
    /// The answer comes this much later; what it says is decided after the delay, whether or not the client waits for it.
    Delay(Duration),
    /// 200 with a body that is no JSON. Nothing is done.
    Garbage,
    /// 200 with a body of this many bytes. Nothing is done.
    Huge(usize),
    /// 307 to this place. Nothing is done.
    Redirect(String),
    /// No eTag in clusters.
    NoEtag,
    /// `upgrades` is left out of the upgrade profile.
    UpgradesAbsent,
    /// `upgrades` is an empty list.
    UpgradesEmpty,
    /// The list of upgrade profiles is empty.
    NoProfiles,
    /// The PUT is accepted; its operation ends like this, nothing is installed or removed, and the requested revisions stay
    /// in the document, or not.
    OperationEnds {
        /// How.
        end: End,
        /// Whether the revisions of the document are those from before.
        reverted: bool,
    },
    /// The operation takes this long.
    OperationTakes(Duration),
    /// The operation succeeds, and nothing is installed.
    NeverInstalled,
    /// In the middle of the operation somebody else's revisions are in the document, and what is installed follows them.
    ForeignRevisions(&'static [&'static str]),
    /// The operation that the PUT starts is never found.
    OperationLost,
    /// The sign-in is refused: 401 `invalid_client`.
    InvalidClient,
    /// The token that is given expires this early.
    TokenLifetime(Duration),
}

impl Fault {
    /// Whether it means anything there: a fault that cannot show would be a test that cannot fail.
    fn fits(&self, call: Call) -> bool {
        let sign_in = matches!(call, Call::Token | Call::IdentityToken);
        let arm = !sign_in && call != Call::OpenIdConfiguration;
        match self {
            Self::DropBefore
            | Self::LoseAnswer
            | Self::Delay(_)
            | Self::Garbage
            | Self::Huge(_)
            | Self::Redirect(_)
            | Self::TooManyRequests(_)
            | Self::ServerError(_) => true,
            Self::Unauthorized | Self::Forbidden | Self::NotFound => arm,
            Self::NoEtag => matches!(call, Call::GetCluster | Call::PutCluster | Call::ListClusters),
            Self::UpgradesAbsent | Self::UpgradesEmpty | Self::NoProfiles => call == Call::MeshUpgrades,
            Self::InvalidClient | Self::TokenLifetime(_) => sign_in,
            Self::OperationNotAllowed(_)
            | Self::EtagMismatch
            | Self::PreconditionFailed
            | Self::RevisionsRefused(_)
            | Self::OperationEnds { .. }
            | Self::OperationTakes(_)
            | Self::NeverInstalled
            | Self::ForeignRevisions(_)
            | Self::OperationLost => call == Call::PutCluster,
        }
    }
}

/// At which requests a fault shows, counted from when it is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// At the next one.
    Next,
    /// At this many, after having passed over so many.
    At {
        /// Passed over.
        after: u32,
        /// Shown at.
        count: u32,
    },
    /// At every one.
    Always,
}

/// The faults that are planted.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    planted: Vec<(Call, Fault, u32, Option<u32>)>,
}

impl Faults {
    pub fn plant(&mut self, call: Call, fault: Fault, times: Times) -> Result<()> {
        if !fault.fits(call) {
            bail!("{fault:?} cannot show at {call:?}");
        }
        let (after, count) = match times {
            Times::Next => (0, Some(1)),
            Times::At { after, count } => (after, Some(count)),
            Times::Always => (0, None),
        };
        self.planted.push((call, fault, after, count));
        Ok(())
    }

    pub fn clear(&mut self) {
        self.planted.clear();
    }

    /// How many have not shown as often as they were to.
    pub fn pending(&self) -> usize {
        self.planted.iter().filter(|(_, _, _, count)| count.is_some_and(|left| left > 0)).count()
    }

    /// The faults that this request shows.
    pub fn take(&mut self, call: Call) -> Vec<Fault> {
        let mut shown = Vec::new();
        for (at, fault, after, count) in &mut self.planted {
            match (*at == call, *after, count) {
                (true, 0, None) => shown.push(fault.clone()),
                (true, 0, Some(left)) if *left > 0 => {
                    *left -= 1;
                    shown.push(fault.clone());
                }
                (true, 1.., _) => *after -= 1,
                _ => {}
            }
        }
        shown
    }
}

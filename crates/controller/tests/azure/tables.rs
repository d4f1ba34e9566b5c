//! Which faults each call can meet, and what a user reads while one stays.

use std::time::Duration;

use meshupgrade_arm_simulator::{Call, Fault};
use meshupgrade_core::wait::WaitReason;

use crate::process::TIMEOUT_SECONDS;
use crate::world::{Stage, Way};

/// A fault, and what is shown while it stays: nothing if the run goes on all the same.
pub type Row = (Fault, Option<WaitReason>);

/// The ways part after the start.
pub fn ways(stage: Stage) -> &'static [Way] {
    if stage < Stage::Moving { &[Way::Forward] } else { &Way::BOTH }
}

/// Whether the call gets a token.
pub fn is_sign_in(call: Call) -> bool {
    matches!(call, Call::Token | Call::IdentityToken)
}

/// Everything that can happen to a call.
pub fn faults(call: Call) -> Vec<Row> {
    let mut all = of_networks();
    if is_sign_in(call) {
        all.retain(|(fault, _)| !matches!(fault, Fault::Redirect(_)));
        all.extend([
            // Whoever answers like this is not the sign-in service that was configured.
            (elsewhere(), Some(WaitReason::AzureAccess)),
            (Fault::InvalidClient, Some(WaitReason::AzureAccess)),
            (Fault::TokenLifetime(Duration::ZERO), None),
        ]);
        return all;
    }
    all.extend([
        // A refused token is replaced, unless it was for a write.
        (Fault::Unauthorized, Some(WaitReason::AzureAccess)),
        (Fault::Forbidden, Some(WaitReason::AzureAccess)),
        (Fault::NotFound, Some(WaitReason::AzureRefused)),
    ]);
    all.extend(of(call));
    if call == Call::PutCluster {
        // The head of an answer says that the write was accepted. That it was not in effect looks as if somebody had put it back.
        let is_accepted = |fault: &Fault| matches!(fault, Fault::Garbage | Fault::Huge(_));
        for (_, shown) in all.iter_mut().filter(|(fault, _)| is_accepted(fault)) {
            *shown = Some(WaitReason::RevisionsChanged);
        }
    }
    if call == Call::Operation {
        // Azure does not tell how an operation stands: the cluster does. Nothing is shown of it.
        for (_, shown) in &mut all {
            *shown = None;
        }
    }
    all
}

/// What can happen to any request.
fn of_networks() -> Vec<Row> {
    let late = Duration::from_millis(TIMEOUT_SECONDS * 1000 + 800);
    let all = [
        Fault::DropBefore,
        Fault::LoseAnswer,
        Fault::Delay(late),
        Fault::Garbage,
        Fault::Huge(5 << 20),
        elsewhere(),
        Fault::TooManyRequests(1),
        Fault::ServerError(500),
        Fault::ServerError(502),
        Fault::ServerError(503),
    ];
    all.map(|fault| (fault, Some(WaitReason::AzureUnavailable))).into()
}

fn elsewhere() -> Fault {
    Fault::Redirect("https://127.0.0.1:9/".to_owned())
}

/// What can happen to this request only.
fn of(call: Call) -> Vec<Row> {
    let unavailable = Some(WaitReason::AzureUnavailable);
    match call {
        Call::GetCluster => vec![(Fault::NoEtag, None)],
        Call::MeshUpgrades => [Fault::UpgradesAbsent, Fault::UpgradesEmpty, Fault::NoProfiles]
            .map(|fault| (fault, Some(WaitReason::PreflightFailed)))
            .into(),
        Call::PutCluster => vec![
            (Fault::NoEtag, None),
            (Fault::OperationNotAllowed("nodepool1 - Updating"), Some(WaitReason::ClusterBusy)),
            (Fault::EtagMismatch, unavailable),
            (Fault::PreconditionFailed, unavailable),
            (Fault::RevisionsRefused("It is not the day for it."), Some(WaitReason::AzureRefused)),
            (Fault::OperationTakes(Duration::from_millis(900)), Some(WaitReason::ControlPlaneOperation)),
            (Fault::OperationLost, None),
        ],
        _ => Vec::new(),
    }
}

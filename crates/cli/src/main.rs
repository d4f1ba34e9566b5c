//! `kubectl mesh-upgrade`: the command line of MeshUpgrade.

mod action;
mod cluster;
#[cfg(test)]
mod fixtures;
mod status;
mod step;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use meshupgrade_core::intent::Verb;

/// Upgrade an Istio mesh by revisions, and look after a running upgrade.
#[derive(Debug, Parser)]
#[command(name = "kubectl-mesh_upgrade", bin_name = "kubectl mesh-upgrade", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Status(status::Status),
    /// Let the step begin that waits for approval.
    ///
    /// Only the step that status offers at this moment: if it changes before the approval is written, nothing is.
    /// Ends with 0 when it was asked for, 3 when nothing waits for approval, 4 when --wait ran out of time, 2 for wrong
    /// arguments, 1 when the cluster was of no use.
    Approve(action::Say),
    /// Hold as soon as no batch is open.
    ///
    /// Ends like approve.
    Pause(action::Say),
    /// Go on after a pause.
    ///
    /// Ends like approve.
    Resume(action::Say),
    /// Take everything back to the old revision; there is no way forward again in this run.
    ///
    /// Ends like approve.
    Rollback(action::Say),
    Retry(action::Retry),
    Validate(validate::Validate),
}

impl Action {
    async fn run(&self) -> Exit {
        match self {
            Self::Status(status) => status.run().await,
            Self::Approve(say) => say.run(Verb::Approve, None).await,
            Self::Pause(say) => say.run(Verb::Pause, None).await,
            Self::Resume(say) => say.run(Verb::Resume, None).await,
            Self::Rollback(say) => say.run(Verb::Rollback, None).await,
            Self::Retry(retry) => retry.run().await,
            Self::Validate(validate) => validate.run(),
        }
    }
}

/// How the program ends.
///
/// From the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    /// Everything is as it should be.
    Ok,
    /// What was looked at is not right.
    Invalid,
    /// The operator did not answer in time.
    TimedOut,
    /// The program could not do its work.
    Error,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Invalid => 3,
            Exit::TimedOut => 4,
            Exit::Error => 1,
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Wrong arguments end the program in here, with 2.
    Arguments::parse().action.run().await.into()
}

//! `kubectl mesh-upgrade`: the command line of MeshUpgrade.

mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Upgrade an Istio mesh by revisions, and look after a running upgrade.
#[derive(Debug, Parser)]
#[command(name = "kubectl-mesh_upgrade", bin_name = "kubectl mesh-upgrade", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Validate(validate::Validate),
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
    /// The program could not do its work.
    Error,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Invalid => 3,
            Exit::Error => 1,
        })
    }
}

fn main() -> ExitCode {
    // Wrong arguments end the program in here, with 2.
    match Arguments::parse().action {
        Action::Validate(validate) => validate.run().into(),
    }
}

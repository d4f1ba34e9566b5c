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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    /// Everything is as it should be.
    Ok = 0,
    /// What was looked at is not right.
    Invalid = 3,
    /// The program could not do its work.
    Error = 1,
}

fn main() -> ExitCode {
    // Wrong arguments end the program in here, with 2.
    let exit = match Arguments::parse().action {
        Action::Validate(validate) => validate.run(),
    };
    ExitCode::from(exit as u8)
}

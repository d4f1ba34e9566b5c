//! The MeshUpgrade operator: arguments and wiring.

mod args;
mod telemetry;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init(args.log_format);
    // Before anything speaks TLS: with several providers in the build, rustls would not choose by itself.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::error!("another TLS provider is installed");
        return ExitCode::FAILURE;
    }
    match wiring::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

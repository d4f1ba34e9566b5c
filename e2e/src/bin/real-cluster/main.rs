//! `make e2e KUBECONFIG=…`: scenarios on a real cluster that has two Istio revisions already. They need neither audit log
//! nor faults. Everything they make has a name and a label of this run, and is removed at the end.

use std::future::Future;
use std::process::ExitCode;

use anyhow::Result;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

mod given;
mod install;
mod left_out;
mod removal;
mod scenarios;
mod site;
mod stage;

use given::Given;
use site::Site;

/// As shells report the end by Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let outcome = Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
        let outcome = runtime.block_on(act());
        // A build that was interrupted: nobody waits for it.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act() -> Result<ExitCode> {
    let given = Given::from_environment()?;
    let site = site::find(&given).await?;
    println!("{site}");
    left_out::tell()?;
    let outcome = until_interrupted(everything(&site)).await;
    // The operator's process has ended here, however that came about.
    let removed = removal::remove(&site).await;
    match &removed {
        Ok(()) => println!("removed: everything that this run made"),
        Err(error) => eprintln!("error: {error:#}\nby hand: {}", site.removal_command()),
    }
    let Some(passed) = outcome else {
        eprintln!("interrupted");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let passed = passed? && removed.is_ok();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all scenarios passed.
async fn everything(site: &Site) -> Result<bool> {
    let mut operator = install::install(site).await?;
    scenarios::run(site, &mut operator).await
}

/// `None` when a signal came first.
async fn until_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        outcome = work => Some(outcome),
        () = asked_to_end() => None,
    }
}

/// Returns at Ctrl-C, SIGTERM, or when the terminal is gone.
async fn asked_to_end() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let waits = kinds.into_iter().filter_map(|kind| signal(kind).ok()).map(|mut signal| {
        Box::pin(async move {
            signal.recv().await;
        })
    });
    futures::future::select_all(waits).await;
}

//! `make e2e KUBECONFIG=…`: scenarios on a real cluster that has two Istio revisions already. They need neither audit log
//! nor faults. Everything they make has a name and a label of this run, and is removed at the end.

use std::process::ExitCode;

use anyhow::Result;
use meshupgrade_e2e::interrupt::{INTERRUPTED, until_interrupted};
use tokio::runtime::Runtime;

mod given;
mod install;
mod left_out;
mod removal;
mod scenarios;
mod site;
mod stage;

use given::Given;
use site::Site;

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

//! The operator dies while it waits for the answer to a write of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_arm_simulator::{Call, Fault};
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{SOURCE, Scenario};
use meshupgrade_testbed::wait_for;
use serde_json::json;

use super::{End, RUN, aks, begin};

/// Kills the operator as soon as Azure has its write and has answered nothing yet, and starts the next one.
async fn kill_at_the_write(s: &mut Scenario, azure: &Azure) -> Result<()> {
    wait_for("the write", RUN, || async { Ok((azure.simulator.pending_faults() == 0).then_some(())) })
        .await?;
    s.kill_operators()?;
    s.start_operator_as(&azure.operator())
}

async fn killed(s: &mut Scenario) -> Result<()> {
    let names = ["ak-killed", "ak-killed-too"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    // The start is still on its way when the next process looks, finds nothing of it, and asks too.
    azure.plant(Call::PutCluster, Fault::Delay(Duration::from_secs(6)))?;
    let mesh = begin(s, &azure, names, json!({})).await?;
    kill_at_the_write(s, &azure).await?;
    s.wait_status_within(RUN, "mesh", "Migrating", |status| status.phase == "Migrating").await?;
    azure.judge(1)?;
    // The completion is carried out, and goes on while the next process looks.
    azure.plant(Call::PutCluster, Fault::OperationTakes(Duration::from_secs(3)))?;
    azure.plant(Call::PutCluster, Fault::LoseAnswer)?;
    kill_at_the_write(s, &azure).await?;
    End::completed(2).reached(s, &azure, &mesh, &names).await?;
    let sent = azure.simulator.journal().into_iter().filter(|entry| entry.call == Call::PutCluster);
    let answers: Vec<_> = sent.map(|entry| entry.status).collect();
    // The next process asks too, and is refused, unless the start has arrived before it looks.
    ensure!(answers.len() <= 3, "the start twice, of which one is refused, and the completion: {answers:?}");
    // Each life tells its own words.
    s.judge(&["write-budget"]).await
}

#[test]
fn killed_at_both_writes() {
    aks("aks_killed", async |s: &mut Scenario| killed(s).await);
}

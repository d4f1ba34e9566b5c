//! The operator dies at any write.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use meshupgrade_e2e::tail::Follower;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, Workload, scenario};
use serde_json::json;

use crate::{spec, up_to_the_middle};

/// Kills the operator at writes of its own, counted in the audit log, and starts it again under the same name, until the
/// run is over. Returns the writes of each death: that at which it was killed, and what came through before it was dead.
async fn kill_often(s: &mut Scenario, over: &str) -> Result<Vec<String>> {
    let mut killed = Vec::new();
    for gap in [1, 2, 3, 1, 2, 2].into_iter().cycle().take(24) {
        let mut follower = s.follow()?;
        if !killed.is_empty() {
            s.start_operator()?;
        }
        let Some(mut death) = fatal(&mut follower, gap, &killed).await? else { break };
        s.kill_operators()?;
        while let Some(write) = next(&mut follower, Duration::ZERO).await? {
            death = format!("{death}, {write}");
        }
        killed.push(death);
        if s.status("mesh").await?.phase == over {
            break;
        }
    }
    s.start_operator()?;
    s.wait_phase("mesh", over).await?;
    Ok(killed)
}

/// The write to die at: the last of so many, or one before it to a kind of object of which no death has a write. How often a
/// status is written between others depends on the machine.
async fn fatal(follower: &mut Follower, gap: usize, killed: &[String]) -> Result<Option<String>> {
    let mut last = None;
    for _ in 0..gap {
        let Some(write) = next(follower, Duration::from_secs(15)).await? else { break };
        let kind = write.split(' ').nth(1).unwrap_or_default();
        let is_first = killed.iter().all(|death| !death.contains(kind));
        last = Some(write);
        if is_first {
            break;
        }
    }
    Ok(last)
}

/// The next write, as verb, kind and name.
async fn next(follower: &mut Follower, within: Duration) -> Result<Option<String>> {
    let write = follower.next_write(within).await?;
    Ok(write.map(|write| format!("{} {}", write.verb, write.object)))
}

async fn upgrade(s: &mut Scenario) -> Result<()> {
    let names = ["kl-first", "kl-second"];
    let mesh = Mesh::new()
        .on(SOURCE, names[0])
        .on(SOURCE, names[1])
        .deployments(names[0], &["a", "b", "c"])
        .app(App::deployment(names[1], "d").replicas(2))
        .app(App::stateful_set(names[1], "e").replicas(2))
        .app(App::daemon_set(names[1], "f"));
    s.mesh(mesh.clone()).await?;
    s.wave(&[names[0]], 1);
    s.wave(&[names[1]], 2);
    s.start_operator()?;
    let mut spec = spec(&names);
    spec["waves"][1]["maxConcurrentWorkloads"] = json!(2);
    s.upgrade("mesh", spec).await?;
    let killed = kill_often(s, "Succeeded").await?;
    eprintln!("killed at {killed:#?}");
    ensure!(killed.len() >= 6, "killed only {} times", killed.len());
    for resource in ["namespaces", "deployments", "meshupgrades/status"] {
        ensure!(killed.iter().any(|write| write.contains(resource)), "never killed at a write of {resource}");
    }
    let different: BTreeSet<&String> = killed.iter().collect();
    ensure!(different.len() >= 4, "killed at {different:?}");
    s.all_on(TARGET, &names).await?;
    for app in &mesh.apps {
        let generation = s.generation(&app.workload()).await?;
        ensure!(generation == 2, "{} has generation {generation}", app.workload());
    }
    // Each life tells its own words.
    s.judge(&["write-budget"]).await
}

#[test]
fn killed_at_many_writes_of_one_upgrade() {
    scenario("killed_upgrade", async |s: &mut Scenario| upgrade(s).await);
}

async fn rollback(s: &mut Scenario) -> Result<()> {
    let names = ["kr-first", "kr-second"];
    up_to_the_middle(s, names).await?;
    s.kill_operators()?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    s.start_operator()?;
    let killed = kill_often(s, "RolledBack").await?;
    ensure!(killed.len() >= 4, "killed only at {killed:?}");
    s.all_on(SOURCE, &names).await?;
    let generations = [
        ("deployments", "web", names[0], 3),
        ("statefulsets", "db", names[0], 3),
        ("deployments", "slow", names[1], 3),
    ];
    for (resource, name, namespace, wanted) in generations {
        let generation = s.generation(&Workload::new(namespace, resource, name)).await?;
        ensure!(generation == wanted, "{namespace}/{name} has generation {generation}");
    }
    ensure!(s.generation(&Workload::new(names[1], "deployments", "waiting")).await? == 1);
    s.judge(&["write-budget"]).await
}

#[test]
fn killed_at_many_writes_of_one_rollback() {
    scenario("killed_rollback", async |s: &mut Scenario| rollback(s).await);
}

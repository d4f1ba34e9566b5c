//! People who want to look first, or to wait, or who want two things at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use meshupgrade_e2e::install::USER;
use meshupgrade_e2e::{SOURCE, Scenario, TARGET, scenario};
use serde_json::json;

use crate::{begin, deployment, spec, untouched, up_to_the_middle};

async fn plan_only(s: &mut Scenario) -> Result<()> {
    let names = ["po-first", "po-second"];
    begin(s, names).await?;
    s.start_operator()?;
    let mut spec = spec(&names);
    spec["planOnly"] = json!(true);
    s.upgrade("mesh", spec).await?;
    let status = s.wait_condition("mesh", "Paused", "True", "PlanOnly").await?;
    ensure!(status.phase == "Planned", "{}", status.phase);
    let plan = status.plan.context("no plan")?;
    let waves: Vec<(&str, u32)> =
        plan.waves.iter().map(|wave| (wave.name.as_str(), wave.workloads)).collect();
    ensure!(waves == [(names[0], 2), (names[1], 2)], "{waves:?}");
    ensure!(status.plan_digest.is_some_and(|digest| !digest.is_empty()), "no digest");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let log = s.log().await?;
    let other: Vec<String> = log
        .by(USER)
        .filter(|call| call.is_write() && !matches!(call.object.resource.as_str(), "leases" | "events"))
        .filter(|call| !call.object.is("meshupgrade.io", "meshupgrades", "status"))
        .map(ToString::to_string)
        .collect();
    ensure!(other.is_empty(), "written: {other:?}");
    s.patch_upgrade("mesh", json!({"spec": {"planOnly": false}})).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.judge(&[]).await
}

#[test]
fn plan_only_publishes_the_plan_and_writes_nothing_else() {
    scenario("plan_only", async |s: &mut Scenario| plan_only(s).await);
}

async fn suspended(s: &mut Scenario) -> Result<()> {
    let names = ["su-first", "su-second"];
    up_to_the_middle(s, names).await?;
    s.patch_upgrade("mesh", json!({"spec": {"suspend": true}})).await?;
    let status = s
        .wait_status("mesh", "no open batch", |status| {
            status.run.as_ref().is_some_and(|run| run.batch.is_none() && run.wave == 1)
                && status.condition("Paused").is_some_and(|paused| paused.reason == "Suspended")
        })
        .await?;
    ensure!(status.phase == "Migrating", "{}", status.phase);
    s.all_on(TARGET, &[names[0]]).await?;
    untouched(s, 3, &[deployment(names[1], "waiting")]).await?;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1, "a batch was opened");
    s.patch_upgrade("mesh", json!({"spec": {"suspend": false}})).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn suspend_holds_when_no_batch_is_open() {
    scenario("suspend", async |s: &mut Scenario| suspended(s).await);
}

/// The window closes while `slow` is in rollout: that ends, `waiting` waits, and goes when a window is open.
async fn window_closes(s: &mut Scenario) -> Result<()> {
    let names = ["wi-first", "wi-second"];
    up_to_the_middle(s, names).await?;
    let in_three_days = Timestamp::now().to_zoned(TimeZone::UTC).checked_add(3.days())?.weekday();
    let later = json!([{"days": [format!("{in_three_days:?}")],
        "startTime": "01:00", "endTime": "02:00", "timeZone": "Europe/Berlin"}]);
    s.patch_upgrade("mesh", json!({"spec": {"windows": later}})).await?;
    let status = s
        .wait_status("mesh", "no open batch outside of the window", |status| {
            status.run.as_ref().is_some_and(|run| run.batch.is_none() && run.wave == 1)
                && status.condition("Reconciling").is_some_and(|it| it.reason == "OutsideWindow")
        })
        .await?;
    ensure!(status.message.contains("nothing new is started before 20"), "{}", status.message);
    untouched(s, 3, &[deployment(names[1], "waiting")]).await?;
    ensure!(s.generation(&deployment(names[1], "waiting")).await? == 1, "a batch was opened");
    let always = json!([{"startTime": "00:00", "endTime": "00:00", "timeZone": "UTC"}]);
    s.patch_upgrade("mesh", json!({"spec": {"windows": always}})).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    s.all_on(TARGET, &names).await?;
    s.judge(&[]).await
}

#[test]
fn outside_of_its_windows_a_run_starts_nothing_new() {
    scenario("window_closes", async |s: &mut Scenario| window_closes(s).await);
}

async fn two_at_once(s: &mut Scenario) -> Result<()> {
    let names = ["tw-first", "tw-second"];
    let mesh = up_to_the_middle(s, names).await?;
    s.upgrade("other", spec(&names)).await?;
    let status = s.wait_blocked("other", "OtherUpgradeActive").await?;
    ensure!(
        status.phase == "Preflight" && status.message.contains("mesh"),
        "{}: {}",
        status.phase,
        status.message
    );
    s.wait_phase("mesh", "Succeeded").await?;
    // It finds everything where it should be.
    s.wait_phase("other", "Succeeded").await?;
    for app in &mesh.apps {
        ensure!(s.generation(&app.workload()).await? == 2, "{} was restarted twice", app.workload());
    }
    s.judge(&["write-budget"]).await
}

#[test]
fn of_two_upgrades_the_second_waits() {
    scenario("two_at_once", async |s: &mut Scenario| two_at_once(s).await);
}

async fn the_older_goes_first(s: &mut Scenario) -> Result<()> {
    let names = ["og-first", "og-second"];
    let mesh = begin(s, names).await?;
    let mut older = spec(&names);
    older["targetRevision"] = json!("not-there");
    s.upgrade("older", older).await?;
    // Creation times are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    s.upgrade("younger", spec(&names)).await?;
    s.start_operator()?;
    s.wait_blocked("older", "RevisionNotFound").await?;
    let status = s.wait_blocked("younger", "OtherUpgradeActive").await?;
    ensure!(status.message.contains("older"), "{}", status.message);
    untouched(s, 2, &[deployment(names[0], "web")]).await?;
    ensure!(s.revision_label(names[0]).await? == SOURCE);
    // One that only shows its plan keeps nobody waiting.
    s.patch_upgrade("older", json!({"spec": {"planOnly": true}})).await?;
    s.wait_phase("younger", "Succeeded").await?;
    s.wait_mesh(&mesh, TARGET).await?;
    s.judge(&["write-budget"]).await
}

#[test]
fn of_two_upgrades_that_did_not_begin_the_older_goes_first() {
    scenario("older_first", async |s: &mut Scenario| the_older_goes_first(s).await);
}

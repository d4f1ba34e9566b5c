//! The kubectl plugin as a person types it, against the real API server and the real operator.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use kube::api::PostParams;
use meshupgrade_api::MeshUpgradeStatus;
use meshupgrade_e2e::{SOURCE, Scenario, TARGET, Workload, operator, scenario};
use serde_json::json;
use tokio::process::Command;

use crate::{begin, deployment, spec, untouched, wait_patched};

/// What a call of the plugin came to.
struct Outcome {
    code: i32,
    out: String,
    err: String,
}

/// Runs the plugin as whom this kubeconfig names.
async fn run_as(kubeconfig: &Path, arguments: &[&str]) -> Result<Outcome> {
    let output = Command::new(operator::plugin()?)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run the plugin")?;
    Ok(Outcome {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

async fn run(s: &Scenario, arguments: &[&str]) -> Result<Outcome> {
    run_as(s.cluster().kubeconfig(), arguments).await
}

/// Runs a verb that must succeed, and waits until the operator has done it.
async fn say(s: &Scenario, arguments: &[&str]) -> Result<String> {
    let mut all = arguments.to_vec();
    all.extend(["--wait", "--timeout=30s"]);
    let Outcome { code, out, err } = run(s, &all).await?;
    ensure!(
        code == 0 && out.contains("is set\n") && out.contains("It does so."),
        "{all:?}: {code} {out}{err}"
    );
    Ok(out)
}

/// Runs a verb that must be refused in these words.
async fn refused(s: &Scenario, arguments: &[&str], words: &str) -> Result<()> {
    let Outcome { code, out, err } = run(s, arguments).await?;
    ensure!(code == 3 && out.is_empty() && err.contains(words), "{arguments:?}: {code} {out}{err}");
    Ok(())
}

async fn annotations(s: &Scenario) -> Result<Option<std::collections::BTreeMap<String, String>>> {
    Ok(s.upgrades().get("mesh").await?.metadata.annotations)
}

async fn asked(s: &Scenario, wave: &str) -> Result<MeshUpgradeStatus> {
    s.wait_status("mesh", &format!("approval of {wave}"), |status| {
        let paused = status.condition("Paused").is_some_and(|paused| paused.reason == "ApprovalRequired");
        paused && status.message.contains(&format!("{wave:?}"))
    })
    .await
}

async fn first_wave(s: &Scenario, name: &str) -> Result<()> {
    let status = asked(s, name).await?;
    let summary = run(s, &["status", "mesh"]).await?;
    let offer = status.actions.iter().find(|offer| offer.action == "approve").context("no approve")?;
    let command =
        format!("kubectl annotate meshupgrade mesh meshupgrade.io/action={} --overwrite", offer.value);
    ensure!(summary.code == 0, "{}", summary.err);
    for words in ["waits for people (ApprovalRequired)", "Planned, wave 0/2", &command] {
        ensure!(summary.out.contains(words), "{words:?} is not in {}", summary.out);
    }
    refused(s, &["retry", "mesh"], "nothing is blocked that a retry could mend").await?;
    refused(s, &["resume", "mesh"], "it was not paused").await?;
    let dry = run(s, &["approve", "mesh", "--dry-run"]).await?;
    ensure!((dry.code, dry.out.trim_end()) == (0, command.as_str()), "{}{}", dry.out, dry.err);
    ensure!(annotations(s).await?.is_none(), "--dry-run wrote");
    say(s, &["approve", "mesh"]).await?;
    refused(s, &["approve", "mesh"], "nothing waits for approval").await
}

/// Somebody puts the pod template back in the middle of the restart.
async fn strip(s: &Scenario, workload: &Workload) -> Result<()> {
    let api = s.workloads(workload)?;
    let mut object = api.get(&workload.name).await?;
    object.metadata.managed_fields = None;
    object.metadata.resource_version = None;
    let annotations = object.data["spec"]["template"]["metadata"]["annotations"].as_object_mut();
    annotations.context("no annotations")?.remove("meshupgrade.io/restart").context("not restarted")?;
    api.replace(&workload.name, &PostParams::default(), &object).await?;
    s.wait_condition("mesh", "Stalled", "True", "RestartReverted").await.map(drop)
}

async fn verbs(s: &mut Scenario) -> Result<()> {
    let names = ["pl-first", "pl-second"];
    let mesh = begin(s, names).await?;
    s.start_operator()?;
    let mut spec = spec(&names);
    for wave in spec["waves"].as_array_mut().context("no waves")? {
        wave["approval"] = json!("Required");
    }
    s.upgrade("mesh", spec).await?;
    first_wave(s, names[0]).await?;

    asked(s, names[1]).await?;
    say(s, &["pause", "mesh"]).await?;
    refused(s, &["pause", "mesh"], "it is paused already").await?;
    say(s, &["approve", "mesh"]).await?;
    untouched(s, 2, &[deployment(names[1], "slow")]).await?;
    ensure!(s.revision_label(names[1]).await? == SOURCE, "relabelled while it was paused");
    say(s, &["resume", "mesh"]).await?;

    let slow = deployment(names[1], "slow");
    wait_patched(s, &slow, 2).await?;
    strip(s, &slow).await?;
    let other = format!("Deployment/{}/waiting", names[1]);
    refused(s, &["retry", "mesh", &other], "is not among what is blocked: Deployment/pl-second/slow").await?;
    s.case.retries = 1;
    say(s, &["retry", "mesh", &format!("Deployment/{}/slow", names[1])]).await?;
    wait_patched(s, &slow, 4).await?;
    strip(s, &slow).await?;
    s.case.retries = 2;
    say(s, &["retry", "mesh"]).await?;
    wait_patched(s, &slow, 6).await?;

    say(s, &["rollback", "mesh"]).await?;
    refused(s, &["rollback", "mesh"], "it goes back already").await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.wait_mesh(&mesh, SOURCE).await?;
    refused(s, &["pause", "mesh"], "the run is over").await?;
    s.judge(&[]).await
}

#[test]
fn every_verb_is_heard_and_answered() {
    scenario("plugin_verbs", async |s: &mut Scenario| verbs(s).await);
}

async fn errors(s: &mut Scenario) -> Result<()> {
    let failed = |outcome: Outcome, words: &str| {
        let Outcome { code, out, err } = outcome;
        ensure!(code == 1 && out.is_empty() && err.contains(words), "{words:?}: {code} {out}{err}");
        Ok(())
    };
    failed(run(s, &["approve", "nobody"]).await?, "meshupgrade/nobody does not exist")?;
    failed(run(s, &["status", "mesh", "--context=nowhere"]).await?, "nowhere")?;
    let stranger = s.cluster().service_account_kubeconfig("default", "default", 600).await?;
    let refused = run_as(&stranger, &["status", "mesh"]).await?;
    failed(refused, "the verb \"get\" on meshupgrades of meshupgrade.io")?;

    // Nobody has looked at it, and nobody answers.
    let mut spec = spec(&["pl-nobody"]);
    spec["targetRevision"] = json!(TARGET);
    s.upgrade("mesh", spec).await?;
    let unseen = run(s, &["status", "mesh"]).await?;
    ensure!(unseen.code == 0 && unseen.out.contains("has not looked at it yet"), "{}", unseen.out);
    self::refused(s, &["approve", "mesh"], "has not looked at it yet").await
}

#[test]
fn errors_of_the_cluster_are_explained() {
    scenario("plugin_errors", async |s: &mut Scenario| errors(s).await);
}

/// The operator is away: the annotation stays, and the plugin says that nobody answers.
async fn unheard(s: &mut Scenario) -> Result<()> {
    let names = ["pu-first", "pu-second"];
    begin(s, names).await?;
    s.start_operator()?;
    s.upgrade("mesh", spec(&names)).await?;
    wait_patched(s, &deployment(names[1], "slow"), 2).await?;
    s.stop_operators()?;
    let outcome = run(s, &["pause", "mesh", "--wait", "--timeout=2s"]).await?;
    ensure!(outcome.code == 4 && outcome.err.contains("within 2 s"), "{} {}", outcome.code, outcome.err);
    let outcome = run(s, &["rollback", "mesh"]).await?;
    ensure!(outcome.code == 0 && outcome.err.contains("takes the place of pause/"), "{}", outcome.err);
    s.start_operator()?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.judge(&[]).await
}

#[test]
fn what_is_said_while_the_operator_is_away_waits_for_it() {
    scenario("plugin_unheard", async |s: &mut Scenario| unheard(s).await);
}

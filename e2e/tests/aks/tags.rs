//! Revision tags of the AKS add-on, whose webhooks have the namespace of its istiods in their names.

use anyhow::{Result, ensure};
use meshupgrade_e2e::azure::Azure;
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, tags};
use serde_json::json;

use super::{End, RUN, aks, begin_with};

const CANARY: &str = "e2e-canary";
const STABLE: &str = "e2e-stable";

/// One namespace follows the tag `e2e-canary`, which the first wave moves; the other has a label. Nobody follows `e2e-stable`.
async fn mixed(s: &mut Scenario, azure: &Azure, names: [&str; 2]) -> Result<Mesh> {
    for tag in [CANARY, STABLE] {
        tags::set(s, tag, SOURCE).await?;
    }
    s.case.tags.insert(CANARY.to_owned());
    let [first, second] = names;
    let mesh = Mesh::new()
        .namespace(first, &[("istio.io/rev", CANARY)])
        .on(SOURCE, second)
        .app(App::deployment(first, "web").replicas(2))
        .app(App::deployment(second, "slow").replicas(2).set("ready-after", "1500ms"));
    let waves = json!([{"name": "canary", "tag": CANARY}, {"name": "rest"}]);
    begin_with(s, azure, mesh, names, json!({"waves": waves})).await
}

/// A tag that nobody moved keeps the source in use, also without any namespace on it.
async fn completed(s: &mut Scenario) -> Result<()> {
    let names = ["at-first", "at-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let mesh = mixed(s, &azure, names).await?;
    let status = s.wait_blocked("mesh", "RevisionInUse").await?;
    let command = format!("istioctl tag set {STABLE} --revision {TARGET} --istioNamespace aks-istio-system");
    ensure!(status.message.contains(&command), "{}", status.message);
    azure.has(&[SOURCE, TARGET])?;
    tags::leads_to(s, CANARY, TARGET).await?;
    ensure!(s.revision_label(names[0]).await? == CANARY, "the label of its namespace changed");
    tags::set(s, STABLE, TARGET).await?;
    End::completed(2).reached(s, &azure, &mesh, &names).await?;
    s.judge(&[]).await?;
    tags::remove(s, &[CANARY, STABLE]).await
}

#[test]
fn a_tag_moves_with_its_wave_and_one_on_the_source_keeps_it() {
    aks("aks_tags", async |s: &mut Scenario| completed(s).await);
}

async fn rolled_back(s: &mut Scenario) -> Result<()> {
    let names = ["au-first", "au-second"];
    let azure = Azure::start(s, &[SOURCE]).await?;
    let mesh = mixed(s, &azure, names).await?;
    s.wait_status_within(RUN, "mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    tags::leads_to(s, CANARY, TARGET).await?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    End::rolled_back(2).reached(s, &azure, &mesh, &names).await?;
    tags::leads_to(s, CANARY, SOURCE).await?;
    ensure!(!tags::remembers(s, CANARY).await?, "{CANARY} remembers the run");
    s.judge(&[]).await?;
    tags::remove(s, &[CANARY, STABLE]).await
}

#[test]
fn a_rollback_points_the_tag_back_before_its_target_is_removed() {
    aks("aks_tags_back", async |s: &mut Scenario| rolled_back(s).await);
}

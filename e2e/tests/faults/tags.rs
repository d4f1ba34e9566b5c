//! Revision tags, and labels that are somebody else's to set.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario};
use serde_json::{Value, json};

const CANARY: &str = "e2e-canary";
const STABLE: &str = "e2e-stable";

fn name_of(tag: &str) -> String {
    format!("istio-revision-tag-{tag}")
}

fn webhooks(s: &Scenario) -> Api<MutatingWebhookConfiguration> {
    Api::all(s.client())
}

/// Where all entries of a webhook configuration point, as JSON.
fn clients(webhook: &MutatingWebhookConfiguration) -> Result<Vec<Value>> {
    let entries = webhook.webhooks.iter().flatten();
    entries.map(|entry| serde_json::to_value(&entry.client_config).context("no JSON")).collect()
}

/// A revision tag as `istioctl tag set` makes one: the two entries of the revision's own injector, with the tag in the selectors.
/// Source: istioctl/pkg/tag/generate.go and templates/revision-tags-mwc.yaml of Istio.
async fn set_tag(s: &Scenario, tag: &str, revision: &str) -> Result<()> {
    let own = webhooks(s).get(&format!("istio-sidecar-injector-{revision}")).await?;
    let mut entries = serde_json::to_value(own.webhooks.iter().flatten().collect::<Vec<_>>())?;
    let text = entries
        .to_string()
        .replace(&format!("\"values\":[\"{revision}\"]"), &format!("\"values\":[\"{tag}\"]"));
    ensure!(text.contains(tag), "the selectors of {revision} name no revision");
    entries = serde_json::from_str(&text)?;
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name_of(tag),
            "labels": {"istio.io/rev": revision, "istio.io/tag": tag, "app": "sidecar-injector"}},
        "webhooks": entries,
    });
    s.cluster().apply_yaml(&webhook.to_string()).await
}

/// The tag leads where the injector of a revision does, in all its entries, and its selectors are what they were.
async fn leads_to(s: &Scenario, tag: &str, revision: &str) -> Result<()> {
    let own = webhooks(s).get(&format!("istio-sidecar-injector-{revision}")).await?;
    let found = webhooks(s).get(&name_of(tag)).await?;
    let wanted = clients(&own)?;
    let wanted = wanted.first().context("the injector has no entries")?;
    let clients = clients(&found)?;
    ensure!(
        clients.len() == 2 && clients.iter().all(|client| client == wanted),
        "{tag} leads to {clients:?}"
    );
    ensure!(found.labels().get("istio.io/rev").is_some_and(|it| it == revision), "{:?}", found.labels());
    let text = serde_json::to_string(&found)?;
    ensure!(text.contains(&format!("\"values\":[\"{tag}\"]")), "the selectors of {tag} changed");
    Ok(())
}

async fn remove(s: &Scenario, tags: &[&str]) -> Result<()> {
    for tag in tags {
        webhooks(s).delete(&name_of(tag), &kube::api::DeleteParams::default()).await?;
    }
    Ok(())
}

/// A wave for each of two tags, and one for a namespace with a label of its own.
async fn mixed(s: &mut Scenario, prefix: &str, spec: Value) -> Result<(Mesh, [String; 3])> {
    let names = ["try", "shop", "own"].map(|name| format!("{prefix}-{name}"));
    let [try_out, shop, own] = names.each_ref().map(String::as_str);
    for tag in [CANARY, STABLE] {
        set_tag(s, tag, SOURCE).await?;
        s.case.tags.insert(name_of(tag));
    }
    let mesh = Mesh::new()
        .namespace(try_out, &[("istio.io/rev", CANARY)])
        .namespace(shop, &[("istio.io/rev", STABLE)])
        .on(SOURCE, own)
        .app(App::deployment(try_out, "web").replicas(2).min_available(1))
        .app(App::stateful_set(shop, "db").replicas(2))
        .app(App::deployment(shop, "slow").replicas(2).set("ready-after", "1500ms"))
        .deployments(own, &["api"]);
    s.mesh(mesh.clone()).await?;
    for name in &names {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    let waves =
        json!([{"name": "canary", "tag": CANARY}, {"name": "stable", "tag": STABLE}, {"name": "rest"}]);
    let mut whole = json!({"targetRevision": TARGET, "waves": waves, "completion": {"mode": "Keep"}});
    if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
        whole.extend(spec);
    }
    s.upgrade("mesh", whole).await?;
    Ok((mesh, names))
}

async fn moved(s: &mut Scenario) -> Result<()> {
    let (_, names) = mixed(s, "tg", json!({})).await?;
    s.wait_phase("mesh", "Succeeded").await?;
    let [try_out, shop, own] = names.each_ref().map(String::as_str);
    s.all_on(TARGET, &[try_out, shop, own]).await?;
    for (namespace, label) in [(try_out, CANARY), (shop, STABLE), (own, TARGET)] {
        ensure!(s.revision_label(namespace).await? == label, "the label of {namespace} changed");
    }
    for tag in [CANARY, STABLE] {
        leads_to(s, tag, TARGET).await?;
    }
    s.wait_event("RevisionTagMoved").await?;
    s.judge(&[]).await?;
    remove(s, &[CANARY, STABLE]).await
}

#[test]
fn tags_and_labels_move_in_one_run() {
    scenario("tags", async |s: &mut Scenario| moved(s).await);
}

async fn back(s: &mut Scenario) -> Result<()> {
    let (mesh, names) = mixed(s, "tb", json!({})).await?;
    s.wait_status("mesh", "the second wave", |status| {
        status.run.as_ref().is_some_and(|run| run.wave == 1 && run.batch.is_some())
    })
    .await?;
    leads_to(s, STABLE, TARGET).await?;
    // The operator dies in the middle; what it did is in the tags and in the status.
    s.kill_operators()?;
    s.start_operator()?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.wait_mesh(&mesh, SOURCE).await?;
    s.all_on(SOURCE, &names.each_ref().map(String::as_str)).await?;
    for tag in [CANARY, STABLE] {
        leads_to(s, tag, SOURCE).await?;
        let left = webhooks(s).get(&name_of(tag)).await?;
        ensure!(
            !left.annotations().contains_key("meshupgrade.io/previous-labels"),
            "{:?}",
            left.annotations()
        );
    }
    s.judge(&[]).await?;
    remove(s, &[CANARY, STABLE]).await
}

#[test]
fn a_rollback_points_the_tags_back() {
    scenario("tags_back", async |s: &mut Scenario| back(s).await);
}

async fn observed(s: &mut Scenario) -> Result<()> {
    let mesh = Mesh::new().on(SOURCE, "ob-first").on(SOURCE, "ob-second");
    let mesh = mesh.deployments("ob-first", &["web"]).deployments("ob-second", &["api"]);
    s.mesh(mesh.clone()).await?;
    for name in ["ob-first", "ob-second"] {
        s.wave(&[name], 1);
    }
    s.start_operator()?;
    let spec = json!({"targetRevision": TARGET, "injection": {"mode": "Observe", "settleSeconds": 1},
        "waves": crate::waves(&["ob-first", "ob-second"]), "completion": {"mode": "Keep"}});
    s.upgrade("mesh", spec).await?;
    for name in ["ob-first", "ob-second"] {
        let status = s.wait_blocked("mesh", "LabelNotMoved").await?;
        ensure!(status.message.contains(name) && status.message.contains("in Git"), "{}", status.message);
        s.all_on(SOURCE, &[name]).await?;
        let label = format!("istio.io/rev={TARGET}");
        s.cluster().kubectl(&["label", "namespace", name, &label, "--overwrite"]).await?;
        s.wait_mesh(
            &Mesh::new().deployments(name, &[if name == "ob-first" { "web" } else { "api" }]),
            TARGET,
        )
        .await?;
    }
    s.wait_phase("mesh", "Succeeded").await?;
    let labels = s.log().await?;
    let own = labels.by(&s.case.operator).filter(|call| call.is_write());
    let written: Vec<String> =
        own.filter(|call| call.object.resource == "namespaces").map(ToString::to_string).collect();
    ensure!(written.is_empty(), "labels are Git's: {written:?}");
    s.judge(&[]).await
}

#[test]
fn labels_in_git_are_waited_for_wave_by_wave() {
    scenario("observe", async |s: &mut Scenario| observed(s).await);
}

/// What the chart's rights and policies keep the operator from doing to a tag that it may move, and to one that it may not.
async fn bounded(s: &mut Scenario) -> Result<()> {
    set_tag(s, CANARY, SOURCE).await?;
    set_tag(s, "e2e-foreign", SOURCE).await?;
    let operator: Api<MutatingWebhookConfiguration> = Api::all(s.operator_client().await?);
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let entry = "rev.namespace.sidecar-injector.istio.io";
    let tries = [
        (CANARY, json!({"metadata": {"labels": {"istio.io/rev": TARGET}}}), None),
        (
            CANARY,
            json!({"metadata": {"labels": {"istio.io/tag": "other"}}}),
            Some("may only change the label istio.io/rev"),
        ),
        (CANARY, json!({"metadata": {"annotations": {"a": "b"}}}), Some("annotations of a revision tag")),
        (
            CANARY,
            json!({"webhooks": [{"name": entry, "failurePolicy": "Ignore"}]}),
            Some("where the webhooks"),
        ),
        (CANARY, json!({"webhooks": [{"name": entry, "objectSelector": null}]}), Some("where the webhooks")),
        (
            "e2e-foreign",
            json!({"metadata": {"labels": {"istio.io/rev": TARGET}}}),
            Some("cannot patch resource"),
        ),
    ];
    let mut wrong = Vec::new();
    for (tag, patch, says) in tries {
        let said = match operator.patch(&name_of(tag), &dry, &Patch::Strategic(&patch)).await {
            Ok(_) => None,
            Err(kube::Error::Api(status)) => Some(status.message.clone()),
            Err(error) => return Err(error.into()),
        };
        let good = match (&said, says) {
            (None, None) => true,
            (Some(said), Some(says)) => said.contains(says),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !good {
            wrong.push(format!("{tag} {patch}: {said:?}, expected {says:?}"));
        }
    }
    remove(s, &[CANARY, "e2e-foreign"]).await?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn the_rights_to_tags_are_bounded() {
    scenario("tags_bounded", async |s: &mut Scenario| bounded(s).await);
}

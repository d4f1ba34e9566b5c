//! Revision tags, and labels that are somebody else's to set.

use anyhow::{Result, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meshupgrade_e2e::{App, Mesh, SOURCE, Scenario, TARGET, scenario, tags};
use serde_json::{Value, json};

const CANARY: &str = "e2e-canary";
const STABLE: &str = "e2e-stable";

/// A wave for each of two tags, and one for a namespace with a label of its own.
async fn mixed(s: &mut Scenario, prefix: &str, spec: Value) -> Result<(Mesh, [String; 3])> {
    let names = ["try", "shop", "own"].map(|name| format!("{prefix}-{name}"));
    let [try_out, shop, own] = names.each_ref().map(String::as_str);
    for tag in [CANARY, STABLE] {
        tags::set(s, tag, SOURCE).await?;
        s.case.tags.insert(tag.to_owned());
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

/// Whoever asks the Service reaches the istiod that new pods are injected by, or the one before, and never the one after.
async fn webhook_before_service(s: &Scenario, tag: &str) -> Result<()> {
    let log = s.log().await?;
    let moved = |name: &str| {
        let mut own = log.by(&s.case.operator).filter(|call| call.is_write() && call.object.name == name);
        own.next().map(|call| call.order)
    };
    let (webhook, service) = (moved(&tags::webhook_of(s, tag)), moved(&tags::service_of(tag)));
    ensure!(webhook.is_some() && webhook < service, "{tag}: webhook {webhook:?}, Service {service:?}");
    Ok(())
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
        tags::leads_to(s, tag, TARGET).await?;
        webhook_before_service(s, tag).await?;
    }
    s.wait_event("RevisionTagMoved").await?;
    s.wait_event("TagServiceMoved").await?;
    s.judge(&[]).await?;
    tags::remove(s, &[CANARY, STABLE]).await
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
    tags::leads_to(s, STABLE, TARGET).await?;
    // The operator dies in the middle; what it did is in the tags and in the status.
    s.kill_operators()?;
    s.start_operator()?;
    s.patch_upgrade("mesh", json!({"spec": {"rollback": {"requested": true}}})).await?;
    s.wait_phase("mesh", "RolledBack").await?;
    s.wait_mesh(&mesh, SOURCE).await?;
    s.all_on(SOURCE, &names.each_ref().map(String::as_str)).await?;
    for tag in [CANARY, STABLE] {
        tags::leads_to(s, tag, SOURCE).await?;
        ensure!(!tags::remembers(s, tag).await?, "{tag} remembers the run");
    }
    s.judge(&[]).await?;
    tags::remove(s, &[CANARY, STABLE]).await
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

/// What the operator tries on an object, and what it is told; `None` where it may.
type Try<'a> = (&'a str, Patch<Value>, Option<&'a str>);

/// Those tries that end otherwise.
async fn wrong<K>(operator: &Api<K>, tries: Vec<Try<'_>>) -> Result<Vec<String>>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let mut wrong = Vec::new();
    for (name, patch, says) in tries {
        let said = match operator.patch(name, &dry, &patch).await {
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
            wrong.push(format!("{name} {patch:?}: {said:?}, expected {says:?}"));
        }
    }
    Ok(wrong)
}

/// What the chart's rights and policies keep the operator from doing to a tag that it may move, and to one that it may not.
async fn bounded(s: &mut Scenario) -> Result<()> {
    tags::set(s, CANARY, SOURCE).await?;
    tags::set(s, "e2e-foreign", SOURCE).await?;
    let (canary, foreign) = (tags::webhook_of(s, CANARY), tags::webhook_of(s, "e2e-foreign"));
    let move_it = json!({"metadata": {"labels": {"istio.io/rev": TARGET}}});
    let other_tag = json!({"metadata": {"labels": {"istio.io/tag": "other"}}});
    let annotation = json!({"metadata": {"annotations": {"a": "b"}}});
    let entry = |field: &str, value: Value| {
        Patch::Strategic(
            json!({"webhooks": [{"name": "rev.namespace.sidecar-injector.istio.io", field: value}]}),
        )
    };
    let tries = vec![
        (canary.as_str(), Patch::Strategic(move_it.clone()), None),
        (&canary, Patch::Strategic(other_tag.clone()), Some("may only change the label istio.io/rev")),
        (&canary, Patch::Strategic(annotation.clone()), Some("annotations of a revision tag")),
        (&canary, entry("failurePolicy", json!("Ignore")), Some("where the webhooks")),
        (&canary, entry("objectSelector", Value::Null), Some("where the webhooks")),
        (&foreign, Patch::Strategic(move_it.clone()), Some("cannot patch resource")),
    ];
    let client = s.operator_client().await?;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut found = wrong(&webhooks, tries).await?;
    let services: Api<Service> = Api::namespaced(client, s.cluster().istio_namespace());
    let (canary, foreign) = (tags::service_of(CANARY), tags::service_of("e2e-foreign"));
    let own = format!("istiod-{SOURCE}");
    let leads = |value: Value| Patch::Merge(json!({"spec": {"selector": value}}));
    let tries = vec![
        (canary.as_str(), leads(json!({"istio.io/rev": TARGET})), None),
        (&canary, Patch::Merge(move_it.clone()), None),
        (&canary, Patch::Merge(other_tag), Some("may only change the label istio.io/rev")),
        (&canary, Patch::Merge(annotation), Some("annotations of the Service")),
        (&canary, leads(json!({"app": "mine"})), Some("which istiod the Service")),
        (&canary, leads(Value::Null), Some("which istiod the Service")),
        (
            &canary,
            Patch::Merge(json!({"spec": {"externalIPs": ["192.0.2.1"]}})),
            Some("which istiod the Service"),
        ),
        (&foreign, Patch::Merge(move_it.clone()), Some("cannot patch resource")),
        (&own, Patch::Merge(move_it), Some("cannot patch resource")),
    ];
    found.extend(wrong(&services, tries).await?);
    tags::remove(s, &[CANARY, "e2e-foreign"]).await?;
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn the_rights_to_tags_are_bounded() {
    scenario("tags_bounded", async |s: &mut Scenario| bounded(s).await);
}

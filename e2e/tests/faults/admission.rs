//! What the API server itself refuses: manifests, and writes of the operator that the chart's policies forbid.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use meshupgrade_e2e::mesh::MARK;
use meshupgrade_e2e::{Scenario, scenario};
use serde::Deserialize;
use serde_json::{Value, json};

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/api/tests/fixtures").join(kind)
}

fn comment<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|line| line.starts_with('#'))
        .find_map(|line| line.strip_prefix(&format!("# {key}: ")))
}

fn manifest(path: &Path) -> Result<(String, Value)> {
    let text = fs::read_to_string(path)?;
    let value = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    Ok((text, value))
}

/// What the API server says against a manifest; nothing when it takes it.
async fn verdict(s: &Scenario, api: &Api<DynamicObject>, path: &Path) -> Result<Option<String>> {
    let (text, value) = manifest(path)?;
    let Some(base) = comment(&text, "update") else {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let said = answer(api.create(&dry, &serde_json::from_value(value)?).await.map(drop))?;
        if said.is_some() || comment(&text, "field").is_none() {
            return Ok(said);
        }
        // Servers prune unknown fields; clients refuse them.
        let strict = ["apply", "--validate=strict", "--dry-run=server", "-f", "-"];
        return Ok(s.cluster().kubectl_stdin(&strict, &text).await.err().map(|error| format!("{error:#}")));
    };
    let (_, base) = manifest(&directory("valid").join(base))?;
    let name = base["metadata"]["name"].as_str().context("no name")?.to_owned();
    api.create(&PostParams::default(), &serde_json::from_value(base.clone())?).await?;
    let status = json!({"status": base["status"]});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .context("the status of the base")?;
    let mut next: DynamicObject = serde_json::from_value(value)?;
    next.metadata.resource_version = api.get(&name).await?.metadata.resource_version;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let said = answer(api.replace(&name, &dry, &next).await.map(drop));
    api.delete(&name, &DeleteParams::default()).await?;
    said
}

fn answer(result: kube::Result<()>) -> Result<Option<String>> {
    match result {
        Ok(()) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
        Err(error) => bail!("no answer: {error}"),
    }
}

async fn judged(s: &Scenario, kind: &str) -> Result<Vec<(PathBuf, Option<String>)>> {
    let gvk = GroupVersionKind::gvk("meshupgrade.io", "v1alpha1", "MeshUpgrade");
    let api = Api::all_with(s.client(), &ApiResource::from_gvk(&gvk));
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory(kind))?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    ensure!(paths.len() > 20, "only {} fixtures", paths.len());
    let mut found = Vec::new();
    for path in paths {
        let said = verdict(s, &api, &path).await.with_context(|| path.display().to_string())?;
        found.push((path, said));
    }
    Ok(found)
}

async fn invalid(s: &mut Scenario) -> Result<()> {
    let mut wrong = Vec::new();
    for (path, said) in judged(s, "invalid").await? {
        let text = fs::read_to_string(&path)?;
        let field = comment(&text, "field").context("the fixture names no field")?;
        let name = path.file_name().unwrap_or_default().display().to_string();
        match said {
            None => wrong.push(format!("{name}: accepted, though {field} is wrong")),
            Some(said) if !said.contains(field) => {
                wrong.push(format!("{name}: {field} is not named: {said}"))
            }
            Some(_) => {}
        }
    }
    ensure!(wrong.is_empty(), "{} fixtures:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn invalid_manifests_are_refused_with_the_field() {
    scenario("invalid_manifests", async |s: &mut Scenario| invalid(s).await);
}

async fn valid(s: &mut Scenario) -> Result<()> {
    let refused: Vec<String> = judged(s, "valid")
        .await?
        .into_iter()
        .filter_map(|(path, said)| said.map(|said| format!("{}: {said}", path.display())))
        .collect();
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

#[test]
fn valid_manifests_are_taken() {
    scenario("valid_manifests", async |s: &mut Scenario| valid(s).await);
}

/// `admission.yaml`: what is there before, and patches in the operator's name.
#[derive(Deserialize)]
struct Admission {
    objects: Vec<Value>,
    namespace: Vec<Case>,
    workload: Vec<Case>,
}

/// One patch. A refused one has `says`.
#[derive(Deserialize)]
struct Case {
    name: String,
    merge: Option<Value>,
    apply: Option<Value>,
    says: Option<String>,
}

/// The object of a manifest, for one client.
fn api_of(client: Client, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let (group, version) = match object["apiVersion"].as_str().and_then(|text| text.split_once('/')) {
        Some((group, version)) => (group, version),
        None => ("", "v1"),
    };
    let gvk = GroupVersionKind::gvk(group, version, &text(&object["kind"])?);
    let resource = ApiResource::from_gvk(&gvk);
    let api = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    Ok((api, text(&object["metadata"]["name"])?))
}

/// Sends one patch and says what is wrong with the verdict.
async fn tried(client: Client, object: &Value, case: &Case) -> Result<Option<String>> {
    let (api, name) = api_of(client, object)?;
    let manager =
        PatchParams { field_manager: Some("meshupgrade-operator".into()), ..PatchParams::default() };
    let sent = match (&case.merge, &case.apply) {
        (Some(patch), None) => api.patch(&name, &manager, &Patch::Merge(patch)).await,
        (None, Some(patch)) => {
            let mut patch = patch.clone();
            patch["apiVersion"] = object["apiVersion"].clone();
            patch["kind"] = object["kind"].clone();
            api.patch(&name, &manager, &Patch::Apply(&patch)).await
        }
        _ => bail!("{}: either merge or apply", case.name),
    };
    let wrong = match (answer(sent.map(drop))?, &case.says) {
        (None, None) => None,
        (Some(said), Some(says)) if said.contains(says) => None,
        (None, Some(_)) => Some("accepted".to_owned()),
        (Some(said), _) => Some(format!("refused: {said}")),
    };
    Ok(wrong.map(|wrong| format!("{} {name}, {}: {wrong}", object["kind"], case.name)))
}

async fn policies(s: &mut Scenario) -> Result<()> {
    let (_, value) = manifest(&directory("admission.yaml"))?;
    let mut admission: Admission = serde_json::from_value(value)?;
    for object in admission.objects.iter_mut().filter(|object| object["kind"] == "Namespace") {
        object["metadata"]["labels"][MARK] = json!("");
    }
    let objects: Vec<String> = admission.objects.iter().map(Value::to_string).collect();
    s.cluster().apply_yaml(&objects.join("\n---\n")).await?;
    let operator = s.operator_client().await?;
    let mut wrong = Vec::new();
    let mut count = 0;
    for object in &admission.objects {
        let cases = if object["kind"] == "Namespace" { &admission.namespace } else { &admission.workload };
        for case in cases {
            wrong.extend(tried(operator.clone(), object, case).await?);
            count += 1;
        }
    }
    ensure!(count > 50, "only {count} patches");
    ensure!(wrong.is_empty(), "{} of {count} patches:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn the_operator_may_change_only_its_own_fields() {
    scenario("policies", async |s: &mut Scenario| policies(s).await);
}

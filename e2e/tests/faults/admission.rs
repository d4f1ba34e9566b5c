//! Manifests that the API server itself refuses.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use meshupgrade_e2e::{Scenario, scenario};
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

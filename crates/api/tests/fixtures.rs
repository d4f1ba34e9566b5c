//! The manifests of `tests/fixtures`: the local rules and the CEL rules of the CRD give the verdict that each file
//! announces. The first comment names the field that is wrong; `# update:` names the manifest that is there before.
//!
//! The end-to-end suite sends the same files to a real API server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use meshupgrade_api::crd::document;
use meshupgrade_api::rules::TIME_ZONE;
use meshupgrade_api::{FieldError, MeshUpgrade, MeshUpgradeStatus, structure};
use serde_json::Value;

static RULES: LazyLock<CompiledSchema> =
    LazyLock::new(|| compile_schema(&document()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]));

struct Fixture {
    name: String,
    field: Option<String>,
    update: Option<String>,
    manifest: Value,
}

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind)
}

fn read(path: &Path) -> Fixture {
    let text = fs::read_to_string(path).unwrap();
    let comment = |key: &str| {
        text.lines()
            .take_while(|line| line.starts_with('#'))
            .find_map(|line| line.strip_prefix(&format!("# {key}: ")))
            .map(ToOwned::to_owned)
    };
    Fixture {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        field: comment("field"),
        update: comment("update"),
        manifest: {
            let mut manifest = serde_saphyr::from_str(&text).unwrap();
            structure::drop_nulls(&mut manifest);
            manifest
        },
    }
}

fn fixtures(kind: &str) -> Vec<Fixture> {
    let mut paths: Vec<_> =
        fs::read_dir(directory(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// The manifest that an update fixture changes, with the status that the operator would have written.
fn base(fixture: &Fixture) -> Option<(MeshUpgrade, Value)> {
    let base = read(&directory("valid").join(fixture.update.as_ref()?));
    let mut upgrade = structure::parse(base.manifest.clone()).unwrap();
    let status: MeshUpgradeStatus = serde_json::from_value(base.manifest["status"].clone()).unwrap();
    upgrade.status = Some(status);
    Some((upgrade, base.manifest))
}

fn findings(fixture: &Fixture) -> Vec<FieldError> {
    let upgrade = match structure::parse(fixture.manifest.clone()) {
        Ok(upgrade) => upgrade,
        Err(errors) => return errors,
    };
    match base(fixture) {
        Some((old, _)) => upgrade.validate_update(&old),
        None => upgrade.intent().err().unwrap_or_default(),
    }
}

/// Messages of the CEL rules that a manifest breaks. Like the server, which looks at rules only when the schema fits.
fn broken_rules(fixture: &Fixture) -> Vec<String> {
    if !structure::misfits(&fixture.manifest).is_empty() {
        return Vec::new();
    }
    let base = base(fixture).map(|(_, manifest)| manifest);
    let mut manifest = fixture.manifest.clone();
    // The server takes the status of the stored object, whatever an update says.
    if let Some(status) = base.as_ref().and_then(|base| base.get("status")) {
        manifest["status"] = status.clone();
    }
    match Validator::new().validate_compiled(&RULES, &manifest, base.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

#[test]
fn valid_manifests_have_no_findings() {
    for fixture in fixtures("valid") {
        assert_eq!(findings(&fixture), [], "{}", fixture.name);
        assert_eq!(broken_rules(&fixture), [""; 0], "{}", fixture.name);
    }
}

#[test]
fn invalid_manifests_have_findings_that_name_the_field() {
    for fixture in fixtures("invalid") {
        let field = fixture.field.clone().unwrap();
        let found = findings(&fixture);
        assert!(
            found.iter().any(|error| error.field == field),
            "{}: {field} is not among {found:?}",
            fixture.name
        );
    }
}

/// Each CEL rule is broken by some fixture, and every fixture that breaks one is refused locally in the same words.
#[test]
fn cel_rules_and_local_rules_agree() {
    let mut seen = BTreeSet::new();
    for fixture in fixtures("invalid") {
        let found = findings(&fixture);
        for message in broken_rules(&fixture) {
            assert!(
                found.iter().any(|error| error.message == message),
                "{}: the server says {message:?}, we say {found:?}",
                fixture.name
            );
            seen.insert(message);
        }
    }
    let mut known = rule_messages(&document());
    // The evaluator of these tests knows no time zones; the API server of the end-to-end suite does.
    assert!(known.remove(TIME_ZONE.message));
    assert_eq!(seen, known);
}

fn rule_messages(value: &Value) -> BTreeSet<String> {
    let own = value["x-kubernetes-validations"].as_array().into_iter().flatten();
    let mut messages: BTreeSet<_> =
        own.filter_map(|rule| rule["message"].as_str()).map(ToOwned::to_owned).collect();
    let inner: Vec<&Value> = match value {
        Value::Object(object) => object.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    messages.extend(inner.into_iter().flat_map(rule_messages));
    messages
}

/// A write of the status alone must never fail on a rule, or the operator could not go on.
#[test]
fn status_writes_break_no_rule() {
    let states: Vec<_> =
        fixtures("valid").into_iter().filter(|fixture| fixture.manifest.get("status").is_some()).collect();
    assert!(states.len() > 3);
    for from in &states {
        for to in &states {
            let mut after = from.manifest.clone();
            after["status"] = to.manifest["status"].clone();
            let verdict = Validator::new().validate_compiled(&RULES, &after, Some(&from.manifest));
            assert!(verdict.is_ok(), "{} to {}: {verdict:?}", from.name, to.name);
        }
    }
}

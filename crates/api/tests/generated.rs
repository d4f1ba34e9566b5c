//! The CustomResourceDefinition: what the API server and people need of it, and that the committed copies are fresh.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

use meshupgrade_api::crd::{chart_template, document, yaml};
use serde_json::Value;

fn committed(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_default()
}

#[test]
fn committed_definition_is_fresh() {
    let path = "config/crd/meshupgrades.meshupgrade.io.yaml";
    assert!(yaml().unwrap() == committed(path), "{path} is stale: make generate");
}

#[test]
fn committed_chart_template_is_fresh() {
    let path = "charts/meshupgrade-operator/templates/crd.yaml";
    assert!(chart_template().unwrap() == committed(path), "{path} is stale: make generate");
}

#[test]
fn chart_template_has_only_our_own_actions() {
    let actions = ["if .Values.crds.install", "include", "if .Values.crds.keep", "end", "end"];
    let template = chart_template().unwrap();
    let found: Vec<_> = template.split("{{- ").skip(1).collect();
    assert_eq!(found.len(), actions.len());
    for (found, wanted) in found.iter().zip(actions) {
        assert!(found.starts_with(wanted), "{found}");
    }
    assert!(!yaml().unwrap().contains("{{"));
}

fn schema() -> Value {
    document()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Every schema below a schema, with its path.
fn schemas<'a>(schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
    found.push((path.to_owned(), schema));
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        schemas(inner, &format!("{path}.{name}"), found);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(key) {
            schemas(inner, &format!("{path}{suffix}"), found);
        }
    }
}

#[test]
fn schema_is_structural() {
    let schema = schema();
    let mut all = Vec::new();
    schemas(&schema, "", &mut all);
    assert!(all.len() > 100);
    for (path, schema) in all {
        let int_or_string = schema.get("x-kubernetes-int-or-string").is_some();
        assert!(schema["type"].is_string() != int_or_string, "{path} has no type");
        for refused in
            ["$ref", "anyOf", "oneOf", "allOf", "not", "nullable", "x-kubernetes-preserve-unknown-fields"]
        {
            assert!(schema.get(refused).is_none(), "{path} has {refused}");
        }
        if let Some(format) = schema["format"].as_str() {
            assert!(["int32", "int64", "date-time"].contains(&format), "{path}: {format}");
        }
        if schema["type"] == "object" {
            assert!(
                schema.get("properties").is_some() != schema.get("additionalProperties").is_some(),
                "{path} says nothing about its fields"
            );
        }
    }
}

/// Without bounds the API server takes the worst case for the cost of the rules, and refuses the definition.
#[test]
fn everything_in_the_spec_is_bounded() {
    let schema = schema();
    let mut all = Vec::new();
    schemas(&schema["properties"]["spec"], "spec", &mut all);
    for (path, schema) in all {
        let bound = match schema["type"].as_str() {
            Some("array") => "maxItems",
            Some("string") if schema.get("enum").is_none() => "maxLength",
            Some("integer") => "maximum",
            _ => continue,
        };
        assert!(schema.get(bound).is_some(), "{path} has no {bound}");
    }
}

#[test]
fn everything_in_the_spec_is_described() {
    let schema = schema();
    let mut all = Vec::new();
    schemas(&schema["properties"]["spec"], "spec", &mut all);
    for (path, schema) in all.iter().filter(|(path, _)| !path.ends_with(['}', ']'])) {
        let text = schema["description"].as_str().unwrap_or_default();
        assert!(text.len() > 10, "{path} is not described");
        assert!(!text.contains(['`', '[']), "{path}: {text}");
    }
}

/// kstatus takes an object without observedGeneration for done.
#[test]
fn status_defaults_to_a_generation_that_never_was() {
    let status = &schema()["properties"]["status"];
    assert_eq!(status["default"], serde_json::json!({"observedGeneration": -1}));
    let mut all = Vec::new();
    schemas(status, "status", &mut all);
    for (path, schema) in all.iter().skip(1) {
        assert!(schema.get("default").is_none(), "{path} has a default");
    }
}

#[test]
fn definition_has_the_promised_names_and_columns() {
    let document = document();
    let spec = &document["spec"];
    assert_eq!(spec["scope"], "Cluster");
    assert_eq!(spec["names"]["plural"], "meshupgrades");
    assert_eq!(spec["names"]["shortNames"], serde_json::json!(["mup"]));
    assert_eq!(spec["names"]["categories"], serde_json::json!(["istio-io"]));
    assert_eq!(document["metadata"]["annotations"]["kustomize.toolkit.fluxcd.io/substitute"], "disabled");
    let columns: Vec<_> = spec["versions"][0]["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["priority"].as_i64().unwrap_or(0)))
        .collect();
    assert_eq!(
        columns,
        [
            ("From", 0),
            ("To", 0),
            ("Phase", 0),
            ("Wave", 0),
            ("Progress", 0),
            ("Ready", 0),
            ("Age", 0),
            ("Provider", 1),
            ("Blocked", 1),
            ("Message", 1)
        ]
    );
}

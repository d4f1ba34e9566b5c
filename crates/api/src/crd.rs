//! The CustomResourceDefinition, with what the derive cannot express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use meshupgrade_core::plan::MAX_EXCEPTIONS;
use meshupgrade_core::record::MAX_BATCH;
use serde_json::{Map, Value, json};

use crate::MeshUpgrade;
use crate::rules::{TRANSITIONS, validations};

/// Columns of `kubectl get`: title, type, path, and whether it shows with `-o wide` only.
const COLUMNS: [(&str, &str, &str, bool); 10] = [
    ("From", "string", ".status.run.source", false),
    ("To", "string", ".status.run.target", false),
    ("Phase", "string", ".status.phase", false),
    ("Wave", "string", ".status.wave", false),
    ("Progress", "string", ".status.progress", false),
    ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status", false),
    ("Age", "date", ".metadata.creationTimestamp", false),
    ("Provider", "string", ".status.provider", true),
    ("Blocked", "integer", ".status.blockedCount", true),
    ("Message", "string", ".status.message", true),
];

/// The CustomResourceDefinition as it is installed.
///
/// # Panics
///
/// If the derived definition is no longer one: a programming error that the tests of this crate find.
#[allow(clippy::expect_used, reason = "a constant of the program, covered by tests")]
pub fn crd() -> CustomResourceDefinition {
    serde_json::from_value(document()).expect("the patched definition is a definition")
}

/// The CustomResourceDefinition as JSON, as it is installed.
///
/// # Panics
///
/// As [`crd()`].
#[allow(clippy::expect_used, reason = "a constant of the program, covered by tests")]
pub fn document() -> Value {
    let mut document = serde_json::to_value(MeshUpgrade::crd()).expect("the derived definition is JSON");
    document["spec"]["versions"][0]["additionalPrinterColumns"] = columns();
    let schema = document
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .expect("the derived definition has a schema");
    clean(schema);
    let status = &mut schema["properties"]["status"];
    drop_defaults(status);
    // kstatus takes an object without observedGeneration for done; defaults apply on every read.
    status["default"] = json!({"observedGeneration": -1});
    schema["x-kubernetes-validations"] = validations(&TRANSITIONS);
    document
}

fn columns() -> Value {
    COLUMNS
        .iter()
        .map(|(name, kind, path, wide)| {
            let mut column = json!({"name": name, "type": kind, "jsonPath": path});
            if *wide {
                column["priority"] = json!(1);
            }
            column
        })
        .collect()
}

/// The CustomResourceDefinition as YAML.
pub fn yaml() -> Result<String, serde_saphyr::ser_error::Error> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut text, &document(), options)?;
    Ok(text)
}

/// The CustomResourceDefinition as a template of the Helm chart.
pub fn chart_template() -> Result<String, serde_saphyr::ser_error::Error> {
    const ANNOTATIONS: &str = "  annotations:\n";
    const KEEP: &str = "  annotations:
    {{- if .Values.crds.keep }}
    helm.sh/resource-policy: keep
    {{- end }}
";
    const LABELS: &str = "  labels:
    {{- include \"meshupgrade.labels\" . | nindent 4 }}
";
    let yaml = yaml()?;
    let (head, tail) = yaml.split_once(ANNOTATIONS).unwrap_or((&yaml, ""));
    Ok(format!("{{{{- if .Values.crds.install }}}}\n{head}{LABELS}{KEEP}{tail}{{{{- end }}}}\n"))
}

/// Brings derived schemas to what the API server knows and what people read.
fn clean(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            clean_keywords(object);
            object.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

fn clean_keywords(object: &mut Map<String, Value>) {
    // A null is then the same as a missing field: it is pruned, and the default applies.
    if object.get("nullable").is_some_and(Value::is_boolean) {
        object.remove("nullable");
    }
    // The API server knows signed formats only; all our numbers fit.
    if let Some(Value::String(format)) = object.get_mut("format")
        && matches!(format.as_str(), "uint8" | "uint16" | "uint32" | "uint64")
    {
        "int64".clone_into(format);
    }
    for bound in ["minimum", "maximum"] {
        if let Some(number) = object.get(bound).and_then(Value::as_f64) {
            #[allow(clippy::cast_possible_truncation, reason = "all our bounds are small whole numbers")]
            object.insert(bound.to_owned(), json!(number as i64));
        }
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = readable(text);
    }
}

/// A documentation comment as `kubectl explain` should show it: no links, no hard line breaks.
fn readable(comment: &str) -> String {
    let text = comment
        .replace("[`MAX_BATCH`]", &MAX_BATCH.to_string())
        .replace("[`MAX_EXCEPTIONS`]", &MAX_EXCEPTIONS.to_string())
        .replace("[`", "`")
        .replace("`]", "`")
        .replace('`', "'");
    let paragraphs: Vec<_> = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    paragraphs.join("\n\n")
}

/// The operator writes a status as a whole: nothing is filled in for it.
fn drop_defaults(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("default");
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(drop_defaults);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(inner) {
            drop_defaults(inner);
        }
    }
}

//! Compares a manifest with the schema of the CRD: fields that do not exist, and values of the wrong type. The API
//! server drops unknown fields silently unless it is asked not to; here they are errors.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::{FieldError, GROUP, KIND, MeshUpgrade, VERSION};

/// Fields of `metadata` that a manifest may have. The server writes the others.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// A MeshUpgrade from a manifest, or everything that is wrong with it. `status` is left out: the server ignores it.
pub fn parse(mut manifest: Value) -> Result<MeshUpgrade, Vec<FieldError>> {
    if let Some(object) = manifest.as_object_mut() {
        object.remove("status");
    }
    drop_nulls(&mut manifest);
    let errors = misfits(&manifest);
    if !errors.is_empty() {
        return Err(errors);
    }
    let upgrade: MeshUpgrade = serde_json::from_value(manifest)
        .map_err(|error| vec![FieldError::new("manifest", format!("does not fit its type: {error}"))])?;
    let errors = upgrade.validate();
    if errors.is_empty() { Ok(upgrade) } else { Err(errors) }
}

/// Name of the object in a manifest, as far as it has one.
pub fn name(manifest: &Value) -> Option<&str> {
    manifest.pointer("/metadata/name").and_then(Value::as_str)
}

/// Whether a manifest says that it is something else than a MeshUpgrade.
pub fn is_foreign(manifest: &Value) -> bool {
    let text = |field: &str| manifest.get(field).and_then(Value::as_str);
    match (text("apiVersion"), text("kind")) {
        (Some(version), Some(_)) => version.split('/').next() != Some(GROUP),
        _ => false,
    }
}

/// Fields of a manifest without nulls that do not fit the schema.
pub fn misfits(manifest: &Value) -> Vec<FieldError> {
    let mut found = Vec::new();
    let Some(object) = manifest.as_object() else {
        return vec![FieldError::new("manifest", "must be an object")];
    };
    let version = format!("{GROUP}/{VERSION}");
    for (field, wanted) in [("apiVersion", version.as_str()), ("kind", KIND)] {
        if object.get(field).and_then(Value::as_str) != Some(wanted) {
            found.push(FieldError::new(field, format!("must be {wanted}")));
        }
    }
    metadata(object.get("metadata"), &mut found);
    walk(&SCHEMA, manifest, "", &mut found);
    found
}

/// The schema of the CRD, with the fields that every object has.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = crate::crd::document()
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .cloned()
        .unwrap_or_default();
    for implied in ["apiVersion", "kind", "metadata"] {
        schema["properties"][implied] = Value::Object(Map::new());
    }
    schema
});

/// Takes all nulls out of a manifest: the server treats them like missing fields.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn metadata(metadata: Option<&Value>, found: &mut Vec<FieldError>) {
    let empty = Map::new();
    let object = match metadata {
        None => &empty,
        Some(Value::Object(object)) => object,
        Some(_) => {
            found.push(FieldError::new("metadata", "must be an object"));
            return;
        }
    };
    for field in object.keys().filter(|field| !METADATA.contains(&field.as_str())) {
        found.push(unknown(&format!("metadata.{field}"), field, METADATA.into_iter()));
    }
    if object.contains_key("namespace") {
        found.push(FieldError::new(
            "metadata.namespace",
            "must not be set: a MeshUpgrade belongs to the cluster",
        ));
    }
    match object.get("name") {
        None if object.contains_key("generateName") => {}
        Some(Value::String(name)) if is_subdomain(name) => {}
        None => found.push(FieldError::new("metadata.name", "is required")),
        Some(_) => found.push(FieldError::new(
            "metadata.name",
            "must be lower-case letters, digits, '-' and '.', begin and end with a letter or digit, and have at most \
             253 characters",
        )),
    }
    for field in ["labels", "annotations"] {
        match object.get(field) {
            None => {}
            Some(Value::Object(entries)) => {
                for key in entries.iter().filter(|(_, value)| !value.is_string()).map(|(key, _)| key) {
                    found.push(FieldError::new(format!("metadata.{field}.{key}"), "must be a string"));
                }
            }
            Some(_) => found.push(FieldError::new(format!("metadata.{field}"), "must be an object")),
        }
    }
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            label.starts_with(inner) && label.ends_with(inner) && label.chars().all(|c| inner(c) || c == '-')
        })
}

/// Compares one value with its schema.
fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<FieldError>) {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        let fits = value.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
        if !fits && !value.is_string() {
            found.push(FieldError::new(path, "must be a whole number or a string"));
        }
        return;
    }
    let fits = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        _ => return,
    };
    if !fits {
        found.push(FieldError::new(path, type_message(schema)));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
        found.push(FieldError::new(path, one_of(&allowed)));
    }
    range(schema, value, path, found);
    match value {
        Value::Object(object) => fields(schema, object, path, found),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

pub(crate) fn one_of(allowed: &[&str]) -> String {
    match allowed {
        [only] => format!("must be {only}"),
        _ => format!("must be one of {}", allowed.join(", ")),
    }
}

fn type_message(schema: &Value) -> &'static str {
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => "must be an object",
        Some("array") => "must be a list",
        Some("string") => "must be a string; put it in quotes if it looks like a number or a boolean",
        Some("boolean") => "must be true or false",
        _ => "must be a whole number",
    }
}

fn fields(schema: &Value, object: &Map<String, Value>, path: &str, found: &mut Vec<FieldError>) {
    let join = |field: &str| {
        if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
    };
    let known = schema.get("properties").and_then(Value::as_object);
    let other = schema.get("additionalProperties");
    for (field, value) in object {
        if let Some(schema) = known.and_then(|known| known.get(field)).or(other) {
            walk(schema, value, &join(field), found);
        } else {
            let known = known.into_iter().flat_map(Map::keys).map(String::as_str);
            found.push(unknown(&join(field), field, known));
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    for field in required.filter_map(Value::as_str) {
        if !object.contains_key(field) {
            found.push(FieldError::new(join(field), "is required"));
        }
    }
}

fn range(schema: &Value, value: &Value, path: &str, found: &mut Vec<FieldError>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    // Whatever does not fit into 64 bits is certainly too large.
    let Some(number) = value.as_i64().or_else(|| value.is_u64().then_some(i64::MAX)) else {
        return;
    };
    let (min, max) = (bound("minimum"), bound("maximum"));
    if min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) {
        let message = match (min, max) {
            (Some(min), Some(max)) => format!("must be from {min} to {max}"),
            (Some(min), None) => format!("must be at least {min}"),
            _ => format!("must be at most {}", max.unwrap_or_default()),
        };
        found.push(FieldError::new(path, message));
    }
}

fn unknown<'a>(path: &str, field: &str, known: impl Iterator<Item = &'a str>) -> FieldError {
    let nearest =
        known.map(|name| (distance(field, name), name)).min().filter(|(distance, _)| *distance <= 2);
    let message = match nearest {
        Some((_, name)) => format!("unknown field; did you mean {name}?"),
        None => "unknown field".to_owned(),
    };
    FieldError::new(path, message)
}

/// How many letters must be added, removed or changed to get from one word to the other, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        let mut before = i + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(b.chars()) {
            let changed = diagonal + usize::from(left != right);
            diagonal = *cell;
            before = changed.min(before + 1).min(*cell + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

//! What is parsed of an object: only the fields that matter, everything else is skipped while the JSON is read.
//!
//! A typed pod costs ten times as much to parse and to hold as what we need of it, most of it `managedFields`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
use meshupgrade_core::observed::{IntOrPercent, Labels, Owner};
use meshupgrade_core::selector::{LabelSelector, Operator, Requirement};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// An object with the parts of `spec` and `status` that matter.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "Spec: Deserialize<'de> + Default, Status: Deserialize<'de> + Default"))]
pub struct Slim<Spec, Status = IgnoredAny> {
    /// Metadata; of `managedFields` only the names.
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: Spec,
    /// What is.
    #[serde(default)]
    pub status: Status,
}

/// Implements [`kube::Resource`] for a type with a field `metadata`.
macro_rules! resource {
    ($type:ty, $scope:ident, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = kube::core::$scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use resource;

/// Metadata without what only takes room.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    managed_fields: Option<Vec<Writer>>,
}

/// An entry of `managedFields` without the fields, which are most of it.
#[derive(Deserialize)]
struct Writer {
    #[serde(default)]
    manager: Option<String>,
    #[serde(default)]
    subresource: Option<String>,
    #[serde(default)]
    time: Option<Time>,
}

impl From<Metadata> for ObjectMeta {
    fn from(slim: Metadata) -> Self {
        Self {
            name: slim.name,
            namespace: slim.namespace,
            uid: slim.uid,
            resource_version: slim.resource_version,
            generation: slim.generation,
            creation_timestamp: slim.creation_timestamp,
            deletion_timestamp: slim.deletion_timestamp,
            labels: slim.labels,
            annotations: slim.annotations,
            owner_references: slim.owner_references,
            managed_fields: slim.managed_fields.map(writers),
            ..Self::default()
        }
    }
}

/// Who wrote the object itself (no subresource), the last one first, without what they wrote.
fn writers(entries: Vec<Writer>) -> Vec<ManagedFieldsEntry> {
    let mut writers: Vec<Writer> = entries.into_iter().filter(|entry| entry.subresource.is_none()).collect();
    writers.sort_by_key(|writer| std::cmp::Reverse(writer.time.as_ref().map(|time| time.0)));
    let slim = |it: Writer| ManagedFieldsEntry { manager: it.manager, ..ManagedFieldsEntry::default() };
    writers.into_iter().map(slim).collect()
}

/// Reads metadata without the fields of `managedFields`, which are most of it.
pub fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Metadata::deserialize(deserializer).map(ObjectMeta::from)
}

/// Reads metadata with `managedFields`: only namespaces need them, and there are few.
pub fn metadata_with_managers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    struct Managed {
        #[serde(flatten)]
        metadata: Metadata,
        #[serde(rename = "managedFields", default)]
        managed_fields: Option<Vec<ManagedFieldsEntry>>,
    }
    let managed = Managed::deserialize(deserializer)?;
    Ok(ObjectMeta { managed_fields: managed.managed_fields, ..ObjectMeta::from(managed.metadata) })
}

/// `metav1.LabelSelector` as it is on the wire.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<RawRequirement>>,
}

#[derive(Clone, Debug, Deserialize)]
struct RawRequirement {
    key: String,
    operator: RawOperator,
    #[serde(default)]
    values: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum RawOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// The API server admits no other; one that a later version invents must not stop a watch.
    #[serde(other)]
    Unknown,
}

impl From<RawSelector> for LabelSelector {
    fn from(raw: RawSelector) -> Self {
        Self {
            match_labels: raw.match_labels.unwrap_or_default(),
            match_expressions: raw
                .match_expressions
                .unwrap_or_default()
                .into_iter()
                .map(Requirement::from)
                .collect(),
        }
    }
}

impl From<RawRequirement> for Requirement {
    fn from(raw: RawRequirement) -> Self {
        let (operator, values) = match raw.operator {
            RawOperator::In => (Operator::In, raw.values.unwrap_or_default()),
            RawOperator::NotIn => (Operator::NotIn, raw.values.unwrap_or_default()),
            RawOperator::Exists => (Operator::Exists, Vec::new()),
            RawOperator::DoesNotExist => (Operator::DoesNotExist, Vec::new()),
            // Matches nothing: what we cannot judge must not count as injected.
            RawOperator::Unknown => (Operator::In, Vec::new()),
        };
        Self { key: raw.key, operator, values }
    }
}

/// `intstr.IntOrString` as it is on the wire.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum RawIntOrPercent {
    /// A number.
    Int(i64),
    /// A share such as `25%`.
    Text(String),
}

impl RawIntOrPercent {
    /// The value; `None` when it is neither a number nor a share.
    pub fn value(&self) -> Option<IntOrPercent> {
        match self {
            Self::Int(number) => Some(IntOrPercent::Int(count(*number))),
            Self::Text(text) => match text.strip_suffix('%') {
                Some(share) => share.trim().parse().ok().map(IntOrPercent::Percent),
                None => text.trim().parse().ok().map(IntOrPercent::Int),
            },
        }
    }
}

/// A count that Kubernetes types as signed.
pub fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

/// A condition of `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
}

/// The controller among the owners.
pub fn controller_of(metadata: &ObjectMeta) -> Option<Owner> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _version)| group);
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone(), group: group.to_owned() })
}

/// Keeps the annotations that speak about Istio, without the injector's own report, which only takes room.
pub fn istio_annotations(all: Option<&BTreeMap<String, String>>) -> Labels {
    all.into_iter()
        .flatten()
        .filter(|(key, _)| key.contains("istio.io") && key.as_str() != crate::observe::pod::INJECTION_STATUS)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_and_numbers_are_told_apart() {
        let value = |json| serde_json::from_value::<RawIntOrPercent>(json).unwrap().value();
        assert_eq!(value(json!(3)), Some(IntOrPercent::Int(3)));
        assert_eq!(value(json!(-1)), Some(IntOrPercent::Int(0)));
        assert_eq!(value(json!("25%")), Some(IntOrPercent::Percent(25)));
        assert_eq!(value(json!("4")), Some(IntOrPercent::Int(4)));
        assert_eq!(value(json!("many")), None);
    }

    #[test]
    fn an_operator_that_we_do_not_know_selects_nothing() {
        let raw: RawSelector = serde_json::from_value(json!({
            "matchExpressions": [{"key": "a", "operator": "Resembles", "values": ["b"]}]
        }))
        .unwrap();
        let selector = LabelSelector::from(raw);
        assert!(!selector.matches(&BTreeMap::from([("a".into(), "b".into())])));
        assert!(!selector.matches(&BTreeMap::new()));
    }

    #[test]
    fn null_in_a_selector_is_an_empty_list() {
        let raw: RawSelector =
            serde_json::from_value(json!({"matchLabels": null, "matchExpressions": null})).unwrap();
        assert_eq!(LabelSelector::from(raw), LabelSelector::default());
    }

    #[test]
    fn only_the_controller_counts_as_owner() {
        let metadata: ObjectMeta = serde_json::from_value(json!({
            "name": "a",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"},
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "2", "controller": true},
            ]
        }))
        .unwrap();
        let owner = controller_of(&metadata).unwrap();
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str(), owner.group.as_str()),
            ("ReplicaSet", "web-1", "apps")
        );
    }
}

//! Services of revision tags: which istiod each leads to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::client_of;
use crate::ids::{Revision, ServiceRef};
use crate::labels;
use crate::observed::{IstiodService, Labels, Snapshot};

/// What changes of a selector; `None` removes a label from it.
pub type SelectorEdits = BTreeMap<String, Option<String>>;

/// The name of a tag's Service, which alone moves with it.
/// Source: manifests/charts/istio-control/istio-discovery/templates/revision-tags-svc.yaml of Istio.
pub fn name_of(tag: &str) -> String {
    format!("istiod-revision-tag-{tag}")
}

/// The Services of istiod, as far as they are known.
fn all(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<IstiodService>> {
    snapshot.istiod_services.iter().flatten()
}

/// The Services of revision tags that belong to a revision and are to go to another one: by their label, or by the pods that they lead to.
pub fn left_on<'a>(
    snapshot: &'a Snapshot,
    revision: &'a Revision,
    other: &'a Revision,
) -> impl Iterator<Item = (&'a str, &'a Arc<IstiodService>)> {
    // Where both revisions have the same selector, it says nothing.
    let own = selector_of(snapshot, revision).filter(|own| selector_of(snapshot, other) != Some(own));
    let of_tags = all(snapshot).filter_map(|service| Some((service.tag.as_deref()?, service)));
    of_tags.filter(move |(_, service)| {
        let selected = service.selector.get(labels::REVISION).is_some_and(|value| value == revision.as_str());
        service.revision.as_ref() == Some(revision) || selected || own == Some(&service.selector)
    })
}

/// The pods of a revision's istiod, as its own Service selects them: the one that its injector names. Others beside it may select more.
pub fn selector_of<'a>(snapshot: &'a Snapshot, revision: &Revision) -> Option<&'a Labels> {
    let named = client_of(snapshot, revision).and_then(|client| client.service.as_ref());
    let name = named.map_or_else(|| format!("istiod-{revision}"), |service| service.name.clone());
    let is_own = |service: &&IstiodService| {
        service.tag.is_none() && service.revision.as_ref() == Some(revision) && !service.selector.is_empty()
    };
    let own: Vec<&IstiodService> = all(snapshot).map(AsRef::as_ref).filter(is_own).collect();
    let by_name = own.iter().copied().find(|service| service.reference.name == name);
    let only = if let [only] = own[..] { Some(only) } else { None };
    by_name.or(only).map(|service| &service.selector)
}

/// What makes the selector of a Service that of a revision; `None` where that is not known.
pub fn edits(snapshot: &Snapshot, service: &IstiodService, revision: &Revision) -> Option<SelectorEdits> {
    let (now, wanted) = (&service.selector, selector_of(snapshot, revision)?);
    let removed = now.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), None));
    let set = wanted.iter().filter(|(key, value)| now.get(*key) != Some(value));
    Some(removed.chain(set.map(|(key, value)| (key.clone(), Some(value.clone())))).collect())
}

/// The command that leads the Service of a tag to a revision. Without `edits` to one with a name, whose istiod has another label `istio`
/// than one without.
/// Source: manifests/charts/istio-control/istio-discovery/templates/{service,deployment}.yaml of Istio.
pub fn by_hand(service: &ServiceRef, edits: Option<&SelectorEdits>, revision: &Revision) -> String {
    let selector = match edits {
        Some(edits) => json!(edits),
        None => json!({labels::REVISION: revision, "istio": null}),
    };
    let patch = json!({"metadata": {"labels": {labels::REVISION: revision}}, "spec": {"selector": selector}});
    format!("kubectl patch service {} -n {} --type merge -p '{patch}'", service.name, service.namespace)
}

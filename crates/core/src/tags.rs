//! Revision tags: names that namespaces have in place of a revision, each of which is a webhook configuration that leads to the
//! revision that it points at. Who moves a tag moves all namespaces that follow it, and changes none of their labels.

pub mod services;

use std::collections::BTreeSet;

use crate::check::deploys_again;
use crate::decision::About;
use crate::ids::Revision;
use crate::injection::{Injection, namespace_injection};
use crate::intent::{InjectionMode, Intent};
use crate::inventory::{Pair, own_injector};
use crate::observed::{ClientConfig, FieldManager, Namespace, Owner, Snapshot, WebhookConfiguration};

/// The webhook configurations of a tag: one, unless somebody made several.
pub fn all_of<'a>(snapshot: &'a Snapshot, tag: &str) -> Vec<&'a WebhookConfiguration> {
    let webhooks = snapshot.webhooks.iter().map(AsRef::as_ref);
    webhooks.filter(|webhook| webhook.tag.as_deref() == Some(tag)).collect()
}

/// The webhook configuration of a tag; `None` when there is none, or several.
pub fn find<'a>(snapshot: &'a Snapshot, tag: &str) -> Option<&'a WebhookConfiguration> {
    match all_of(snapshot, tag).as_slice() {
        [webhook] => Some(*webhook),
        _ => None,
    }
}

/// The tag that new pods of a namespace follow, if they follow one.
pub fn followed(snapshot: &Snapshot, namespace: &Namespace) -> Option<String> {
    match namespace_injection(&snapshot.webhooks, &namespace.name, &namespace.labels) {
        Injection::One(injector) => injector.tag,
        Injection::None(_) | Injection::Several(_) => None,
    }
}

/// The tag that a namespace follows, if waves of this request move it.
pub fn followed_and_moved(intent: &Intent, snapshot: &Snapshot, namespace: &Namespace) -> Option<String> {
    // Most requests name no tag, and most passes ask this of every namespace.
    intent.tags().next()?;
    followed(snapshot, namespace).filter(|tag| intent.moves_tag(tag))
}

/// Whether the run itself writes what leads a namespace to a revision: its label, or the tag that it follows.
pub fn is_led_by_us(intent: &Intent, snapshot: &Snapshot, namespace: &Namespace) -> bool {
    intent.injection != InjectionMode::Observe || followed_and_moved(intent, snapshot, namespace).is_some()
}

/// Whether new pods of a namespace get the sidecar of this revision, by whatever label or tag.
pub fn leads_to(snapshot: &Snapshot, namespace: &Namespace, revision: &Revision) -> bool {
    let found = namespace_injection(&snapshot.webhooks, &namespace.name, &namespace.labels);
    matches!(found, Injection::One(injector) if injector.revision == *revision)
}

/// Where the injector of a revision itself points: what a tag that is moved there gets.
pub fn client_of<'a>(snapshot: &'a Snapshot, revision: &Revision) -> Option<&'a ClientConfig> {
    own_injector(snapshot, revision)?.client()
}

/// Whether a tag points at a revision: by its label, and by where its entries lead.
pub fn points_at(snapshot: &Snapshot, webhook: &WebhookConfiguration, revision: &Revision) -> bool {
    let same_place = match (webhook.client(), client_of(snapshot, revision)) {
        (Some(tag), Some(own)) => tag.is_same_place(own),
        // The revision is gone, or has several places: its label is all there is to go by.
        (_, None) => true,
        (None, Some(_)) => false,
    };
    webhook.revision.as_ref() == Some(revision) && same_place
}

/// Whether the annotation that remembers a tag's revision names this pair.
pub fn moved_by(webhook: &WebhookConfiguration, pair: Pair<'_>) -> bool {
    let memory = webhook.previous.as_ref();
    memory.is_some_and(|previous| previous.from == *pair.source && previous.to == *pair.target)
}

/// What a run patches that moves the tags of this request to its target: webhooks, and Services as far as they are known. Not what
/// belongs to somebody else, who moves it.
pub fn to_patch(intent: &Intent, snapshot: &Snapshot) -> BTreeSet<About> {
    let elsewhere = |revision: Option<&Revision>| revision != Some(&intent.target);
    let webhooks = intent.tags().filter_map(|tag| find(snapshot, tag));
    let webhooks = webhooks
        .filter(|it| elsewhere(it.revision.as_ref()) && owner(it.owner.as_ref(), &it.managers).is_none())
        .map(|webhook| About::Webhook(webhook.name.clone()));
    let services = snapshot.istiod_services.iter().flatten().filter(|service| {
        let is_moved = |tag: &str| intent.moves_tag(tag) && service.reference.name == services::name_of(tag);
        service.tag.as_deref().is_some_and(is_moved)
            && elsewhere(service.revision.as_ref())
            && owner(service.owner.as_ref(), &service.managers).is_none()
    });
    webhooks.chain(services.map(|service| About::Service(service.reference.clone()))).collect()
}

/// Who moves an object of a tag by other means, and would put it back: the object that it belongs to, or a tool that deploys it. Labels do not tell:
/// `istioctl tag set` copies those of the revision, also the ones that name Helm.
/// Source: istioctl/pkg/tag/generate.go of Istio.
pub fn owner(object: Option<&Owner>, managers: &[FieldManager]) -> Option<String> {
    let object = object.map(|owner| format!("{} {}", owner.kind, owner.name));
    let tool = |manager: &&FieldManager| manager.owns_revision && deploys_again(&manager.name);
    object.or_else(|| managers.iter().find(tool).map(|manager| manager.name.clone()))
}

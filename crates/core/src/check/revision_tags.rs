//! Revision tags before a run: whether those that waves name can be moved, and which others keep the old revision in use.

use super::{CheckInput, Finding, listed};
use crate::decision::About;
use crate::intent::InjectionMode;
use crate::inventory::LABEL_STAYS;
use crate::labels;
use crate::observed::{Gateway, Namespace, WebhookConfiguration};
use crate::tags;

pub(super) fn find(input: &CheckInput<'_>) -> Finding {
    let mut problems: Vec<String> = input.intent.tags().filter_map(|tag| problem_of(input, tag)).collect();
    problems.extend(labels_that_stay(input));
    problems.extend(denied(input));
    if !problems.is_empty() {
        return Finding::Problem(problems.join(". "));
    }
    let owned = input.intent.tags().filter_map(|tag| owned_by_another(input, tag));
    let warnings: Vec<String> = owned
        .chain(owned_services(input))
        .chain(unreadable_services(input))
        .chain(left_behind(input))
        .chain(gateways_of_the_default(input))
        .collect();
    if warnings.is_empty() { Finding::Nothing } else { Finding::Warning(warnings.join(". ")) }
}

/// What keeps a tag from being moved.
fn problem_of(input: &CheckInput<'_>, tag: &str) -> Option<String> {
    let set = |revision: &str, more: &str| {
        format!(
            "istioctl tag set {tag} --revision {revision} --istioNamespace {}{more}",
            input.intent.istio_namespace
        )
    };
    let found = tags::all_of(input.snapshot, tag);
    let webhook = match found.as_slice() {
        [webhook] => *webhook,
        [] => {
            let command = set(input.source.as_str(), "");
            return Some(format!(
                "there is no revision tag {tag}; tags are moved and never created: {command}"
            ));
        }
        several => {
            let names = listed(several.iter().map(|webhook| webhook.name.as_str())).unwrap_or_default();
            return Some(format!(
                "revision tag {tag} has several webhook configurations: {names}; delete all but one"
            ));
        }
    };
    let revision = webhook.revision.clone().unwrap_or_default();
    if ![input.source, input.target].contains(&&revision) {
        return Some(format!(
            "revision tag {tag} points at {revision}, and the run goes from {} to {}: take its wave out, or {}",
            input.source,
            input.target,
            set(input.source.as_str(), " --overwrite")
        ));
    }
    if !tags::points_at(input.snapshot, webhook, &revision) {
        return Some(format!(
            "revision tag {tag} says that it belongs to {revision}, and its webhook leads elsewhere: {}",
            set(revision.as_str(), " --overwrite")
        ));
    }
    let fails_open = webhook.entries.iter().any(|entry| !entry.fails_closed);
    fails_open.then(|| {
        format!(
            "the webhook {} lets pods in without a sidecar when it fails: set failurePolicy: Fail",
            webhook.name
        )
    })
}

/// What of the tags the operator may not patch: the run would stop in the middle, at the wave of the tag.
fn denied(input: &CheckInput<'_>) -> Option<String> {
    let denied = &input.snapshot.census.as_ref()?.denied;
    let missing = tags::to_patch(input.intent, input.snapshot);
    let named = |about: &About| match about {
        About::Service(service) => Some(service.to_string()),
        About::Webhook(name) => Some(format!("the webhook {name}")),
        _ => None,
    };
    let names = listed(missing.intersection(denied).filter_map(named))?;
    let all: Vec<&str> = input.intent.tags().collect();
    Some(format!(
        "the operator may not patch {names}: the chart gives the right by the names of the tags, revisionTags: [{}], for webhooks named \
         istio-revision-tag-TAG, with -NAMESPACE behind it outside of istio-system, and Services named istiod-revision-tag-TAG",
        all.join(", ")
    ))
}

/// Namespaces whose own label names the source, where only tags are moved.
fn labels_that_stay(input: &CheckInput<'_>) -> Option<String> {
    let left = input.plan.left.iter().filter(|left| left.reason == LABEL_STAYS);
    let names = listed(left.map(|left| left.namespace.as_str()))?;
    Some(format!(
        "{names}: the label of the namespace names {} itself, and spec.injection.mode RevisionTag changes no label: mode NamespaceLabel \
         moves both, tags in waves that name one and labels in the others",
        input.source
    ))
}

fn owned_by_another(input: &CheckInput<'_>, tag: &str) -> Option<String> {
    let owner =
        tags::find(input.snapshot, tag).and_then(|it| tags::owner(it.owner.as_ref(), &it.managers))?;
    Some(format!(
        "revision tag {tag} belongs to {owner}, which would undo a move: when its wave is due, the run waits until that points it at {}",
        input.target
    ))
}

/// Services of the tags that are somebody else's to move.
fn owned_services(input: &CheckInput<'_>) -> Option<String> {
    let moved = tags::services::left_on(input.snapshot, input.source, input.target)
        .filter(|(tag, _)| input.intent.moves_tag(tag));
    let owned = moved.filter_map(|(_, service)| {
        let owner = tags::owner(service.owner.as_ref(), &service.managers)?;
        Some(format!("{} ({owner})", service.reference))
    });
    let names = listed(owned)?;
    Some(format!(
        "{names} of a revision tag would be put back by its owner: when its wave is due, the run waits until that leads it to {}",
        input.target
    ))
}

fn unreadable_services(input: &CheckInput<'_>) -> Option<String> {
    let unknown = input.intent.tags().next().is_some() && input.snapshot.istiod_services.is_none();
    unknown.then(|| {
        format!(
            "the operator may not watch the Services in {}, so that those of revision tags do not move with them: install the chart of \
             this version",
            input.intent.istio_namespace
        )
    })
}

/// Tags on the source that no wave moves, as far as namespaces follow them.
fn left_behind(input: &CheckInput<'_>) -> Option<String> {
    if input.intent.injection == InjectionMode::Observe {
        return None;
    }
    let on_source = |webhook: &&WebhookConfiguration| {
        let tag = webhook.tag.as_deref().filter(|tag| !input.intent.moves_tag(tag));
        webhook.revision.as_ref() == Some(input.source) && tag.is_some_and(|tag| is_followed(input, tag))
    };
    let webhooks = input.snapshot.webhooks.iter().map(AsRef::as_ref).filter(on_source);
    let names = listed(webhooks.filter_map(|webhook| webhook.tag.as_deref()))?;
    Some(format!(
        "no wave moves revision tag {names}, whose namespaces stay on {source}, and {source} cannot go before it is moved: give it a wave \
         (waves[].tag)",
        source = input.source
    ))
}

/// Gateways that name nothing, in namespaces that name nothing: they follow the tag `default`, and move with it at once.
/// Source: pkg/revisions/tag_watcher.go of Istio.
fn gateways_of_the_default(input: &CheckInput<'_>) -> Option<String> {
    let tag = tags::find(input.snapshot, "default").filter(|_| input.intent.moves_tag("default"))?;
    if tag.revision.as_ref() != Some(input.source) {
        return None;
    }
    let planned = super::planned_names(input);
    let unnamed = |gateway: &&Gateway| {
        let namespace = input.snapshot.namespaces.get(&gateway.reference.namespace);
        let named = namespace.is_some_and(|namespace| namespace.labels.contains_key(labels::REVISION));
        // In a namespace that the run moves it is pinned before.
        gateway.managed
            && gateway.revision.is_none()
            && !named
            && !planned.contains(&gateway.reference.namespace)
    };
    let gateways = input.snapshot.gateways.values().map(AsRef::as_ref).filter(unnamed);
    let names = listed(gateways.map(|gateway| gateway.reference.to_string()))?;
    Some(format!(
        "{names} name no revision, and neither do their namespaces: they move at once when the tag default does. Pin them before: kubectl \
         label gateways.gateway.networking.k8s.io NAME -n NAMESPACE {}={}",
        labels::REVISION,
        input.source
    ))
}

fn is_followed(input: &CheckInput<'_>, tag: &str) -> bool {
    let follows = |namespace: &Namespace| tags::followed(input.snapshot, namespace).as_deref() == Some(tag);
    input.snapshot.namespaces.values().any(|namespace| follows(namespace))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture::{Mesh, SOURCE, TARGET, client, said};
    use crate::decision::About;
    use crate::intent::{InjectionMode, WaveSelect};
    use crate::inventory::Pair;
    use crate::labels;
    use crate::observed::{FieldManager, Owner, WebhookConfiguration};
    use crate::planning;
    use crate::tags;

    /// One wave that moves the tag `prod`, and the namespace `tagged` on it.
    fn mesh() -> Mesh {
        let mut mesh = Mesh::before();
        mesh.intent.waves[0].select = WaveSelect::Tag("prod".to_owned());
        mesh.add_tag("prod", SOURCE);
        mesh.add_namespace("tagged", &[(labels::REVISION, "prod")]);
        mesh
    }

    fn tag(mesh: &mut Mesh, change: impl FnOnce(&mut WebhookConfiguration)) {
        let webhook = mesh.snapshot.webhooks.iter_mut().find(|webhook| webhook.tag.is_some()).unwrap();
        change(Arc::make_mut(webhook));
    }

    fn told(mesh: &Mesh) -> String {
        said(&mesh.preflight()).into_iter().find(|text| text.starts_with("RevisionTags")).unwrap_or_default()
    }

    #[test]
    fn a_tag_that_can_be_moved_passes() {
        assert_eq!(told(&mesh()), "");
    }

    #[test]
    fn what_keeps_a_tag_from_being_moved_is_named_with_the_command() {
        let about = |change: fn(&mut Mesh)| {
            let mut mesh = mesh();
            change(&mut mesh);
            told(&mesh)
        };
        let missing = about(|mesh| mesh.snapshot.webhooks.retain(|webhook| webhook.tag.is_none()));
        assert!(
            missing.contains("Failed: there is no revision tag prod")
                && missing.contains("istioctl tag set prod"),
            "{missing}"
        );
        let twice = about(|mesh| mesh.add_tag("prod", SOURCE));
        assert!(twice.contains("several webhook configurations"), "{twice}");
        let elsewhere = about(|mesh| tag(mesh, |webhook| webhook.revision = Some("asm-1-26".into())));
        assert!(elsewhere.contains("points at asm-1-26"), "{elsewhere}");
        let by_label_only = about(|mesh| tag(mesh, |webhook| webhook.entries[0].client = client(TARGET)));
        assert!(by_label_only.contains("leads elsewhere"), "{by_label_only}");
        let open = about(|mesh| tag(mesh, |webhook| webhook.entries[1].fails_closed = false));
        assert!(open.contains("failurePolicy: Fail"), "{open}");
    }

    #[test]
    fn a_right_that_is_missing_is_told_before_the_run() {
        let mut mesh = mesh();
        mesh.add_tag_service("prod", SOURCE);
        let (webhook, service) =
            match tags::to_patch(&mesh.intent, &mesh.snapshot).into_iter().collect::<Vec<_>>()[..] {
                [ref service @ About::Service(_), ref webhook @ About::Webhook(_)]
                | [ref webhook @ About::Webhook(_), ref service @ About::Service(_)] => {
                    (webhook.clone(), service.clone())
                }
                ref others => panic!("{others:?}"),
            };
        assert_eq!(told(&mesh), "");
        mesh.census(|census| census.denied = [webhook, service].into());
        for words in [
            "Failed: the operator may not patch the webhook istio-revision-tag-prod, Service istio-system/istiod-revision-tag-prod",
            "revisionTags: [prod]",
        ] {
            assert!(told(&mesh).contains(words), "{words}: {}", told(&mesh));
        }
        // Who moves it needs the right.
        let tools =
            [FieldManager { name: "helm".to_owned(), owns_revision: true, ..FieldManager::default() }];
        tag(&mut mesh, |webhook| webhook.managers = tools.to_vec());
        assert!(!told(&mesh).contains("the webhook istio-revision-tag-prod"), "{}", told(&mesh));
        // What is on the target already is not written.
        mesh.intent.target = SOURCE.into();
        assert!(tags::to_patch(&mesh.intent, &mesh.snapshot).is_empty());
    }

    #[test]
    fn a_tag_of_a_tool_is_waited_for_and_labels_alone_are_no_tool() {
        let mut mesh = mesh();
        let manager = |name: &str, owns| FieldManager {
            name: name.to_owned(),
            owns_revision: owns,
            ..FieldManager::default()
        };
        tag(&mut mesh, |webhook| webhook.managers = vec![manager("istioctl", true), manager("helm", false)]);
        assert_eq!(told(&mesh), "");
        tag(&mut mesh, |webhook| webhook.managers.push(manager("helm", true)));
        assert!(told(&mesh).contains("Warning: revision tag prod belongs to helm"), "{}", told(&mesh));
        let sail = Owner { kind: "IstioRevisionTag".to_owned(), name: "prod".to_owned(), ..Owner::default() };
        tag(&mut mesh, |webhook| webhook.owner = Some(sail));
        assert!(told(&mesh).contains("belongs to IstioRevisionTag prod"), "{}", told(&mesh));
    }

    #[test]
    fn a_tag_that_no_wave_moves_is_named_where_somebody_follows_it() {
        let mut mesh = mesh();
        mesh.add_tag("canary", SOURCE);
        assert_eq!(told(&mesh), "");
        mesh.add_namespace("early", &[(labels::REVISION, "canary")]);
        assert!(told(&mesh).contains("Warning: no wave moves revision tag canary"), "{}", told(&mesh));
    }

    #[test]
    fn labels_that_no_tag_moves_are_a_problem_where_only_tags_are_moved() {
        let mut mesh = mesh();
        mesh.intent.injection = InjectionMode::RevisionTag;
        let pair = Pair { source: &mesh.source, target: &mesh.target };
        mesh.plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
        assert_eq!(mesh.plan.waves[0].namespaces, ["tagged".into()]);
        let told = told(&mesh);
        assert!(
            told.contains("Failed: pay, shop: the label of the namespace names asm-1-27 itself"),
            "{told}"
        );
    }
}

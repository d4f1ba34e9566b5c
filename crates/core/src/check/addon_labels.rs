//! Labels that decide nothing under the AKS add-on, which has no default revision.

use std::collections::BTreeSet;

use super::{CheckInput, Finding, named, planned_names};
use crate::aks::gateways::is_gateway;
use crate::ids::NamespaceName;
use crate::injection::{Injection, NoInjection, PodShape, injection};
use crate::inventory::is_system;
use crate::labels;
use crate::observed::{Labels, Namespace, Workload};

/// A label of a pod template that changes nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Idle {
    /// `sidecar.istio.io/inject: "true"`, where no revision is named.
    Inject,
    /// `istio.io/rev`, where the namespace decides.
    Revision,
}

pub(super) fn find(input: &CheckInput<'_>) -> Finding {
    if !input.intent.is_addon() {
        return Finding::Nothing;
    }
    let scope = planned_names(input);
    let names = |wanted: Idle| {
        let workloads = input.snapshot.workloads.values();
        let found = workloads.filter(|workload| idle(input, &scope, workload) == Some(wanted));
        named(found.map(|workload| workload.reference.to_string()), 30)
    };
    let inject = names(Idle::Inject).map(|names| {
        format!(
            "{}: \"true\" of a pod template gives no sidecar, because the add-on has no default revision; label the namespace \
             {}={}: {names}",
            labels::SIDECAR_INJECT,
            labels::REVISION,
            input.source
        )
    });
    let revision = names(Idle::Revision).map(|names| {
        format!(
            "the label {} of a pod template does nothing where the namespace decides; remove it there: {names}",
            labels::REVISION
        )
    });
    let found: Vec<String> = [inject, revision].into_iter().flatten().collect();
    if found.is_empty() { Finding::Nothing } else { Finding::Warning(found.join(". ")) }
}

/// Which label of a workload changes nothing, by the live webhooks.
fn idle(input: &CheckInput<'_>, scope: &BTreeSet<&NamespaceName>, workload: &Workload) -> Option<Idle> {
    let namespace = input.snapshot.namespaces.get(&workload.reference.namespace)?;
    // PodLevelRevisions speaks of the namespaces of the plan.
    let is_of_the_addon = is_system(input.intent, &namespace.name)
        || is_gateway(input.intent, input.snapshot, &workload.reference);
    if scope.contains(&namespace.name) || is_of_the_addon {
        return None;
    }
    let template = &workload.template;
    let found = resolve(input, namespace, workload, &template.labels);
    let is_labelled =
        [labels::REVISION, labels::INJECTION].iter().any(|label| namespace.labels.contains_key(*label));
    if is_labelled {
        let mut without = template.labels.clone();
        let named = without.remove(labels::REVISION).is_some();
        return (named && found == resolve(input, namespace, workload, &without)).then_some(Idle::Revision);
    }
    let asks = template.labels.get(labels::SIDECAR_INJECT).is_some_and(|value| value == "true");
    (asks && found == Injection::None(NoInjection::NotSelected)).then_some(Idle::Inject)
}

fn resolve(input: &CheckInput<'_>, namespace: &Namespace, workload: &Workload, labels: &Labels) -> Injection {
    let shape = PodShape { labels, ..workload.template.shape() };
    injection(&input.snapshot.webhooks, &namespace.name, &namespace.labels, &shape)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Mesh, SOURCE, TARGET, said};
    use crate::aks::ISTIO_NAMESPACE;
    use crate::labels;

    fn addon() -> Mesh {
        let mut mesh = Mesh::before();
        mesh.intent.istio_namespace = ISTIO_NAMESPACE.into();
        mesh.add_namespace("plain", &[]);
        mesh
    }

    fn warned(mesh: &Mesh) -> Option<String> {
        said(&mesh.preflight()).into_iter().find(|text| text.starts_with("AksLabelsWithoutEffect"))
    }

    #[test]
    fn asking_for_a_sidecar_without_a_revision_is_reported_by_workload() {
        let mut mesh = addon();
        mesh.add_workload("plain", "hopeful", &[(labels::SIDECAR_INJECT, "true")]);
        mesh.add_workload("plain", "right", &[(labels::SIDECAR_INJECT, "true"), (labels::REVISION, SOURCE)]);
        mesh.add_workload("plain", "silent", &[]);
        mesh.add_workload("shop", "injected", &[(labels::SIDECAR_INJECT, "true")]);
        let text = warned(&mesh).unwrap();
        assert!(text.contains("Warning: sidecar.istio.io/inject"), "{text}");
        for number in 0..40 {
            mesh.add_workload("plain", &format!("many-{number:02}"), &[(labels::SIDECAR_INJECT, "true")]);
        }
        let text = warned(&mesh).unwrap();
        assert!(
            text.contains("asm-1-27: Deployment plain/hopeful, ") && text.ends_with("many-28 and 11 more"),
            "{text}"
        );
        mesh.intent.istio_namespace = "istio-system".into();
        assert_eq!(warned(&mesh), None, "elsewhere there may be a default revision");
    }

    #[test]
    fn a_revision_in_a_pod_template_of_a_labelled_namespace_is_reported() {
        let mut mesh = addon();
        mesh.add_namespace("other", &[(labels::REVISION, TARGET)]);
        mesh.add_workload("other", "odd", &[(labels::REVISION, SOURCE)]);
        mesh.add_workload("shop", "planned", &[(labels::REVISION, SOURCE)]);
        let text = warned(&mesh).unwrap();
        assert!(text.contains("remove it there: Deployment other/odd"), "{text}");
    }
}

//! Who else writes the revision label of a namespace, and what keeps them from putting it back.

use std::collections::BTreeMap;

use super::{CheckInput, Finding, planned};
use crate::inventory::some_of;
use crate::labels;
use crate::observed::{FieldManager, Namespace};

/// The label in a JSON pointer, where `/` is written `~1`.
const REVISION_POINTER: &str = "/metadata/labels/istio.io~1rev";
const INJECTION_POINTER: &str = "/metadata/labels/istio-injection";

/// A tool that puts its own value back, now or with its next deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tool {
    ArgoCd,
    FluxKustomize,
    FluxHelm,
    Helm,
    Kubectl,
}

/// The tool behind a field manager. Sources: the managers' names in `managedFields` after Argo CD (with and without
/// server-side apply), Flux's two controllers, Helm, and `kubectl` (`kubectl`, `kubectl-client-side-apply`,
/// `kubectl-label`, …).
fn tool(manager: &str) -> Option<Tool> {
    match manager {
        "argocd-controller" => Some(Tool::ArgoCd),
        "kustomize-controller" => Some(Tool::FluxKustomize),
        "helm-controller" => Some(Tool::FluxHelm),
        "helm" => Some(Tool::Helm),
        manager if manager.starts_with("kubectl") => Some(Tool::Kubectl),
        _ => None,
    }
}

/// Who owns the revision label of a namespace. Of several owners the one that is not us, of those a tool that will deploy it
/// again, and of those the last to write: we want to know who else has a say, and who will say it again.
pub fn revision_owner(namespace: &Namespace) -> Option<&FieldManager> {
    let owners = namespace.managers.iter().filter(|manager| manager.owns_revision);
    owners.max_by_key(|manager| {
        (manager.name != labels::FIELD_MANAGER, deploys_again(&manager.name), manager.wrote_at)
    })
}

/// Whether a field manager is that of a tool that deploys from Git and will do so again.
pub fn deploys_again(manager: &str) -> bool {
    tool(manager).is_some_and(|tool| tool != Tool::Kubectl)
}

/// Whether what a manager applies is what Git says: what Flux is told to ignore, it does not apply at all.
fn applies_what_git_says(manager: &str) -> bool {
    tool(manager) == Some(Tool::FluxKustomize)
}

/// Whether a tool has written a namespace after our last write and left its label as it is.
pub fn has_synced(namespace: &Namespace, manager: &str) -> bool {
    let synced = match (namespace.last_write(manager), namespace.last_write(labels::FIELD_MANAGER)) {
        (Some(theirs), Some(ours)) => theirs > ours,
        _ => false,
    };
    // Server-side apply of a value that is there already gives the manager the label again and leaves its time as it was.
    // Our write took the label from it, so it has applied the value since. Argo CD may apply the live value.
    let co_owns = revision_owner(namespace)
        .is_some_and(|owner| owner.applies && owner.name == manager && applies_what_git_says(manager));
    synced || co_owns
}

/// The tool by which Git has shown that it has the label of a namespace as it is: one that owns the label, or owned it before the run, and
/// has written the namespace after us. Where we never wrote, who owns the label put it there.
pub fn git_agrees_by(namespace: &Namespace) -> Option<&str> {
    let owner = revision_owner(namespace).map(|owner| owner.name.as_str());
    let before = namespace.previous.as_ref().and_then(|previous| previous.manager.as_deref());
    let mut tools = [owner, before].into_iter().flatten().filter(|manager| deploys_again(manager));
    let untouched = namespace.last_write(labels::FIELD_MANAGER).is_none();
    tools.find(|tool| has_synced(namespace, tool) || (untouched && owner == Some(*tool)))
}

/// The check `LabelOwners`.
pub(super) fn find(input: &CheckInput<'_>) -> Finding {
    let mut owned: BTreeMap<Tool, Vec<&Namespace>> = BTreeMap::new();
    for namespace in planned(input) {
        if let Some(tool) = revision_owner(namespace).and_then(|manager| tool(&manager.name)) {
            owned.entry(tool).or_default().push(namespace);
        }
    }
    if owned.is_empty() {
        return Finding::Nothing;
    }
    let found: Vec<String> =
        owned.into_iter().map(|(tool, namespaces)| advice(input, tool, &namespaces)).collect();
    Finding::Warning(found.join(". "))
}

fn advice(input: &CheckInput<'_>, tool: Tool, namespaces: &[&Namespace]) -> String {
    let names: Vec<&str> = namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    let names = some_of(&names);
    let label = labels::REVISION;
    let target = input.target;
    let pointers = if namespaces.iter().any(|namespace| namespace.labels.contains_key(labels::INJECTION)) {
        format!("{REVISION_POINTER}, {INJECTION_POINTER}")
    } else {
        REVISION_POINTER.to_owned()
    };
    match tool {
        Tool::ArgoCd => format!(
            "{names}: Argo CD owns {label} and would put it back. Until Git says {target}, add to the Application \
             spec.ignoreDifferences: [{{kind: Namespace, jsonPointers: [{pointers}]}}] and spec.syncPolicy.syncOptions: \
             [RespectIgnoreDifferences=true]"
        ),
        Tool::FluxKustomize => format!(
            "{names}: Flux owns {label} and would put it back. Until Git says {target}, add to the Kustomization spec.ignore: \
             [{{paths: [{pointers}], target: {{kind: Namespace}}}}] (before kustomize-controller 1.9: set the annotation \
             kustomize.toolkit.fluxcd.io/ssa: IfNotPresent on the Namespace in Git)"
        ),
        Tool::FluxHelm => format!(
            "{names}: Flux owns {label} through a HelmRelease and would put it back. Until its values say {target}, add to the \
             HelmRelease spec.driftDetection.ignore: [{{paths: [{pointers}], target: {{kind: Namespace}}}}]"
        ),
        Tool::Helm => format!(
            "{names}: Helm owns {label}, and its next upgrade may put it back: set it to {target} in the chart's values before \
             that"
        ),
        Tool::Kubectl => format!(
            "{names}: kubectl wrote {label}: if a file or a script does so again, set it to {target} there before that"
        ),
    }
}

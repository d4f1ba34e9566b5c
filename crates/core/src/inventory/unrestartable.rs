//! Workloads that we cannot restart, and what a person does about each.

use crate::budget::{self, budget_verdict};
use crate::census::is_gateway_api;
use crate::gateways;
use crate::injection::{Injection, NoInjection, injection};
use crate::intent::Intent;
use crate::labels;
use crate::observed::{Snapshot, Strategy, Workload};
use crate::plan::Unrestartable;

/// Why a workload cannot be restarted by us, with what a person does about it; `None` when it can.
pub fn unrestartable(intent: &Intent, snapshot: &Snapshot, workload: &Workload) -> Option<Unrestartable> {
    let reference = &workload.reference;
    let because = |reason: &'static str, message: String| {
        Some(Unrestartable { workload: reference.clone(), reason, message })
    };
    let restart_by_hand = reference.restart_command();
    if gateways::of_workload(snapshot, workload).is_some() {
        // Its istiod rolls it, by whatever strategy, and makes its template anew.
        return budget_never(intent, snapshot, workload)
            .and_then(|message| because("BudgetNeverMet", message));
    }
    if is_gateway_api(&workload.template.labels) {
        return because(
            "GatewayApiManaged",
            format!(
                "istiod manages it for a Gateway of the Gateway API: it moves when the Gateway's label {} or its \
                 namespace's changes",
                labels::REVISION
            ),
        );
    }
    if let Some(elsewhere) = workload.argo.as_ref().and_then(|argo| argo.template_of.as_ref()) {
        return because(
            "TemplateElsewhere",
            format!(
                "its pod template is that of {elsewhere}, which MeshUpgrade does not read, so that nobody knows which sidecar \
                 its new pods get: {restart_by_hand} once the labels of its namespace are changed"
            ),
        );
    }
    if manual_proxy(snapshot, workload) {
        return because(
            "ManualInjection",
            "its template brings its own istio-proxy: a restart does not change it; inject it again and apply it".into(),
        );
    }
    if let Some(owner) = &workload.controller {
        return because(
            "OwnedByController",
            format!(
                "{} {} owns it and would undo a restart: restart it through its owner",
                owner.kind, owner.name
            ),
        );
    }
    if workload.paused {
        return because(
            "Paused",
            format!(
                "its rollouts are paused: kubectl rollout resume deployment {} -n {}",
                reference.name, reference.namespace
            ),
        );
    }
    match workload.strategy {
        Strategy::OnDelete => because(
            "OnDelete",
            format!(
                "its pods change only when they are deleted: {restart_by_hand}, then delete its pods one by one"
            ),
        ),
        Strategy::Partitioned { partition } if partition > 0 => because(
            "Partitioned",
            format!(
                "pods below ordinal {partition} keep the old template: set the partition to 0, or {restart_by_hand} and delete them"
            ),
        ),
        _ => match budget_never(intent, snapshot, workload) {
            Some(message) => because("BudgetNeverMet", message),
            None => None,
        },
    }
}

fn budget_never(intent: &Intent, snapshot: &Snapshot, workload: &Workload) -> Option<String> {
    // Argo Rollouts evicts, and evictions heed budgets whatever we are told.
    if !intent.restart.respect_budgets && workload.argo.is_none() {
        return None;
    }
    let budgets = snapshot.budgets.get(&workload.reference.namespace)?;
    match budget_verdict(workload, budgets, &[]) {
        budget::Verdict::Never(message) => Some(message),
        budget::Verdict::Allowed | budget::Verdict::Wait(_) => None,
    }
}

/// Whether the pod template brings a proxy of its own, so that no injector adds one.
pub fn manual_proxy(snapshot: &Snapshot, workload: &Workload) -> bool {
    snapshot.namespaces.get(&workload.reference.namespace).is_some_and(|namespace| {
        matches!(
            injection(&snapshot.webhooks, &namespace.name, &namespace.labels, &workload.template.shape()),
            Injection::None(NoInjection::OwnProxy)
        )
    })
}

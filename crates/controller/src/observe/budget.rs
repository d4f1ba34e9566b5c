//! Pod disruption budgets.

use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::observed::DisruptionBudget;
use serde::Deserialize;

use super::Observed;
use crate::slim::{self, RawIntOrPercent, RawSelector, Slim, count};

/// A `PodDisruptionBudget`, as far as it is parsed.
pub type RawBudget = Slim<BudgetSpec, BudgetStatus>;

slim::resource!(
    RawBudget,
    NamespaceResourceScope,
    "policy",
    "v1",
    "PodDisruptionBudget",
    "poddisruptionbudgets"
);

/// `spec` of a budget.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetSpec {
    selector: Option<RawSelector>,
    min_available: Option<RawIntOrPercent>,
    max_unavailable: Option<RawIntOrPercent>,
}

/// `status` of a budget.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    observed_generation: i64,
    expected_pods: i64,
    disruptions_allowed: i64,
}

impl Observed for RawBudget {
    type Key = (NamespaceName, String);
    type Value = DisruptionBudget;

    fn key(&self) -> Self::Key {
        (
            self.metadata.namespace.clone().unwrap_or_default().into(),
            self.metadata.name.clone().unwrap_or_default(),
        )
    }

    fn observe(self) -> Option<DisruptionBudget> {
        let Slim { metadata, spec, status } = self;
        Some(DisruptionBudget {
            name: metadata.name.unwrap_or_default(),
            selector: spec.selector.map(Into::into),
            min_available: spec.min_available.and_then(|raw| raw.value()),
            max_unavailable: spec.max_unavailable.and_then(|raw| raw.value()),
            observed: status.observed_generation > 0
                && metadata.generation.is_some_and(|generation| status.observed_generation >= generation),
            expected_pods: count(status.expected_pods),
            disruptions_allowed: count(status.disruptions_allowed),
        })
    }
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::observed::IntOrPercent;
    use serde_json::{Value, json};

    use super::*;

    fn observe(spec: &Value, status: &Value) -> DisruptionBudget {
        let value = json!({
            "metadata": {"name": "web", "namespace": "shop", "generation": 2}, "spec": spec, "status": status,
        });
        serde_json::from_value::<RawBudget>(value).unwrap().observe().unwrap()
    }

    #[test]
    fn a_budget_is_read() {
        let budget = observe(
            &json!({"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}}),
            &json!({"observedGeneration": 2, "expectedPods": 4, "disruptionsAllowed": 2, "currentHealthy": 4}),
        );
        assert_eq!(budget.min_available, Some(IntOrPercent::Percent(50)));
        assert_eq!(budget.max_unavailable, None);
        assert!(budget.observed);
        assert_eq!((budget.expected_pods, budget.disruptions_allowed), (4, 2));
        assert!(budget.selector.unwrap().matches(&[("app".to_owned(), "web".to_owned())].into()));
    }

    #[test]
    fn a_status_of_an_older_spec_is_not_observed() {
        assert!(!observe(&json!({}), &json!({"observedGeneration": 1})).observed);
        assert!(!observe(&json!({}), &json!({})).observed);
    }

    #[test]
    fn no_selector_selects_nothing_and_an_empty_one_everything() {
        assert_eq!(observe(&json!({}), &json!({})).selector, None);
        assert!(observe(&json!({"selector": {}}), &json!({})).selector.unwrap().matches(&[].into()));
    }
}

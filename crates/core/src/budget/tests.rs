use proptest::prelude::{any, prop_assert, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

use super::*;
use crate::ids::WorkloadRef;
use crate::observed::{PodTemplate, RolloutStatus};
use crate::selector::LabelSelector;

fn rolling(unavailable: IntOrPercent, surge: IntOrPercent) -> Strategy {
    Strategy::RollingUpdate { max_unavailable: unavailable, max_surge: surge }
}

fn number(value: u32) -> IntOrPercent {
    IntOrPercent::Int(value)
}

fn percent(value: u32) -> IntOrPercent {
    IntOrPercent::Percent(value)
}

fn workload(kind: WorkloadKind, name: &str, replicas: u32, strategy: Strategy) -> Workload {
    Workload {
        reference: WorkloadRef::new(kind, "shop", name),
        uid: "u".into(),
        generation: 1,
        controller: None,
        managers: Vec::new(),
        replicas,
        strategy,
        paused: false,
        ordered: false,
        rollout: RolloutStatus::default(),
        argo: None,
        template: PodTemplate {
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..PodTemplate::default()
        },
    }
}

fn deployment(replicas: u32, unavailable: IntOrPercent, surge: IntOrPercent) -> Workload {
    workload(WorkloadKind::Deployment, "web", replicas, rolling(unavailable, surge))
}

fn budget(name: &str, expected: u32, allowed: u32) -> DisruptionBudget {
    DisruptionBudget {
        name: name.to_owned(),
        selector: Some(LabelSelector {
            match_labels: [("app".to_owned(), "web".to_owned())].into(),
            ..LabelSelector::default()
        }),
        observed: true,
        expected_pods: expected,
        disruptions_allowed: allowed,
        ..DisruptionBudget::default()
    }
}

fn min(name: &str, available: IntOrPercent, expected: u32, allowed: u32) -> Arc<DisruptionBudget> {
    let mut budget = budget(name, expected, allowed);
    budget.min_available = Some(available);
    Arc::new(budget)
}

fn max(name: &str, unavailable: IntOrPercent, expected: u32, allowed: u32) -> Arc<DisruptionBudget> {
    let mut budget = budget(name, expected, allowed);
    budget.max_unavailable = Some(unavailable);
    Arc::new(budget)
}

#[test]
fn a_deployment_takes_away_what_its_strategy_rounds_down_to() {
    assert_eq!(strategy_disruption(&deployment(10, percent(25), percent(25))), 2);
    assert_eq!(strategy_disruption(&deployment(3, percent(25), percent(25))), 0);
    assert_eq!(strategy_disruption(&deployment(3, percent(25), number(0))), 1);
    assert_eq!(strategy_disruption(&deployment(3, number(9), number(0))), 3);
    assert_eq!(strategy_disruption(&deployment(0, percent(25), number(0))), 0);
}

#[test]
fn recreate_takes_all_and_on_delete_takes_none() {
    let take = |strategy| strategy_disruption(&workload(WorkloadKind::Deployment, "web", 4, strategy));
    assert_eq!(take(Strategy::Recreate), 4);
    assert_eq!(take(Strategy::OnDelete), 0);
}

#[test]
fn a_stateful_set_takes_at_least_one() {
    let take = |strategy| strategy_disruption(&workload(WorkloadKind::StatefulSet, "db", 5, strategy));
    assert_eq!(take(rolling(number(1), number(0))), 1);
    assert_eq!(take(rolling(percent(10), number(0))), 1);
    assert_eq!(take(rolling(percent(50), number(0))), 2);
    assert_eq!(take(Strategy::Partitioned { partition: 2 }), 1);
    assert_eq!(take(Strategy::Partitioned { partition: 5 }), 0);
}

#[test]
fn a_daemon_set_rounds_up_and_takes_none_when_it_surges() {
    let take = |strategy| strategy_disruption(&workload(WorkloadKind::DaemonSet, "agent", 9, strategy));
    assert_eq!(take(rolling(percent(25), number(0))), 3);
    assert_eq!(take(rolling(number(0), number(0))), 1);
    assert_eq!(take(rolling(number(0), number(2))), 0);
}

#[test]
fn without_a_budget_the_strategy_counts_as_accepted() {
    let web = workload(WorkloadKind::Deployment, "web", 3, Strategy::Recreate);
    assert_eq!(budget_verdict(&web, &[], &[]), Verdict::Allowed);
    let mut elsewhere = budget("other", 3, 0);
    elsewhere.selector = None;
    assert_eq!(budget_verdict(&web, &[Arc::new(elsewhere)], &[]), Verdict::Allowed);
}

#[test]
fn a_strategy_that_takes_nothing_is_always_allowed() {
    let web = deployment(3, number(0), number(1));
    assert_eq!(budget_verdict(&web, &[min("tight", percent(100), 3, 0)], &[]), Verdict::Allowed);
    let mut unseen = budget("unseen", 0, 0);
    unseen.observed = false;
    assert_eq!(budget_verdict(&web, &[Arc::new(unseen)], &[]), Verdict::Allowed);
}

#[test]
fn the_empty_selector_selects_every_pod() {
    let web = deployment(3, number(1), number(0));
    let mut all = budget("all", 3, 0);
    all.selector = Some(LabelSelector::default());
    all.max_unavailable = Some(number(1));
    assert!(matches!(budget_verdict(&web, &[Arc::new(all)], &[]), Verdict::Wait(_)));
}

#[test]
fn shares_of_a_budget_round_up() {
    let web = deployment(3, number(2), number(0));
    // 40 % of 3 is 1.2: 2 must stay with minAvailable, 2 may go with maxUnavailable.
    assert!(matches!(budget_verdict(&web, &[min("b", percent(40), 3, 1)], &[]), Verdict::Never(_)));
    assert_eq!(budget_verdict(&web, &[max("b", percent(40), 3, 2)], &[]), Verdict::Allowed);
}

#[test]
fn room_for_less_than_the_strategy_takes_means_waiting() {
    let web = deployment(5, number(2), number(0));
    let verdict = budget_verdict(&web, &[max("web-pdb", number(2), 5, 1)], &[]);
    let expected =
        "pod disruption budget web-pdb allows 1 now, and 2 are needed: waits until its pods are healthy";
    assert_eq!(verdict, Verdict::Wait(expected.to_owned()));
}

#[test]
fn a_budget_without_a_status_is_waited_for() {
    let web = deployment(5, number(1), number(0));
    let mut fresh = budget("fresh", 5, 1);
    fresh.max_unavailable = Some(number(1));
    fresh.observed = false;
    let Verdict::Wait(message) = budget_verdict(&web, &[Arc::new(fresh)], &[]) else {
        panic!("must wait");
    };
    assert!(message.contains("kubectl describe poddisruptionbudget fresh -n shop"), "{message}");
}

#[test]
fn a_budget_that_can_never_be_met_names_both_remedies() {
    let db = workload(WorkloadKind::StatefulSet, "db", 1, rolling(number(1), number(0)));
    let verdict = budget_verdict(&db, &[min("db-pdb", number(1), 1, 0)], &[]);
    let expected = "pod disruption budget db-pdb wants 1 of 1 pods healthy, and a rollout of StatefulSet db may take 1 \
                    away: kubectl scale statefulset db -n shop --replicas=2, or kubectl edit poddisruptionbudget db-pdb \
                    -n shop";
    assert_eq!(verdict, Verdict::Never(expected.to_owned()));
}

#[test]
fn scaling_is_no_remedy_where_it_does_not_help() {
    let db = workload(WorkloadKind::StatefulSet, "db", 1, rolling(number(1), number(0)));
    let Verdict::Never(message) = budget_verdict(&db, &[max("db-pdb", number(0), 1, 0)], &[]) else {
        panic!("never");
    };
    assert!(!message.contains("scale"), "{message}");
    assert!(message.ends_with("kubectl edit poddisruptionbudget db-pdb -n shop"), "{message}");
}

#[test]
fn a_budget_that_sets_neither_field_allows_nothing() {
    let web = deployment(3, number(1), number(0));
    assert!(matches!(budget_verdict(&web, &[Arc::new(budget("b", 3, 0))], &[]), Verdict::Never(_)));
}

#[test]
fn pods_that_are_not_there_yet_do_not_make_a_budget_hopeless() {
    let web = deployment(5, number(1), number(0));
    assert!(matches!(budget_verdict(&web, &[min("b", number(3), 2, 0)], &[]), Verdict::Wait(_)));
}

#[test]
fn kubernetes_never_computes_some_budgets_for_a_daemon_set() {
    let agent = workload(WorkloadKind::DaemonSet, "agent", 5, rolling(number(1), number(0)));
    let mut unseen = budget("b", 0, 0);
    unseen.max_unavailable = Some(number(2));
    unseen.observed = false;
    assert!(matches!(budget_verdict(&agent, &[Arc::new(unseen)], &[]), Verdict::Never(_)));
    assert_eq!(budget_verdict(&agent, &[min("b", number(4), 5, 1)], &[]), Verdict::Allowed);
}

#[test]
fn every_budget_must_hold_and_never_outweighs_waiting() {
    let web = deployment(4, number(1), number(0));
    let fine = max("fine", number(2), 4, 2);
    let busy = max("busy", number(1), 4, 0);
    let hopeless = min("hopeless", percent(100), 4, 0);
    assert_eq!(budget_verdict(&web, std::slice::from_ref(&fine), &[]), Verdict::Allowed);
    let verdict = budget_verdict(&web, &[fine.clone(), busy.clone()], &[]);
    assert!(matches!(verdict, Verdict::Wait(message) if message.contains("busy")));
    let verdict = budget_verdict(&web, &[busy, fine, hopeless], &[]);
    assert!(matches!(verdict, Verdict::Never(message) if message.contains("hopeless")));
}

#[test]
fn open_rollouts_use_up_the_same_budget() {
    let web = deployment(4, number(1), number(0));
    let mut other = web.clone();
    other.reference.name = "other".to_owned();
    let shared = max("shared", number(2), 8, 2);
    let shared = std::slice::from_ref(&shared);
    assert_eq!(budget_verdict(&web, shared, &[&other]), Verdict::Allowed);
    // Pods on top seem to make room, and it is gone when they are.
    other.strategy = rolling(number(1), number(1));
    assert!(matches!(budget_verdict(&web, shared, &[&other]), Verdict::Wait(_)));
    let last = max("last", number(2), 8, 1);
    assert_eq!(budget_verdict(&web, &[last], &[&web]), Verdict::Allowed);
    other.template.labels.clear();
    assert_eq!(budget_verdict(&web, shared, &[&other]), Verdict::Allowed);
}

#[test]
fn pods_on_top_of_other_rollouts_make_no_room_beyond_that_of_the_budget() {
    let web = deployment(4, number(2), number(0));
    let mut other = deployment(4, number(1), number(0));
    other.reference.name = "other".to_owned();
    let surging = max("shared", number(2), 8, 3);
    assert!(matches!(budget_verdict(&web, &[surging], &[&other]), Verdict::Wait(_)));
}

fn amount() -> impl Generator<Value = IntOrPercent> {
    prop_oneof![(0u32..6).prop_map(IntOrPercent::Int), (0u32..=100).prop_map(IntOrPercent::Percent)]
}

fn some_workloads() -> impl Generator<Value = Vec<Workload>> {
    let one = (0u32..8, amount(), amount(), 0u8..3).prop_map(|(replicas, unavailable, surge, kind)| {
        let kind = match kind {
            0 => WorkloadKind::Deployment,
            1 => WorkloadKind::StatefulSet,
            _ => return workload(WorkloadKind::Deployment, "", replicas, Strategy::Recreate),
        };
        workload(kind, "", replicas, rolling(unavailable, surge))
    });
    proptest::collection::vec(one, 1..6).prop_map(|mut workloads| {
        for (index, workload) in workloads.iter_mut().enumerate() {
            workload.reference.name = format!("w{index}");
        }
        workloads
    })
}

/// The status that Kubernetes' disruption controller writes for `healthy` of `expected` pods.
fn status(mut budget: DisruptionBudget, expected: u32, healthy: u32) -> Arc<DisruptionBudget> {
    budget.expected_pods = expected;
    let allowed = healthy.saturating_sub(desired_healthy(&budget, expected));
    budget.disruptions_allowed = if expected == 0 { 0 } else { allowed };
    Arc::new(budget)
}

fn some_budget() -> impl Generator<Value = DisruptionBudget> {
    (amount(), any::<bool>()).prop_map(|(amount, min)| {
        let mut budget = budget("shared", 0, 0);
        if min {
            budget.min_available = Some(amount);
        } else {
            budget.max_unavailable = Some(amount);
        }
        budget
    })
}

proptest! {
    /// Whatever was opened one after the other, and whichever of the pods that may go and that may come are gone and
    /// there when the budget was computed: in the worst case the wanted number stays healthy.
    #[test]
    fn what_is_allowed_together_never_breaks_a_shared_budget(
        workloads in some_workloads(),
        budget in some_budget(),
        broken in 0u32..4,
        gone in 0u32..=100,
        extra in 0u32..=100,
    ) {
        let expected: u32 = workloads.iter().map(|workload| workload.replicas).sum();
        let healthy = expected.saturating_sub(broken);
        let desired = desired_healthy(&budget, expected);
        let mut open: Vec<&Workload> = Vec::new();
        for workload in &workloads {
            let taken = percent(gone).of_rounded_down(open.iter().map(|open| strategy_disruption(open)).sum());
            let added = percent(extra).of_rounded_down(open.iter().map(|open| strategy_surge(open)).sum());
            let now = status(budget.clone(), expected, healthy.saturating_sub(taken) + added);
            if strategy_disruption(workload) > 0 && budget_verdict(workload, &[now], &open) == Verdict::Allowed {
                open.push(workload);
            }
        }
        let worst: u32 = open.iter().map(|open| strategy_disruption(open)).sum();
        prop_assert!(open.is_empty() || healthy.saturating_sub(worst) >= desired);
    }

    #[test]
    fn one_more_open_rollout_never_helps(workloads in some_workloads(), budget in some_budget()) {
        let expected: u32 = workloads.iter().map(|workload| workload.replicas).sum();
        let now = [status(budget, expected, expected)];
        let (first, others) = workloads.split_first().unwrap();
        let mut open: Vec<&Workload> = Vec::new();
        let mut allowed = true;
        for other in others {
            let verdict = budget_verdict(first, &now, &open);
            prop_assert!(allowed || verdict != Verdict::Allowed);
            allowed = verdict == Verdict::Allowed;
            open.push(other);
        }
    }

    /// "Never" is exactly: not even when everything is healthy and nothing else is open.
    #[test]
    fn never_means_not_even_at_the_best_of_times(workloads in some_workloads(), budget in some_budget()) {
        let expected: u32 = workloads.iter().map(|workload| workload.replicas).sum();
        let now = [status(budget, expected, expected)];
        for workload in &workloads {
            let verdict = budget_verdict(workload, &now, &[]);
            prop_assert!(!matches!(verdict, Verdict::Wait(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_strategy_never_takes_more_than_there_is(workloads in some_workloads()) {
        for workload in &workloads {
            prop_assert!(strategy_disruption(workload) <= workload.replicas);
        }
    }
}

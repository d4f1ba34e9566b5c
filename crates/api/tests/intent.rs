//! From a manifest to the intent: defaults, and every field of the spec.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use meshupgrade_api::structure::parse;
use meshupgrade_core::ids::{NamespaceName, Revision};
use meshupgrade_core::intent::{
    CompletionMode, Intent, OnFailure, RestartIntent, RollbackControlPlane, RunningJobs, WaveSelect,
};
use meshupgrade_core::observed::IntOrPercent;

fn intent(fixture: &str) -> Intent {
    let path = format!("{}/tests/fixtures/valid/{fixture}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut upgrade = parse(serde_saphyr::from_str(&text).unwrap()).unwrap();
    upgrade.metadata.uid = Some("u-1".to_owned());
    upgrade.metadata.generation = Some(7);
    upgrade.metadata.annotations = Some([("meshupgrade.io/retry".to_owned(), "2".to_owned())].into());
    upgrade.intent().unwrap()
}

#[test]
fn defaults_are_the_safe_choice() {
    let intent = intent("minimal");
    assert_eq!(intent.name, "mesh");
    assert_eq!(intent.uid.as_str(), "u-1");
    assert_eq!(intent.generation, 7);
    assert_eq!(intent.retry.as_deref(), Some("2"));
    assert_eq!(intent.target.as_str(), "asm-1-28");
    assert_eq!(intent.source, None);
    assert_eq!(intent.run_id, "");
    assert_eq!(intent.istio_namespace.as_str(), "istio-system");
    assert_eq!(intent.settle_seconds, 30);
    assert_eq!(
        intent.restart,
        RestartIntent {
            timeout_seconds: 600,
            pause_seconds: 0,
            respect_budgets: true,
            grace_seconds: 300,
            running_jobs: RunningJobs::Wait,
            max_failed_workloads: 0,
            progress_deadline_seconds: None,
        }
    );
    assert!(!intent.suspend && !intent.plan_only && !intent.rollback_requested);
    assert_eq!(intent.on_failure, OnFailure::Pause);
    assert_eq!(intent.rollback_control_plane, RollbackControlPlane::Remove);
    assert_eq!(intent.completion.mode, CompletionMode::Manual);
    assert_eq!(intent.completion.soak_seconds, 0);
    assert!(intent.skip_checks.is_empty());
    let [wave] = &intent.waves[..] else { panic!("one wave of everything: {:?}", intent.waves) };
    assert_eq!(wave.select, WaveSelect::Rest);
    assert_eq!(wave.max_concurrent_workloads, IntOrPercent::Int(1));
    assert_eq!(wave.soak_seconds, 0);
}

#[test]
fn every_field_arrives() {
    let intent = intent("everything");
    assert_eq!(intent.source.as_ref().map(Revision::as_str), Some("asm-1-27"));
    assert_eq!(intent.run_id, "change-4711");
    assert_eq!(intent.istio_namespace.as_str(), "istio-control");
    assert_eq!(intent.settle_seconds, 3600);
    assert!(!intent.restart.respect_budgets);
    assert_eq!(intent.restart.timeout_seconds, 86_400);
    assert_eq!(intent.restart.pause_seconds, 10);
    assert!(intent.suspend && intent.plan_only);
    assert_eq!(intent.on_failure, OnFailure::Automatic);
    assert_eq!(intent.rollback_control_plane, RollbackControlPlane::Keep);
    assert_eq!(intent.completion.mode, CompletionMode::Keep);
    assert_eq!(intent.completion.soak_seconds, 2_592_000);
    let skipped: Vec<_> = intent.skip_checks.iter().map(String::as_str).collect();
    assert_eq!(skipped, ["GitAgrees", "LabelOwners"]);

    let [canary, early, rest] = &intent.waves[..] else { panic!("three waves: {:?}", intent.waves) };
    let names = ["demo", "sandbox"].map(NamespaceName::from);
    assert_eq!(canary.select, WaveSelect::Names(names.into()));
    assert_eq!(canary.max_concurrent_workloads, IntOrPercent::Int(100));
    assert_eq!(canary.soak_seconds, 2_592_000);
    assert_eq!(early.max_concurrent_workloads, IntOrPercent::Percent(100));
    assert_eq!(rest.select, WaveSelect::Rest);
    assert_eq!(rest.max_concurrent_workloads, IntOrPercent::Percent(1));

    let WaveSelect::Selector(selector) = &early.select else { panic!("a selector: {:?}", early.select) };
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let base = [("team", "payments"), ("empty", ""), ("example.com/tier", "web"), ("example.com/ready", "")];
    assert!(selector.matches(&labels(&base)));
    for broken in 0..base.len() {
        let mut fewer = base.to_vec();
        fewer.remove(broken);
        assert!(!selector.matches(&labels(&fewer)), "without {:?}", base[broken]);
    }
    let mut frozen = base.to_vec();
    frozen.push(("frozen", "yes"));
    assert!(!selector.matches(&labels(&frozen)));
}

use super::*;
use crate::ids::WorkloadRef;
use crate::observed::{IntOrPercent, PodTemplate, RolloutStatus, Strategy};
use crate::record::Batch;
use crate::rollout::rollout;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn web(argo: ArgoRollout) -> Workload {
    Workload {
        reference: WorkloadRef::new(WorkloadKind::Rollout, "shop", "web"),
        uid: "u".into(),
        generation: 2,
        controller: None,
        managers: Vec::new(),
        replicas: 3,
        strategy: Strategy::RollingUpdate {
            max_unavailable: IntOrPercent::Percent(25),
            max_surge: IntOrPercent::Int(0),
        },
        paused: false,
        ordered: false,
        rollout: RolloutStatus {
            observed_generation: 2,
            current: 3,
            updated: 3,
            ready: 3,
            available: 3,
            ..RolloutStatus::default()
        },
        template: PodTemplate::default(),
        argo: Some(argo),
    }
}

fn in_phase(phase: ArgoPhase, message: &str) -> Workload {
    web(ArgoRollout { phase, message: message.to_owned(), ..ArgoRollout::default() })
}

fn created(text: &str) -> Pod {
    Pod { created: Some(at(text)), ..Pod::default() }
}

fn entry(restart_at: Option<&str>) -> BatchEntry {
    BatchEntry {
        workload: WorkloadRef::new(WorkloadKind::Rollout, "shop", "web"),
        uid: "u".into(),
        since: Timestamp::UNIX_EPOCH,
        timed_out: false,
        troubled_since: None,
        restart_at: restart_at.map(at),
    }
}

#[test]
fn the_time_of_a_restart_is_the_next_full_second() {
    let healthy = in_phase(ArgoPhase::Healthy, "");
    let time = |now: &str| restart_at(at(now), &healthy, &[]).unwrap();
    // A pod that was created within this second says that it was created when it began.
    assert_eq!(time("2026-03-01T10:00:00.4Z"), at("2026-03-01T10:00:01Z"));
    assert_eq!(time("2026-03-01T10:00:00Z"), at("2026-03-01T10:00:01Z"));
    let mut deployment = healthy.clone();
    deployment.reference.kind = WorkloadKind::Deployment;
    assert_eq!(restart_at(at("2026-03-01T10:00:00Z"), &deployment, &[]), None);
}

#[test]
fn pods_of_a_faster_clock_are_older_than_the_restart_too() {
    let healthy = in_phase(ArgoPhase::Healthy, "");
    let ahead = created("2026-03-01T10:00:07Z");
    let mut ending = created("2026-03-01T11:00:00Z");
    ending.deletion = Some(Timestamp::UNIX_EPOCH);
    let time = restart_at(at("2026-03-01T10:00:00Z"), &healthy, &[&ahead, &ending]);
    assert_eq!(time, Some(at("2026-03-01T10:00:08Z")));
}

#[test]
fn a_second_restart_within_a_second_is_another_one() {
    let mut web = in_phase(ArgoPhase::Healthy, "");
    web.argo.as_mut().unwrap().restart_at = Some(at("2026-03-01T10:00:01Z"));
    assert_eq!(restart_at(at("2026-03-01T10:00:00.9Z"), &web, &[]), Some(at("2026-03-01T10:00:02Z")));
}

#[test]
fn a_later_restart_of_somebody_else_is_as_good_as_ours() {
    let asked = |text: &str| ArgoRollout { restart_at: Some(at(text)), ..ArgoRollout::default() };
    let ours = entry(Some("2026-03-01T10:00:01Z"));
    assert!(is_due(&asked("2026-03-01T10:00:01Z"), &ours));
    assert!(is_due(&asked("2026-03-01T10:00:05Z"), &ours));
    assert!(!is_due(&asked("2026-03-01T10:00:00Z"), &ours));
    assert!(!is_due(&ArgoRollout::default(), &ours));
    assert!(!is_due(&ArgoRollout::default(), &entry(None)), "nothing was decided yet");
    assert!(!was_done(&ArgoRollout::default(), &entry(None)));
    let done = ArgoRollout { restarted_at: Some(at("2026-03-01T10:00:01Z")), ..ArgoRollout::default() };
    assert!(was_done(&done, &ours));
}

#[test]
fn only_pods_that_came_after_the_restart_are_new() {
    let mut web = in_phase(ArgoPhase::Healthy, "");
    assert!(!is_newest(&created("2026-03-01T10:00:00Z"), &web), "it was never restarted");
    assert!(!was_restarted(&web));
    web.argo.as_mut().unwrap().restart_at = Some(at("2026-03-01T10:00:01Z"));
    assert!(is_newest(&created("2026-03-01T10:00:01Z"), &web));
    assert!(!is_newest(&created("2026-03-01T10:00:00Z"), &web));
    assert!(was_restarted(&web));
    assert!(restarted_since(&web, Some(at("2026-03-01T09:00:00Z"))));
    assert!(!restarted_since(&web, Some(at("2026-03-01T11:00:00Z"))));
    assert!(!restarted_since(&web, None));
}

#[test]
fn only_a_healthy_rollout_with_all_its_pods_is_done() {
    assert_eq!(rollout(&in_phase(ArgoPhase::Healthy, "")), Rollout::Done);
    let mut web = in_phase(ArgoPhase::Healthy, "");
    web.rollout.available = 2;
    assert_eq!(rollout(&web), Rollout::InProgress("2 of 3 pods available".to_owned()));
    web.rollout.updated = 1;
    assert_eq!(rollout(&web), Rollout::InProgress("1 of 3 pods updated".to_owned()));
    // Blue-green: the old pods stay for scaleDownDelaySeconds.
    let mut web = in_phase(ArgoPhase::Healthy, "");
    web.rollout.current = 6;
    assert_eq!(rollout(&web), Rollout::Done);
    web.rollout.observed_generation = 1;
    assert!(matches!(rollout(&web), Rollout::InProgress(_)), "its phase speaks of the generation before");
}

#[test]
fn other_phases_say_what_a_person_does() {
    assert_eq!(
        rollout(&in_phase(ArgoPhase::Paused, "CanaryPauseStep")),
        Rollout::InProgress(
            "it is paused (CanaryPauseStep): kubectl argo rollouts promote web -n shop".to_owned()
        )
    );
    assert_eq!(
        rollout(&in_phase(ArgoPhase::Degraded, "RolloutAborted: by hand")),
        Rollout::Stuck(
            "it is degraded (RolloutAborted: by hand): kubectl argo rollouts get rollout web -n shop"
                .to_owned()
        )
    );
    assert_eq!(
        rollout(&in_phase(ArgoPhase::Progressing, "")),
        Rollout::InProgress("it is not healthy yet".to_owned())
    );
}

#[test]
fn a_paused_rollout_rests_unless_a_restart_is_to_come() {
    let mut web = in_phase(ArgoPhase::Paused, "CanaryPauseStep");
    assert!(rests(&web));
    web.argo.as_mut().unwrap().restart_at = Some(at("2026-03-01T10:00:01Z"));
    assert!(!rests(&web));
    web.argo.as_mut().unwrap().restarted_at = Some(at("2026-03-01T10:00:01Z"));
    assert!(rests(&web));
    web.generation = 3;
    assert!(!rests(&web));
    assert!(!rests(&in_phase(ArgoPhase::Healthy, "")));
}

#[test]
fn the_time_is_stored_in_whole_seconds_and_older_records_have_none() {
    let batch = Batch { entries: vec![entry(Some("2026-03-01T10:00:01Z"))], ..Batch::default() };
    let json = serde_json::to_value(&batch).unwrap();
    assert_eq!(json["entries"][0]["restartAt"], "2026-03-01T10:00:01Z");
    assert_eq!(json["entries"][0]["kind"], "Rollout");
    let old = serde_json::json!({"kind": "Deployment", "namespace": "a", "name": "b", "uid": "c",
        "since": "2026-03-01T10:00:00Z"});
    assert_eq!(serde_json::from_value::<BatchEntry>(old).unwrap().restart_at, None);
}

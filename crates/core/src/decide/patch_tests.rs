//! Patch upgrades: source and target are one revision, and what decides is the image of the proxies.

use serde_json::json;

use super::decide;
use super::tests::{app, at, entry, pod, run, stored, two_waves};
use crate::census::Census;
use crate::check::fixture::{Mesh, SOURCE};
use crate::decision::Decision;
use crate::effect::Effect;
use crate::ids::WorkloadRef;
use crate::machine::phase::Phase;
use crate::record::Record;
use crate::wait::WaitReason;

const NEW: &str = "mirror/proxyv2:1.28.2-distroless";
const OLD: &str = "hub/proxyv2:1.28.1";

/// `old` of the namespace `shop` has an older image than the injector gives, `new` has not.
fn patched() -> Mesh {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    mesh.intent.target = SOURCE.into();
    mesh.intent.source = Some(SOURCE.into());
    mesh.plane(SOURCE, |plane| plane.proxy_image = Some("hub/proxyv2:1.28.2".to_owned()));
    for (name, image) in [("old", OLD), ("new", NEW)] {
        app(&mut mesh, "shop", name, |_| {});
        pod(&mut mesh, "shop", name, SOURCE, |pod| pod.proxy.as_mut().unwrap().image = image.to_owned());
    }
    mesh
}

fn in_work(mesh: &Mesh, more: &serde_json::Value) -> Record {
    let mut all = json!({"target": SOURCE, "patch": true, "wave": 1, "step": "Restart"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stored(mesh, Phase::Migrating, &all)
}

fn next(mesh: &Mesh, record: &Record) -> Decision {
    decide(at(100), &mesh.intent, record, &mesh.snapshot)
}

#[test]
fn only_workloads_with_an_outdated_proxy_are_restarted() {
    let mesh = patched();
    let opened = next(&mesh, &in_work(&mesh, &json!({})));
    let entries = &run(&opened).batch.as_ref().unwrap().entries;
    assert_eq!(entries.iter().map(|entry| entry.workload.name.as_str()).collect::<Vec<_>>(), ["old"]);
    let patched = next(&mesh, &opened.record);
    let [Effect::Restart(restart)] = &patched.effects[..] else { panic!("{:?}", patched.effects) };
    assert_eq!(restart.stamp, "u.1.forward.1.1.28.2");
}

#[test]
fn another_image_on_the_way_is_another_restart() {
    let mut mesh = patched();
    let stamp = "u.1.forward.1.1.28.2";
    app(&mut mesh, "shop", "old", |workload| workload.template.restart = Some(stamp.to_owned()));
    let batch =
        json!({"batch": {"number": 1, "entries": [entry("shop", "old", "1970-01-01T00:01:00Z", false)]}});
    let record = in_work(&mesh, &batch);
    assert!(next(&mesh, &record).effects.is_empty(), "it is in rollout");
    mesh.plane(SOURCE, |plane| plane.proxy_image = Some("hub/proxyv2:1.28.3".to_owned()));
    // The other one is outdated now too.
    let joined = next(&mesh, &record);
    assert_eq!(next(&mesh, &joined.record).effects.len(), 2);
}

#[test]
fn no_label_is_written_and_no_settle_time_is_waited_for() {
    let mesh = patched();
    let begun = next(&mesh, &in_work(&mesh, &json!({"wave": 0, "step": "Relabel"})));
    assert!(begun.effects.is_empty());
    assert!(
        run(&begun).batch.is_some()
            || begun.view.blocked.iter().all(|wait| wait.reason != WaitReason::Settling)
    );
}

#[test]
fn nothing_is_taken_for_new_while_the_wanted_image_is_unknown() {
    let mut mesh = patched();
    mesh.plane(SOURCE, |plane| plane.proxy_image = None);
    let decision = next(&mesh, &in_work(&mesh, &json!({})));
    assert_eq!(run(&decision).wave, 1);
    assert!(decision.effects.is_empty());
    assert_eq!(decision.view.blocked[0].reason, WaitReason::InjectorConfigMissing);
}

#[test]
fn an_object_that_was_only_applied_again_is_no_patch() {
    for (source, run_id, patch) in [(Some(SOURCE), "", true), (None, "december", true), (None, "", false)] {
        let mut mesh = patched();
        mesh.intent.source = source.map(Into::into);
        mesh.intent.run_id = run_id.to_owned();
        mesh.snapshot.census =
            Some(std::sync::Arc::new(Census { taken_at: Some(at(99)), ..Census::default() }));
        for namespace in ["shop", "pay"] {
            assert!(mesh.snapshot.namespaces.contains_key(&namespace.into()));
        }
        let decision = next(&mesh, &Record::default());
        assert_eq!(run(&decision).source, SOURCE.into());
        assert_eq!(run(&decision).patch, patch, "{source:?} {run_id:?}");
    }
}

#[test]
fn the_end_needs_a_count_without_outdated_proxies() {
    let mut mesh = patched();
    let record = stored(&mesh, Phase::Completing, &json!({"target": SOURCE, "patch": true, "wave": 2}));
    let counted = |versions: &[(&str, &str)]| {
        let mut census = Census { taken_at: Some(at(100)), ..Census::default() };
        for (name, version) in versions {
            let workload = WorkloadRef::new(crate::ids::WorkloadKind::Deployment, "shop", *name);
            let found = census.versions.entry(SOURCE.into()).or_default().entry(workload).or_default();
            found.insert((*version).to_owned(), 2);
        }
        Some(std::sync::Arc::new(census))
    };
    mesh.snapshot.census = counted(&[("old", "1.28.1"), ("new", "1.28.2")]);
    let again = next(&mesh, &record);
    assert_eq!(run(&again).phase, Phase::Migrating, "{}", again.view.message);
    mesh.snapshot.census = counted(&[("old", "1.28.2"), ("new", "1.28.2")]);
    let done = next(&mesh, &record);
    assert_eq!(run(&done).phase, Phase::Succeeded, "{}", done.view.message);
}

#[test]
fn outdated_proxies_are_reported_long_after_the_run() {
    let mut mesh = patched();
    let ended = json!({"target": SOURCE, "patch": true, "endedAt": "1970-01-01T00:00:50Z"});
    let record = stored(&mesh, Phase::Succeeded, &ended);
    let mut count = Census { taken_at: Some(at(40)), ..Census::default() };
    let workload = WorkloadRef::new(crate::ids::WorkloadKind::Deployment, "shop", "old");
    count.versions.entry(SOURCE.into()).or_default().entry(workload).or_default().insert("1.28.1".into(), 3);
    mesh.snapshot.proxies = Some(std::sync::Arc::new(count.clone()));
    assert_eq!(next(&mesh, &record).view.outdated, None, "counted before the end");
    count.taken_at = Some(at(60));
    mesh.snapshot.proxies = Some(std::sync::Arc::new(count));
    let view = next(&mesh, &record).view;
    let found = view.outdated.unwrap();
    assert_eq!((found.version.as_str(), found.proxies, found.workloads), ("1.28.2", 3, 1));
    assert!(view.message.contains("3 proxies of 1 workloads"), "{}", view.message);
}

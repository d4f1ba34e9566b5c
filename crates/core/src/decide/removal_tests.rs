//! What keeps the target's control plane of the AKS add-on in a rollback: whatever refers to it, and Git.

use serde_json::{Value, json};

use super::aks_tests::{before, decided, reasons};
use super::tests::{at, run, turned_back};
use crate::census::{Reference, ReferenceKind};
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::{FieldManager, Namespace, PreviousLabels};
use crate::record::CloudStep;
use crate::wait::WaitReason;

const NOW: i64 = 1000;
const FLUX: &str = "kustomize-controller";
const ARGO: &str = "argocd-controller";

/// A check, and what makes it fail.
type Use<'a> = (&'a str, &'a dyn Fn(&mut Mesh));

/// Whatever refers to the target, of each kind by itself.
#[test]
fn everything_that_refers_to_the_target_keeps_it_in_a_rollback() {
    let reference = |kind, object_kind: &str| Reference {
        kind,
        object_kind: object_kind.to_owned(),
        namespace: Some("theirs".into()),
        name: "one".to_owned(),
        revision: TARGET.into(),
    };
    let uses: [Use<'_>; 8] = [
        ("NamespacesMoved", &|mesh| mesh.add_namespace("theirs", &[(labels::REVISION, TARGET)])),
        ("PodTemplatesMoved", &|mesh| mesh.add_workload("theirs", "web", &[(labels::REVISION, TARGET)])),
        ("TagsMoved", &|mesh| mesh.add_tag("theirs", TARGET)),
        ("TagsMoved", &|mesh| mesh.add_tag_service("theirs", TARGET)),
        ("GatewaysMoved", &|mesh| {
            mesh.census(|census| census.references.push(reference(ReferenceKind::Gateway, "Gateway")));
        }),
        ("IstioResourcesMoved", &|mesh| {
            let filter = reference(ReferenceKind::IstioResource, "EnvoyFilter");
            mesh.census(|census| census.references.push(filter));
        }),
        ("ProxiesMoved", &|mesh| mesh.proxies("theirs", TARGET, 1)),
        ("NothingUncovered", &|mesh| mesh.census(|census| census.unreadable.push("pods".to_owned()))),
    ];
    let proven = json!({"step": "Proven", "soakSince": "1970-01-01T00:00:00Z", "rollback": turned_back()});
    for (check, make) in uses {
        let mut mesh = before(&[SOURCE, TARGET]);
        mesh.snapshot.webhooks = Mesh::before().snapshot.webhooks;
        mesh.census(|census| census.taken_at = Some(at(NOW)));
        mesh.add_namespace("theirs", &[]);
        assert_eq!(run(&decided(&mesh, Phase::RollingBack, &proven)).cloud, Some(CloudStep::Rollback));
        make(&mut mesh);
        let held = decided(&mesh, Phase::RollingBack, &proven);
        assert_eq!(run(&held).cloud, None, "{check}");
        assert!(held.view.message.contains(check), "{check}: {}", held.view.message);
    }
}

fn wrote(name: &str, second: i64, owns_revision: bool) -> FieldManager {
    FieldManager {
        name: name.to_owned(),
        wrote_at: Some(at(second)),
        owns_revision,
        ..FieldManager::default()
    }
}

fn memory(manager: Option<&str>) -> PreviousLabels {
    PreviousLabels {
        from: SOURCE.into(),
        to: TARGET.into(),
        revision: Some(SOURCE.to_owned()),
        manager: manager.map(ToOwned::to_owned),
        ..PreviousLabels::default()
    }
}

/// A mesh that is going back, with the label of `shop` on a revision, and who wrote it when.
fn shop(revision: &str, managers: &[FieldManager]) -> Mesh {
    let mut mesh = before(&[SOURCE, TARGET]);
    mesh.census(|census| census.taken_at = Some(at(NOW)));
    change(&mut mesh, |shop| {
        shop.labels.insert(labels::REVISION.to_owned(), revision.to_owned());
        shop.managers = managers.to_vec();
    });
    mesh
}

fn change(mesh: &mut Mesh, change: impl FnOnce(&mut Namespace)) {
    mesh.namespace("shop", change);
}

/// What the pass that sets the label back remembers of Git.
fn remembered(mesh: &Mesh) -> Vec<(String, String)> {
    let decision = decided(mesh, Phase::RollingBack, &json!({"rollback": turned_back()}));
    let found = &run(&decision).git_on_target;
    found.iter().map(|(name, tool)| (name.to_string(), tool.clone())).collect()
}

fn proven(git: &Value) -> Value {
    json!({"step": "Proven", "soakSince": "1970-01-01T00:00:00Z", "rollback": turned_back(), "gitOnTarget": git})
}

#[test]
fn that_git_has_the_target_is_remembered_with_the_tool_that_showed_it() {
    let ours = wrote(labels::FIELD_MANAGER, 10, false);
    let shown = shop(TARGET, &[ours.clone(), wrote(FLUX, 20, true)]);
    assert_eq!(remembered(&shown), [("shop".to_owned(), FLUX.to_owned())]);
    // It owned the label before, and a later sync of something else left it in place.
    let mut before = shop(TARGET, &[wrote(labels::FIELD_MANAGER, 10, true), wrote(ARGO, 20, false)]);
    assert!(remembered(&before).is_empty(), "it never had the label");
    change(&mut before, |shop| shop.previous = Some(memory(Some(ARGO))));
    assert_eq!(remembered(&before), [("shop".to_owned(), ARGO.to_owned())]);
    // The commit came first, so that there was nothing for us to write.
    assert_eq!(remembered(&shop(TARGET, &[wrote(ARGO, 20, true)])), [("shop".to_owned(), ARGO.to_owned())]);
    let unchanged = shop(TARGET, &[wrote(labels::FIELD_MANAGER, 10, true), wrote(ARGO, 5, false)]);
    assert!(remembered(&unchanged).is_empty(), "Git has the source as ever");
}

#[test]
fn the_target_is_removed_when_that_tool_has_shown_the_source_again() {
    let ours = || wrote(labels::FIELD_MANAGER, 30, true);
    let mesh = shop(SOURCE, &[ours(), wrote(FLUX, 20, false), wrote("helm", 40, false)]);
    let held = decided(&mesh, Phase::RollingBack, &proven(&json!({"shop": FLUX})));
    assert_eq!((run(&held).cloud, reasons(&held)), (None, vec![WaitReason::GitStillOnOldRevision]));
    assert!(held.view.message.contains("Git had istio.io/rev=asm-1-28 for shop"), "{}", held.view.message);
    let synced = shop(SOURCE, &[ours(), wrote(FLUX, 40, false)]);
    let removed = decided(&synced, Phase::RollingBack, &proven(&json!({"shop": FLUX})));
    assert_eq!(run(&removed).cloud, Some(CloudStep::Rollback));
    assert!(run(&removed).git_on_target.is_empty(), "once is enough, whatever we write afterwards");
    let mut skipped = mesh;
    skipped.skip("GitAgrees");
    let removed = decided(&skipped, Phase::RollingBack, &proven(&json!({"shop": FLUX})));
    assert_eq!(run(&removed).cloud, Some(CloudStep::Rollback));
}

/// What Git said when one wave went back counts when everything does.
#[test]
fn it_is_not_forgotten_with_a_wave_that_goes_back_by_itself() {
    let mesh = shop(SOURCE, &[wrote(labels::FIELD_MANAGER, 30, true), wrote(FLUX, 20, false)]);
    let mut more = proven(&json!({"shop": FLUX}));
    more["rollback"]["waveOnly"] = json!(true);
    let over = decided(&mesh, Phase::RollingBack, &more);
    assert!(run(&over).rollback.is_none(), "{:?}", over.view.blocked);
    assert_eq!(run(&over).git_on_target.len(), 1);
}

#[test]
fn elsewhere_the_message_says_so_unless_it_is_skipped() {
    let mut mesh = shop(SOURCE, &[wrote(labels::FIELD_MANAGER, 30, true)]);
    (mesh.intent.aks, mesh.snapshot.aks) = (None, None);
    mesh.add_revision(TARGET);
    let over = proven(&json!({"shop": FLUX}));
    let told = decided(&mesh, Phase::RolledBack, &over).view.message;
    assert!(told.contains("Git had istio.io/rev=asm-1-28 for shop"), "{told}");
    mesh.skip("GitAgrees");
    assert!(!decided(&mesh, Phase::RolledBack, &over).view.message.contains("Git had"));
}

//! The third step: carries out effects. Each is one call; what it was answered is the only thing that is believed.

mod mesh_config;
mod tag;
mod tag_service;

use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meshupgrade_core::decision::About;
use meshupgrade_core::effect::{Effect, GatewayLabel, PreviousEdit, Relabel, Restart};
use meshupgrade_core::ids::{Revision, WorkloadKind};
use meshupgrade_core::intent::Intent;
use meshupgrade_core::labels;
use serde_json::{Map, Value, json};

use crate::client::CallError;
use crate::context::Context;
use crate::memory::Write;
use crate::observe::gateway::RawGateway;
use crate::observe::namespace::RawNamespace;
use crate::observe::workload::{RawDaemonSet, RawDeployment, RawRollout, RawStatefulSet};
use crate::observe::{Observed, StoreOf};
use crate::store::Entry;

/// How many effects run at once.
const CONCURRENCY: usize = 16;
/// When to look again after a conflict or an unknown outcome: the watch usually tells earlier.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How one effect ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API server confirmed it.
    Applied,
    /// The object is not what the decision saw.
    Conflict,
    /// The object does not exist any more.
    Gone,
    /// The API server or an admission policy refuses it.
    Refused(String),
    /// Whether it took effect is not known.
    Unknown(String),
    /// It was not tried: refused a moment ago, not leading any more, or stopping.
    Skipped,
}

/// How the effects of one pass ended, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// When to decide again at the latest.
    pub again_in: Option<Duration>,
    /// Something failed that may fail for long.
    pub failed: bool,
    /// Something was confirmed: the stores have the answer already, so the next decision can be made at once.
    pub confirmed: bool,
}

impl Applied {
    fn again_in(wait: Duration) -> Self {
        Self { again_in: Some(wait), ..Self::default() }
    }
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Refused(_) => "refused",
            Self::Unknown(_) => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Conflict(_) => Self::Conflict,
            CallError::NotFound(_) => Self::Gone,
            CallError::Refused(message) | CallError::Owned(message) => Self::Refused(message),
            // Admission comes before storage: nothing was written. The words are those of the API server.
            CallError::Server { message, .. } if message.contains("failed calling webhook") => {
                Self::Refused(message)
            }
            error @ (CallError::Timeout(_) | CallError::Server { .. } | CallError::Transport(_)) => {
                Self::Unknown(error.to_string())
            }
        }
    }
}

/// Carries out the effects of a decision.
pub async fn apply(context: &Context, intent: &Intent, effects: &[Effect]) -> Applied {
    // Collected first: a closure over borrowed effects would not be general enough for the controller.
    let calls: Vec<_> = effects.iter().map(|effect| one(context, intent, effect)).collect();
    let applied: Vec<Applied> = futures::stream::iter(calls).buffer_unordered(CONCURRENCY).collect().await;
    applied.into_iter().fold(Applied::default(), |all, one| Applied {
        again_in: [all.again_in, one.again_in].into_iter().flatten().min(),
        failed: all.failed || one.failed,
        confirmed: all.confirmed || one.confirmed,
    })
}

async fn one(context: &Context, intent: &Intent, effect: &Effect) -> Applied {
    let write = identity(effect);
    if let Some(left) = context.memory.refused_for(&intent.uid, &write, Instant::now()) {
        return Applied::again_in(left);
    }
    // Checked before each write and not once per pass: a pass may take longer than the lease.
    let outcome = if context.stop.is_stopping() || !context.leadership.may_write() {
        Outcome::Skipped
    } else {
        send(context, intent, effect).await
    };
    log(intent, effect, &outcome);
    context.metrics.process.count_effect(kind(effect), outcome.name());
    match outcome {
        Outcome::Applied => {
            context.memory.accept(&intent.uid, &write);
            Applied { confirmed: true, ..Applied::default() }
        }
        Outcome::Conflict | Outcome::Gone | Outcome::Skipped => Applied::again_in(LOOK_AGAIN),
        Outcome::Unknown(_) => Applied { failed: true, ..Applied::again_in(LOOK_AGAIN) },
        Outcome::Refused(message) => {
            let wait = context.memory.refuse(&intent.uid, write, &message, Instant::now());
            context.events.refused(intent, about(effect), &message);
            Applied::again_in(wait)
        }
    }
}

async fn send(context: &Context, intent: &Intent, effect: &Effect) -> Outcome {
    let outcome = match effect {
        Effect::Relabel(relabel) => send_relabel(context, relabel).await,
        Effect::Restart(restart) => send_restart(context, intent, restart).await,
        Effect::Gateway(label) => send_gateway(context, label).await,
        Effect::Tag(change) => tag::send(context, change).await,
        Effect::TagService(change) => tag_service::send(context, change).await,
        Effect::MeshConfig(change) => mesh_config::send(context, change).await,
        Effect::SetRevisions(change) => {
            // What becomes of it is seen in a later pass.
            context.managed_clusters.write(&intent.uid, change);
            Ok(())
        }
    };
    match outcome {
        Ok(()) => Outcome::Applied,
        Err(error) => {
            if matches!(error, CallError::Timeout(_)) {
                context.metrics.process.count_timeout(kind(effect));
            }
            error.into()
        }
    }
}

async fn send_relabel(context: &Context, relabel: &Relabel) -> Result<(), CallError> {
    let api: Api<RawNamespace> = Api::all(context.clients.calls());
    let name = relabel.namespace.as_str();
    let remember = |answer| remember(&context.stores.namespaces, answer);
    patch(context, &api, remember, name, &Patch::Merge(relabel_body(relabel))).await
}

async fn send_gateway(context: &Context, label: &GatewayLabel) -> Result<(), CallError> {
    let api: Api<RawGateway> = Api::namespaced(context.clients.calls(), label.gateway.namespace.as_str());
    let remember = |answer| remember(&context.stores.gateways, answer);
    patch(context, &api, remember, &label.gateway.name, &Patch::Merge(gateway_body(label))).await
}

/// One patch that carries the resource version that the decision saw.
async fn patch<S: Observed>(
    context: &Context,
    api: &Api<S>,
    remember: impl Fn(S),
    name: &str,
    body: &Patch<Value>,
) -> Result<(), CallError> {
    let parameters =
        PatchParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let answer = context.clients.call(api.patch(name, &parameters, body)).await;
    if let Err(CallError::Conflict(_)) = &answer {
        // The watch is behind: without this look the next try would fail in the same way.
        if let Ok(current) = context.clients.call(api.get(name)).await {
            remember(current);
        }
    }
    remember(answer?);
    Ok(())
}

async fn send_restart(context: &Context, intent: &Intent, restart: &Restart) -> Result<(), CallError> {
    let stores = &context.stores;
    let generation = match restart.workload.kind {
        WorkloadKind::Deployment => restart_as::<RawDeployment>(context, restart, &stores.deployments).await,
        WorkloadKind::StatefulSet => {
            restart_as::<RawStatefulSet>(context, restart, &stores.stateful_sets).await
        }
        WorkloadKind::DaemonSet => restart_as::<RawDaemonSet>(context, restart, &stores.daemon_sets).await,
        WorkloadKind::Rollout => restart_as::<RawRollout>(context, restart, &stores.rollouts).await,
    }?;
    context.memory.add_applied(&intent.uid, &restart.uid, &restart.stamp, generation);
    Ok(())
}

/// Returns the generation that the API server answered.
async fn restart_as<S>(context: &Context, restart: &Restart, store: &StoreOf<S>) -> Result<i64, CallError>
where
    S: Observed + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
{
    let api: Api<S> = Api::namespaced(context.clients.calls(), restart.workload.namespace.as_str());
    // The body has one annotation of ours and nothing else, so nothing of anybody's is overwritten. Without force the
    // API server refuses it as soon as somebody applied an empty map of annotations.
    let parameters = PatchParams::apply(labels::FIELD_MANAGER).force();
    let body = Patch::Apply(restart_body(restart));
    let answer = context.clients.call(api.patch(&restart.workload.name, &parameters, &body)).await?;
    let generation = answer.meta().generation.unwrap_or_default();
    remember(store, answer);
    Ok(generation)
}

/// The answer is newer than what the watch has: the next pass must not decide the same again.
fn remember<S: Observed>(store: &StoreOf<S>, answer: S) {
    let key = answer.key();
    let version = answer.meta().resource_version.clone();
    if let Some(value) = answer.observe() {
        store.upsert(key, Entry::new(version.as_deref(), value));
    }
}

/// One merge patch: labels, memory and stamp change together or not at all.
fn relabel_body(relabel: &Relabel) -> Value {
    json!({
        "metadata": {
            "resourceVersion": relabel.resource_version,
            "labels": {
                labels::REVISION: relabel.revision.as_ref().map(Revision::as_str),
                labels::INJECTION: relabel.injection,
            },
            "annotations": memory_and_stamp(&relabel.previous, &relabel.stamp),
        }
    })
}

/// The same for a Gateway, which has one label that matters.
fn gateway_body(label: &GatewayLabel) -> Value {
    json!({
        "metadata": {
            "resourceVersion": label.resource_version,
            "labels": {labels::REVISION: label.revision.as_ref().map(Revision::as_str)},
            "annotations": memory_and_stamp(&label.previous, &label.stamp),
        }
    })
}

fn memory_and_stamp(previous: &PreviousEdit, stamp: &str) -> Map<String, Value> {
    let mut annotations = Map::new();
    annotations.insert(labels::RELABELLED_BY.to_owned(), json!(stamp));
    match previous {
        PreviousEdit::Leave => {}
        PreviousEdit::Remove => {
            annotations.insert(labels::PREVIOUS_LABELS.to_owned(), Value::Null);
        }
        PreviousEdit::Set(previous) => {
            // A struct of strings always has a JSON form.
            let text = serde_json::to_string(previous).unwrap_or_default();
            annotations.insert(labels::PREVIOUS_LABELS.to_owned(), json!(text));
        }
    }
    annotations
}

/// One field of ours and nothing else: an annotation of the pod template, or the time of a Rollout of Argo Rollouts, whose
/// controller would take a new template for a new version. The uid refuses a recreated object of the same name.
fn restart_body(restart: &Restart) -> Value {
    let (version, spec) = match restart.workload.kind {
        WorkloadKind::Rollout => {
            // In whole seconds it is written as Kubernetes writes it.
            ("argoproj.io/v1alpha1", json!({"restartAt": restart.restart_at.map(|at| at.to_string())}))
        }
        WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => {
            ("apps/v1", json!({"template": {"metadata": {"annotations": {labels::RESTART: restart.stamp}}}}))
        }
    };
    json!({
        "apiVersion": version,
        "kind": restart.workload.kind.as_str(),
        "metadata": {
            "name": restart.workload.name,
            "namespace": restart.workload.namespace,
            "uid": restart.uid,
        },
        "spec": spec,
    })
}

fn kind(effect: &Effect) -> &'static str {
    match effect {
        Effect::Relabel(_) => "relabel",
        Effect::Restart(_) => "restart",
        Effect::Gateway(_) => "gateway",
        Effect::Tag(_) => "tag",
        Effect::TagService(_) => "tag-service",
        Effect::SetRevisions(_) => "revisions",
        Effect::MeshConfig(_) => "mesh-config",
    }
}

/// What tells one write from another: an attempt has a stamp of its own.
fn identity(effect: &Effect) -> Write {
    let stamp = match effect {
        Effect::Relabel(relabel) => &relabel.stamp,
        Effect::Restart(restart) => &restart.stamp,
        Effect::Gateway(label) => &label.stamp,
        Effect::Tag(change) => &change.stamp,
        Effect::TagService(change) => &change.stamp,
        Effect::SetRevisions(change) => &change.stamp,
        Effect::MeshConfig(change) => &change.stamp,
    };
    (about(effect), stamp.clone())
}

fn about(effect: &Effect) -> About {
    match effect {
        Effect::Relabel(relabel) => About::Namespace(relabel.namespace.clone()),
        Effect::Restart(restart) => About::Workload(restart.workload.clone()),
        Effect::Gateway(label) => About::Gateway(label.gateway.clone()),
        Effect::Tag(change) => About::Webhook(change.webhook.clone()),
        Effect::TagService(change) => About::Service(change.service.clone()),
        Effect::SetRevisions(change) => About::Cluster(change.cluster.clone()),
        Effect::MeshConfig(change) => About::ConfigMap(change.map.clone()),
    }
}

fn log(intent: &Intent, effect: &Effect, outcome: &Outcome) {
    let target = match effect {
        Effect::Relabel(relabel) => format!("Namespace {}", relabel.namespace),
        Effect::Restart(restart) => restart.workload.to_string(),
        Effect::Gateway(label) => label.gateway.to_string(),
        Effect::Tag(change) => format!("MutatingWebhookConfiguration {}", change.webhook),
        Effect::TagService(change) => change.service.to_string(),
        Effect::SetRevisions(change) => change.cluster.to_string(),
        Effect::MeshConfig(change) => change.map.to_string(),
    };
    let (upgrade, effect, because) = (&intent.name, kind(effect), effect.because());
    match outcome {
        Outcome::Refused(message) | Outcome::Unknown(message) => {
            tracing::warn!(
                upgrade,
                effect,
                target,
                outcome = outcome.name(),
                answer = message,
                because,
                "effect"
            );
        }
        _ => tracing::info!(upgrade, effect, target, outcome = outcome.name(), because, "effect"),
    }
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::ids::{GatewayRef, WorkloadRef};
    use meshupgrade_core::observed::PreviousLabels;

    use super::*;

    fn relabel(previous: PreviousEdit) -> Relabel {
        Relabel {
            namespace: "shop".into(),
            resource_version: "42".into(),
            revision: Some("asm-1-28".into()),
            injection: None,
            previous,
            stamp: "u.1.forward.1".into(),
            because: "wave canary".into(),
        }
    }

    #[test]
    fn relabelling_is_one_patch_with_its_precondition() {
        let previous = PreviousLabels {
            from: "asm-1-27".into(),
            to: "asm-1-28".into(),
            revision: Some("asm-1-27".into()),
            injection: None,
            manager: None,
        };
        let body = relabel_body(&relabel(PreviousEdit::Set(previous)));
        assert_eq!(
            body,
            json!({"metadata": {
                "resourceVersion": "42",
                "labels": {"istio.io/rev": "asm-1-28", "istio-injection": null},
                "annotations": {
                    "meshupgrade.io/relabelled-by": "u.1.forward.1",
                    "meshupgrade.io/previous-labels":
                        r#"{"from":"asm-1-27","to":"asm-1-28","revision":"asm-1-27"}"#,
                },
            }})
        );
    }

    #[test]
    fn the_memory_of_a_namespace_is_left_or_removed() {
        let leave = relabel_body(&relabel(PreviousEdit::Leave));
        assert!(leave["metadata"]["annotations"].get(labels::PREVIOUS_LABELS).is_none());
        let remove = relabel_body(&relabel(PreviousEdit::Remove));
        assert_eq!(remove["metadata"]["annotations"].get(labels::PREVIOUS_LABELS), Some(&Value::Null));
    }

    #[test]
    fn a_label_that_was_not_there_is_removed_again() {
        let body = relabel_body(&Relabel {
            revision: None,
            injection: Some("enabled".into()),
            ..relabel(PreviousEdit::Remove)
        });
        let labels = &body["metadata"]["labels"];
        assert_eq!(labels["istio.io/rev"], Value::Null);
        assert_eq!(labels["istio-injection"], "enabled");
    }

    #[test]
    fn a_gateway_gets_one_label_with_its_precondition() {
        let body = gateway_body(&GatewayLabel {
            gateway: GatewayRef { namespace: "shop".into(), name: "edge".into() },
            resource_version: "7".into(),
            revision: None,
            previous: PreviousEdit::Remove,
            stamp: "u.1.back.1".into(),
            workload: None,
            because: "the run lets go of it".into(),
        });
        assert_eq!(
            body,
            json!({"metadata": {
                "resourceVersion": "7",
                "labels": {"istio.io/rev": null},
                "annotations": {"meshupgrade.io/relabelled-by": "u.1.back.1", "meshupgrade.io/previous-labels": null},
            }})
        );
    }

    #[test]
    fn a_restart_touches_one_annotation_of_one_object() {
        let body = restart_body(&Restart {
            workload: WorkloadRef::new(WorkloadKind::StatefulSet, "shop", "db"),
            uid: "u-7".into(),
            stamp: "u.1.forward.1".into(),
            restart_at: None,
            because: "stale pod db-0".into(),
        });
        assert_eq!(
            body,
            json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet",
                "metadata": {"name": "db", "namespace": "shop", "uid": "u-7"},
                "spec": {"template": {"metadata": {"annotations": {"meshupgrade.io/restart": "u.1.forward.1"}}}},
            })
        );
    }

    #[test]
    fn a_restart_of_a_rollout_is_its_stored_time_and_nothing_else() {
        let body = restart_body(&Restart {
            workload: WorkloadRef::new(WorkloadKind::Rollout, "shop", "web"),
            uid: "u-7".into(),
            stamp: "u.1.forward.1".into(),
            restart_at: Some("2026-03-01T10:00:01Z".parse().unwrap()),
            because: "stale pod web-0".into(),
        });
        assert_eq!(
            body,
            json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
                "metadata": {"name": "web", "namespace": "shop", "uid": "u-7"},
                "spec": {"restartAt": "2026-03-01T10:00:01Z"},
            })
        );
    }

    #[test]
    fn only_a_refusal_and_an_unknown_outcome_carry_words() {
        let outcome = |error: CallError| Outcome::from(error).name();
        assert_eq!(outcome(CallError::Conflict("x".into())), "conflict");
        assert_eq!(outcome(CallError::NotFound("x".into())), "gone");
        assert_eq!(outcome(CallError::Owned("x".into())), "refused");
        assert_eq!(outcome(CallError::Timeout(Duration::from_secs(1))), "unknown");
        assert_eq!(outcome(CallError::Server { code: 500, message: "x".into() }), "unknown");
        let webhook = "Internal error occurred: failed calling webhook \"policy.example\": no endpoints";
        assert_eq!(outcome(CallError::Server { code: 500, message: webhook.into() }), "refused");
    }
}

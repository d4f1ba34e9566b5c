//! Kubernetes events: published by a task of its own, because nothing waits for them and nothing may depend on them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::decision::{About, Event};
use meshupgrade_core::intent::Intent;
use tokio::sync::mpsc;

use crate::client::within;
use crate::metrics::Metrics;

/// `reportingController` of our events.
const REPORTER: &str = "meshupgrade-operator";
/// How many events may wait. A pass brings a handful; what comes while the API server is away is not worth keeping.
const QUEUE: usize = 256;
/// The same event is not told again before this time.
const SAME_AGAIN: Duration = Duration::from_mins(1);
/// What was told longer ago than kube's recorder remembers needs no recorder of its own any more.
const FORGOTTEN: Duration = Duration::from_mins(10);
/// Longest note that the API accepts is 1 kB.
const MAX_NOTE: usize = 1000;

/// Where events are handed in.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Published>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Published {
    event: Event,
    regarding: ObjectReference,
}

/// What was told lately. kube's recorder folds events that differ only in their note into the first one, so each note
/// has a recorder of its own; the same note again within a minute is not told twice.
struct Told {
    client: Client,
    reporter: Reporter,
    last: BTreeMap<Subject, Last>,
}

/// What an event is about: uid of the MeshUpgrade, reason, and the other object.
type Subject = (Option<String>, &'static str, Option<About>);

struct Last {
    note: String,
    at: Instant,
    recorder: Recorder,
}

impl Told {
    fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, last: BTreeMap::new() }
    }

    /// Who publishes this event; nobody if it was told a moment ago.
    fn recorder(&mut self, event: &Event, regarding: &ObjectReference, now: Instant) -> Option<&Recorder> {
        self.last.retain(|_, last| now.duration_since(last.at) < FORGOTTEN);
        let subject = (regarding.uid.clone(), event.reason, event.about.clone());
        let known = self.last.get(&subject).map(|last| (last.note.as_str(), last.at));
        match telling(known, &event.note, now) {
            Telling::Not => return None,
            Telling::Again => {}
            Telling::Anew => {
                let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
                self.last.insert(subject.clone(), Last { note: event.note.clone(), at: now, recorder });
            }
        }
        let last = self.last.get_mut(&subject)?;
        last.at = now;
        Some(&last.recorder)
    }
}

/// How an event is told, given the note that was told last on its subject, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// It was told a moment ago.
    Not,
    /// It happened once more: the recorder counts it.
    Again,
    /// For the first time, or in other words.
    Anew,
}

fn telling(known: Option<(&str, Instant)>, note: &str, now: Instant) -> Telling {
    match known {
        Some((last, at)) if last == note && now.duration_since(at) < SAME_AGAIN => Telling::Not,
        Some((last, _)) if last == note => Telling::Again,
        _ => Telling::Anew,
    }
}

impl Events {
    /// The way in, and the task that publishes what comes.
    pub fn new(
        client: Client,
        instance: String,
        timeout: Duration,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, mut waiting) = mpsc::channel::<Published>(QUEUE);
        let reporter = Reporter { controller: REPORTER.to_owned(), instance: Some(instance) };
        let counted = metrics.clone();
        let task = async move {
            let mut told = Told::new(client, reporter);
            while let Some(Published { event, regarding }) = waiting.recv().await {
                let Some(recorder) = told.recorder(&event, &regarding, Instant::now()) else {
                    continue;
                };
                let published = kube_event(&event);
                if let Err(error) = within(timeout, recorder.publish(&published, &regarding)).await {
                    counted.process.count_dropped_event(error.category());
                    tracing::warn!(%error, reason = event.reason, "event not published");
                }
            }
        };
        (Self { queue, metrics }, task)
    }

    /// Publishes what a decision says has happened.
    pub fn publish(&self, upgrade: &MeshUpgrade, events: Vec<Event>) {
        for event in events {
            self.send(event, upgrade.object_ref(&()));
        }
    }

    /// Publishes that a write was refused.
    pub fn refused(&self, intent: &Intent, about: About, message: &str) {
        let event = Event {
            warning: true,
            reason: "WriteRefused",
            note: format!("the API server refuses our write and we try again later: {message}"),
            about: Some(about),
        };
        let regarding = ObjectReference {
            api_version: Some(MeshUpgrade::api_version(&()).into_owned()),
            kind: Some(MeshUpgrade::kind(&()).into_owned()),
            name: Some(intent.name.clone()),
            uid: Some(intent.uid.to_string()),
            ..ObjectReference::default()
        };
        self.send(event, regarding);
    }

    fn send(&self, event: Event, regarding: ObjectReference) {
        if let Err(full) = self.queue.try_send(Published { event, regarding }) {
            self.metrics.process.count_dropped_event("queue_full");
            tracing::warn!(error = %full, "event dropped");
        }
    }
}

fn kube_event(event: &Event) -> KubeEvent {
    KubeEvent {
        type_: if event.warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.to_owned(),
        note: Some(event.note.chars().take(MAX_NOTE).collect()),
        action: event.reason.to_owned(),
        // Without it the recorder folds events of different objects into the first one.
        secondary: event.about.as_ref().and_then(reference),
    }
}

/// `None` for what is no object of the cluster.
fn reference(about: &About) -> Option<ObjectReference> {
    let reference = match about {
        About::Cluster(_) => return None,
        About::Namespace(namespace) => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(namespace.to_string()),
            ..ObjectReference::default()
        },
        About::Workload(workload) => ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some(workload.kind.to_string()),
            namespace: Some(workload.namespace.to_string()),
            name: Some(workload.name.clone()),
            ..ObjectReference::default()
        },
        About::ConfigMap(map) => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(map.namespace.to_string()),
            name: Some(map.name.clone()),
            ..ObjectReference::default()
        },
        About::Webhook(name) => ObjectReference {
            api_version: Some("admissionregistration.k8s.io/v1".to_owned()),
            kind: Some("MutatingWebhookConfiguration".to_owned()),
            name: Some(name.clone()),
            ..ObjectReference::default()
        },
        About::Service(service) => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(service.namespace.to_string()),
            name: Some(service.name.clone()),
            ..ObjectReference::default()
        },
        About::Gateway(gateway) => ObjectReference {
            api_version: Some("gateway.networking.k8s.io/v1".to_owned()),
            kind: Some("Gateway".to_owned()),
            namespace: Some(gateway.namespace.to_string()),
            name: Some(gateway.name.clone()),
            ..ObjectReference::default()
        },
    };
    Some(reference)
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::ids::{WorkloadKind, WorkloadRef};

    use super::*;

    #[test]
    fn other_words_are_told_at_once_and_the_same_ones_not_again_for_a_while() {
        let now = Instant::now();
        assert_eq!(telling(None, "a", now), Telling::Anew);
        assert_eq!(telling(Some(("b", now)), "a", now), Telling::Anew);
        assert_eq!(telling(Some(("a", now)), "a", now), Telling::Not);
        assert_eq!(telling(Some(("a", now)), "a", now + SAME_AGAIN), Telling::Again);
    }

    #[test]
    fn an_event_names_the_object_that_it_is_about() {
        let event = kube_event(&Event {
            warning: true,
            reason: "WorkloadFailed",
            note: "x".repeat(2000),
            about: Some(About::Workload(WorkloadRef::new(WorkloadKind::DaemonSet, "ops", "log"))),
        });
        assert!(matches!(event.type_, EventType::Warning));
        assert_eq!(event.note.unwrap().len(), MAX_NOTE);
        let secondary = event.secondary.unwrap();
        assert_eq!(secondary.kind.as_deref(), Some("DaemonSet"));
        assert_eq!(secondary.namespace.as_deref(), Some("ops"));
    }
}

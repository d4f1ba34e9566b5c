//! Pods: how they come and go. Their controllers decide when.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use meshupgrade_core::ids::{Revision, WorkloadKind, WorkloadRef};
use meshupgrade_core::observed::{self, Owner, Proxy};

use super::World;
use super::injector::{Outcome, inject};
use super::views::Kind;

/// Grace period of every pod, in seconds.
pub const GRACE: i64 = 30;

/// What makes two pods of a workload alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template {
    /// Version of the application.
    pub release: u32,
    /// The restart stamp.
    pub restart: Option<String>,
}

/// A pod with what its kubelet knows.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What the API server shows.
    pub view: Arc<observed::Pod>,
    /// Whose it is.
    pub workload: WorkloadRef,
    /// What it was made from.
    pub template: Template,
    /// StatefulSet: ordinal; DaemonSet: node.
    pub slot: u32,
    /// Steps of the kubelet until it is ready.
    pub starts_in: u32,
    /// Steps of the kubelet until it is gone, once it terminates.
    pub ends_in: u32,
    /// Its node does not answer: it neither becomes ready nor goes away.
    pub stranded: bool,
    /// The operator had put the namespace's label when it was created.
    pub labelled_by_operator: bool,
}

impl Pod {
    /// Whether it is on its way out.
    pub fn terminating(&self) -> bool {
        self.view.deletion.is_some()
    }

    /// Whether it serves.
    pub fn available(&self) -> bool {
        self.view.ready && !self.terminating()
    }

    /// The revision of its sidecar.
    pub fn revision(&self) -> Option<&Revision> {
        self.view.proxy.as_ref()?.revision.as_ref()
    }
}

impl Template {
    /// The hash that names a ReplicaSet (FNV-1a).
    pub fn hash(&self) -> String {
        let text = format!("{}/{}", self.release, self.restart.as_deref().unwrap_or_default());
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{:010x}", hash & 0xff_ffff_ffff)
    }
}

impl World {
    /// The template of a workload as it is now.
    pub fn template_of(&self, reference: &WorkloadRef) -> Template {
        self.apps
            .get(reference)
            .map(|app| Template { release: app.release, restart: app.view.template.restart.clone() })
            .unwrap_or_default()
    }

    /// The pods of a workload.
    pub fn pods_of(&self, reference: &WorkloadRef) -> Vec<(u64, &Pod)> {
        let ids = self.pods_by_app.get(reference).into_iter().flatten();
        ids.filter_map(|id| self.pods.get_key_value(id)).map(|(id, pod)| (*id, pod)).collect()
    }

    /// Creates a pod, as the API server does: the injector is asked, and refuses while its istiod is down.
    pub fn create_pod(
        &mut self,
        reference: &WorkloadRef,
        slot: u32,
        template: Template,
        starts_in: u32,
    ) -> bool {
        let Some(app) = self.apps.get(reference) else {
            return false;
        };
        let app = Arc::clone(&app.view);
        let shape = &app.template;
        let proxy = match inject(self, &reference.namespace, shape) {
            Outcome::Refused => return false,
            Outcome::Nothing => None,
            Outcome::Injected(revision) => Some(self.proxy_of(&revision)),
            Outcome::Twice(_) => Some(Proxy::default()),
        };
        if let Some(app) = self.apps.get_mut(reference) {
            app.meshed |= proxy.is_some();
        }
        let id = self.next_pod;
        self.next_pod += 1;
        let view = observed::Pod {
            namespace: reference.namespace.clone(),
            name: pod_name(reference, &template, slot, id),
            controller: Some(owner_of(reference, &template)),
            labels: pod_labels(reference, &shape.labels, &template),
            annotations: pod_annotations(&shape.annotations, proxy.as_ref()),
            host_network: shape.host_network,
            proxy,
            restart: template.restart.clone(),
            created: Some(self.now),
            ..observed::Pod::default()
        };
        let pod = Pod {
            view: Arc::new(view),
            workload: reference.clone(),
            template,
            slot,
            starts_in,
            ends_in: 0,
            stranded: false,
            labelled_by_operator: self.labelled.get(&reference.namespace).is_some_and(|it| it.by_operator),
        };
        self.pods.insert(id, pod);
        self.pods_by_app.entry(reference.clone()).or_default().insert(id);
        self.touch(Kind::Pods);
        true
    }

    /// Asks a pod to go: it stays for some steps.
    pub fn delete_pod(&mut self, id: u64, ends_in: u32) {
        let deadline = self.now + SignedDuration::from_secs(GRACE);
        if let Some(pod) = self.pods.get_mut(&id).filter(|pod| !pod.terminating()) {
            Arc::make_mut(&mut pod.view).deletion = Some(deadline);
            pod.ends_in = ends_in;
            self.touch(Kind::Pods);
        }
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, id: u64) {
        if let Some(pod) = self.pods.remove(&id) {
            if let Some(ids) = self.pods_by_app.get_mut(&pod.workload) {
                ids.remove(&id);
            }
            self.touch(Kind::Pods);
        }
    }

    /// The sidecar that a revision's injector adds now.
    pub fn proxy_of(&self, revision: &Revision) -> Proxy {
        let image = self.planes.get(revision).map(|plane| plane.image(revision)).unwrap_or_default();
        Proxy { revision: Some(revision.clone()), image, native: false }
    }

    /// Changes what the API server shows of a pod.
    pub fn edit_pod(&mut self, id: u64, edit: impl FnOnce(&mut observed::Pod)) {
        if let Some(pod) = self.pods.get_mut(&id) {
            edit(Arc::make_mut(&mut pod.view));
            self.touch(Kind::Pods);
        }
    }
}

fn pod_name(reference: &WorkloadRef, template: &Template, slot: u32, id: u64) -> String {
    match reference.kind {
        WorkloadKind::Deployment | WorkloadKind::Rollout => {
            format!("{}-{}-{id:05}", reference.name, template.hash())
        }
        WorkloadKind::StatefulSet => format!("{}-{slot}", reference.name),
        WorkloadKind::DaemonSet => format!("{}-{id:05}", reference.name),
    }
}

fn owner_of(reference: &WorkloadRef, template: &Template) -> Owner {
    let (kind, name) = match reference.kind {
        WorkloadKind::Deployment | WorkloadKind::Rollout => {
            ("ReplicaSet", format!("{}-{}", reference.name, template.hash()))
        }
        kind => (kind.as_str(), reference.name.clone()),
    };
    Owner { kind: kind.to_owned(), name, group: "apps".to_owned() }
}

fn pod_labels(
    reference: &WorkloadRef,
    labels: &BTreeMap<String, String>,
    template: &Template,
) -> BTreeMap<String, String> {
    let key = match reference.kind {
        WorkloadKind::Deployment => "pod-template-hash",
        WorkloadKind::Rollout => "rollouts-pod-template-hash",
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => "controller-revision-hash",
    };
    let mut labels = labels.clone();
    labels.insert(key.to_owned(), template.hash());
    labels
}

fn pod_annotations(
    annotations: &BTreeMap<String, String>,
    proxy: Option<&Proxy>,
) -> BTreeMap<String, String> {
    let mut annotations = annotations.clone();
    if let Some(revision) = proxy.and_then(|proxy| proxy.revision.as_ref()) {
        annotations.insert("istio.io/rev".to_owned(), revision.to_string());
    }
    annotations
}

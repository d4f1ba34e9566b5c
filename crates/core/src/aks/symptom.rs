//! What users see in a cluster when an upgrade of the add-on went wrong, or when they rely on something that the add-on does
//! not do: the matrix and the restrictions of AKS's troubleshooting of minor revision upgrades, as what happened, why, and
//! what to do. Who finds one adds which namespace, workload or revision it is.

use std::borrow::Cow;

/// A known symptom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symptom {
    /// Workloads have no sidecar any more.
    DroppedFromMesh,
    /// istiod or a gateway of the new revision is not scheduled.
    ControlPlanePending,
    /// The cluster is offered no upgrade.
    NothingOffered,
    /// The target is offered, but not from the installed revision.
    NotOffered,
    /// The target is older than the source.
    Downgrade,
    /// `sidecar.istio.io/inject` is used to bring something into the mesh.
    InjectLabel,
    /// `istio.io/rev` is on pods instead of their namespace.
    RevisionOnWorkload,
    /// The target has no copy of the shared mesh configuration.
    MeshConfigNotCopied,
    /// There are gateway pods of two revisions.
    SeveralGateways,
}

/// What to tell about something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happened: a sentence.
    pub what: Cow<'static, str>,
    /// Why: a sentence, or empty if nobody knows.
    pub why: Cow<'static, str>,
    /// What to do about it: a sentence, or empty if there is nothing to do but wait.
    pub remedy: Cow<'static, str>,
}

impl Symptom {
    /// All symptoms.
    pub const ALL: [Self; 9] = [
        Self::DroppedFromMesh,
        Self::ControlPlanePending,
        Self::NothingOffered,
        Self::NotOffered,
        Self::Downgrade,
        Self::InjectLabel,
        Self::RevisionOnWorkload,
        Self::MeshConfigNotCopied,
        Self::SeveralGateways,
    ];

    /// What to tell about it.
    pub fn explanation(self) -> Explanation {
        let (what, why, remedy) = match self {
            Self::DroppedFromMesh => (
                "Workloads have dropped out of the mesh: their pods run without a sidecar.",
                "Their namespace names a revision that is not installed any more, so that no webhook injects.",
                "Set istio.io/rev of the namespace to an installed revision, restart the workloads, and check the image of their istio-proxy.",
            ),
            Self::ControlPlanePending => (
                "Pods of the new control plane are not scheduled.",
                "No node has room for them, or all nodes that have are tainted.",
                "Read the scheduler's reason in the pod's events, and add a node or make room; nothing is relabelled before they are ready.",
            ),
            Self::NothingOffered => (
                "AKS offers this cluster no upgrade of the mesh.",
                "The installed revision is the newest, or the next ones do not run on the cluster's Kubernetes version.",
                "See with az aks mesh get-revisions which cluster version the next revision needs; if cluster and mesh are both out of support, upgrade the cluster first.",
            ),
            Self::NotOffered => (
                "AKS does not offer the target revision to this cluster.",
                "From a supported revision one can go to the next or the one after it, from an unsupported one only to the lowest that is supported.",
                "Set spec.targetRevision to one of the offered revisions.",
            ),
            Self::Downgrade => (
                "The target revision is older than the installed one.",
                "The add-on goes back only while an upgrade is open, by rolling it back.",
                "Name a newer revision, or request the rollback of the running upgrade.",
            ),
            Self::InjectLabel => (
                "The label sidecar.istio.io/inject=true has no effect here.",
                "The add-on has no default revision that would inject for it.",
                "Label the namespace with istio.io/rev instead.",
            ),
            Self::RevisionOnWorkload => (
                "The label istio.io/rev on pods does not decide which sidecar they get.",
                "The add-on supports it on namespaces only, and a namespace's label comes first.",
                "Label the namespace; to move workloads one by one, restart them one by one.",
            ),
            Self::MeshConfigNotCopied => (
                "The target revision would start without the mesh's own configuration.",
                "Each revision reads a shared ConfigMap with its own name, and the target has none.",
                "Copy istio-shared-configmap-{source} to istio-shared-configmap-{target} in aks-istio-system before the upgrade starts.",
            ),
            Self::SeveralGateways => (
                "The gateways of the add-on run twice.",
                "While two revisions are installed, each has its own gateway pods behind the same Service, and both take traffic.",
                "Look at the pods of both revisions when a gateway misbehaves; if the new ones are bad, roll the control plane back.",
            ),
        };
        Explanation { what: what.into(), why: why.into(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_symptom_has_words_of_its_own() {
        let all: BTreeSet<_> = Symptom::ALL.iter().map(|symptom| symptom.explanation().what).collect();
        assert_eq!(all.len(), Symptom::ALL.len());
        for symptom in Symptom::ALL {
            let Explanation { what, why, remedy } = symptom.explanation();
            assert!([what, why, remedy].iter().all(|sentence| sentence.ends_with('.')), "{symptom:?}");
        }
    }
}

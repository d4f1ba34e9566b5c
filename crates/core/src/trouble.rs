//! What is wrong with a workload that is being restarted, as Kubernetes tells it, and whether it may heal by itself.

use crate::observed::{Pod, PodProblem, Workload};

/// Whether a problem may go away without another pod template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlook {
    /// Somebody or something else may mend it: an autoscaler adds nodes, an image is pulled again, a dependency comes up.
    MayHeal,
    /// It stays until somebody changes the workload.
    CannotHeal,
}

/// Something that is wrong with a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whether it may go away.
    pub outlook: Outlook,
    /// As a person needs it.
    pub message: String,
}

/// Reasons of containers that stay until the pod's spec changes. Source: Kubernetes' pkg/kubelet/images/types.go.
const CANNOT_HEAL: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];
/// What the API server says of a pod that its template does not allow. Source: Kubernetes' pod-security-admission and
/// apimachinery's `NewInvalid`.
const REFUSED_FOR_GOOD: [&str; 2] = ["violates PodSecurity", "is invalid:"];

/// What is wrong with the new pods of a workload, the worst first. A pod that merely starts has no problem.
pub fn trouble<'a>(workload: &Workload, new_pods: impl Iterator<Item = &'a Pod>) -> Option<Trouble> {
    let pods = new_pods.filter(|pod| !pod.ready && !pod.finished && pod.deletion.is_none());
    let of_pods = pods.filter_map(|pod| pod.problem.as_ref().and_then(|problem| of_pod(pod, problem)));
    let of_workload = workload.rollout.create_failure.as_ref().map(|message| not_created(message));
    of_pods.chain(of_workload).max_by_key(|trouble| trouble.outlook)
}

fn of_pod(pod: &Pod, problem: &PodProblem) -> Option<Trouble> {
    if problem.reason.is_empty() {
        return None;
    }
    let outlook =
        if CANNOT_HEAL.contains(&problem.reason.as_str()) { Outlook::CannotHeal } else { Outlook::MayHeal };
    Some(Trouble { outlook, message: format!("pod {}: {}", pod.name, problem.message) })
}

fn not_created(message: &str) -> Trouble {
    let for_good = REFUSED_FOR_GOOD.iter().any(|text| message.contains(text));
    let outlook = if for_good { Outlook::CannotHeal } else { Outlook::MayHeal };
    Trouble { outlook, message: format!("its pods cannot be created: {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::Mesh;

    fn found(reasons: &[&str], create_failure: Option<&str>) -> Option<(Outlook, String)> {
        let mut mesh = Mesh::before();
        mesh.add_workload("shop", "web", &[]);
        let mut workload = mesh.snapshot.workloads.values().next().unwrap().as_ref().clone();
        workload.rollout.create_failure = create_failure.map(Into::into);
        let pods: Vec<Pod> = reasons
            .iter()
            .map(|reason| Pod {
                name: "web-1".into(),
                problem: Some(PodProblem { reason: (*reason).into(), message: format!("it is {reason}") }),
                ..Pod::default()
            })
            .collect();
        trouble(&workload, pods.iter()).map(|trouble| (trouble.outlook, trouble.message))
    }

    #[test]
    fn what_starts_is_no_trouble() {
        assert_eq!(found(&[], None), None);
        assert_eq!(found(&[""], None), None);
    }

    #[test]
    fn what_may_heal_is_told_from_what_cannot() {
        for reason in ["Unschedulable", "ImagePullBackOff", "CrashLoopBackOff", "CreateContainerConfigError"]
        {
            assert_eq!(found(&[reason], None).unwrap().0, Outlook::MayHeal, "{reason}");
        }
        let (outlook, message) = found(&["ImagePullBackOff", "InvalidImageName"], None).unwrap();
        assert_eq!((outlook, message.as_str()), (Outlook::CannotHeal, "pod web-1: it is InvalidImageName"));
    }

    #[test]
    fn pods_that_cannot_be_created_are_trouble_too() {
        let quota = "pods \"web-1\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4";
        assert_eq!(found(&[], Some(quota)).unwrap().0, Outlook::MayHeal);
        let security = "pods \"web-1\" is forbidden: violates PodSecurity \"restricted:latest\": privileged";
        assert_eq!(found(&["Unschedulable"], Some(security)).unwrap().0, Outlook::CannotHeal);
    }
}

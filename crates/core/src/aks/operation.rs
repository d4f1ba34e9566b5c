//! A long-running operation of ARM, from the body of its status (resource-provider-rpc:
//! `async-api-reference.md`): `{name, status, startTime, endTime, error}`.

use serde_json::Value;

use super::cluster::ProvisioningState;
use super::json::text;
use super::problem::{Answer, ArmProblem, Asked};

/// How an operation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// It goes on.
    Running,
    /// It ended well, or another one took its place (`NotLatestOperation`): what the cluster has now is to be read.
    Succeeded,
    /// It ended otherwise. The problem says why, as far as Azure does.
    Failed(Box<ArmProblem>),
    /// Somebody cancelled it.
    Canceled,
}

/// Reads the status of an operation. A word that is no end means that it goes on: the caller bounds the whole.
pub fn state(body: &Value) -> OperationState {
    match text(body, "/status").map(ProvisioningState::from_word) {
        Some(ProvisioningState::Succeeded) => OperationState::Succeeded,
        Some(ProvisioningState::Canceled) => OperationState::Canceled,
        Some(ProvisioningState::Failed) => failed(body),
        None if body.get("error").is_some_and(Value::is_object) => failed(body),
        Some(ProvisioningState::UnderWay(_)) | None => OperationState::Running,
    }
}

fn failed(body: &Value) -> OperationState {
    let answer = Answer { status: None, retry_after_seconds: None, request_id: None, body };
    OperationState::Failed(Box::new(ArmProblem::from_answer(Asked::Operation, &answer)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::problem::Class;
    use super::*;

    #[test]
    fn ends_are_read_in_any_case_and_everything_else_goes_on() {
        for (status, expected) in [
            ("Succeeded", OperationState::Succeeded),
            ("succeeded", OperationState::Succeeded),
            ("CANCELED", OperationState::Canceled),
            ("Cancelled", OperationState::Canceled),
            ("InProgress", OperationState::Running),
            ("Accepted", OperationState::Running),
            ("Anything", OperationState::Running),
        ] {
            assert_eq!(
                state(&json!({"name": "n", "status": status, "startTime": "t"})),
                expected,
                "{status}"
            );
        }
        assert_eq!(state(&json!({})), OperationState::Running);
        assert_eq!(state(&json!(null)), OperationState::Running);
    }

    #[test]
    fn a_success_with_a_word_about_a_later_operation_is_a_success() {
        let body =
            json!({"status": "Succeeded", "error": {"code": "NotLatestOperation", "message": "preempted"}});
        assert_eq!(state(&body), OperationState::Succeeded);
    }

    #[test]
    fn a_failure_says_why() {
        let error = json!({"code": "BadRequest", "message": "Requested change in revisions is not allowed. Reason: x"});
        for body in [json!({"status": "failed", "error": error}), json!({"error": error})] {
            let OperationState::Failed(problem) = state(&body) else { panic!("{body}") };
            assert_eq!(problem.class, Class::Terminal);
            assert!(problem.message.ends_with("Reason: x"), "{problem}");
        }
        let OperationState::Failed(problem) = state(&json!({"status": "Failed"})) else { panic!() };
        assert!(problem.to_string().contains("The operation on the cluster failed"), "{problem}");
    }
}

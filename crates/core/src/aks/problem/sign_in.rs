//! Errors of the sign-in: `{"error": "invalid_client", "error_description": "AADSTS700213: …"}`.
//!
//! Codes: entra `reference-error-codes.md` and azure-workload-identity's troubleshooting.

use serde_json::Value;

use super::super::words::clean;
use super::{Answer, ArmProblem, Class, request_id};

/// What a code of Microsoft Entra ID means here: why, and what to do.
const KNOWN: [(&str, &str, &str); 7] = [
    (
        "AADSTS700212",
        "The audience of the projected ServiceAccount token is not the one that Microsoft Entra ID expects.",
        "Let the workload identity webhook project it, or set the audience to api://AzureADTokenExchange.",
    ),
    (
        "AADSTS700213",
        "The identity has no federated credential for the operator's ServiceAccount.",
        "Add one whose subject is system:serviceaccount:{namespace}:{name} of the operator.",
    ),
    (
        "AADSTS700211",
        "The identity has no federated credential for this cluster's issuer of tokens.",
        "Add one with the cluster's OIDC issuer (az aks show --query oidcIssuerProfile.issuerUrl).",
    ),
    (
        "AADSTS70021",
        "The identity has no federated credential that fits the operator's token.",
        "Compare issuer, subject and audience of its federated credentials with the cluster and the operator's ServiceAccount.",
    ),
    (
        "AADSTS700024",
        "The projected ServiceAccount token is not valid now.",
        "Check the clocks of the nodes, and that the token file is a projected volume that is renewed.",
    ),
    (
        "AADSTS700016",
        "The tenant has no application or identity with this client id.",
        "Check client id and tenant id of the operator's identity.",
    ),
    (
        "AADSTS90002",
        "There is no such tenant in this cloud.",
        "Check the tenant id, and that the authority host belongs to its cloud.",
    ),
];

const WHAT: &str = "The operator could not sign in to Azure.";

pub(super) fn problem(answer: &Answer<'_>) -> ArmProblem {
    let field = |name: &str| answer.body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (code, description) = (field("error"), field("error_description"));
    // AADSTS70021 begins some of the others: what follows must not be a digit.
    let known = KNOWN.iter().find(|(code, ..)| {
        description.split(code).skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let retry_after_seconds = answer.retry_after_seconds;
    let (class, why, remedy) = match (answer.status, known) {
        (Some(429), _) => (Class::Throttled { retry_after_seconds }, "There were too many sign-ins.", AGAIN),
        (Some(408 | 410 | 500..=599), _) => (
            Class::Transient { retry_after_seconds },
            "The sign-in service is not able to answer now.",
            AGAIN,
        ),
        (_, Some((_, why, remedy))) => (Class::SignIn, *why, *remedy),
        _ => (Class::SignIn, "The sign-in service refuses the operator's identity.", CHECK),
    };
    ArmProblem {
        status: answer.status,
        message: clean(description),
        request_id: answer.request_id.as_deref().and_then(request_id),
        ..ArmProblem::own(class, &clean(code), WHAT, why, remedy)
    }
}

const AGAIN: &str = "The operator tries again by itself.";
const CHECK: &str = "Check client id, tenant id and federated credential of the operator's identity, or that the managed identity is assigned to the nodes.";

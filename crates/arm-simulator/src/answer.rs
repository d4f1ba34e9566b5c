//! Answers and the forms of errors.

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

/// One answer, before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// The code in an error's body.
    pub code: Option<String>,
}

impl Answer {
    pub fn json(status: StatusCode, body: &Value) -> Self {
        let code = body.pointer("/error/code").or_else(|| body.get("code")).and_then(Value::as_str);
        Self {
            status,
            headers: vec![(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))],
            body: Bytes::from(body.to_string()),
            code: code.map(str::to_owned),
        }
    }

    pub fn ok(body: &Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// ARM's usual form. Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml, GET of a cluster that does not
    /// exist.
    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"error": {"code": code, "message": message}}))
    }

    /// With one more header; one that is no header is left out.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }
}

/// Source: Azure/azure-sdk-for-go#246. What AKS itself answers to an API version of another provider was not found.
pub(crate) fn invalid_api_version(given: &str, known: &str) -> Answer {
    let message = format!("The api-version '{given}' is invalid. The supported versions are '{known}'.");
    Answer::error(StatusCode::BAD_REQUEST, "InvalidApiVersionParameter", &message)
}

/// Source: cloudquery/cloudquery#6626.
pub(crate) fn missing_api_version() -> Answer {
    let message = "The api-version query parameter (?api-version=) is required for all requests.";
    Answer::error(StatusCode::BAD_REQUEST, "MissingApiVersionParameter", message)
}

/// Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml, GET before the cluster exists.
pub(crate) fn cluster_not_found(id: &str) -> Answer {
    let mut parts = id.split('/').skip(4);
    let group = parts.next().unwrap_or_default();
    let name = parts.nth(3).unwrap_or_default();
    let message = format!(
        "The Resource 'Microsoft.ContainerService/managedClusters/{name}' under resource group '{group}' was not \
         found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    );
    Answer::error(StatusCode::NOT_FOUND, "ResourceNotFound", &message).with("x-ms-failure-cause", "gateway")
}

/// Inferred: the form of the one for clusters; no thread shows what is answered where a path names nothing.
pub(crate) fn nothing_there(path: &str) -> Answer {
    let message = format!("The resource '{path}' was not found.");
    Answer::error(StatusCode::NOT_FOUND, "ResourceNotFound", &message).with("x-ms-failure-cause", "gateway")
}

/// Source: Azure/terraform-azurerm-avm-ptn-aks-production#25, with the state in brackets; the code from
/// Azure/azure-workload-identity#417.
pub(crate) fn operation_not_allowed(running: &str) -> Answer {
    let message = format!(
        "Operation is not allowed: Another operation ({running}) is in progress, please wait for it to finish before \
         starting a new operation. See https://aka.ms/aks-pending-operation for more details"
    );
    Answer::error(StatusCode::CONFLICT, "OperationNotAllowed", &message)
}

/// The flat form. Source: Azure/terraform-azurerm-aks#604, comment of 2024-11-15.
/// Inferred: the end of the subcode, which is cut off there.
pub(crate) fn etag_mismatch() -> Answer {
    let body = json!({
        "code": "EtagMismatch",
        "details": [{
            "code": "Unspecified",
            "message": "rpc error: code = FailedPrecondition desc = Etag mismatched",
        }],
        "message": "Operation is not allowed: Another operation is in progress",
        "subcode": "PutManagedClusterAndComponents_FailedPrecondition",
    });
    Answer::json(StatusCode::CONFLICT, &body)
}

/// Source of the status: AKS documentation, use-etags, table of PUT.
/// Inferred: the body, in the form of kubernetes-sigs/cloud-provider-azure#9728, which is of another provider.
pub(crate) fn precondition_failed(given: &str, stored: &str) -> Answer {
    let message =
        format!("Etag provided in if-match header {given} does not match etag \"{stored}\" of resource.");
    Answer::error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", &message)
}

/// Source: MicrosoftDocs/azure-docs#120606 (code and beginning of the text); what follows is the caller's.
pub(crate) fn revisions_refused(reason: &str) -> Answer {
    let message = format!("Requested change in revisions is not allowed. Reason: {reason}");
    Answer::error(StatusCode::BAD_REQUEST, "BadRequest", &message)
}

/// Source: rancher/rancher#11473; the last sentence from MicrosoftDocs/azure-docs#35586.
pub(crate) fn forbidden(client: &str, action: &str, scope: &str) -> Answer {
    let message = format!(
        "The client '{client}' with object id '{client}' does not have authorization to perform action '{action}' \
         over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
    );
    Answer::error(StatusCode::FORBIDDEN, "AuthorizationFailed", &message)
        .with("x-ms-failure-cause", "gateway")
}

/// Source: Azure/azqr#34, of another provider.
pub(crate) fn throttled(retry_after: u64) -> Answer {
    let message = format!(
        "Number of requests for action 'Microsoft.ContainerService/managedClusters' exceeded the limit of '50' for \
         time interval '00:05:00'. Please try again after '{retry_after}' seconds."
    );
    Answer::error(StatusCode::TOO_MANY_REQUESTS, "ResourceRequestsThrottled", &message)
        .with("retry-after", &retry_after.to_string())
}

/// Inferred: code and text of all three.
pub(crate) fn server_error(status: u16) -> Answer {
    let (status, code, message) = match status {
        502 => (StatusCode::BAD_GATEWAY, "BadGateway", "The gateway got no valid answer."),
        503 => (StatusCode::SERVICE_UNAVAILABLE, "ServerTimeout", "The request timed out. Try again later."),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "Encountered internal server error."),
    };
    Answer::error(status, code, message)
}

/// Inferred: ARM's codes for tokens, of which threads only show `ExpiredAuthenticationToken`
/// (microsoft/vscode-azureappservice#2483).
pub(crate) fn unauthorized(code: &str, message: &str) -> Answer {
    Answer::error(StatusCode::UNAUTHORIZED, code, message)
        .with("www-authenticate", &format!("Bearer error=\"invalid_token\", error_description=\"{code}\""))
}

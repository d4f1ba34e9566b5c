use serde_json::json;

use super::known::ROWS;
use super::*;

fn of(asked: Asked, status: u16, body: &Value) -> ArmProblem {
    let answer = Answer { status: Some(status), retry_after_seconds: Some(7), request_id: None, body };
    ArmProblem::from_answer(asked, &answer)
}

fn put(status: u16, code: &str, message: &str) -> ArmProblem {
    of(Asked::SetRevisions, status, &json!({"error": {"code": code, "message": message}}))
}

/// Each message of the troubleshooting table with its parameters filled in, and a word of what a user is told.
#[test]
fn every_message_of_the_troubleshooting_table_is_explained() {
    let table = [
        ("Azure service mesh is not supported in this region", "region or cloud"),
        ("Missing service mesh mode: Nothing", "serviceMeshProfile.mode"),
        ("Invalid istio ingress mode: Sideways", "neither External nor Internal"),
        ("Too many ingresses for type: External. Only 1 ingress gateway are allowed", "more of one kind"),
        ("Istio profile is missing even though Service Mesh mode is Istio", "serviceMeshProfile.istio"),
        (
            "Istio based Azure service mesh is incompatible with feature OpenServiceMesh",
            "Switch that feature off",
        ),
        (
            "ServiceMeshProfile is missing required parameters: certChainObjectName for plugin certificate authority",
            "all five together",
        ),
        (
            "AzureKeyvaultSecretsProvider addon is required for Azure Service Mesh plugin certificate authority feature",
            "az aks enable-addons",
        ),
        (
            "'KeyVaultId': 'x' is not a valid Azure keyvault resource identifier. Please make sure that the format matches",
            "Microsoft.KeyVault/vaults/{name}",
        ),
        ("Kubernetes version is missing in orchestrator profile", "please report it"),
        (
            "Service mesh revision asm-1-30 is not compatible with cluster version 1.29.2. To find information …",
            "upgrade the cluster first",
        ),
        (
            "Kubernetes version 1.24.1 not supported. Please upgrade to a supported cluster version first. …",
            "Upgrade the cluster first, then the mesh",
        ),
        ("ServiceMeshProfile revision field must not be empty", "please report it"),
        (
            "Request exceeds maximum allowed number of revisions (2)",
            "Complete or roll back that upgrade first",
        ),
        (
            "Mesh upgrade is in progress. Please complete or roll back the current upgrade …",
            "revisions of the cluster",
        ),
    ];
    for (message, words) in table {
        for text in [message.to_owned(), message.to_uppercase()] {
            let problem = put(400, "BadRequest", &text);
            assert!(problem.to_string().contains(words), "{problem}");
            assert!(problem.message.contains(&text[..20]), "{problem}");
            let open = ["exceeds", "Mesh upgrade is"].iter().any(|word| message.contains(word));
            assert_eq!(
                problem.class,
                if open { Class::UpgradeInProgress } else { Class::Terminal },
                "{message}"
            );
        }
    }
}

#[test]
fn conflicts_are_told_apart() {
    let wait = |operation: &str| Class::Wait { operation: operation.to_owned() };
    let busy = "Operation is not allowed: Another operation (nodepool1 - Updating) is in progress, please wait for it to finish";
    assert_eq!(put(409, "OperationNotAllowed", busy).class, wait("nodepool1 - Updating"));
    let pool = "Operation is not allowed: Another agentpool operation (nodepool1 - Creating) is in progress";
    assert_eq!(put(409, "OperationNotAllowed", pool).class, wait("nodepool1 - Creating"));
    let newer = "Operation is not allowed because there's an in progress update managed cluster operation (operation ID: e) on it";
    assert_eq!(put(409, "OperationNotAllowed", newer).class, wait("update managed cluster"));
    assert_eq!(put(409, "Conflict", "something").class, wait("another operation"));

    let flat = json!({
        "code": "EtagMismatch", "message": "Operation is not allowed: Another operation is in progress",
        "details": [{"code": "Unspecified", "message": "rpc error: code = FailedPrecondition desc = Etag mismatched"}],
        "subcode": "PutManagedClusterAndComponents_FailedPrecondition"});
    let problem = of(Asked::SetRevisions, 409, &flat);
    assert_eq!((problem.class, problem.code.as_str()), (Class::Changed, "EtagMismatch"));
    assert!(problem.message.ends_with("Etag mismatched"), "{}", problem.message);
    assert_eq!(put(412, "PreconditionFailed", busy).class, Class::Changed);

    let open =
        json!({"error": {"code": "GetMeshUpgradeProfile.ServiceMeshUpgradeInProgress", "message": "x"}});
    assert_eq!(of(Asked::Upgrades, 409, &open).class, Class::UpgradeInProgress);
}

#[test]
fn a_missing_right_is_named() {
    let message = "The client 'x' with object id 'y' does not have authorization to perform action \
                   'Microsoft.ContainerService/managedClusters/write' over scope '/subscriptions/s' or the scope is invalid.";
    let problem = put(403, "AuthorizationFailed", message);
    let action = "Microsoft.ContainerService/managedClusters/write".to_owned();
    assert_eq!(problem.class, Class::Permission { action });
    assert!(problem.told.remedy.contains("role"), "{problem}");
    let linked = "The client 'x' has permission to perform action 'Microsoft.ContainerService/managedClusters/write' on scope '/s'; however, it does \
         not have permission to perform action(s) 'Microsoft.Network/x/join/action' on the linked scope(s) '/t' or they are invalid.";
    let action = "Microsoft.Network/x/join/action".to_owned();
    assert_eq!(put(403, "LinkedAuthorizationFailed", linked).class, Class::Permission { action });
    for (asked, needed) in [
        (Asked::Cluster, "Microsoft.ContainerService/managedClusters/read"),
        (Asked::Upgrades, "Microsoft.ContainerService/managedClusters/meshUpgradeProfiles/read"),
        (Asked::Revisions, "Microsoft.ContainerService/locations/meshRevisionProfiles/read"),
        (Asked::SetRevisions, "Microsoft.ContainerService/managedClusters/write"),
        (Asked::Operation, "Microsoft.ContainerService/locations/operations/read"),
    ] {
        for message in ["", "perform action 'not an action!'"] {
            let class = of(asked, 403, &json!({"error": {"code": "Forbidden", "message": message}})).class;
            assert_eq!(class, Class::Permission { action: needed.to_owned() });
        }
    }
    for code in ["RequestDisallowedByPolicy", "ScopeLocked", "ReadOnlyDisabledSubscription"] {
        assert!(matches!(put(409, code, "m").class, Class::Permission { .. }), "{code}");
    }
}

#[test]
fn a_state_without_known_words_has_a_class() {
    let retry_after_seconds = Some(7);
    for (asked, status, class) in [
        (Asked::Cluster, 400, Class::Terminal),
        (Asked::Cluster, 401, Class::SignIn),
        (Asked::Cluster, 404, Class::Terminal),
        (Asked::Cluster, 408, Class::Transient { retry_after_seconds }),
        (Asked::Cluster, 429, Class::Throttled { retry_after_seconds }),
        (Asked::Cluster, 500, Class::Transient { retry_after_seconds }),
        (Asked::Cluster, 503, Class::Transient { retry_after_seconds }),
        (Asked::Cluster, 302, Class::Transient { retry_after_seconds: None }),
        (Asked::Operation, 404, Class::Unknown),
        (Asked::Operation, 410, Class::Unknown),
        (Asked::SetRevisions, 400, Class::Terminal),
        (Asked::SetRevisions, 404, Class::Terminal),
        (Asked::SetRevisions, 408, Class::Unknown),
        (Asked::SetRevisions, 429, Class::Throttled { retry_after_seconds }),
        (Asked::SetRevisions, 500, Class::Unknown),
        (Asked::SetRevisions, 504, Class::Unknown),
        (Asked::SetRevisions, 302, Class::Unknown),
    ] {
        for body in
            [json!(null), json!([]), json!("text"), json!({"error": "text"}), json!({"error": {"code": 1}})]
        {
            let problem = of(asked, status, &body);
            assert_eq!(problem.class, class, "{asked:?} {status} {body}");
            assert_eq!(problem.status, Some(status));
            assert!(problem.told.what.ends_with('.') && problem.told.remedy.ends_with('.'), "{problem}");
        }
    }
}

#[test]
fn whatever_the_words_a_server_error_after_a_write_leaves_it_open() {
    for row in ROWS {
        assert_eq!(put(500, "InternalServerError", &row.fragments.join(" ")).class, Class::Unknown);
        let throttled = put(429, "TooManyRequests", &row.fragments.join(" ")).class;
        assert_eq!(throttled, Class::Throttled { retry_after_seconds: Some(7) });
    }
}

#[test]
fn a_failed_operation_is_explained_like_an_answer() {
    let failed = |body: &Value| {
        let answer = Answer { status: None, retry_after_seconds: None, request_id: None, body };
        ArmProblem::from_answer(Asked::Operation, &answer)
    };
    let body = json!({"error": {"code": "InternalServerError", "message": "x"}});
    assert_eq!(failed(&body).class, Class::Transient { retry_after_seconds: None });
    let body = json!({"error": {"code": "BadRequest", "details": [
        {"message": "a", "details": [{"code": "X", "message": "Revision y is not compatible with cluster version z"}]}]}});
    let problem = failed(&body);
    assert_eq!(problem.class, Class::Terminal);
    assert!(
        problem.to_string().contains("upgrade the cluster first")
            && problem.message.starts_with("a; Revision y"),
        "{problem}"
    );
    assert_eq!(failed(&json!({})).class, Class::Terminal);
}

#[test]
fn nothing_secret_and_nothing_long_is_repeated() {
    let secret = "eyJhbGciOiJub25lIn0.kQ7n2Zr9Xb4TqL1sVw8YcF3mHj6DpG5aRt0eUiOoNyM.x";
    let address = "https://management.azure.com/subscriptions/s/operations/o?t=1&s=hush";
    let message = format!("See {address} with Bearer hush and {secret}. {}", "x ".repeat(1000));
    let body = json!({"error": {"code": secret, "message": message, "details": vec![json!({"message": message}); 50]}});
    let answer = Answer {
        status: Some(400),
        retry_after_seconds: None,
        request_id: Some("a b?hush".to_owned()),
        body: &body,
    };
    for problem in [ArmProblem::from_answer(Asked::Cluster, &answer), ArmProblem::from_sign_in(&answer)] {
        let shown = format!("{problem} {problem:?}");
        assert!(!shown.contains("hush") && !shown.contains("eyJ") && !shown.contains("?t="), "{shown}");
        assert!(problem.to_string().len() < 1500);
        assert_eq!(problem.request_id, None);
    }
    let operation = put(409, "x", &format!("Another operation ({address}) is in progress")).class;
    let clean = "https://management.azure.com/subscriptions/s/operations/o".to_owned();
    assert_eq!(operation, Class::Wait { operation: clean });
}

#[test]
fn errors_are_followed_to_a_bounded_depth() {
    let mut body = json!({"message": "deepest"});
    for _ in 0..100 {
        body = json!({"message": "m", "details": [body]});
    }
    assert_eq!(of(Asked::Cluster, 400, &body).message, "m");
}

#[test]
fn a_request_id_is_kept_for_support() {
    let id = "26fe00f8-9173-4872-9134-bb1d2e00343a";
    let answer = Answer {
        status: Some(400),
        retry_after_seconds: None,
        request_id: Some(id.to_owned()),
        body: &json!(null),
    };
    assert_eq!(ArmProblem::from_answer(Asked::Cluster, &answer).request_id.as_deref(), Some(id));
}

#[test]
fn a_refused_sign_in_says_what_to_correct() {
    let of = |status, error: &str, description: &str| {
        let body = json!({"error": error, "error_description": description, "error_codes": [1]});
        ArmProblem::from_sign_in(&Answer {
            status: Some(status),
            retry_after_seconds: Some(9),
            request_id: None,
            body: &body,
        })
    };
    for (code, words) in [
        ("AADSTS700212", "api://AzureADTokenExchange"),
        ("AADSTS700213", "system:serviceaccount:"),
        ("AADSTS700211", "OIDC issuer"),
        ("AADSTS70021", "issuer, subject and audience"),
        ("AADSTS700024", "clocks"),
        ("AADSTS700016", "client id and tenant id"),
        ("AADSTS90002", "authority host"),
        ("AADSTS1", "federated credential of"),
        ("AADSTS700219", "federated credential of"),
    ] {
        let problem = of(400, "invalid_client", &format!("{code}: something\r\nTrace ID: x"));
        assert_eq!(problem.class, Class::SignIn);
        assert!(problem.told.remedy.contains(words), "{problem}");
        assert!(problem.to_string().contains("invalid_client"), "{problem}");
    }
    let retry_after_seconds = Some(9);
    assert_eq!(of(429, "", "AADSTS700212").class, Class::Throttled { retry_after_seconds });
    for status in [408, 410, 500, 503] {
        assert_eq!(of(status, "", "").class, Class::Transient { retry_after_seconds });
    }
}

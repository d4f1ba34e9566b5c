use super::*;

fn accepted(request: &str) -> Reply {
    let address =
        format!("https://{}{PATH}/op-1?api-version=2016-03-30&t=1&s=hush", header(request, "host").unwrap());
    let headers =
        format!("azure-asyncoperation: {address}\r\nx-ms-ratelimit-remaining-subscription-writes: 1199\r\n");
    let mut body = cluster(&["asm-1-27", "asm-1-28"]);
    body["properties"]["provisioningState"] = json!("Updating");
    answer("200 OK", &headers, &body)
}

#[tokio::test]
async fn a_write_is_the_cluster_as_read_with_other_revisions_tied_to_its_etag() {
    let cloud = writable(accepted);
    let SetRevisions::Accepted(accepted) = start(&cloud).await.unwrap() else { panic!() };
    assert_eq!(accepted.operation_id.as_deref(), Some("op-1"));
    assert_eq!(accepted.remaining_writes, Some(1199));
    assert!(accepted.handle.is_some() && !format!("{accepted:?}").contains("hush"));

    let puts = cloud.server.requests_to("PUT");
    assert_eq!(puts.len(), 1);
    assert!(puts[0].starts_with(&format!("PUT {PATH}?api-version=2026-01-01 HTTP/1.1\r\n")), "{}", puts[0]);
    assert_eq!(header(&puts[0], "if-match"), Some("\"e-1\""));
    assert_eq!(header(&puts[0], "content-type"), Some("application/json"));
    let mut expected = cluster(&["asm-1-27", "asm-1-28"]);
    for name in ["id", "name", "eTag"] {
        expected.as_object_mut().unwrap().remove(name);
    }
    let properties = expected["properties"].as_object_mut().unwrap();
    properties.remove("provisioningState");
    properties.remove("currentKubernetesVersion");
    properties["agentPoolProfiles"][0].as_object_mut().unwrap().remove("nodeImageVersion");
    assert_eq!(body(&puts[0]), expected);
}

#[tokio::test]
async fn numbers_go_back_digit_by_digit() {
    let cloud = cloud(|request| {
        if request.starts_with("PUT") {
            return ok(&json!({}));
        }
        let text = cluster(&["asm-1-27"]).to_string();
        // A fast parser of decimals gets the last digit of the first two wrong.
        let spot = "[31.245270191439438,121.48791951161945,-1.0]";
        let text = text.replacen("0.9876543210123456", spot, 1);
        Reply::Answer("200 OK", String::new(), text)
    });
    start(&cloud).await.unwrap();
    let sent = cloud.server.requests_to("PUT").remove(0);
    assert!(sent.contains("\"spot\":[31.245270191439438,121.48791951161945,-1.0]"), "{sent}");
}

#[tokio::test]
async fn without_an_etag_the_write_has_no_condition() {
    let cloud = cloud(|request| {
        let mut body = cluster(&["asm-1-27"]);
        body.as_object_mut().unwrap().remove("eTag");
        ok(&body_or_empty(request, &body))
    });
    assert!(matches!(start(&cloud).await, Ok(SetRevisions::Accepted(_))));
    assert_eq!(header(&cloud.server.requests_to("PUT")[0], "if-match"), None);
}

fn body_or_empty(request: &str, body: &Value) -> Value {
    if request.starts_with("PUT") { json!({}) } else { body.clone() }
}

#[tokio::test]
async fn what_is_so_already_is_not_written() {
    let cloud = cloud(|_| {
        let mut body = cluster(&["asm-1-28", "asm-1-27"]);
        body["properties"]["provisioningState"] = json!("Updating");
        ok(&body)
    });
    assert_eq!(start(&cloud).await, Ok(SetRevisions::AlreadySo));
    assert!(cloud.server.requests_to("PUT").is_empty());
}

#[tokio::test]
async fn a_cluster_that_is_busy_changed_or_out_of_order_is_not_written() {
    let waits = |state: &str| Class::Wait { operation: state.to_owned() };
    let edit = |pointer: &'static str, value: Value| {
        let mut body = cluster(&["asm-1-27"]);
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let state = "/properties/provisioningState";
    let mesh = "/properties/serviceMeshProfile";
    for (body, class) in [
        (edit(state, json!("Upgrading")), waits("Upgrading")),
        (edit(state, json!("Failed")), waits("Failed")),
        (edit(state, json!("Canceled")), waits("Canceled")),
        (edit(state, json!(null)), waits("")),
        (cluster(&["asm-1-26"]), Class::Changed),
        (cluster(&["asm-1-27", "asm-1-29"]), Class::Changed),
        (edit("/properties/serviceMeshProfile/mode", json!("Disabled")), Class::Terminal),
        (edit("/properties/kubernetesVersion", json!(null)), Class::Terminal),
        (edit(mesh, json!(null)), Class::Changed),
    ] {
        let cloud = cloud(move |_| ok(&body));
        let problem = start(&cloud).await.unwrap_err();
        assert_eq!(problem.class, class, "{problem}");
        assert!(cloud.server.requests_to("PUT").is_empty());
    }
    let cloud = writable(accepted);
    let problem = cloud.arm.set_revisions(&id(), &revisions(&["asm-1-27"]), &[]).await.unwrap_err();
    assert_eq!((problem.class, cloud.server.requests_to("PUT").len()), (Class::Terminal, 0));
}

#[tokio::test]
async fn each_refusal_of_a_write_has_its_class_and_is_not_repeated() {
    let wait = Class::Wait { operation: "nodepool1 - Updating".to_owned() };
    let busy = "Operation is not allowed: Another operation (nodepool1 - Updating) is in progress";
    let action = "Microsoft.ContainerService/managedClusters/write".to_owned();
    for (reply, class) in [
        (
            error("400 Bad", "BadRequest", "Requested change in revisions is not allowed. Reason: x"),
            Class::Terminal,
        ),
        (error("401 No", "InvalidAuthenticationToken", "m"), Class::SignIn),
        (error("403 No", "AuthorizationFailed", "m"), Class::Permission { action }),
        (error("409 No", "OperationNotAllowed", busy), wait),
        (answer("409 No", "", &json!({"code": "EtagMismatch", "message": busy})), Class::Changed),
        (error("412 No", "PreconditionFailed", "m"), Class::Changed),
        (
            answer("429 No", "retry-after: 9\r\n", &json!({})),
            Class::Throttled { retry_after_seconds: Some(9) },
        ),
        (error("500 No", "InternalServerError", "m"), Class::Unknown),
        (error("504 No", "GatewayTimeout", "m"), Class::Unknown),
        (answer("307 Away", "location: /elsewhere\r\n", &json!({})), Class::Unknown),
        (Reply::Close, Class::Unknown),
        (Reply::Silence(2 * SHORT), Class::Unknown),
    ] {
        let sent = reply.clone();
        let cloud = writable(move |_| sent.clone()).hurried_by(&reply);
        let problem = start(&cloud).await.unwrap_err();
        assert_eq!(problem.class, class, "{problem}");
        assert_eq!(cloud.server.requests_to("PUT").len(), 1, "{problem}");
        let shown = format!("{problem} {problem:?}");
        assert!(!shown.contains("127.0.0.1") && !shown.contains("token-1"), "{shown}");
    }
}

#[tokio::test]
async fn a_write_that_never_left_has_a_known_outcome() {
    let cloud = writable(accepted);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // The client's connection is refused: nothing was sent.
    let config =
        Config { endpoint: format!("https://{gone}").parse().unwrap(), ..cloud.arm.config().clone() };
    let arm = Arm::new(config).unwrap();
    let problem = arm.set_revisions(&id(), &[], &revisions(&["asm-1-28"])).await.unwrap_err();
    assert_eq!(problem.class, Class::Transient { retry_after_seconds: None }, "{problem}");
    assert!(problem.to_string().contains("connection refused"), "{problem}");
}

#[tokio::test]
async fn the_head_of_an_answer_is_enough_to_know_that_a_write_was_accepted() {
    let cloud = writable(|request| {
        let host = header(request, "host").unwrap();
        Reply::Half("200 OK", format!("azure-asyncoperation: https://{host}/operations/op-2?s=hush\r\n"))
    });
    let SetRevisions::Accepted(accepted) = start(&cloud).await.unwrap() else { panic!() };
    assert_eq!(accepted.operation_id.as_deref(), Some("op-2"));
    assert!(accepted.handle.is_some());
}

use std::time::Instant;

use meshupgrade_core::aks::cluster::MeshMode;
use meshupgrade_core::aks::offers::MeshUpgrades;

use super::*;

#[tokio::test]
async fn a_cluster_is_read_as_it_is() {
    let cloud = cloud(|_| ok(&cluster(&["asm-1-27"])));
    let read = cloud.arm.read(&id()).await.unwrap();
    assert_eq!(read.raw, cluster(&["asm-1-27"]));
    assert_eq!((read.etag.as_deref(), &read.cluster.mesh_mode), (Some("e-1"), &MeshMode::Istio));
    assert_eq!(read.cluster.revisions, revisions(&["asm-1-27"]));
    let request = &cloud.server.requests_to("GET")[0];
    assert!(request.starts_with(&format!("GET {PATH}?api-version=2026-01-01 HTTP/1.1\r\n")), "{request}");
    assert_eq!(header(request, "authorization"), Some("Bearer token-1"));
    assert_eq!(header(request, "user-agent"), Some(concat!("meshupgrade/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(header(request, "accept-encoding"), Some("identity"));
    assert_eq!(header(request, "x-ms-client-request-id").map(str::len), Some(36));
    let shown = format!("{read:?} {:?}", cloud.arm);
    assert!(!shown.contains("futureOuter") && !shown.contains("token-1"), "{shown}");
}

#[tokio::test]
async fn the_etag_of_the_header_comes_first_and_none_is_allowed() {
    let cloud = cloud(|request| {
        let mut body = cluster(&["asm-1-27"]);
        if request.contains("/rg-header/") {
            return answer("200 OK", "etag: \"h-1\"\r\n", &body);
        }
        body.as_object_mut().unwrap().remove("eTag");
        ok(&body)
    });
    let of = |group: &str| ClusterId::new(SUBSCRIPTION, group, "mesh").unwrap();
    let read = cloud.arm.read(&of("rg-header")).await.unwrap();
    assert_eq!(read.etag.as_deref(), Some("\"h-1\""));
    let read = cloud.arm.read(&of("rg-none")).await.unwrap();
    assert!(read.etag.is_none() && !read.cluster.etag_present);
}

#[tokio::test]
async fn offers_are_read_and_an_open_upgrade_is_no_error() {
    let cloud = cloud(|request| {
        if request.contains("/meshUpgradeProfiles?") && request.contains("/open/") {
            error(
                "409 Conflict",
                "GetMeshUpgradeProfile.ServiceMeshUpgradeInProgress",
                "Mesh upgrade is in progress.",
            )
        } else if request.contains("/meshUpgradeProfiles?") {
            ok(
                &json!({"value": [{"name": "istio", "properties": {"revision": "asm-1-27", "upgrades": ["asm-1-28"]}}]}),
            )
        } else {
            ok(
                &json!({"value": [{"name": "istio", "properties": {"meshRevisions": [{"revision": "asm-1-28"}]}}]}),
            )
        }
    });
    let MeshUpgrades::Offered(offered) = cloud.arm.upgrades(&id()).await.unwrap() else { panic!() };
    assert_eq!(offered.upgrades, revisions(&["asm-1-28"]));
    let open = ClusterId::new(SUBSCRIPTION, "open", "mesh").unwrap();
    assert_eq!(cloud.arm.upgrades(&open).await.unwrap(), MeshUpgrades::UpgradeInProgress);
    let offered = cloud.arm.revisions(&id(), "West Europe/../x").await.unwrap();
    assert_eq!(offered[0].revision, Revision::from("asm-1-28"));
    let path = format!(
        "GET /subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/westeuropex/meshRevisionProfiles?"
    );
    assert_eq!(cloud.server.requests_to(&path).len(), 1);
}

#[tokio::test]
async fn each_refusal_has_its_class_and_is_not_repeated() {
    let action = "Microsoft.ContainerService/managedClusters/read".to_owned();
    let retry_after_seconds = Some(17);
    for (reply, class) in [
        (error("400 Bad", "BadRequest", "m"), Class::Terminal),
        (error("403 No", "AuthorizationFailed", "m"), Class::Permission { action }),
        (error("404 No", "ResourceNotFound", "m"), Class::Terminal),
        (
            answer("409 No", "", &json!({"code": "EtagMismatch", "message": "m", "subcode": "s"})),
            Class::Changed,
        ),
        (answer("429 No", "retry-after: 17\r\n", &json!(null)), Class::Throttled { retry_after_seconds }),
        (answer("503 No", "Retry-After: 17\r\n", &json!(null)), Class::Transient { retry_after_seconds }),
        (error("500 No", "InternalServerError", "m"), Class::Transient { retry_after_seconds: None }),
        (answer("204 Nothing", "", &json!(null)), Class::Transient { retry_after_seconds: None }),
    ] {
        let cloud = cloud(move |_| reply.clone());
        let problem = cloud.arm.read(&id()).await.unwrap_err();
        assert_eq!(problem.class, class, "{problem}");
        assert_eq!(cloud.server.requests_to("GET").len(), 1);
        let shown = format!("{problem} {problem:?}");
        assert!(!shown.contains("127.0.0.1") && !shown.contains("token-1"), "{shown}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_tried_again_later() {
    let began = Instant::now();
    for (reply, words) in [
        (Reply::Close, "before there was an answer"),
        (Reply::Silence(2 * SHORT), "no answer within"),
        (Reply::Stall(3 * SHORT), "did not come to its end in time"),
        (Reply::Half("200 OK", String::new()), "did not come to its end"),
        (Reply::Spaces(4 * 1024 * 1024 + 1), "larger than 4 MiB"),
        (Reply::Answer("200 OK", String::new(), "hush".to_owned()), "no JSON"),
        (ok(&json!({"value": []})), "not that of a managed cluster"),
    ] {
        let sent = reply.clone();
        let cloud = cloud(move |_| sent.clone()).hurried_by(&reply);
        let problem = cloud.arm.read(&id()).await.unwrap_err();
        assert_eq!(problem.class, Class::Transient { retry_after_seconds: None }, "{problem}");
        assert!(problem.to_string().contains(words) && !problem.to_string().contains("hush"), "{problem}");
        assert_eq!(cloud.server.requests_to("GET").len(), 1, "{words}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_body_of_4_mib_is_read() {
    let large = cloud(|_| {
        let mut body = cluster(&["asm-1-27"]);
        body["tags"] = json!({"a": ""});
        let length = 4 * 1024 * 1024 - body.to_string().len();
        body["tags"]["a"] = json!("x".repeat(length));
        ok(&body)
    });
    assert!(large.arm.read(&id()).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let cloud = cloud(move |request| {
            if request.contains("/elsewhere") {
                return ok(&cluster(&["asm-1-27"]));
            }
            answer(status, "location: /elsewhere\r\n", &json!(null))
        });
        let problem = cloud.arm.read(&id()).await.unwrap_err();
        assert_eq!(problem.status, status[..3].parse().ok());
        assert_eq!(cloud.server.requests_to("GET").len(), 1);
        assert!(start(&cloud).await.is_err());
        assert!(cloud.server.requests_to("PUT").is_empty());
    }
}

#[tokio::test]
async fn a_server_of_another_authority_gets_nothing() {
    let (ours, theirs) = (cloud(|_| ok(&json!({}))), cloud(|_| ok(&json!({}))));
    let options = Options {
        endpoint: format!("https://{}", theirs.server.address),
        authority_host: format!("https://{}", theirs.server.address),
        ca_file: Some(ours.authority.file.clone()),
        client_id: Some("client".to_owned()),
        tenant_id: Some(TENANT.to_owned()),
        federated_token_file: Some(ours.directory.path().join("token")),
        ..Options::default()
    };
    let problem = arm(&options).read(&id()).await.unwrap_err();
    assert!(problem.to_string().contains("cannot prove who it is"), "{problem}");
    assert!(theirs.server.requests().is_empty());
}

use super::*;

/// A cloud that gives tokens one after the other, and accepts those that the test says.
fn with_tokens(seconds: u64, accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> Cloud {
    let count = counter();
    cloud_with(move |request| {
        if is_sign_in(request) {
            return token(&format!("token-{}", count()), seconds);
        }
        let bearer = header(request, "authorization").unwrap();
        if accepts(bearer) {
            ok(&cluster(&["asm-1-27"]))
        } else {
            error("401 No", "ExpiredAuthenticationToken", bearer)
        }
    })
}

fn sign_ins(cloud: &Cloud) -> Vec<String> {
    cloud.server.requests_to(&format!("POST /{TENANT}/oauth2/v2.0/token "))
}

#[tokio::test]
async fn the_federated_token_is_exchanged_and_the_result_kept() {
    let cloud = with_tokens(3600, |_| true);
    for _ in 0..3 {
        cloud.arm.read(&id()).await.unwrap();
    }
    let requests = sign_ins(&cloud);
    assert_eq!(requests.len(), 1);
    let host = format!("https%3A%2F%2F127.0.0.1%3A{}", cloud.server.address.port());
    assert_eq!(
        requests[0].split_once("\r\n\r\n").unwrap().1,
        format!(
            "grant_type=client_credentials&client_id=client&scope={host}%2F.default&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=federated-hush"
        )
    );
}

#[tokio::test]
async fn many_at_once_sign_in_once() {
    let cloud = with_tokens(3600, |_| true);
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let arm = cloud.arm.clone();
            tokio::spawn(async move { arm.read(&id()).await.is_ok() })
        })
        .collect();
    for read in reads {
        assert!(read.await.unwrap());
    }
    assert_eq!(sign_ins(&cloud).len(), 1);
}

#[tokio::test]
async fn a_token_near_its_end_is_replaced_and_the_file_read_again() {
    let cloud = with_tokens(1, |_| true);
    cloud.arm.read(&id()).await.unwrap();
    std::fs::write(cloud.directory.path().join("token"), "second-hush").unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    cloud.arm.read(&id()).await.unwrap();
    let requests = sign_ins(&cloud);
    assert_eq!(requests.len(), 2);
    assert!(requests[1].ends_with("client_assertion=second-hush"), "{}", requests[1]);
    assert_eq!(header(&cloud.server.requests_to("GET")[1], "authorization"), Some("Bearer token-1"));
}

#[tokio::test]
async fn a_token_is_used_to_its_end_when_there_is_no_new_one() {
    let count = counter();
    let cloud = cloud_with(move |request| {
        if !is_sign_in(request) {
            return ok(&cluster(&["asm-1-27"]));
        }
        if count() == 0 { token("token-0", 8) } else { error("503 No", "x", "m") }
    });
    cloud.arm.read(&id()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(6200)).await;
    assert!(cloud.arm.read(&id()).await.is_ok());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let problem = cloud.arm.read(&id()).await.unwrap_err();
    assert!(problem.to_string().starts_with("The operator could not sign in to Azure."), "{problem}");
    assert_eq!(problem.class, Class::Transient { retry_after_seconds: None });
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_for_a_read_and_never_for_a_write() {
    let cloud = with_tokens(3600, |bearer| bearer != "Bearer token-0");
    assert!(cloud.arm.read(&id()).await.is_ok());
    assert_eq!((sign_ins(&cloud).len(), cloud.server.requests_to("GET").len()), (2, 2));

    let cloud = with_tokens(3600, |_| false);
    let problem = cloud.arm.read(&id()).await.unwrap_err();
    assert_eq!(problem.class, Class::SignIn);
    assert!(!format!("{problem} {problem:?}").contains("token-"), "{problem}");
    assert_eq!((sign_ins(&cloud).len(), cloud.server.requests_to("GET").len()), (2, 2));

    let count = counter();
    let cloud = cloud_with(move |request| {
        if is_sign_in(request) {
            return token(&format!("token-{}", count()), 3600);
        }
        if request.starts_with("GET") { ok(&cluster(&["asm-1-27"])) } else { error("401 No", "x", "m") }
    });
    assert_eq!(start(&cloud).await.unwrap_err().class, Class::SignIn);
    assert_eq!((sign_ins(&cloud).len(), cloud.server.requests_to("PUT").len()), (1, 1));
    // The next call has a new one.
    cloud.arm.read(&id()).await.unwrap();
    assert_eq!(sign_ins(&cloud).len(), 2);
}

#[tokio::test]
async fn a_refused_sign_in_is_explained_and_nothing_secret_told() {
    let description = "AADSTS700213: No matching record for 'system:serviceaccount:a:b'. federated-hush-hush-hush-hush-hush-hush-1\r\nTrace ID: t";
    let cloud = cloud_with(move |_| {
        answer("401 Unauthorized", "", &json!({"error": "invalid_client", "error_description": description}))
    });
    let problem = cloud.arm.read(&id()).await.unwrap_err();
    assert_eq!((problem.class.clone(), problem.code.as_str()), (Class::SignIn, "invalid_client"));
    assert!(problem.told.remedy.contains("system:serviceaccount:"), "{problem}");
    assert!(!format!("{problem} {problem:?} {:?}", cloud.arm).contains("hush"), "{problem}");
    assert!(cloud.server.requests_to("GET").is_empty());
}

#[tokio::test]
async fn without_a_usable_file_or_answer_there_is_no_request_to_arm() {
    for (content, reply) in [
        (" \n", token("x", 1)),
        ("a", ok(&json!({"expires_in": 1}))),
        ("a", ok(&json!({"access_token": "hush\nhush"}))),
        ("a", Reply::Answer("200 OK", String::new(), "hush".to_owned())),
        ("a", answer("302 Found", "location: /elsewhere\r\n", &json!({}))),
        ("a", Reply::Spaces(5 * 1024 * 1024)),
        ("a", Reply::Close),
    ] {
        let cloud = cloud_with(move |_| reply.clone());
        std::fs::write(cloud.directory.path().join("token"), content).unwrap();
        let problem = cloud.arm.read(&id()).await.unwrap_err();
        assert!(
            problem.told.what.contains("could not sign in") && !problem.to_string().contains("hush"),
            "{problem}"
        );
        assert!(cloud.server.requests_to("GET").is_empty());
    }
    let cloud = with_tokens(3600, |_| true);
    std::fs::remove_file(cloud.directory.path().join("token")).unwrap();
    assert_eq!(cloud.arm.read(&id()).await.unwrap_err().code, "NoFederatedToken");
}

/// A cloud, and an endpoint of managed identities that gives these answers, the last one for ever.
fn managed(answers: Vec<Reply>) -> (Cloud, Server, Arm) {
    let cloud = with_tokens(3600, |bearer| bearer == "Bearer managed");
    let count = counter();
    let node = Server::plain(move |_| answers[count().min(answers.len() - 1)].clone());
    let options = Options {
        endpoint: format!("https://{}", cloud.server.address),
        ca_file: Some(cloud.authority.file.clone()),
        client_id: Some("client".to_owned()),
        managed_identity_host: format!("http://{}/", node.address),
        ..Options::default()
    };
    let arm = arm(&options);
    (cloud, node, arm)
}

fn managed_token() -> Reply {
    ok(&json!({"access_token": "managed", "expires_in": "86399", "token_type": "Bearer"}))
}

#[tokio::test]
async fn a_managed_identity_is_asked_again_while_its_endpoint_is_busy() {
    let busy = ["404 No", "410 Gone", "429 No", "500 No"].map(|status| error(status, "x", "m"));
    let mut answers = busy[..3].to_vec();
    answers.push(managed_token());
    let (cloud, node, arm) = managed(answers);
    arm.read(&id()).await.unwrap();
    arm.read(&id()).await.unwrap();
    let requests = node.requests();
    assert_eq!(requests.len(), 4);
    let path = format!(
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2F127.0.0.1%3A{}%2F&client_id=client ",
        cloud.server.address.port()
    );
    assert!(requests[0].starts_with(&path), "{}", requests[0]);
    assert_eq!(header(&requests[0], "metadata"), Some("true"));
    assert!(sign_ins(&cloud).is_empty());
}

#[tokio::test]
async fn a_managed_identity_is_not_asked_for_ever() {
    for (status, requests) in [("500 No", 4), ("410 Gone", 8), ("400 Bad", 1), ("403 No", 1)] {
        let body = json!({"error": "invalid_request", "error_description": "Identity not found"});
        let (cloud, node, arm) = managed(vec![answer(status, "", &body)]);
        let problem = arm.read(&id()).await.unwrap_err();
        assert_eq!(node.requests().len(), requests, "{status}");
        assert_eq!(problem.class == Class::SignIn, requests == 1, "{problem}");
        assert!(problem.to_string().contains("Identity not found"), "{problem}");
        assert!(cloud.server.requests().is_empty());
    }
}

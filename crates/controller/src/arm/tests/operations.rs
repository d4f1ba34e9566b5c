use meshupgrade_core::aks::operation::OperationState;

use super::*;
use crate::arm::operation::{self, OperationHandle};

/// A cloud whose operation gives these answers, the last one for ever.
fn with_operation(answers: Vec<Reply>) -> Cloud {
    let count = counter();
    cloud(move |request| {
        if request.starts_with("PUT") {
            let host = header(request, "host").unwrap();
            return answer(
                "200 OK",
                &format!("Azure-AsyncOperation: https://{host}/operations/op?s=hush\r\n"),
                &json!({}),
            );
        }
        if request.starts_with("GET /operations/op?s=hush ") {
            return answers[count().min(answers.len() - 1)].clone();
        }
        ok(&cluster(&["asm-1-27"]))
    })
}

async fn handle(cloud: &Cloud) -> OperationHandle {
    let SetRevisions::Accepted(accepted) = start(cloud).await.unwrap() else { panic!() };
    accepted.handle.unwrap()
}

fn state(word: &str) -> Reply {
    ok(&json!({"name": "op", "status": word}))
}

async fn follow(answers: Vec<Reply>) -> Result<OperationState, ArmProblem> {
    let cloud = with_operation(answers);
    let handle = handle(&cloud).await;
    cloud.arm.follow(&handle, Duration::from_secs(10)).await
}

#[tokio::test]
async fn an_operation_is_followed_to_its_end_through_failures_that_pass() {
    let unauthorized = error("401 No", "ExpiredAuthenticationToken", "m");
    let answers = vec![
        state("InProgress"),
        error("503 No", "x", "m"),
        Reply::Close,
        answer("429 No", "retry-after: 0\r\n", &json!({})),
        unauthorized,
        answer("202 Accepted", "", &json!({})),
        state("succeeded"),
    ];
    assert_eq!(follow(answers).await, Ok(OperationState::Succeeded));
    assert_eq!(follow(vec![state("Canceled")]).await, Ok(OperationState::Canceled));
}

#[tokio::test]
async fn a_failed_operation_says_why_without_the_address() {
    let body = json!({"status": "Failed", "error": {"code": "BadRequest", "message": "see https://h/operations/op?s=hush"}});
    let Ok(OperationState::Failed(problem)) = follow(vec![ok(&body)]).await else { panic!() };
    assert_eq!(problem.class, Class::Terminal);
    assert!(
        problem.message.contains("https://h/operations/op") && !format!("{problem:?}").contains("hush"),
        "{problem}"
    );
}

#[tokio::test]
async fn an_operation_that_is_forgotten_or_takes_too_long_leaves_the_outcome_open() {
    let problem = follow(vec![error("404 No", "NotFound", "m")]).await.unwrap_err();
    assert_eq!(problem.class, Class::Unknown);
    let cloud = with_operation(vec![state("InProgress")]);
    let handle = handle(&cloud).await;
    let problem = cloud.arm.follow(&handle, Duration::from_millis(350)).await.unwrap_err();
    assert_eq!((problem.class, problem.code.as_str()), (Class::Unknown, "OperationTooLong"));
    let looks = cloud.server.requests_to("GET /operations/").len();
    assert!((1..=4).contains(&looks), "{looks}");
}

#[tokio::test]
async fn the_next_look_is_when_azure_says() {
    let slow = answer("200 OK", "retry-after: 17\r\n", &json!({"status": "Running"}));
    let cloud = with_operation(vec![slow, state("Running")]);
    let handle = handle(&cloud).await;
    assert_eq!(cloud.arm.poll(&handle).await.unwrap().next_in, Duration::from_secs(17));
    assert_eq!(cloud.arm.poll(&handle).await.unwrap().next_in, Duration::from_millis(100));
    assert_eq!(format!("{handle:?}"), "OperationHandle(<hidden>)");
    let cloud = with_operation(vec![answer("202 Accepted", "", &json!(null))]);
    let handle = self::handle(&cloud).await;
    assert_eq!(cloud.arm.poll(&handle).await.unwrap().state, OperationState::Running);
}

#[test]
fn an_address_elsewhere_gets_no_token() {
    let endpoint = "https://management.azure.com".parse().unwrap();
    let of = |address: &str| OperationHandle::new(address, &endpoint);
    assert!(of("https://management.azure.com/a?b").is_some());
    assert!(of("https://MANAGEMENT.azure.com:443/a?b").is_some());
    for address in [
        "http://management.azure.com/a",
        "https://management.azure.com:444/a",
        "https://management.azure.com.evil.test/a",
        "https://evil.test/management.azure.com",
        "https://evil@management.azure.com/a",
        "https://management.azure.com@evil.test/a",
        "/a",
        "",
    ] {
        assert_eq!(of(address), None, "{address}");
    }
    assert_eq!(of(&format!("https://management.azure.com/{}", "a".repeat(20_000))), None);
    assert_eq!(operation::id("https://h/locations/l/operations/6a-1?t=1").as_deref(), Some("6a-1"));
    for address in ["https://h/a/b%3Fs=hush", "https://h/", "x", "https://h/a_b"] {
        assert_eq!(operation::id(address), None, "{address}");
    }
}

#[tokio::test]
async fn a_write_whose_operation_is_elsewhere_is_accepted_without_a_handle() {
    let other = cloud(|_| state("Succeeded"));
    let address = format!("https://{}/operations/op-3?s=hush", other.server.address);
    let cloud =
        writable(move |_| answer("201 Created", &format!("azure-asyncoperation: {address}\r\n"), &json!({})));
    let SetRevisions::Accepted(accepted) = start(&cloud).await.unwrap() else { panic!() };
    assert_eq!((accepted.operation_id.as_deref(), accepted.handle), (Some("op-3"), None));
    assert!(other.server.requests().is_empty());
}

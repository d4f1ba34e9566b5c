use std::process::Command;
use std::time::Instant;

use super::server::{Behaviour, GOOD, Server, response};
use super::*;

async fn kind_of(behaviour: Behaviour) -> ProblemKind {
    let server = Server::start(behaviour).await;
    kind(&source(&server.url())).await
}

#[tokio::test]
async fn a_query_is_one_post_and_its_vector_comes_back() {
    let server = Server::answering(GOOD).await;
    let source = source(&format!("{}/some/prefix/", server.url()));
    let query = query("a{$(istiod:asm-1-28)} > 1");
    let rows = client::ask(&Arc::new(source), &query).await.unwrap();
    assert_eq!(rows[0].labels["job"], "a");
    assert!((rows[0].value - 1.5).abs() < f64::EPSILON);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = requests[0].to_lowercase();
    assert!(request.starts_with("post /some/prefix/api/v1/query http/1.1\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
    let form = requests[0].split_once("\r\n\r\n").unwrap().1;
    assert_eq!(
        form,
        "query=a%7Bistio_io_rev%3D%22asm-1-28%22%7D+%3E+1&time=2026-01-01T00%3A00%3A00.25Z&timeout=8s&partial_response=false&lookback_delta=60s"
    );
}

/// The environment of this process cannot be changed safely: the test above runs again in one of its own.
#[test]
fn the_environment_names_no_proxy() {
    let test = "metric_sources::tests::exchange::a_query_is_one_post_and_its_vector_comes_back";
    let mut child = Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, "http://127.0.0.1:1");
    }
    let output =
        child.env_remove("NO_PROXY").env_remove("no_proxy").args(["--exact", test]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn scalars_empty_vectors_and_nan_are_answers() {
    let body = |data: &str| format!(r#"{{"status":"success","data":{data}}}"#);
    let server = Server::answering(&body(r#"{"resultType":"scalar","result":[1,"42"]}"#)).await;
    assert!((ask(&source(&server.url())).await.unwrap()[0].value - 42.0).abs() < f64::EPSILON);
    let server = Server::answering(&body(r#"{"resultType":"vector","result":[]}"#)).await;
    assert_eq!(ask(&source(&server.url())).await.unwrap(), []);
    let server = Server::answering(&body(r#"{"resultType":"scalar","result":[1,"NaN"]}"#)).await;
    assert!(ask(&source(&server.url())).await.unwrap()[0].value.is_nan());
}

#[tokio::test]
async fn what_the_query_parser_says_is_passed_on_short_and_clean() {
    for status in ["400 Bad Request", "422 Unprocessable Entity"] {
        let text = format!("parse error\\n{}", "x".repeat(300));
        let body = format!(r#"{{"status":"error","errorType":"bad_data","error":"{text}"}}"#);
        let server = Server::start(response(status, "", &body)).await;
        let problem = problem(&source(&server.url())).await;
        assert_eq!(problem.kind, ProblemKind::BadQuery);
        assert!(problem.message.starts_with("parse error xxx"), "{problem}");
        assert_eq!(problem.message.chars().count(), 200);
    }
}

#[tokio::test]
async fn other_states_are_told_apart_and_their_bodies_not_repeated() {
    for (status, kind) in [
        ("400 Bad Request", ProblemKind::Refused),
        ("401 Unauthorized", ProblemKind::Unauthorized),
        ("403 Forbidden", ProblemKind::Unauthorized),
        ("404 hush", ProblemKind::Refused),
        ("204 No Content", ProblemKind::Refused),
        ("500 hush", ProblemKind::Refused),
        ("503 hush", ProblemKind::Refused),
    ] {
        let server = Server::start(response(status, "x-hush: hush\r\n", "hush")).await;
        let problem = problem(&source(&server.url())).await;
        assert_eq!(problem.kind, kind, "{status}");
        assert!(problem.message.contains(&status[..3]), "{problem}");
        let shown = format!("{problem} {problem:?}");
        assert!(!shown.contains("hush") && !shown.contains("127.0.0.1"), "{shown}");
        assert_eq!(server.connections(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let target = Server::answering(GOOD).await;
        let location = format!("location: {}/api/v1/query\r\n", target.url());
        let server = Server::start(response(status, &location, "")).await;
        assert_eq!(kind(&source(&server.url())).await, ProblemKind::Redirected, "{status}");
        assert_eq!((server.connections(), target.connections()), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn neither_slow_headers_nor_a_slow_body_take_longer_than_the_timeout() {
    let began = Instant::now();
    let heads = [
        "HTTP/1.1 200 OK\r\nx: ",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n",
    ];
    for behaviour in heads.map(Behaviour::Dribble).into_iter().chain([Behaviour::Silence]) {
        let server = Server::start(behaviour.clone()).await;
        let source = Source { timeout: SHORT, ..source(&server.url()) };
        assert_eq!(kind(&source).await, ProblemKind::TimedOut, "{behaviour:?}");
    }
    assert!(began.elapsed() < LONG);
}

#[tokio::test]
async fn a_large_body_is_not_read() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 400 Bad\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n",
    ] {
        let server = Server::start(Behaviour::Flood(head)).await;
        assert_eq!(kind(&source(&server.url())).await, ProblemKind::TooLarge, "{head}");
        // 1 MiB, and what the two sockets hold.
        assert!(server.sent() < 20 * 1024 * 1024, "{head}: {}", server.sent());
    }
}

#[tokio::test]
async fn the_largest_body_is_counted_to_the_byte() {
    let server = Server::answering(GOOD).await;
    let exactly = Source { max_body_bytes: GOOD.len(), ..source(&server.url()) };
    assert!(ask(&exactly).await.is_ok());
    let less = Source { max_body_bytes: GOOD.len() - 1, ..exactly };
    assert_eq!(kind(&less).await, ProblemKind::TooLarge);
    let chunked = format!("HTTP/1.1 200 OK\r\n\r\n{GOOD}");
    let server = Server::start(Behaviour::Answer(chunked)).await;
    assert_eq!(kind(&Source { url: server.url().parse().unwrap(), ..less }).await, ProblemKind::TooLarge);
}

#[tokio::test]
async fn a_compressed_body_is_not_unpacked() {
    for encoding in ["gzip", "br", "zstd"] {
        let headers = format!("content-encoding: {encoding}\r\n");
        assert_eq!(kind_of(response("200 OK", &headers, GOOD)).await, ProblemKind::BadAnswer, "{encoding}");
    }
    assert!(
        ask(&source(&Server::start(response("200 OK", "content-encoding: identity\r\n", GOOD)).await.url()))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_bad_one() {
    for body in [
        "",
        "garbage",
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}",
        &GOOD[..40],
    ] {
        assert_eq!(kind_of(response("200 OK", "", body)).await, ProblemKind::BadAnswer, "{body}");
    }
    let cut = Behaviour::Answer(format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{GOOD}"));
    assert_eq!(kind_of(cut).await, ProblemKind::BadAnswer);
    for text in ["garbage\r\n\r\n", "", "HTTP/1.1 200 OK\r\n"] {
        assert_eq!(kind_of(Behaviour::Answer(text.to_owned())).await, ProblemKind::BadAnswer, "{text}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let problem = problem(&source(&format!("http://{address}"))).await;
    assert_eq!(problem.kind, ProblemKind::Unreachable);
    assert_eq!(problem.message, "no connection to source a: connection refused");
}

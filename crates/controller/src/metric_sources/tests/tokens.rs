use std::fs;

use tempfile::TempDir;

use super::server::{GOOD, Server, response};
use super::*;

fn with_token(url: &str, token: &str) -> (Source, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, token).unwrap();
    (Source { token_file: Some(file), ..source(url) }, directory)
}

#[tokio::test]
async fn the_token_is_read_for_each_query() {
    let server = Server::answering(GOOD).await;
    let (source, _directory) = with_token(&server.url(), "first-token\n");
    ask(&source).await.unwrap();
    fs::write(source.token_file.as_ref().unwrap(), "second-token").unwrap();
    ask(&source).await.unwrap();
    let requests = server.requests();
    assert!(requests[0].contains("authorization: Bearer first-token\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("authorization: Bearer second-token\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn the_token_is_in_no_message() {
    let echo = r#"{"status":"error","errorType":"bad_data","error":"unexpected hush-hush"}"#;
    for (status, body) in
        [("400 Bad", echo), ("401 No", "hush-hush"), ("500 No", "hush-hush"), ("200 OK", "hush-hush")]
    {
        let server = Server::start(response(status, "x: hush-hush\r\n", body)).await;
        let (source, _directory) = with_token(&server.url(), "hush-hush");
        let problem = problem(&source).await;
        assert!(server.requests()[0].contains("Bearer hush-hush"));
        assert!(!format!("{problem} {problem:?} {source:?}").contains("hush"), "{problem}");
    }
}

#[tokio::test]
async fn without_its_token_a_query_is_not_sent() {
    let server = Server::answering(GOOD).await;
    for token in ["", " \n", "hush\nhush"] {
        let (source, _directory) = with_token(&server.url(), token);
        let problem = problem(&source).await;
        assert_eq!(problem.kind, ProblemKind::Unauthorized, "{token:?}");
        assert!(!problem.message.contains("hush"), "{problem}");
    }
    let (source, directory) = with_token(&server.url(), "x");
    drop(directory);
    assert_eq!(kind(&source).await, ProblemKind::Unauthorized);
    assert_eq!(server.connections(), 0);
}

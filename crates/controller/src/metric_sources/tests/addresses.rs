use super::server::{GOOD, Server};
use super::*;

#[tokio::test]
async fn loopback_and_metadata_are_refused_in_every_writing_before_a_connection() {
    let server = Server::answering(GOOD).await;
    let port = server.address.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "255.255.255.255",
    ] {
        let source = source_with(&format!("http://{host}:{port}"), "");
        let problem = problem(&source).await;
        assert_eq!(problem.kind, ProblemKind::Forbidden, "{host}: {problem}");
        assert!(!problem.message.contains(host), "{problem}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_allowed_class_allows_no_other() {
    let server = Server::answering(GOOD).await;
    let source = |allow| source_with(&server.url(), &format!("- allow: [{allow}]\n"));
    assert_eq!(kind(&source("LinkLocal")).await, ProblemKind::Forbidden);
    assert_eq!(server.connections(), 0);
    assert!(ask(&source("Loopback")).await.is_ok());
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_only_checked_addresses_are_used() {
    let server = Server::answering(GOOD).await;
    // A look-up of this name would fail (RFC 2606): the addresses that were checked are used instead.
    let source = source(&format!("http://prometheus.invalid:{}", server.address.port()));
    let client = client::http_client(&source, vec![server.address]).unwrap();
    let response = client.get(source.url.clone()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.connections(), 1);
    let nowhere = client::http_client(&source, vec![]).unwrap();
    assert!(nowhere.get(source.url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_literal_needs_no_look_up() {
    let addresses = address::resolve(&"http://0x0a000001".parse().unwrap()).await.unwrap();
    assert_eq!(addresses, ["10.0.0.1:80".parse().unwrap()]);
    let addresses = address::resolve(&"https://[2001:db8::1]:9090".parse().unwrap()).await.unwrap();
    assert_eq!(addresses, ["[2001:db8::1]:9090".parse().unwrap()]);
}

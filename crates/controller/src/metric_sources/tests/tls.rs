use super::server::GOOD;
use super::*;
use crate::tls_server::{Authority, Reply, Server};

/// A server with a certificate for this name.
fn serve(authority: &Authority, name: &str) -> Server {
    Server::tls(authority, name, |_| Reply::Answer("200 OK", String::new(), GOOD.to_owned()))
}

fn trusting(port: u16, authority: &Authority) -> Source {
    let source = source(&format!("https://127.0.0.1:{port}"));
    Source { ca_file: Some(authority.file.clone()), ..source }
}

#[tokio::test]
async fn a_server_with_a_certificate_of_the_named_authority_is_asked() {
    let authority = Authority::new();
    let server = serve(&authority, "127.0.0.1");
    let source = trusting(server.address.port(), &authority);
    assert_eq!(ask(&source).await.unwrap().len(), 1);
}

#[tokio::test]
async fn any_other_certificate_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let servers = [serve(&other, "127.0.0.1"), serve(&ours, "prometheus.test"), serve(&ours, "127.0.0.1")];
    let [of_another, with_another_name, unknown] =
        servers.each_ref().map(|server| trusting(server.address.port(), &ours));
    for source in [of_another, with_another_name, Source { ca_file: None, ..unknown }] {
        let problem = problem(&source).await;
        assert_eq!(problem.kind, ProblemKind::Unreachable, "{problem}");
        let text = &problem.message;
        assert!(text.contains("cannot prove") || text.contains("no certificate authorities"), "{problem}");
    }
}

#[tokio::test]
async fn what_speaks_no_tls_is_refused() {
    let server = super::server::Server::answering(GOOD).await;
    let source = trusting(server.address.port(), &Authority::new());
    assert_eq!(kind(&source).await, ProblemKind::Unreachable);
    assert_eq!(server.requests(), [""; 0]);
}

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::server::{GOOD, is_complete};
use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
    _directory: TempDir,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.crt");
    std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
    Authority { issuer: Issuer::new(params, key), file, _directory: directory }
}

/// A server that answers one request, with a certificate for this name. Returns its port.
fn serve(authority: &Authority, name: &str) -> u16 {
    install_tls();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority.issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        let (mut request, mut block) = (String::new(), [0; 4096]);
        while !is_complete(&request) {
            match stream.read(&mut block) {
                Ok(length) if length > 0 => request.push_str(&String::from_utf8_lossy(&block[..length])),
                _ => return,
            }
        }
        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{GOOD}", GOOD.len());
        let _ = stream.flush();
    });
    port
}

fn trusting(port: u16, authority: &Authority) -> Source {
    let source = source(&format!("https://127.0.0.1:{port}"));
    Source { ca_file: Some(authority.file.clone()), timeout: 10 * SHORT, ..source }
}

#[tokio::test]
async fn a_server_with_a_certificate_of_the_named_authority_is_asked() {
    let authority = authority();
    let source = trusting(serve(&authority, "127.0.0.1"), &authority);
    assert_eq!(ask(&source).await.unwrap().len(), 1);
}

#[tokio::test]
async fn any_other_certificate_is_refused() {
    let (ours, other) = (authority(), authority());
    for source in [
        trusting(serve(&other, "127.0.0.1"), &ours),
        trusting(serve(&ours, "prometheus.test"), &ours),
        Source { ca_file: None, ..trusting(serve(&ours, "127.0.0.1"), &ours) },
    ] {
        let problem = problem(&source).await;
        assert_eq!(problem.kind, ProblemKind::Unreachable, "{problem}");
        let text = &problem.message;
        assert!(text.contains("cannot prove") || text.contains("no certificate authorities"), "{problem}");
    }
}

#[tokio::test]
async fn what_speaks_no_tls_is_refused() {
    let server = super::server::Server::answering(GOOD).await;
    let source = trusting(server.address.port(), &authority());
    assert_eq!(kind(&source).await, ProblemKind::Unreachable);
    assert_eq!(server.requests(), [""; 0]);
}

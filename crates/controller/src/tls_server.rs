//! For tests: a certificate authority, and a server on loopback that answers as a function says, with TLS or without.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// A certificate authority of its own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as a PEM file.
    pub file: PathBuf,
    _directory: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.crt");
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file, _directory: directory }
    }

    /// What a server with this name needs.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        // The process of the operator does this at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers this: a status line such as `200 OK`, header lines that end with CR LF, and a body.
    Answer(&'static str, String, String),
    /// Answers only the beginning of a body.
    Half(&'static str, String),
    /// Answers with this many bytes of spaces.
    Spaces(usize),
    /// Closes the connection.
    Close,
    /// Answers only the beginning of a body, and closes after this long.
    Stall(Duration),
    /// Says nothing for this long, then closes.
    Silence(Duration),
}

/// A server. Each connection is one request.
pub(crate) struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

type Answers = dyn Fn(&str) -> Reply + Send + Sync;

impl Server {
    /// With a certificate for this name.
    pub(crate) fn tls(
        authority: &Authority,
        name: &str,
        answers: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(authority.server(name)), Arc::new(answers))
    }

    pub(crate) fn plain(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answers))
    }

    fn start(tls: Option<Arc<ServerConfig>>, answers: Arc<Answers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, ended) = (Arc::clone(&requests), Arc::clone(&over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (tls, noted, answers) = (tls.clone(), Arc::clone(&noted), Arc::clone(&answers));
                std::thread::spawn(move || {
                    let _ = match tls {
                        None => serve(stream, &noted, &*answers),
                        Some(tls) => serve(
                            StreamOwned::new(ServerConnection::new(tls).unwrap(), stream),
                            &noted,
                            &*answers,
                        ),
                    };
                });
            }
        });
        Self { address, requests, over }
    }

    /// All requests, as they came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Those that begin with this.
    pub(crate) fn requests_to(&self, start: &str) -> Vec<String> {
        self.requests().into_iter().filter(|request| request.starts_with(start)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: impl Read + Write,
    noted: &Mutex<Vec<String>>,
    answers: &Answers,
) -> std::io::Result<()> {
    let (mut bytes, mut block) = (Vec::new(), [0; 16 * 1024]);
    while !is_complete(&String::from_utf8_lossy(&bytes)) {
        match stream.read(&mut block)? {
            0 => return Ok(()),
            length => bytes.extend_from_slice(&block[..length]),
        }
    }
    let request = String::from_utf8_lossy(&bytes).into_owned();
    noted.lock().unwrap().push(request.clone());
    match answers(&request) {
        Reply::Answer(status, headers, body) => {
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())?;
        }
        Reply::Half(status, headers) => {
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 999\r\n{headers}\r\n{{\"a\":")?;
        }
        Reply::Spaces(length) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")?;
            let block = vec![b' '; 64 * 1024];
            for _ in 0..length.div_ceil(block.len()) {
                stream.write_all(&block)?;
            }
        }
        Reply::Stall(time) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{{\"a\":")?;
            stream.flush()?;
            std::thread::sleep(time);
        }
        Reply::Close => return Ok(()),
        Reply::Silence(time) => std::thread::sleep(time),
    }
    stream.flush()
}

/// Whether a request with a content length has come whole.
pub(crate) fn is_complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

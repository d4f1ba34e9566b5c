//! A server on loopback that behaves as it is told, and notes what reaches it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::tls_server::is_complete;

/// An answer that a query can use.
pub(super) const GOOD: &str = r#"{"status":"success","data":{"resultType":"vector","result":[
    {"metric":{"job":"a"},"value":[1767225600,"1.5"]}]}}"#;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Behaviour {
    /// Answers this, and closes.
    Answer(String),
    /// Takes the request, and says nothing.
    Silence,
    /// Answers this and then a byte every few milliseconds, for ever.
    Dribble(&'static str),
    /// Answers this and then 100 MiB.
    Flood(&'static str),
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    closed: AtomicUsize,
    sent: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response with this status line and body.
pub(super) fn response(status: &str, headers: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::Answer(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"))
}

impl Server {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    let (seen, behaviour) = (Arc::clone(&seen), behaviour.clone());
                    tokio::spawn(async move {
                        let _ = serve(stream, &behaviour, &seen).await;
                        seen.closed.fetch_add(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { address, seen, task }
    }

    pub async fn answering(body: &str) -> Self {
        Self::start(response("200 OK", "", body)).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections that are over.
    pub fn closed(&self) -> usize {
        self.seen.closed.load(Ordering::SeqCst)
    }

    /// Bytes that the other side took, or that are on their way to it.
    pub fn sent(&self) -> usize {
        self.seen.sent.load(Ordering::SeqCst)
    }

    /// All requests, as they came.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, behaviour: &Behaviour, seen: &Seen) -> std::io::Result<()> {
    let request = read_request(&mut stream).await?;
    seen.requests.lock().unwrap().push(request);
    match behaviour {
        Behaviour::Answer(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        }
        Behaviour::Silence => std::future::pending().await,
        Behaviour::Dribble(head) => {
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Behaviour::Flood(head) => {
            stream.write_all(head.as_bytes()).await?;
            let block = vec![b' '; 64 * 1024];
            for _ in 0..(100 * 16) {
                seen.sent.fetch_add(stream.write(&block).await?, Ordering::SeqCst);
            }
            Ok(())
        }
    }
}

/// Head and body of a request with a content length.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    while !is_complete(&String::from_utf8_lossy(&bytes)) {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

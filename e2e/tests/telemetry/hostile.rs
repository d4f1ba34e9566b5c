//! A metric source that does everything wrong, each thing under a path of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Larger than anything that an operator should read.
const FLOOD_BYTES: usize = 100 << 20;

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hostile {
    /// Starts it on a free port of the loopback.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // Whoever asks may leave in the middle.
                    let _ = answer(stream).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// The configuration of a source for each path, and one where nobody listens.
    pub fn sources(&self) -> Vec<Value> {
        let source = |name: &str, more: &Value| {
            let mut source = json!({
                "name": name, "url": format!("http://{}/{name}", self.address), "allow": ["Loopback"], "timeoutSeconds": 2,
            });
            if let (Some(source), Value::Object(more)) = (source.as_object_mut(), more) {
                source.extend(more.clone());
            }
            source
        };
        vec![
            source("unauthorized", &json!({})),
            source("slow", &json!({})),
            source("redirect", &json!({})),
            source("flood", &json!({})),
            source("garbage", &json!({})),
            source("forbidden", &json!({"allow": []})),
            source("down", &json!({"url": "http://127.0.0.1:9"})),
        ]
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut head = vec![0; 4096];
    let read = stream.read(&mut head).await?;
    let head = String::from_utf8_lossy(head.get(..read).unwrap_or_default()).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    match path.split('/').nth(1).unwrap_or_default() {
        "unauthorized" => stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await?,
        "slow" => tokio::time::sleep(Duration::from_mins(1)).await,
        "redirect" => {
            let location = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(location.as_bytes()).await?;
        }
        "flood" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            let part = vec![b' '; 1 << 16];
            for _ in 0..FLOOD_BYTES / part.len() {
                stream.write_all(&part).await?;
            }
        }
        _ => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"status\"").await?,
    }
    stream.shutdown().await?;
    Ok(())
}

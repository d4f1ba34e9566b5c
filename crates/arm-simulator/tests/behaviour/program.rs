//! The program: what it prints, and that it ends.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Running, BTreeMap<String, String>) {
    let child = Command::new(env!("CARGO_BIN_EXE_arm-simulator"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines().take(6);
    let said = lines.map(|line| {
        let line = line.unwrap();
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    let said = said.collect();
    (running, said)
}

fn ends(running: &mut Running) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if let Some(status) = running.0.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[tokio::test]
async fn it_says_where_it_is_and_ends_when_its_input_is_closed() {
    let (mut running, said) = start();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(&said["ca-file"]).unwrap()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let url = format!("{}{}?api-version=2026-06-01", said["base-url"], said["cluster"]);
    assert_eq!(client.get(url).send().await.unwrap().status(), 401);
    drop(running.0.stdin.take());
    assert!(ends(&mut running));
    assert!(!std::path::Path::new(&said["ca-file"]).exists(), "it leaves its files behind");
}

#[test]
fn it_ends_on_sigterm() {
    let (mut running, _) = start();
    let status = Command::new("kill").arg(running.0.id().to_string()).status().unwrap();
    assert!(status.success());
    assert!(ends(&mut running));
}

//! A real Prometheus that scrapes the exporter and the istiods.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use meshupgrade_testbed::{Cluster, IstiodAddress, Program, ProgramSpec, wait_for};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One element of a query's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What tells it from the others.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Its data survive a stop, until it is dropped.
#[derive(Debug)]
pub(super) struct Prometheus {
    cluster: &'static Cluster,
    address: String,
    spec: ProgramSpec,
    program: Option<Program>,
    _data: TempDir,
}

impl Prometheus {
    /// Writes its configuration, without starting it.
    pub fn new(cluster: &'static Cluster, port: u16, exporter: SocketAddr, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let file = dir.join("prometheus.json");
        fs::write(&file, config(exporter, &cluster.istiod_addresses()).to_string())?;
        // Beside the logs: what a killed test leaves is removed with them by the next.
        let data = tempfile::Builder::new().prefix("prometheus-").tempdir_in(dir)?;
        let address = format!("127.0.0.1:{port}");
        let args = vec![
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", data.path().display()),
            format!("--web.listen-address={address}"),
            "--storage.tsdb.retention.time=1h".into(),
            "--log.level=warn".into(),
        ];
        let spec = ProgramSpec { program: "prometheus".into(), args, dir: dir.to_owned() };
        Ok(Self { cluster, address, spec, program: None, _data: data })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns when it answers queries.
    pub async fn start(&mut self) -> Result<()> {
        if self.program.is_some() {
            return Ok(());
        }
        self.program = Some(self.cluster.start_program(&self.spec)?);
        let ready = wait_for("Prometheus", Duration::from_secs(30), || async {
            let (code, body) = get(&self.address, "/-/ready").await?;
            ensure!(code == 200, "{code}: {body}");
            Ok(Some(()))
        });
        let ready = ready.await;
        // What its log says is worth more than that nobody answers.
        self.program.as_mut().map_or(Ok(()), Program::check)?;
        ready
    }

    pub async fn stop(&mut self) -> Result<()> {
        match self.program.take() {
            Some(program) => program.stop().await,
            None => Ok(()),
        }
    }

    pub async fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let (code, body) = get(&self.address, &format!("/api/v1/query?query={}", encoded(query))).await?;
        ensure!(code == 200, "Prometheus answers {query} with {code}: {body}");
        samples(&body).with_context(|| format!("the answer to {query}: {body}"))
    }
}

fn config(exporter: SocketAddr, istiods: &[IstiodAddress]) -> Value {
    let istiods: Vec<Value> = istiods
        .iter()
        .map(|istiod| {
            // The names that labels of istiod's pods have after discovery in a cluster.
            let labels = json!({"app": "istiod", "istio_io_rev": istiod.revision});
            json!({"targets": [istiod.monitoring], "labels": labels})
        })
        .collect();
    json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            // The exporter speaks for many pods, each with its own labels.
            {"job_name": "sidecars", "honor_labels": true,
                "static_configs": [{"targets": [exporter.to_string()]}]},
            {"job_name": "istiod", "static_configs": istiods},
        ],
    })
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Element>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Element {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

fn samples(body: &str) -> Result<Vec<Sample>> {
    let elements = match serde_json::from_str::<Answer>(body)?.data {
        Data::Vector(elements) => elements,
        Data::Scalar(value) => vec![Element { metric: BTreeMap::new(), value }],
    };
    let sample = |element: Element| Ok(Sample { labels: element.metric, value: element.value.1.parse()? });
    elements.into_iter().map(sample).collect()
}

fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Status code and body. HTTP/1.0, so that the body is what comes until the end.
async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let Ok(answer) = tokio::time::timeout(Duration::from_secs(5), exchange).await else {
        bail!("no answer from {address} after 5 s");
    };
    let answer = answer?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    let code = head.split(' ').nth(1).context("an answer without a code")?;
    Ok((code.parse()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_kinds_are_read() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"pod":"web-1"},"value":[1.5,"0.25"]}]}}"#;
        let labels = BTreeMap::from([("pod".to_owned(), "web-1".to_owned())]);
        assert_eq!(samples(vector).expect("samples"), [Sample { labels, value: 0.25 }]);
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"7"]}}"#;
        assert_eq!(samples(scalar).expect("samples").first().map(|sample| sample.value), Some(7.0));
    }

    #[test]
    fn a_query_survives_its_way() {
        assert_eq!(encoded("sum(a_b{c=\"d\"}[5s])"), "sum%28a_b%7Bc%3D%22d%22%7D%5B5s%5D%29");
    }
}

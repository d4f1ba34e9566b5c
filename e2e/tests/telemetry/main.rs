//! What a mesh tells about itself through a real Prometheus, and runs that are gated by it.

mod gates;
mod hostile;
mod parts;
mod sources;

use anyhow::Result;
use meshupgrade_e2e::telemetry::Telemetry;
use meshupgrade_e2e::{OperatorSpec, Scenario};
use serde_json::{Value, json};

/// An operator that knows these metric sources besides `default`, which is Prometheus.
fn operator(s: &Scenario, telemetry: &Telemetry, more: &[Value]) -> Result<OperatorSpec> {
    let prometheus = json!({"name": "default", "url": telemetry.prometheus_url(), "allow": ["Loopback"]});
    let sources: Vec<Value> = [prometheus].into_iter().chain(more.iter().cloned()).collect();
    let file = s.logs_dir().join("metric-sources.yaml");
    std::fs::create_dir_all(s.logs_dir())?;
    // JSON is YAML.
    std::fs::write(&file, json!({"sources": sources}).to_string())?;
    Ok(OperatorSpec::default().flag(&format!("--metric-sources={}", file.display())))
}

/// A metric with short times.
fn metric(name: &str, more: &Value) -> Value {
    let mut metric = json!({"name": name, "windowSeconds": 5, "intervalSeconds": 2, "maxAgeSeconds": 10});
    if let (Some(metric), Value::Object(more)) = (metric.as_object_mut(), more) {
        metric.extend(more.clone());
    }
    metric
}

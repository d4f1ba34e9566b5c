//! Istio's standard metrics of all sidecars, in Prometheus' text format.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use super::fault::{Fault, Traffic};
use super::sidecar::Sidecar;

/// The buckets of Istio's histograms, in milliseconds.
const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// What one sidecar counted for one response code.
#[derive(Debug)]
struct Count {
    labels: String,
    requests: f64,
    latency_ms: f64,
    /// When it was counted, in milliseconds since 1970; nothing where that is now.
    at: Option<i64>,
}

/// What a scrape answers.
pub(super) fn render(served: &[(Sidecar, Duration)], faults: &[Fault]) -> String {
    let counts: Vec<Count> = served
        .iter()
        .flat_map(|(sidecar, time)| counts(sidecar, *time, Traffic::of(faults, sidecar)))
        .collect();
    let mut text = String::new();
    requests(&mut text, &counts);
    durations(&mut text, &counts);
    starts(&mut text, served);
    text
}

/// As in an Envoy, a response code has no series before its first answer.
fn counts(sidecar: &Sidecar, time: Duration, traffic: Traffic) -> Vec<Count> {
    let requests = (time.as_secs_f64() * traffic.requests_per_second).floor();
    let errors = (requests * traffic.error_share).floor();
    [("200", requests - errors), ("503", errors)]
        .into_iter()
        .filter(|(_, requests)| *requests > 0.0)
        .map(|(code, requests)| Count {
            labels: labels(sidecar, code),
            requests,
            latency_ms: traffic.latency_ms,
            at: at(traffic.age),
        })
        .collect()
}

fn at(age: Duration) -> Option<i64> {
    let age = i64::try_from(age.as_millis()).ok().filter(|age| *age > 0)?;
    Some(Timestamp::now().as_millisecond() - age)
}

fn labels(sidecar: &Sidecar, code: &str) -> String {
    let Sidecar { namespace, pod, workload, .. } = sidecar;
    let flags = if code == "503" { "UF" } else { "-" };
    format!(
        "reporter=\"destination\",source_workload=\"unknown\",source_workload_namespace=\"unknown\",\
         source_canonical_service=\"unknown\",source_cluster=\"Kubernetes\",\
         destination_workload=\"{workload}\",destination_workload_namespace=\"{namespace}\",\
         destination_app=\"{workload}\",destination_canonical_service=\"{workload}\",\
         destination_canonical_revision=\"latest\",destination_cluster=\"Kubernetes\",\
         destination_service=\"{workload}.{namespace}.svc.cluster.local\",\
         destination_service_name=\"{workload}\",destination_service_namespace=\"{namespace}\",\
         request_protocol=\"http\",response_code=\"{code}\",response_flags=\"{flags}\",\
         grpc_response_status=\"\",connection_security_policy=\"mutual_tls\",\
         namespace=\"{namespace}\",pod=\"{pod}\""
    )
}

fn requests(text: &mut String, counts: &[Count]) {
    text.push_str("# TYPE istio_requests_total counter\n");
    for Count { labels, requests, at, .. } in counts {
        line(text, "istio_requests_total", labels, stamped(*requests, *at));
    }
}

fn durations(text: &mut String, counts: &[Count]) {
    const NAME: &str = "istio_request_duration_milliseconds";
    line_of_type(text, NAME, "histogram");
    for Count { labels, requests, latency_ms, at } in counts {
        let value = |value: f64| stamped(value, *at);
        for bound in BUCKETS {
            let below = (requests * share_below(bound, *latency_ms)).floor();
            line(text, &format!("{NAME}_bucket"), &format!("{labels},le=\"{bound}\""), value(below));
        }
        line(text, &format!("{NAME}_bucket"), &format!("{labels},le=\"+Inf\""), value(*requests));
        line(text, &format!("{NAME}_sum"), labels, value(requests * latency_ms));
        line(text, &format!("{NAME}_count"), labels, value(*requests));
    }
}

fn starts(text: &mut String, served: &[(Sidecar, Duration)]) {
    const NAME: &str = "istio_agent_process_start_time_seconds";
    line_of_type(text, NAME, "gauge");
    for (Sidecar { namespace, pod, started, .. }, _) in served {
        line(text, NAME, &format!("namespace=\"{namespace}\",pod=\"{pod}\""), started);
    }
}

/// Durations are spread evenly between half of the average and half as much again.
fn share_below(bound: f64, latency_ms: f64) -> f64 {
    if latency_ms <= 0.0 {
        return 1.0;
    }
    (bound / latency_ms - 0.5).clamp(0.0, 1.0)
}

fn line_of_type(text: &mut String, name: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

/// A value with the time at which it was counted, in the text format.
fn stamped(value: f64, at: Option<i64>) -> String {
    at.map_or_else(|| value.to_string(), |at| format!("{value} {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar(revision: &str) -> Sidecar {
        Sidecar {
            namespace: "shop".into(),
            pod: "web-1".into(),
            workload: "web".into(),
            revision: revision.into(),
            started: 1_700_000_000,
        }
    }

    fn value(text: &str, name: &str, label: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        line?.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn a_row_is_for_one_revision() {
        let faults = [Fault::of("shop", "web", "new").errors(0.5).requests_per_second(10.0)];
        let time = Duration::from_secs(4);
        let new = render(&[(sidecar("new"), time)], &faults);
        assert_eq!(value(&new, "istio_requests_total", "response_code=\"503\""), Some(20.0));
        assert_eq!(value(&new, "istio_requests_total", "response_code=\"200\""), Some(20.0));
        let old = render(&[(sidecar("old"), time)], &faults);
        assert_eq!(value(&old, "istio_requests_total", "response_code=\"503\""), None);
        assert_eq!(value(&old, "istio_requests_total", "response_code=\"200\""), Some(200.0));
    }

    #[test]
    fn the_histogram_agrees_with_the_counter() {
        let text = render(&[(sidecar("old"), Duration::from_secs(2))], &[]);
        let name = "istio_request_duration_milliseconds";
        // Between 10 and 30 ms: none below 10, three quarters below 25.
        let below = |bound: &str| value(&text, &format!("{name}_bucket"), &format!("le=\"{bound}\""));
        assert_eq!(
            [below("10"), below("25"), below("50"), below("+Inf")],
            [Some(0.0), Some(75.0), Some(100.0), Some(100.0)]
        );
        assert_eq!(value(&text, &format!("{name}_count"), ""), Some(100.0));
        assert_eq!(value(&text, &format!("{name}_sum"), ""), Some(2000.0));
    }
}

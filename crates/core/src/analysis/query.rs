//! What is asked of a metric source: one query for a metric and a window, whatever the number of workloads.
//!
//! A query may answer with two parts, told apart by the label [`PART`]: the values, and how many samples each of them rests
//! on.

use std::collections::BTreeSet;

use crate::analysis::{Builtin, Measure, MetricIntent};
use crate::ids::{NamespaceName, Revision, WorkloadKind, WorkloadRef};
use crate::measure::ISTIOD;

/// Label that tells the parts of an answer apart.
pub const PART: &str = "meshupgrade_part";
/// Value of [`PART`] for values.
pub const VALUE: &str = "value";
/// Value of [`PART`] for the number of samples.
pub const SAMPLES: &str = "samples";
/// Label of Istio's telemetry: namespace of the workload that answers.
pub const WORKLOAD_NAMESPACE: &str = "destination_workload_namespace";
/// Label of Istio's telemetry: name of the workload that answers.
pub const WORKLOAD: &str = "destination_workload";

/// Placeholders of a user's query, each with what it stands for.
pub const PLACEHOLDERS: [(&str, &str); 6] = [
    ("$(namespaces)", "the namespaces that are measured, as a regular expression for =~"),
    ("$(workloads)", "the names of the workloads that are measured, as a regular expression for =~"),
    ("$(source)", "the revision that the run leaves"),
    ("$(target)", "the revision that the run goes to"),
    ("$(window)", "windowSeconds as a duration, for example 120s"),
    (
        "$(istiod)",
        "the label matchers of the target's istiod, as the operator's configuration says them for the source",
    ),
];

/// What a query is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The workloads whose restart is judged.
    pub workloads: &'a BTreeSet<WorkloadRef>,
    /// The revision that the run leaves.
    pub source: &'a Revision,
    /// The revision that the run goes to.
    pub target: &'a Revision,
    /// How long ago the restarts began, in seconds: what is counted rather than averaged is counted from there, because it
    /// happens while pods come up.
    pub began_ago: u32,
}

/// The PromQL of a metric.
pub fn promql(metric: &MetricIntent, subject: Subject<'_>) -> String {
    match &metric.measure {
        Measure::Builtin(builtin) => {
            let (value, samples) = builtin_parts(*builtin, metric, subject);
            parts(&value, &samples)
        }
        Measure::Promql { query, samples: None } => filled(query, metric, subject),
        Measure::Promql { query, samples: Some(samples) } => {
            parts(&filled(query, metric, subject), &filled(samples, metric, subject))
        }
    }
}

/// The names of the placeholders of a user's query that do not exist.
pub fn unknown_placeholders(query: &str) -> Vec<String> {
    query
        .match_indices("$(")
        .map(|(start, _)| {
            let rest = &query[start..];
            let end = rest.find(')').map_or(rest.len(), |end| end + 1);
            rest[..end].to_owned()
        })
        .filter(|found| !PLACEHOLDERS.iter().any(|(known, _)| known == found))
        .collect()
}

/// Two expressions as one query. Each ends with a line of its own: a comment at its end must not swallow what follows.
fn parts(value: &str, samples: &str) -> String {
    let part = |expression: &str, name: &str| {
        format!("label_replace(\n{expression}\n, \"{PART}\", \"{name}\", \"\", \"\")")
    };
    format!("{} or {}", part(value, VALUE), part(samples, SAMPLES))
}

/// A user's query with its placeholders filled in. What is put in has no character that ends a string of PromQL.
fn filled(query: &str, metric: &MetricIntent, subject: Subject<'_>) -> String {
    let (namespaces, workloads) = regexes(subject.workloads);
    query
        .replace("$(namespaces)", &namespaces)
        .replace("$(workloads)", &workloads)
        .replace("$(source)", &literal(subject.source.as_str()))
        .replace("$(target)", &literal(subject.target.as_str()))
        .replace("$(window)", &format!("{}s", metric.window_seconds))
        .replace("$(istiod)", &istiod(subject.target))
}

/// The placeholder that the source fills in.
fn istiod(revision: &Revision) -> String {
    format!("{ISTIOD}{})", literal(revision.as_str()))
}

/// Namespaces and names of workloads as regular expressions.
fn regexes(workloads: &BTreeSet<WorkloadRef>) -> (String, String) {
    let namespaces: BTreeSet<&str> = workloads.iter().map(|workload| workload.namespace.as_str()).collect();
    let names: BTreeSet<&str> = workloads.iter().map(|workload| workload.name.as_str()).collect();
    (alternatives(&namespaces), alternatives(&names))
}

fn alternatives(names: &BTreeSet<&str>) -> String {
    names.iter().map(|name| escaped(name)).collect::<Vec<_>>().join("|")
}

/// A name of a Kubernetes object for a regular expression inside a string of PromQL. Names consist of lower-case letters,
/// digits, `-` and `.`; a class instead of a backslash means the same in all three kinds of PromQL strings. Anything else
/// is dropped: no name has it, and it must not get into a query.
fn escaped(name: &str) -> String {
    literal(name).replace('.', "[.]")
}

fn literal(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.')).collect()
}

/// Value and number of samples of a built-in metric.
fn builtin_parts(builtin: Builtin, metric: &MetricIntent, subject: Subject<'_>) -> (String, String) {
    let traffic = Traffic::new(metric, subject);
    let istiod = istiod(subject.target);
    let window = format!("{}s", metric.window_seconds.max(subject.began_ago));
    // One per scraped istiod, whether or not it ever had a proxy.
    let alive = format!("pilot_info{{{istiod}}}");
    match builtin {
        Builtin::SuccessRate => traffic.both(Traffic::success_rate, "istio_requests_total"),
        Builtin::LatencyP99 => traffic.both(Traffic::latency, "istio_request_duration_milliseconds_count"),
        Builtin::XdsRejects => {
            let rejects = format!("pilot_total_xds_rejects{{{istiod}}}");
            // Against the last sample from before the restarts, however rare scrapes are: increase() begins with the first one
            // after, which has the first refusals in it. A series that is born meanwhile, or begins anew, counts as a whole.
            let since = format!("sum({rejects} - {rejects} offset {window} >= 0 or {rejects})");
            (format!("{since} or 0 * sum({alive})"), format!("count({alive})"))
        }
        Builtin::ConnectedProxies => {
            let connected = format!("sum(pilot_xds{{{istiod}}})");
            (format!("{connected} or 0 * sum({alive})"), format!("count({alive})"))
        }
        Builtin::ProxyRestarts => {
            let (namespaces, _) = regexes(subject.workloads);
            let pods: BTreeSet<String> = subject.workloads.iter().map(pods_of).collect();
            let pods = pods.into_iter().collect::<Vec<_>>().join("|");
            let started = format!(
                "istio_agent_process_start_time_seconds{{namespace=~\"{namespaces}\",pod=~\"{pods}\"}}"
            );
            (format!("sum(changes({started}[{window}]))"), format!("count({started})"))
        }
    }
}

/// More workloads than this are judged together, not each by itself: an answer must not grow with the mesh.
const MAX_EACH: usize = 200;

/// Names of the pods of a workload, as its controller makes them, as a regular expression.
fn pods_of(workload: &WorkloadRef) -> String {
    let name = escaped(&workload.name);
    match workload.kind {
        WorkloadKind::Deployment | WorkloadKind::Rollout => format!("{name}-[a-z0-9]+-[a-z0-9]{{5}}"),
        WorkloadKind::StatefulSet => format!("{name}-[0-9]+"),
        WorkloadKind::DaemonSet => format!("{name}-[a-z0-9]{{5}}"),
    }
}

/// Workloads in more namespaces than this are selected by two regular expressions, which may hit others of the same names.
const MAX_SELECTORS: usize = 20;

/// Selectors of the traffic of some workloads.
struct Traffic {
    selectors: Vec<String>,
    each: bool,
    window: String,
    max_age: u32,
}

/// Label matchers that select the traffic of these workloads: one for each namespace with the names of its workloads, so that
/// others of the same names elsewhere do not count.
fn selectors(workloads: &BTreeSet<WorkloadRef>, by_name: bool) -> Vec<String> {
    let selector = |namespaces: &str, names: &str| {
        format!("{WORKLOAD_NAMESPACE}=~\"{namespaces}\",{WORKLOAD}=~\"{names}\"")
    };
    let (namespaces, names) = regexes(workloads);
    let homes: BTreeSet<&NamespaceName> = workloads.iter().map(|workload| &workload.namespace).collect();
    if !by_name {
        return vec![format!("{WORKLOAD_NAMESPACE}=~\"{namespaces}\"")];
    }
    if homes.len() > MAX_SELECTORS {
        return vec![selector(&namespaces, &names)];
    }
    let of = |home: &NamespaceName| {
        let own = workloads.iter().filter(|workload| workload.namespace == *home).cloned().collect();
        let (namespace, names) = regexes(&own);
        selector(&namespace, &names)
    };
    homes.into_iter().map(of).collect()
}

impl Traffic {
    fn new(metric: &MetricIntent, subject: Subject<'_>) -> Self {
        let each = subject.workloads.len() <= MAX_EACH;
        Self {
            selectors: selectors(subject.workloads, each),
            each,
            window: format!("{}s", metric.window_seconds),
            max_age: metric.max_age_seconds,
        }
    }

    /// An expression over all series that are meant.
    fn all(&self, one: impl Fn(&str) -> String) -> String {
        let parts: Vec<String> = self.selectors.iter().map(|selector| one(selector)).collect();
        format!("({})", parts.join(" or "))
    }

    /// The value for each workload and for all of them, by reporter: the proxy that answers, and those that ask, who see
    /// more (an answer that never came). Counted are series with a sample that is not too old.
    fn both(&self, value: fn(&Self, &str) -> String, counter: &str) -> (String, String) {
        let each = format!("reporter,{WORKLOAD_NAMESPACE},{WORKLOAD}");
        let Self { window, max_age, .. } = self;
        let samples = |by: &str| {
            let fresh = self.all(|selector| {
                let series = format!("{counter}{{{selector}}}");
                format!("(increase({series}[{window}]) and (timestamp({series}) > time() - {max_age}))")
            });
            format!("sum by ({by}) {fresh}")
        };
        let two = |each: String, all: String| if self.each { format!("({each}) or ({all})") } else { all };
        (two(value(self, &each), value(self, "reporter")), two(samples(&each), samples("reporter")))
    }

    /// Requests without a server error, in percent. gRPC says it in a code of its own: UNKNOWN, DEADLINE_EXCEEDED,
    /// UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS are the server's errors (gRPC documentation, "Status codes").
    fn success_rate(&self, by: &str) -> String {
        let window = &self.window;
        let rate = |more: &str| {
            let rates =
                self.all(|selector| format!("rate(istio_requests_total{{{selector}{more}}}[{window}])"));
            format!("sum by ({by}) {rates}")
        };
        let good = rate(",response_code!~\"5..\",grpc_response_status!~\"2|4|12|13|14|15\"");
        let all = rate("");
        // Where every request failed there is no series of good ones.
        format!("100 * ({good} or 0 * {all}) / {all}")
    }

    fn latency(&self, by: &str) -> String {
        let window = &self.window;
        let rates = self.all(|selector| {
            format!("rate(istio_request_duration_milliseconds_bucket{{{selector}}}[{window}])")
        });
        format!("histogram_quantile(0.99, sum by (le,{by}) {rates})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::metric;

    fn asked(measure: Measure, names: &[&str]) -> String {
        let workloads =
            names.iter().map(|name| WorkloadRef::new(WorkloadKind::Deployment, "shop.eu", *name)).collect();
        let (source, target) = (Revision::from("asm-1-27"), Revision::from("asm-1-28"));
        promql(
            &metric(measure),
            Subject { workloads: &workloads, source: &source, target: &target, began_ago: 300 },
        )
    }

    fn user(query: &str, samples: Option<&str>) -> Measure {
        Measure::Promql { query: query.into(), samples: samples.map(Into::into) }
    }

    #[test]
    fn placeholders_are_filled_in_for_all_workloads_at_once() {
        let query = r#"sum(rate(x{ns=~"$(namespaces)",w=~'$(workloads)',from="$(source)",to="$(target)",$(istiod)}[$(window)]))"#;
        assert_eq!(
            asked(user(query, None), &["web", "api.v2"]),
            r#"sum(rate(x{ns=~"shop[.]eu",w=~'api[.]v2|web',from="asm-1-27",to="asm-1-28",$(istiod:asm-1-28)}[120s]))"#
        );
    }

    #[test]
    fn nothing_that_ends_a_string_gets_into_a_query() {
        for hostile in ["\"} or vector(1) #", "`", "'", "\\", "a\nb", "$(window)", "a|b", ".*"] {
            let found = asked(user("x=~\"$(workloads)\"", None), &[hostile]);
            let inner = found.strip_prefix("x=~\"").and_then(|rest| rest.strip_suffix('"')).unwrap();
            assert!(
                inner
                    .replace("[.]", "")
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{found}"
            );
        }
    }

    #[test]
    fn unknown_placeholders_are_named() {
        assert!(unknown_placeholders("$(window) $(namespaces)").is_empty());
        assert_eq!(unknown_placeholders("$(namespace) $(windo"), ["$(namespace)", "$(windo"]);
    }

    #[test]
    fn a_comment_at_the_end_of_an_expression_swallows_nothing() {
        let found = asked(user("up # is it", Some("count(up)")), &["web"]);
        assert_eq!(
            found,
            "label_replace(\nup # is it\n, \"meshupgrade_part\", \"value\", \"\", \"\") or \
             label_replace(\ncount(up)\n, \"meshupgrade_part\", \"samples\", \"\", \"\")"
        );
    }

    #[test]
    fn built_in_metrics_ask_once_for_each_workload_and_for_all() {
        let found = asked(Measure::Builtin(Builtin::SuccessRate), &["web", "api"]);
        assert!(
            found.contains(r#"destination_workload_namespace=~"shop[.]eu",destination_workload=~"api|web""#),
            "{found}"
        );
        assert!(
            found.contains("sum by (reporter,destination_workload_namespace,destination_workload)"),
            "{found}"
        );
        assert!(found.contains("sum by (reporter) ("), "{found}");
        let found = asked(Measure::Builtin(Builtin::XdsRejects), &["web"]);
        assert!(found.contains("pilot_info{$(istiod:asm-1-28)}"), "{found}");
        assert!(found.contains("offset 300s"), "from the beginning of the restarts: {found}");
        let found = asked(Measure::Builtin(Builtin::ProxyRestarts), &["web", "api"]);
        assert!(found.contains(r#"pod=~"api-[a-z0-9]+-[a-z0-9]{5}|web-[a-z0-9]+-[a-z0-9]{5}""#), "{found}");
    }

    #[test]
    fn a_workload_of_the_same_name_elsewhere_does_not_count() {
        let workload =
            |namespace: &str, name: &str| WorkloadRef::new(WorkloadKind::Deployment, namespace, name);
        let found = selectors(&[workload("a", "web"), workload("b", "api")].into(), true);
        assert_eq!(
            found,
            [
                r#"destination_workload_namespace=~"a",destination_workload=~"web""#,
                r#"destination_workload_namespace=~"b",destination_workload=~"api""#,
            ]
        );
    }
}

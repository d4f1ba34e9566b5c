//! Metrics that a run must satisfy: their types, their rules as code, and what the core makes of them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meshupgrade_core::analysis::query::unknown_placeholders;
use meshupgrade_core::analysis::{
    self, AnalysisIntent, BaselineIntent, Change, Decimal, Measure, MetricIntent,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::rules::{self, validations};
use crate::validate::Findings;

/// Metrics that must pass after each batch and while a wave soaks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisSpec {
    /// The metrics. All of them must pass, except those with `dryRun`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = limits::METRICS),
        extend("x-kubernetes-list-type" = "map"),
        extend("x-kubernetes-list-map-keys" = ["name"])
    )]
    pub metrics: Vec<MetricSpec>,
}

/// One metric: what is measured, within which bounds, and what it needs to count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&rules::METRIC)))]
pub struct MetricSpec {
    /// Name of the metric, unique in its list.
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL))]
    pub name: String,

    /// Name of a metric source in the operator's configuration.
    #[serde(default = "source")]
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL))]
    pub source: String,

    /// A metric of Istio's own telemetry. `SuccessRate`: requests without a server error, in percent. `LatencyP99`: the 99th
    /// percentile of request durations, in milliseconds. `XdsRejects`: configurations of the target's istiod that proxies
    /// refused; more than 0 fails unless `max` says otherwise. `ConnectedProxies`: proxies connected to the target's istiod, in
    /// percent of those that should be; less than 100 fails unless `min` says otherwise. `ProxyRestarts`: proxies that started
    /// again; more than 0 fails unless `max` says otherwise. Excludes `query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,

    /// PromQL that gives an instant vector: every value of it is judged. Placeholders: `$(namespaces)` and `$(workloads)` are
    /// regular expressions for `=~`, `$(source)` and `$(target)` revisions, `$(window)` is the window as a duration and `$(istiod)`
    /// the label matchers of the target's istiod. Excludes `builtin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = limits::QUERY),
        extend("x-kubernetes-validations" = validations(&[rules::QUERY_PLACEHOLDERS]))
    )]
    pub query: Option<String>,

    /// PromQL that gives the number of samples behind each value of `query`, with the same labels. Needed for `minSamples`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = limits::QUERY),
        extend("x-kubernetes-validations" = validations(&[rules::QUERY_PLACEHOLDERS]))
    )]
    pub samples_query: Option<String>,

    /// Values below fail. A number; one with a fraction is written in quotes, for example `"99.5"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "decimal")]
    pub min: Option<IntOrString>,

    /// Values above fail. A number; one with a fraction is written in quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "decimal")]
    pub max: Option<IntOrString>,

    /// How far a value may be from that of the same workloads in a window of the same length before their restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineSpec>,

    /// Length of the window that a value is taken over. The first window begins when the restarts are over, so every batch
    /// takes at least this much longer. Should hold four scrapes or more.
    #[serde(default = "window_seconds")]
    #[schemars(range(min = 1, max = limits::METRIC_SECONDS))]
    pub window_seconds: u32,

    /// Time between two measurements.
    #[serde(default = "interval_seconds")]
    #[schemars(range(min = 1, max = limits::METRIC_SECONDS))]
    pub interval_seconds: u32,

    /// How many measurements must have a verdict before the run goes on. While a wave soaks there may be more.
    #[serde(default = "count")]
    #[schemars(range(min = 1, max = limits::MEASUREMENTS))]
    pub count: u32,

    /// How many measurements may fail.
    #[serde(default)]
    #[schemars(range(max = limits::MEASUREMENTS))]
    pub failure_limit: u32,

    /// How many measurements in a row may end in an error of the metric source before a person is asked.
    #[serde(default = "limit")]
    #[schemars(range(max = limits::MEASUREMENTS))]
    pub error_limit: u32,

    /// How many measurements in a row may have nothing to be compared with before a person is asked.
    #[serde(default = "limit")]
    #[schemars(range(max = limits::MEASUREMENTS))]
    pub inconclusive_limit: u32,

    /// How many measurements in a row may be without data before a person is asked.
    #[serde(default = "limit")]
    #[schemars(range(max = limits::MEASUREMENTS))]
    pub no_data_limit: u32,

    /// A value that rests on fewer samples is no data. Left out: 100 requests for `SuccessRate` and `LatencyP99`, one scraped
    /// process for the other built-in metrics, and 0 for a `query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = limits::SAMPLES))]
    pub min_samples: Option<u32>,

    /// A series whose last sample is older is no data.
    #[serde(default = "max_age_seconds")]
    #[schemars(range(min = 1, max = limits::METRIC_SECONDS))]
    pub max_age_seconds: u32,

    /// What a measurement without data does: an answer that is empty, not a number, too old, or rests on too few samples.
    /// `Pause`: it does not count, and after `noDataLimit` of them a person is asked. `Fail`: it counts as failed. `Ignore`: it
    /// counts as measured.
    #[serde(default)]
    pub on_no_data: OnNoData,

    /// Measure and show it, without any effect on the run.
    #[serde(default)]
    pub dry_run: bool,
}

fn source() -> String {
    "default".to_owned()
}

fn window_seconds() -> u32 {
    180
}

fn interval_seconds() -> u32 {
    60
}

fn count() -> u32 {
    1
}

fn limit() -> u32 {
    4
}

fn max_age_seconds() -> u32 {
    120
}

/// A metric of Istio's own telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Builtin {
    /// Requests without a server error, in percent.
    SuccessRate,
    /// The 99th percentile of request durations, in milliseconds.
    LatencyP99,
    /// Configurations that proxies refused.
    XdsRejects,
    /// Proxies connected to the target's istiod, in percent of those that should be.
    ConnectedProxies,
    /// Proxies that started again.
    ProxyRestarts,
}

/// How far a value may be from what it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::BASELINE])))]
pub struct BaselineSpec {
    /// How much it may rise: a number in the unit of the metric, or a share of the value before such as `20%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "change")]
    pub max_increase: Option<IntOrString>,

    /// How much it may fall: a number in the unit of the metric, or a share of the value before such as `20%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "change")]
    pub max_decrease: Option<IntOrString>,
}

/// What a measurement without data does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoData {
    /// It does not count; after too many of them a person is asked.
    #[default]
    Pause,
    /// It counts as failed.
    Fail,
    /// It counts as measured.
    Ignore,
}

fn decimal(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": -limits::LARGEST,
        "maximum": limits::LARGEST,
        "maxLength": limits::DECIMAL,
        "pattern": limits::DECIMAL_PATTERN,
    })
}

fn change(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maximum": limits::LARGEST,
        "maxLength": limits::DECIMAL,
        "pattern": limits::CHANGE_PATTERN,
    })
}

const DECIMAL_MESSAGE: &str = "must be a number with at most nine digits before and six after the point; one with a fraction is \
                               written in quotes";
const CHANGE_MESSAGE: &str =
    "must be a number that is not negative, or a share such as 20%; one with a fraction is written in quotes";

/// Everything that is wrong with the metrics.
pub(crate) fn check(found: &mut Findings, path: &str, analysis: &AnalysisSpec) {
    let metrics = &analysis.metrics;
    found.count(format!("{path}.metrics"), metrics.len(), limits::METRICS);
    for (index, metric) in metrics.iter().enumerate() {
        let path = format!("{path}.metrics[{index}]");
        if metrics.iter().take(index).any(|earlier| earlier.name == metric.name) {
            found.add(&path, "is listed twice");
        }
        check_metric(found, &path, metric);
    }
}

fn check_metric(found: &mut Findings, path: &str, metric: &MetricSpec) {
    found.name(format!("{path}.name"), &metric.name);
    found.name(format!("{path}.source"), &metric.source);
    let broken = [
        metric.builtin.is_some() == metric.query.is_some(),
        metric.samples_query.is_some() && metric.query.is_none(),
        metric.query.is_some() && metric.samples_query.is_none() && metric.min_samples.unwrap_or(0) > 0,
        metric.min.is_none()
            && metric.max.is_none()
            && metric.baseline.is_none()
            && !has_bound(metric.builtin),
        metric.failure_limit >= metric.count,
    ];
    for (rule, _) in rules::METRIC.iter().zip(broken).filter(|(_, broken)| *broken) {
        let field = rule.field;
        found.add(format!("{path}{field}"), rule.message);
    }
    for (field, query) in [("query", &metric.query), ("samplesQuery", &metric.samples_query)] {
        if let Some(query) = query {
            check_query(found, &format!("{path}.{field}"), query);
        }
    }
    check_bounds(found, path, metric);
    for (field, value) in [
        ("windowSeconds", metric.window_seconds),
        ("intervalSeconds", metric.interval_seconds),
        ("maxAgeSeconds", metric.max_age_seconds),
    ] {
        found.range(format!("{path}.{field}"), value, 1, limits::METRIC_SECONDS);
    }
    for (field, value, min) in [
        ("count", metric.count, 1),
        ("failureLimit", metric.failure_limit, 0),
        ("errorLimit", metric.error_limit, 0),
        ("inconclusiveLimit", metric.inconclusive_limit, 0),
        ("noDataLimit", metric.no_data_limit, 0),
    ] {
        found.range(format!("{path}.{field}"), value, min, limits::MEASUREMENTS);
    }
    found.range(format!("{path}.minSamples"), metric.min_samples.unwrap_or(0), 0, limits::SAMPLES);
}

fn check_query(found: &mut Findings, path: &str, query: &str) {
    if query.is_empty() {
        found.add(path, "must not be empty");
    }
    if query.chars().count() > limits::QUERY {
        found.add(path, format!("must have at most {} characters", limits::QUERY));
    }
    if !unknown_placeholders(query).is_empty() {
        found.add(path, rules::QUERY_PLACEHOLDERS.message);
    }
}

fn check_bounds(found: &mut Findings, path: &str, metric: &MetricSpec) {
    let mut bound = |field: &str, value: &Option<IntOrString>| {
        let read = value.as_ref().map(read_decimal);
        if read == Some(None) {
            found.add(format!("{path}.{field}"), DECIMAL_MESSAGE);
        }
        read.flatten()
    };
    let (min, max) = (bound("min", &metric.min), bound("max", &metric.max));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        found.add(
            format!("{path}.min"),
            format!("must not be above max: nothing lies between {min} and {max}"),
        );
    }
    let Some(baseline) = &metric.baseline else { return };
    if baseline.max_increase.is_none() && baseline.max_decrease.is_none() {
        found.add(format!("{path}.baseline"), rules::BASELINE.message);
    }
    for (field, value) in [("maxIncrease", &baseline.max_increase), ("maxDecrease", &baseline.max_decrease)] {
        if value.as_ref().is_some_and(|value| read_change(value).is_none()) {
            found.add(format!("{path}.baseline.{field}"), CHANGE_MESSAGE);
        }
    }
}

/// Whether a built-in metric has a bound of its own.
fn has_bound(builtin: Option<Builtin>) -> bool {
    matches!(builtin, Some(Builtin::XdsRejects | Builtin::ConnectedProxies | Builtin::ProxyRestarts))
}

fn read_decimal(value: &IntOrString) -> Option<Decimal> {
    match value {
        IntOrString::Int(number) => Some(Decimal::whole(*number)),
        IntOrString::String(text) => Decimal::parse(text),
    }
}

fn read_change(value: &IntOrString) -> Option<Change> {
    let change = match value {
        IntOrString::Int(number) => Change::Absolute(Decimal::whole(*number)),
        IntOrString::String(text) => match text.strip_suffix('%') {
            Some(percent) => Change::Percent(Decimal::parse(percent)?),
            None => Change::Absolute(Decimal::parse(text)?),
        },
    };
    let (Change::Absolute(amount) | Change::Percent(amount)) = change;
    (amount >= Decimal::default()).then_some(change)
}

/// The metrics for the core. What does not make sense was refused before.
pub(crate) fn intent(spec: &AnalysisSpec) -> AnalysisIntent {
    AnalysisIntent { metrics: spec.metrics.iter().map(metric).collect() }
}

fn metric(spec: &MetricSpec) -> MetricIntent {
    let builtin = spec.builtin.map(builtin);
    let own = |bound: &Option<IntOrString>| bound.as_ref().and_then(read_decimal);
    let (min, max) = match builtin {
        Some(analysis::Builtin::XdsRejects | analysis::Builtin::ProxyRestarts) => {
            (own(&spec.min), own(&spec.max).or(Some(Decimal::whole(0))))
        }
        Some(analysis::Builtin::ConnectedProxies) => {
            (own(&spec.min).or(Some(Decimal::whole(100))), own(&spec.max))
        }
        _ => (own(&spec.min), own(&spec.max)),
    };
    MetricIntent {
        name: spec.name.clone(),
        source: spec.source.clone(),
        measure: match builtin {
            Some(builtin) => Measure::Builtin(builtin),
            None => Measure::Promql {
                query: spec.query.clone().unwrap_or_default(),
                samples: spec.samples_query.clone(),
            },
        },
        min,
        max,
        baseline: spec.baseline.as_ref().map(|baseline| BaselineIntent {
            max_increase: baseline.max_increase.as_ref().and_then(read_change),
            max_decrease: baseline.max_decrease.as_ref().and_then(read_change),
        }),
        window_seconds: spec.window_seconds,
        interval_seconds: spec.interval_seconds,
        count: spec.count,
        failure_limit: spec.failure_limit,
        error_limit: spec.error_limit,
        inconclusive_limit: spec.inconclusive_limit,
        no_data_limit: spec.no_data_limit,
        min_samples: spec
            .min_samples
            .unwrap_or_else(|| builtin.map_or(0, analysis::Builtin::default_min_samples)),
        max_age_seconds: spec.max_age_seconds,
        on_no_data: match spec.on_no_data {
            OnNoData::Pause => analysis::OnNoData::Pause,
            OnNoData::Fail => analysis::OnNoData::Fail,
            OnNoData::Ignore => analysis::OnNoData::Ignore,
        },
        dry_run: spec.dry_run,
    }
}

fn builtin(builtin: Builtin) -> analysis::Builtin {
    match builtin {
        Builtin::SuccessRate => analysis::Builtin::SuccessRate,
        Builtin::LatencyP99 => analysis::Builtin::LatencyP99,
        Builtin::XdsRejects => analysis::Builtin::XdsRejects,
        Builtin::ConnectedProxies => analysis::Builtin::ConnectedProxies,
        Builtin::ProxyRestarts => analysis::Builtin::ProxyRestarts,
    }
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::analysis::query::PLACEHOLDERS;

    use super::*;

    /// The API server cannot compare numbers that may be text: only the command line and the operator say so.
    #[test]
    fn bounds_that_leave_nothing_between_them_are_refused() {
        let spec = |min: &str, max: i32| -> AnalysisSpec {
            let metric = serde_json::json!({"name": "a", "builtin": "SuccessRate", "min": min, "max": max});
            serde_json::from_value(serde_json::json!({"metrics": [metric]})).unwrap()
        };
        let found = |spec: &AnalysisSpec| {
            let mut findings = Findings::default();
            check(&mut findings, "spec.analysis", spec);
            findings.fields().into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(found(&spec("99.5", 99)), ["spec.analysis.metrics[0].min"]);
        assert!(found(&spec("99.5", 100)).is_empty());
    }

    #[test]
    fn every_placeholder_is_known_to_the_rule_and_named_in_its_message() {
        for (name, _) in PLACEHOLDERS {
            let word = name.trim_start_matches("$(").trim_end_matches(')');
            assert!(rules::QUERY_PLACEHOLDERS.rule.contains(word), "{name}");
            assert!(rules::QUERY_PLACEHOLDERS.message.contains(name), "{name}");
        }
    }
}

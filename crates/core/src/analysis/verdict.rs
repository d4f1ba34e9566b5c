//! What the answer of a metric source means. No news is never good news: an answer that is empty, not a number, too old or
//! rests on too little is no data, whatever its value.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::query::{PART, SAMPLES, VALUE, WORKLOAD, WORKLOAD_NAMESPACE};
use crate::analysis::{Builtin, Change, Measure, MetricIntent};
use crate::ids::WorkloadRef;
use crate::measure::{Answer, Row};

/// How a measurement came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Every rule of the metric holds.
    Passed,
    /// A rule of the metric is broken.
    Failed,
    /// There is a value, and nothing to compare it with.
    Inconclusive,
    /// There is no value that counts.
    NoData,
    /// The metric source did not answer.
    Error,
}

impl Verdict {
    /// The verdict as status and metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "Passed",
            Self::Failed => "Failed",
            Self::Inconclusive => "Inconclusive",
            Self::NoData => "NoData",
            Self::Error => "Error",
        }
    }
}

/// A measurement that was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// How it came out.
    pub verdict: Verdict,
    /// The value that decided, if there is one.
    pub value: Option<f64>,
    /// What it was compared with, if it was.
    pub baseline: Option<f64>,
    /// In words: what was measured, of what, and what is wrong with it.
    pub message: String,
}

/// What a measurement is about.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// The workloads whose restart is judged.
    pub workloads: &'a BTreeSet<WorkloadRef>,
    /// How many proxies should be connected to the target's istiod at least.
    pub expected_proxies: u32,
    /// How many istiods of the target there are, all of which must be scraped.
    pub istiods: u32,
}

/// Labels that tell the values of an answer apart.
type Key = BTreeMap<String, String>;

/// The values that count, and why others do not.
#[derive(Default)]
struct Values {
    counted: BTreeMap<Key, f64>,
    /// Why a value does not count.
    left_out: Vec<String>,
}

/// Judges a measurement: the answer for now, and that for the time before the restart if the metric compares with it.
pub fn judge(metric: &MetricIntent, now: &Answer, before: Option<&Answer>, measured: Measured<'_>) -> Judged {
    let without_value = |verdict, message: String| Judged { verdict, value: None, baseline: None, message };
    let rows = match now {
        Ok(rows) => rows,
        Err(problem) => return without_value(Verdict::Error, problem.to_string()),
    };
    let values = values(metric, rows, measured);
    if values.counted.is_empty() {
        let why = values.left_out.first().cloned();
        return without_value(Verdict::NoData, why.unwrap_or_else(|| "the answer is empty".into()));
    }
    let baseline = match (metric.baseline, before) {
        (None, _) | (Some(_), None) => Values::default(),
        (Some(_), Some(Ok(rows))) => self::values(metric, rows, measured),
        (Some(_), Some(Err(problem))) => {
            return without_value(Verdict::Error, format!("the value before the restart: {problem}"));
        }
    };
    let mut judged: Vec<Judged> = values
        .counted
        .iter()
        .map(|(key, value)| judge_value(metric, key, *value, baseline.counted.get(key).copied()))
        .collect();
    let lost = baseline.counted.iter().filter(|(key, _)| !values.counted.contains_key(*key));
    judged.extend(lost.map(|(key, before)| Judged {
        verdict: Verdict::NoData,
        value: None,
        baseline: Some(*before),
        message: format!(
            "there is no value{} any more, before the restart it was {}",
            of(key),
            shown(*before)
        ),
    }));
    // What decides comes first: a broken rule, then what is missing, then what could not be compared.
    judged.sort_by_key(|judged| match judged.verdict {
        Verdict::Failed => 0,
        Verdict::NoData => 1,
        Verdict::Inconclusive => 2,
        Verdict::Passed | Verdict::Error => 3,
    });
    judged.into_iter().next().unwrap_or_else(|| without_value(Verdict::NoData, "the answer is empty".into()))
}

/// The values of an answer that count.
fn values(metric: &MetricIntent, rows: &[Row], measured: Measured<'_>) -> Values {
    let mut values: BTreeMap<Key, f64> = BTreeMap::new();
    let mut samples: BTreeMap<Key, f64> = BTreeMap::new();
    for row in rows.iter().filter(|row| concerns(metric, row, measured.workloads)) {
        let mut key = row.labels.clone();
        // The name of a series is no label that its samples would share.
        key.remove("__name__");
        match key.remove(PART).as_deref() {
            Some(SAMPLES) => samples.insert(key, row.value),
            Some(VALUE) | None => values.insert(key, row.value),
            Some(_) => continue,
        };
    }
    let mut found = Values::default();
    for (key, value) in values {
        let value = scaled(metric, value, measured);
        let enough = f64::from(least_samples(metric, measured));
        let got = samples.get(&key).copied().filter(|got| got.is_finite()).unwrap_or_default();
        if !value.is_finite() {
            found.left_out.push(format!("the value{} is {value}", of(&key)));
        } else if got < enough {
            found.left_out.push(format!(
                "the value{} rests on {} of {enough} samples",
                of(&key),
                got.floor()
            ));
        } else {
            found.counted.insert(key, value);
        }
    }
    // Those of all workloads say most about why nothing counts.
    found.left_out.sort_by_key(String::len);
    found
}

/// How many samples a value must rest on: a built-in metric on one at least, and one of istiods on all of them.
fn least_samples(metric: &MetricIntent, measured: Measured<'_>) -> u32 {
    match metric.measure {
        Measure::Builtin(Builtin::XdsRejects | Builtin::ConnectedProxies) => {
            metric.min_samples.max(measured.istiods).max(1)
        }
        Measure::Builtin(_) => metric.min_samples.max(1),
        Measure::Promql { .. } => metric.min_samples,
    }
}

/// Regular expressions over namespaces and names select more than the workloads that are meant.
fn concerns(metric: &MetricIntent, row: &Row, workloads: &BTreeSet<WorkloadRef>) -> bool {
    let (Measure::Builtin(_), Some(namespace), Some(name)) =
        (&metric.measure, row.labels.get(WORKLOAD_NAMESPACE), row.labels.get(WORKLOAD))
    else {
        return true;
    };
    workloads.iter().any(|workload| workload.namespace.as_str() == namespace && workload.name == *name)
}

/// Connected proxies are told in percent of those that should be connected.
fn scaled(metric: &MetricIntent, value: f64, measured: Measured<'_>) -> f64 {
    match metric.measure {
        Measure::Builtin(Builtin::ConnectedProxies) => {
            100.0 * value / f64::from(measured.expected_proxies.max(1))
        }
        Measure::Builtin(_) | Measure::Promql { .. } => value,
    }
}

/// Whether a value must have something to compare it with. One workload of many may be new, or have had no traffic: then
/// that of all of them is compared.
fn must_compare(metric: &MetricIntent, key: &Key) -> bool {
    !matches!(metric.measure, Measure::Builtin(_)) || !key.contains_key(WORKLOAD)
}

fn judge_value(metric: &MetricIntent, key: &Key, value: f64, baseline: Option<f64>) -> Judged {
    let judged = |verdict, message: String| Judged { verdict, value: Some(value), baseline, message };
    let what = format!("{}{}", shown(value), of(key));
    if let Some(min) = metric.min.filter(|min| value < min.as_f64()) {
        return judged(Verdict::Failed, format!("{what} is below min {min}"));
    }
    if let Some(max) = metric.max.filter(|max| value > max.as_f64()) {
        return judged(Verdict::Failed, format!("{what} is above max {max}"));
    }
    let Some(rule) = metric.baseline else {
        return judged(Verdict::Passed, what);
    };
    let Some(before) = baseline else {
        let message = format!("{what}: there is no value of the time before the restart");
        return if must_compare(metric, key) {
            judged(Verdict::Inconclusive, message)
        } else {
            judged(Verdict::Passed, message)
        };
    };
    let what = format!("{what}, before the restart {}", shown(before));
    if let Some(most) = rule.max_increase.filter(|most| value - before > amount(*most, before)) {
        return judged(Verdict::Failed, format!("{what}: it rose by more than {most}"));
    }
    if let Some(most) = rule.max_decrease.filter(|most| before - value > amount(*most, before)) {
        return judged(Verdict::Failed, format!("{what}: it fell by more than {most}"));
    }
    judged(Verdict::Passed, what)
}

fn amount(change: Change, before: f64) -> f64 {
    match change {
        Change::Absolute(value) => value.as_f64(),
        Change::Percent(percent) => before.abs() * percent.as_f64() / 100.0,
    }
}

/// A measured value as people read it.
pub fn shown(value: f64) -> String {
    let rounded = format!("{value:.3}");
    let trimmed = rounded.trim_end_matches('0').trim_end_matches('.');
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

/// What a value is of.
fn of(key: &Key) -> String {
    let mut parts = Vec::new();
    let mut others = key.clone();
    if let (Some(namespace), Some(name)) = (key.get(WORKLOAD_NAMESPACE), key.get(WORKLOAD)) {
        parts.push(format!("{namespace}/{name}"));
        others.remove(WORKLOAD_NAMESPACE);
        others.remove(WORKLOAD);
    }
    parts.extend(others.iter().map(|(label, value)| format!("{label}={value}")));
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests;

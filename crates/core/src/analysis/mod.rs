//! Analysis: metrics that a run must satisfy after each batch and while a wave soaks. What is asked of a metric source is
//! made in [`query`], what an answer means is decided in [`verdict`].

pub mod query;
pub mod verdict;

use std::fmt;

/// The metrics of a wave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnalysisIntent {
    /// All of them must pass, except those with [`MetricIntent::dry_run`].
    pub metrics: Vec<MetricIntent>,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricIntent {
    /// Its name, unique in its list.
    pub name: String,
    /// Name of a metric source in the operator's configuration.
    pub source: String,
    /// What is measured.
    pub measure: Measure,
    /// Values below fail.
    pub min: Option<Decimal>,
    /// Values above fail.
    pub max: Option<Decimal>,
    /// How far the value may be from that of the same workloads before their restart.
    pub baseline: Option<BaselineIntent>,
    /// Length of the window that a value is taken over, in seconds. The first one begins when the restarts are over.
    pub window_seconds: u32,
    /// Time between two measurements, in seconds.
    pub interval_seconds: u32,
    /// How many measurements must have a verdict before the run goes on.
    pub count: u32,
    /// How many measurements may fail.
    pub failure_limit: u32,
    /// How many measurements in a row may end in an error of the source before a person is asked.
    pub error_limit: u32,
    /// How many measurements in a row may be inconclusive before a person is asked.
    pub inconclusive_limit: u32,
    /// How many measurements in a row may be without data before a person is asked.
    pub no_data_limit: u32,
    /// A value that rests on fewer samples than this is no data. Zero asks for none.
    pub min_samples: u32,
    /// A series whose last sample is older than this is no data, in seconds.
    pub max_age_seconds: u32,
    /// What a measurement without data does.
    pub on_no_data: OnNoData,
    /// Measured and shown, without any effect on the run.
    pub dry_run: bool,
}

/// What a metric measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Something that Istio's own telemetry tells.
    Builtin(Builtin),
    /// A query of the user.
    Promql {
        /// The value, or one value for each of several things, as an instant vector.
        query: String,
        /// How many samples each value rests on; needed for [`MetricIntent::min_samples`].
        samples: Option<String>,
    },
}

/// Metrics of Istio's own telemetry. Sources: Istio documentation, "Istio Standard Metrics"; Istio's
/// pilot/pkg/xds/monitoring.go and pilot/pkg/bootstrap/monitoring.go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Builtin {
    /// Requests without a server error, in percent.
    SuccessRate,
    /// The time within which 99 of 100 requests are answered, in milliseconds.
    LatencyP99,
    /// Configurations that proxies refused from the target's istiod, in the window.
    XdsRejects,
    /// Proxies that are connected to the target's istiod, in percent of those that should be.
    ConnectedProxies,
    /// How often proxies started again without their pod being replaced, in the window.
    ProxyRestarts,
}

impl Builtin {
    /// The metric as the manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuccessRate => "SuccessRate",
            Self::LatencyP99 => "LatencyP99",
            Self::XdsRejects => "XdsRejects",
            Self::ConnectedProxies => "ConnectedProxies",
            Self::ProxyRestarts => "ProxyRestarts",
        }
    }

    /// How many samples a value rests on at least, when the manifest does not say: requests for metrics of traffic, scraped
    /// processes for the others.
    pub fn default_min_samples(self) -> u32 {
        match self {
            Self::SuccessRate | Self::LatencyP99 => 100,
            Self::XdsRejects | Self::ConnectedProxies | Self::ProxyRestarts => 1,
        }
    }
}

/// How far a value may be from what it was before the restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BaselineIntent {
    /// How much it may rise.
    pub max_increase: Option<Change>,
    /// How much it may fall.
    pub max_decrease: Option<Change>,
}

/// A difference between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// In the unit of the metric.
    Absolute(Decimal),
    /// In percent of the value before.
    Percent(Decimal),
}

/// What a measurement without data does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNoData {
    /// It does not count; too many in a row, and a person is asked.
    #[default]
    Pause,
    /// It counts as failed.
    Fail,
    /// It counts as measured: facts alone decide where there is no traffic.
    Ignore,
}

/// A decimal number with six digits after the point: what people write into a manifest, without the surprises of binary
/// fractions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    millionths: i64,
}

impl Decimal {
    const SCALE: i64 = 1_000_000;
    const DIGITS: usize = 6;

    /// A whole number.
    pub fn whole(value: i32) -> Self {
        Self { millionths: i64::from(value) * Self::SCALE }
    }

    /// Reads a number such as `99`, `-3` or `99.95`: at most nine digits before and six after the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let number = |text: &str, most: usize| {
            let sound =
                !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
            sound.then(|| text.parse::<i64>().ok()).flatten()
        };
        let padding = i64::pow(10, u32::try_from(Self::DIGITS.checked_sub(fraction.len())?).ok()?);
        let millionths = number(whole, 9)? * Self::SCALE + number(fraction, Self::DIGITS)? * padding;
        Some(Self { millionths: if negative { -millionths } else { millionths } })
    }

    /// The number for a comparison with a measured value.
    #[expect(clippy::cast_precision_loss, reason = "at most 10^15 millionths, which a double holds exactly")]
    pub fn as_f64(self) -> f64 {
        self.millionths as f64 / Self::SCALE as f64
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(value) => write!(f, "{value}"),
            Self::Percent(value) => write!(f, "{value}%"),
        }
    }
}

/// A metric for tests, with the measure that each of them is about.
#[cfg(test)]
pub(crate) fn metric(measure: Measure) -> MetricIntent {
    MetricIntent {
        name: "m".into(),
        source: "default".into(),
        measure,
        min: None,
        max: None,
        baseline: None,
        window_seconds: 120,
        interval_seconds: 60,
        count: 1,
        failure_limit: 0,
        error_limit: 4,
        inconclusive_limit: 4,
        no_data_limit: 4,
        min_samples: 100,
        max_age_seconds: 60,
        on_no_data: OnNoData::Pause,
        dry_run: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_as_people_write_them() {
        for (text, value) in
            [("99", 99.0), ("99.95", 99.95), ("-3.5", -3.5), ("0", 0.0), ("0.000001", 0.000_001)]
        {
            let read = Decimal::parse(text).unwrap();
            assert!((read.as_f64() - value).abs() < f64::EPSILON, "{text}");
            assert_eq!(read.to_string(), value.to_string());
        }
        for text in
            ["", "-", ".", "1.", ".5", "1e3", "+1", "1.0000001", "1234567890", "0x1", "1,5", " 1", "NaN"]
        {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        assert!(Decimal::parse("99.95") < Decimal::parse("100"));
    }
}

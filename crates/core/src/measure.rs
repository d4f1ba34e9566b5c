//! Measurements: what a decision asks of a metric source, and what came back. The shell carries the queries out; what an
//! answer means is decided in [`crate::machine`].

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

/// A query for one moment, as the core asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query {
    /// Name of the metric source in the operator's configuration.
    pub source: String,
    /// PromQL, ready to be sent. It may contain [`ISTIOD`], which only the source can fill in.
    pub promql: String,
    /// The moment that it is evaluated for. Never in the future.
    pub at: Timestamp,
    /// How old the last sample of a series may be at that moment, in seconds (`lookback_delta` of Prometheus' HTTP API).
    pub max_age_seconds: u32,
}

/// Placeholder for the label matchers that select the istiods of a revision, for example
/// `$(istiod:asm-1-28)` becomes `istio_io_rev="asm-1-28"`: how istiod's own metrics are labelled depends on how they are
/// scraped, so the operator's configuration says it for each source.
pub const ISTIOD: &str = "$(istiod:";

/// What came back for a query.
pub type Answer = Result<Vec<Row>, Problem>;

/// One element of an instant vector; a scalar is one without labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; NaN and infinities are possible.
    pub value: f64,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of problem.
    pub kind: ProblemKind,
    /// What happened, in words for people. Never contains an address, a token or a body.
    pub message: String,
}

/// What kind of problem kept a query from being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The operator's configuration has no source of this name.
    UnknownSource,
    /// The source's address is one that the operator must not speak to.
    Forbidden,
    /// No connection.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// 401 or 403.
    Unauthorized,
    /// It answered with a redirect, which is not followed.
    Redirected,
    /// The body is larger than allowed.
    TooLarge,
    /// The source does not understand the query.
    BadQuery,
    /// The answer is not what Prometheus' HTTP API answers.
    BadAnswer,
    /// Any other status.
    Refused,
}

impl ProblemKind {
    /// The kind as reasons, events and metric labels write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSource => "UnknownSource",
            Self::Forbidden => "Forbidden",
            Self::Unreachable => "Unreachable",
            Self::TimedOut => "TimedOut",
            Self::Unauthorized => "Unauthorized",
            Self::Redirected => "Redirected",
            Self::TooLarge => "TooLarge",
            Self::BadQuery => "BadQuery",
            Self::BadAnswer => "BadAnswer",
            Self::Refused => "Refused",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.message)
    }
}

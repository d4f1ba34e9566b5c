//! What Prometheus' HTTP API answers to an instant query.

use std::collections::BTreeMap;

use meshupgrade_core::measure::{Answer, Problem, ProblemKind, Row};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::problem;

/// How much of a query parser's words is repeated.
const LONGEST_ERROR: usize = 200;

#[derive(Deserialize)]
struct Body {
    status: Status,
    data: Option<Data>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "status")]
    _status: Failed,
    error: String,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Success,
    Error,
}

#[derive(Deserialize)]
enum Failed {
    #[serde(rename = "error")]
    Error,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar(Point),
    Matrix(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Missing when the sample is a native histogram.
    value: Option<Point>,
}

/// When, and the value as a string: JSON has no NaN.
#[derive(Deserialize)]
struct Point(#[expect(dead_code, reason = "it is the moment that was asked for")] f64, String);

/// The rows of a body that came with status 200.
pub(super) fn rows(source: &str, body: &[u8]) -> Answer {
    // The words of the parser would repeat parts of the body.
    let body: Body = serde_json::from_slice(body)
        .map_err(|_| bad("it is not the JSON that Prometheus' HTTP API answers: check the url's path"))?;
    if body.status != Status::Success {
        return Err(bad("it says \"error\" with status 200"));
    }
    // Thanos and others answer with what they have when a part of them is away. Remarks about the query are no warnings.
    if body.warnings.iter().any(|warning| !warning.starts_with("PromQL info")) {
        tracing::warn!(
            source,
            warnings = body.warnings.len(),
            "a metric source answered in part, or with doubts"
        );
        return Err(bad("it came with warnings, so a part of it may be missing"));
    }
    match body.data {
        Some(Data::Vector(samples)) => samples.into_iter().map(row).collect(),
        Some(Data::Scalar(point)) => Ok(vec![Row { labels: BTreeMap::new(), value: number(&point)? }]),
        Some(Data::Matrix(_)) => {
            Err(bad("the query yields a range vector: it must yield one value per series"))
        }
        Some(Data::String(_)) => Err(bad("the query yields a string: it must yield numbers")),
        None => Err(bad("it has no data")),
    }
}

fn row(sample: Sample) -> Result<Row, Problem> {
    let point =
        sample.value.ok_or_else(|| bad("the query yields native histograms: it must yield numbers"))?;
    Ok(Row { value: number(&point)?, labels: sample.metric })
}

fn number(point: &Point) -> Result<f64, Problem> {
    point.1.parse().map_err(|_| bad("a value is not a number"))
}

fn bad(text: &str) -> Problem {
    problem(ProblemKind::BadAnswer, format!("the answer cannot be used: {text}"))
}

/// What the source's query parser says, if the body is Prometheus' error: one line, cut, and without `secret`.
pub(super) fn error_text(body: &[u8], secret: Option<&str>) -> Option<String> {
    let mut text = serde_json::from_slice::<ErrorBody>(body).ok()?.error;
    if let Some(secret) = secret {
        text = text.replace(secret, "<token>");
    }
    Some(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_ERROR).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &str) -> Answer {
        rows("a", format!(r#"{{"status":"success","data":{data}}}"#).as_bytes())
    }

    #[test]
    fn a_vector_has_its_labels_and_values() {
        let rows = of(r#"{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"a"},"value":[1767225600.5,"1.5"]},
            {"metric":{},"value":[1767225600,"NaN"]},
            {"metric":{},"value":[1767225600,"+Inf"]},
            {"metric":{},"value":[1767225600,"-Inf"]}],"stats":{}}"#)
        .unwrap();
        let labels = [("__name__", "up"), ("job", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(rows[0], Row { labels: BTreeMap::from(labels), value: 1.5 });
        assert!(rows[1].value.is_nan());
        let infinite =
            |row: &Row, positive| row.value.is_infinite() && row.value.is_sign_positive() == positive;
        assert!(infinite(&rows[2], true) && infinite(&rows[3], false));
    }

    #[test]
    fn a_scalar_is_one_row_and_an_empty_vector_none() {
        let scalar = of(r#"{"resultType":"scalar","result":[1,"42"]}"#).unwrap();
        assert_eq!(scalar, [Row { labels: BTreeMap::new(), value: 42.0 }]);
        assert_eq!(of(r#"{"result":[],"resultType":"vector"}"#).unwrap(), []);
    }

    #[test]
    fn an_answer_in_part_is_none() {
        let body = |warning: &str| {
            format!(
                r#"{{"status":"success","warnings":["{warning}"],"infos":["x"],"data":{{"resultType":"vector","result":[]}}}}"#
            )
        };
        assert_eq!(rows("a", body("PromQL info: a name").as_bytes()).unwrap(), []);
        let partial = rows("a", body("a store is away").as_bytes()).unwrap_err();
        assert!(partial.message.contains("warnings") && !partial.message.contains("store"), "{partial}");
    }

    #[test]
    fn anything_else_is_a_bad_answer_whose_text_is_not_repeated() {
        for data in [
            r#"{"resultType":"matrix","result":[]}"#,
            r#"{"resultType":"string","result":[1,"hush"]}"#,
            r#"{"resultType":"hush","result":[]}"#,
            r#"{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}"#,
            r#"{"resultType":"vector","result":[{"metric":{},"value":[1,"hush"]}]}"#,
            r#"{"resultType":"vector","result":[{"metric":{},"value":[1,1]}]}"#,
            r#"{"resultType":"scalar","result":[]}"#,
            "null",
            r#""hush"#,
        ] {
            let problem = of(data).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::BadAnswer, "{data}");
            assert!(!problem.message.contains("hush"), "{data}: {problem}");
        }
        for body in ["", "hush", "[]", r#"{"status":"error","error":"hush"}"#] {
            let problem = rows("a", body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::BadAnswer, "{body}");
            assert!(!problem.message.contains("hush"), "{body}: {problem}");
        }
    }

    #[test]
    fn the_words_of_a_query_parser_are_one_short_line_without_the_token() {
        let long = "x".repeat(195);
        let body =
            format!(r#"{{"status":"error","errorType":"bad_data","error":"a\n\u001b{long}hush-hush"}}"#);
        let text = error_text(body.as_bytes(), Some("hush-hush")).unwrap();
        assert_eq!(text, format!("a  {long}<t"));
        assert_eq!(error_text(b"hush", None), None);
        assert_eq!(error_text(br#"{"error":"hush"}"#, None), None);
    }
}

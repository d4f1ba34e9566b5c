use super::*;
use crate::analysis::{BaselineIntent, Decimal};
use crate::ids::WorkloadKind;
use crate::measure::{Problem, ProblemKind};

#[expect(clippy::unnecessary_wraps, reason = "the fields that it fills are optional")]
fn decimal(text: &str) -> Option<Decimal> {
    Some(Decimal::parse(text).unwrap())
}

fn metric(measure: Measure) -> MetricIntent {
    MetricIntent { min: decimal("99"), ..crate::analysis::metric(measure) }
}

fn success_rate() -> MetricIntent {
    metric(Measure::Builtin(Builtin::SuccessRate))
}

fn row(part: &str, of: &[(&str, &str)], value: f64) -> Row {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let labels = of.iter().map(owned).chain([(PART.to_owned(), part.to_owned())]);
    Row { labels: labels.collect(), value }
}

/// Value and samples, for a workload of the namespace shop or for all.
fn pair(workload: Option<&str>, value: f64, samples: f64) -> [Row; 2] {
    let mut of = vec![("reporter", "destination")];
    if let Some(name) = workload {
        of.extend([(WORKLOAD_NAMESPACE, "shop"), (WORKLOAD, name)]);
    }
    [row(VALUE, &of, value), row(SAMPLES, &of, samples)]
}

fn judged(metric: &MetricIntent, now: &Answer, before: Option<&Answer>) -> Judged {
    let workloads = [WorkloadRef::new(WorkloadKind::Deployment, "shop", "web")].into();
    judge(metric, now, before, Measured { workloads: &workloads, expected_proxies: 4, istiods: 1 })
}

fn verdict(metric: &MetricIntent, rows: &[Row]) -> Verdict {
    judged(metric, &Ok(rows.to_vec()), None).verdict
}

#[test]
fn a_value_passes_within_its_bounds_and_fails_beyond() {
    let rows = |value| pair(None, value, 1000.0);
    assert_eq!(verdict(&success_rate(), &rows(99.0)), Verdict::Passed);
    assert_eq!(verdict(&success_rate(), &rows(98.999)), Verdict::Failed);
    let latency = MetricIntent { min: None, max: decimal("250"), ..success_rate() };
    assert_eq!(verdict(&latency, &rows(250.0)), Verdict::Passed);
    assert_eq!(verdict(&latency, &rows(250.5)), Verdict::Failed);
}

#[test]
fn no_news_is_no_good_news() {
    for (rows, why) in [
        (vec![], "the answer is empty"),
        (pair(None, f64::NAN, 1000.0).to_vec(), "is NaN"),
        (pair(None, f64::INFINITY, 1000.0).to_vec(), "is inf"),
        (pair(None, 100.0, 99.9).to_vec(), "rests on 99 of 100 samples"),
        (pair(None, 100.0, f64::NAN).to_vec(), "rests on 0 of 100 samples"),
        (pair(None, 100.0, 1000.0)[..1].to_vec(), "rests on 0 of 100 samples"),
        (pair(None, 100.0, 1000.0)[1..].to_vec(), "the answer is empty"),
    ] {
        let judged = judged(&success_rate(), &Ok(rows), None);
        assert_eq!(judged.verdict, Verdict::NoData, "{why}");
        assert!(judged.message.contains(why), "{}", judged.message);
    }
}

#[test]
fn a_source_that_does_not_answer_is_an_error_that_says_why() {
    let problem = || Problem { kind: ProblemKind::TimedOut, message: "no answer within 10 s".into() };
    let error = judged(&success_rate(), &Err(problem()), None);
    assert_eq!((error.verdict, error.message.as_str()), (Verdict::Error, "TimedOut: no answer within 10 s"));
    let compared = MetricIntent { baseline: Some(BaselineIntent::default()), ..success_rate() };
    let error = judged(&compared, &Ok(pair(None, 100.0, 1000.0).to_vec()), Some(&Err(problem())));
    assert_eq!(error.verdict, Verdict::Error);
}

#[test]
fn one_bad_workload_is_not_hidden_by_the_others() {
    let rows = [pair(Some("web"), 90.0, 200.0), pair(None, 99.9, 50_000.0)].concat();
    let found = judged(&success_rate(), &Ok(rows), None);
    assert_eq!(found.verdict, Verdict::Failed);
    assert_eq!(found.message, "90 (shop/web, reporter=destination) is below min 99");
}

#[test]
fn a_workload_with_little_traffic_counts_in_the_sum_only() {
    let rows = [pair(Some("web"), 90.0, 20.0), pair(None, 99.9, 50_000.0)].concat();
    assert_eq!(verdict(&success_rate(), &rows), Verdict::Passed);
}

#[test]
fn a_workload_that_is_not_meant_does_not_count() {
    let rows = [pair(Some("other"), 0.0, 500.0), pair(None, 99.9, 50_000.0)].concat();
    assert_eq!(verdict(&success_rate(), &rows), Verdict::Passed);
}

#[test]
fn a_value_is_compared_with_its_own_before_the_restart() {
    let rule = |increase, decrease| {
        let baseline = BaselineIntent { max_increase: increase, max_decrease: decrease };
        MetricIntent { min: None, baseline: Some(baseline), ..success_rate() }
    };
    let compare = |metric: &MetricIntent, now, before| {
        let answer = |value| Ok(pair(None, value, 1000.0).to_vec());
        judged(metric, &answer(now), Some(&answer(before))).verdict
    };
    let fifth = rule(Some(Change::Percent(Decimal::whole(20))), None);
    assert_eq!(compare(&fifth, 120.0, 100.0), Verdict::Passed);
    assert_eq!(compare(&fifth, 121.0, 100.0), Verdict::Failed);
    assert_eq!(compare(&fifth, 1.0, 100.0), Verdict::Passed);
    let half_a_point = rule(None, Some(Change::Absolute(Decimal::parse("0.5").unwrap())));
    assert_eq!(compare(&half_a_point, 99.5, 100.0), Verdict::Passed);
    assert_eq!(compare(&half_a_point, 99.4, 100.0), Verdict::Failed);
}

#[test]
fn without_a_value_from_before_nothing_is_concluded() {
    let baseline =
        BaselineIntent { max_increase: None, max_decrease: Some(Change::Absolute(Decimal::whole(1))) };
    let metric = MetricIntent { baseline: Some(baseline), ..success_rate() };
    let all = Ok(pair(None, 100.0, 1000.0).to_vec());
    let nothing: Answer = Ok(Vec::new());
    let few: Answer = Ok(pair(None, 100.0, 3.0).to_vec());
    for before in [Some(&nothing), Some(&few), None] {
        assert_eq!(judged(&metric, &all, before).verdict, Verdict::Inconclusive);
    }
    // One that breaks a rule which needs no comparison fails all the same.
    let bad = Ok(pair(None, 50.0, 1000.0).to_vec());
    assert_eq!(judged(&metric, &bad, Some(&nothing)).verdict, Verdict::Failed);
    // A workload that is new does not keep the others from being judged.
    let with_new = Ok([pair(Some("web"), 100.0, 1000.0), pair(None, 100.0, 1000.0)].concat());
    assert_eq!(judged(&metric, &with_new, Some(&all)).verdict, Verdict::Passed);
}

#[test]
fn traffic_that_ended_with_the_restart_is_no_data() {
    let baseline =
        BaselineIntent { max_increase: None, max_decrease: Some(Change::Absolute(Decimal::whole(1))) };
    let metric = MetricIntent { baseline: Some(baseline), ..success_rate() };
    let before = Ok([pair(Some("web"), 100.0, 1000.0), pair(None, 100.0, 9000.0)].concat());
    let now = Ok(pair(None, 100.0, 8000.0).to_vec());
    let found = judged(&metric, &now, Some(&before));
    assert_eq!(found.verdict, Verdict::NoData);
    assert!(found.message.contains("shop/web"), "{}", found.message);
}

#[test]
fn of_a_users_query_every_value_is_judged() {
    let user = metric(Measure::Promql { query: "x".into(), samples: None });
    let user = MetricIntent { min_samples: 0, ..user };
    let value = |name: &str, value| Row { labels: [("path".to_owned(), name.to_owned())].into(), value };
    let rows = |second| Ok(vec![value("/a", 100.0), value("/b", second)]);
    assert_eq!(judged(&user, &rows(99.5), None).verdict, Verdict::Passed);
    let found = judged(&user, &rows(12.5), None);
    assert_eq!(found.message, "12.5 (path=/b) is below min 99");
    assert_eq!(found.value, Some(12.5));
}

#[test]
fn connected_proxies_are_a_share_of_those_that_should_be() {
    let metric = MetricIntent { min_samples: 1, ..metric(Measure::Builtin(Builtin::ConnectedProxies)) };
    let rows = |connected| [row(VALUE, &[], connected), row(SAMPLES, &[], 1.0)];
    assert_eq!(verdict(&metric, &rows(4.0)), Verdict::Passed);
    assert_eq!(verdict(&metric, &rows(3.0)), Verdict::Failed);
    assert_eq!(judged(&metric, &Ok(rows(3.0).to_vec()), None).value, Some(75.0));
}

#[test]
fn values_are_shown_short() {
    for (value, text) in
        [(99.0, "99"), (99.95, "99.95"), (0.1 + 0.2, "0.3"), (-0.0001, "0"), (1234.5678, "1234.568")]
    {
        assert_eq!(shown(value), text);
    }
}

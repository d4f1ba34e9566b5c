//! The rules of the CRD as code, with the same verdict.

use std::collections::BTreeSet;

use meshupgrade_core::intent::InjectionMode;

use crate::FieldError;
use crate::intent::int_or_percent;
use crate::rules::{self, NAME_MESSAGE, TRANSITIONS};
use crate::spec::{
    MeshUpgrade, MeshUpgradeSpec, NamespaceSelector, SelectorOperator, SelectorTerm, WaveSpec, WindowSpec,
};
use crate::structure::one_of;
use crate::{analysis, checks, limits, window};

/// Collects findings.
#[derive(Default)]
pub(crate) struct Findings(Vec<FieldError>);

impl Findings {
    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(field, message));
    }

    /// The fields that something is wrong with.
    #[cfg(test)]
    pub(crate) fn fields(&self) -> Vec<&str> {
        self.0.iter().map(|error| error.field.as_str()).collect()
    }

    pub(crate) fn name(&mut self, field: impl Into<String>, value: &str) {
        if value.is_empty() {
            self.add(field, "must not be empty");
        } else if !is_dns_label(value) {
            self.add(field, NAME_MESSAGE);
        }
    }

    pub(crate) fn range(&mut self, field: impl Into<String>, value: u32, min: u32, max: u32) {
        if !(min..=max).contains(&value) {
            self.add(field, format!("must be from {min} to {max}"));
        }
    }

    pub(crate) fn count(&mut self, field: impl Into<String>, count: usize, max: usize) {
        if count > max {
            self.add(field, format!("must have at most {max} entries"));
        }
    }
}

impl MeshUpgrade {
    /// Everything that is wrong with this object taken by itself.
    pub fn validate(&self) -> Vec<FieldError> {
        self.spec.validate()
    }

    /// Everything that is wrong with changing `old` into this object. The facts of the run are those of `old`.
    pub fn validate_update(&self, old: &Self) -> Vec<FieldError> {
        let (new, before) = (&self.spec, &old.spec);
        let run = old.status.as_ref().and_then(|status| status.run.as_ref());
        let active = run.is_some_and(|run| run.started_at.is_some() && run.ended_at.is_none());
        let target_moved = new.target_revision != before.target_revision;
        let within_run = run.is_some_and(|run| {
            [run.source.as_str(), run.target.as_str()].contains(&new.target_revision.as_str())
        });
        let requested = new.rollback.requested;
        let broken = [
            active && target_moved && !within_run,
            active && !target_moved && new.source_revision != before.source_revision,
            active && !target_moved && new.run_id != before.run_id,
            active && new.control_plane != before.control_plane,
            active && new.injection.mode != before.injection.mode,
            requested && target_moved && !within_run,
            requested && new.run_id != before.run_id,
        ];
        TRANSITIONS
            .iter()
            .zip(broken)
            .filter(|(_, broken)| *broken)
            .map(|(rule, _)| FieldError::new(rule.field.trim_start_matches('.'), rule.message))
            .collect()
    }
}

impl MeshUpgradeSpec {
    /// Everything that is wrong with this spec taken by itself.
    pub fn validate(&self) -> Vec<FieldError> {
        let mut found = Findings::default();
        found.name("spec.targetRevision", &self.target_revision);
        if let Some(source) = &self.source_revision {
            found.name("spec.sourceRevision", source);
        }
        if let Some(id) = &self.run_id
            && id.chars().count() > limits::NAME
        {
            found.add("spec.runId", format!("must have at most {} characters", limits::NAME));
        }
        match (&self.control_plane.aks, &self.control_plane.external) {
            (Some(aks), None) => found.0.extend(aks.cluster().err()),
            (None, Some(external)) => found.name("spec.controlPlane.external.namespace", &external.namespace),
            (None, None) | (Some(_), Some(_)) => found.add("spec.controlPlane", rules::CONTROL_PLANE.message),
        }
        found.range("spec.injection.settleSeconds", self.injection.settle_seconds, 1, limits::SETTLE_SECONDS);
        if let Some(waves) = &self.waves {
            check_waves(&mut found, waves);
        }
        let has_tags = self.waves.as_ref().is_some_and(|waves| waves.iter().all(|wave| wave.tag.is_some()));
        if self.injection.mode == InjectionMode::RevisionTag && !has_tags {
            found.add("spec.injection.mode", rules::TAG_MODE.message);
        }
        check_windows(&mut found, self.windows.as_deref());
        check_approval(&mut found, self);
        analysis::check(&mut found, "spec.analysis", &self.analysis);
        let restart = &self.restart;
        found.range("spec.restart.timeoutSeconds", restart.timeout_seconds, 1, limits::TIMEOUT_SECONDS);
        found.range("spec.restart.pauseSeconds", restart.pause_seconds, 0, limits::SOAK_SECONDS);
        found.range("spec.restart.graceSeconds", restart.grace_seconds, 0, limits::TIMEOUT_SECONDS);
        found.range("spec.restart.maxFailedWorkloads", restart.max_failed_workloads, 0, limits::CONCURRENT);
        if let Some(deadline) = restart.progress_deadline_seconds {
            found.range("spec.restart.progressDeadlineSeconds", deadline, 1, limits::SOAK_SECONDS);
        }
        found.range("spec.completion.soakSeconds", self.completion.soak_seconds, 0, limits::SOAK_SECONDS);
        check_skip(&mut found, &self.checks.skip);
        found.0
    }
}

fn check_waves(found: &mut Findings, waves: &[WaveSpec]) {
    if waves.is_empty() {
        found.add("spec.waves", "must not be empty; leave it out for one wave of everything");
    }
    found.count("spec.waves", waves.len(), limits::WAVES);
    let names: BTreeSet<_> = waves.iter().map(|wave| &wave.name).collect();
    if names.len() < waves.len() {
        found.add("spec.waves", rules::WAVE_NAMES.message);
    }
    let tags: Vec<_> = waves.iter().filter_map(|wave| wave.tag.as_ref()).collect();
    if tags.iter().collect::<BTreeSet<_>>().len() < tags.len() {
        found.add("spec.waves", rules::WAVE_TAGS.message);
    }
    let takes_rest = |wave: &WaveSpec| {
        wave.namespace_selector.is_none() && wave.namespaces.is_none() && wave.tag.is_none()
    };
    if waves.iter().rev().skip(1).any(takes_rest) {
        found.add("spec.waves", rules::WAVE_REST.message);
    }
    for (index, wave) in waves.iter().enumerate() {
        check_wave(found, &format!("spec.waves[{index}]"), wave);
    }
}

fn check_windows(found: &mut Findings, windows: Option<&[WindowSpec]>) {
    if windows.is_some_and(<[WindowSpec]>::is_empty) {
        found.add("spec.windows", "must not be empty; leave it out to start something at any time");
    }
    found.count("spec.windows", windows.map_or(0, <[WindowSpec]>::len), limits::WINDOWS);
    found.0.extend(window::windows(windows).err().into_iter().flatten());
    for (index, window) in windows.into_iter().flatten().enumerate() {
        let Some(days) = &window.days else { continue };
        let field = format!("spec.windows[{index}].days");
        if days.is_empty() {
            found.add(&field, "must not be empty; leave it out for every day");
        }
        if (1..days.len()).any(|index| days[..index].contains(&days[index])) {
            found.add(field, "lists a day twice");
        }
    }
}

fn check_approval(found: &mut Findings, spec: &MeshUpgradeSpec) {
    let Some(approval) = &spec.approval else { return };
    found.name("spec.approval.throughWave", &approval.through_wave);
    if !spec.waves.iter().flatten().any(|wave| wave.name == approval.through_wave) {
        found.add("spec.approval.throughWave", rules::APPROVED_WAVE.message);
    }
    let digits = approval.plan_digest.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() != 64 || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        found
            .add("spec.approval.planDigest", "must be the value of status.planDigest: sha256: and 64 digits");
    }
}

fn check_wave(found: &mut Findings, path: &str, wave: &WaveSpec) {
    found.name(format!("{path}.name"), &wave.name);
    if ["stragglers", "gateways"].contains(&wave.name.as_str()) {
        found.add(format!("{path}.name"), rules::WAVE_RESERVED.message);
    }
    let ways = [wave.namespace_selector.is_some(), wave.namespaces.is_some(), wave.tag.is_some()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        found.add(path, rules::WAVE_SELECT.message);
    }
    if let Some(tag) = &wave.tag {
        found.name(format!("{path}.tag"), tag);
    }
    if let Some(selector) = &wave.namespace_selector {
        check_selector(found, &format!("{path}.namespaceSelector"), selector);
    }
    if let Some(names) = &wave.namespaces {
        let field = format!("{path}.namespaces");
        if names.is_empty() {
            found.add(&field, "must not be empty");
        }
        found.count(&field, names.len(), limits::NAMESPACES);
        for (index, name) in names.iter().enumerate() {
            let field = format!("{field}[{index}]");
            found.name(&field, name);
            if names.iter().take(index).any(|earlier| earlier == name) {
                found.add(field, "is listed twice");
            }
        }
    }
    if let Err(message) = int_or_percent(&wave.max_concurrent_workloads) {
        found.add(format!("{path}.maxConcurrentWorkloads"), message);
    }
    found.range(format!("{path}.soakSeconds"), wave.soak_seconds, 0, limits::SOAK_SECONDS);
    if let Some(analysis) = &wave.analysis {
        analysis::check(found, &format!("{path}.analysis"), analysis);
    }
}

fn check_selector(found: &mut Findings, path: &str, selector: &NamespaceSelector) {
    let labels = selector.match_labels.iter().flatten();
    let terms = selector.match_expressions.iter().flatten();
    let (label_count, term_count) = (labels.clone().count(), terms.clone().count());
    if label_count + term_count == 0 {
        found.add(path, rules::SELECTOR_EMPTY.message);
    }
    found.count(format!("{path}.matchLabels"), label_count, limits::SELECTOR_TERMS);
    found.count(format!("{path}.matchExpressions"), term_count, limits::SELECTOR_TERMS);
    for (key, value) in labels {
        if !is_label_value(value) {
            found.add(format!("{path}.matchLabels.{key}"), LABEL_VALUE_MESSAGE);
        }
    }
    for (index, term) in terms.enumerate() {
        check_term(found, &format!("{path}.matchExpressions[{index}]"), term);
    }
}

const LABEL_VALUE_MESSAGE: &str = "must be the value of a label: at most 63 letters, digits, '-', '_' and '.', \
                                   beginning and ending with a letter or digit";

fn check_term(found: &mut Findings, path: &str, term: &SelectorTerm) {
    if !is_label_key(&term.key) {
        found.add(format!("{path}.key"), "must be the key of a label");
    }
    let values = term.values.as_deref().unwrap_or_default();
    let needs_values = matches!(term.operator, SelectorOperator::In | SelectorOperator::NotIn);
    if needs_values == values.is_empty() {
        found.add(path, rules::SELECTOR_VALUES.message);
    }
    found.count(format!("{path}.values"), values.len(), limits::SELECTOR_VALUES);
    for (index, value) in values.iter().enumerate() {
        if !is_label_value(value) {
            found.add(format!("{path}.values[{index}]"), LABEL_VALUE_MESSAGE);
        }
    }
}

fn check_skip(found: &mut Findings, skip: &[String]) {
    let known = checks::names();
    for (index, name) in skip.iter().enumerate() {
        let field = format!("spec.checks.skip[{index}]");
        if !known.contains(&name.as_str()) {
            found.add(&field, one_of(&known));
        }
        if skip.iter().take(index).any(|earlier| earlier == name) {
            found.add(field, "is listed twice");
        }
    }
}

/// [`limits::DNS_LABEL`] and its length.
fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    is_framed(text, inner, |c| inner(c) || c == '-')
}

/// [`limits::LABEL_VALUE_PATTERN`] and its length.
fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

/// [`limits::LABEL_KEY_PATTERN`] and its length.
fn is_label_key(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= limits::LABEL_KEY
        && match text.split_once('/') {
            None => is_unbounded_label_name(text),
            Some((prefix, name)) => {
                has_frame(prefix, inner, |c| inner(c) || c == '-' || c == '.')
                    && is_unbounded_label_name(name)
            }
        }
}

fn is_label_name(text: &str) -> bool {
    text.len() <= limits::NAME && is_unbounded_label_name(text)
}

fn is_unbounded_label_name(text: &str) -> bool {
    has_frame(
        text,
        |c| c.is_ascii_alphanumeric(),
        |c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c),
    )
}

fn is_framed(text: &str, ends: impl Fn(char) -> bool, middle: impl Fn(char) -> bool) -> bool {
    text.len() <= limits::NAME && has_frame(text, ends, middle)
}

/// Whether a text begins and ends with one class of characters and has another in between.
fn has_frame(text: &str, ends: impl Fn(char) -> bool, middle: impl Fn(char) -> bool) -> bool {
    text.starts_with(&ends) && text.ends_with(&ends) && text.chars().all(middle)
}

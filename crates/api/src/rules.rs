//! The CEL rules of the CRD. Their messages are shared with [`crate::validate`].

use serde_json::{Value, json};

/// One rule of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Field that the rule is about, relative to where the rule stands; empty for the place itself.
    pub field: &'static str,
    /// The expression.
    pub rule: &'static str,
    /// What is said when it does not hold: the end of a sentence that begins with the field.
    pub message: &'static str,
}

/// What a name must look like.
pub const NAME_MESSAGE: &str = "must be lower-case letters, digits and '-', begin and end with a letter or digit, \
                                and have at most 63 characters";

/// Names of waves must differ.
pub const WAVE_NAMES: Rule = Rule {
    field: "",
    rule: "self.all(wave, self.exists_one(other, other.name == wave.name))",
    message: "names of waves must be unique",
};

/// Only the last wave may take the rest.
pub const WAVE_REST: Rule = Rule {
    field: "",
    rule: "self.filter(wave, !has(wave.namespaceSelector) && !has(wave.namespaces) && !has(wave.tag)).size() == 0 || \
           (self.filter(wave, !has(wave.namespaceSelector) && !has(wave.namespaces) && !has(wave.tag)).size() == 1 && \
           !has(self[self.size() - 1].namespaceSelector) && !has(self[self.size() - 1].namespaces) && \
           !has(self[self.size() - 1].tag))",
    message: "only the last wave may leave out all of namespaceSelector, namespaces and tag (it takes the rest)",
};

/// A tag moves once.
pub const WAVE_TAGS: Rule = Rule {
    field: "",
    rule: "self.all(wave, !has(wave.tag) || self.exists_one(other, has(other.tag) && other.tag == wave.tag))",
    message: "a revision tag is moved by one wave",
};

/// Where only tags are moved, a wave without one moves nothing.
pub const TAG_MODE: Rule = Rule {
    field: ".injection.mode",
    rule: "self.injection.mode != 'RevisionTag' || (has(self.waves) && self.waves.all(wave, has(wave.tag)))",
    message: "RevisionTag needs a tag in every wave of spec.waves; NamespaceLabel moves labels, and tags in waves that name one",
};

/// A wave selects in one way.
pub const WAVE_SELECT: Rule = Rule {
    field: "",
    rule: "[has(self.namespaceSelector), has(self.namespaces), has(self.tag)].filter(it, it).size() <= 1",
    message: "namespaceSelector, namespaces and tag exclude each other",
};

/// Waves that the operator appends have names of their own.
pub const WAVE_RESERVED: Rule = Rule {
    field: "",
    rule: "!(self in ['stragglers', 'gateways'])",
    message: "'stragglers' and 'gateways' are names of waves that the operator adds",
};

/// An empty selector would silently select everything.
pub const SELECTOR_EMPTY: Rule = Rule {
    field: "",
    rule: "(has(self.matchLabels) && self.matchLabels.size() > 0) || \
           (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
    message: "must have a term in matchLabels or matchExpressions; the last wave takes the rest when it has no selector",
};

/// Operators of an expression and their values.
pub const SELECTOR_VALUES: Rule = Rule {
    field: "",
    rule: "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : \
           !has(self.values) || self.values.size() == 0",
    message: "In and NotIn need values; Exists and DoesNotExist take none",
};

/// Exactly one control plane.
pub const CONTROL_PLANE: Rule = Rule {
    field: "",
    rule: "[has(self.aks), has(self.external)].exists_one(it, it)",
    message: "exactly one kind of control plane must be set: aks or external",
};

/// A time zone must be one that the API server knows; asking for the time there fails otherwise.
pub const TIME_ZONE: Rule = Rule {
    field: "",
    rule: "timestamp('2026-01-01T00:00:00Z').getFullYear(self) > 0",
    message: "must be the name of an IANA time zone, for example Europe/Berlin or UTC",
};

/// An approval names a wave.
pub const APPROVED_WAVE: Rule = Rule {
    field: ".approval.throughWave",
    rule: "!has(self.approval) || (has(self.waves) && \
           self.waves.exists(wave, wave.name == self.approval.throughWave))",
    message: "must be the name of a wave in spec.waves",
};

/// Rules of one metric.
pub const METRIC: [Rule; 5] = [
    Rule {
        field: "",
        rule: "has(self.builtin) != has(self.query)",
        message: "exactly one of builtin and query must be set",
    },
    Rule {
        field: ".samplesQuery",
        rule: "!has(self.samplesQuery) || has(self.query)",
        message: "goes with query; built-in metrics know their samples",
    },
    Rule {
        field: ".minSamples",
        rule: "!has(self.query) || has(self.samplesQuery) || !has(self.minSamples) || self.minSamples == 0",
        message: "needs samplesQuery, which says how many samples a value rests on",
    },
    Rule {
        field: "",
        rule: "has(self.min) || has(self.max) || has(self.baseline) || \
               (has(self.builtin) && self.builtin in ['XdsRejects', 'ConnectedProxies', 'ProxyRestarts'])",
        message: "must have min, max or baseline: without a bound nothing fails",
    },
    Rule {
        field: ".failureLimit",
        rule: "self.failureLimit < self.count",
        message: "must be less than count: otherwise nothing but failures would pass",
    },
];

/// A comparison needs a bound.
pub const BASELINE: Rule = Rule {
    field: "",
    rule: "has(self.maxIncrease) || has(self.maxDecrease)",
    message: "must have maxIncrease or maxDecrease",
};

/// Placeholders of a query must exist.
pub const QUERY_PLACEHOLDERS: Rule = Rule {
    field: "",
    rule: "self.matches('^([^$]|[$]+[^$(]|[$]+[(](namespaces|workloads|source|target|window|istiod)[)])*[$]*$')",
    message: "has an unknown placeholder; there are $(namespaces), $(workloads), $(source), $(target), $(window), $(istiod)",
};

macro_rules! run_active {
    () => {
        "has(oldSelf.status) && has(oldSelf.status.run) && has(oldSelf.status.run.startedAt) && \
         !has(oldSelf.status.run.endedAt)"
    };
}

/// Rules over the whole object, all of them for updates, in the order in which [`crate::MeshUpgrade::validate_update`]
/// looks at them.
///
/// A commit that set target, source and run id is reverted as a whole: while the target goes back, the other two may go
/// with it. The run does not look at them.
pub const TRANSITIONS: [Rule; 7] = [
    Rule {
        field: ".spec.targetRevision",
        rule: concat!(
            "!(",
            run_active!(),
            ") || self.spec.targetRevision == oldSelf.spec.targetRevision || \
             self.spec.targetRevision == oldSelf.status.run.source || \
             self.spec.targetRevision == oldSelf.status.run.target"
        ),
        message: "cannot change while a run is in progress, except back to the run's source revision, which rolls back",
    },
    Rule {
        field: ".spec.sourceRevision",
        rule: concat!(
            "!(",
            run_active!(),
            ") || self.spec.targetRevision != oldSelf.spec.targetRevision || \
             (has(self.spec.sourceRevision) ? has(oldSelf.spec.sourceRevision) && \
             self.spec.sourceRevision == oldSelf.spec.sourceRevision : !has(oldSelf.spec.sourceRevision))"
        ),
        message: "cannot change while a run is in progress",
    },
    Rule {
        field: ".spec.runId",
        rule: concat!(
            "!(",
            run_active!(),
            ") || self.spec.targetRevision != oldSelf.spec.targetRevision || \
             (has(self.spec.runId) ? has(oldSelf.spec.runId) && \
             self.spec.runId == oldSelf.spec.runId : !has(oldSelf.spec.runId))"
        ),
        message: "cannot change while a run is in progress",
    },
    Rule {
        field: ".spec.controlPlane",
        rule: concat!("!(", run_active!(), ") || self.spec.controlPlane == oldSelf.spec.controlPlane"),
        message: "cannot change while a run is in progress",
    },
    Rule {
        field: ".spec.injection.mode",
        rule: concat!("!(", run_active!(), ") || self.spec.injection.mode == oldSelf.spec.injection.mode"),
        message: "cannot change while a run is in progress",
    },
    Rule {
        field: ".spec.targetRevision",
        rule: "!self.spec.rollback.requested || self.spec.targetRevision == oldSelf.spec.targetRevision || \
               (has(oldSelf.status) && has(oldSelf.status.run) && \
               (self.spec.targetRevision == oldSelf.status.run.source || \
               self.spec.targetRevision == oldSelf.status.run.target))",
        message: "a new target needs spec.rollback.requested: false",
    },
    Rule {
        field: ".spec.runId",
        rule: "!self.spec.rollback.requested || (has(self.spec.runId) ? has(oldSelf.spec.runId) && \
               self.spec.runId == oldSelf.spec.runId : !has(oldSelf.spec.runId))",
        message: "another run needs spec.rollback.requested: false",
    },
];

/// Rules as the value of `x-kubernetes-validations`.
pub fn validations(rules: &[Rule]) -> Value {
    rules
        .iter()
        .map(|rule| {
            let mut value = json!({"rule": rule.rule, "message": rule.message});
            if !rule.field.is_empty() {
                value["fieldPath"] = rule.field.into();
            }
            value
        })
        .collect()
}

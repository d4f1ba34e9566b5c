//! What happened, for the referee and for the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use meshupgrade_core::decision::View;
use meshupgrade_core::effect::{MoveTag, MoveTagService, Relabel, Restart};
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::intent::Intent;
use meshupgrade_core::observed::Snapshot;
use meshupgrade_core::record::Record;

use super::Labelled;

/// What a decision rested on: the facts that it saw, which may be older than the world.
#[derive(Debug)]
pub struct Seen {
    /// When it was decided.
    pub at: Timestamp,
    /// The request.
    pub intent: Arc<Intent>,
    /// The record.
    pub record: Arc<Record>,
    /// The cluster.
    pub snapshot: Snapshot,
    /// Since when the labels of that snapshot were as they were.
    pub labelled: Arc<BTreeMap<NamespaceName, Labelled>>,
    /// Whether the decision was made in a random order, with caches that lag.
    pub stale: bool,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A namespace was relabelled.
    Relabelled {
        /// The write.
        effect: Relabel,
        /// What it rested on.
        seen: Arc<Seen>,
    },
    /// A revision tag was moved.
    TagMoved {
        /// The write.
        effect: MoveTag,
        /// What it rested on.
        seen: Arc<Seen>,
    },
    /// The Service of a revision tag was moved.
    TagServiceMoved {
        /// The write.
        effect: MoveTagService,
        /// What it rested on.
        seen: Arc<Seen>,
    },
    /// A restart stamp was written.
    Restarted {
        /// The write.
        effect: Restart,
        /// Whether the template changed.
        changed: bool,
        /// What it rested on.
        seen: Arc<Seen>,
    },
    /// `status` was written.
    Published {
        /// When.
        at: Timestamp,
        /// The record before.
        before: Arc<Record>,
        /// The record.
        record: Arc<Record>,
        /// The summary.
        view: Arc<View>,
        /// What the decision rested on.
        seen: Arc<Seen>,
    },
    /// A write failed, or its outcome got lost.
    Failed(String),
    /// A neighbour did something remarkable.
    Note(String),
    /// The operator reports an event.
    Event(&'static str),
}

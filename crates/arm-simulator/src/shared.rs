//! What all requests share.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::fault::Faults;
use crate::journal::Entry;
use crate::lock;
use crate::operation::Operation;
use crate::route::Call;

/// A token that was given.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub client: String,
    pub expires: Instant,
}

/// Everything that changes.
#[derive(Default)]
pub(crate) struct State {
    /// By id in lower case.
    pub clusters: BTreeMap<String, Cluster>,
    pub operations: BTreeMap<String, Operation>,
    pub tokens: BTreeMap<String, Token>,
    pub journal: Vec<Entry>,
    pub faults: Faults,
    /// Given out: ids of operations, tokens, requests.
    pub numbers: u64,
}

pub(crate) struct Shared {
    pub config: Config,
    pub base_url: String,
    pub started: Instant,
    pub state: Mutex<State>,
    /// Running operations, and requests that are carried out.
    pub tasks: Mutex<JoinSet<()>>,
}

impl Shared {
    pub fn number(&self) -> u64 {
        let mut state = lock(&self.state);
        state.numbers += 1;
        state.numbers
    }

    /// Runs something until it is over or the simulator ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// A line in the journal before anything is known but the kind of the request.
    pub fn entry(&self, call: Call, method: &str, path: &str) -> Entry {
        Entry {
            at: self.age(),
            call,
            method: method.to_owned(),
            path: path.to_owned(),
            status: None,
            code: None,
            lost: false,
            if_match: None,
            client_request_id: None,
            user_agent: None,
            body_digest: None,
            revisions: None,
            accepted: false,
            foreign_changes: Vec::new(),
        }
    }
}

/// A string in the form of a UUID that depends on this text only.
pub(crate) fn uuid(of: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let hex = format!("{:x}", Sha256::digest(of));
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

//! The operator: the shell's contract around the real [`decide`], in steps that others can come between.
//!
//! observe → decide → publish → apply, one write at a time. What it knows of the cluster may be some versions old, except
//! for the answers to its own writes; what it knows of its own object is what it read or wrote last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use jiff::{SignedDuration, Timestamp};
use meshupgrade_core::census::Census;
use meshupgrade_core::decide;
use meshupgrade_core::decision::{About, Decision, Needs, Wake};
use meshupgrade_core::effect::Effect;
use meshupgrade_core::ids::{NamespaceName, Uid, WorkloadRef};
use meshupgrade_core::measure::{Answer, Query};
use meshupgrade_core::observed::{Namespace, Snapshot, Workload};

use crate::faults::{Fault, Faults};
use crate::neighbours::telemetry;
use crate::rng::Rng;
use crate::world::history::{Happening, Seen};
use crate::world::views::{Kind, Versions, Views};
use crate::world::{Upgrade, World};

/// What a cache shows before it knows anything.
static NOTHING: LazyLock<Views> = LazyLock::new(Views::default);

/// How long the shell waits after a write that did not succeed.
const RETRY: SignedDuration = SignedDuration::from_secs(1);

/// The operator process: everything here is lost when it dies.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The MeshUpgrade as read or written last; `None`: to be read.
    object: Option<Upgrade>,
    /// The uid of the object that everything else is about.
    known: Option<Uid>,
    /// The version that each cache shows.
    caches: BTreeMap<Kind, u64>,
    ledger: BTreeMap<(Uid, String), i64>,
    /// Writes that were refused, with the answer.
    refused: BTreeMap<(About, String), String>,
    /// Answers to its own writes, which are newer than what the caches may show.
    answers: Answers,
    needs: Needs,
    synced: BTreeSet<NamespaceName>,
    census: Option<Arc<Census>>,
    /// What metric sources answered.
    measured: BTreeMap<Query, Answer>,
    work: Option<Work>,
    wake: Wake,
    /// Something that it watches changed since its last decision.
    dirty: bool,
    /// A write did not succeed: the shell asks again after a short pause, whatever the decision said.
    retry_at: Option<Timestamp>,
    /// It starts again at this time.
    boots_at: Option<Timestamp>,
    /// How many decisions it took.
    pub decisions: u64,
    /// A newer process took over: it ends with its next write of status.
    pub deposed: bool,
}

/// Objects as the API server answered, with the version.
#[derive(Clone, Debug, Default)]
struct Answers {
    namespaces: BTreeMap<NamespaceName, (u64, Arc<Namespace>)>,
    workloads: BTreeMap<WorkloadRef, (u64, Arc<Workload>)>,
}

/// A decision that is being carried out.
#[derive(Clone, Debug)]
struct Work {
    decision: Decision,
    published: bool,
    effects: VecDeque<Effect>,
    seen: Arc<Seen>,
}

/// What the operator shares with its surroundings.
pub struct Around<'a> {
    /// The cluster.
    pub world: &'a mut World,
    /// What caches may show.
    pub versions: &'a Versions,
    /// How far they may lag.
    pub lag: usize,
    /// What goes wrong.
    pub faults: &'a mut Faults,
    /// Chance.
    pub rng: &'a mut Rng,
}

impl Default for Operator {
    fn default() -> Self {
        Self {
            object: None,
            known: None,
            caches: BTreeMap::new(),
            ledger: BTreeMap::new(),
            refused: BTreeMap::new(),
            answers: Answers::default(),
            needs: Needs::default(),
            synced: BTreeSet::new(),
            census: None,
            measured: BTreeMap::new(),
            work: None,
            wake: Wake::Again,
            dirty: true,
            retry_at: None,
            boots_at: None,
            decisions: 0,
            deposed: false,
        }
    }
}

impl Operator {
    /// A process that takes over with caches that were warm before it led, and may lag.
    pub fn warm(versions: &Versions, lag: usize, rng: &mut Rng) -> Self {
        let mut operator = Self::default();
        for kind in Kind::CACHED {
            if let Some((version, _)) = versions.behind(rng.index(lag + 1), 0) {
                operator.caches.insert(kind, *version);
            }
        }
        operator
    }

    /// Takes one step. Says whether it had anything to do.
    pub fn step(&mut self, around: &mut Around<'_>) -> bool {
        if self.work.is_some() {
            self.write(around);
            return true;
        }
        if self.boots_at.is_some_and(|at| at > around.world.now) {
            return false;
        }
        self.boots_at = None;
        self.observe(around);
        if !self.is_due(around.world.now) {
            return false;
        }
        self.decide(around);
        true
    }

    /// Whether it is in the middle of a decision.
    pub fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// When it wants to be woken, if nothing changes before.
    pub fn wakes_at(&self) -> Option<Timestamp> {
        let asked = match self.wake {
            Wake::At(at) => Some(at),
            Wake::Again | Wake::OnChange => None,
        };
        if self.boots_at.is_some() {
            return self.boots_at;
        }
        [asked, self.retry_at].into_iter().flatten().min()
    }

    /// When a census is due that was asked for and is not there yet.
    pub fn counts_at(&self) -> Option<Timestamp> {
        let taken = self.census.as_ref().and_then(|census| census.taken_at);
        self.needs.census_since.filter(|since| taken.is_none_or(|taken| taken < *since))
    }

    /// Adds what it knows to the identity of a state.
    pub fn fingerprint(&self, world: &World, text: &mut String) {
        let wakes = self.wakes_at().map(|at| at.duration_since(world.now).as_secs().clamp(-1, 3));
        let object =
            self.object.as_ref().map(|object| object.resource_version == world.upgrade.resource_version);
        let stale: Vec<_> = Kind::CACHED
            .into_iter()
            .filter(|kind| {
                self.caches.get(kind).copied().unwrap_or(0) < world.changed.get(kind).copied().unwrap_or(0)
            })
            .collect();
        let census = self.census.as_ref().map(|census| (&census.proxies, self.needs.census_since.is_some()));
        let _ = write!(
            text,
            "{wakes:?}{object:?}{stale:?}{census:?}{:?}{}{:?}",
            self.wake == Wake::Again,
            self.dirty,
            self.synced
        );
        for (workload, stamp) in self.ledger.keys() {
            let _ = write!(text, "{workload}{stamp}");
        }
        let _ = write!(text, "{:?}{}", self.refused, self.retry_at.is_some());
        if let Some(work) = &self.work {
            let effects: Vec<_> =
                work.effects.iter().map(meshupgrade_core::effect::Effect::because).collect();
            let _ = write!(
                text,
                "{effects:?}{}{:?}{:?}",
                work.published,
                work.decision.record.run.as_ref().map(|run| (run.phase, run.step, run.wave)),
                work.decision.view.message
            );
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.dirty
            || self.retry_at.is_some_and(|at| at <= now)
            || match self.wake {
                Wake::Again => true,
                Wake::At(at) => at <= now,
                Wake::OnChange => false,
            }
    }

    /// Lets the caches move on, reads what is missing, and notes whether anything is new.
    fn observe(&mut self, around: &mut Around<'_>) {
        let world = &*around.world;
        if self.object.as_ref().is_none_or(|object| self.is_outdated(object, world)) {
            self.read_object(world);
        }
        for kind in Kind::CACHED {
            let seen = self.caches.get(&kind).copied().unwrap_or(0);
            // A fresh cache begins with a list, which is never old.
            let lag = if seen == 0 { 0 } else { around.rng.index(around.lag + 1) };
            let Some((version, _)) = around.versions.behind(lag, seen) else {
                continue;
            };
            if *version != seen {
                let changed = world.changed.get(&kind).copied().unwrap_or(0);
                self.dirty |= seen == 0 || changed > seen;
                self.caches.insert(kind, *version);
            }
        }
        self.sync_pods(around.rng);
        self.count(around.world);
        self.measure(around.world, around.rng);
    }

    /// Reads the object. What is known belongs to one uid: another object begins from nothing.
    fn read_object(&mut self, world: &World) {
        let uid = |upgrade: &Upgrade| upgrade.intent.uid.clone();
        if self.known.as_ref().is_some_and(|known| *known != uid(&world.upgrade)) {
            let Self { caches, decisions, deposed, .. } = std::mem::take(self);
            *self = Self { caches, decisions, deposed, ..Self::default() };
        }
        self.known = Some(uid(&world.upgrade));
        self.object = Some(world.upgrade.clone());
        self.dirty = true;
    }

    /// A deposed process does not hear of changes; any other reads a changed object again.
    fn is_outdated(&self, object: &Upgrade, world: &World) -> bool {
        !self.deposed && object.resource_version != world.upgrade.resource_version
    }

    /// Starts and stops pod watches as the last decision asked.
    fn sync_pods(&mut self, rng: &mut Rng) {
        let needs = self.needs.pods.clone();
        self.synced.retain(|name| needs.contains(name));
        let missing: Vec<NamespaceName> = needs.difference(&self.synced).cloned().collect();
        for name in rng.part(missing) {
            self.synced.insert(name);
            self.dirty = true;
        }
    }

    /// Takes a census if one is due; it is not taken from caches.
    fn count(&mut self, world: &World) {
        if self.counts_at().is_some_and(|since| since <= world.now) {
            self.census = Some(Arc::new(crate::census::take(world, &self.needs)));
            self.dirty = true;
        }
    }

    /// Asks metric sources what the last decision wants to know; answers come one by one.
    fn measure(&mut self, world: &World, rng: &mut Rng) {
        let wanted = &self.needs.queries;
        self.measured.retain(|query, _| wanted.contains(query));
        let missing: Vec<Query> =
            wanted.iter().filter(|query| !self.measured.contains_key(*query)).cloned().collect();
        for query in rng.part(missing) {
            let answer = telemetry::answer(world, &query);
            self.measured.insert(query, answer);
            self.dirty = true;
        }
    }

    fn decide(&mut self, around: &mut Around<'_>) {
        let Some(object) = self.object.clone() else {
            return;
        };
        let snapshot = self.snapshot(around);
        let now = around.world.now;
        self.decisions += 1;
        let decision = decide(now, &object.intent, &object.record, &snapshot);
        let labelled = Arc::clone(&self.view(around, Kind::Namespaces).labelled);
        let seen = Seen {
            at: now,
            intent: object.intent,
            record: object.record,
            snapshot,
            labelled,
            stale: around.lag > 0 || self.deposed,
        };
        let events = decision.events.iter().map(|event| Happening::Event(event.reason));
        around.world.history.extend(events);
        self.dirty = false;
        self.retry_at = None;
        self.wake = decision.wake;
        self.needs = decision.needs.clone();
        self.work = Some(Work {
            published: false,
            effects: decision.effects.iter().cloned().collect(),
            decision,
            seen: Arc::new(seen),
        });
    }

    fn view<'v>(&self, around: &Around<'v>, kind: Kind) -> &'v Views {
        let version = self.caches.get(&kind).copied().unwrap_or(0);
        around.versions.behind(usize::MAX, version).map_or(&NOTHING, |(_, views)| views.as_ref())
    }

    fn snapshot(&self, around: &Around<'_>) -> Snapshot {
        let pods = &self.view(around, Kind::Pods).pods;
        let planes = self.view(around, Kind::Planes);
        let mut namespaces = self.view(around, Kind::Namespaces).namespaces.as_ref().clone();
        let mut workloads = self.view(around, Kind::Workloads).workloads.as_ref().clone();
        overlay(&mut namespaces, &self.answers.namespaces, self.caches.get(&Kind::Namespaces));
        overlay(&mut workloads, &self.answers.workloads, self.caches.get(&Kind::Workloads));
        Snapshot {
            census_problem: None,
            proxies: None,
            webhooks: planes.webhooks.as_ref().clone(),
            istiod_services: Some(planes.istiod_services.as_ref().clone()),
            control_planes: planes.planes.as_ref().clone(),
            namespaces,
            workloads,
            gateways: BTreeMap::new(),
            addon_namespaces: BTreeSet::new(),
            gateway_services: BTreeMap::new(),
            aks: None,
            shared_mesh: BTreeMap::new(),
            pods: self
                .synced
                .iter()
                .map(|name| (name.clone(), pods.get(name).cloned().unwrap_or_default()))
                .collect(),
            budgets: self.view(around, Kind::Budgets).budgets.as_ref().clone(),
            census: self.census.clone(),
            other_upgrades: planes.others.as_ref().clone(),
            applied: self.ledger.clone(),
            refused: self.refused.clone(),
            operator: None,
            answers: self.measured.clone(),
        }
    }

    /// Does the next write of the decision: first status, then the effects, which rest on it.
    fn write(&mut self, around: &mut Around<'_>) {
        let Some(mut work) = self.work.take() else {
            return;
        };
        if !work.published {
            work.published = true;
            if self.publish(around, &work) {
                self.work = Some(work);
            }
            return;
        }
        if let Some(effect) = work.effects.pop_front() {
            let seen = Arc::clone(&work.seen);
            self.work = Some(work);
            self.apply(around, &effect, &seen);
        }
    }

    fn apply(&mut self, around: &mut Around<'_>, effect: &Effect, seen: &Arc<Seen>) {
        let fault = around.faults.next(around.rng);
        if fault == Some(Fault::Refuse) {
            self.refused.insert(identity(effect), "denied by policy".to_owned());
        }
        if fault.is_some_and(|fault| !fault.takes_effect()) {
            self.fail(around.world, fault, effect.because());
            return;
        }
        let answer = match effect {
            Effect::Relabel(relabel) => around.world.relabel(relabel, seen).map(|()| 0),
            Effect::Restart(restart) => around.world.restart(restart, seen),
            Effect::Tag(change) => around.world.move_tag(change, seen).map(|()| 0),
            Effect::TagService(change) => around.world.move_tag_service(change, seen).map(|()| 0),
            Effect::Gateway(_) | Effect::SetRevisions(_) | Effect::MeshConfig(_) => {
                Err(crate::world::api::Refusal::NotFound)
            }
        };
        match (answer, fault) {
            (Ok(_), Some(_)) => self.fail(around.world, fault, effect.because()),
            (Ok(generation), None) => self.take_answer(around.world, effect, generation),
            (Err(refusal), _) => {
                self.retry_at = Some(around.world.now + RETRY);
                around.world.history.push(Happening::Failed(format!("{refusal:?}: {}", effect.because())));
            }
        }
    }

    /// The API server confirmed a write: what it answered is known from now on, whatever the caches show.
    fn take_answer(&mut self, world: &World, effect: &Effect, generation: i64) {
        self.refused.remove(&identity(effect));
        self.dirty = true;
        match effect {
            Effect::Relabel(relabel) => {
                if let Some(namespace) = world.namespaces.get(&relabel.namespace) {
                    let answer = (world.version, Arc::clone(namespace));
                    self.answers.namespaces.insert(relabel.namespace.clone(), answer);
                }
            }
            Effect::Restart(restart) => {
                self.ledger.insert((restart.uid.clone(), restart.stamp.clone()), generation);
                if let Some(app) = world.apps.get(&restart.workload) {
                    let answer = (world.version, Arc::clone(&app.view));
                    self.answers.workloads.insert(restart.workload.clone(), answer);
                }
            }
            // These worlds have neither Gateways nor a cloud, and a tag is seen with the next look.
            Effect::Tag(_)
            | Effect::TagService(_)
            | Effect::Gateway(_)
            | Effect::SetRevisions(_)
            | Effect::MeshConfig(_) => {}
        }
    }

    /// Notes that a write went wrong; a process that dies loses everything.
    fn fail(&mut self, world: &mut World, fault: Option<Fault>, what: &str) {
        let Some(fault) = fault else {
            return;
        };
        world.history.push(Happening::Failed(format!("{fault:?}: {what}")));
        self.retry_at = Some(world.now + RETRY);
        if fault.kills() {
            let deposed = self.deposed;
            let boots_at = Some(world.now + RETRY);
            *self = Self { boots_at, deposed, ..Self::default() };
        }
    }

    /// Stores status if it changed. Says whether the effects may follow.
    fn publish(&mut self, around: &mut Around<'_>, work: &Work) -> bool {
        let Some(object) = self.object.clone() else {
            return false;
        };
        let (record, view) = (&work.decision.record, &work.decision.view);
        if *object.record == *record && *object.view == *view {
            return true;
        }
        let fault = around.faults.next(around.rng);
        if fault.is_some_and(|fault| !fault.takes_effect()) {
            self.object = None;
            self.fail(around.world, fault, "status");
            return false;
        }
        let answer = around.world.publish(object.resource_version, record, view, &work.seen);
        self.object = None;
        match (answer, fault) {
            (Ok(()), None) => {
                self.object = Some(around.world.upgrade.clone());
                return true;
            }
            (Ok(()), Some(_)) => self.fail(around.world, fault, "status"),
            (Err(refusal), _) => around.world.history.push(Happening::Failed(format!("{refusal:?}: status"))),
        }
        false
    }
}

/// What tells one write from another.
fn identity(effect: &Effect) -> (About, String) {
    match effect {
        Effect::Relabel(relabel) => (About::Namespace(relabel.namespace.clone()), relabel.stamp.clone()),
        Effect::Restart(restart) => (About::Workload(restart.workload.clone()), restart.stamp.clone()),
        Effect::Tag(change) => (About::Webhook(change.webhook.clone()), change.stamp.clone()),
        Effect::TagService(change) => (About::Service(change.service.clone()), change.stamp.clone()),
        Effect::Gateway(label) => (About::Gateway(label.gateway.clone()), label.stamp.clone()),
        Effect::SetRevisions(change) => (About::Cluster(change.cluster.clone()), change.stamp.clone()),
        Effect::MeshConfig(change) => (About::ConfigMap(change.map.clone()), change.stamp.clone()),
    }
}

/// Puts answers over what a cache shows, where they are newer.
fn overlay<K: Ord + Clone, V>(
    cached: &mut BTreeMap<K, Arc<V>>,
    answers: &BTreeMap<K, (u64, Arc<V>)>,
    version: Option<&u64>,
) {
    for (key, (newer, answer)) in answers {
        if version.is_some_and(|version| version < newer) && cached.contains_key(key) {
            cached.insert(key.clone(), Arc::clone(answer));
        }
    }
}

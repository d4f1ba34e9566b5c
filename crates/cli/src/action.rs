//! `approve`, `pause`, `resume`, `rollback` and `retry`: one annotation each, for the step that status offers now.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use jiff::SignedDuration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watch_object};
use meshupgrade_api::MeshUpgrade;
use meshupgrade_core::intent::Verb;
use serde_json::json;

use crate::Exit;
use crate::cluster::{Connection, Failure, call, read};
use crate::step::{Answer, Step, parse_workload};

/// Not one that begins with kubectl: Flux takes away what those own.
const FIELD_MANAGER: &str = "meshupgrade-cli";
/// How many times the same step is written anew when status was written in between.
const ATTEMPTS: u32 = 10;

/// What all verbs take.
#[derive(Debug, Args)]
pub(crate) struct Say {
    /// Name of the MeshUpgrade.
    name: String,
    /// Print the kubectl command that does the same, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until the operator has looked at it, and say what it does.
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, default_value = "1m", requires = "wait", value_parser = parse_timeout)]
    timeout: Duration,
    #[command(flatten)]
    connection: Connection,
}

/// Try once more what is blocked: all of it, or one workload.
///
/// Ends with 0 when it was asked for, 3 when nothing is blocked that a retry could mend, 4 when --wait ran out of time,
/// 2 for wrong arguments, 1 when the cluster was of no use.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    say: Say,
    /// Only this workload.
    #[arg(value_name = "KIND/NAMESPACE/NAME", value_parser = parse_workload)]
    workload: Option<String>,
}

impl Retry {
    /// Asks for it.
    pub(crate) async fn run(&self) -> Exit {
        self.say.run(Verb::Retry, self.workload.as_deref()).await
    }
}

/// How a verb ends, if not well.
enum Stop {
    /// The object is not in a state for it.
    Refused(String),
    /// The operator did not look at it in time.
    TimedOut(String),
    /// The cluster was of no use.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Say {
    /// Asks the operator for a verb, and tells about it.
    pub(crate) async fn run(&self, verb: Verb, workload: Option<&str>) -> Exit {
        let (exit, why) = match self.say(verb, workload).await {
            Ok(()) => return Exit::Ok,
            Err(Stop::Refused(why)) => (Exit::Invalid, format!("meshupgrade/{}: {why}", self.name)),
            Err(Stop::TimedOut(why)) => (Exit::TimedOut, format!("meshupgrade/{}: {why}", self.name)),
            Err(Stop::Failed(failure)) => (Exit::Error, failure.to_string()),
        };
        eprintln!("error: {why}");
        exit
    }

    async fn say(&self, verb: Verb, workload: Option<&str>) -> Result<(), Stop> {
        let upgrades = self.connection.upgrades().await?;
        let upgrade = read(&upgrades, &self.name).await?;
        let step = Step::choose(&upgrade, verb, workload).map_err(Stop::Refused)?;
        if self.dry_run {
            println!("{}", step.command(&self.name, &self.connection.flags()));
            return Ok(());
        }
        if let Some(other) = step.displaced(&upgrade) {
            eprintln!("warning: takes the place of {other}, which the operator has not looked at");
        }
        self.write(&upgrades, upgrade, &step).await?;
        println!("meshupgrade/{}: {}={} is set", self.name, step.annotation, step.value);
        println!("The operator's next: {}.", step.effect);
        if self.wait { self.wait(&upgrades, &step).await } else { Ok(()) }
    }

    /// Writes the annotation on the very version of the object that offers the step.
    async fn write(
        &self,
        upgrades: &Api<MeshUpgrade>,
        read_first: MeshUpgrade,
        step: &Step,
    ) -> Result<(), Stop> {
        let mut upgrade = read_first;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let patch = json!({"metadata": {
                "uid": upgrade.metadata.uid,
                "resourceVersion": upgrade.metadata.resource_version,
                "annotations": {step.annotation: step.value},
            }});
            let written = call(upgrades.patch(&self.name, &params, &Patch::Merge(patch))).await?;
            let Err(error) = written else { return Ok(()) };
            match Failure::of(error, "patch", &self.name) {
                // Mostly the operator's own status: what counts is whether it offers the same step.
                conflict @ Failure::Conflict(_) => last = Some(conflict),
                other => return Err(other.into()),
            }
            upgrade = read(upgrades, &self.name).await?;
            let workload = step.value.split_once('#').map(|(workload, _)| workload);
            match Step::choose(&upgrade, step.verb, workload) {
                Ok(again) if again.value == step.value => {}
                Ok(_) | Err(_) => {
                    let why = "changed at this moment, and nothing was written: look at its status, and say it again";
                    return Err(Stop::Refused(why.into()));
                }
            }
        }
        Err(last.map_or_else(|| Stop::Refused("nothing was written".into()), Stop::Failed))
    }

    async fn wait(&self, upgrades: &Api<MeshUpgrade>, step: &Step) -> Result<(), Stop> {
        let answered = tokio::time::timeout(self.timeout, answer(upgrades, &self.name, step)).await;
        let upgrade = answered.map_err(|_elapsed| {
            let limit = self.timeout.as_secs();
            Stop::TimedOut(format!("the operator has not looked at it within {limit} s: is it running?"))
        })??;
        let status = upgrade.status.unwrap_or_default();
        println!("It does so. Now {}: {}", status.phase, status.message);
        Ok(())
    }
}

/// Watches until the operator has answered.
async fn answer(upgrades: &Api<MeshUpgrade>, name: &str, step: &Step) -> Result<MeshUpgrade, Stop> {
    let mut changes = std::pin::pin!(watch_object(upgrades.clone(), name).default_backoff());
    while let Some(change) = changes.next().await {
        let upgrade = match change {
            Ok(upgrade) => upgrade.ok_or_else(|| Failure::NoObject(name.to_owned()))?,
            Err(error) => {
                lasting(error, name)?;
                continue;
            }
        };
        match step.answer(&upgrade) {
            Answer::Pending => {}
            Answer::Taken => return Ok(upgrade),
            Answer::Refused(why) => {
                return Err(Stop::Refused(format!("the operator does not do it: {why}")));
            }
        }
    }
    Err(Failure::Transport("the watch ended".into()).into())
}

/// An error that watching again does not cure.
fn lasting(error: watcher::Error, name: &str) -> Result<(), Failure> {
    let failure = match error {
        watcher::Error::InitialListFailed(error) => Failure::of(error, "list", name),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            Failure::of(error, "watch", name)
        }
        watcher::Error::WatchError(status) => Failure::of_status(*status, "watch", name),
        watcher::Error::NoResourceVersion => return Ok(()),
    };
    match failure {
        Failure::Forbidden { .. } | Failure::Unauthorized(_) | Failure::NoKind => Err(failure),
        _ => Ok(()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a time such as 90s or 5m".to_owned();
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).ok().filter(|timeout| !timeout.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::Value;
    use tower::Service;

    use super::*;
    use crate::fixtures::object;

    /// One object, and an operator that writes its status between each reading and writing of others.
    #[derive(Clone)]
    struct Server(Arc<Mutex<State>>);

    struct State {
        object: MeshUpgrade,
        /// So many more times the operator comes first.
        races: u32,
        /// What it offers from then on.
        offers: Option<String>,
        patches: u32,
    }

    impl State {
        fn patch(&mut self, patch: &Value) -> (u16, Value) {
            self.patches += 1;
            if self.races > 0 {
                self.races -= 1;
                self.object.metadata.resource_version = Some(format!("race-{}", self.races));
                if let Some(offer) = &self.offers {
                    self.object.status.as_mut().unwrap().actions[0].value.clone_from(offer);
                }
            }
            // Like the API server: a patch without a version fits any.
            let version = patch["metadata"]["resourceVersion"].as_str();
            if version.is_some() && version != self.object.metadata.resource_version.as_deref() {
                return (
                    409,
                    json!({"kind": "Status", "code": 409, "message": "changed", "reason": "Conflict"}),
                );
            }
            let annotations = serde_json::from_value(patch["metadata"]["annotations"].clone()).unwrap();
            self.object.metadata.annotations = Some(annotations);
            (200, json!(self.object))
        }
    }

    impl Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let state = Arc::clone(&self.0);
            Box::pin(async move {
                let is_patch = request.method() == Method::PATCH;
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut state = state.lock().unwrap();
                let (code, answer) = if is_patch {
                    state.patch(&serde_json::from_slice(&body).unwrap())
                } else {
                    (200, json!(state.object))
                };
                let answer = answer.to_string().into_bytes().into();
                Ok(Response::builder().status(code).body(answer).unwrap())
            })
        }
    }

    /// Approves while the operator writes its status so many times, and changes what it offers or not.
    async fn approve(races: u32, offers: Option<&str>) -> (Result<(), Stop>, Option<String>, u32) {
        let upgrade = object("approval");
        let step = Step::choose(&upgrade, Verb::Approve, None).unwrap();
        let state = State { object: upgrade.clone(), races, offers: offers.map(str::to_owned), patches: 0 };
        let server = Server(Arc::new(Mutex::new(state)));
        let upgrades = Api::all(Client::new(server.clone(), "default"));
        let connection = Connection::default();
        let timeout = Duration::from_secs(1);
        let say = Say { name: "mesh".to_owned(), dry_run: false, wait: false, timeout, connection };
        let outcome = say.write(&upgrades, upgrade, &step).await;
        let state = server.0.lock().unwrap();
        let written = state.object.metadata.annotations.as_ref();
        let written = written.and_then(|all| all.get("meshupgrade.io/action").cloned());
        assert!(written.is_none() || written == Some(step.value), "{written:?}");
        (outcome, written, state.patches)
    }

    #[tokio::test]
    async fn a_status_that_moves_on_does_not_stop_the_same_step() {
        let (outcome, written, patches) = approve(3, None).await;
        assert!(outcome.is_ok() && written.is_some());
        assert_eq!(patches, 4, "each on the version that was read last");
    }

    #[tokio::test]
    async fn a_step_that_changed_since_it_was_read_is_not_approved() {
        let (outcome, written, patches) = approve(1, Some("approve/another")).await;
        assert!(matches!(outcome, Err(Stop::Refused(why)) if why.contains("nothing was written")));
        assert_eq!((written, patches), (None, 1));
    }

    #[tokio::test]
    async fn a_status_that_never_rests_ends_in_a_conflict() {
        let (outcome, written, patches) = approve(u32::MAX, None).await;
        assert!(matches!(outcome, Err(Stop::Failed(Failure::Conflict(_)))));
        assert_eq!((written, patches), (None, ATTEMPTS));
    }

    #[test]
    fn timeouts_are_times_that_last() {
        assert_eq!(parse_timeout("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_timeout("5m"), Ok(Duration::from_mins(5)));
        for wrong in ["", "5", "0s", "-1m", "soon"] {
            assert!(parse_timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rights_that_are_missing_end_the_wait_and_passing_errors_do_not() {
        let error = |code| {
            let status = serde_json::from_value(json!({"code": code, "message": "m"}));
            watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status.unwrap())))
        };
        assert!(matches!(lasting(error(403), "mesh"), Err(Failure::Forbidden { verb: "watch", .. })));
        assert!(lasting(error(503), "mesh").is_ok());
    }
}

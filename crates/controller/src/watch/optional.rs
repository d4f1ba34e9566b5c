//! A watch of a kind that a cluster need not know: it waits until somebody installs its CRD, and nothing waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::core::Status;
use kube::runtime::watcher;

use super::Poke;
use super::intake::Intake;
use crate::health::Health;
use crate::observe::{Observed, StoreOf};

/// How often it is looked whether a kind exists by now.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Watches a kind for ever, as long as there is one. Without it the store is empty, and in sync.
pub async fn run<S: Observed>(api: Api<S>, store: Arc<StoreOf<S>>, poke: Poke, health: Health) {
    let mut told = false;
    loop {
        let mut intake = Intake::new(Arc::clone(&store), |_: &S::Key| true);
        let mut existed = false;
        let take = |event| {
            existed |= matches!(event, watcher::Event::InitDone);
            if intake.take(event) {
                poke.poke();
            }
        };
        // It is not supervised while it does not exist: no watch that fails, and none that is silent.
        super::until(api.clone(), health.clone(), take, is_absent).await;
        // An API server that begins anew may not know its CRDs for a moment: what was there is gone when it says so twice.
        if (!store.is_synced() || !existed) && store.replace(BTreeMap::new()) {
            poke.poke();
        }
        if existed || !told {
            tracing::info!(kind = %S::kind(&()), group = %S::group(&()), "this kind is not installed: waiting for it");
        }
        told = true;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether the API server says that there is no such kind. An expired version (410) is something else.
fn is_absent(error: &watcher::Error) -> bool {
    let absent = |status: &Status| status.code == 404;
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => absent(status),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::sync::Mutex;
    use std::task::{Context, Poll};
    use std::time::Instant;

    use http::{Request, Response, StatusCode};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::Service;

    use super::*;
    use crate::observe::workload::RawRollout;

    /// Answers every request with what it is set to, and counts them.
    #[derive(Clone)]
    struct Server(Arc<Mutex<(StatusCode, u32)>>);

    impl Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let mut state = self.0.lock().unwrap();
            state.1 += 1;
            let watches = request.uri().query().is_some_and(|query| query.contains("watch="));
            // A watch that is cut off at once, as by a load balancer, begins again by itself.
            let (code, body) = if watches && state.0 == StatusCode::OK {
                (StatusCode::INTERNAL_SERVER_ERROR, status(500))
            } else if state.0 == StatusCode::OK {
                (StatusCode::OK, list())
            } else {
                (state.0, status(state.0.as_u16()))
            };
            ready(Ok(Response::builder().status(code).body(body.to_string().into_bytes().into()).unwrap()))
        }
    }

    fn status(code: u16) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "x", "code": code})
    }

    fn list() -> Value {
        json!({"kind": "RolloutList", "apiVersion": "argoproj.io/v1alpha1", "metadata": {"resourceVersion": "5"},
            "items": [{"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "4"}}]})
    }

    struct Watched {
        server: Server,
        store: Arc<StoreOf<RawRollout>>,
        health: Health,
        task: tokio::task::JoinHandle<()>,
    }

    impl Watched {
        fn start(code: StatusCode) -> Self {
            let server = Server(Arc::new(Mutex::new((code, 0))));
            let store = Arc::new(StoreOf::<RawRollout>::default());
            let health = Health::default();
            let api: Api<RawRollout> = Api::all(Client::new(server.clone(), "default"));
            let task = tokio::spawn(run(api, Arc::clone(&store), Poke::default(), health.clone()));
            Self { server, store, health, task }
        }

        /// Answers like this from now on, for so long.
        async fn answers(&self, code: StatusCode, time: Duration) {
            self.server.0.lock().unwrap().0 = code;
            tokio::time::sleep(time).await;
        }

        /// Whether the first list is in, and how many objects there are.
        fn kept(&self) -> (bool, usize) {
            (self.store.is_synced(), self.store.len())
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_missing_holds_up_nothing_and_is_looked_for_rarely() {
        let watched = Watched::start(StatusCode::NOT_FOUND);
        watched.answers(StatusCode::NOT_FOUND, Duration::from_millis(1)).await;
        assert_eq!(watched.kept(), (true, 0));
        watched.answers(StatusCode::NOT_FOUND, Duration::from_mins(10)).await;
        let asked = watched.server.0.lock().unwrap().1;
        assert!((30..=41).contains(&asked), "{asked} requests in 10 minutes");
        assert!(watched.health.failing().is_empty());
        assert!(watched.health.stuck(Instant::now() + Duration::from_hours(1)).is_empty());
        watched.answers(StatusCode::OK, LOOK_AGAIN).await;
        assert_eq!(watched.kept(), (true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_vanishes_is_gone_when_the_api_server_says_so_twice() {
        let watched = Watched::start(StatusCode::OK);
        watched.answers(StatusCode::OK, Duration::from_secs(1)).await;
        assert_eq!(watched.kept(), (true, 1));
        watched.answers(StatusCode::NOT_FOUND, LOOK_AGAIN / 2).await;
        assert_eq!(watched.kept(), (true, 1), "an API server that begins anew");
        watched.answers(StatusCode::NOT_FOUND, 2 * LOOK_AGAIN).await;
        assert_eq!(watched.kept(), (true, 0));
        assert!(watched.health.failing().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_may_not_be_read_is_a_watch_that_fails() {
        let watched = Watched::start(StatusCode::FORBIDDEN);
        watched.answers(StatusCode::FORBIDDEN, Duration::from_mins(1)).await;
        assert_eq!(watched.kept(), (false, 0));
        assert_eq!(watched.health.failing().len(), 1);
    }
}

//! Whether this process still makes progress: the watchdog behind `/livez`, and the gates behind `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a watch may be without any answer of the API server. Watches end after 200 s and begin again, so a
/// healthy one has an answer at least that often, however quiet its objects are.
pub const WATCH_SILENCE: Duration = Duration::from_mins(10);
/// How long one pass may take: every call in it has a timeout, so this means that something hangs.
pub const RECONCILE_LIMIT: Duration = Duration::from_mins(5);

/// Progress of all watches and passes.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    watches: BTreeMap<u64, WatchProgress>,
    reconciles: BTreeMap<u64, (String, Instant)>,
    next: u64,
}

#[derive(Debug)]
struct WatchProgress {
    path: String,
    answered: Instant,
    error: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Failure {
    text: String,
    refused: bool,
}

/// Ends the supervision of a watch or a pass when it is dropped.
#[derive(Debug)]
pub struct Supervised {
    health: Health,
    what: What,
}

#[derive(Debug)]
enum What {
    Watch(u64),
    Reconcile(u64),
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let mut progress = self.health.lock();
        match self.what {
            What::Watch(number) => {
                progress.watches.remove(&number);
            }
            What::Reconcile(number) => {
                progress.reconciles.remove(&number);
            }
        }
    }
}

impl Progress {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn of_path(&mut self, path: &str) -> impl Iterator<Item = &mut WatchProgress> {
        self.watches.values_mut().filter(move |watch| watch.path == path)
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Supervises a watch of this URL path.
    pub fn watch(&self, path: &str) -> Supervised {
        let fresh = WatchProgress { path: path.to_owned(), answered: Instant::now(), error: None };
        let mut progress = self.lock();
        let number = progress.number();
        progress.watches.insert(number, fresh);
        Supervised { health: self.clone(), what: What::Watch(number) }
    }

    /// Supervises a pass over this object.
    pub fn reconcile(&self, name: &str) -> Supervised {
        let mut progress = self.lock();
        let number = progress.number();
        progress.reconciles.insert(number, (name.to_owned(), Instant::now()));
        Supervised { health: self.clone(), what: What::Reconcile(number) }
    }

    /// The API server answered a request for this path; `served` when it gave what was asked for.
    pub fn answered(&self, path: &str, served: bool) {
        for watch in self.lock().of_path(path) {
            watch.answered = Instant::now();
            if served {
                watch.error = None;
            }
        }
    }

    /// A watch failed. It counts as failing until it is served again. `refused` when the API server said that we may not.
    pub fn failed(&self, path: &str, error: &str, refused: bool) {
        for watch in self.lock().of_path(path) {
            watch.error = Some(Failure { text: error.to_owned(), refused });
        }
    }

    /// What does not make progress any more; empty when all is well.
    pub fn stuck(&self, now: Instant) -> Vec<String> {
        let progress = self.lock();
        let silent =
            progress.watches.values().filter(|watch| now.duration_since(watch.answered) > WATCH_SILENCE).map(
                |watch| {
                    let seconds = WATCH_SILENCE.as_secs();
                    format!("watch of {} has no answer for more than {seconds} s", watch.path)
                },
            );
        let hanging = progress
            .reconciles
            .values()
            .filter(|(_name, since)| now.duration_since(*since) > RECONCILE_LIMIT)
            .map(|(name, _)| format!("pass over {name} takes more than {} s", RECONCILE_LIMIT.as_secs()));
        silent.chain(hanging).collect()
    }

    /// The last error of the watch of this path, if it fails now.
    pub fn failure(&self, path: &str) -> Option<String> {
        self.lock().of_path(path).find_map(|watch| watch.error.clone()).map(|failure| failure.text)
    }

    /// Whether the watch of this path fails now because the API server refuses it.
    pub fn is_refused(&self, path: &str) -> bool {
        self.lock().of_path(path).any(|watch| watch.error.as_ref().is_some_and(|failure| failure.refused))
    }

    /// The last errors of watches that fail now and that every MeshUpgrade needs. What only one of them asked to see, maybe by
    /// a misspelt name, is told in its own status.
    pub fn failing(&self) -> Vec<String> {
        let progress = self.lock();
        let failing = progress.watches.values();
        failing
            .filter(|watch| !watch.path.contains("/namespaces/"))
            .filter_map(|watch| Some(format!("watch of {}: {}", watch.path, watch.error.as_ref()?.text)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_watch_is_stuck_until_the_api_server_answers() {
        let health = Health::default();
        let watch = health.watch("/api/v1/namespaces");
        let later = Instant::now() + WATCH_SILENCE + Duration::from_secs(1);
        assert_eq!(health.stuck(Instant::now()), Vec::<String>::new());
        assert_eq!(health.stuck(later).len(), 1);
        drop(watch);
        assert_eq!(health.stuck(later), Vec::<String>::new());
    }

    #[test]
    fn a_pass_that_hangs_is_named() {
        let health = Health::default();
        let pass = health.reconcile("prod");
        let later = Instant::now() + RECONCILE_LIMIT + Duration::from_secs(1);
        assert!(health.stuck(later)[0].contains("prod"));
        drop(pass);
        assert!(health.stuck(later).is_empty());
    }

    #[test]
    fn errors_are_shown_until_the_watch_works_again() {
        let health = Health::default();
        let _watch = health.watch("/a");
        health.failed("/a", "403", true);
        health.answered("/a", false);
        assert_eq!(health.failing(), ["watch of /a: 403"]);
        health.answered("/a", true);
        assert!(health.failing().is_empty());
    }

    #[test]
    fn what_one_object_asked_to_see_is_not_everybodys_problem() {
        let health = Health::default();
        let path = "/api/v1/namespaces/no-such/configmaps";
        let _watches = [health.watch(path), health.watch("/api/v1/namespaces")];
        health.failed(path, "403", true);
        assert!(health.failing().is_empty() && health.is_refused(path));
        assert_eq!(health.failure(path).as_deref(), Some("403"));
        health.failed("/api/v1/namespaces", "500", false);
        assert!(!health.is_refused("/api/v1/namespaces"));
        assert_eq!(health.failing(), ["watch of /api/v1/namespaces: 500"]);
    }
}

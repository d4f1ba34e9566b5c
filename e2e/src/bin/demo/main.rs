//! `demo`: a real control plane, a believable mesh, and its upgrade from one Istio revision to the other, live in the
//! terminal. With `--rollback` one workload does not come up on the new revision, and everything goes back.

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

mod check;
mod clocks;
#[cfg(test)]
mod fixture;
mod journal;
mod line;
mod screen;
mod sight;
mod stage;
mod story;
mod town;
mod view;
mod watch;

/// As shells report the end by Ctrl-C.
const INTERRUPTED: u8 = 130;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Some((plot, spent)) = arguments(std::env::args().skip(1)) else {
        eprintln!("usage: demo [--rollback] [--since SECONDS-OF-THE-EPOCH]");
        return ExitCode::from(USAGE);
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(until_interrupted(story::tell(plot, spent)));
    // A build that was interrupted: nobody waits for it.
    runtime.shutdown_background();
    match ended {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("\ninterrupted: everything that ran is ended");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Which demo, and how much time was spent on it before this program began.
fn arguments(mut given: impl Iterator<Item = String>) -> Option<(&'static story::Plot, Duration)> {
    let mut plot = &story::FORWARD;
    let mut spent = Duration::ZERO;
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--rollback" => plot = &story::BACK,
            "--since" => {
                let since = UNIX_EPOCH + Duration::from_secs(given.next()?.parse().ok()?);
                spent = SystemTime::now().duration_since(since).unwrap_or_default();
            }
            _ => return None,
        }
    }
    Some((plot, spent))
}

/// The outcome; `None` when a signal came first. What it had started ends with it.
async fn until_interrupted(story: impl Future<Output = Result<()>>) -> Option<Result<()>> {
    tokio::select! {
        outcome = story => Some(outcome),
        () = asked_to_end() => None,
    }
}

/// Returns at Ctrl-C, SIGTERM, or when the terminal is gone.
async fn asked_to_end() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let waits = kinds.into_iter().filter_map(|kind| signal(kind).ok()).map(|mut signal| {
        Box::pin(async move {
            signal.recv().await;
        })
    });
    futures::future::select_all(waits).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_choose_the_demo() {
        let given =
            |list: &[&str]| arguments(list.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter());
        assert!(!given(&[]).unwrap().0.fails);
        let (plot, spent) = given(&["--rollback", "--since", "1000"]).unwrap();
        assert!(plot.fails && spent > Duration::from_hours(24));
        assert!(given(&["--since"]).is_none());
        assert!(given(&["--fast"]).is_none());
    }
}

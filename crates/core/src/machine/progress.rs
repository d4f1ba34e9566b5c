//! The progress deadline of a wave: how long it may be worked on. Time in which it waits for people, or for a window, does not
//! count.

use crate::intent::OnFailure;
use crate::machine::pass::{Pass, after};
use crate::machine::phase::Phase;
use crate::record::{Direction, Progress, RollbackCause};
use crate::wait::WaitReason;

/// How often within a deadline it is noted that the wave is worked on: each is a write of status.
const LOOKS: u32 = 8;

/// Measures the time of the wave in work, and says so when it is over.
pub fn watch(pass: &mut Pass<'_>) {
    let deadline = pass.intent.restart.progress_deadline_seconds;
    let works = pass.run.phase == Phase::Migrating && pass.run.direction() == Direction::Forward;
    let Some(deadline) = deadline.filter(|_| works) else {
        pass.run.progress = None;
        return;
    };
    let waits = pass.waits.iter().any(|wait| is_no_work(wait.reason));
    let fresh = Progress { since: pass.now, seen_at: pass.now, paused_at: None, exceeded: false };
    let mut progress = pass.run.progress.take().unwrap_or_else(|| fresh.clone());
    if progress.exceeded && pass.retries_all() {
        progress = fresh;
        pass.event(false, "RetryAccepted", None, "the time of the wave counts anew");
    }
    let look = (deadline / LOOKS).max(1);
    if after(progress.seen_at, look.saturating_mul(2)) < pass.now && progress.paused_at.is_none() {
        // Nobody worked on it: the operator was away.
        let away = pass.now.duration_since(progress.seen_at);
        progress.since = progress.since.checked_add(away).unwrap_or(pass.now).min(pass.now);
        progress.seen_at = pass.now;
    } else if after(progress.seen_at, look) <= pass.now {
        progress.seen_at = pass.now;
    }
    match (waits, progress.paused_at) {
        (true, None) => progress.paused_at = Some(pass.now),
        (false, Some(since)) => {
            let paused = pass.now.duration_since(since);
            progress.since = progress.since.checked_add(paused).unwrap_or(pass.now).min(pass.now);
            progress.paused_at = None;
        }
        (true, Some(_)) | (false, None) => {}
    }
    let until = after(progress.since, deadline);
    let over = progress.exceeded || (!waits && until <= pass.now);
    if over {
        exceeded(pass, deadline, progress);
        return;
    }
    if !waits {
        pass.wake_at(until.min(after(progress.seen_at, look)));
    }
    pass.run.progress = Some(progress);
}

fn exceeded(pass: &mut Pass<'_>, deadline: u32, mut progress: Progress) {
    let name = pass.current_wave().map_or_else(String::new, |wave| wave.name.clone());
    let last = pass.waits.first().map_or_else(String::new, |wait| format!(": {}", wait.because));
    let because = format!("wave {name:?} has been worked on for more than {deadline} s{last}");
    if pass.intent.on_failure == OnFailure::Automatic && pass.can_turn_back() {
        return pass.turn_back(RollbackCause::ProgressDeadlineExceeded, because);
    }
    if !progress.exceeded {
        pass.event(true, "ProgressDeadlineExceeded", None, because.clone());
    }
    progress.exceeded = true;
    pass.run.progress = Some(progress);
    let because = format!("{because}; nothing new is started; {}", pass.how_to_retry("goes on"));
    pass.wait(WaitReason::ProgressDeadlineExceeded, None, because);
}

/// Whether a run waits for people, or for what they set, instead of working.
fn is_no_work(reason: WaitReason) -> bool {
    use WaitReason::{ApprovalRequired, OutsideWindow, Paused, PlanOnly, Suspended};
    reason.needs_human() || matches!(reason, ApprovalRequired | OutsideWindow | Paused | PlanOnly | Suspended)
}

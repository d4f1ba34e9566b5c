//! Whether the run may make a write that moves something of somebody else's: once per object, direction and retry, and never against
//! whoever changed it since.

use crate::machine::pass::Pass;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// This write was not done yet.
    Granted,
    /// We wrote in this direction, and somebody changed it since.
    Used,
    /// We never wrote, and now is not the time.
    Never,
}

/// For an object whose last write of ours has the stamp `last`. `stamp` is that of the write which is due, `again` says that a person asked
/// for it, `now` that its turn has come.
pub fn permission(pass: &Pass<'_>, last: Option<&str>, stamp: &str, again: bool, now: bool) -> Permission {
    if again && last != Some(stamp) {
        Permission::Granted
    } else if last.is_some_and(|last| is_of_this_direction(pass, last)) {
        Permission::Used
    } else if now {
        Permission::Granted
    } else {
        Permission::Never
    }
}

/// All attempts of one direction share everything before the last dot.
fn is_of_this_direction(pass: &Pass<'_>, last: &str) -> bool {
    let prefix = |stamp: &str| stamp.rsplit_once('.').map(|(prefix, _)| prefix.to_owned());
    prefix(last) == prefix(&pass.run.stamp(&pass.intent.uid, 1))
}

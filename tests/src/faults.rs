//! What can go wrong with a write of the operator.

use std::collections::BTreeMap;

use crate::rng::Rng;

/// How a write goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the write is sent.
    CrashBefore,
    /// The process dies after the write took effect.
    CrashAfter,
    /// The write is refused: its precondition does not hold any more.
    Conflict,
    /// No answer came, and the write took effect.
    UnknownApplied,
    /// No answer came, and the write had no effect.
    UnknownLost,
    /// The API server or an admission policy forbids it.
    Refuse,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Conflict,
        Self::UnknownApplied,
        Self::UnknownLost,
        Self::Refuse,
    ];

    /// Whether the write reaches the API server.
    pub fn takes_effect(self) -> bool {
        matches!(self, Self::CrashAfter | Self::UnknownApplied)
    }

    /// Whether the process dies.
    pub fn kills(self) -> bool {
        matches!(self, Self::CrashBefore | Self::CrashAfter)
    }
}

/// Which writes go wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// By the number of the write, from 1.
    pub planned: BTreeMap<u64, Fault>,
    /// So many of a hundred writes, at random.
    pub percent: u64,
    /// Writes so far.
    pub writes: u64,
}

impl Faults {
    /// Counts a write and says how it goes wrong, if it does.
    pub fn next(&mut self, rng: &mut Rng) -> Option<Fault> {
        self.writes += 1;
        if let Some(fault) = self.planned.get(&self.writes) {
            return Some(*fault);
        }
        if rng.chance(self.percent) { rng.pick(&Fault::ALL).copied() } else { None }
    }
}

//! A tiny random number generator: the same seed gives the same run on every machine and in every version.

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for choosing who acts next.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    ordered: bool,
}

impl Rng {
    /// A generator for a run in random order.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, ordered: false }
    }

    /// A generator that never chooses: everybody does all of their work, in the default order.
    pub fn ordered() -> Self {
        Self { state: 0, ordered: true }
    }

    /// Whether everything happens in the default order.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 in the default order.
    pub fn below(&mut self, n: u64) -> u64 {
        if self.ordered || n == 0 { 0 } else { self.next() % n }
    }

    /// An index below `n`; 0 in the default order.
    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap_or(0)
    }

    /// True in so many of a hundred cases; never in the default order.
    pub fn chance(&mut self, percent: u64) -> bool {
        !self.ordered && self.below(100) < percent
    }

    /// One of some things.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// What a neighbour handles in one step: everything in the default order, else a random part.
    pub fn part<T>(&mut self, items: Vec<T>) -> Vec<T> {
        if self.ordered || items.is_empty() {
            return items;
        }
        let keep = [15, 40, 70, 100][self.index(4)];
        items.into_iter().filter(|_| self.below(100) < keep).collect()
    }
}

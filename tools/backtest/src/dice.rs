//! What is drawn: numbers that follow from the seed, a name and a count, and from nothing else.
//!
//! Invariant: a draw does not depend on how many others were made elsewhere: two runs that differ in one
//! assumption meet the same luck wherever they do the same.

/// Draws for one purpose.
#[derive(Clone, Copy, Debug)]
pub struct Dice {
    state: u64,
}

/// What draws are for: each has its own line of numbers.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum For {
    /// Latency towards us.
    Feed = 1,
    /// Latency of orders.
    Entry = 2,
    /// Latency of answers.
    Response = 3,
    /// Refusals without a reason of ours.
    Reject = 4,
    /// Answers that are lost.
    Lost = 5,
    /// Outages.
    Outage = 6,
    /// Bursts.
    Burst = 7,
    /// Transfers.
    Transfer = 8,
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Dice {
    /// Returns the line of a purpose at a place (a venue's index, or an order's name).
    #[must_use]
    pub fn new(seed: u64, purpose: For, place: u64) -> Dice {
        let line = mix(seed ^ mix(purpose as u64)) ^ mix(place.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Dice { state: mix(line) }
    }

    /// Returns the next number.
    pub fn roll(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a number from 0 to below `n`; 0 for 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(n)) >> 64) as u64
    }

    /// Returns true this often.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// Returns a waiting time of this mean, from next to nothing to some three times as much.
    pub fn wait_ns(&mut self, mean_ns: i64) -> i64 {
        // Integers alone, so that every machine draws the same: some longer, most near the mean.
        let sum: u64 = (0..4).map(|_| self.below(1_000_000)).sum();
        let longer = if self.chance(250_000) { 2 } else { 1 };
        let parts = i128::from(sum) * longer;
        // Mean of `parts` is 2,000,000 * 1.25.
        ((i128::from(mean_ns) * parts) / 2_500_000).max(1) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_lines_do_not_meet() {
        let mut dice = Dice::new(1, For::Feed, 0);
        let mut counts = [0u32; 10];
        (0..100_000).for_each(|_| counts[dice.below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        let first = |seed, purpose, place| Dice::new(seed, purpose, place).roll();
        let all = [
            first(1, For::Feed, 0),
            first(2, For::Feed, 0),
            first(1, For::Entry, 0),
            first(1, For::Feed, 1),
        ];
        assert!((1..4).all(|n| !all[..n].contains(&all[n])));
        let mut dice = Dice::new(9, For::Outage, 3);
        let mean: i64 = (0..10_000).map(|_| dice.wait_ns(1_000_000)).sum::<i64>() / 10_000;
        assert!((950_000..1_050_000).contains(&mean), "{mean}");
    }
}

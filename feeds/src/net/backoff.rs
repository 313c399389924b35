//! When to try again: exponential, with full jitter.
//!
//! Invariant: pure; the n-th delay is uniform in `0..=min(cap, base × 2^n)`, so that many clients that
//! fell together do not come back together. The count starts over only after a success that lasted: a
//! venue that accepts and drops is still a venue in trouble.

/// A small pseudo-random generator (SplitMix64, public domain): jitter needs spread, not secrecy.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Returns a generator; equal seeds give equal sequences.
    #[must_use]
    pub const fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number in `0..=max`.
    pub fn up_to(&mut self, max: u64) -> u64 {
        // The high half of a product is uniform enough: the bias is below 2^-20 for any delay of ours.
        ((u128::from(self.bits()) * (u128::from(max) + 1)) >> 64) as u64
    }
}

/// Delays between attempts at one thing.
#[derive(Clone, Debug)]
pub struct Backoff {
    base_ns: i64,
    cap_ns: i64,
    stable_ns: i64,
    failures: u32,
    random: Random,
}

impl Backoff {
    /// Returns a backoff that grows from `base_ns` to `cap_ns` and starts over after a success of
    /// `stable_ns`.
    #[must_use]
    pub const fn new(base_ns: i64, cap_ns: i64, stable_ns: i64, seed: u64) -> Backoff {
        Backoff { base_ns, cap_ns, stable_ns, failures: 0, random: Random::new(seed) }
    }

    /// Notes an attempt that failed, or a success that ended after `lasted_ns`; returns how long to wait.
    pub fn next_ns(&mut self, lasted_ns: i64) -> i64 {
        if self.stable_ns <= lasted_ns {
            self.failures = 0;
        }
        let factor = 1i64 << self.failures.min(30);
        let ceiling = self.base_ns.saturating_mul(factor).clamp(0, self.cap_ns);
        self.failures = self.failures.saturating_add(1);
        self.random.up_to(ceiling.unsigned_abs()).cast_signed()
    }

    /// Starts over: the thing worked.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns how many attempts failed in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn within_its_ceiling(seed in any::<u64>(), n in 1..100u32) {
            let mut backoff = Backoff::new(100, 3_000, 50_000, seed);
            for idx in 0..n {
                let ceiling = (100i64 << idx.min(30)).min(3_000);
                let delay = backoff.next_ns(0);
                prop_assert!((0..=ceiling).contains(&delay), "{delay} of {ceiling}");
            }
            // A success that did not last changes nothing, one that did starts over.
            backoff.next_ns(49_999);
            prop_assert_eq!(backoff.failures(), n + 1);
            prop_assert!(backoff.next_ns(50_000) <= 100);
            prop_assert_eq!(backoff.failures(), 1);
        }
    }

    #[test]
    fn jitter_is_full() {
        let mut random = Random::new(7);
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            counts[random.up_to(9) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert_eq!(Random::new(7).bits(), Random::new(7).bits());
    }
}

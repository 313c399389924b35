//! How much may be asked of a venue, and when.
//!
//! Invariant: pure; what [`Budget::take`] grants never exceeds the venue's limit less the reserve, by what
//! we know of its counter (ours, and the one it reports, which counts every process behind our address).
//! A `Retry-After`, a 429 or a 418 stops everything until its time.
//!
//! Two shapes: Binance counts in fixed clock windows (the minute counter starts over at :00), the others
//! are modelled as token buckets.

const SECOND: i64 = 1_000_000_000;

#[derive(Clone, Debug)]
enum Shape {
    /// `used` of `limit` in the clock window that began at `start_ns`.
    Window { limit: u64, period_ns: i64, start_ns: i64, used: u64 },
    /// One token every `every_ns`, at most `burst`; `full_ns` is when it would be full again.
    Bucket { every_ns: i64, burst: i64, full_ns: i64 },
}

/// A budget of one kind of request.
#[derive(Clone, Debug)]
pub struct Budget {
    shape: Shape,
    blocked_until_ns: i64,
}

impl Budget {
    /// Returns a budget of `share_ppm` of `limit` in each clock window of `period_ns`.
    #[must_use]
    pub fn window(limit: u64, period_ns: i64, share_ppm: u32) -> Budget {
        assert!(0 < period_ns, "a window has a length");
        let limit = (u128::from(limit) * u128::from(share_ppm.min(1_000_000)) / 1_000_000) as u64;
        let shape = Shape::Window { limit, period_ns, start_ns: 0, used: 0 };
        Budget { shape, blocked_until_ns: 0 }
    }

    /// Returns a budget of `per_second_milli` thousandths of a request a second, `burst` at once.
    #[must_use]
    pub fn bucket(per_second_milli: u32, burst: u32) -> Budget {
        assert!(0 < per_second_milli && 0 < burst, "a bucket fills and holds something");
        let every_ns = 1_000 * SECOND / i64::from(per_second_milli);
        let shape = Shape::Bucket { every_ns, burst: i64::from(burst), full_ns: 0 };
        Budget { shape, blocked_until_ns: 0 }
    }

    /// Takes `cost` now, or says when to ask again.
    pub fn take(&mut self, cost: u64, now_ns: i64) -> Result<(), i64> {
        if now_ns < self.blocked_until_ns {
            return Err(self.blocked_until_ns);
        }
        match &mut self.shape {
            Shape::Window { limit, period_ns, start_ns, used } => {
                let start = now_ns - now_ns.rem_euclid(*period_ns);
                if start != *start_ns {
                    (*start_ns, *used) = (start, 0);
                }
                if *limit < used.saturating_add(cost) {
                    return Err(start + *period_ns);
                }
                *used += cost;
                Ok(())
            }
            Shape::Bucket { every_ns, burst, full_ns } => {
                let cost_ns = i64::try_from(cost).unwrap_or(i64::MAX).saturating_mul(*every_ns);
                let full = (*full_ns).max(now_ns).saturating_add(cost_ns);
                let room = now_ns.saturating_add(*burst * *every_ns);
                if room < full {
                    return Err(now_ns.saturating_add(full - room));
                }
                *full_ns = full;
                Ok(())
            }
        }
    }

    /// Returns when `cost` can be taken at the earliest, and takes it for then.
    pub fn reserve(&mut self, cost: u64, now_ns: i64) -> i64 {
        let mut at = now_ns;
        // A window grants after at most one more window, a bucket after one wait; a cost larger than
        // the whole budget is granted at the third try rather than never.
        for _ in 0..3 {
            match self.take(cost, at) {
                Ok(()) => return at,
                Err(later) => at = later,
            }
        }
        at
    }

    /// Notes the venue's own count of the current window.
    pub fn reported(&mut self, count: u64, now_ns: i64) {
        if let Shape::Window { period_ns, start_ns, used, .. } = &mut self.shape {
            let start = now_ns - now_ns.rem_euclid(*period_ns);
            if start == *start_ns {
                *used = count.max(*used);
            } else if *start_ns < start {
                (*start_ns, *used) = (start, count);
            }
        }
    }

    /// Stops everything until a time; an earlier stop is never shortened.
    pub fn block_until(&mut self, until_ns: i64) {
        self.blocked_until_ns = until_ns.max(self.blocked_until_ns);
    }

    /// Returns until when everything is stopped; 0 where it never was.
    #[must_use]
    pub const fn blocked_until(&self) -> i64 {
        self.blocked_until_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_start_over_on_the_clock() {
        let mut budget = Budget::window(6_000, 60 * SECOND, 500_000);
        let at = 1_000 * 60 * SECOND + 59 * SECOND;
        assert_eq!(budget.take(3_000, at), Ok(()));
        assert_eq!(budget.take(1, at), Err(1_001 * 60 * SECOND));
        assert_eq!(budget.take(1, at + SECOND), Ok(()));
    }

    #[test]
    fn the_venues_count_includes_other_processes() {
        let mut budget = Budget::window(6_000, 60 * SECOND, 500_000);
        assert_eq!(budget.take(250, SECOND), Ok(()));
        budget.reported(2_990, SECOND);
        assert_eq!(budget.take(50, SECOND), Err(60 * SECOND));
        assert_eq!(budget.take(10, SECOND), Ok(()));
        budget.reported(10, SECOND);
        assert_eq!(budget.take(10, SECOND), Err(60 * SECOND), "a late lower count is not believed");
    }

    #[test]
    fn retry_after_stops_everything_and_is_never_shortened() {
        let mut budget = Budget::window(6_000, 60 * SECOND, 1_000_000);
        budget.block_until(100 * SECOND);
        budget.block_until(50 * SECOND);
        assert_eq!(budget.take(1, 99 * SECOND), Err(100 * SECOND));
        assert_eq!(budget.take(1, 100 * SECOND), Ok(()));
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut budget = Budget::bucket(4_000, 2);
        assert_eq!(budget.take(1, 0), Ok(()));
        assert_eq!(budget.take(1, 0), Ok(()));
        assert_eq!(budget.take(1, 0), Err(SECOND / 4));
        assert_eq!(budget.reserve(1, 0), SECOND / 4);
        assert_eq!(budget.reserve(1, 0), SECOND / 2);
        assert_eq!(budget.take(2, 100 * SECOND), Ok(()));
    }

    proptest! {
        /// Any times, any costs: no second sees more than the burst and one second's rate.
        #[test]
        fn never_more_than_granted(asks in proptest::collection::vec((0..300_000_000i64, 1..3u64), 1..200)) {
            let mut budget = Budget::bucket(5_000, 3);
            let mut now = 0;
            let mut granted: Vec<(i64, u64)> = Vec::new();
            for (wait, cost) in asks {
                now += wait;
                match budget.take(cost, now) {
                    Ok(()) => granted.push((now, cost)),
                    Err(later) => prop_assert!(now < later),
                }
                let in_second: u64 = granted.iter().filter(|(at, _)| now - SECOND < *at).map(|(_, c)| c).sum();
                prop_assert!(in_second <= 3 + 5);
            }
        }

        #[test]
        fn a_window_never_exceeds_its_share(asks in proptest::collection::vec((0..20 * SECOND, 1..400u64), 1..200)) {
            let mut budget = Budget::window(1_000, 60 * SECOND, 600_000);
            let (mut now, mut window, mut used) = (0, 0, 0);
            for (wait, cost) in asks {
                now += wait;
                if now / (60 * SECOND) != window { (window, used) = (now / (60 * SECOND), 0); }
                if budget.take(cost, now).is_ok() { used += cost; }
                prop_assert!(used <= 600);
            }
        }
    }
}

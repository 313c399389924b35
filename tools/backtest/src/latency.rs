//! How long something takes on its way.
//!
//! Invariant: never negative; things that go the same way arrive in the order they left ([`Way::arrival`]), as on
//! one connection. A venue's bursts are the same for its feed, its orders and its answers: what makes one slow
//! makes all slow.

use crate::config::{Latency, PPM};
use crate::dice::{Dice, For};

/// The times in which a venue is slow.
#[derive(Clone, Copy, Debug)]
struct Bursts {
    dice: Dice,
    every_ns: i64,
    lasts_ns: i64,
    /// The next one, or the one under way; `i64::MIN` before the first look.
    from_ns: i64,
}

impl Bursts {
    fn is_on(&mut self, now_ns: i64) -> bool {
        if self.from_ns == i64::MIN {
            self.from_ns = now_ns + self.dice.wait_ns(self.every_ns);
        }
        while self.from_ns + self.lasts_ns <= now_ns {
            self.from_ns += self.lasts_ns + self.dice.wait_ns(self.every_ns);
        }
        self.from_ns <= now_ns
    }
}

#[derive(Clone, Debug)]
enum Model {
    Constant(i64),
    Empirical { sorted_ns: Vec<i64>, correlation_ppm: u32, last: usize, is_first: bool },
    Bursty { calm_ns: i64, jitter_ns: u64, burst_ns: i64, bursts: Bursts },
}

/// One way between us and a venue.
#[derive(Clone, Debug)]
pub struct Way {
    model: Model,
    dice: Dice,
    scale_ppm: u32,
    last_ns: i64,
    seen: Samples,
}

const US: i64 = 1_000;
const MS: i64 = 1_000_000;

impl Way {
    /// Returns a way of a venue.
    #[must_use]
    pub fn new(latency: &Latency, scale_ppm: u32, seed: u64, purpose: For, venue: usize) -> Way {
        let model = match latency {
            Latency::Constant { us } => Model::Constant(i64::from(*us) * US),
            // The run refuses a plan in which samples were not put in their place.
            Latency::Recorded { .. } => Model::Constant(0),
            Latency::Empirical { samples_us, correlation_ppm, shift_us } => {
                let shifted = |us: &u32| (i64::from(*us) + i64::from(*shift_us)).max(0) * US;
                let mut sorted_ns: Vec<i64> = samples_us.iter().map(shifted).collect();
                sorted_ns.sort_unstable();
                let correlation_ppm = *correlation_ppm;
                Model::Empirical { sorted_ns, correlation_ppm, last: 0, is_first: true }
            }
            Latency::Bursty { us, jitter_us, burst_us, burst_every_ms, burst_lasts_ms } => {
                // Not the way's own line: the venue's.
                let bursts = Bursts {
                    dice: Dice::new(seed, For::Burst, venue as u64),
                    every_ns: i64::from(*burst_every_ms) * MS,
                    lasts_ns: i64::from(*burst_lasts_ms) * MS,
                    from_ns: i64::MIN,
                };
                Model::Bursty {
                    calm_ns: i64::from(*us) * US,
                    jitter_ns: u64::from(*jitter_us) * US as u64,
                    burst_ns: i64::from(*burst_us) * US,
                    bursts,
                }
            }
        };
        let dice = Dice::new(seed, purpose, venue as u64);
        Way { model, dice, scale_ppm, last_ns: i64::MIN, seen: Samples::default() }
    }

    /// Returns whether it takes no time, ever.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self.model, Model::Constant(0)) || self.scale_ppm == 0
    }

    /// Returns how long what leaves now takes.
    fn draw(&mut self, now_ns: i64) -> i64 {
        let ns = match &mut self.model {
            Model::Constant(ns) => *ns,
            Model::Empirical { sorted_ns, correlation_ppm, last, is_first } => {
                let stays = self.dice.chance(*correlation_ppm) && !*is_first;
                let next = self.dice.below(sorted_ns.len() as u64) as usize;
                *is_first = false;
                if !stays {
                    *last = next;
                }
                sorted_ns.get(*last).copied().unwrap_or(0)
            }
            Model::Bursty { calm_ns, jitter_ns, burst_ns, bursts } => {
                let jitter = self.dice.below(*jitter_ns + 1) as i64;
                let burst = if bursts.is_on(now_ns) { *burst_ns } else { 0 };
                *calm_ns + jitter + burst
            }
        };
        let scaled = i128::from(ns) * i128::from(self.scale_ppm) / i128::from(PPM);
        i64::try_from(scaled).unwrap_or(i64::MAX / 4)
    }

    /// Returns when what leaves now arrives; not before what left earlier.
    pub fn arrival(&mut self, now_ns: i64) -> i64 {
        let ns = self.draw(now_ns);
        self.seen.add(ns);
        self.last_ns = self.last_ns.max(now_ns.saturating_add(ns));
        self.last_ns
    }

    /// Returns median and 99th percentile of what was drawn, microseconds.
    #[must_use]
    pub fn quantiles_us(&self) -> [i64; 2] {
        self.seen.quantiles_us()
    }

    /// Returns the middle of what is to be expected, ns, without drawing.
    #[must_use]
    pub fn typical_ns(&self) -> i64 {
        let ns = match &self.model {
            Model::Constant(ns) => *ns,
            Model::Empirical { sorted_ns, .. } => {
                sorted_ns.get(sorted_ns.len() / 2).copied().unwrap_or(0)
            }
            Model::Bursty { calm_ns, jitter_ns, .. } => *calm_ns + *jitter_ns as i64 / 2,
        };
        (i128::from(ns) * i128::from(self.scale_ppm) / i128::from(PPM)) as i64
    }
}

/// Counts of durations: eight classes an octave of nanoseconds, so that quantiles are within 9 %.
#[derive(Clone, Debug)]
pub struct Samples {
    counts: Vec<u64>,
    count: u64,
    /// Smallest and largest.
    range: (i64, i64),
}

impl Default for Samples {
    fn default() -> Samples {
        Samples { counts: vec![0; 64 * 8], count: 0, range: (i64::MAX, 0) }
    }
}

impl Samples {
    /// Counts one.
    pub fn add(&mut self, ns: i64) {
        let ns = ns.max(0);
        self.counts[class(ns as u64)] += 1;
        self.count += 1;
        self.range = (self.range.0.min(ns), self.range.1.max(ns));
    }

    /// Returns the upper bound of the class that holds a quantile, ns, within what was seen; 0 for nothing.
    #[must_use]
    pub fn quantile_ns(&self, ppm: u64) -> i64 {
        let rank = (u128::from(self.count) * u128::from(ppm)).div_ceil(1_000_000).max(1) as u64;
        let mut passed = 0;
        for (class, count) in self.counts.iter().enumerate() {
            passed += count;
            if rank <= passed {
                return bound(class).clamp(self.range.0, self.range.1);
            }
        }
        0
    }

    /// Returns median and 99th percentile in microseconds.
    #[must_use]
    pub fn quantiles_us(&self) -> [i64; 2] {
        [500_000, 990_000].map(|ppm| self.quantile_ns(ppm) / US)
    }
}

fn class(ns: u64) -> usize {
    if ns < 8 {
        return ns as usize;
    }
    let octave = 63 - ns.leading_zeros() as usize;
    let part = (ns >> (octave - 3)) as usize & 7;
    (octave - 2) * 8 + part
}

fn bound(class: usize) -> i64 {
    if class < 8 {
        return class as i64;
    }
    let (octave, part) = (class / 8 + 2, class % 8);
    let next = (9 + part as u128) << (octave - 3);
    i64::try_from(next - 1).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(latency: &Latency, scale_ppm: u32) -> Way {
        Way::new(latency, scale_ppm, 7, For::Entry, 1)
    }

    #[test]
    fn nothing_overtakes_and_scales_scale() {
        let samples_us = vec![100, 900, 200, 5_000];
        let model = Latency::Empirical { samples_us, correlation_ppm: 300_000, shift_us: -150 };
        let mut way1 = way(&model, PPM);
        let mut last = 0;
        for now in 0..10_000i64 {
            let at = way1.arrival(now * 10_000);
            assert!(last <= at && now * 10_000 <= at);
            last = at;
        }
        let [p50, p99] = way1.quantiles_us();
        assert!((50..=850).contains(&p50) && (4_400..=5_400).contains(&p99), "{p50} {p99}");
        let mut twice = way(&Latency::Constant { us: 3 }, 2 * PPM);
        assert_eq!(twice.arrival(0), 6_000);
        assert!(way(&Latency::Constant { us: 3 }, 0).is_nothing());
    }

    #[test]
    fn a_burst_is_the_venues_and_makes_all_its_ways_slow_together() {
        let model = Latency::Bursty {
            us: 100,
            jitter_us: 10,
            burst_us: 50_000,
            burst_every_ms: 100,
            burst_lasts_ms: 20,
        };
        let mut entry = Way::new(&model, PPM, 3, For::Entry, 0);
        let mut response = Way::new(&model, PPM, 3, For::Response, 0);
        let mut slow = 0;
        for step in 0..5_000i64 {
            let now = step * MS;
            let is_slow = |ns: i64| 50_000 * US <= ns;
            assert_eq!(is_slow(entry.draw(now)), is_slow(response.draw(now)), "at {now}");
            slow += i64::from(is_slow(entry.draw(now)));
        }
        // One in six of the time.
        assert!((500..1_200).contains(&slow), "{slow}");
    }

    #[test]
    fn classes_hold_what_they_say() {
        for ns in (0..200_000u64).step_by(7).chain([1 << 40, (1 << 50) + 12_345, u64::MAX >> 2]) {
            let class = class(ns);
            assert!(ns as i64 <= bound(class), "{ns}");
            assert!(class == 0 || bound(class - 1) < ns as i64, "{ns}");
        }
    }
}

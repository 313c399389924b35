//! Counters of requests per address, in the shapes the venues use.
//!
//! Invariant: memory is bounded; at the cap the oldest address is forgotten (it gains a fresh allowance,
//! which errs in the client's favour, as a venue restarting its limiter would).

use std::collections::BTreeMap;
use std::net::IpAddr;

const ADDRESSES_MAX: usize = 4_096;

/// One fixed window per address, on clock boundaries.
#[derive(Debug)]
pub(crate) struct FixedWindow {
    window_ns: u64,
    counts: BTreeMap<IpAddr, (u64, u64)>,
}

impl FixedWindow {
    pub fn new(window_s: u64) -> Self {
        Self { window_ns: window_s * 1_000_000_000, counts: BTreeMap::new() }
    }

    /// Adds `weight` and returns what the address used in this window.
    pub fn add(&mut self, address: IpAddr, weight: u64, now_ns: u64) -> u64 {
        let window = now_ns / self.window_ns;
        if self.counts.len() >= ADDRESSES_MAX && !self.counts.contains_key(&address) {
            self.counts.pop_first();
        }
        let (at, used) = self.counts.entry(address).or_insert((window, 0));
        if *at != window {
            (*at, *used) = (window, 0);
        }
        *used += weight;
        *used
    }

    /// Nanoseconds until the window ends.
    pub fn left_ns(&self, now_ns: u64) -> u64 {
        self.window_ns - now_ns % self.window_ns
    }
}

/// A token bucket per address or key.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    per_s: f64,
    burst: f64,
    levels: BTreeMap<K, (u64, f64)>,
}

impl<K: Ord> Buckets<K> {
    pub fn new(per_s: f64, burst: f64) -> Self {
        Self { per_s, burst, levels: BTreeMap::new() }
    }

    /// Takes one token; returns what is left, or `None` if there was none.
    pub fn take(&mut self, address: K, now_ns: u64) -> Option<f64> {
        if self.levels.len() >= ADDRESSES_MAX && !self.levels.contains_key(&address) {
            self.levels.pop_first();
        }
        let (at, level) = self.levels.entry(address).or_insert((now_ns, self.burst));
        #[expect(clippy::cast_precision_loss, reason = "a rate, not money")]
        let gained = now_ns.saturating_sub(*at) as f64 / 1e9 * self.per_s;
        *level = (*level + gained).min(self.burst);
        *at = now_ns;
        (*level >= 1.0).then(|| {
            *level -= 1.0;
            *level
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const S: u64 = 1_000_000_000;

    #[test]
    fn windows_start_on_the_clock() {
        let mut window = FixedWindow::new(60);
        assert_eq!(window.add(HERE, 5_000, 59 * S), 5_000);
        assert_eq!(window.add(HERE, 250, 59 * S + 1), 5_250);
        assert_eq!(window.left_ns(59 * S), S);
        assert_eq!(window.add(HERE, 250, 60 * S), 250);
    }

    #[test]
    fn buckets_refill() {
        let mut bucket = Buckets::new(2.0, 3.0);
        let taken =
            |b: &mut Buckets<IpAddr>, at| (0..5).filter(|_| b.take(HERE, at).is_some()).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, S), 2);
        assert_eq!(taken(&mut bucket, 100 * S), 3);
    }
}

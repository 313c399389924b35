//! What is told, before it is written: families of series, numbers and distributions.
//!
//! Invariant: a name is one of ours, fixed at compile time; only a label's value may come from elsewhere,
//! and it is cut to [`LABEL_MAX`] bytes without control characters here. Seconds are the only unit of time.
//!
//! Not here: how it is written (`text`, `protobuf`).

use tandem_shm::HistogramSnapshot;

/// Longest value of a label.
pub const LABEL_MAX: usize = 64;
/// Upper bounds of the classic buckets of a latency: as the value, ns, and as text, seconds.
pub const LATENCY_BUCKETS: [(u64, &str); 19] = [
    (100, "1e-07"),
    (250, "2.5e-07"),
    (500, "5e-07"),
    (1_000, "1e-06"),
    (2_500, "2.5e-06"),
    (5_000, "5e-06"),
    (10_000, "1e-05"),
    (25_000, "2.5e-05"),
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
];

/// How a family behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while its process lives; its name ends with `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A distribution of durations.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Least value, greatest value (ns), how many: as they were counted.
    pub buckets: Vec<(u64, u64, u64)>,
    /// Sum of all values, ns.
    pub sum_ns: u64,
    /// Upper bounds of the classic buckets, ns and as text in seconds.
    pub bounds: &'static [(u64, &'static str)],
    /// Whether the buckets are fine enough for a native histogram.
    pub is_fine: bool,
}

impl Distribution {
    /// Returns a latency as a page of shared memory has it.
    #[must_use]
    pub fn of(histogram: &HistogramSnapshot) -> Distribution {
        Distribution {
            buckets: histogram.buckets().collect(),
            sum_ns: histogram.sum(),
            bounds: &LATENCY_BUCKETS,
            is_fine: true,
        }
    }

    /// Returns how many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, _, count)| count).sum()
    }

    /// Returns the cumulative counts at the bounds. A bucket that reaches over a bound counts above it:
    /// a percentile out of these is never too low.
    #[must_use]
    pub fn cumulative(&self) -> Vec<u64> {
        let below = |bound: u64| {
            let within = self.buckets.iter().filter(|(_, highest, _)| *highest <= bound);
            within.map(|(_, _, count)| count).sum()
        };
        self.bounds.iter().map(|(bound, _)| below(*bound)).collect()
    }
}

/// What a series has.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Distribution(Distribution),
}

impl Value {
    /// Returns how many series it is for Prometheus.
    #[must_use]
    pub fn lines(&self) -> usize {
        match self {
            Value::Number(_) => 1,
            // With the last bucket, sum and count.
            Value::Distribution(distribution) => distribution.bounds.len() + 3,
        }
    }
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names are ours; values are cut, and escaped when they are written.
    pub labels: Vec<(&'static str, String)>,
    /// What it has.
    pub value: Value,
}

/// All series of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// As in queries.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its series.
    pub samples: Vec<Sample>,
}

impl Family {
    /// Returns an empty counter.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str) -> Family {
        debug_assert!(name.ends_with("_total"), "{name}");
        Family { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    /// Returns an empty gauge.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// Returns an empty histogram.
    #[must_use]
    pub fn histogram(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: Kind::Histogram, samples: Vec::new() }
    }

    /// Adds a series.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.add(labels, Value::Number(value));
    }

    /// Adds a distribution.
    pub fn push_distribution(&mut self, labels: &[(&'static str, &str)], value: Distribution) {
        self.add(labels, Value::Distribution(value));
    }

    /// Adds a series and returns the family.
    #[must_use]
    pub fn with(mut self, labels: &[(&'static str, &str)], value: f64) -> Family {
        self.push(labels, value);
        self
    }

    fn add(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels.iter().map(|(name, value)| (*name, cut(value))).collect();
        self.samples.push(Sample { labels, value });
    }
}

/// Cuts a label's value at a character's end, and makes `?` of what terminals obey.
fn cut(value: &str) -> String {
    let mut out = String::with_capacity(value.len().min(LABEL_MAX));
    for letter in value.chars() {
        if LABEL_MAX < out.len() + letter.len_utf8() {
            break;
        }
        out.push(if letter.is_control() { '?' } else { letter });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_say_the_same_twice() {
        for (ns, text) in LATENCY_BUCKETS {
            let seconds: f64 = text.parse().expect("a number");
            assert!((seconds - ns as f64 / 1e9).abs() < seconds * 1e-12, "{text}");
        }
    }

    #[test]
    fn a_bucket_over_a_bound_counts_above_it() {
        let of = |buckets: &[(u64, u64, u64)]| Distribution {
            buckets: buckets.to_vec(),
            sum_ns: 0,
            bounds: &LATENCY_BUCKETS,
            is_fine: true,
        };
        let cumulative = of(&[(96, 97, 3), (98, 101, 4), (1 << 39, 1 << 40, 1)]).cumulative();
        assert_eq!(cumulative[..2], [3, 7]);
        assert_eq!(cumulative.last(), Some(&7));
    }

    #[test]
    fn a_label_ends_at_a_character() {
        let value = "é".repeat(100);
        let family = Family::gauge("x", "x").with(&[("pair", &value)], 0.0);
        assert_eq!(family.samples[0].labels[0].1, "é".repeat(32));
    }
}

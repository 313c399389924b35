//! Prometheus's native histograms out of our log-linear buckets.
//!
//! Invariant: a bucket of ours always goes to the same native bucket, the one that holds its middle, so
//! counts only grow and the sum of counts is exact. Ours are 1/32 to 1/64 of their value wide, so a value
//! is at most 1.6 % from its bucket's middle; a native bucket of schema 4 is 2^(1/16) wide, 4.4 %. A
//! quantile read from the native histogram is therefore within 6.1 % of the value that was recorded
//! ([`ERROR_MAX`]), and it is that at any scale.
//!
//! Not here: the wire (`protobuf`).

use super::family::Distribution;

/// Resolution: 2^4 buckets for each doubling.
pub const NATIVE_SCHEMA: i32 = 4;
/// Largest relative error of a quantile.
pub const ERROR_MAX: f64 = 0.061;
/// Values up to this are zeros: what other clients use.
pub const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;
/// A gap of so many empty buckets is cheaper told as zeros than as a new span.
const GAP_MAX: i32 = 2;

/// A histogram as the wire has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Native {
    /// Values that are zero.
    pub zero_count: u64,
    /// Distance from the last span's end (the first: index of its first bucket), and length.
    pub spans: Vec<(i32, u32)>,
    /// Each bucket's count less the one before.
    pub deltas: Vec<i64>,
}

/// Returns the index of the bucket that holds a duration: bucket `i` is over 2^((i-1)/16) s, up to 2^(i/16) s.
#[must_use]
pub fn index(ns: f64) -> i32 {
    ((ns * 1e-9).log2() * f64::from(1 << NATIVE_SCHEMA)).ceil() as i32
}

impl Native {
    /// Returns a distribution as a native histogram.
    #[must_use]
    pub fn of(distribution: &Distribution) -> Native {
        let mut native = Native::default();
        let mut counts: Vec<(i32, u64)> = Vec::with_capacity(distribution.buckets.len());
        for (lowest, highest, count) in &distribution.buckets {
            let middle = (*lowest as f64 + *highest as f64) / 2.0;
            if middle == 0.0 {
                native.zero_count += count;
                continue;
            }
            let index = index(middle);
            // Ours are in order, so equal ones follow each other.
            match counts.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                _ => counts.push((index, *count)),
            }
        }
        let (mut next, mut before) = (None::<i32>, 0_i64);
        for (index, count) in counts {
            let gap = next.map(|next| index - next);
            match (gap, native.spans.last_mut()) {
                (Some(gap), Some((_, length))) if gap <= GAP_MAX => {
                    for _ in 0..gap {
                        native.deltas.push(-before);
                        before = 0;
                    }
                    *length += gap as u32 + 1;
                }
                _ => native.spans.push((gap.unwrap_or(index), 1)),
            }
            let count = count as i64;
            native.deltas.push(count - before);
            before = count;
            next = Some(index + 1);
        }
        native
    }

    /// Returns index and count of every bucket, as a reader of the wire finds them.
    #[must_use]
    pub fn buckets(&self) -> Vec<(i32, i64)> {
        let (mut out, mut at, mut count) = (Vec::new(), 0, 0);
        let mut deltas = self.deltas.iter();
        for (offset, length) in &self.spans {
            at += offset;
            for _ in 0..*length {
                count += deltas.next().copied().unwrap_or(0);
                out.push((at, count));
                at += 1;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::family::LATENCY_BUCKETS;
    use super::*;

    fn of(buckets: Vec<(u64, u64, u64)>) -> Distribution {
        Distribution { buckets, sum_ns: 0, bounds: &LATENCY_BUCKETS, is_fine: true }
    }

    #[test]
    fn an_index_is_where_its_value_is() {
        // 1 s is the upper bound of bucket 0; 2 s of bucket 16.
        assert_eq!((index(1e9), index(2e9), index(1.000_001e9)), (0, 16, 1));
        for ns in [1.0, 3.0, 100.0, 12_345.0, 7e8, 9e11] {
            let (at, seconds) = (f64::from(index(ns)), ns * 1e-9);
            let slack = 1.0 + 1e-12;
            assert!(seconds <= (at / 16.0).exp2() * slack, "{ns}");
            assert!((((at - 1.0) / 16.0).exp2()) < seconds * slack, "{ns}");
        }
    }

    #[test]
    fn zeros_are_zeros() {
        let native = Native::of(&of(vec![(0, 0, 5), (1, 1, 2)]));
        assert_eq!((native.zero_count, native.buckets()), (5, vec![(index(1.0), 2)]));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_value_moves_further_than_the_bound(
            values in proptest::collection::vec(1_u64..1 << 40, 1..200),
        ) {
            // Buckets as shared memory has them: 32 of an octave.
            let mut buckets = std::collections::BTreeMap::new();
            for value in &values {
                let octave = (63 - value.leading_zeros()).saturating_sub(5);
                let lowest = (value >> octave) << octave;
                let bucket = buckets.entry(lowest).or_insert((lowest + (1 << octave) - 1, 0));
                bucket.1 += 1;
            }
            let buckets: Vec<_> = buckets.into_iter().map(|(low, (high, n))| (low, high, n)).collect();
            let found = Native::of(&of(buckets)).buckets();
            prop_assert_eq!(found.iter().map(|(_, n)| *n).sum::<i64>(), values.len() as i64);
            prop_assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for value in &values {
                let near = |(at, n): &(i32, i64)| {
                    let (low, high) = (f64::from(at - 1) / 16.0, f64::from(*at) / 16.0);
                    let (low, high) = (low.exp2() * 1e9, high.exp2() * 1e9);
                    let worst = (low / *value as f64).min(*value as f64 / high);
                    0 < *n && 1.0 - worst <= ERROR_MAX
                };
                prop_assert!(found.iter().any(near), "{} in {:?}", value, found);
            }
        }
    }
}

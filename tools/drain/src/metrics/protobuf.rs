//! `io.prometheus.client.MetricFamily`, each with its length before it: the one format with native histograms.
//!
//! Invariant: the bytes are what the message's definition says (fields 1 to 4 of `MetricFamily`, classic and
//! native fields of `Histogram`); a reader that knows none of the native ones finds a classic histogram.
//! Hand-made: six messages are written, none is read, so no generator and no dependency.
//!
//! Not here: what is written (`family`, `native`).

use super::family::{Distribution, Family, Kind, Sample, Value};
use super::native::{NATIVE_SCHEMA, Native, ZERO_THRESHOLD};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while 0x80 <= value {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn unsigned(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    /// `sint32` and `sint64`: zigzag.
    fn signed(&mut self, field: u32, value: i64) {
        self.unsigned(field, ((value << 1) ^ (value >> 63)) as u64);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// Writes all families.
#[must_use]
pub fn encode(families: &[Family]) -> Vec<u8> {
    let mut out = Message(Vec::with_capacity(256 << 10));
    for family in families {
        let mut message = Message::default();
        message.bytes(1, family.name.as_bytes());
        message.bytes(2, family.help.as_bytes());
        message.unsigned(
            3,
            match family.kind {
                Kind::Counter => 0,
                Kind::Gauge => 1,
                Kind::Histogram => 4,
            },
        );
        for sample in &family.samples {
            message.message(4, |metric| write_metric(metric, family.kind, sample));
        }
        out.varint(message.0.len() as u64);
        out.0.extend(message.0);
    }
    out.0
}

fn write_metric(metric: &mut Message, kind: Kind, sample: &Sample) {
    for (name, value) in &sample.labels {
        metric.message(1, |label| {
            label.bytes(1, name.as_bytes());
            label.bytes(2, value.as_bytes());
        });
    }
    match &sample.value {
        Value::Number(number) => {
            let field = if kind == Kind::Counter { 3 } else { 2 };
            metric.message(field, |value| value.double(1, *number));
        }
        Value::Distribution(distribution) => {
            metric.message(7, |histogram| write_histogram(histogram, distribution));
        }
    }
}

fn write_histogram(histogram: &mut Message, distribution: &Distribution) {
    let count = distribution.count();
    histogram.unsigned(1, count);
    histogram.double(2, distribution.sum_ns as f64 / 1e9);
    for ((bound, text), below) in distribution.bounds.iter().zip(distribution.cumulative()) {
        histogram.message(3, |bucket| {
            bucket.unsigned(1, below);
            // As the text says it, so that both formats give one and the same series.
            bucket.double(2, text.parse().unwrap_or(*bound as f64 / 1e9));
        });
    }
    histogram.message(3, |bucket| {
        bucket.unsigned(1, count);
        bucket.double(2, f64::INFINITY);
    });
    if !distribution.is_fine {
        return;
    }
    let native = Native::of(distribution);
    histogram.signed(5, i64::from(NATIVE_SCHEMA));
    histogram.double(6, ZERO_THRESHOLD);
    histogram.unsigned(7, native.zero_count);
    // A native histogram without a span would be taken for a classic one.
    let spans = if native.spans.is_empty() { &[(0, 0)][..] } else { &native.spans };
    for (offset, length) in spans {
        histogram.message(12, |span| {
            span.signed(1, i64::from(*offset));
            span.unsigned(2, u64::from(*length));
        });
    }
    for delta in &native.deltas {
        histogram.signed(13, *delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_definition() {
        let family = Family::gauge("x", "h").with(&[("a", "b")], 1.0);
        let expected: Vec<u8> = [
            &[30][..],                                          // Length.
            &[0x0a, 1, b'x', 0x12, 1, b'h', 0x18, 1],           // Name, help, type.
            &[0x22, 20, 0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'], // Metric, label.
            &[0x12, 9, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f],     // Gauge, 1.0.
        ]
        .concat();
        let mut expected = expected;
        expected[0] = (expected.len() - 1) as u8;
        expected[10] = (expected.len() - 11) as u8;
        assert_eq!(encode(&[family]), expected);
    }

    #[test]
    fn numbers_are_written_as_the_wire_has_them() {
        let mut message = Message::default();
        message.signed(1, -1);
        message.signed(1, i64::MIN);
        message.unsigned(2, 300);
        let least = [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(message.0, [&[8, 1][..], &least, &[0x10, 0xac, 0x02]].concat());
    }
}

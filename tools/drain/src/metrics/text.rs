//! The text formats: 0.0.4, and OpenMetrics 1.0.0.
//!
//! Invariant: whatever a label holds, a line is one line and a value stays in its quotes: backslash, quote
//! and newline are escaped.
//!
//! Not here: what is written (`family`), native histograms, which no text format has (`protobuf`).

use std::fmt::Write;

use super::family::{Family, Kind, Sample, Value};

/// Writes all families.
#[must_use]
pub fn encode(families: &[Family], is_open: bool) -> Vec<u8> {
    let mut out = String::with_capacity(256 << 10);
    for family in families {
        let name = match (family.kind, is_open) {
            // OpenMetrics names a counter's family without its ending.
            (Kind::Counter, true) => family.name.trim_end_matches("_total"),
            _ => family.name,
        };
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Help texts are ours and hold neither backslash nor newline.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
        for sample in &family.samples {
            write_sample(&mut out, family.name, sample);
        }
    }
    if is_open {
        out.push_str("# EOF\n");
    }
    out.into_bytes()
}

fn write_sample(out: &mut String, name: &str, sample: &Sample) {
    match &sample.value {
        Value::Number(number) => {
            out.push_str(name);
            labels(out, &sample.labels, None);
            let _ = writeln!(out, " {}", Number(*number));
        }
        Value::Distribution(distribution) => {
            let count = distribution.count();
            let bounds = distribution.bounds.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
            for (bound, below) in bounds.zip(distribution.cumulative().into_iter().chain([count])) {
                let _ = write!(out, "{name}_bucket");
                labels(out, &sample.labels, Some(bound));
                let _ = writeln!(out, " {below}");
            }
            let sum = Number(distribution.sum_ns as f64 / 1e9);
            for (ending, value) in [("_sum", sum), ("_count", Number(count as f64))] {
                let _ = write!(out, "{name}{ending}");
                labels(out, &sample.labels, None);
                let _ = writeln!(out, " {value}");
            }
        }
    }
}

/// A number as every parser of these formats reads it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            number if number.is_nan() => f.write_str("NaN"),
            number if number == f64::INFINITY => f.write_str("+Inf"),
            number if number == f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number}"),
        }
    }
}

fn labels(out: &mut String, labels: &[(&'static str, String)], bound: Option<&str>) {
    if labels.is_empty() && bound.is_none() {
        return;
    }
    let mut opening = '{';
    let all = labels.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in all.chain(bound.map(|bound| ("le", bound))) {
        out.push(opening);
        opening = ',';
        let _ = write!(out, "{name}=\"");
        for letter in value.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                letter => out.push(letter),
            }
        }
        out.push('"');
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::super::family::{Distribution, LATENCY_BUCKETS};
    use super::*;

    fn written(families: &[Family], is_open: bool) -> String {
        String::from_utf8(encode(families, is_open)).expect("text")
    }

    #[test]
    fn a_counter_has_its_name_in_both() {
        let family = Family::counter("fills_total", "Fills.").with(&[("venue", "kraken")], 3.0);
        assert_eq!(
            written(std::slice::from_ref(&family), false),
            "# HELP fills_total Fills.\n# TYPE fills_total counter\nfills_total{venue=\"kraken\"} 3\n"
        );
        assert_eq!(
            written(&[family], true),
            "# HELP fills Fills.\n# TYPE fills counter\nfills_total{venue=\"kraken\"} 3\n# EOF\n"
        );
    }

    /// Row SEC-14 for this output: a hostile symbol is text, and on one line.
    #[test]
    fn hostile_labels_stay_in_their_quotes() {
        let hostile = "a\"} 1\nx{y=\"\\\u{1b}[31m\u{0}";
        let family = Family::gauge("x", "X.").with(&[("pair", hostile)], f64::NAN);
        let text = written(&[family], false);
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("x{pair=\"a\\\"} 1?x{y=\\\"\\\\?[31m?\"} NaN\n"), "{text}");
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let distribution = Distribution {
            buckets: vec![(64, 65, 2), (1 << 30, 1 << 31, 1)],
            sum_ns: 1_500_000_000,
            bounds: &LATENCY_BUCKETS,
            is_fine: true,
        };
        let mut family = Family::histogram("stage_latency_seconds", "Stages.");
        family.push_distribution(&[("stage", "detect")], distribution);
        let text = written(&[family], false);
        for line in [
            "stage_latency_seconds_bucket{stage=\"detect\",le=\"1e-07\"} 2\n",
            "stage_latency_seconds_bucket{stage=\"detect\",le=\"0.1\"} 2\n",
            "stage_latency_seconds_bucket{stage=\"detect\",le=\"+Inf\"} 3\n",
            "stage_latency_seconds_sum{stage=\"detect\"} 1.5\n",
            "stage_latency_seconds_count{stage=\"detect\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}

//! Metrics: what every process of the run shows of itself, and what the journal says, for Prometheus.
//!
//! Invariant: a scrape reads what the last look made and touches nothing of the run, so any number of
//! scrapes cost the run nothing. At most [`SERIES_MAX`] series leave, whatever a venue lists; how many did
//! not is a series of its own, and the first one. Names, units and labels are those of the list
//! (`reference/reliability.md` 11.4).
//!
//! ```text
//! stats pages, control page, /proc ─► pages ─┐
//! journal records ─► tally ──────────────────┼─► families ─► text (0.0.4, OpenMetrics), protobuf
//! sinks' status ─────────────────────────────┘
//! ```
//! Not here: serving it (`web`), what is judged by it (`deploy/prometheus`).

mod family;
mod native;
pub(crate) mod pages;
mod protobuf;
mod tally;
mod text;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tandem_core::record::Record;

pub use family::{Distribution, Family, Kind, Sample, Value};
pub use native::{ERROR_MAX, NATIVE_SCHEMA, Native};

use crate::Sink;
use crate::plan::Plan;
use crate::source::Look;
use crate::status::Registry;
use pages::Pages;
use tally::Tally;

/// Most series of one answer; a histogram counts as all of its lines.
pub const SERIES_MAX: usize = 5_000;
/// Instruments that have series of their own; of more the first ones do.
pub const PAIRS_MAX: usize = 700;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily`, each with its length before it: with native histograms.
    Protobuf,
}

impl Format {
    /// Returns the `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }

    /// Returns the format that an `Accept` header likes best; text where it says nothing we have.
    #[must_use]
    pub fn wanted(accept: Option<&str>) -> Format {
        let mut best = (Format::Text, 0);
        for range in accept.unwrap_or_default().split(',').take(32) {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<String> = parts.collect();
            let has = |name: &str| parameters.iter().any(|parameter| parameter == name);
            let format = match media.as_str() {
                "application/vnd.google.protobuf"
                    if has("proto=io.prometheus.client.metricfamily")
                        && has("encoding=delimited") =>
                {
                    Format::Protobuf
                }
                "application/openmetrics-text"
                    if !parameters.iter().any(|p| p.starts_with("version="))
                        || has("version=1.0.0") =>
                {
                    Format::OpenMetrics
                }
                "text/plain" | "text/*" | "*/*" => Format::Text,
                _ => continue,
            };
            let quality = parameters.iter().find_map(|parameter| parameter.strip_prefix("q="));
            // Thousandths; what is no number is as if it were not there.
            let quality = quality.and_then(|q| q.parse::<f64>().ok()).unwrap_or(1.0);
            let quality = (quality.clamp(0.0, 1.0) * 1_000.0) as u32;
            if best.1 < quality {
                best = (format, quality);
            }
        }
        best.0
    }
}

/// What the last look made; clones are hands on the same one.
#[derive(Clone, Debug, Default)]
pub struct MetricsPage {
    families: Arc<Mutex<Arc<Vec<Family>>>>,
}

impl MetricsPage {
    /// Returns the content type and the body for an `Accept` header. For any thread; the run's own is held
    /// up for the time of copying a pointer.
    #[must_use]
    pub fn encode(&self, accept: Option<&str>) -> (&'static str, Vec<u8>) {
        let families = self.families();
        let format = Format::wanted(accept);
        let body = match format {
            Format::Text => text::encode(&families, false),
            Format::OpenMetrics => text::encode(&families, true),
            Format::Protobuf => protobuf::encode(&families),
        };
        (format.content_type(), body)
    }

    /// Returns what the last look made.
    #[must_use]
    pub fn families(&self) -> Arc<Vec<Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, families: Vec<Family>) {
        let families = Arc::new(families);
        *self.families.lock().unwrap_or_else(PoisonError::into_inner) = families;
    }
}

/// What a build is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Version of the package.
    pub version: String,
    /// Identity of the binary.
    pub build: String,
    /// Identity of the configuration.
    pub config: String,
    /// `observe`, `paper` or `live`.
    pub mode: String,
}

/// The sink.
pub struct Metrics {
    plan: Plan,
    pages: Pages,
    tally: Tally,
    build: Build,
    registry: Registry,
    page: MetricsPage,
    lost: u64,
}

impl Metrics {
    /// Starts with nothing seen.
    #[must_use]
    pub fn new(plan: &Plan, build: Build, registry: Registry) -> Metrics {
        Metrics {
            pages: Pages::new(plan),
            tally: Tally::new(plan),
            plan: plan.clone(),
            build,
            registry,
            page: MetricsPage::default(),
            lost: 0,
        }
    }

    /// Returns the page that a web server encodes.
    #[must_use]
    pub fn page(&self) -> MetricsPage {
        self.page.clone()
    }

    fn families(&mut self, look: &Look) -> Vec<Family> {
        let mut out = Vec::with_capacity(96);
        out.push(Family::gauge("build_info", "What runs, in its labels; always 1.").with(
            &[
                ("version", &self.build.version),
                ("build", &self.build.build),
                ("config", &self.build.config),
                ("mode", &self.build.mode),
            ],
            1.0,
        ));
        out.push(
            Family::counter("drain_losses_total", "Times that the drain missed records.")
                .with(&[], self.lost as f64),
        );
        out.push(
            Family::gauge("drain_catching_up", "1 while the journal's past is still being read.")
                .with(&[], f64::from(u8::from(look.catching_up))),
        );
        self.pages.families(look, &mut out);
        self.tally.families(look.now_ns, &mut out);
        pages::sinks(&self.registry.look(), look, &mut out);
        bounded(out)
    }
}

/// Leaves out what is beyond the bound, and says how much that was.
fn bounded(mut families: Vec<Family>) -> Vec<Family> {
    let (mut left, mut dropped) = (SERIES_MAX - 2, 0);
    for family in &mut families {
        family.samples.retain(|sample| {
            let lines = sample.value.lines();
            let fits = lines <= left;
            if fits {
                left -= lines;
            } else {
                dropped += lines;
            }
            fits
        });
    }
    let help = "Series of this answer, with this one.";
    let count = Family::gauge("metrics_series", help).with(&[], (SERIES_MAX - left) as f64);
    let help = "Series that were left out of this answer because of the bound.";
    let out = Family::gauge("metrics_series_dropped", help).with(&[], dropped as f64);
    families.splice(0..0, [count, out]);
    families.retain(|family| !family.samples.is_empty());
    families
}

impl Sink for Metrics {
    fn record(&mut self, record: &Record, is_past: bool) {
        self.tally.record(record, is_past, self.plan.read_run);
    }

    fn lost(&mut self, _what: &str) {
        self.lost += 1;
        self.tally.lost();
    }

    fn look(&mut self, look: &Look) {
        let families = self.families(look);
        self.page.replace(families);
    }

    fn close(&mut self, _within: Duration) {
        // There is no thread and nothing to hand over: the last look stays readable.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_liked_best_is_given() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                        encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let check = |accept, expected| assert_eq!(Format::wanted(accept), expected, "{accept:?}");
        check(None, Format::Text);
        check(Some(""), Format::Text);
        check(Some("*/*"), Format::Text);
        check(Some(protobuf), Format::Protobuf);
        check(
            Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
            Format::OpenMetrics,
        );
        check(Some("text/plain, application/openmetrics-text;q=0.2"), Format::Text);
        // Another message, or none that is said: not ours to guess.
        check(Some("application/vnd.google.protobuf"), Format::Text);
        check(Some("application/openmetrics-text;version=2.0.0"), Format::Text);
        check(Some(";;;,,q=x;\u{1F4A3}"), Format::Text);
        check(Some("application/openmetrics-text;q=0"), Format::Text);
    }

    #[test]
    fn no_list_of_a_venue_makes_more_series_than_the_bound() {
        let mut family = Family::gauge("x", "x");
        for n in 0..20_000 {
            family.push(&[("pair", &n.to_string())], 1.0);
        }
        let out = bounded(vec![family, Family::gauge("y", "y").with(&[], 1.0)]);
        let lines: usize =
            out.iter().flat_map(|family| &family.samples).map(|sample| sample.value.lines()).sum();
        assert_eq!(lines, SERIES_MAX);
        assert_eq!(out[0].samples[0].value, Value::Number(5_000.0));
        assert_eq!(out[1].samples[0].value, Value::Number(15_003.0));
        assert_eq!(out.len(), 3, "a family without a series is none");
    }
}

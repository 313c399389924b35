//! `latency`: the live histograms of other processes.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;
use tandem_shm::Snapshot;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::demo::{Percentiles, RunStats, percentiles};

/// What to show.
#[derive(Args, Debug)]
pub struct LatencyArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Only what happens from now on for this long; default: since the tiles' start.
    #[arg(long = "for", value_parser = super::duration)]
    interval: Option<Duration>,
    /// Also write an HdrHistogram interval log (V2, compressed), one tag a stage.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Stage {
    tile: String,
    stage: String,
    #[serde(flatten)]
    percentiles: Percentiles,
}

/// `tandem latency`.
pub fn run(args: &LatencyArgs) -> Done {
    let config = args.config.load()?;
    let stats =
        RunStats::open(&config, Duration::from_millis(200)).map_err(Failure::unreachable)?;
    let started = SystemTime::now();
    let before = args.interval.map(|interval| {
        let before = tiles(&stats);
        std::thread::sleep(interval);
        before
    });
    let mut now = tiles(&stats);
    for ((_, now), (_, before)) in now.iter_mut().zip(before.iter().flatten()) {
        *now = now.since(before);
    }
    let mut histograms: Vec<(String, String, Histogram<u64>)> = Vec::new();
    for (tile, snapshot) in &now {
        for (metric, value) in snapshot.iter() {
            if let tandem_shm::MetricValue::Histogram(histogram) = value {
                let stage = metric.name.clone();
                histograms.push((tile.clone(), stage, histogram.to_hdr()));
            }
        }
    }
    if let Some(path) = &args.export {
        export(path, started, args.interval.unwrap_or_default(), &histograms)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    let stages: Vec<Stage> = histograms
        .iter()
        .map(|(tile, stage, histogram)| Stage {
            tile: tile.clone(),
            stage: stage.clone(),
            percentiles: percentiles(histogram),
        })
        .collect();
    if args.json {
        print_json(&stages);
    } else {
        print(format_args!(
            "{:<17} {:<28} {:>10} {:>10} {:>10} {:>11} {:>10}",
            "tile", "stage", "p50", "p99", "p99.9", "max", "count"
        ));
        for stage in &stages {
            let p = &stage.percentiles;
            print(format_args!(
                "{:<17} {:<28} {:>10} {:>10} {:>10} {:>11} {:>10}",
                stage.tile, stage.stage, p.p50, p.p99, p.p999, p.max, p.count
            ));
        }
    }
    Ok(Outcome::Ok)
}

/// Every tile's figures, in the order of an order's way.
pub fn tiles(stats: &RunStats) -> Vec<(String, Snapshot)> {
    let feeds = stats.feeds().into_iter().map(|(venue, stats)| (venue.name().to_owned(), stats));
    let gateways = stats.gateways().into_iter();
    let gateways = gateways.map(|(venue, stats)| (format!("gateway.{}", venue.name()), stats));
    feeds.chain([("engine".to_owned(), stats.engine())]).chain(gateways).collect()
}

fn export(
    path: &std::path::Path,
    started: SystemTime,
    interval: Duration,
    histograms: &[(String, String, Histogram<u64>)],
) -> std::io::Result<()> {
    let other = |error: &dyn std::fmt::Debug| std::io::Error::other(format!("{error:?}"));
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_start_time(started);
    let mut log =
        builder.begin_log_with(&mut text, &mut serializer).map_err(|error| other(&error))?;
    for (tile, stage, histogram) in histograms {
        let name = format!("{tile}.{stage}");
        let tag = Tag::new(&name).ok_or_else(|| other(&"a tag with a comma or a space"))?;
        log.write_histogram(histogram, Duration::ZERO, interval, Some(tag))
            .map_err(|error| other(&error))?;
    }
    File::create(path)?.write_all(&text)
}

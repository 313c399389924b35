//! How a result depends on what is assumed: the same data at other latencies, competition and fees.
//!
//! Invariant: one assumption differs at a time, the seed stays. Cases are in a fixed order whatever number of
//! threads ran them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tandem_backtest::config::PPM;
use tandem_backtest::{Config, Summary};

use super::{BacktestError, Options, Recording};

/// One case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What differs: `latency`, `competition` or `fees`.
    pub axis: String,
    /// To what: times, share, or taker's fee.
    pub value: String,
    /// What came of it.
    pub summary: Summary,
}

/// Taker's fees of all venues alike, ppm, where the configuration has no tiers: from what beginners pay to nothing.
const FEES_PPM: [i32; 5] = [1_000, 500, 250, 100, 0];

fn cases(config: &Config) -> Vec<(&'static str, String, Config)> {
    let mut all = Vec::new();
    for (name, per_mille) in [("1", 1_000u32), ("1.5", 1_500), ("2", 2_000), ("4", 4_000)] {
        let latency_ppm = config.latency_ppm.saturating_mul(per_mille / 500) / 2;
        all.push(("latency", name.to_owned(), Config { latency_ppm, ..config.clone() }));
    }
    for percent in [0u32, 50, 90] {
        let mut other = config.clone();
        other.competition.share_ppm = PPM / 100 * percent;
        all.push(("competition", percent.to_string(), other));
    }
    // With tiers: every venue at its first, its second, and so on; one with fewer stays at its last.
    let tiers = config.venue.values().map(|model| model.tiers.len()).max().unwrap_or(0);
    for tier in 0..tiers {
        let mut other = config.clone();
        for model in other.venue.values_mut() {
            let reached = std::mem::take(&mut model.tiers);
            if let Some(fee) = reached.get(tier).or(reached.last()) {
                (model.taker_fee_ppm, model.maker_fee_ppm) = (Some(fee.taker_ppm), fee.maker_ppm);
            }
        }
        all.push(("fees", format!("tier {}", tier + 1), other));
    }
    for ppm in FEES_PPM.into_iter().filter(|_| tiers == 0) {
        let mut other = config.clone();
        for venue in tandem_core::record::Venue::ALL {
            let model = other.venue.entry(venue.name().to_owned()).or_default();
            (model.taker_fee_ppm, model.tiers) = (Some(ppm), Vec::new());
        }
        all.push(("fees", format!("{ppm} ppm"), other));
    }
    all
}

/// Runs every case, as many at once as `threads`.
pub fn run(
    recording: &Recording,
    config: &Config,
    threads: usize,
) -> Result<Vec<Case>, BacktestError> {
    let cases = cases(config);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Summary, BacktestError>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, cases.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, _, config)) = cases.get(at) else { return };
                    let run = recording.run(config, &Options::default());
                    let run = run.map(|run| run.outcome.summary);
                    if let Ok(mut done) = done.lock() {
                        done.push((at, run));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter()
        .map(|(at, summary)| {
            let (axis, value, _) = &cases[at];
            Ok(Case { axis: (*axis).to_owned(), value: value.clone(), summary: summary? })
        })
        .collect()
}

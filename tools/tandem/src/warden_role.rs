//! The warden's process: keys and connections of its own, its row on the control page, its gauges.
//!
//! Invariant: what the gauges say is what the warden proved; nobody else writes them.
//!
//! Not here: how a sweep is done and when it is clean (`tandem-gateway::warden`).

use std::path::Path;

use tandem_core::record::Venue;
use tandem_gateway::warden::Warden;
use tandem_shm::{GaugeHandle, Metric, ShmError, StatsWriter, tsc};

/// Name of the warden's stats.
pub const STATS: &str = "warden_stats";
/// What is told of each venue.
const GAUGES: [&str; 6] = ["verdict", "epoch", "began_ns", "first_cancel_ns", "proven_ns", "late"];

/// Returns the name of a venue's gauge.
#[must_use]
pub fn gauge(venue: Venue, what: &str) -> String {
    format!("warden_{}_{what}", venue.name())
}

/// The gauges.
pub struct WardenStats {
    writer: StatsWriter,
    gauges: Vec<(Venue, Vec<GaugeHandle>)>,
}

impl WardenStats {
    /// Makes the page.
    pub fn create(dir: &Path, venues: &[Venue]) -> Result<WardenStats, ShmError> {
        let metrics: Vec<Metric> = venues
            .iter()
            .flat_map(|venue| GAUGES.map(|what| Metric::gauge(gauge(*venue, what), "")))
            .collect();
        let mut writer = StatsWriter::create(dir, STATS, &metrics)?;
        let gauges = venues
            .iter()
            .map(|venue| {
                let handle = |what| writer.gauge(&gauge(*venue, what)).expect("declared above");
                (*venue, GAUGES.map(handle).into())
            })
            .collect();
        Ok(WardenStats { writer, gauges })
    }

    /// Tells what the warden knows now.
    pub fn update(&mut self, warden: &Warden) {
        for (venue, progress) in warden.progress() {
            let Some((_, gauges)) = self.gauges.iter_mut().find(|(v, _)| *v == venue) else {
                continue;
            };
            let values = [
                progress.verdict as i64,
                i64::from(progress.epoch),
                progress.began_ns,
                progress.first_cancel_ns,
                progress.proven_ns,
                progress.late as i64,
            ];
            for (gauge, value) in gauges.iter_mut().zip(values) {
                gauge.set(value);
            }
        }
        self.writer.beat(tsc());
    }

    /// Leaves in order.
    pub fn close(self) {
        self.writer.close();
    }
}

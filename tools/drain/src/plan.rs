//! What the drain is told by its host: where a run's shared memory is, who runs in it, and what may be done.
//!
//! Invariant: the drain reads no configuration and no environment; everything it knows of a run is here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tandem_core::record::Venue;

use crate::run::ReadRun;

/// A process of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// As told to people, e.g. `gateway kraken`.
    pub name: String,
    /// Of which venue.
    pub venue: Option<Venue>,
    /// Where its life is seen.
    pub seen: Seen,
}

/// Where a process's life is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its row of the control page.
    Row(usize),
    /// Its stats, by name.
    Stats(String),
}

/// Names of the stats and figures that others than the feeds and gateways write.
#[derive(Clone, Debug)]
pub struct Names {
    /// The engine's stats.
    pub engine_stats: String,
    /// Turns of the engine without room in the journal.
    pub journal_full: String,
    /// Outputs of the engine that are missing in the journal.
    pub outputs_lost: String,
    /// Overruns of a ring.
    pub overruns: String,
    /// Exposure as a share of its limit, ppm; negative where unknown.
    pub exposure_ppm: String,
    /// The warden's stats.
    pub warden_stats: String,
    /// The warden's verdict by venue.
    pub warden_verdict: BTreeMap<Venue, String>,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its directory in shared memory.
    pub dir: PathBuf,
    /// Its journal.
    pub journal: PathBuf,
    /// Most segments of the journal.
    pub segments_max: u64,
    /// Frames of one segment.
    pub segment_frames: u64,
    /// Whether there is a level: not where the run only observes.
    pub trades: bool,
    /// Whether orders leave: then there are gateways and a warden.
    pub is_live: bool,
    /// The venues.
    pub venues: Vec<Venue>,
    /// The processes.
    pub parts: Vec<Part>,
    /// Names of figures.
    pub names: Names,
    /// Reads a run's configuration out of the journal.
    pub read_run: ReadRun,
    /// Instruments as people call them; one that is missing is told by its number.
    pub instruments: BTreeMap<u16, String>,
}

/// What the drain may do to the run: raise the level, nothing else.
pub trait Hands: Send {
    /// Pauses everything because alerts would not be heard. Says whether that changed anything.
    fn pause(&mut self, reason: &str) -> Result<bool, String>;
}

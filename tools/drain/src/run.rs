//! What a run of the engine was made of, as its journal says: instruments, assets, cycles, mode.
//!
//! Invariant: every number of a record is read with the run that wrote it. A journal's `Config` records
//! come before anything that needs them; whoever reads from the middle of a journal is given the run's
//! description by whoever kept it (the text of [`RunInfo::text`] is all of it).
//!
//! Not here: what a configuration means (`tandem`, which gives the drain a [`ReadRun`]).

use tandem_core::graph::Cycle;
use tandem_core::instrument::{AssetId, Universe};
use tandem_core::record::{Record, flag};
use tandem_core::units::Decimal;
use tandem_feeds::spec::VenueInstrument;

/// Bytes of the text in one record.
const CHUNK: usize = 32;
/// Longest text that is believed: a run of 4096 instruments has some 2 MiB.
const TEXT_MAX: usize = 16 << 20;

/// Makes a run's description of the text of its configuration records.
pub type ReadRun = fn(&str) -> Result<RunInfo, String>;

/// A run of the engine.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// Number of the run; never used twice.
    pub run: u32,
    /// `observe`, `paper` or `live`.
    pub mode: String,
    /// The configuration as it stands in the journal: JSON.
    pub text: String,
    /// Assets and instruments.
    pub universe: Universe,
    /// The venue's side of each instrument; the index is the id in records.
    pub instruments: Vec<VenueInstrument>,
    /// The cycles; the index is the one in records.
    pub cycles: Vec<Cycle>,
    /// Levels a side that feeds publish and the engine keeps: a level that falls out of them is not told, so
    /// whoever rebuilds a book keeps as many.
    pub window_levels: usize,
    /// Asset of limits and results; nothing where the run only observes.
    pub numeraire: Option<AssetId>,
}

impl RunInfo {
    /// Returns an instrument's name at its venue, `?` for one that is none.
    #[must_use]
    pub fn symbol(&self, instrument: u16) -> &str {
        self.instruments.get(usize::from(instrument)).map_or("?", |found| found.symbol.as_str())
    }

    /// Returns an asset's name, `?` for one that is none.
    #[must_use]
    pub fn asset(&self, asset: AssetId) -> &str {
        self.universe.assets.get(usize::from(asset.0)).map_or("?", |found| found.name.as_str())
    }

    /// Returns how many decimals an amount of an asset has.
    #[must_use]
    pub fn asset_exponent(&self, asset: AssetId) -> u8 {
        self.universe.assets.get(usize::from(asset.0)).map_or(0, |found| found.exponent)
    }

    /// Returns a price as decimal text.
    #[must_use]
    pub fn px(&self, instrument: u16, quanta: i64) -> String {
        let found = self.instruments.get(usize::from(instrument));
        Decimal { quanta, exponent: found.map_or(0, |found| found.px_exponent) }.to_string()
    }

    /// Returns a quantity as decimal text.
    #[must_use]
    pub fn qty(&self, instrument: u16, quanta: i64) -> String {
        let found = self.instruments.get(usize::from(instrument));
        Decimal { quanta, exponent: found.map_or(0, |found| found.qty_exponent) }.to_string()
    }

    /// Returns an amount of an asset as decimal text.
    #[must_use]
    pub fn amount(&self, asset: AssetId, quanta: i64) -> String {
        Decimal { quanta, exponent: self.asset_exponent(asset) }.to_string()
    }
}

/// Collects the text of a configuration from the records that carry it.
#[derive(Clone, Debug, Default)]
pub struct ConfigText {
    bytes: Vec<u8>,
}

impl ConfigText {
    /// Returns the payloads of the records that carry a text, in order: data, flags, update id.
    pub fn payloads(text: &[u8]) -> impl Iterator<Item = ([i64; 4], u8, u64)> + '_ {
        let count = text.len().div_ceil(CHUNK);
        text.chunks(CHUNK).enumerate().map(move |(idx, chunk)| {
            let mut bytes = [0u8; CHUNK];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let mut data = [0i64; 4];
            for (word, bytes) in data.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = i64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
            }
            (data, if idx + 1 < count { flag::MORE } else { 0 }, text.len() as u64)
        })
    }

    /// Returns the bytes of a text that is not complete yet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Goes on with the bytes of a text that was not complete.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> ConfigText {
        ConfigText { bytes }
    }

    /// Takes one record of kind `Config`; returns the text with the last one.
    pub fn take(&mut self, record: &Record) -> Option<Result<String, String>> {
        if self.bytes.len() < TEXT_MAX {
            self.bytes.extend(record.data.into_iter().flat_map(i64::to_le_bytes));
        }
        if record.has(flag::MORE) {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        // A writer that was killed at its configuration leaves the beginning of one; the last chunks are
        // the whole one.
        let length = usize::try_from(record.update_id).unwrap_or(usize::MAX).min(bytes.len());
        let whole = length.div_ceil(CHUNK) * CHUNK;
        bytes.drain(..bytes.len().saturating_sub(whole));
        bytes.truncate(length);
        Some(String::from_utf8(bytes).map_err(|error| error.to_string()))
    }
}

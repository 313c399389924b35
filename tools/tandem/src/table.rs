//! The instruments of a run: read from the venues once, then the same for every process and for replay.
//!
//! Invariant: every process of a run and every replay of its journal build the same universe from the
//! same [`Setup`]. It is kept as text in the run's directory and in the journal's first records; numbers
//! in it are the venues' own decimals.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tandem_core::engine::{Engine, EngineError};
use tandem_core::instrument::{Asset, AssetId, FeeIn, Universe};
use tandem_core::limits::{Mode, Trading};
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{Kind, Record, TradingStatus, Venue};
use tandem_core::units::{Decimal, FeePpm};
use tandem_drain::run::{ConfigText, RunInfo};
use tandem_feeds::spec::{InstrumentRules, Listing, SpecError, VenueInstrument, build_universe};

use crate::config::{Config, venue_named};
use crate::fetch::{self, FetchError};
use crate::limits::{Limits, LimitsError};

/// File of the setup in the run's directory.
pub const FILE: &str = "setup.json";

/// Why there is no setup.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The venue could not be asked.
    #[error("{venue}: {error}", venue = venue.name())]
    Fetch {
        /// Which.
        venue: Venue,
        /// Why.
        error: FetchError,
    },
    /// The venue does not list a symbol of the configuration.
    #[error(
        "{venue}: `{symbol}` is not listed; the nearest it lists is `{nearest}`: correct \
         venue.{venue}.symbols",
        venue = venue.name()
    )]
    Unlisted {
        /// Where.
        venue: Venue,
        /// Which.
        symbol: String,
        /// What may have been meant.
        nearest: String,
    },
    /// No limit for a quote asset.
    #[error(
        "{venue}: {symbol} is quoted in {quote}, which has no limit: add {quote} to \
         venue.{venue}.notional_max",
        venue = venue.name()
    )]
    NoLimit {
        /// Where.
        venue: Venue,
        /// Which instrument.
        symbol: String,
        /// Its quote asset.
        quote: String,
    },
    /// A limit does not fit its asset.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The instruments do not fit together.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The engine refuses them.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file or the journal's first records are not a setup.
    #[error("{place}: not a setup of this build: {detail}")]
    Text {
        /// Where it was read.
        place: String,
        /// Why it was refused.
        detail: String,
    },
}

/// Everything the engine is built from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Mode of the run.
    pub mode: String,
    /// Instruments; the index is the id in records.
    pub listings: Vec<ListingText>,
    /// Detection.
    pub detection: Detection,
    /// What an operator allows; observing needs none.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// Number of the engine's run, 0 before it has one; never used twice.
    #[serde(default)]
    pub run: u32,
}

/// An instrument as listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of InstrumentRules and Listing")]
pub struct ListingText {
    pub venue: String,
    pub symbol: String,
    pub feed_symbol: String,
    pub rest_symbol: String,
    pub base: String,
    pub quote: String,
    pub tick: String,
    pub lot: String,
    pub qty_min: String,
    pub qty_max: String,
    pub notional_min: String,
    pub price_precision: Option<u8>,
    pub qty_precision: Option<u8>,
    pub asset_precision: Option<u8>,
    pub status: u8,
    pub taker_fee_ppm: i32,
    pub fee_in: String,
    pub notional_max: String,
}

/// Parameters of detection, with the configuration's units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the configuration")]
pub struct Detection {
    pub edge_min_ppm: i32,
    pub edge_max_ppm: i32,
    pub edge_max_halt_s: u32,
    pub basis_ppm: i32,
    pub numeraires: Vec<String>,
    pub legs_max: usize,
    pub cycles_max: usize,
    pub window_levels: usize,
    pub flicker_ms: u32,
    pub denial_ms: u32,
    pub update_ms: u32,
    pub venues: BTreeMap<String, VenueDetection>,
}

/// What is assumed of one venue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the configuration")]
pub struct VenueDetection {
    pub slippage_ppm: i32,
    pub staleness_ppm_per_s: i32,
    pub age_max_ms: u32,
    pub order_latency_ms: u32,
}

impl ListingText {
    fn new(listing: &Listing) -> ListingText {
        let rules = listing.rules.clone();
        ListingText {
            venue: rules.venue.name().to_owned(),
            symbol: rules.symbol,
            feed_symbol: rules.feed_symbol,
            rest_symbol: rules.rest_symbol,
            base: rules.base,
            quote: rules.quote,
            tick: rules.tick,
            lot: rules.lot,
            qty_min: rules.qty_min,
            qty_max: rules.qty_max,
            notional_min: rules.notional_min,
            price_precision: rules.price_precision,
            qty_precision: rules.qty_precision,
            asset_precision: rules.asset_precision,
            status: rules.status as u8,
            taker_fee_ppm: listing.taker_fee.0,
            fee_in: match listing.fee_in {
                FeeIn::Received => "received".to_owned(),
                FeeIn::Quote => "quote".to_owned(),
            },
            notional_max: listing.notional_max.clone(),
        }
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing {
            rules: InstrumentRules {
                venue: venue_named(&self.venue)?,
                symbol: self.symbol.clone(),
                feed_symbol: self.feed_symbol.clone(),
                rest_symbol: self.rest_symbol.clone(),
                base: self.base.clone(),
                quote: self.quote.clone(),
                tick: self.tick.clone(),
                lot: self.lot.clone(),
                qty_min: self.qty_min.clone(),
                qty_max: self.qty_max.clone(),
                notional_min: self.notional_min.clone(),
                price_precision: self.price_precision,
                qty_precision: self.qty_precision,
                asset_precision: self.asset_precision,
                status: TradingStatus::from_tag(self.status.into())?,
            },
            taker_fee: FeePpm(self.taker_fee_ppm),
            fee_in: match self.fee_in.as_str() {
                "received" => FeeIn::Received,
                "quote" => FeeIn::Quote,
                _ => return None,
            },
            notional_max: self.notional_max.clone(),
        })
    }
}

/// A setup with what is made of it.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it was made of.
    pub setup: Setup,
    /// Assets and instruments.
    pub universe: Universe,
    /// The venue's side of each instrument; the index is the id.
    pub instruments: Vec<VenueInstrument>,
    /// Detection in the engine's units.
    pub params: Params,
}

impl Table {
    /// Returns what the setup allows, in the engine's units; nothing where it only observes.
    pub fn trading(&self) -> Result<Option<Trading>, LimitsError> {
        let mode = match self.setup.mode.as_str() {
            "paper" => Mode::Paper,
            "live" => Mode::Live,
            _ => return Ok(None),
        };
        let Some(limits) = &self.setup.limits else { return Ok(None) };
        // A setup that no engine has taken up yet has no number; checks need one.
        limits.trading(&self.universe, mode, self.setup.run.max(1)).map(Some)
    }

    /// Builds everything from a setup; `place` is for messages.
    pub fn build(setup: Setup, place: &str) -> Result<Table, TableError> {
        let text =
            |detail: &str| TableError::Text { place: place.to_owned(), detail: detail.to_owned() };
        let listings: Option<Vec<Listing>> =
            setup.listings.iter().map(ListingText::listing).collect();
        let listings = listings.ok_or_else(|| text("unknown venue, status or fee_in"))?;
        let (universe, instruments) = build_universe(&listings)?;
        let params = params(&setup.detection, &universe.assets);
        Ok(Table { setup, universe, instruments, params })
    }

    /// Returns a new engine.
    pub fn engine(&self) -> Result<Engine, TableError> {
        let (universe, params) = (self.universe.clone(), self.params.clone());
        Ok(match self.trading()? {
            Some(trading) => Engine::with_trading(universe, params, trading)?,
            None => Engine::new(universe, params)?,
        })
    }

    /// Returns a venue's instruments, in the order of its machine's slots.
    #[must_use]
    pub fn of_venue(&self, venue: Venue) -> Vec<VenueInstrument> {
        self.instruments.iter().filter(|i| i.venue == venue).cloned().collect()
    }

    /// Returns a price as decimal text.
    #[must_use]
    pub fn px(&self, instrument: u16, quanta: i64) -> String {
        let exponent = self.instruments[usize::from(instrument)].px_exponent;
        Decimal { quanta, exponent }.to_string()
    }

    /// Returns a quantity as decimal text.
    #[must_use]
    pub fn qty(&self, instrument: u16, quanta: i64) -> String {
        let exponent = self.instruments[usize::from(instrument)].qty_exponent;
        Decimal { quanta, exponent }.to_string()
    }

    /// Returns an amount of an asset as decimal text.
    #[must_use]
    pub fn amount(&self, asset: AssetId, quanta: i64) -> String {
        let exponent = self.universe.assets.get(usize::from(asset.0)).map_or(0, |a| a.exponent);
        Decimal { quanta, exponent }.to_string()
    }

    /// Returns an asset's name.
    #[must_use]
    pub fn asset(&self, asset: AssetId) -> &str {
        self.universe.assets.get(usize::from(asset.0)).map_or("?", |a| a.name.as_str())
    }
}

/// Returns detection in the engine's units. A numeraire that is no asset of the run counts nothing.
#[must_use]
pub fn params(d: &Detection, assets: &[Asset]) -> Params {
    let ms = |ms: u32| i64::from(ms) * 1_000_000;
    let unused =
        VenueParams { slippage_ppm: 0, staleness_ppm_per_s: 0, age_ns_max: 1, order_latency_ns: 0 };
    let venues = Venue::ALL.map(|venue| {
        d.venues.get(venue.name()).map_or(unused, |v| VenueParams {
            slippage_ppm: v.slippage_ppm,
            staleness_ppm_per_s: v.staleness_ppm_per_s,
            age_ns_max: ms(v.age_max_ms),
            order_latency_ns: ms(v.order_latency_ms),
        })
    });
    let asset =
        |name: &String| assets.iter().position(|a| a.name == *name).map(|idx| AssetId(idx as u16));
    Params {
        edge_min_ppm: d.edge_min_ppm,
        edge_max_ppm: d.edge_max_ppm,
        edge_max_halt_ns: i64::from(d.edge_max_halt_s) * 1_000_000_000,
        basis_ppm: d.basis_ppm,
        venues,
        numeraires: d.numeraires.iter().filter_map(asset).collect(),
        legs_max: d.legs_max,
        cycles_max: d.cycles_max,
        window_levels: d.window_levels,
        flicker_ns: ms(d.flicker_ms),
        denial_ns: ms(d.denial_ms),
        update_ns: ms(d.update_ms),
    }
}

/// Asks every venue for its instruments' rules and makes the setup of a run.
pub fn ask_venues(config: &Config) -> Result<Setup, TableError> {
    let mut listings = Vec::new();
    for (venue, venue_config) in config.venues() {
        let rules = fetch::metadata(venue, venue_config)
            .map_err(|error| TableError::Fetch { venue, error })?;
        for symbol in &venue_config.symbols {
            let Some(rules) = rules.iter().find(|rules| rules.symbol == *symbol) else {
                let nearest = rules
                    .iter()
                    .map(|rules| rules.symbol.as_str())
                    .max_by(|a, b| {
                        strsim::jaro_winkler(symbol, a).total_cmp(&strsim::jaro_winkler(symbol, b))
                    })
                    .unwrap_or("(nothing)");
                let (symbol, nearest) = (symbol.clone(), nearest.to_owned());
                return Err(TableError::Unlisted { venue, symbol, nearest });
            };
            let notional_max = venue_config.notional_max.get(&rules.quote);
            let notional_max = notional_max.ok_or_else(|| TableError::NoLimit {
                venue,
                symbol: symbol.clone(),
                quote: rules.quote.clone(),
            })?;
            let listing = Listing {
                rules: rules.clone(),
                taker_fee: venue_config.taker_fee(),
                fee_in: venue_config.fee_in(),
                notional_max: notional_max.clone(),
            };
            listings.push(ListingText::new(&listing));
        }
    }
    Ok(Setup {
        mode: config.run.mode.name().to_owned(),
        listings,
        detection: detection(config),
        limits: config.limits.clone(),
        run: 0,
    })
}

/// Returns the configuration's detection part.
#[must_use]
pub fn detection(config: &Config) -> Detection {
    let engine = config.engine.clone();
    Detection {
        edge_min_ppm: engine.edge_min_ppm,
        edge_max_ppm: engine.edge_max_ppm,
        edge_max_halt_s: engine.edge_max_halt_s,
        basis_ppm: engine.basis_ppm,
        numeraires: engine.numeraires,
        legs_max: engine.legs_max,
        cycles_max: engine.cycles_max,
        window_levels: engine.window_levels,
        flicker_ms: engine.flicker_ms,
        denial_ms: engine.denial_ms,
        update_ms: engine.update_ms,
        venues: config
            .venues()
            .into_iter()
            .map(|(venue, v)| {
                let detection = VenueDetection {
                    slippage_ppm: v.slippage_ppm,
                    staleness_ppm_per_s: v.staleness_ppm_per_s,
                    age_max_ms: v.age_max_ms,
                    order_latency_ms: v.order_latency_ms,
                };
                (venue.name().to_owned(), detection)
            })
            .collect(),
    }
}

/// Writes a run's setup for its processes; other processes see the old one or the new one, never half.
pub fn save(dir: &Path, setup: &Setup) -> Result<(), TableError> {
    let io = |path: &Path, error| TableError::Io { path: path.to_owned(), error };
    let path = dir.join(FILE);
    let temporary = dir.join(format!("{FILE}.{}", std::process::id()));
    let text =
        serde_json::to_string_pretty(setup).map_err(|error| io(&path, io::Error::other(error)))?;
    fs::write(&temporary, text).map_err(|error| io(&temporary, error))?;
    fs::rename(&temporary, &path).map_err(|error| io(&path, error))
}

/// Reads a run's setup.
pub fn load(dir: &Path) -> Result<Table, TableError> {
    let path = dir.join(FILE);
    let text =
        fs::read_to_string(&path).map_err(|error| TableError::Io { path: path.clone(), error })?;
    parse(&text, &path.display().to_string())
}

fn parse(text: &str, place: &str) -> Result<Table, TableError> {
    let setup = serde_json::from_str(text)
        .map_err(|error| TableError::Text { place: place.to_owned(), detail: error.to_string() })?;
    Table::build(setup, place)
}

/// Returns the run's setup, asking the venues if nobody did yet.
pub fn load_or_ask(config: &Config) -> Result<Table, TableError> {
    match load(&config.run.dir) {
        Ok(table) => {
            let mut wanted = Vec::new();
            for (venue, of_venue) in config.venues() {
                wanted
                    .extend(of_venue.symbols.iter().map(|s| (venue.name().to_owned(), s.clone())));
            }
            let listed = table.setup.listings.iter().map(|l| (l.venue.clone(), l.symbol.clone()));
            if table.setup.detection == detection(config)
                && table.setup.limits == config.limits
                && table.setup.mode == config.run.mode.name()
                && listed.eq(wanted)
            {
                return Ok(table);
            }
            return Err(TableError::Text {
                place: config.run.dir.join(FILE).display().to_string(),
                detail: "it was made from another configuration; stop the run and start it with \
                         `tandem up`, or delete the file"
                    .to_owned(),
            });
        }
        Err(TableError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let setup = ask_venues(config)?;
    save(&config.run.dir, &setup)?;
    Table::build(setup, "the venues")
}

/// Returns the records that carry a setup at the beginning of a run.
pub fn to_records(setup: &Setup) -> Result<Vec<Record>, TableError> {
    let error = |error: serde_json::Error| TableError::Text {
        place: "the configuration".to_owned(),
        detail: error.to_string(),
    };
    let text = serde_json::to_vec(setup).map_err(error)?;
    Ok(ConfigText::payloads(&text)
        .map(|(data, flags, update_id)| Record {
            flags,
            update_id,
            ..Record::new(Kind::Config, 0, u16::MAX, data)
        })
        .collect())
}

/// Reads a run's configuration for the drain.
pub fn run_info(text: &str) -> Result<RunInfo, String> {
    let table = parse(text, "the journal's configuration records").map_err(|e| e.to_string())?;
    let cycles = table.engine().map_err(|error| error.to_string())?.graph().cycles().to_vec();
    let numeraire = table.trading().map_err(|e| e.to_string())?.map(|trading| trading.numeraire);
    Ok(RunInfo {
        run: table.setup.run,
        mode: table.setup.mode,
        text: text.to_owned(),
        universe: table.universe,
        instruments: table.instruments,
        cycles,
        window_levels: table.params.window_levels,
        numeraire,
    })
}

/// Collects a setup from the records that carry it.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    text: ConfigText,
}

impl Collector {
    /// Takes one record of kind `Config`; returns the table with the last one.
    pub fn take(&mut self, record: &Record) -> Option<Result<Table, TableError>> {
        let place = "the journal's configuration records";
        let text = self
            .text
            .take(record)?
            .map_err(|detail| TableError::Text { place: place.to_owned(), detail });
        Some(text.and_then(|text| parse(&text, place)))
    }
}

/// A setup with BTC/USD at Coinbase and Kraken, free of fees and buffers.
#[cfg(test)]
pub(crate) fn plain_setup() -> Setup {
    let listing = |venue: &str, symbol: &str, tick: &str| ListingText {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        feed_symbol: symbol.to_owned(),
        rest_symbol: symbol.to_owned(),
        base: "BTC".to_owned(),
        quote: "USD".to_owned(),
        tick: tick.to_owned(),
        lot: "0.00000001".to_owned(),
        qty_min: String::new(),
        qty_max: String::new(),
        notional_min: String::new(),
        price_precision: Some(1),
        qty_precision: Some(8),
        asset_precision: None,
        status: TradingStatus::Trading as u8,
        taker_fee_ppm: 0,
        fee_in: "quote".to_owned(),
        notional_max: "100000000".to_owned(),
    };
    let venue = VenueDetection {
        slippage_ppm: 0,
        staleness_ppm_per_s: 0,
        age_max_ms: 60_000,
        order_latency_ms: 0,
    };
    Setup {
        mode: "observe".to_owned(),
        listings: vec![listing("coinbase", "BTC-USD", "0.01"), listing("kraken", "BTC/USD", "0.1")],
        limits: None,
        run: 0,
        detection: Detection {
            edge_min_ppm: 0,
            edge_max_ppm: 100_000,
            edge_max_halt_s: 0,
            basis_ppm: 0,
            numeraires: vec!["USD".to_owned()],
            legs_max: 2,
            cycles_max: 10,
            window_levels: 50,
            flicker_ms: 0,
            denial_ms: 1,
            update_ms: 1,
            venues: ["coinbase", "kraken"].map(|name| (name.to_owned(), venue.clone())).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_comes_back_from_records() {
        let setup = plain_setup();
        let mut collector = Collector::default();
        let mut found = None;
        for record in to_records(&setup).expect("text") {
            assert!(found.is_none());
            found = collector.take(&record);
        }
        let table = found.expect("the last record ends it").expect("the same text");
        assert_eq!(table.setup, setup);
        assert_eq!(table.px(0, 6_500_001), "65000.01");
    }

    #[test]
    fn the_beginning_of_another_configuration_is_passed_over() {
        let records = to_records(&plain_setup()).expect("text");
        let mut collector = Collector::default();
        let cut = records[..5].iter().chain(&records);
        let found = cut.filter_map(|record| collector.take(record)).next().expect("an end");
        assert_eq!(found.expect("the whole one").setup, plain_setup());
    }

    #[test]
    fn damage_is_told() {
        let mut records = to_records(&plain_setup()).expect("text");
        records[3].data[1] = -1;
        let mut collector = Collector::default();
        let found = records.iter().find_map(|record| collector.take(record)).expect("an end");
        assert!(matches!(found, Err(TableError::Text { .. })));
    }
}

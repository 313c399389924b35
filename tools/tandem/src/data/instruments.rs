//! The instruments of the files: what they are called, how fine their numbers are, and the setup made of that.
//!
//! Invariant: tick and lot are what an operator says, or else one unit of the finest place that any file uses; a
//! number that an operator's tick or lot does not divide is refused where it stands. A symbol whose assets cannot
//! be told from it is an error that says how to name them.

use std::collections::BTreeMap;

use tandem_core::instrument::INSTRUMENTS_MAX;
use tandem_core::record::{TradingStatus, Venue};

use super::error::{DataError, Place, shown};
use super::number::Number;
use super::row::{Class, Named, Row};
use super::{Fees, Options};
use crate::config::venue_named;
use crate::table::{Detection, ListingText, Setup, VenueDetection};

/// Quote assets by which Binance's symbols are split, the longest first.
const QUOTES: [&str; 20] = [
    "FDUSD", "TUSD", "USDT", "USDC", "BUSD", "RUNE", "USD1", "BTC", "ETH", "BNB", "EUR", "USD",
    "GBP", "TRY", "BRL", "JPY", "DAI", "AUD", "PAX", "SOL",
];

/// Venue and symbol, as options name them: `binance:BTCUSDT`.
pub type Key = (Venue, String);

/// Reads `binance:BTCUSDT`.
pub fn key(text: &str) -> Option<Key> {
    let (venue, symbol) = text.split_once(':')?;
    (!symbol.is_empty()).then_some((venue_named(venue)?, symbol.to_owned()))
}

/// What is known of an instrument.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Venue.
    pub venue: Venue,
    /// The venue's symbol.
    pub symbol: String,
    /// Places of the finest price and quantity.
    px_places: u8,
    qty_places: u8,
    /// Whether a file has levels of its book.
    pub has_depth: bool,
    /// Whether a file has a snapshot of its book.
    pub has_snapshot: bool,
    /// Where it was first met.
    first: Option<Place>,
    tick: Option<Number>,
    lot: Option<Number>,
}

/// What is wrong with a row, before anybody says where it stands.
#[derive(Clone, Debug)]
pub struct Wrong {
    found: String,
    fix: String,
}

impl Wrong {
    /// Returns the error of a place.
    #[must_use]
    pub fn at(self, place: Place) -> DataError {
        DataError::Line { place, found: self.found, fix: self.fix }
    }

    fn bare(&self) -> DataError {
        DataError::Options(format!("{}; {}", self.found, self.fix))
    }
}

/// The instruments of all files.
#[derive(Debug, Default)]
pub struct Instruments {
    listed: Vec<Listed>,
    index: BTreeMap<Venue, BTreeMap<String, u16>>,
    exchanges: BTreeMap<Venue, String>,
}

impl Instruments {
    /// Returns an instrument's index.
    #[must_use]
    pub fn find(&self, named: &Named<'_>) -> Option<u16> {
        self.index.get(&named.venue)?.get(named.symbol).copied()
    }

    /// Returns an instrument.
    #[must_use]
    pub fn get(&self, instrument: u16) -> Option<&Listed> {
        self.listed.get(usize::from(instrument))
    }

    /// Returns all of them.
    #[must_use]
    pub fn all(&self) -> &[Listed] {
        &self.listed
    }

    /// Takes a row; returns its instrument's index.
    pub fn take(&mut self, named: &Named<'_>, row: &Row, options: &Options) -> Result<u16, Wrong> {
        let idx = match self.find(named) {
            Some(idx) => idx,
            None => self.add(named, options)?,
        };
        let listed = &mut self.listed[usize::from(idx)];
        let class = row.what.class();
        listed.has_depth |= matches!(class, Class::Snapshot | Class::Update);
        listed.has_snapshot |= class == Class::Snapshot;
        let mut off = None;
        row.what.resting(|at| {
            let of_tick = listed.tick.is_none_or(|tick| at.px.is_multiple_of(tick));
            let of_lot = listed.lot.is_none_or(|lot| at.qty.is_multiple_of(lot));
            if !of_tick {
                off = Some(("tick", at.px, listed.tick));
            } else if !of_lot {
                off = Some(("lot", at.qty, listed.lot));
            }
            listed.px_places = listed.px_places.max(at.px.places());
            listed.qty_places = listed.qty_places.max(at.qty.places());
        });
        if let Some((what, number, Some(step))) = off {
            let found = format!("{number} is not a multiple of the {what} {step}");
            let fix = "name the venue's own with --tick and --lot, or leave them out";
            return Err(Wrong { found, fix: fix.to_owned() });
        }
        Ok(idx)
    }

    /// Notes where an instrument was met; the first place stays.
    pub fn met(&mut self, instrument: u16, place: impl FnOnce() -> Place) {
        if let Some(listed) = self.listed.get_mut(usize::from(instrument))
            && listed.first.is_none()
        {
            listed.first = Some(place());
        }
    }

    fn add(&mut self, named: &Named<'_>, options: &Options) -> Result<u16, Wrong> {
        let wrong = |found: String, fix: &str| Err(Wrong { found, fix: fix.to_owned() });
        if INSTRUMENTS_MAX <= self.listed.len() + 1 {
            let found = format!("more than {} instruments", INSTRUMENTS_MAX - 1);
            return wrong(found, "import fewer files at a time");
        }
        let exchange = self.exchanges.entry(named.venue).or_insert(named.exchange.to_owned());
        if exchange != named.exchange {
            let found = format!("is of {}, other rows are of {exchange}", named.exchange);
            return wrong(found, "they are one venue here: import them apart");
        }
        let key = (named.venue, named.symbol.to_owned());
        if !options.pairs.contains_key(&key) && split(named.venue, named.symbol).is_none() {
            let (name, symbol) = (named.venue.name(), shown(named.symbol.as_bytes()));
            let found = format!("base and quote cannot be told from the symbol {symbol}");
            return wrong(found, &format!("name them: --pair {name}:SYMBOL=BASE/QUOTE"));
        }
        let idx = self.listed.len() as u16;
        self.listed.push(Listed {
            venue: named.venue,
            symbol: named.symbol.to_owned(),
            px_places: 0,
            qty_places: 0,
            has_depth: false,
            has_snapshot: false,
            first: None,
            tick: options.ticks.get(&key).copied(),
            lot: options.lots.get(&key).copied(),
        });
        self.index.entry(named.venue).or_default().insert(named.symbol.to_owned(), idx);
        Ok(idx)
    }

    /// Refuses options about instruments that no file has, and books that nobody can know.
    pub fn check(&self, options: &Options) -> Result<(), DataError> {
        let named = options.ticks.keys().chain(options.lots.keys()).chain(options.pairs.keys());
        for (venue, symbol) in named {
            let known = self.index.get(venue).is_some_and(|of| of.contains_key(symbol));
            if !known {
                let text = format!("{}:{symbol}: no file has this instrument", venue.name());
                return Err(DataError::Options(format!("{text}; correct the option")));
            }
        }
        for listed in &self.listed {
            if listed.has_depth && !listed.has_snapshot && !options.start_empty {
                let found = format!("{} has changes of a book and no snapshot", listed.symbol);
                let fix = "give the file that begins with one too, or --start-empty to take the \
                           book as empty before the first change";
                let wrong = Wrong { found, fix: fix.to_owned() };
                let place = listed.first.clone();
                return Err(place.map_or_else(|| wrong.bare(), |place| wrong.clone().at(place)));
            }
        }
        Ok(())
    }

    /// Returns the setup: instruments in the order in which they were met.
    #[must_use]
    pub fn setup(&self, options: &Options) -> Setup {
        let text = |step: Option<Number>, places: u8| {
            step.map_or_else(|| unit(usize::from(places)), |step| step.to_string())
        };
        let listings = self.listed.iter().map(|listed| {
            let key = (listed.venue, listed.symbol.clone());
            let pair = options.pairs.get(&key).cloned();
            let (base, quote) =
                pair.or_else(|| split(listed.venue, &listed.symbol)).unwrap_or_default();
            let (px, qty) = (listed.px_places, listed.qty_places);
            let steps = (text(listed.tick, px), text(listed.lot, qty));
            listing(listed.venue, &listed.symbol, (base, quote), steps, (px, qty), options.fees)
        });
        observing(listings.collect(), options.fees, options.window_levels)
    }
}

/// Base and quote of a venue's symbol by their common names.
pub fn split(venue: Venue, symbol: &str) -> Option<(String, String)> {
    let (base, quote) = match venue {
        Venue::Coinbase => symbol.split_once('-').or_else(|| symbol.split_once('/'))?,
        Venue::Kraken => symbol.split_once('/')?,
        Venue::Binance => match symbol.split_once('/') {
            Some(pair) => pair,
            None => {
                let ends = |q: &&&str| symbol.ends_with(**q) && q.len() < symbol.len();
                let quote = QUOTES.iter().find(ends)?;
                (symbol.strip_suffix(quote)?, *quote)
            }
        },
    };
    let common = |asset: &str| match (venue, asset) {
        (Venue::Kraken, "XBT") => "BTC".to_owned(),
        (Venue::Kraken, "XDG") => "DOGE".to_owned(),
        _ => asset.to_owned(),
    };
    (!base.is_empty() && !quote.is_empty()).then(|| (common(base), common(quote)))
}

/// One unit of the last of so many places.
#[must_use]
pub fn unit(places: usize) -> String {
    match places {
        0 => "1".to_owned(),
        places => format!("0.{}1", "0".repeat(places - 1)),
    }
}

/// Returns a listing of what a recording shows: no rules but the steps of its numbers.
#[must_use]
pub fn listing(
    venue: Venue,
    symbol: &str,
    (base, quote): (String, String),
    (tick, lot): (String, String),
    (px_places, qty_places): (u8, u8),
    fees: Fees,
) -> ListingText {
    ListingText {
        venue: venue.name().to_owned(),
        symbol: symbol.to_owned(),
        feed_symbol: symbol.to_owned(),
        rest_symbol: symbol.to_owned(),
        base,
        quote,
        tick,
        lot,
        qty_min: String::new(),
        qty_max: String::new(),
        notional_min: String::new(),
        price_precision: Some(px_places),
        qty_precision: Some(qty_places),
        asset_precision: None,
        status: TradingStatus::Trading as u8,
        taker_fee_ppm: fees.taker_fee_ppm,
        fee_in: "quote".to_owned(),
        notional_max: "1000000000".to_owned(),
    }
}

/// Returns the setup of a run that only looks at what was recorded.
#[must_use]
pub fn observing(listings: Vec<ListingText>, fees: Fees, window_levels: usize) -> Setup {
    let venue = VenueDetection {
        slippage_ppm: fees.slippage_ppm,
        staleness_ppm_per_s: 0,
        // A recording has no connections to be judged by; what it holds was received.
        age_max_ms: 600_000,
        order_latency_ms: 0,
    };
    Setup {
        mode: "observe".to_owned(),
        listings,
        limits: None,
        run: 0,
        detection: Detection {
            edge_min_ppm: fees.edge_min_ppm,
            edge_max_ppm: 500_000,
            edge_max_halt_s: 0,
            basis_ppm: 0,
            numeraires: ["USD", "USDT", "USDC"].map(str::to_owned).to_vec(),
            legs_max: 3,
            cycles_max: 100_000,
            window_levels,
            flicker_ms: 0,
            denial_ms: 1_000,
            update_ms: 1,
            venues: Venue::ALL.map(|v| (v.name().to_owned(), venue.clone())).into(),
        },
    }
}

//! Instruments as venues describe them, and the one universe made of them.
//!
//! Invariant: every exponent is fixed here, once, before the first message. A base asset has one quantity
//! exponent and a base/quote pair one price exponent on all venues, each the finest that any enabled
//! venue uses, so that venues compare as plain integers. What does not fit is refused by the name of its
//! symbol; nothing is rounded to make it fit, but for limits, which are rounded to the safe side.
//!
//! Not here: how a venue's reply is read (`meta` of each venue), what the engine checks again
//! (`tandem_core::instrument`).

use std::collections::BTreeMap;

use tandem_core::instrument::{
    Asset, AssetId, FeeIn, INSTRUMENTS_MAX, Instrument, Universe, UniverseError,
};
use tandem_core::record::{TradingStatus, Venue};
use tandem_core::units::{Amount, EXPONENT_MAX, FeePpm, Px, Qty, parse_decimal};

/// An instrument's rules as read from its venue; numbers are the venue's decimal text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstrumentRules {
    /// Where.
    pub venue: Venue,
    /// The venue's symbol as orders and subscriptions name it.
    pub symbol: String,
    /// The symbol that market-data messages carry: another one for Coinbase's `X-USDC`, which is an alias
    /// of `X-USD`.
    pub feed_symbol: String,
    /// The symbol that REST takes.
    pub rest_symbol: String,
    /// Base asset by its common name (`BTC`, never `XBT`).
    pub base: String,
    /// Quote asset by its common name.
    pub quote: String,
    /// Smallest price move.
    pub tick: String,
    /// Smallest quantity move.
    pub lot: String,
    /// Smallest order; empty where the venue names none.
    pub qty_min: String,
    /// Largest order; empty where the venue names none.
    pub qty_max: String,
    /// Smallest order worth, in quote; empty where the venue names none.
    pub notional_min: String,
    /// Decimals the venue prints of a price, where it says so: Kraken's checksum is over exactly these.
    pub price_precision: Option<u8>,
    /// Decimals the venue prints of a quantity, where it says so.
    pub qty_precision: Option<u8>,
    /// Decimals the venue keeps of the base asset. Resting orders from before a coarser lot can have
    /// that many, so they are provided for where they fit.
    pub asset_precision: Option<u8>,
    /// Whether orders are taken.
    pub status: TradingStatus,
}

/// An instrument to trade, with what the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What the venue says.
    pub rules: InstrumentRules,
    /// What the venue charges us to take.
    pub taker_fee: FeePpm,
    /// Which asset the fee comes from.
    pub fee_in: FeeIn,
    /// Largest order worth we allow, decimal text in quote.
    pub notional_max: String,
}

/// What a feed needs of an instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VenueInstrument {
    /// Index in the universe: what records carry.
    pub id: u16,
    /// Where.
    pub venue: Venue,
    /// As orders and subscriptions name it.
    pub symbol: String,
    /// As market-data messages name it.
    pub feed_symbol: String,
    /// As REST names it.
    pub rest_symbol: String,
    /// A price counts 10^-`px_exponent`.
    pub px_exponent: u8,
    /// A quantity counts 10^-`qty_exponent`.
    pub qty_exponent: u8,
    /// An order worth counts 10^-`notional_exponent`.
    pub notional_exponent: u8,
    /// Kraken: decimals of a price in the checksum.
    pub price_precision: u8,
    /// Kraken: decimals of a quantity in the checksum.
    pub qty_precision: u8,
    /// Smallest order worth, in quanta, where the venue's change messages do not repeat it.
    pub notional_min: i64,
    /// Whether orders were taken when the rules were read.
    pub status: TradingStatus,
}

impl VenueInstrument {
    /// Returns what newly read rules are in our quanta: status, and tick, lot and smallest notional. Rules
    /// finer than the quanta that were fixed at start cannot be traded by this run: they halt.
    #[must_use]
    pub fn quanta(&self, rules: &InstrumentRules) -> (TradingStatus, [i64; 3]) {
        let tick = parse_decimal(rules.tick.as_bytes(), self.px_exponent).unwrap_or(0);
        let lot = parse_decimal(rules.lot.as_bytes(), self.qty_exponent).unwrap_or(0);
        let notional =
            at_least(&rules.notional_min, self.notional_exponent).unwrap_or(self.notional_min);
        let status = if 0 < tick && 0 < lot { rules.status } else { TradingStatus::Halted };
        (status, [tick, lot, notional])
    }
}

/// Why the listed instruments make no universe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A rule that is no decimal number.
    #[error("{venue} {symbol}: {what} `{text}` is no decimal number", venue = venue.name())]
    Text {
        /// Where.
        venue: Venue,
        /// Which.
        symbol: String,
        /// Which rule.
        what: &'static str,
        /// What it says.
        text: String,
    },
    /// A rule that does not fit the exponents.
    #[error("{venue} {symbol}: {what} `{text}` does not fit exponent {exponent}", venue = venue.name())]
    Fit {
        /// Where.
        venue: Venue,
        /// Which.
        symbol: String,
        /// Which rule.
        what: &'static str,
        /// What it says.
        text: String,
        /// The exponent of its unit.
        exponent: u8,
    },
    /// The exponents of price, base and quote cannot be brought together.
    #[error(
        "{venue} {symbol}: price 10^-{px}, base 10^-{base} and quote 10^-{quote} do not fit together",
        venue = venue.name()
    )]
    Exponents {
        /// Where.
        venue: Venue,
        /// Which.
        symbol: String,
        /// Price exponent.
        px: u8,
        /// Base exponent.
        base: u8,
        /// Quote exponent.
        quote: u8,
    },
    /// The same symbol twice at one venue.
    #[error("{venue} {symbol}: listed twice", venue = venue.name())]
    Twice {
        /// Where.
        venue: Venue,
        /// Which.
        symbol: String,
    },
    /// More instruments than a record can name.
    #[error("{count} instruments, a record can name {max}", max = INSTRUMENTS_MAX - 1)]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The engine's own check refused one.
    #[error("{venue} {symbol}: {error}", venue = venue.name())]
    Universe {
        /// Where.
        venue: Venue,
        /// Which.
        symbol: String,
        /// Why.
        error: UniverseError,
    },
}

/// Why a venue's metadata reply was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Not JSON, or not of the reply's shape.
    #[error("metadata: {0}")]
    Json(String),
    /// The venue answered with an error.
    #[error("metadata: the venue says `{0}`")]
    Venue(String),
}

/// Reads a venue's metadata with a parser that recurses, after ours has bounded it.
pub(crate) fn read_metadata<'a, T: serde::Deserialize<'a>>(
    body: &'a mut [u8],
) -> Result<T, MetadataError> {
    crate::json::check(body).map_err(|error| MetadataError::Json(error.to_string()))?;
    simd_json::serde::from_slice(body).map_err(|error| MetadataError::Json(error.to_string()))
}

/// Exponent of the amounts of an asset that is never a base, where prices and quantities are fine
/// enough: the venues themselves keep 8 decimals of their dollars.
const QUOTE_EXPONENT: u8 = 8;

/// Limits larger than this many quanta are lowered to it: far above any order, far below overflow.
const LIMIT_MAX: i64 = 1_000_000_000_000_000_000;

/// Makes the universe of the listed instruments; the index of a listing is the id of its instrument.
pub fn build_universe(listings: &[Listing]) -> Result<(Universe, Vec<VenueInstrument>), SpecError> {
    if INSTRUMENTS_MAX <= listings.len() {
        return Err(SpecError::TooMany { count: listings.len() });
    }
    for (idx, listing) in listings.iter().enumerate() {
        let rules = &listing.rules;
        if listings[..idx]
            .iter()
            .any(|l| (l.rules.venue, &l.rules.symbol) == (rules.venue, &rules.symbol))
        {
            return Err(SpecError::Twice { venue: rules.venue, symbol: rules.symbol.clone() });
        }
    }
    let exponents = Exponents::of(listings)?;
    let mut universe = Universe::default();
    let mut instruments = Vec::with_capacity(listings.len());
    for (idx, listing) in listings.iter().enumerate() {
        let base = asset(&mut universe, &listing.rules.base, &exponents);
        let quote = asset(&mut universe, &listing.rules.quote, &exponents);
        let (instrument, venue_instrument) = convert(idx as u16, listing, base, quote, &exponents)?;
        universe.instruments.push(instrument);
        instruments.push(venue_instrument);
    }
    if let Err(error) = universe.check() {
        let idx = match error {
            UniverseError::TooMany { count, .. } => return Err(SpecError::TooMany { count }),
            UniverseError::Assets { instrument }
            | UniverseError::Exponent { instrument }
            | UniverseError::Rules { instrument }
            | UniverseError::Pair { second: instrument, .. } => instrument,
        };
        let rules = &listings[idx].rules;
        return Err(SpecError::Universe {
            venue: rules.venue,
            symbol: rules.symbol.clone(),
            error,
        });
    }
    Ok((universe, instruments))
}

/// The exponents of a universe.
struct Exponents<'a> {
    assets: BTreeMap<&'a str, u8>,
    pairs: BTreeMap<(&'a str, &'a str), u8>,
}

impl<'a> Exponents<'a> {
    fn of(listings: &'a [Listing]) -> Result<Exponents<'a>, SpecError> {
        let mut assets: BTreeMap<&str, u8> = BTreeMap::new();
        let mut pairs: BTreeMap<(&str, &str), u8> = BTreeMap::new();
        for Listing { rules, .. } in listings {
            let qty = qty_exponent(rules)?;
            let px = decimals(rules, "tick", &rules.tick)?.max(rules.price_precision.unwrap_or(0));
            let base = assets.entry(&rules.base).or_default();
            *base = qty.max(*base);
            let pair = pairs.entry((&rules.base, &rules.quote)).or_default();
            *pair = px.max(*pair);
        }
        // A quote's amounts may be no finer than the exact product of price and quantity.
        let mut quotes: BTreeMap<&str, u8> = BTreeMap::new();
        for ((base, quote), px) in &pairs {
            let product = px + assets[base];
            let exponent = quotes.entry(quote).or_insert(QUOTE_EXPONENT);
            *exponent = product.min(*exponent);
        }
        for (quote, exponent) in quotes {
            let known = assets.entry(quote).or_default();
            *known = exponent.max(*known);
        }
        // Where a quote is also a base of finer quantity, its pairs' prices get finer instead.
        for ((base, quote), px) in &mut pairs {
            *px = assets[quote].saturating_sub(assets[base]).max(*px);
        }
        Ok(Exponents { assets, pairs })
    }
}

/// Decimals of an instrument's quantities: the lot's, the printed ones, and spare ones where they fit.
fn qty_exponent(rules: &InstrumentRules) -> Result<u8, SpecError> {
    let mut exponent = decimals(rules, "lot", &rules.lot)?.max(rules.qty_precision.unwrap_or(0));
    if let Some(spare) = rules.asset_precision
        && exponent < spare
        && spare + 6 <= EXPONENT_MAX
        && !rules.qty_max.is_empty()
        // Room for a million of the largest orders on one level.
        && parse_decimal(rules.qty_max.as_bytes(), spare + 6).is_ok()
    {
        exponent = spare;
    }
    if !rules.qty_min.is_empty() {
        exponent = decimals(rules, "smallest quantity", &rules.qty_min)?.max(exponent);
    }
    Ok(exponent)
}

/// Returns the fewest decimals that hold a number exactly.
fn decimals(rules: &InstrumentRules, what: &'static str, text: &str) -> Result<u8, SpecError> {
    (0..=EXPONENT_MAX)
        .find(|exponent| parse_decimal(text.as_bytes(), *exponent).is_ok())
        .ok_or_else(|| SpecError::Text {
            venue: rules.venue,
            symbol: rules.symbol.clone(),
            what,
            text: text.to_owned(),
        })
}

fn asset(universe: &mut Universe, name: &str, exponents: &Exponents<'_>) -> AssetId {
    let idx = universe.assets.iter().position(|asset| asset.name == name).unwrap_or_else(|| {
        universe.assets.push(Asset { name: name.to_owned(), exponent: exponents.assets[name] });
        universe.assets.len() - 1
    });
    AssetId(idx as u16)
}

fn convert(
    id: u16,
    listing: &Listing,
    base: AssetId,
    quote: AssetId,
    exponents: &Exponents<'_>,
) -> Result<(Instrument, VenueInstrument), SpecError> {
    let rules = &listing.rules;
    let px_exponent = exponents.pairs[&(rules.base.as_str(), rules.quote.as_str())];
    let qty_exponent = exponents.assets[rules.base.as_str()];
    let quote_exponent = exponents.assets[rules.quote.as_str()];
    let shift = i32::from(px_exponent) + i32::from(qty_exponent) - i32::from(quote_exponent);
    let together = px_exponent <= EXPONENT_MAX
        && qty_exponent <= EXPONENT_MAX
        && quote_exponent <= EXPONENT_MAX
        && (0..=i32::from(EXPONENT_MAX)).contains(&shift);
    if !together {
        return Err(SpecError::Exponents {
            venue: rules.venue,
            symbol: rules.symbol.clone(),
            px: px_exponent,
            base: qty_exponent,
            quote: quote_exponent,
        });
    }
    let refuse = |what: &'static str, text: &str, exponent: u8| SpecError::Fit {
        venue: rules.venue,
        symbol: rules.symbol.clone(),
        what,
        text: text.to_owned(),
        exponent,
    };
    let fit = |what: &'static str, text: &str, exponent: u8| {
        parse_decimal(text.as_bytes(), exponent).map_err(|_| refuse(what, text, exponent))
    };
    let or_zero = |text: &str| if text.is_empty() { "0".to_owned() } else { text.to_owned() };
    // A largest order that does not fit is far beyond what we would send; a smaller one is safe.
    let qty_max = match rules.qty_max.as_str() {
        "" => LIMIT_MAX,
        text => parse_decimal(text.as_bytes(), qty_exponent).unwrap_or(LIMIT_MAX).min(LIMIT_MAX),
    };
    let notional_min = at_least(&or_zero(&rules.notional_min), quote_exponent)
        .ok_or_else(|| refuse("smallest notional", &rules.notional_min, quote_exponent))?;
    let instrument = Instrument {
        venue: rules.venue,
        base,
        quote,
        px_exponent,
        tick: Px(fit("tick", &rules.tick, px_exponent)?),
        lot: Qty(fit("lot", &rules.lot, qty_exponent)?),
        qty_min: Qty(fit("smallest quantity", &or_zero(&rules.qty_min), qty_exponent)?),
        qty_max: Qty(qty_max),
        notional_min: Amount(notional_min),
        notional_max: Amount(fit("largest notional", &listing.notional_max, quote_exponent)?),
        taker_fee: listing.taker_fee,
        fee_in: listing.fee_in,
        status: rules.status,
    };
    let venue_instrument = VenueInstrument {
        id,
        venue: rules.venue,
        symbol: rules.symbol.clone(),
        feed_symbol: rules.feed_symbol.clone(),
        rest_symbol: rules.rest_symbol.clone(),
        px_exponent,
        qty_exponent,
        notional_exponent: quote_exponent,
        price_precision: rules.price_precision.unwrap_or(px_exponent),
        qty_precision: rules.qty_precision.unwrap_or(qty_exponent),
        notional_min,
        status: rules.status,
    };
    Ok((instrument, venue_instrument))
}

/// Reads a lower limit, rounded up where the exponent is too coarse for it; nothing where it is no
/// number or too large.
fn at_least(text: &str, exponent: u8) -> Option<i64> {
    if let Ok(exact) = parse_decimal(text.as_bytes(), exponent) {
        return Some(exact);
    }
    (exponent..=EXPONENT_MAX).find_map(|finer| {
        let quanta = parse_decimal(text.as_bytes(), finer).ok()?;
        let scale = 10i64.checked_pow(u32::from(finer - exponent))?;
        Some(quanta / scale + i64::from(quanta % scale != 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(venue: Venue, base: &str, quote: &str, tick: &str, lot: &str) -> InstrumentRules {
        InstrumentRules {
            venue,
            symbol: format!("{base}-{quote}"),
            feed_symbol: format!("{base}-{quote}"),
            rest_symbol: format!("{base}-{quote}"),
            base: base.into(),
            quote: quote.into(),
            tick: tick.into(),
            lot: lot.into(),
            qty_min: String::new(),
            qty_max: String::new(),
            notional_min: "5".into(),
            price_precision: None,
            qty_precision: None,
            asset_precision: None,
            status: TradingStatus::Trading,
        }
    }

    fn list(rules: Vec<InstrumentRules>) -> Vec<Listing> {
        rules
            .into_iter()
            .map(|rules| Listing {
                rules,
                taker_fee: FeePpm(1_000),
                fee_in: FeeIn::Quote,
                notional_max: "10000".into(),
            })
            .collect()
    }

    #[test]
    fn the_finest_venue_sets_the_exponents() {
        let listings = list(vec![
            rules(Venue::Binance, "BTC", "USDT", "0.01000000", "0.00001000"),
            rules(Venue::Kraken, "BTC", "USDT", "0.1", "0.00000001"),
            rules(Venue::Coinbase, "BTC", "USD", "0.01", "0.00000001"),
        ]);
        let (universe, instruments) = build_universe(&listings).unwrap();
        assert_eq!(
            universe.assets.iter().map(|a| (a.name.as_str(), a.exponent)).collect::<Vec<_>>(),
            [("BTC", 8), ("USDT", 8), ("USD", 8)]
        );
        assert_eq!(instruments[0].px_exponent, 2);
        assert_eq!(universe.instruments[0].tick, Px(1));
        assert_eq!(universe.instruments[1].tick, Px(10));
        assert_eq!(universe.instruments[0].lot, Qty(1_000));
        assert_eq!(universe.instruments[2].notional_min, Amount(500_000_000));
        assert_eq!(instruments[2].id, 2);
    }

    #[test]
    fn usd_usdt_and_usdc_are_three_assets() {
        let listings = list(vec![
            rules(Venue::Coinbase, "BTC", "USD", "0.01", "0.00000001"),
            rules(Venue::Coinbase, "BTC", "USDC", "0.01", "0.00000001"),
            rules(Venue::Binance, "BTC", "USDT", "0.01", "0.00001"),
        ]);
        let (universe, _) = build_universe(&listings).unwrap();
        assert_eq!(universe.assets.len(), 4);
    }

    #[test]
    fn a_base_that_is_also_a_quote() {
        let listings = list(vec![
            rules(Venue::Binance, "BTC", "USDT", "0.01", "0.00001"),
            rules(Venue::Binance, "ETH", "BTC", "0.00001", "0.0001"),
            rules(Venue::Kraken, "USDT", "USD", "0.0001", "0.01"),
            rules(Venue::Kraken, "DOGE", "BTC", "0.000000001", "1"),
            rules(Venue::Binance, "PEPE", "USDT", "0.00000001", "1"),
        ]);
        let (universe, instruments) = build_universe(&listings).unwrap();
        for (instrument, of) in universe.instruments.iter().zip(&instruments) {
            let shift = i32::from(of.px_exponent) + i32::from(universe.exponent(instrument.base))
                - i32::from(universe.exponent(instrument.quote));
            assert!((0..=18).contains(&shift), "{}", of.symbol);
        }
        // A dollar's cents would be too coarse for notionals, so USDT is finer than its lot as a base.
        let usdt = universe.assets.iter().find(|asset| asset.name == "USDT").unwrap();
        assert!(6 <= usdt.exponent, "{}", usdt.exponent);
        assert_eq!(universe.instruments[4].lot, Qty(1));
    }

    #[test]
    fn spare_digits_only_where_they_fit() {
        let mut btc = rules(Venue::Binance, "BTC", "USDT", "0.01", "0.00001");
        btc.qty_max = "9000.00000000".into();
        btc.asset_precision = Some(8);
        let mut pepe = rules(Venue::Binance, "PEPE", "USDT", "0.00000001", "1.00");
        pepe.qty_max = "92141578.00000000".into();
        pepe.asset_precision = Some(8);
        let (universe, instruments) = build_universe(&list(vec![btc, pepe])).unwrap();
        assert_eq!(instruments[0].qty_exponent, 8);
        assert_eq!(instruments[1].qty_exponent, 0);
        assert_eq!(universe.instruments[1].qty_max, Qty(92_141_578));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let check = |listings: Vec<Listing>, part: &str| {
            let error = build_universe(&listings).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(list(vec![rules(Venue::Kraken, "A", "B", "x", "1")]), "kraken A-B: tick `x`");
        check(
            list(vec![rules(Venue::Kraken, "A", "B", "0.0000000000000000001", "1")]),
            "kraken A-B",
        );
        check(list(vec![rules(Venue::Kraken, "A", "A", "1", "1")]), "kraken A-A");
        check(list(vec![rules(Venue::Kraken, "A", "B", "0", "1")]), "kraken A-B");
        let one = rules(Venue::Kraken, "A", "B", "1", "1");
        check(list(vec![one.clone(), one.clone()]), "listed twice");
        let mut huge = list(vec![rules(Venue::Kraken, "A", "B", "0.00000001", "0.00000001")]);
        huge[0].notional_max = "99999999999999999999".into();
        check(huge, "largest notional");
        check(
            list(vec![rules(Venue::Binance, "A", "B", "0.000000000001", "0.000000000000001")]),
            "binance A-B",
        );
    }

    #[test]
    fn rules_that_get_finer_than_our_quanta_halt() {
        let mut rules = rules(Venue::Binance, "BTC", "USDT", "0.01", "0.00001");
        let (_, instruments) = build_universe(&list(vec![rules.clone()])).unwrap();
        let of = |rules: &InstrumentRules| instruments[0].quanta(rules);
        assert_eq!(of(&rules), (TradingStatus::Trading, [1, 1, 50_000_000]));
        rules.lot = "0.001".into();
        assert_eq!(of(&rules).1[1], 100);
        rules.tick = "0.001".into();
        assert_eq!(of(&rules).0, TradingStatus::Halted);
    }

    #[test]
    fn lower_limits_are_rounded_up() {
        assert_eq!(at_least("0.5", 0), Some(1));
        assert_eq!(at_least("5.00000001", 2), Some(501));
        assert_eq!(at_least("1e-05", 8), Some(1_000));
        assert_eq!(at_least("x", 8), None);
    }
}

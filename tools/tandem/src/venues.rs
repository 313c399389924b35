//! Which machine, which metadata: the one place that names every venue.

use tandem_core::record::Venue;
use tandem_feeds::machine::{Machine, Options};
use tandem_feeds::redundant::Redundant;
use tandem_feeds::spec::{InstrumentRules, MetadataError, VenueInstrument};
use tandem_feeds::{binance, coinbase, kraken};
use tandem_gateway::desk::Desk;
use tandem_gateway::keys::Credentials;
use tandem_gateway::machine::Dialect;

/// Returns the sync machine of a venue, beginning at `now_ns`; redundant, it keeps two connections of every
/// book.
#[must_use]
pub fn machine(
    venue: Venue,
    instruments: Vec<VenueInstrument>,
    options: Options,
    redundant: bool,
    now_ns: i64,
) -> Box<dyn Machine> {
    fn make<M: Machine + 'static>(
        new: impl Fn(Vec<VenueInstrument>, Options, i64) -> M,
        instruments: Vec<VenueInstrument>,
        options: Options,
        redundant: bool,
        now_ns: i64,
    ) -> Box<dyn Machine> {
        match redundant {
            true => Box::new(Redundant::new(new, &instruments, &options, now_ns)),
            false => Box::new(new(instruments, options, now_ns)),
        }
    }
    match venue {
        Venue::Binance => make(binance::Binance::new, instruments, options, redundant, now_ns),
        Venue::Coinbase => make(coinbase::Coinbase::new, instruments, options, redundant, now_ns),
        Venue::Kraken => make(kraken::Kraken::new, instruments, options, redundant, now_ns),
    }
}

/// Returns the paths that tell a venue's instruments.
#[must_use]
pub fn metadata_paths(venue: Venue, symbols: &[String]) -> Vec<String> {
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    match venue {
        Venue::Binance => binance::meta::metadata_paths(&symbols),
        Venue::Coinbase => coinbase::meta::metadata_paths(&symbols),
        Venue::Kraken => kraken::meta::metadata_paths(&symbols),
    }
}

/// Reads one of those answers.
pub fn parse_metadata(
    venue: Venue,
    body: &mut [u8],
) -> Result<Vec<InstrumentRules>, MetadataError> {
    match venue {
        Venue::Binance => binance::meta::parse_metadata(body),
        Venue::Coinbase => coinbase::meta::parse_metadata(body),
        Venue::Kraken => kraken::meta::parse_metadata(body),
    }
}

/// Returns the order entry of a venue.
pub fn dialect(
    venue: Venue,
    credentials: &Credentials,
    desk: &Desk,
) -> Result<Box<dyn Dialect>, Box<dyn std::error::Error>> {
    Ok(match venue {
        Venue::Binance => Box::new(tandem_gateway::binance::Binance::new(credentials, desk)?),
        Venue::Kraken => {
            Box::new(tandem_gateway::kraken::Kraken::new(credentials, desk, crate::time::now_ns())?)
        }
        Venue::Coinbase => Box::new(tandem_gateway::coinbase::Coinbase::new(credentials, desk)?),
    })
}

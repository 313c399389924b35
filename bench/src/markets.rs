//! Venues' instruments, and recorded sessions through the feed machines as in production.
//!
//! Invariant: a session ends in a book that its machine holds to be live, without a gap or a wrong
//! checksum, or it is no measurement.

use tandem_core::instrument::{AssetId, FeeIn, Universe};
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{BookState, Record, TradingStatus, Venue};
use tandem_core::units::FeePpm;
use tandem_feeds::binance::Binance;
use tandem_feeds::coinbase::Coinbase;
use tandem_feeds::kraken::Kraken;
use tandem_feeds::machine::{Action, Machine, Options, Publish, Reply, Stamps};
use tandem_feeds::spec::{InstrumentRules, Listing, VenueInstrument, build_universe};

use crate::captures::{self, Message};

const TIMER_NS: i64 = 50_000_000;

/// Longest session.
const SESSION_NS: i64 = 200_000_000_000;

/// Returns a listing with the venue's rules for BTC.
fn listing(venue: Venue, symbol: &str, quote: &str, tick: &str) -> Listing {
    Listing {
        rules: InstrumentRules {
            venue,
            symbol: symbol.to_owned(),
            feed_symbol: symbol.to_owned(),
            rest_symbol: symbol.to_owned(),
            base: "BTC".to_owned(),
            quote: quote.to_owned(),
            tick: tick.to_owned(),
            lot: "0.00000001".to_owned(),
            qty_min: "0.00001".to_owned(),
            qty_max: String::new(),
            notional_min: "1".to_owned(),
            price_precision: (venue == Venue::Kraken).then_some(1),
            qty_precision: (venue == Venue::Kraken).then_some(8),
            asset_precision: None,
            status: TradingStatus::Trading,
        },
        taker_fee: FeePpm(100),
        fee_in: FeeIn::Quote,
        notional_max: "100000".to_owned(),
    }
}

/// Returns BTC at the three venues: the universe and each venue's instrument.
pub fn bitcoin() -> (Universe, Vec<VenueInstrument>) {
    let listings = [
        listing(Venue::Binance, "BTCUSDT", "USDT", "0.01"),
        listing(Venue::Coinbase, "BTC-USD", "USD", "0.01"),
        listing(Venue::Kraken, "BTC/USD", "USD", "0.1"),
    ];
    build_universe(&listings).expect("three plain listings")
}

/// A recorded session and the machine it goes through.
pub struct Session {
    venue: Venue,
    instrument: VenueInstrument,
    /// The messages, in order.
    pub messages: Vec<Message>,
}

impl Session {
    /// Returns the recorded session of a venue, where there is one.
    pub fn load(venue: Venue) -> Option<Session> {
        let name = match venue {
            Venue::Binance => captures::BINANCE,
            Venue::Coinbase => captures::COINBASE,
            Venue::Kraken => captures::KRAKEN,
        };
        let mut messages = captures::load(name)?;
        // Binance's snapshot of 1,000 levels wears off as the market moves, and there is no second one.
        let end_ns = messages.first()?.recv_ns + SESSION_NS;
        messages.retain(|message| message.recv_ns < end_ns);
        let instrument = bitcoin().1.into_iter().find(|i| i.venue == venue)?;
        Some(Session { venue, instrument, messages })
    }

    /// Returns a fresh machine for it.
    pub fn start(&self) -> Driver {
        let now_ns = self.messages.first().map_or(0, |message| message.recv_ns);
        // The recordings hold one snapshot of 1,000 levels and no book to audit with.
        let defaults = Options::for_venue(self.venue);
        let depth = if self.venue == Venue::Binance { 1_000 } else { defaults.depth };
        let options = Options { audit: false, depth, ..defaults };
        let instruments = vec![VenueInstrument { ..self.instrument.clone() }];
        let machine: Box<dyn Machine> = match self.venue {
            Venue::Binance => Box::new(Binance::new(instruments, options, now_ns)),
            Venue::Coinbase => Box::new(Coinbase::new(instruments, options, now_ns)),
            Venue::Kraken => Box::new(Kraken::new(instruments, options, now_ns)),
        };
        Driver { machine, conn: 0, requests: Vec::new(), timer_ns: now_ns, buffer: Vec::new() }
    }
}

/// One machine under way.
pub struct Driver {
    machine: Box<dyn Machine>,
    conn: u32,
    requests: Vec<u32>,
    timer_ns: i64,
    buffer: Vec<u8>,
}

impl Driver {
    /// Feeds one message; `around` is called with what takes the frame, so that it can be timed.
    pub fn feed(
        &mut self,
        message: &Message,
        out: &mut dyn Publish,
        around: impl FnOnce(&mut dyn FnMut()),
    ) {
        if self.timer_ns <= message.recv_ns {
            self.machine.on_timer(message.recv_ns, out);
            self.timer_ns = message.recv_ns + TIMER_NS;
        }
        self.pump(message.recv_ns);
        self.buffer.clear();
        self.buffer.extend_from_slice(&message.raw);
        let bytes = message.raw.len() as u32;
        let at = Stamps { recv_ns: message.recv_ns, recv_tsc: 0, bytes };
        if message.rest {
            for request in self.requests.drain(..) {
                let body = &mut self.buffer;
                let reply =
                    Reply::Answer { status: 200, retry_after_s: None, used_weight: None, body };
                self.machine.on_reply(request, reply, at, out);
            }
        } else {
            let (machine, buffer, conn) = (&mut self.machine, &mut self.buffer, self.conn);
            around(&mut || machine.on_frame(conn, buffer, at, out));
        }
        self.pump(message.recv_ns);
    }

    fn pump(&mut self, now_ns: i64) {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Connect { conn, .. } => {
                    self.conn = conn;
                    self.machine.on_open(conn, now_ns);
                }
                Action::Get { request, .. } => self.requests.push(request),
                Action::Send { .. } | Action::Ping { .. } | Action::Close { .. } => {}
            }
        }
    }

    /// The session is over: it must have been a good one.
    pub fn check(&self) {
        let stats = self.machine.stats();
        assert_eq!(
            self.machine.state(0).0,
            BookState::Live,
            "{:?}: {stats:?}",
            self.machine.state(0)
        );
        assert_eq!((stats.gaps, stats.checksum_bad, stats.malformed), (0, 0, 0), "{stats:?}");
    }
}

/// Returns the records of Coinbase's and Kraken's BTC/USD as an engine would get them, in the order in
/// which they came.
pub fn two_venues() -> Option<Vec<Record>> {
    let sessions = [Session::load(Venue::Coinbase)?, Session::load(Venue::Kraken)?];
    let mut drivers = sessions.each_ref().map(Session::start);
    let mut order: Vec<(usize, &Message)> = sessions
        .iter()
        .enumerate()
        .flat_map(|(idx, session)| session.messages.iter().map(move |message| (idx, message)))
        .collect();
    order.sort_by_key(|(_, message)| message.order);
    let mut records: Vec<Record> = Vec::new();
    let mut now_ns = 0;
    for (idx, message) in order {
        let first = records.len();
        drivers[idx].feed(message, &mut records, |frame| frame());
        now_ns = message.recv_ns.max(now_ns);
        for record in &mut records[first..] {
            record.engine_ts_ns = now_ns;
        }
    }
    drivers.iter().for_each(Driver::check);
    Some(records)
}

/// Returns parameters that find everything and halt nothing.
pub fn params(legs_max: usize, numeraire: AssetId) -> Params {
    let venue = VenueParams {
        slippage_ppm: 0,
        staleness_ppm_per_s: 0,
        age_ns_max: 60_000_000_000,
        order_latency_ns: 3_000_000,
    };
    Params {
        edge_min_ppm: 0,
        edge_max_ppm: 900_000,
        edge_max_halt_ns: 1_000_000,
        basis_ppm: 0,
        venues: [venue; 3],
        numeraires: vec![numeraire],
        legs_max,
        cycles_max: 1_000_000,
        window_levels: 400,
        flicker_ns: 1_000_000,
        denial_ns: 100_000_000,
        update_ns: 1_000_000,
    }
}

//! What a simulator run is told: venues, instruments, market, limits, and where the data comes from.
//!
//! Invariant: a [`SimConfig`] that passed [`SimConfig::validate`] starts. Unknown keys are refused,
//! every key has a default, port 0 means "any free port".

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::SimError;
use crate::amount::Amount;
use crate::exchange::{FeeTier, Stp};
use crate::keys::Keys;
use crate::units::Grid;

/// A simulated venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Venue {
    /// Binance Spot.
    Binance,
    /// Coinbase Advanced Trade.
    Coinbase,
    /// Kraken Spot, WebSocket v2.
    Kraken,
}

impl Venue {
    /// All venues in index order.
    pub const ALL: [Self; 3] = [Self::Binance, Self::Coinbase, Self::Kraken];

    /// Returns the lower-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Binance => "binance",
            Self::Coinbase => "coinbase",
            Self::Kraken => "kraken",
        }
    }

    /// Returns the venue of a lower-case name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }

    pub(crate) fn idx(self) -> usize {
        match self {
            Self::Binance => 0,
            Self::Coinbase => 1,
            Self::Kraken => 2,
        }
    }
}

impl std::fmt::Display for Venue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One run of the simulator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Seed of the market and of every "random per seed" choice of the protocols.
    pub seed: u64,
    /// Where the CA certificate is written as PEM; absent: a file in the temporary directory.
    pub ca_path: Option<PathBuf>,
    /// Where the CA's key is kept as PEM. If it and the certificate exist they are used again, so that clients
    /// that trust the CA find it trusted after a restart; absent: a new CA each start, its key written nowhere.
    pub ca_key_path: Option<PathBuf>,
    /// The servers' certificate ends so many days after the start; absent: in another age.
    pub certificate_days: Option<u32>,
    /// Clients' keys; none: no private endpoint accepts anyone.
    #[serde(skip_serializing_if = "Keys::is_empty")]
    pub keys: Keys,
    /// What accounts start with.
    pub accounts: AccountsConfig,
    /// Port of the control HTTP server; 0 takes a free one.
    pub control_port: u16,
    /// Where market data comes from.
    pub source: Source,
    /// The seeded market.
    pub market: MarketConfig,
    /// Binance face.
    pub binance: BinanceConfig,
    /// Coinbase face.
    pub coinbase: CoinbaseConfig,
    /// Kraken face.
    pub kraken: KrakenConfig,
    /// A connection with more unsent bytes than this is cut as a slow reader, in MiB.
    pub queue_mib_max: usize,
    /// How long truth (BBO states, level changes) is kept, in seconds.
    pub truth_s: u64,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            ca_path: None,
            ca_key_path: None,
            certificate_days: None,
            keys: Keys::default(),
            accounts: AccountsConfig::default(),
            control_port: 0,
            source: Source::Model,
            market: MarketConfig::default(),
            binance: BinanceConfig::default(),
            coinbase: CoinbaseConfig::default(),
            kraken: KrakenConfig::default(),
            queue_mib_max: 64,
            truth_s: 150,
        }
    }
}

/// What accounts start with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// Opening balances by venue and asset, for all accounts that the keys give none. An asset that is not named
    /// here opens with 100,000 of a dollar currency, 2 BTC, 30 ETH, or about 50,000 USD of anything else.
    pub balances: BTreeMap<Venue, BTreeMap<String, Amount>>,
    /// Worth in dollars of the asset that Binance fees can be paid in (BNB).
    pub fee_asset_price: Amount,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        // BNB's price of 2025, near enough for a fee.
        Self { balances: BTreeMap::new(), fee_asset_price: Amount(600 * 10_i128.pow(16)) }
    }
}

/// Where market data comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// The seeded model.
    Model,
    /// Recorded messages, one gzip JSON-lines file a venue.
    Captures {
        /// Capture files; the venue is read from their lines.
        files: Vec<PathBuf>,
        /// How fast they are played.
        #[serde(default)]
        pace: Pace,
    },
}

/// How fast captures are played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Pace {
    /// As recorded.
    #[default]
    Recorded,
    /// As recorded, this many times faster.
    Times(f64),
    /// As fast as the clients read.
    Asap,
}

/// Parameters of the seeded market.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarketConfig {
    /// Multiplies every order-flow rate; 1 gives about 950 book events a second over all venues.
    pub rate: f64,
    /// Length of one market step, in milliseconds.
    pub step_ms: u64,
    /// Latent USD prices by asset; `USD` itself is 1.
    pub assets: BTreeMap<String, AssetConfig>,
    /// Worth of what an instrument is said to trade in a day, in USD: for candles of the time before the start.
    pub day_usd: f64,
    /// Levels a side that take part in order flow.
    pub levels: usize,
    /// Mean time between two dislocations of one class (outright, cross rate, conversion), in
    /// milliseconds; 0 turns dislocations off.
    pub dislocation_every_ms: u64,
    /// Smallest and largest dislocation, in basis points.
    pub dislocation_bps: [f64; 2],
    /// Shortest and longest time until competitors remove a dislocation, in milliseconds.
    pub dislocation_ms: [u64; 2],
}

impl Default for MarketConfig {
    fn default() -> Self {
        let asset = |usd, vol_bps, jump_bps| AssetConfig { usd, vol_bps, jump_bps };
        let assets = [
            ("BTC", asset(65_000.0, 1.0, 6.0)),
            ("ETH", asset(3_200.0, 1.3, 8.0)),
            ("SOL", asset(150.0, 1.8, 12.0)),
            ("USDT", asset(0.9996, 0.05, 0.0)),
            ("USDC", asset(0.9999, 0.05, 0.0)),
        ];
        Self {
            rate: 1.0,
            step_ms: 5,
            assets: assets.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            day_usd: 50_000_000.0,
            levels: 300,
            dislocation_every_ms: 900,
            dislocation_bps: [20.0, 150.0],
            dislocation_ms: [30, 400],
        }
    }
}

/// Latent price of one asset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetConfig {
    /// Price at the start, in USD.
    pub usd: f64,
    /// Standard deviation of one second of walk, in basis points.
    pub vol_bps: f64,
    /// Typical jump, in basis points; 0 also makes the walk return to `usd` (a stablecoin).
    pub jump_bps: f64,
}

/// One instrument of a venue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstrumentConfig {
    /// The venue's own symbol (`BTCUSDT`, `BTC-USD`, `BTC/USD`).
    pub symbol: String,
    /// Base asset in everyday spelling (`BTC`, not `XBT`).
    pub base: String,
    /// Quote asset.
    pub quote: String,
    /// Price step as decimal text.
    pub tick: String,
    /// Quantity step as decimal text.
    pub lot: String,
    /// Smallest order quantity as decimal text.
    pub min_qty: String,
    /// Smallest order worth in quote currency as decimal text.
    pub min_notional: String,
}

fn instruments(rows: &[[&str; 7]]) -> Vec<InstrumentConfig> {
    let make =
        |[symbol, base, quote, tick, lot, min_qty, min_notional]: [&str; 7]| InstrumentConfig {
            symbol: symbol.to_owned(),
            base: base.to_owned(),
            quote: quote.to_owned(),
            tick: tick.to_owned(),
            lot: lot.to_owned(),
            min_qty: min_qty.to_owned(),
            min_notional: min_notional.to_owned(),
        };
    rows.iter().map(|row| make(*row)).collect()
}

/// The Binance face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BinanceConfig {
    /// Whether the face runs.
    pub enabled: bool,
    /// Plain listener port; 0 takes a free one.
    pub plain_port: u16,
    /// TLS listener port; 0 takes a free one.
    pub tls_port: u16,
    /// How far its quotes trail the latent price, in milliseconds.
    pub lag_ms: u64,
    /// Instruments.
    pub instruments: Vec<InstrumentConfig>,
    /// Still levels a side beyond those of the order flow.
    pub deep_levels: usize,
    /// WebSocket ping interval, in milliseconds (20 s documented).
    pub ping_ms: u64,
    /// Time without a pong until close 1008 `Pong timeout`, in milliseconds (60 s documented).
    pub pong_timeout_ms: u64,
    /// Life of a connection, in milliseconds (24 h documented).
    pub lifetime_ms: u64,
    /// Client messages a second and connection, pings and pongs included (5 documented).
    pub messages_per_s: u32,
    /// Streams a connection (1024 documented).
    pub streams_max: usize,
    /// Connection attempts per 5 minutes and address (300 documented).
    pub connects_per_5min: u32,
    /// Request weight per minute and address (6000 documented).
    pub weight_per_min: u32,
    /// Raw requests per 5 minutes and address (300,000 documented).
    pub raw_per_5min: u32,
    /// Requests refused with 429 in one window before the address is banned with 418.
    pub ban_after_refusals: u32,
    /// First ban, in seconds (120 documented); each further ban doubles it up to three days.
    pub ban_s: u64,
    /// Error replies on streams flat (`{"code":..}`), as documented, instead of nested, as observed.
    pub flat_errors: bool,
    /// Control frames longer than this are ignored without a reply, as observed; 0 never ignores.
    pub silent_frame_bytes: usize,
    /// Share of best-price changes that `bookTicker` does not announce, in parts per million.
    pub book_ticker_skip_ppm: u32,
    /// Fee of what rested, in parts per million; negative is a rebate.
    pub maker_fee_ppm: i64,
    /// Fee of what took, in parts per million.
    pub taker_fee_ppm: i64,
    /// Time between an order's arrival and its matching, in microseconds.
    pub order_delay_us: u64,
    /// Time between the matching and the reply, in microseconds.
    pub reply_delay_us: u64,
    /// Unfilled orders an account may send in 10 seconds (100 in samples).
    pub orders_per_10s: u64,
    /// Unfilled orders an account may send in a day (200,000 in samples).
    pub orders_per_day: u64,
}

impl Default for BinanceConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            plain_port: 0,
            tls_port: 0,
            lag_ms: 5,
            instruments: instruments(&[
                ["BTCUSDT", "BTC", "USDT", "0.01", "0.00001", "0.00001", "5"],
                ["ETHUSDT", "ETH", "USDT", "0.01", "0.0001", "0.0001", "5"],
                ["SOLUSDT", "SOL", "USDT", "0.01", "0.001", "0.001", "5"],
                ["BTCUSDC", "BTC", "USDC", "0.01", "0.00001", "0.00001", "5"],
                ["ETHUSDC", "ETH", "USDC", "0.01", "0.0001", "0.0001", "5"],
                ["SOLUSDC", "SOL", "USDC", "0.01", "0.001", "0.001", "5"],
                ["ETHBTC", "ETH", "BTC", "0.00001", "0.0001", "0.0001", "0.0001"],
                ["SOLBTC", "SOL", "BTC", "0.0000001", "0.001", "0.001", "0.0001"],
                ["USDCUSDT", "USDC", "USDT", "0.00001", "1", "1", "5"],
            ]),
            deep_levels: 700,
            ping_ms: 20_000,
            pong_timeout_ms: 60_000,
            lifetime_ms: 86_400_000,
            messages_per_s: 5,
            streams_max: 1_024,
            connects_per_5min: 300,
            weight_per_min: 6_000,
            raw_per_5min: 300_000,
            ban_after_refusals: 20,
            ban_s: 120,
            flat_errors: false,
            silent_frame_bytes: 4_096,
            book_ticker_skip_ppm: 500,
            maker_fee_ppm: 1_000,
            taker_fee_ppm: 1_000,
            order_delay_us: 0,
            reply_delay_us: 0,
            orders_per_10s: 100,
            orders_per_day: 200_000,
        }
    }
}

/// The Coinbase face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoinbaseConfig {
    /// Whether the face runs.
    pub enabled: bool,
    /// Plain listener port; 0 takes a free one.
    pub plain_port: u16,
    /// TLS listener port; 0 takes a free one.
    pub tls_port: u16,
    /// How far its quotes trail the latent price, in milliseconds.
    pub lag_ms: u64,
    /// Instruments; `X-USDC` is an alias of `X-USD` unless it is listed here itself.
    pub instruments: Vec<InstrumentConfig>,
    /// Still levels a side beyond those of the order flow (100,000 makes snapshots above 10 MiB).
    pub deep_levels: usize,
    /// Time for the first subscribe, in milliseconds (5 s documented).
    pub subscribe_deadline_ms: u64,
    /// Idle time until the server closes, in milliseconds (60-90 s documented).
    pub idle_close_ms: u64,
    /// Heartbeat interval, in milliseconds (1 s documented).
    pub heartbeat_ms: u64,
    /// `heartbeat_counter` as a string (docs) instead of a number (captures).
    pub heartbeat_counter_text: bool,
    /// Batching of `market_trades`, in milliseconds (about 250 reported).
    pub trades_batch_ms: u64,
    /// New connections a second and address (8 documented).
    pub connects_per_s: u32,
    /// Messages without a token a second and address (8 documented).
    pub messages_per_s: u32,
    /// Public REST requests a second and address (10 by legacy sources).
    pub public_per_s: u32,
    /// REST requests a second with a token (30 by legacy sources).
    pub private_per_s: u32,
    /// How long `/market/*` answers are cached, in milliseconds (1 s documented).
    pub cache_ms: u64,
    /// Fee of what rested, in parts per million; negative is a rebate.
    pub maker_fee_ppm: i64,
    /// Fee of what took, in parts per million.
    pub taker_fee_ppm: i64,
    /// Time between an order's arrival and its matching, in microseconds.
    pub order_delay_us: u64,
    /// Time between the matching and the reply, in microseconds.
    pub reply_delay_us: u64,
    /// REST requests an hour and key (10,000 by the general policy); 0 is no limit.
    pub private_per_hour: u64,
    /// Which order self-trade prevention ends; the venue does not say.
    pub stp: Stp,
    /// Whether a known `client_order_id` is refused (`DUPLICATE_CLIENT_ORDER_ID`) instead of answered with the order
    /// it names, as documented.
    pub refuse_duplicates: bool,
    /// How long fills lag in `orders/historical/fills`, in milliseconds.
    pub fills_lag_ms: u64,
}

impl Default for CoinbaseConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            plain_port: 0,
            tls_port: 0,
            lag_ms: 15,
            instruments: instruments(&[
                ["BTC-USD", "BTC", "USD", "0.01", "0.00000001", "0.00000001", "1"],
                ["ETH-USD", "ETH", "USD", "0.01", "0.00000001", "0.00000001", "1"],
                ["SOL-USD", "SOL", "USD", "0.01", "0.00000001", "0.00000001", "1"],
                ["ETH-BTC", "ETH", "BTC", "0.00001", "0.00000001", "0.00000001", "0.000016"],
                ["SOL-BTC", "SOL", "BTC", "0.0000001", "0.00000001", "0.00000001", "0.000016"],
                ["USDT-USD", "USDT", "USD", "0.00001", "0.01", "0.01", "1"],
                ["USDT-USDC", "USDT", "USDC", "0.00001", "0.01", "0.01", "1"],
                ["BTC-USDT", "BTC", "USDT", "0.01", "0.00000001", "0.00000001", "1"],
                ["ETH-USDT", "ETH", "USDT", "0.01", "0.00000001", "0.00000001", "1"],
            ]),
            deep_levels: 700,
            subscribe_deadline_ms: 5_000,
            idle_close_ms: 75_000,
            heartbeat_ms: 1_000,
            heartbeat_counter_text: false,
            trades_batch_ms: 250,
            connects_per_s: 8,
            messages_per_s: 8,
            public_per_s: 10,
            private_per_s: 30,
            cache_ms: 1_000,
            maker_fee_ppm: 4_000,
            taker_fee_ppm: 6_000,
            order_delay_us: 0,
            reply_delay_us: 0,
            private_per_hour: 0,
            stp: Stp::Taker,
            refuse_duplicates: false,
            fills_lag_ms: 0,
        }
    }
}

/// The Kraken face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KrakenConfig {
    /// Whether the face runs.
    pub enabled: bool,
    /// Plain listener port; 0 takes a free one.
    pub plain_port: u16,
    /// TLS listener port; 0 takes a free one.
    pub tls_port: u16,
    /// How far its quotes trail the latent price, in milliseconds.
    pub lag_ms: u64,
    /// Instruments, in WebSocket v2 naming.
    pub instruments: Vec<InstrumentConfig>,
    /// Still levels a side beyond those of the order flow.
    pub deep_levels: usize,
    /// Heartbeat interval, in milliseconds (1 s).
    pub heartbeat_ms: u64,
    /// Heartbeats only while nothing else is sent (documented) instead of always (recorded).
    pub heartbeat_only_idle: bool,
    /// Connection attempts per rolling 10 minutes and address (150 by community sources).
    pub connects_per_10min: u32,
    /// Client messages a second and connection before `Exceeded msg rate`.
    pub messages_per_s: u32,
    /// Public REST requests a second and address (1 by community sources).
    pub public_per_s: f64,
    /// Public REST requests that may come at once.
    pub public_burst: f64,
    /// Share of book updates that name one price twice, in parts per million.
    pub duplicate_price_ppm: u32,
    /// Share of book updates that also delete a level beyond the depth, in parts per million.
    pub unknown_delete_ppm: u32,
    /// Fee of what rested, in parts per million; negative is a rebate.
    pub maker_fee_ppm: i64,
    /// Fee of what took, in parts per million.
    pub taker_fee_ppm: i64,
    /// Time between an order's arrival and its matching, in microseconds.
    pub order_delay_us: u64,
    /// Time between the matching and the reply, in microseconds.
    pub reply_delay_us: u64,
    /// Private REST calls a key may have on its counter (Pro: 20).
    pub calls_max: f64,
    /// What the call counter loses a second (Pro: 1).
    pub calls_decay: f64,
    /// Points an account may have on the matching-engine counter of a pair (Pro: 180).
    pub engine_max: f64,
    /// What that counter loses a second (Pro: 3.75).
    pub engine_decay: f64,
    /// Time in which a WebSocket token must be used, in seconds (900 documented).
    pub token_s: u64,
    /// Whether `fok` is taken; the reference lists none.
    pub fok: bool,
}

impl Default for KrakenConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            plain_port: 0,
            tls_port: 0,
            lag_ms: 40,
            instruments: instruments(&[
                ["BTC/USD", "BTC", "USD", "0.1", "0.00000001", "0.00005", "0.5"],
                ["ETH/USD", "ETH", "USD", "0.01", "0.00000001", "0.001", "0.5"],
                ["SOL/USD", "SOL", "USD", "0.01", "0.00000001", "0.02", "0.5"],
                ["ETH/BTC", "ETH", "BTC", "0.00001", "0.00000001", "0.001", "0.00002"],
                ["SOL/BTC", "SOL", "BTC", "0.0000001", "0.00000001", "0.02", "0.00002"],
                ["USDT/USD", "USDT", "USD", "0.00001", "0.00000001", "5", "0.5"],
                ["USDC/USD", "USDC", "USD", "0.0001", "0.00000001", "5", "0.5"],
                ["BTC/USDT", "BTC", "USDT", "0.1", "0.00000001", "0.00005", "0.5"],
                ["ETH/USDT", "ETH", "USDT", "0.01", "0.00000001", "0.001", "0.5"],
            ]),
            deep_levels: 700,
            heartbeat_ms: 1_000,
            heartbeat_only_idle: false,
            connects_per_10min: 150,
            messages_per_s: 50,
            public_per_s: 1.0,
            public_burst: 6.0,
            duplicate_price_ppm: 5_000,
            unknown_delete_ppm: 5_000,
            maker_fee_ppm: 2_500,
            taker_fee_ppm: 4_000,
            order_delay_us: 0,
            reply_delay_us: 0,
            calls_max: 20.0,
            calls_decay: 1.0,
            engine_max: 180.0,
            engine_decay: 3.75,
            token_s: 900,
            fok: false,
        }
    }
}

impl SimConfig {
    /// Returns the configuration of a demonstration: all venues, default market, free ports.
    #[must_use]
    pub fn demo(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(crate) fn enabled(&self, venue: Venue) -> bool {
        match venue {
            Venue::Binance => self.binance.enabled,
            Venue::Coinbase => self.coinbase.enabled,
            Venue::Kraken => self.kraken.enabled,
        }
    }

    pub(crate) fn instruments(&self, venue: Venue) -> &[InstrumentConfig] {
        match venue {
            Venue::Binance => &self.binance.instruments,
            Venue::Coinbase => &self.coinbase.instruments,
            Venue::Kraken => &self.kraken.instruments,
        }
    }

    pub(crate) fn lag_ms(&self, venue: Venue) -> u64 {
        match venue {
            Venue::Binance => self.binance.lag_ms,
            Venue::Coinbase => self.coinbase.lag_ms,
            Venue::Kraken => self.kraken.lag_ms,
        }
    }

    pub(crate) fn deep_levels(&self, venue: Venue) -> usize {
        match venue {
            Venue::Binance => self.binance.deep_levels,
            Venue::Coinbase => self.coinbase.deep_levels,
            Venue::Kraken => self.kraken.deep_levels,
        }
    }

    /// Returns what a new account of a venue pays.
    #[must_use]
    pub fn fee_tier(&self, venue: Venue) -> FeeTier {
        let (maker_ppm, taker_ppm) = match venue {
            Venue::Binance => (self.binance.maker_fee_ppm, self.binance.taker_fee_ppm),
            Venue::Coinbase => (self.coinbase.maker_fee_ppm, self.coinbase.taker_fee_ppm),
            Venue::Kraken => (self.kraken.maker_fee_ppm, self.kraken.taker_fee_ppm),
        };
        FeeTier { maker_ppm, taker_ppm, asset: None }
    }

    /// Returns what a new account of a venue starts with.
    #[must_use]
    pub fn opening(&self, venue: Venue) -> BTreeMap<String, Amount> {
        let whole = |n: i128| Amount(n * 10_i128.pow(16));
        let mut assets: BTreeMap<String, Amount> = BTreeMap::new();
        let mut names: Vec<&str> = self
            .instruments(venue)
            .iter()
            .flat_map(|i| [i.base.as_str(), i.quote.as_str()])
            .collect();
        if venue == Venue::Coinbase {
            // The wallet of `X-USDC` orders exists whether or not a product names it.
            names.push("USDC");
        }
        for name in names {
            let amount = match name {
                "USD" | "USDT" | "USDC" => whole(100_000),
                "BTC" => whole(2),
                "ETH" => whole(30),
                other => {
                    let usd = self.market.assets.get(other).map_or(1.0, |a| a.usd);
                    #[expect(clippy::cast_possible_truncation, reason = "a round opening balance")]
                    let units = (50_000.0 / usd).ceil() as i128;
                    whole(units)
                }
            };
            assets.insert(name.to_owned(), amount);
        }
        if let Some(chosen) = self.accounts.balances.get(&venue) {
            assets.extend(chosen.iter().map(|(asset, amount)| (asset.clone(), *amount)));
        }
        assets
    }

    /// Returns an order's delays before and after matching, in nanoseconds.
    pub(crate) fn order_delays_ns(&self, venue: Venue) -> [u64; 2] {
        let (before, after) = match venue {
            Venue::Binance => (self.binance.order_delay_us, self.binance.reply_delay_us),
            Venue::Coinbase => (self.coinbase.order_delay_us, self.coinbase.reply_delay_us),
            Venue::Kraken => (self.kraken.order_delay_us, self.kraken.reply_delay_us),
        };
        [before * 1_000, after * 1_000]
    }

    /// Returns the ports (plain, TLS) asked for.
    pub(crate) fn ports(&self, venue: Venue) -> (u16, u16) {
        match venue {
            Venue::Binance => (self.binance.plain_port, self.binance.tls_port),
            Venue::Coinbase => (self.coinbase.plain_port, self.coinbase.tls_port),
            Venue::Kraken => (self.kraken.plain_port, self.kraken.tls_port),
        }
    }

    /// Checks what types cannot: ranges, grids, assets, symbols.
    ///
    /// # Errors
    /// Returns the first thing that is wrong, naming its key.
    pub fn validate(&self) -> Result<(), SimError> {
        let wrong = |key: &str, why: &str| {
            Err(SimError::Config { key: key.to_owned(), why: why.to_owned() })
        };
        let market = &self.market;
        if !(market.rate.is_finite() && (0.0..=100.0).contains(&market.rate)) {
            return wrong("market.rate", "must be from 0 to 100");
        }
        if !(1..=100).contains(&market.step_ms) {
            return wrong("market.step_ms", "must be from 1 to 100");
        }
        if !(20..=5_000).contains(&market.levels) {
            return wrong("market.levels", "must be from 20 to 5000");
        }
        let [least, most] = market.dislocation_bps;
        if !(least > 0.0 && least <= most && most <= 5_000.0) {
            return wrong("market.dislocation_bps", "must be ascending within 0 to 5000");
        }
        if market.dislocation_ms[0] > market.dislocation_ms[1] {
            return wrong("market.dislocation_ms", "must be ascending");
        }
        if !(1..=4_096).contains(&self.queue_mib_max) {
            return wrong("queue_mib_max", "must be from 1 to 4096");
        }
        if !(120..=3_600).contains(&self.truth_s) {
            return wrong("truth_s", "must be from 120 to 3600");
        }
        for (name, asset) in &market.assets {
            if !(asset.usd > 0.0 && asset.usd.is_finite() && asset.vol_bps >= 0.0) {
                return wrong(&format!("market.assets.{name}"), "needs a positive price");
            }
        }
        if let Source::Captures { files, pace } = &self.source {
            if files.is_empty() {
                return wrong("source.captures.files", "names no file");
            }
            if let Pace::Times(times) = pace
                && !(times.is_finite() && *times > 0.0)
            {
                return wrong("source.captures.pace", "must be positive");
            }
        }
        for venue in Venue::ALL {
            if self.deep_levels(venue) > 200_000 {
                return wrong(&format!("{venue}.deep_levels"), "must be at most 200000");
            }
            for one in self.instruments(venue) {
                self.validate_instrument(venue, one)?;
            }
        }
        Ok(())
    }

    fn validate_instrument(&self, venue: Venue, one: &InstrumentConfig) -> Result<(), SimError> {
        let wrong = |why: &str| {
            let key = format!("{venue}.instruments.{}", one.symbol);
            Err(SimError::Config { key, why: why.to_owned() })
        };
        for (name, text) in [("tick", &one.tick), ("lot", &one.lot), ("min_qty", &one.min_qty)] {
            match Grid::parse_step(text) {
                Some(grid) if grid.decimals <= 8 => {}
                _ => return wrong(&format!("{name} must be positive with at most 8 decimals")),
            }
        }
        if Grid::parse_step(&one.min_notional).is_none() {
            return wrong("min_notional must be positive");
        }
        for asset in [&one.base, &one.quote] {
            if asset != "USD" && !self.market.assets.contains_key(asset) {
                return wrong(&format!("asset {asset} has no price in market.assets"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_round_trip_and_unknown_keys_are_refused() {
        let cfg = SimConfig::demo(9);
        cfg.validate().unwrap();
        let text = serde_json::to_string(&cfg).unwrap();
        assert_eq!(serde_json::from_str::<SimConfig>(&text).unwrap(), cfg);
        let tape = r#"{"source":{"captures":{"files":["a.gz"],"pace":{"times":10.0}}}}"#;
        let cfg: SimConfig = serde_json::from_str(tape).unwrap();
        let pace = Pace::Times(10.0);
        assert_eq!(cfg.source, Source::Captures { files: vec![PathBuf::from("a.gz")], pace });
        for wrong in [r#"{"sed":1}"#, r#"{"market":{"rte":1}}"#, r#"{"kraken":{"port":1}}"#] {
            assert!(serde_json::from_str::<SimConfig>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        let check = |change: fn(&mut SimConfig), key: &str| {
            let mut cfg = SimConfig::demo(1);
            change(&mut cfg);
            let error = cfg.validate().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        };
        check(|c| c.market.rate = f64::NAN, "market.rate");
        check(|c| c.truth_s = 60, "truth_s");
        check(|c| c.kraken.instruments[0].tick = "0".to_owned(), "kraken.instruments.BTC/USD");
        check(|c| c.binance.instruments[0].base = "XYZ".to_owned(), "BTCUSDT");
        let files = Vec::new();
        let source = Source::Captures { files, pace: Pace::Asap };
        let cfg = SimConfig { source, ..SimConfig::demo(1) };
        assert!(cfg.validate().is_err(), "no files");
    }
}

//! The one configuration file.
//!
//! Invariant: an unknown key is an error that names the nearest known one; limits have no default; units
//! are in the names. What is accepted here is complete: nobody below reads files or the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tandem_core::instrument::FeeIn;
use tandem_core::record::Venue;
use tandem_core::units::{FeePpm, parse_decimal};
use tandem_feeds::machine::Options;
use tandem_shm::WaitMode;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}; give the file with --config, or start from deploy/tandem.toml")]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{path}: {detail}")]
    Parse {
        /// File.
        path: PathBuf,
        /// What, where, and the nearest known key.
        detail: String,
    },
    /// A value out of its range.
    #[error("{path}: {key} = {value}: {rule}")]
    Range {
        /// File.
        path: PathBuf,
        /// Key.
        key: String,
        /// What it says.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
}

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The run as a whole.
    pub run: Run,
    /// The engine tile and detection.
    pub engine: Engine,
    /// The journal.
    pub journal: Journal,
    /// Venues by name: `binance`, `coinbase`, `kraken`.
    pub venue: BTreeMap<String, VenueConfig>,
}

/// The run as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Directory of rings, pages, stats and journal; below `/dev/shm` on a real host.
    pub dir: PathBuf,
    /// What is done with opportunities.
    pub mode: Mode,
}

/// What is done with opportunities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Detect and log.
    Observe,
}

impl Mode {
    /// Returns the mode's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
        }
    }
}

/// The engine tile and detection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Core to pin to; absent: not pinned.
    #[serde(default)]
    pub core: Option<usize>,
    /// `spin`, `yield` or `park`.
    #[serde(default = "park")]
    pub wait: String,
    /// Smallest net edge wanted.
    pub edge_min_ppm: i32,
    /// Largest believable gross edge.
    pub edge_max_ppm: i32,
    /// How long a halt for an unbelievable edge lasts; 0 is until an operator releases it.
    pub edge_max_halt_s: u32,
    /// Further buffer for cycles that cross quote currencies.
    pub basis_ppm: i32,
    /// Assets that gains are counted in, the most wanted first.
    pub numeraires: Vec<String>,
    /// Most legs of a cycle, 2 to 4.
    pub legs_max: usize,
    /// Most cycles.
    pub cycles_max: usize,
    /// Levels a side that are published and kept by the engine.
    pub window_levels: usize,
    /// An opportunity that comes back within this time is the same one.
    pub flicker_ms: u32,
    /// One denial record per cycle and code in this time.
    pub denial_ms: u32,
    /// One update record per open opportunity in this time.
    pub update_ms: u32,
    /// Between two timer records.
    pub timer_ms: u32,
}

/// The journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// Size of a segment.
    pub segment_mib: u64,
    /// Most segments; when they are full the engine stops taking input until there is room.
    pub segments_max: u64,
}

/// One venue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueConfig {
    /// Stream host, e.g. `wss://stream.binance.com:9443`.
    pub ws_url: String,
    /// REST host, e.g. `https://api.binance.com`.
    pub rest_url: String,
    /// The only certificate authority believed; absent: the public ones.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// The venue's own symbols.
    pub symbols: Vec<String>,
    /// What the venue charges us to take.
    pub taker_fee_ppm: i32,
    /// Which asset the fee comes from: `quote` or `received`.
    pub fee_in: String,
    /// Largest order worth by quote asset; every quote of the symbols needs one.
    pub notional_max: BTreeMap<String, String>,
    /// Buffer per leg for what a taker loses against the displayed book.
    pub slippage_ppm: i32,
    /// Price of old data per leg and second of age.
    pub staleness_ppm_per_s: i32,
    /// Older data makes no opportunity.
    pub age_max_ms: u32,
    /// How long an order takes to reach the venue's book.
    pub order_latency_ms: u32,
    /// Core to pin the feed tile to; absent: not pinned.
    #[serde(default)]
    pub core: Option<usize>,
    /// `spin`, `yield` or `park`.
    #[serde(default = "park")]
    pub wait: String,
    /// Slots of the ring; a power of two.
    #[serde(default = "ring_slots")]
    pub ring_slots: u64,
    /// Instruments a connection.
    #[serde(default)]
    pub symbols_per_connection: Option<usize>,
    /// Kraken: subscribed depth (10, 25, 100, 500, 1000). Binance: levels of the REST snapshot.
    #[serde(default)]
    pub depth: Option<u32>,
    /// Whether books are compared with the REST book; off only for recordings.
    #[serde(default = "yes")]
    pub audit: bool,
    /// Between two audits of one book.
    #[serde(default)]
    pub audit_every_s: Option<u32>,
    /// Nothing received for longer: the connection's books are stale.
    #[serde(default)]
    pub silence_max_ms: Option<u32>,
    /// Events later than this beyond the usual are stale.
    #[serde(default)]
    pub lag_max_ms: Option<u32>,
    /// WebSocket down for longer: REST snapshots instead.
    #[serde(default)]
    pub fallback_after_ms: Option<u32>,
    /// Share of the venue's REST budget that the feed may use.
    #[serde(default)]
    pub rest_share_ppm: Option<u32>,
}

fn park() -> String {
    "park".to_owned()
}

/// 2^16 slots are 8 MiB: 20 full windows of 400 levels a side at once, and more than a second of the
/// busiest second recorded (1,362 messages of up to 1,076 levels, `protocols/binance.md` section 3).
fn ring_slots() -> u64 {
    1 << 16
}

fn yes() -> bool {
    true
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Io { path: path.to_owned(), error })?;
        Config::parse(&text, path)
    }

    /// Reads and checks a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            detail: with_nearest_key(&error.to_string()),
        })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let err = |key: String, value: &dyn ToString, rule: &'static str| {
            Err(ConfigError::Range { path: path.to_owned(), key, value: value.to_string(), rule })
        };
        if !self.run.dir.is_absolute() {
            let dir = self.run.dir.display();
            return err("run.dir".into(), &dir, "must be an absolute path, e.g. /dev/shm/tandem");
        }
        for (key, wait) in std::iter::once(("engine.wait".to_owned(), &self.engine.wait)).chain(
            self.venue.iter().map(|(name, venue)| (format!("venue.{name}.wait"), &venue.wait)),
        ) {
            if WaitMode::from_str(wait).is_err() {
                return err(key, wait, "must be spin, yield or park");
            }
        }
        if !(1..=1_000).contains(&self.engine.timer_ms) {
            return err("engine.timer_ms".into(), &self.engine.timer_ms, "must be 1 to 1000");
        }
        if !(8..=4_096).contains(&self.engine.window_levels) {
            let rule = "must be 8 to 4096";
            return err("engine.window_levels".into(), &self.engine.window_levels, rule);
        }
        if !(1..=1 << 20).contains(&self.journal.segment_mib) {
            return err(
                "journal.segment_mib".into(),
                &self.journal.segment_mib,
                "must be 1 to 1048576",
            );
        }
        if let Err(error) = crate::table::params(&crate::table::detection(self), &[]).check() {
            return err(format!("engine.{}", error.key), &"as given", error.range);
        }
        if !(2..=4).contains(&self.engine.legs_max) {
            return err("engine.legs_max".into(), &self.engine.legs_max, "must be 2 to 4");
        }
        if self.journal.segments_max < 3 {
            return err(
                "journal.segments_max".into(),
                &self.journal.segments_max,
                "must be at least 3",
            );
        }
        if self.venue.is_empty() {
            return err("venue".into(), &"nothing", "at least one venue is needed");
        }
        for (name, venue) in &self.venue {
            let key = |key: &str| format!("venue.{name}.{key}");
            if venue_named(name).is_none() {
                return err(format!("venue.{name}"), name, "must be binance, coinbase or kraken");
            }
            if venue.symbols.is_empty() {
                return err(key("symbols"), &"[]", "at least one symbol is needed");
            }
            if !["quote", "received"].contains(&venue.fee_in.as_str()) {
                return err(key("fee_in"), &venue.fee_in, "must be quote or received");
            }
            if 100_000 < venue.taker_fee_ppm.abs() {
                return err(key("taker_fee_ppm"), &venue.taker_fee_ppm, "must be within 10 %");
            }
            if venue.age_max_ms == 0 {
                return err(key("age_max_ms"), &venue.age_max_ms, "must be positive");
            }
            // Two snapshots of a whole window must fit, or one of them overruns the engine.
            let least = (1 << 10).max(4 * (self.engine.window_levels as u64 + 1));
            if !venue.ring_slots.is_power_of_two() || venue.ring_slots < least {
                let rule = "must be a power of two, at least 1024 and four windows";
                return err(key("ring_slots"), &venue.ring_slots, rule);
            }
            if Address::parse(&venue.ws_url, ["ws", "wss"]).is_none() {
                let rule = "must be ws://host:port or wss://host[:port]";
                return err(key("ws_url"), &venue.ws_url, rule);
            }
            if Address::parse(&venue.rest_url, ["http", "https"]).is_none() {
                let rule = "must be http://host:port or https://host[:port]";
                return err(key("rest_url"), &venue.rest_url, rule);
            }
            for (url_key, url, schemes) in [
                ("ws_url", &venue.ws_url, ["ws", "wss"]),
                ("rest_url", &venue.rest_url, ["http", "https"]),
            ] {
                if let Some(address) = Address::parse(url, schemes)
                    && !address.tls
                    && !is_loopback(&address.host)
                {
                    return err(key(url_key), url, "plain text is for loopback only; use TLS");
                }
            }
            for (asset, amount) in &venue.notional_max {
                if !matches!(parse_decimal(amount.as_bytes(), 8), Ok(1..)) {
                    let rule = "must be a positive decimal amount of the quote asset";
                    return err(format!("venue.{name}.notional_max.{asset}"), amount, rule);
                }
            }
        }
        Ok(())
    }

    /// Returns the venues in the order of their tags.
    #[must_use]
    pub fn venues(&self) -> Vec<(Venue, &VenueConfig)> {
        let of = |venue: Venue| self.venue.get(venue.name()).map(|config| (venue, config));
        Venue::ALL.into_iter().filter_map(of).collect()
    }

    /// Returns where the journal is.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.run.dir.join("journal")
    }
}

impl VenueConfig {
    /// Returns the machine's options.
    #[must_use]
    pub fn options(&self, venue: Venue, window: usize, seed: u64) -> Options {
        let ms = |value: Option<u32>, default: i64| {
            value.map_or(default, |value| i64::from(value) * 1_000_000)
        };
        let base = Options::for_venue(venue);
        Options {
            window,
            per_conn: self.symbols_per_connection.unwrap_or(base.per_conn),
            depth: self.depth.unwrap_or(base.depth),
            audit: self.audit && base.audit,
            audit_every_ns: ms(
                self.audit_every_s.map(|s| s.saturating_mul(1_000)),
                base.audit_every_ns,
            ),
            silence_ns_max: ms(self.silence_max_ms, base.silence_ns_max),
            lag_ns_max: ms(self.lag_max_ms, base.lag_ns_max),
            fallback_after_ns: ms(self.fallback_after_ms, base.fallback_after_ns),
            rest_share_ppm: self.rest_share_ppm.unwrap_or(base.rest_share_ppm),
            seed,
            ..base
        }
    }

    /// Returns how the tile waits.
    #[must_use]
    pub fn wait_mode(&self) -> WaitMode {
        // Checked when the file was read.
        WaitMode::from_str(&self.wait).unwrap_or(WaitMode::Park)
    }

    /// Returns which asset fees come from.
    #[must_use]
    pub fn fee_in(&self) -> FeeIn {
        if self.fee_in == "received" { FeeIn::Received } else { FeeIn::Quote }
    }

    /// Returns the taker fee.
    #[must_use]
    pub fn taker_fee(&self) -> FeePpm {
        FeePpm(self.taker_fee_ppm)
    }

    /// Returns the stream's and the REST interface's addresses.
    #[must_use]
    pub fn addresses(&self) -> Option<(Address, Address)> {
        let ws = Address::parse(&self.ws_url, ["ws", "wss"])?;
        Some((ws, Address::parse(&self.rest_url, ["http", "https"])?))
    }
}

impl Engine {
    /// Returns how the tile waits.
    #[must_use]
    pub fn wait_mode(&self) -> WaitMode {
        WaitMode::from_str(&self.wait).unwrap_or(WaitMode::Park)
    }
}

/// Host, port and path of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether it is spoken to through TLS.
    pub tls: bool,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What stands in front of every path; empty or `/…` without a slash at the end.
    pub prefix: String,
}

impl Address {
    /// Reads a URL of one of two schemes, the plain one first.
    #[must_use]
    pub fn parse(url: &str, schemes: [&str; 2]) -> Option<Address> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            plain if plain == schemes[0] => false,
            secure if secure == schemes[1] => true,
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        let prefix = path.trim_end_matches('/').to_owned();
        (!host.is_empty()).then(|| Address { tls, host: host.to_owned(), port, prefix })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns the venue of a name.
#[must_use]
pub fn venue_named(name: &str) -> Option<Venue> {
    Venue::ALL.into_iter().find(|venue| venue.name() == name)
}

/// Adds the nearest known key to the parser's message about an unknown one.
fn with_nearest_key(message: &str) -> String {
    let Some(unknown) = message.split("unknown field `").nth(1).and_then(|m| m.split('`').next())
    else {
        return message.to_owned();
    };
    let known = message.split("expected").nth(1).unwrap_or("");
    let nearest = known.split('`').skip(1).step_by(2).max_by(|a, b| {
        strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b))
    });
    match nearest {
        Some(nearest) => format!("{message}\nunknown key `{unknown}`; did you mean `{nearest}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../deploy/tandem.toml");

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("tandem.toml"))
    }

    #[test]
    fn the_shipped_file_is_accepted() {
        let config = load(SAMPLE).expect("deploy/tandem.toml is right");
        assert_eq!(config.venues().len(), 3);
    }

    /// Every key of the file: dropped where it is a limit, misspelt, of the wrong type.
    #[test]
    fn every_misspelt_key_is_refused_with_the_nearest_one() {
        let mut keys = 0;
        for line in SAMPLE.lines() {
            let Some((key, _)) =
                line.split_once(" = ").filter(|(key, _)| !key.contains(['#', '"', ' ']))
            else {
                continue;
            };
            keys += 1;
            let misspelt = SAMPLE.replacen(&format!("\n{key} = "), &format!("\n{key}x = "), 1);
            let message = load(&misspelt).expect_err(key).to_string();
            assert!(message.contains(&format!("did you mean `{key}`")), "{key}: {message}");
        }
        assert!(20 < keys, "the file has keys: {keys}");
    }

    #[test]
    fn limits_have_no_default() {
        for key in [
            "edge_min_ppm",
            "edge_max_ppm",
            "notional_max",
            "age_max_ms",
            "taker_fee_ppm",
            "slippage_ppm",
        ] {
            let line =
                SAMPLE.lines().find(|line| line.starts_with(&format!("{key} = "))).expect(key);
            let without = SAMPLE.replacen(line, "", 1);
            let message = load(&without).expect_err(key).to_string();
            assert!(message.contains(key), "{message}");
        }
    }

    /// Every key that the file may have is in the shipped one, explained.
    #[test]
    fn every_key_there_is_stands_in_the_shipped_file() {
        let config = load(SAMPLE).expect("deploy/tandem.toml is right");
        let full = serde_json::to_value(&config).expect("a configuration is JSON");
        let mut keys = Vec::new();
        for section in ["run", "engine", "journal"] {
            keys.extend(full[section].as_object().expect(section).keys().cloned());
        }
        keys.extend(full["venue"]["binance"].as_object().expect("a venue").keys().cloned());
        for key in keys {
            let stands =
                |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(SAMPLE.lines().any(stands), "`{key}` is not in deploy/tandem.toml");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for (from, to) in [
            ("edge_max_ppm = 30000", "edge_max_ppm = 10"),
            ("edge_min_ppm = 50", "edge_min_ppm = -1"),
            ("slippage_ppm = 50", "slippage_ppm = -50"),
            ("legs_max = 3", "legs_max = 9"),
            ("denial_ms = 1000", "denial_ms = 0"),
            ("ring_slots = 65536", "ring_slots = 1000"),
            ("window_levels = 100", "window_levels = 0"),
        ] {
            assert!(SAMPLE.contains(from), "{from}");
            assert!(load(&SAMPLE.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn plain_text_is_for_loopback() {
        let plain =
            SAMPLE.replacen("wss://stream.binance.com:9443", "ws://stream.binance.com:9443", 1);
        let message = load(&plain).expect_err("no TLS").to_string();
        assert!(message.contains("loopback"), "{message}");
    }

    #[test]
    fn addresses() {
        let parse = |url| Address::parse(url, ["ws", "wss"]);
        let address = parse("wss://stream.binance.com").expect("a URL");
        assert_eq!((address.port, address.tls, address.prefix.as_str()), (443, true, ""));
        let address = parse("ws://127.0.0.1:9001/prefix/").expect("a URL");
        assert_eq!((address.port, address.tls, address.prefix.as_str()), (9001, false, "/prefix"));
        assert_eq!(parse("http://host"), None);
        assert_eq!(parse("wss://"), None);
        assert_eq!(parse("wss://host:99999"), None);
    }
}

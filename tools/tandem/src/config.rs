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
use tandem_gateway::config::KrakenTier;
use tandem_gateway::guard::{ORDERS_PER_SECOND_MAX, USD_PER_SECOND_MAX};
use tandem_shm::WaitMode;

use crate::limits::Limits;
use crate::secrets::Environment;

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
    /// Where keys are; live mode needs it.
    #[serde(default)]
    pub secrets: Option<Secrets>,
    /// What an operator allows; paper and live mode need it.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// The journal on disk; absent: nothing is kept, and nothing is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Who is told of trouble; absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Alerts>,
    /// A database for the journal's rows; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<crate::postgres_config::Postgres>,
    /// The dashboard and `/metrics`; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<Web>,
    /// Redis as a cache and fan-out; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// Sentry; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentry: Option<Sentry>,
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
    /// Directory that outlives the host's memory: level, run numbers, nonces.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
}

fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/tandem")
}

/// Where keys are: a path, or `credential:NAME` for one of systemd's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The gateways' key file.
    pub gateway: String,
    /// The warden's key file: other keys of the same accounts.
    pub warden: String,
    /// Venues whose keys need no IP restriction, each with the reason in words.
    #[serde(default)]
    pub no_ip_restriction: BTreeMap<String, String>,
}

/// Sentry, for errors and panics of every process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct Sentry {
    pub dsn_file: String,
    #[serde(default = "sentry_environment")]
    pub environment: String,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default = "sentry_timeout_ms")]
    pub http_timeout_ms: u32,
}

fn sentry_environment() -> String {
    "production".to_owned()
}

fn sentry_timeout_ms() -> u32 {
    5_000
}

impl Sentry {
    fn check(&self) -> Result<(), Wrong> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if self.environment.is_empty()
            || 64 < self.environment.len()
            || !self.environment.chars().all(is_name)
        {
            let rule = "must be 1 to 64 letters, digits, _, - or .";
            return Err(("sentry.environment".to_owned(), self.environment.clone(), rule));
        }
        if !(100..=60_000).contains(&self.http_timeout_ms) {
            let rule = "must be 100 to 60000";
            let value = self.http_timeout_ms.to_string();
            return Err(("sentry.http_timeout_ms".to_owned(), value, rule));
        }
        Ok(())
    }
}

/// Redis as a cache and fan-out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct Redis {
    pub url: String,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password_file: Option<String>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default = "redis_prefix")]
    pub prefix: String,
    #[serde(default = "redis_flush_ms")]
    pub flush_ms: u32,
    #[serde(default = "redis_depth_levels")]
    pub depth_levels: u32,
    #[serde(default = "redis_stream_max")]
    pub stream_max: u32,
    #[serde(default = "redis_expire_s")]
    pub expire_s: u32,
    #[serde(default = "redis_timeout_ms")]
    pub connect_timeout_ms: u32,
    #[serde(default = "redis_timeout_ms")]
    pub response_timeout_ms: u32,
}

fn redis_prefix() -> String {
    "tandem".to_owned()
}

fn redis_flush_ms() -> u32 {
    20
}

fn redis_depth_levels() -> u32 {
    10
}

fn redis_stream_max() -> u32 {
    10_000
}

fn redis_expire_s() -> u32 {
    300
}

fn redis_timeout_ms() -> u32 {
    1_000
}

impl Redis {
    fn check(&self) -> Result<(), Wrong> {
        let place = tandem_drain::redis::Place::parse(&self.url, self.ca_file.clone());
        if let Err(rule) = place {
            return Err(("redis.url".to_owned(), self.url.clone(), rule));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if self.prefix.is_empty() || 32 < self.prefix.len() || !self.prefix.chars().all(is_name) {
            let rule = "must be 1 to 32 letters, digits, _ or -: the ACL user is limited to it";
            return Err(("redis.prefix".to_owned(), self.prefix.clone(), rule));
        }
        let ranges = [
            ("flush_ms", self.flush_ms, 1..=10_000, "must be 1 to 10000"),
            ("depth_levels", self.depth_levels, 1..=100, "must be 1 to 100"),
            ("stream_max", self.stream_max, 1..=1_000_000, "must be 1 to 1000000"),
            ("expire_s", self.expire_s, 4..=86_400, "must be 4 to 86400"),
            ("connect_timeout_ms", self.connect_timeout_ms, 10..=60_000, "must be 10 to 60000"),
            ("response_timeout_ms", self.response_timeout_ms, 10..=60_000, "must be 10 to 60000"),
        ];
        match ranges.into_iter().find(|(_, value, range, _)| !range.contains(value)) {
            Some((key, value, _, rule)) => Err((format!("redis.{key}"), value.to_string(), rule)),
            None => Ok(()),
        }
    }
}

/// The dashboard's server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct Web {
    #[serde(default = "web_listen")]
    pub listen: std::net::SocketAddr,
    #[serde(default)]
    pub hosts: Vec<String>,
    #[serde(default)]
    pub token_file: Option<String>,
}

fn web_listen() -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], 7411))
}

impl Web {
    fn check(&self) -> Result<(), Wrong> {
        if !self.listen.ip().is_loopback() {
            let rule = "must be loopback: reach it through an SSH tunnel";
            return Err(("web.listen".to_owned(), self.listen.to_string(), rule));
        }
        let is_name = |name: &String| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
            !name.is_empty() && name.len() <= 255 && name.chars().all(allowed)
        };
        if let Some(wrong) = self.hosts.iter().find(|name| !is_name(name)) {
            let rule = "must be a host's name, with a port if only that one is meant";
            return Err(("web.hosts".to_owned(), wrong.clone(), rule));
        }
        Ok(())
    }
}

/// The journal on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct Archive {
    pub dir: PathBuf,
    #[serde(default = "sync_ms")]
    pub sync_ms: u32,
    #[serde(default = "file_mib")]
    pub file_mib: u64,
    #[serde(default = "zstd_level")]
    pub zstd_level: i32,
    #[serde(default = "keep_segments")]
    pub keep_segments: u64,
    #[serde(default = "free_min_mib")]
    pub free_min_mib: u64,
    #[serde(default)]
    pub retain_days: u32,
    #[serde(default)]
    pub retain_gib: u64,
}

fn sync_ms() -> u32 {
    20
}

fn file_mib() -> u64 {
    256
}

fn zstd_level() -> i32 {
    3
}

fn keep_segments() -> u64 {
    2
}

fn free_min_mib() -> u64 {
    1_024
}

impl Archive {
    fn check(&self, segments_max: u64) -> Result<(), Wrong> {
        let wrong = |key: &str, value: &dyn ToString, rule: &'static str| {
            Err((format!("archive.{key}"), value.to_string(), rule))
        };
        if !self.dir.is_absolute() {
            return wrong("dir", &self.dir.display(), "must be an absolute path on a disk");
        }
        if !(1..=1_000).contains(&self.sync_ms) {
            return wrong("sync_ms", &self.sync_ms, "must be 1 to 1000");
        }
        if !(1..=4_096).contains(&self.file_mib) {
            return wrong("file_mib", &self.file_mib, "must be 1 to 4096");
        }
        if !(1..=19).contains(&self.zstd_level) {
            return wrong("zstd_level", &self.zstd_level, "must be 1 to 19");
        }
        // Two are prepared ahead and one is written.
        if !(1..=1_000).contains(&self.keep_segments) || segments_max < self.keep_segments + 4 {
            let rule = "must be at least 1, and journal.segments_max at least 4 more";
            return wrong("keep_segments", &self.keep_segments, rule);
        }
        if 1 << 30 < self.free_min_mib {
            return wrong("free_min_mib", &self.free_min_mib, "must be at most 1073741824");
        }
        if 36_500 < self.retain_days {
            return wrong("retain_days", &self.retain_days, "must be 0 (all) to 36500");
        }
        if 1 << 20 < self.retain_gib {
            return wrong("retain_gib", &self.retain_gib, "must be 0 (all) to 1048576");
        }
        Ok(())
    }
}

/// Who is told of trouble. Addresses and tokens are in files as keys are, or `credential:NAME`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct Alerts {
    pub system: String,
    #[serde(default = "runbook_url")]
    pub runbook_url: String,
    #[serde(default)]
    pub heartbeat_url_file: Option<String>,
    #[serde(default)]
    pub heartbeat_ca_file: Option<PathBuf>,
    #[serde(default = "heartbeat_s")]
    pub heartbeat_s: u32,
    #[serde(default = "group_ms")]
    pub group_ms: u32,
    #[serde(default = "repeat_s")]
    pub repeat_s: u32,
    #[serde(default = "resolve_s")]
    pub resolve_s: u32,
    #[serde(default = "messages_per_min")]
    pub messages_per_min: u32,
    #[serde(default = "http_timeout_ms")]
    pub http_timeout_ms: u32,
    #[serde(default = "retry_s")]
    pub retry_s: u32,
    #[serde(default = "probe_ms")]
    pub probe_ms: u32,
    #[serde(default = "lost_ms")]
    pub lost_ms: u32,
    #[serde(default)]
    pub pause_when_lost: bool,
    /// What the rules hold against.
    #[serde(default)]
    pub thresholds: AlertThresholds,
    /// The channels, the most wanted first.
    pub channel: Vec<AlertChannel>,
}

/// What the rules of alerts hold against.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct AlertThresholds {
    pub unknown_s: u32,
    pub one_leg_s: u32,
    pub exposure_ppm: u32,
    pub exposure_s: u32,
    pub dead_man_s: u32,
    pub resyncs_per_h: u32,
    pub rate_ppm: u32,
    pub rate_s: u32,
    pub headroom_s: u32,
    pub down_s: u32,
    pub absent_s: u32,
    pub session_s: u32,
    pub sink_down_s: u32,
    pub backlog_s: u32,
    pub durable_s: u32,
    pub disk_ppm: u32,
    pub stalls_per_min: u32,
    pub edge_shortfall_ppm: u32,
    pub edge_rounds: u32,
    pub certificate_days: u32,
    pub key_age_days: u32,
    pub report_min: u32,
}

impl Default for AlertThresholds {
    fn default() -> AlertThresholds {
        AlertThresholds {
            unknown_s: 10,
            one_leg_s: 5,
            exposure_ppm: 900_000,
            exposure_s: 2,
            dead_man_s: 20,
            resyncs_per_h: 3,
            rate_ppm: 700_000,
            rate_s: 10,
            headroom_s: 86_400,
            down_s: 2,
            absent_s: 60,
            session_s: 15,
            sink_down_s: 30,
            backlog_s: 600,
            durable_s: 10,
            disk_ppm: 200_000,
            stalls_per_min: 10,
            edge_shortfall_ppm: 100,
            edge_rounds: 100,
            certificate_days: 14,
            key_age_days: 90,
            report_min: 10,
        }
    }
}

impl AlertThresholds {
    fn check(&self) -> Result<(), Wrong> {
        for (key, value, range) in [
            ("unknown_s", self.unknown_s, 1..=3_600),
            ("one_leg_s", self.one_leg_s, 1..=3_600),
            ("exposure_ppm", self.exposure_ppm, 1..=10_000_000),
            ("exposure_s", self.exposure_s, 0..=3_600),
            ("dead_man_s", self.dead_man_s, 1..=3_600),
            ("resyncs_per_h", self.resyncs_per_h, 0..=64),
            ("rate_ppm", self.rate_ppm, 1..=1_000_000),
            ("rate_s", self.rate_s, 1..=3_600),
            ("headroom_s", self.headroom_s, 0..=31_536_000),
            ("down_s", self.down_s, 1..=3_600),
            ("absent_s", self.absent_s, 1..=3_600),
            ("session_s", self.session_s, 1..=3_600),
            ("sink_down_s", self.sink_down_s, 1..=86_400),
            ("backlog_s", self.backlog_s, 1..=604_800),
            ("durable_s", self.durable_s, 1..=86_400),
            ("disk_ppm", self.disk_ppm, 0..=1_000_000),
            ("stalls_per_min", self.stalls_per_min, 0..=10_000_000),
            ("edge_shortfall_ppm", self.edge_shortfall_ppm, 0..=1_000_000),
            ("edge_rounds", self.edge_rounds, 1..=10_000),
            ("certificate_days", self.certificate_days, 0..=3_650),
            ("key_age_days", self.key_age_days, 0..=3_650),
            ("report_min", self.report_min, 0..=1_439),
        ] {
            if !range.contains(&value) {
                let rule = "is out of its range; `tandem config explain` tells it";
                return Err((format!("alerts.thresholds.{key}"), value.to_string(), rule));
            }
        }
        Ok(())
    }
}

/// One channel of alerts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct AlertChannel {
    pub name: String,
    pub service: String,
    #[serde(default)]
    pub url_file: Option<String>,
    #[serde(default)]
    pub token_file: Option<String>,
    #[serde(default)]
    pub chat_id: Option<String>,
    #[serde(default = "api_url")]
    pub api_url: String,
    #[serde(default)]
    pub hmac_key_file: Option<String>,
    #[serde(default = "severity_min")]
    pub severity_min: String,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

fn runbook_url() -> String {
    "deploy/runbooks".to_owned()
}

fn heartbeat_s() -> u32 {
    30
}

fn group_ms() -> u32 {
    1_000
}

fn repeat_s() -> u32 {
    900
}

fn resolve_s() -> u32 {
    30
}

fn messages_per_min() -> u32 {
    15
}

fn http_timeout_ms() -> u32 {
    10_000
}

fn retry_s() -> u32 {
    60
}

fn probe_ms() -> u32 {
    30_000
}

fn lost_ms() -> u32 {
    60_000
}

fn api_url() -> String {
    "https://api.telegram.org".to_owned()
}

fn severity_min() -> String {
    "info".to_owned()
}

/// What is wrong with a table: the key, what it says, and the rule.
type Wrong = (String, String, &'static str);

impl Alerts {
    /// A lost channel must be known within this time: the longest silence that OP-06 allows, less what
    /// grouping and the second channel need.
    const KNOWN_WITHIN_MS: u32 = 110_000;

    fn check(&self) -> Result<(), Wrong> {
        let wrong = |key: &str, value: &dyn ToString, rule: &'static str| {
            Err((format!("alerts.{key}"), value.to_string(), rule))
        };
        if !(1..=64).contains(&self.system.chars().count()) {
            return wrong("system", &self.system, "must be 1 to 64 characters");
        }
        if 256 < self.runbook_url.len() {
            return wrong("runbook_url", &self.runbook_url, "must be at most 256 characters");
        }
        for (key, value, range) in [
            ("heartbeat_s", self.heartbeat_s, 1..=3_600),
            ("group_ms", self.group_ms, 0..=10_000),
            ("repeat_s", self.repeat_s, 1..=86_400),
            ("resolve_s", self.resolve_s, 0..=3_600),
            ("messages_per_min", self.messages_per_min, 1..=60),
            ("http_timeout_ms", self.http_timeout_ms, 100..=30_000),
            ("retry_s", self.retry_s, 1..=600),
            ("probe_ms", self.probe_ms, 100..=60_000),
            ("lost_ms", self.lost_ms, 100..=90_000),
        ] {
            if !range.contains(&value) {
                return wrong(key, &value, "is out of its range; `tandem config explain` tells it");
            }
        }
        let known_ms = self.probe_ms + self.lost_ms;
        if Alerts::KNOWN_WITHIN_MS < known_ms {
            let rule = "with probe_ms above 110000: a lost channel would be known too late";
            return wrong("lost_ms", &self.lost_ms, rule);
        }
        self.thresholds.check()?;
        if self.channel.is_empty() {
            return wrong("channel", &"nothing", "at least one [[alerts.channel]] is needed");
        }
        if self.pause_when_lost && self.channel.len() < 2 {
            let rule = "needs two channels: two lost ones pause";
            return wrong("pause_when_lost", &self.pause_when_lost, rule);
        }
        for (at, channel) in self.channel.iter().enumerate() {
            if self.channel[..at].iter().any(|other| other.name == channel.name) {
                return wrong("channel.name", &channel.name, "is there twice");
            }
            channel.check()?;
        }
        Ok(())
    }
}

impl AlertChannel {
    fn check(&self) -> Result<(), Wrong> {
        let wrong = |key: &str, value: &dyn ToString, rule: &'static str| {
            let name = &self.name;
            Err((format!("alerts.channel.{name}.{key}"), value.to_string(), rule))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !(1..=32).contains(&self.name.len()) || !self.name.chars().all(plain) {
            return wrong("name", &self.name, "must be 1 to 32 letters, digits, - or _");
        }
        if tandem_drain::alerts::Severity::named(&self.severity_min).is_none() {
            return wrong("severity_min", &self.severity_min, "must be info, ticket or page");
        }
        let (url, token) = (self.url_file.is_some(), self.token_file.is_some());
        let is_whole = match self.service.as_str() {
            "slack" => url && !token && self.chat_id.is_none() && self.hmac_key_file.is_none(),
            "webhook" => url && !token && self.chat_id.is_none(),
            "telegram" => token && !url && self.chat_id.is_some() && self.hmac_key_file.is_none(),
            other => return wrong("service", &other, "must be slack, telegram or webhook"),
        };
        if !is_whole {
            let rule = "slack needs url_file; webhook url_file and perhaps hmac_key_file; telegram \
                        token_file and chat_id; and nothing else";
            return wrong("service", &self.service, rule);
        }
        Ok(())
    }
}

/// What is done with opportunities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Detect and log.
    Observe,
    /// Detect, and fill against the live books without sending anything.
    Paper,
    /// Send orders.
    Live,
}

impl Mode {
    /// Returns the mode's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Paper => "paper",
            Mode::Live => "live",
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
    /// Order entry and user stream, e.g. `wss://ws-api.binance.com:443`; live mode needs it.
    #[serde(default)]
    pub order_url: Option<String>,
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
    /// Two connections of every book: one takes over from the other, and what they disagree about is not
    /// traded.
    #[serde(default)]
    pub redundant: bool,
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
    /// Kraken: the account's tier, which sets its rate limits: `starter`, `intermediate` or `pro`.
    #[serde(default)]
    pub rate_tier: Option<String>,
    /// Whether the account is Tandem's alone. Where it is, a kill cancels everything in the fewest requests,
    /// and READY is refused while somebody else's orders are open; where it is not, only orders with ids of
    /// ours are ever cancelled, a round trip later.
    #[serde(default = "yes")]
    pub exclusive_account: bool,
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
        let tables = [
            self.alerts.as_ref().map(Alerts::check),
            self.archive.as_ref().map(|of| of.check(self.journal.segments_max)),
            self.redis.as_ref().map(Redis::check),
            self.sentry.as_ref().map(Sentry::check),
            self.web.as_ref().map(Web::check),
        ];
        if let Some(Err((key, value, rule))) =
            tables.into_iter().flatten().find(|checked| checked.is_err())
        {
            return err(key, &value, rule);
        }
        if let Some(Err((key, value, rule))) = self.postgres.as_ref().map(|part| part.check()) {
            return err(key, &value, rule);
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
            if let Some(tier) = &venue.rate_tier
                && (name != "kraken" || KrakenTier::named(tier).is_none())
            {
                let rule =
                    "is for kraken: starter, intermediate or pro, as the account's page says";
                return err(key("rate_tier"), tier, rule);
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
            if let Some(url) = &venue.order_url
                && Address::parse(url, ["ws", "wss"]).is_none()
            {
                let rule = "must be ws://host:port or wss://host[:port]";
                return err(key("order_url"), url, rule);
            }
            for (url_key, url, schemes) in [
                ("ws_url", &venue.ws_url, ["ws", "wss"]),
                ("rest_url", &venue.rest_url, ["http", "https"]),
                ("order_url", venue.order_url.as_ref().unwrap_or(&venue.ws_url), ["ws", "wss"]),
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
        self.check_trading(path)
    }

    /// What paper and live mode need beyond observing.
    fn check_trading(&self, path: &Path) -> Result<(), ConfigError> {
        let err = |key: String, value: &dyn ToString, rule: &'static str| {
            Err(ConfigError::Range { path: path.to_owned(), key, value: value.to_string(), rule })
        };
        if !self.run.state_dir.is_absolute() {
            let dir = self.run.state_dir.display();
            return err("run.state_dir".into(), &dir, "must be an absolute path on a disk");
        }
        if self.run.mode == Mode::Observe {
            return Ok(());
        }
        let Some(limits) = &self.limits else {
            let rule = "this mode needs [limits]: nothing trades without them";
            return err("run.mode".into(), &self.run.mode.name(), rule);
        };
        for name in self.venue.keys() {
            if !limits.venue.contains_key(name) {
                let rule = "missing: every configured venue needs its limits";
                return err(format!("limits.venue.{name}"), &"nothing", rule);
            }
        }
        for (name, venue) in &limits.venue {
            let at_once = venue.orders_per_s.saturating_add(venue.orders_burst);
            let key = format!("limits.venue.{name}.orders_per_s");
            if i64::try_from(ORDERS_PER_SECOND_MAX).unwrap_or(i64::MAX) < at_once {
                let rule = "with orders_burst above what the egress guard lets through (50 a second): \
                            it would end the gateway";
                return err(key, &at_once, rule);
            }
            let worth = parse_decimal(limits.notional_max.as_bytes(), 0)
                .map_or(i128::MAX, |worth| i128::from(worth) * i128::from(at_once));
            if USD_PER_SECOND_MAX / 2 < worth {
                let rule = "with orders_burst and notional_max above half of what the egress guard lets \
                            through (250000 USD a second): it would end the gateway";
                return err(key, &at_once, rule);
            }
        }
        if self.run.mode == Mode::Paper {
            return Ok(());
        }
        let Some(secrets) = &self.secrets else {
            let rule = "live mode needs [secrets]: where the keys are";
            return err("run.mode".into(), &self.run.mode.name(), rule);
        };
        if secrets.gateway == secrets.warden {
            let rule = "gateways and warden need keys of their own: a nonce has one writer";
            return err("secrets.warden".into(), &secrets.warden, rule);
        }
        for (venue, reason) in &secrets.no_ip_restriction {
            let key = format!("secrets.no_ip_restriction.{venue}");
            if venue_named(venue).is_none() {
                return err(key, venue, "must be binance, coinbase or kraken");
            }
            if reason.trim().is_empty() {
                return err(key, reason, "must say why, in words");
            }
        }
        for (name, venue) in &self.venue {
            if venue.order_url.is_none() {
                let rule = "missing: live mode needs the address of order entry";
                return err(format!("venue.{name}.order_url"), &"nothing", rule);
            }
        }
        Ok(())
    }

    /// Returns which world the configured addresses belong to: simulators are on loopback. A mixture is
    /// an error that names the first address that differs.
    pub fn environment(&self) -> Result<Environment, String> {
        let mut world: Option<(Environment, &str)> = None;
        for (_, venue) in self.venues() {
            let orders = venue.order_url.as_deref().unwrap_or(&venue.ws_url);
            for url in [&venue.ws_url, &venue.rest_url, orders] {
                let address = Address::parse(url, ["ws", "wss"])
                    .or_else(|| Address::parse(url, ["http", "https"]));
                let local = address.is_some_and(|address| is_loopback(&address.host));
                let this = if local { Environment::Sim } else { Environment::Live };
                match world {
                    None => world = Some((this, url)),
                    Some((that, _)) if that == this => {}
                    Some((that, other)) => {
                        return Err(format!(
                            "{url} is {}, {other} is {}: one run has one world",
                            this.name(),
                            that.name()
                        ));
                    }
                }
            }
        }
        world.map(|(world, _)| world).ok_or_else(|| "no venue is configured".to_owned())
    }

    /// Returns the venues in the order of their tags.
    #[must_use]
    pub fn venues(&self) -> Vec<(Venue, &VenueConfig)> {
        let of = |venue: Venue| self.venue.get(venue.name()).map(|config| (venue, config));
        Venue::ALL.into_iter().filter_map(of).collect()
    }

    /// Returns whether anything behind the journal is wanted: then a drain runs.
    #[must_use]
    pub fn has_drain(&self) -> bool {
        self.alerts.is_some()
            || self.archive.is_some()
            || self.postgres.is_some()
            || self.redis.is_some()
            || self.sentry.is_some()
            || self.web.is_some()
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

    /// Returns the order entry's address.
    #[must_use]
    pub fn order_address(&self) -> Option<Address> {
        Address::parse(self.order_url.as_ref()?, ["ws", "wss"])
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

/// Returns the name that is nearest to an unknown one.
pub(crate) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known.into_iter().max_by(|a, b| {
        strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b))
    })
}

/// Adds the nearest known key to the parser's message about an unknown one.
pub(crate) fn with_nearest_key(message: &str) -> String {
    let Some(unknown) = message.split("unknown field `").nth(1).and_then(|m| m.split('`').next())
    else {
        return message.to_owned();
    };
    let known = message.split("expected").nth(1).unwrap_or("");
    match nearest(unknown, known.split('`').skip(1).step_by(2)) {
        Some(nearest) => format!("{message}\nunknown key `{unknown}`; did you mean `{nearest}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::instrument::AssetId;
    use tandem_core::record::TradingStatus;
    use tandem_core::units::{Amount, Px, Qty};

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
            let without = SAMPLE.replacen(&format!("\n{line}\n"), "\n", 1);
            let message = load(&without).expect_err(key).to_string();
            assert!(message.contains(key), "{message}");
        }
    }

    /// Row CF-01: every key of `[limits]` dropped, renamed, negated, made no number: none is accepted.
    #[test]
    fn no_limit_is_lost_by_a_slip_of_the_pen() {
        let lines: Vec<&str> = SAMPLE.lines().collect();
        let (mut section, mut tried) = ("", 0);
        for (at, line) in lines.iter().enumerate() {
            if line.starts_with('[') {
                section = line;
            }
            let Some((key, value)) = line.split_once(" = ") else { continue };
            if !section.starts_with("[limits") || line.starts_with('#') || key.contains(' ') {
                continue;
            }
            let negative = match value.strip_prefix('"') {
                Some(text) => format!("{key} = \"-{text}"),
                None if value.starts_with('{') => format!("{key} = -1"),
                None => format!("{key} = -{}", if value == "0" { "1" } else { value }),
            };
            let optional = key == "paper_opening";
            let mutations = [
                (!optional).then(String::new),
                Some(format!("{key}_x = {value}")),
                Some(negative),
                Some(format!("{key} = nan")),
                Some(format!("{key} = \"1e9\"")),
            ];
            for mutation in mutations.into_iter().flatten() {
                let mut text = lines.clone();
                text[at] = &mutation;
                let text = text.join("\n").replace("mode = \"observe\"", "mode = \"live\"");
                let refused = match load(&text) {
                    Err(_) => true,
                    // Amounts are read with their asset's decimals, once the venues were asked.
                    Ok(config) => config
                        .limits
                        .expect("limits")
                        .trading(&assets(), tandem_core::limits::Mode::Live, 1)
                        .is_err(),
                };
                assert!(refused, "{section} {mutation}");
                tried += 1;
            }
        }
        println!("figure CF-01: {tried} mutations of {} limits, accepted 0", tried / 5);
        assert!(500 < tried, "{tried}");
    }

    /// The sample's assets, as the venues would list them.
    fn assets() -> tandem_core::instrument::Universe {
        let asset =
            |name: &str| tandem_core::instrument::Asset { name: name.to_owned(), exponent: 8 };
        let bitcoin = tandem_core::instrument::Instrument {
            venue: Venue::Kraken,
            base: AssetId(3),
            quote: AssetId(0),
            px_exponent: 2,
            tick: Px(1),
            lot: Qty(1),
            qty_min: Qty(1),
            qty_max: Qty(1),
            notional_min: Amount(1),
            notional_max: Amount(1),
            taker_fee: FeePpm(1),
            fee_in: FeeIn::Quote,
            status: TradingStatus::Trading,
        };
        tandem_core::instrument::Universe {
            assets: ["USD", "USDT", "USDC", "BTC", "ETH", "SOL"].map(asset).into(),
            instruments: vec![bitcoin],
        }
    }

    #[test]
    fn the_shipped_limits_are_sound() {
        let config = load(SAMPLE).expect("deploy/tandem.toml is right");
        let limits = config.limits.expect("limits");
        limits.trading(&assets(), tandem_core::limits::Mode::Live, 1).expect("sound");
        assert_eq!(limits.paper_opening(&assets()).expect("amounts").len(), 9 + 8);
    }

    /// Row CF-06: what lives on loopback is a simulator, and a run has one world.
    #[test]
    fn a_run_has_one_world() {
        let config = load(SAMPLE).expect("deploy/tandem.toml is right");
        assert_eq!(config.environment(), Ok(Environment::Live));
        let mixed = SAMPLE.replacen("wss://ws-auth.kraken.com", "ws://127.0.0.1:9000", 1);
        let message = load(&mixed).expect("parses").environment().expect_err("mixed");
        assert!(message.contains("127.0.0.1:9000"), "{message}");
    }

    /// Every key that the file may have is in the shipped one, explained.
    #[test]
    fn every_key_there_is_stands_in_the_shipped_file() {
        let config = load(SAMPLE).expect("deploy/tandem.toml is right");
        let full = serde_json::to_value(&config).expect("a configuration is JSON");
        let mut keys = Vec::new();
        for section in ["run", "engine", "journal", "secrets"] {
            keys.extend(full[section].as_object().expect(section).keys().cloned());
        }
        keys.extend(full["venue"]["binance"].as_object().expect("a venue").keys().cloned());
        let limits = full["limits"].as_object().expect("limits");
        let tables = ["instrument", "venue", "asset"];
        keys.extend(limits.keys().filter(|key| !tables.contains(&key.as_str())).cloned());
        for part in [&limits["instrument"], &limits["venue"]["kraken"], &limits["asset"]["BTC"]] {
            keys.extend(part.as_object().expect("a part").keys().cloned());
        }
        for key in keys {
            let stands =
                |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(SAMPLE.lines().any(stands), "`{key}` is not in deploy/tandem.toml");
        }
    }

    /// The table as it stands in the shipped file, behind its comment marks.
    fn alerts_text() -> String {
        let (_, table) = SAMPLE.split_once("\n# [alerts]\n").expect("the table is in the file");
        let keys = table.lines().filter_map(|line| {
            let line = line.strip_prefix("# ")?;
            let is_key = line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            (is_key || line.starts_with('[')).then_some(line)
        });
        format!("[alerts]\n{}\n", keys.collect::<Vec<_>>().join("\n"))
    }

    /// A table that ends with an empty line, as it stands in the shipped file, behind its comment marks.
    fn postgres_text() -> String {
        let (_, table) = SAMPLE.split_once("\n# [postgres]\n").expect("the table is in the file");
        let keys = table.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
            let line = line.strip_prefix("# ")?;
            line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')).then_some(line)
        });
        format!("[postgres]\n{}\n", keys.collect::<Vec<_>>().join("\n"))
    }

    /// Every key of the table is in the shipped file, and the table there is right.
    #[test]
    fn the_shipped_database_is_whole() {
        let text = postgres_text();
        let config = load(&format!("{SAMPLE}\n{text}")).expect("right");
        assert!(config.has_drain());
        let full = serde_json::to_value(config.postgres.expect("a database")).expect("JSON");
        for key in full.as_object().expect("a table").keys() {
            let stands = |line: &str| line.starts_with(&format!("{key} = "));
            assert!(text.lines().any(stands), "`{key}` is not there");
        }
        for (from, to, told) in [
            ("batch_ms = ", "bach_ms = ", "did you mean `batch_ms`"),
            ("tls = \"verify\"", "tls = \"off\"", "socket or loopback"),
            ("tls = \"verify\"", "tls = \"perhaps\"", "verify or off"),
            ("schema = \"tandem\"", "schema = \"x; drop\"", "small letters"),
            ("port = 5432", "port = 0", "range"),
            ("owner_user = ", "# owner_user = ", "needs owner_user"),
            ("user = ", "# user = ", "missing field `user`"),
        ] {
            assert!(text.contains(from), "{from}");
            let wrong = text.replacen(&format!("\n{from}"), &format!("\n{to}"), 1);
            let message = load(&format!("{SAMPLE}\n{wrong}")).expect_err(to).to_string();
            assert!(message.contains(told), "{to}: {message}");
        }
    }

    fn with_alerts(from: &str, to: &str) -> Result<Config, String> {
        let alerts = alerts_text();
        assert!(alerts.contains(from), "{from}");
        let text = format!("{SAMPLE}\n{}", alerts.replacen(from, to, 1));
        load(&text).map_err(|error| error.to_string())
    }

    /// Every key of the table is in the shipped file, and the table there is right.
    #[test]
    fn the_shipped_alerts_are_whole() {
        let alerts = with_alerts("[alerts]", "[alerts]").expect("right").alerts.expect("alerts");
        assert_eq!(alerts.channel.len(), 3);
        let full = serde_json::to_value(&alerts).expect("JSON");
        let text = alerts_text();
        let channel = full["channel"][0].as_object().expect("a channel");
        let thresholds = full["thresholds"].as_object().expect("a table");
        let keys = full.as_object().expect("a table").keys();
        for key in keys.chain(channel.keys()).chain(thresholds.keys()) {
            let stands = |line: &str| line.starts_with(&format!("{key} = "));
            assert!(
                key == "channel" || key == "thresholds" || text.lines().any(stands),
                "`{key}` is not there"
            );
        }
    }

    #[test]
    fn alerts_that_would_not_be_heard_are_refused() {
        for (from, to, told) in [
            ("repeat_s = ", "repat_s = ", "did you mean `repeat_s`"),
            ("\nurl_file = ", "\nurl_fil = ", "did you mean `url_file`"),
            ("lost_ms = 60000", "lost_ms = 85000", "known too late"),
            ("service = \"slack\"", "service = \"smoke\"", "slack, telegram or webhook"),
            ("chat_id = ", "# chat_id = ", "telegram token_file and chat_id"),
            ("severity_min = \"info\"", "severity_min = \"loud\"", "info, ticket or page"),
            ("system = \"", "system = \"\" # \"", "1 to 64"),
            ("messages_per_min = 15", "messages_per_min = 0", "range"),
            ("system = ", "# system = ", "missing field `system`"),
        ] {
            let message = with_alerts(from, to).expect_err(to);
            assert!(message.contains(told), "{to}: {message}");
        }
        let alone = "[alerts]\nsystem = \"x\"\npause_when_lost = true\n[[alerts.channel]]\nname = \"a\"\n\
                     service = \"slack\"\nurl_file = \"/x\"\n";
        let message = load(&format!("{SAMPLE}\n{alone}")).expect_err("one channel").to_string();
        assert!(message.contains("two channels"), "{message}");
        let none = "[alerts]\nsystem = \"x\"\nchannel = []\n";
        assert!(load(&format!("{SAMPLE}\n{none}")).is_err());
    }

    /// The archive's table as it stands in the shipped file, behind its comment marks.
    fn archive_text() -> String {
        let (_, table) = SAMPLE.split_once("\n# [archive]\n").expect("the table is in the file");
        let table = table.split("\n\n").next().unwrap_or_default();
        let keys = table.lines().filter_map(|line| {
            let line = line.strip_prefix("# ")?;
            line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')).then_some(line)
        });
        format!("[archive]\n{}\n", keys.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn the_shipped_archive_is_whole_and_what_cannot_be_is_refused() {
        let text = archive_text();
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            load(&format!("{SAMPLE}\n{}", text.replacen(from, to, 1))).map_err(|e| e.to_string())
        };
        let config = with("[archive]", "[archive]").expect("right");
        assert!(config.has_drain());
        let archive = config.archive.expect("an archive");
        let full = serde_json::to_value(&archive).expect("JSON");
        for key in full.as_object().expect("a table").keys() {
            assert!(text.contains(&format!("\n{key} = ")), "`{key}` is not there");
        }
        let default: Archive = toml::from_str("dir = \"/var/lib/tandem/archive\"").expect("all");
        let default = serde_json::to_value(&default).expect("JSON");
        assert_eq!(default, full, "the shipped values are the defaults");
        for (from, to, told) in [
            ("dir = \"/var", "dir = \"var", "absolute"),
            ("sync_ms = 20", "sync_ms = 0", "1 to 1000"),
            ("file_mib = 256", "file_mib = 0", "1 to 4096"),
            ("zstd_level = 3", "zstd_level = 22", "1 to 19"),
            ("keep_segments = 2", "keep_segments = 13", "segments_max"),
            ("keep_segments = 2", "keep_segments = 0", "at least 1"),
            ("retain_days = 0", "retain_days = 99999", "36500"),
            ("retain_gib = 0", "retain_gb = 0", "did you mean `retain_gib`"),
            ("dir = ", "# dir = ", "missing field `dir`"),
        ] {
            let message = with(from, to).expect_err(to);
            assert!(message.contains(told), "{to}: {message}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for (from, to) in [
            ("edge_max_ppm = 30000", "edge_max_ppm = 10"),
            ("edge_min_ppm = 50", "edge_min_ppm = -1"),
            ("\nslippage_ppm = 50", "\nslippage_ppm = -50"),
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

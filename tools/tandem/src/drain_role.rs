//! The drain's process: what a run is, made into what `tandem-drain` is told; secrets read; hands given.
//!
//! Invariant: secrets are read here, once, from closed files, and go into the drain as such; a configuration
//! holds only where they are. The drain's one act on the run, PAUSE, is the operator's own function.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tandem_core::level::{Cause, Level, Scope};
use tandem_drain::alerts::board::Board;
use tandem_drain::alerts::book::BookSettings;
use tandem_drain::alerts::channel::ChannelSpec;
use tandem_drain::alerts::path::{PathSettings, Wanted};
use tandem_drain::alerts::rules::Thresholds;
use tandem_drain::alerts::wire::{Sender, Service};
use tandem_drain::alerts::{Settings, Severity};
use tandem_drain::archive;
use tandem_drain::archive::retain::Retention;
use tandem_drain::archive::writer::Format;
use tandem_drain::metrics::Build;
use tandem_drain::plan::{Names, Part, Seen};
use tandem_drain::redis::{Place, RedisSettings};
use tandem_drain::sentry::SentrySettings;
use tandem_drain::source::Beside;
use tandem_drain::status::{Registry, SinkStatus};
use tandem_drain::tail::Places;
use tandem_drain::web::{Operator, WebSettings};
use tandem_drain::{Hands, Plan};
use tandem_feeds::tile::record_schema;
use tandem_gateway::keys::Secret;
use tandem_shm::JournalSpec;

use crate::config::{AlertChannel, Config, Mode};
use crate::engine_tile::{self, metric};
use crate::identity::Identity;
use crate::latch::{self, Act};
use crate::routes::{ENGINE_ROW, WARDEN_ROW, gateway_row};
use crate::secrets::{self, SecretsError};
use crate::{table, warden_role};

/// Name of the file that the one drain of a run holds.
const LOCK: &str = "drain.lock";

/// Why alerts cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    /// No `[alerts]`.
    #[error("the configuration has no [alerts]: deploy/tandem.toml shows one")]
    None,
    /// A secret's file.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

/// Takes the run's drain; a second one would tell everything twice.
pub fn lock(config: &Config) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(config.run.dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Returns whether the run's drain lives.
#[must_use]
pub fn is_running(config: &Config) -> bool {
    let Ok(file) = File::open(config.run.dir.join(LOCK)) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

/// Returns the run as the drain sees it.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    let venues: Vec<_> = config.venues().into_iter().map(|(venue, _)| venue).collect();
    let mut parts = Vec::new();
    let part = |name: String, venue, seen| Part { name, venue, seen };
    let is_live = config.run.mode == Mode::Live;
    let trades = config.run.mode != Mode::Observe;
    parts.push(match trades {
        true => part("engine".to_owned(), None, Seen::Row(ENGINE_ROW)),
        // Without a level there are no rows.
        false => part("engine".to_owned(), None, Seen::Stats(engine_tile::STATS.to_owned())),
    });
    for venue in &venues {
        let name = venue.name();
        let stats = Seen::Stats(tandem_feeds::tile::stats_name(name));
        parts.push(part(format!("feed {name}"), Some(*venue), stats));
        if is_live {
            let row = Seen::Row(gateway_row(*venue));
            parts.push(part(format!("gateway {name}"), Some(*venue), row));
        }
    }
    if is_live {
        parts.push(part("warden".to_owned(), None, Seen::Row(WARDEN_ROW)));
    }
    let spec = JournalSpec {
        segment_bytes: config.journal.segment_mib << 20,
        segments_max: config.journal.segments_max,
        ..JournalSpec::new(record_schema())
    };
    let names = Names {
        engine_stats: engine_tile::STATS.to_owned(),
        journal_full: metric::JOURNAL_FULL.to_owned(),
        outputs_lost: metric::OUTPUTS_LOST.to_owned(),
        overruns: metric::OVERRUNS.to_owned(),
        exposure_ppm: metric::EXPOSURE_PPM.to_owned(),
        warden_stats: warden_role::STATS.to_owned(),
        warden_verdict: venues
            .iter()
            .map(|venue| (*venue, warden_role::gauge(*venue, "verdict")))
            .collect(),
    };
    Plan {
        dir: config.run.dir.clone(),
        journal: config.journal_dir(),
        segments_max: config.journal.segments_max,
        segment_frames: spec.frames_per_segment(),
        trades,
        is_live,
        read_run: table::run_info,
        instruments: instruments(config),
        venues,
        parts,
        names,
    }
}

/// Returns what the drain looks at beside the run: its sinks, and when the keys' files were written.
#[must_use]
pub fn beside(config: &Config, registry: Registry) -> Beside {
    let files = config.secrets.iter().flat_map(|places| {
        [("gateways", places.gateway.as_str()), ("warden", places.warden.as_str())]
    });
    let found = files.filter_map(|(whose, place)| match secrets::resolve(place) {
        Ok(path) => Some((whose.to_owned(), path)),
        // Another unit's credential: how old it is cannot be seen from here.
        Err(error) => {
            tracing::warn!(%error, "the age of the key of the {whose} is not known");
            None
        }
    });
    Beside { registry, keys: found.collect() }
}

/// Returns Redis as configured, its password read; nothing where there is no `[redis]`.
pub fn redis(config: &Config) -> Result<Option<RedisSettings>, SecretsError> {
    let Some(redis) = &config.redis else { return Ok(None) };
    let ms = |ms: u32| Duration::from_millis(ms.into());
    // Checked when the file was read.
    let Ok(place) = Place::parse(&redis.url, redis.ca_file.clone()) else { return Ok(None) };
    Ok(Some(RedisSettings {
        place,
        user: redis.user.clone(),
        password: redis.password_file.as_deref().map(secret).transpose()?,
        prefix: redis.prefix.clone(),
        flush: ms(redis.flush_ms),
        depth: redis.depth_levels as usize,
        stream_max: redis.stream_max as usize,
        expire: Duration::from_secs(redis.expire_s.into()),
        connect_timeout: ms(redis.connect_timeout_ms),
        response_timeout: ms(redis.response_timeout_ms),
    }))
}

/// Returns Sentry as configured, its key read; nothing where there is no `[sentry]`.
pub fn sentry(config: &Config) -> Result<Option<SentrySettings>, SecretsError> {
    let Some(sentry) = &config.sentry else { return Ok(None) };
    let build =
        Identity::of(config).map_or_else(|_| "?".to_owned(), |id| format!("{:016x}", id.build));
    Ok(Some(SentrySettings {
        dsn: secret(&sentry.dsn_file)?,
        environment: sentry.environment.clone(),
        release: format!("tandem@{}+{build}", env!("CARGO_PKG_VERSION")),
        run_dir: config.run.dir.clone(),
        ca_file: sentry.ca_file.clone(),
        timeout: Duration::from_millis(sentry.http_timeout_ms.into()),
    }))
}

/// Returns what this build and configuration are called.
pub fn build(config: &Config) -> io::Result<Build> {
    let identity = Identity::of(config)?;
    Ok(Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: format!("{:016x}", identity.build),
        config: format!("{:016x}", identity.config),
        mode: config.run.mode.name().to_owned(),
    })
}

/// Instruments as people call them, where `tandem up` has asked the venues already.
fn instruments(config: &Config) -> BTreeMap<u16, String> {
    let Ok(table) = table::load(&config.run.dir) else { return BTreeMap::new() };
    let listed = config.venues().into_iter().flat_map(|(venue, _)| {
        let named = move |symbol: String| format!("{} {symbol}", venue.name());
        table.of_venue(venue).into_iter().map(move |listed| (listed.id, named(listed.symbol)))
    });
    listed.collect()
}

fn secret(place: &str) -> Result<Secret, SecretsError> {
    secrets::line(place).map(|text| Secret::from(text.as_str()))
}

fn service(channel: &AlertChannel) -> Result<Service, SecretsError> {
    // Which keys a service needs was checked when the file was read; an empty place is told by its reader.
    let file = |place: &Option<String>| secret(place.as_deref().unwrap_or_default());
    Ok(match channel.service.as_str() {
        "slack" => Service::Slack { url: file(&channel.url_file)? },
        "telegram" => Service::Telegram {
            api_url: channel.api_url.clone(),
            token: file(&channel.token_file)?,
            chat_id: channel.chat_id.clone().unwrap_or_default(),
        },
        _ => Service::Webhook {
            url: file(&channel.url_file)?,
            hmac_key: channel.hmac_key_file.as_deref().map(secret).transpose()?,
        },
    })
}

/// Returns what the rules hold against, as configured.
fn thresholds(config: &Config) -> Thresholds {
    let of = config.alerts.as_ref().map(|alerts| alerts.thresholds.clone()).unwrap_or_default();
    let s = |s: u32| Duration::from_secs(s.into());
    let offset_ms = config.limits.as_ref().map_or(250, |limits| limits.clock_offset_max_ms);
    Thresholds {
        unknown: s(of.unknown_s),
        one_leg: s(of.one_leg_s),
        exposure_ppm: of.exposure_ppm.into(),
        exposure_for: s(of.exposure_s),
        dead_man: s(of.dead_man_s),
        resyncs_per_h: of.resyncs_per_h as usize,
        rate_ppm: of.rate_ppm.into(),
        rate_for: s(of.rate_s),
        headroom: s(of.headroom_s),
        down: s(of.down_s),
        absent: s(of.absent_s),
        session: s(of.session_s),
        sink_down: s(of.sink_down_s),
        backlog: s(of.backlog_s),
        durable: s(of.durable_s),
        disk_ppm: of.disk_ppm.into(),
        stalls_per_min: of.stalls_per_min.into(),
        edge_shortfall_ppm: of.edge_shortfall_ppm.into(),
        edge_rounds: of.edge_rounds as usize,
        certificate: s(of.certificate_days) * 86_400,
        key_age: s(of.key_age_days) * 86_400,
        report_after: s(of.report_min) * 60,
        clock_offset: Duration::from_millis(offset_ms.into()),
    }
}

/// Returns the alerts as configured, secrets read.
pub fn settings(config: &Config) -> Result<Settings, AlertsError> {
    let alerts = config.alerts.as_ref().ok_or(AlertsError::None)?;
    let (ms, s) =
        (|ms: u32| Duration::from_millis(ms.into()), |s: u32| Duration::from_secs(s.into()));
    let spec = |name: &str, service: Service, ca_file: Option<PathBuf>| ChannelSpec {
        name: name.to_owned(),
        service,
        ca_file,
        timeout: ms(alerts.http_timeout_ms),
        group: ms(alerts.group_ms),
        retry: s(alerts.retry_s),
        probe: ms(alerts.probe_ms),
        messages_per_min: alerts.messages_per_min,
    };
    let mut channels = Vec::new();
    for channel in &alerts.channel {
        channels.push(Wanted {
            spec: spec(&channel.name, service(channel)?, channel.ca_file.clone()),
            // Checked when the file was read; the least is told the most.
            severity_min: Severity::named(&channel.severity_min).unwrap_or(Severity::Info),
        });
    }
    let heartbeat = match &alerts.heartbeat_url_file {
        None => None,
        Some(place) => {
            let service = Service::Heartbeat { url: secret(place)? };
            let every = s(alerts.heartbeat_s);
            Some(ChannelSpec {
                probe: every,
                ..spec("heartbeat", service, alerts.heartbeat_ca_file.clone())
            })
        }
    };
    Ok(Settings {
        thresholds: thresholds(config),
        book: BookSettings { repeat: s(alerts.repeat_s), resolve: s(alerts.resolve_s) },
        path: PathSettings {
            sender: Sender {
                system: alerts.system.clone(),
                runbook_url: alerts.runbook_url.clone(),
            },
            channels,
            heartbeat,
            lost_after: ms(alerts.lost_ms),
            pause_when_lost: alerts.pause_when_lost,
        },
    })
}

/// Returns alerts that nobody is told of: for the dashboard alone.
#[must_use]
pub fn silent_settings(config: &Config) -> Settings {
    Settings {
        thresholds: thresholds(config),
        book: BookSettings { repeat: Duration::from_secs(900), resolve: Duration::from_secs(30) },
        path: PathSettings {
            sender: Sender { system: String::new(), runbook_url: String::new() },
            channels: Vec::new(),
            heartbeat: None,
            lost_after: Duration::from_secs(60),
            pause_when_lost: false,
        },
    }
}

/// Name of the file in a run's directory that says where its dashboard is.
pub const WEB_FILE: &str = "dashboard.url";

/// Returns what the dashboard's server is told; nothing where none is wanted.
pub fn web(
    config: &Config,
    board: Board,
    registry: Registry,
) -> Result<Option<WebSettings>, SecretsError> {
    let Some(web) = &config.web else { return Ok(None) };
    let token = web.token_file.as_deref().map(secret).transpose()?;
    if let (Some(token), Some(place)) = (&token, &web.token_file)
        && token.reveal().len() < tandem_drain::web::TOKEN_MIN
    {
        let what = format!("a token has at least {} characters", tandem_drain::web::TOKEN_MIN);
        return Err(SecretsError::Form { path: place.into(), what });
    }
    let trades = config.run.mode != Mode::Observe;
    let operator = || {
        let (run_dir, state_dir) = (config.run.dir.clone(), config.run.state_dir.clone());
        Box::new(AtDashboard { run_dir, state_dir }) as Box<dyn Operator>
    };
    Ok(Some(WebSettings {
        listen: web.listen,
        hosts: web.hosts.clone(),
        token,
        operator: trades.then(operator),
        board,
        registry,
        metrics: None,
        build: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// Raises the level for somebody at the dashboard, as `tandem pause` and `tandem kill` do.
struct AtDashboard {
    run_dir: PathBuf,
    state_dir: PathBuf,
}

impl Operator for AtDashboard {
    fn raise(&self, level: Level, reason: &str) -> Result<bool, String> {
        let page =
            latch::open(&self.run_dir, &self.state_dir).map_err(|error| error.to_string())?;
        let act = Act { who: "dashboard", reason };
        let raise = (Scope::Global, level, Cause::Operator);
        latch::raise(&page, &self.state_dir, raise, &act).map_err(|error| error.to_string())
    }
}

/// Returns the archive as configured, if it is.
#[must_use]
pub fn archive(config: &Config, page: Arc<SinkStatus>) -> Option<archive::Settings> {
    let wanted = config.archive.as_ref()?;
    let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
    Some(archive::Settings {
        root: wanted.dir.clone(),
        journal: config.journal_dir(),
        stats: Some(config.run.dir.clone()),
        format: Format {
            file_bytes: wanted.file_mib << 20,
            zstd_level: wanted.zstd_level,
            schema_hash: record_schema(),
        },
        sync: Duration::from_millis(wanted.sync_ms.into()),
        keep_segments: wanted.keep_segments,
        free_min_bytes: wanted.free_min_mib << 20,
        retention: Retention {
            age: (wanted.retain_days != 0).then(|| days(wanted.retain_days)),
            bytes: (wanted.retain_gib != 0).then_some(wanted.retain_gib << 30),
        },
        read_run: table::run_info,
        hands: Pauser::of(config),
        page,
    })
}

/// Returns where the records of a run are.
#[must_use]
pub fn places(config: &Config) -> Places {
    let archive = config.archive.as_ref().map(|archive| archive.dir.clone());
    Places { journal: config.journal_dir(), archive }
}

/// Raises PAUSE as an operator does.
#[derive(Debug)]
pub struct Pauser {
    run_dir: PathBuf,
    state_dir: PathBuf,
}

impl Pauser {
    /// Returns the hands of a run; nothing where there is nothing to pause.
    #[must_use]
    pub fn of(config: &Config) -> Option<Box<dyn Hands>> {
        let (run_dir, state_dir) = (config.run.dir.clone(), config.run.state_dir.clone());
        let trades = config.run.mode != Mode::Observe;
        trades.then(|| Box::new(Pauser { run_dir, state_dir }) as Box<dyn Hands>)
    }
}

impl Hands for Pauser {
    fn pause(&mut self, reason: &str) -> Result<bool, String> {
        let page =
            latch::open(&self.run_dir, &self.state_dir).map_err(|error| error.to_string())?;
        let act = Act { who: "drain", reason };
        let pause = (Scope::Global, Level::Pause, Cause::Alerts);
        latch::raise(&page, &self.state_dir, pause, &act).map_err(|error| error.to_string())
    }
}

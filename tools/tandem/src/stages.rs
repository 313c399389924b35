//! The stages between a start and READY, each with its word (`reference/reliability.md` section 8.1).
//!
//! Invariant: a stage passes on what is seen now, not on what was once true; what cannot be seen fails.
//! Asking changes nothing, so it may be asked at any time and any number of times.
//!
//! Not here: what a stage does (each process does its own part at its start).

use std::time::Duration;

use serde::Serialize;
use tandem_core::account::SessionState;
use tandem_core::level::{Level, LevelWord, Scope};
use tandem_core::record::Venue;
use tandem_gateway::stats::metric as gateway_metric;
use tandem_shm::ControlPage;

use crate::config::{Config, Mode};
use crate::demo::RunStats;
use crate::drain_role;
use crate::engine_tile::metric;
use crate::identity::config_hash;
use crate::routes::{ENGINE_ROW, WARDEN_ROW, gateway_row};
use crate::sanity;
use crate::secrets::{self, Environment};
use crate::time::now_ns;

/// How a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// As it must be.
    Pass,
    /// Not as it must be: READY is refused.
    Fail,
    /// Not needed in this mode, or waived in writing.
    Waived,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// `S0` to `S12`.
    pub id: &'static str,
    /// What it is about.
    pub name: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen; for a failure, how to mend it.
    pub detail: String,
}

struct Report(Vec<Stage>);

impl Report {
    fn tell(&mut self, id: &'static str, name: &'static str, found: Result<String, String>) {
        let (verdict, detail) = match found {
            Ok(detail) => (Verdict::Pass, detail),
            Err(detail) => (Verdict::Fail, detail),
        };
        self.0.push(Stage { id, name, verdict, detail });
    }

    fn waive(&mut self, id: &'static str, name: &'static str, why: &str) {
        self.0.push(Stage { id, name, verdict: Verdict::Waived, detail: why.to_owned() });
    }
}

/// A process that did not beat for so long does not live.
const BEAT_NS_MAX: i64 = 1_000_000_000;

/// Looks at every stage of a running system.
#[must_use]
pub fn check(config: &Config) -> Vec<Stage> {
    check_without(config, &[])
}

/// The same where some venues are to be left out: their books, sessions and rules stand against nothing.
#[must_use]
pub fn check_without(config: &Config, without: &[Venue]) -> Vec<Stage> {
    let venues: Vec<Venue> = config
        .venues()
        .into_iter()
        .map(|(venue, _)| venue)
        .filter(|venue| !without.contains(venue))
        .collect();
    let venues = &venues[..];
    let mut report = Report(Vec::new());
    let live = config.run.mode == Mode::Live;
    report.waive("S0", "host", "host checks are not part of this build");
    report.tell(
        "S1",
        "configuration",
        config_hash(config).map_err(|e| e.to_string()).and_then(|hash| configuration(config, hash)),
    );
    let page =
        ControlPage::open(&config.run.dir, Duration::ZERO).map_err(|error| error.to_string());
    report.tell(
        "S2",
        "processes",
        page.as_ref().map_err(Clone::clone).and_then(|page| processes(config, page, live)),
    );
    if live {
        report.tell("S3", "secrets", keys(config));
    } else {
        report.waive("S3", "secrets", "this mode holds no keys");
    }
    let stats = RunStats::open(config, Duration::from_millis(100)).map_err(|e| e.to_string());
    report.tell("S4", "journal", stats.as_ref().map_err(Clone::clone).and_then(journal));
    report.tell(
        "S5",
        "level",
        page.as_ref()
            .map_err(Clone::clone)
            .map(|page| LevelWord(page.level()).of(Scope::Global).name().to_owned()),
    );
    let dead = stats.as_ref().map_err(Clone::clone).and_then(|stats| match stats.dead() {
        dead if dead.is_empty() => Ok("every tile's pages live".to_owned()),
        dead => Err(format!("not running: {}; `tandem up` starts them", dead.join(", "))),
    });
    report.tell("S6", "shared memory", dead);
    if config.run.mode == Mode::Observe {
        report.waive("S7", "clock", "this mode has no limits");
        report.waive("S8", "rules", "this mode has no limits");
    } else {
        report.tell("S7", "clock", told(&stats).and_then(|stats| clock(config, stats)));
        report.tell("S8", "rules", told(&stats).and_then(|stats| rules(config, venues, stats)));
    }
    report.tell(
        "S9",
        "books",
        stats.as_ref().map_err(Clone::clone).and_then(|stats| {
            let (in_sync, books) = stats.books_of(venues);
            let text = format!("{in_sync} of {books} in sync");
            if in_sync == books && books != 0 { Ok(text) } else { Err(text) }
        }),
    );
    if live {
        let sessions =
            stats.as_ref().map_err(Clone::clone).and_then(|stats| sessions(venues, stats));
        report.tell("S10", "sessions", sessions);
        report.tell(
            "S11",
            "reconciliation",
            told(&stats).and_then(|stats| matching(config, stats)),
        );
        report.tell("S12", "warden", page.as_ref().map_err(Clone::clone).and_then(warden));
    } else {
        report.waive("S10", "sessions", "this mode has no orders at venues");
        report.waive("S11", "reconciliation", "this mode has no orders at venues");
        report.waive("S12", "warden", "this mode has no orders at venues");
    }
    report.0
}

/// Limits of real money are held against the account and the market once a day.
fn configuration(config: &Config, hash: u64) -> Result<String, String> {
    let real = config.run.mode == Mode::Live && config.environment()? == Environment::Live;
    match sanity::unchecked(&config.run.state_dir, hash, now_ns()) {
        Some(why) if real => Err(why),
        _ => Ok(format!("{hash:016x}")),
    }
}

fn alive(page: &ControlPage, row: usize) -> bool {
    let found = page.row(row);
    found.pid != 0 && now_ns() - (found.beat_ns as i64) <= BEAT_NS_MAX && page.is_held(row)
}

fn processes(config: &Config, page: &ControlPage, live: bool) -> Result<String, String> {
    let mut rows = vec![("engine".to_owned(), ENGINE_ROW)];
    if live {
        let gateways = config
            .venues()
            .into_iter()
            .map(|(venue, _)| (format!("gateway {}", venue.name()), gateway_row(venue)));
        rows.extend(gateways);
        rows.push(("warden".to_owned(), WARDEN_ROW));
    }
    if config.alerts.is_some() && !drain_role::is_running(config) {
        return Err(
            "drain does not run, nobody would hear of trouble; `tandem up` starts it".into()
        );
    }
    let engine = page.row(ENGINE_ROW);
    let wanted = config_hash(config).map_err(|error| error.to_string())?;
    for (name, row) in &rows {
        if !alive(page, *row) {
            return Err(format!("{name} does not run; `tandem up` starts it"));
        }
        let found = page.row(*row);
        if found.build != engine.build {
            return Err(format!("{name} is another build than the engine: stop all, start again"));
        }
        if found.config != wanted {
            return Err(format!("{name} runs on another configuration: stop all, start again"));
        }
    }
    Ok(format!("{} processes of one build and configuration", rows.len()))
}

fn keys(config: &Config) -> Result<String, String> {
    let places = config.secrets.as_ref().ok_or("no [secrets]")?;
    let environment = config.environment()?;
    for place in [&places.gateway, &places.warden] {
        let file = secrets::load(place).map_err(|error| error.to_string())?;
        if file.environment != environment {
            return Err(format!(
                "{place} holds {} keys, the addresses are {}",
                file.environment.name(),
                environment.name()
            ));
        }
    }
    Ok(format!("{} keys, closed files", environment.name()))
}

fn journal(stats: &RunStats) -> Result<String, String> {
    let engine = stats.engine();
    let lost = engine.counter(crate::engine_tile::metric::OUTPUTS_LOST).unwrap_or(0);
    let seq = engine.gauge(crate::engine_tile::metric::JOURNAL_SEQ).unwrap_or(0);
    if lost == 0 {
        Ok(format!("at record {seq}"))
    } else {
        Err(format!("{lost} outputs are missing"))
    }
}

fn told(stats: &Result<RunStats, String>) -> Result<&RunStats, String> {
    stats.as_ref().map_err(Clone::clone)
}

fn clock(config: &Config, stats: &RunStats) -> Result<String, String> {
    let limits = config.limits.as_ref().ok_or("no [limits]")?;
    let engine = stats.engine();
    let gauge = |name| engine.gauge(name).unwrap_or(0);
    let offset_ms = gauge(metric::CLOCK_OFFSET_NS) / 1_000_000;
    if gauge(metric::CLOCK_SYNCHRONISED) != 1 {
        return Err(
            "not two venues were heard yet that could tell our clock from theirs".to_owned()
        );
    }
    if i64::from(limits.clock_offset_max_ms) < offset_ms.abs() {
        return Err(format!(
            "{offset_ms} ms off the venues' clocks, at most {} ms are allowed: `chronyc tracking`",
            limits.clock_offset_max_ms
        ));
    }
    Ok(format!("{offset_ms} ms from the venues' clocks, their way here included"))
}

fn rules(config: &Config, venues: &[Venue], stats: &RunStats) -> Result<String, String> {
    let limits = config.limits.as_ref().ok_or("no [limits]")?;
    let engine = stats.engine();
    let told = |venue: &Venue| engine.gauge(metric::RULES_TOLD_NS[venue.idx()]).unwrap_or(0);
    if let Some(venue) = venues.iter().find(|venue| told(venue) == 0) {
        return Err(format!("not every rule of {} was read yet", venue.name()));
    }
    let told_ns = venues.iter().map(told).min().unwrap_or(0);
    let age_s = (now_ns() - told_ns) / 1_000_000_000;
    match age_s <= i64::from(limits.rules_age_max_s) {
        true => Ok(format!("every instrument's rules were read within {age_s} s")),
        false => {
            Err(format!("the oldest rules are of {age_s} s ago: does the venue's REST answer?"))
        }
    }
}

fn matching(config: &Config, stats: &RunStats) -> Result<String, String> {
    let differing = stats.engine().gauge(metric::DIFFERING).ok_or("the engine tells nothing")?;
    if differing != 0 {
        return Err(format!(
            "{differing} balances are not what the venues say: `tandem balances` shows which"
        ));
    }
    let mut foreign_count = 0;
    for (venue, gateway) in stats.gateways() {
        let foreign = gateway.gauge(gateway_metric::FOREIGN_OPEN).unwrap_or(0);
        foreign_count += foreign;
        let name = venue.name();
        if foreign != 0 && config.venue.get(name).is_some_and(|venue| venue.exclusive_account) {
            return Err(format!(
                "{foreign} open orders at {name} are not ours: cancel them, or say \
                 venue.{name}.exclusive_account = false"
            ));
        }
    }
    Ok(match foreign_count {
        0 => "our books and the venues' agree".to_owned(),
        count => {
            format!("our books and the venues' agree; WARNING: {count} orders of somebody else")
        }
    })
}

fn sessions(venues: &[Venue], stats: &RunStats) -> Result<String, String> {
    let mut text = Vec::new();
    for venue in venues {
        match stats.session(*venue) {
            Some(SessionState::Ready) => text.push(format!("{} ready", venue.name())),
            Some(state) => {
                return Err(format!("{}: session is {}, not ready", venue.name(), state.name()));
            }
            None => return Err(format!("{}: no gateway", venue.name())),
        }
    }
    Ok(text.join(", "))
}

fn warden(page: &ControlPage) -> Result<String, String> {
    let word = LevelWord(page.level());
    match alive(page, WARDEN_ROW) && page.row(WARDEN_ROW).echo == word.epoch() {
        true => Ok("watches, and has seen the level".to_owned()),
        false => Err("the warden does not answer".to_owned()),
    }
}

/// Returns whether nothing stands against READY.
#[must_use]
pub fn is_ready(stages: &[Stage]) -> bool {
    stages.iter().all(|stage| stage.verdict != Verdict::Fail)
}

/// Returns the level that counts at each venue.
#[must_use]
pub fn levels(config: &Config) -> Option<(Level, Vec<(Venue, Level)>)> {
    let page = ControlPage::open(&config.run.dir, Duration::ZERO).ok()?;
    let word = LevelWord(page.level());
    let venues = Venue::ALL.map(|venue| (venue, word.effective(venue)));
    Some((word.of(Scope::Global), venues.into()))
}

//! `arm`, `pause`, `kill`, `drill`: the operator's hand on the level.
//!
//! Raising needs no confirmation and no running process: the word in shared memory is changed first, the
//! file follows. Lowering needs a reason, every stage passed, and the configuration's hash typed.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::record::Venue;
use tandem_gateway::warden::Verdict;
use tandem_shm::{ControlPage, StatsReader};

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::config::{Config, Mode, venue_named};
use crate::identity::config_hash;
use crate::latch::{self, Act};
use crate::routes::{ENGINE_ROW, WARDEN_ROW, gateway_row};
use crate::stages;
use crate::warden_role;

/// Who raises or lowers what, and why.
#[derive(Args, Debug)]
pub struct LevelArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Why, in words; it goes into the audit log.
    #[arg(long)]
    reason: String,
    /// Who; default: the user of this shell.
    #[arg(long)]
    who: Option<String>,
    /// One venue instead of everything.
    #[arg(long)]
    venue: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// `arm` in full.
#[derive(Args, Debug)]
pub struct ArmArgs {
    #[command(flatten)]
    level: LevelArgs,
    /// First eight digits of the configuration's hash, which `tandem arm` tells: proof that you mean it.
    #[arg(long, value_name = "HASH")]
    confirm: Option<String>,
    /// A venue to leave out, e.g. one that cannot be reached: it stays at PAUSE or what it was at, and stands
    /// against nothing.
    #[arg(long, value_name = "VENUE", conflicts_with = "venue")]
    without: Vec<String>,
}

/// `kill` in full.
#[derive(Args, Debug)]
pub struct KillArgs {
    #[command(flatten)]
    level: LevelArgs,
    /// How long to wait for the proof, seconds.
    #[arg(long, default_value_t = 30)]
    wait_s: u64,
}

impl LevelArgs {
    fn who(&self) -> String {
        // Only for the log; it decides nothing.
        self.who.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "operator".into())
    }

    fn scope(&self) -> Result<Scope, Failure> {
        match &self.venue {
            None => Ok(Scope::Global),
            Some(name) => venue_named(name).map(Scope::Venue).ok_or_else(|| {
                Failure::usage(format!("--venue {name}: write binance, coinbase or kraken"))
            }),
        }
    }

    fn page(&self, config: &Config) -> Result<ControlPage, Failure> {
        std::fs::create_dir_all(&config.run.dir).map_err(Failure::failed)?;
        latch::open(&config.run.dir, &config.run.state_dir).map_err(Failure::failed)
    }
}

#[derive(Serialize)]
struct LevelReport {
    level: String,
    changed: bool,
    venues: std::collections::BTreeMap<String, String>,
    reason: String,
}

fn report(page: &ControlPage, changed: bool, reason: &str, json: bool) {
    let word = LevelWord(page.level());
    let level = word.of(Scope::Global).name().to_owned();
    let venues = Venue::ALL.map(|v| (v.name().to_owned(), word.effective(v).name().to_owned()));
    let report = LevelReport { level, changed, venues: venues.into(), reason: reason.to_owned() };
    if json {
        print_json(&report);
        return;
    }
    let venues: Vec<String> =
        report.venues.iter().map(|(venue, level)| format!("{venue} {level}")).collect();
    let changed = if changed { "" } else { " (it was already)" };
    print(format_args!("{}{changed} · {}", report.level, venues.join(" · ")));
}

/// `tandem pause`.
pub fn pause(args: &LevelArgs) -> Done {
    let config = args.config.load()?;
    let page = args.page(&config)?;
    let act = Act { who: &args.who(), reason: &args.reason };
    let raise = (args.scope()?, Level::Pause, Cause::Operator);
    let changed =
        latch::raise(&page, &config.run.state_dir, raise, &act).map_err(Failure::failed)?;
    report(&page, changed, &args.reason, args.json);
    Ok(Outcome::Ok)
}

/// `tandem arm`.
pub fn arm(args: &ArmArgs) -> Done {
    let config = args.level.config.load_to_trade()?;
    if config.run.mode == Mode::Observe {
        return Err(Failure::refused("mode observe sends nothing: there is nothing to arm"));
    }
    let page = args.level.page(&config)?;
    // What is armed is this word and no later one.
    let seen = LevelWord(page.level());
    let without: Vec<Venue> = args
        .without
        .iter()
        .map(|name| {
            venue_named(name).ok_or_else(|| {
                Failure::usage(format!("--without {name}: write binance, coinbase or kraken"))
            })
        })
        .collect::<Result<_, _>>()?;
    let found = stages::check_without(&config, &without);
    if !stages::is_ready(&found) {
        let failed = found.iter().filter(|stage| stage.verdict == stages::Verdict::Fail);
        let lines: Vec<String> =
            failed.map(|stage| format!("{} {}: {}", stage.id, stage.name, stage.detail)).collect();
        return Err(Failure::refused(format!("not ready, so not armed\n  {}", lines.join("\n  "))));
    }
    let hash = format!("{:016x}", config_hash(&config).map_err(Failure::failed)?);
    if args.confirm.as_deref() != Some(&hash[..8]) {
        return Err(Failure::refused(format!(
            "this lets {} trade in {} with limits of configuration {hash}; to do it, add --confirm {}",
            config.run.dir.display(),
            config.run.mode.name(),
            &hash[..8]
        )));
    }
    let unproven = unproven(&config, &page, &without);
    if !unproven.is_empty() {
        return Err(Failure::refused(format!(
            "killed, and not proven clean yet at {}: wait for the warden's proof (`tandem kill` shows it)",
            unproven.join(", ")
        )));
    }
    let act = Act { who: &args.level.who(), reason: &args.level.reason };
    let what = (args.level.scope()?, seen);
    if !latch::arm(&page, &config.run.state_dir, what, &without, &act).map_err(Failure::failed)? {
        return Err(Failure::refused(
            "the level changed while the stages were looked at: look at what raised it, then arm again",
        ));
    }
    report(&page, true, &args.level.reason, args.level.json);
    Ok(Outcome::Ok)
}

/// Returns the venues that are killed and where the warden has not proven that nothing is open.
fn unproven(config: &Config, page: &ControlPage, without: &[Venue]) -> Vec<String> {
    let word = LevelWord(page.level());
    let clean = Verdict::Clean.name();
    proofs(config, page, 0)
        .into_iter()
        .filter(|(name, proof)| {
            let killed = venue_named(name)
                .is_some_and(|v| word.effective(v) == Level::Kill && !without.contains(&v));
            killed && proof.proof != clean
        })
        .map(|(name, proof)| format!("{name} ({})", proof.proof))
        .collect()
}

/// What a kill came to, by venue.
#[derive(Clone, Debug, Serialize)]
pub struct KillReport {
    /// Level that is in force.
    pub level: String,
    /// From the latch to the echo of the engine and of each gateway, where they live, ns.
    pub echo_ns: std::collections::BTreeMap<String, Option<i64>>,
    /// Proof by venue: CANCELLED, UNCONFIRMED, CANCELLING or CANNOT.
    pub venues: std::collections::BTreeMap<String, KillVenue>,
}

/// One venue of a kill.
#[derive(Clone, Debug, Serialize)]
pub struct KillVenue {
    /// CANCELLED, UNCONFIRMED, CANCELLING, or CANNOT where no warden lives.
    pub proof: String,
    /// From the latch to the first cancel, ns.
    pub first_cancel_ns: Option<i64>,
    /// From the latch to the proof, ns.
    pub proven_ns: Option<i64>,
    /// Orders found late and cancelled one by one.
    pub late: i64,
}

impl KillReport {
    /// Returns whether every venue is proven clean.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.venues.values().all(|venue| venue.proof == Verdict::Clean.name())
    }
}

/// Raises KILL and waits for the echoes and the warden's proof.
pub fn kill_and_prove(
    config: &Config,
    page: &ControlPage,
    (scope, cause): (Scope, Cause),
    act: &Act<'_>,
    wait: Duration,
) -> std::io::Result<KillReport> {
    let now_ns = crate::time::now_ns();
    // The word first; the file is written while the processes are already stopping.
    let raised =
        page.update(|word| LevelWord(word).raised(scope, Level::Kill, cause).map(|word| word.0));
    // Killed already: the sweep that is under way, or proven, is the one that counts.
    let latched_ns = if raised.is_some() { now_ns } else { 0 };
    let epoch = LevelWord(page.level()).epoch();
    let mut rows = vec![("engine".to_owned(), ENGINE_ROW)];
    if config.run.mode == Mode::Live {
        rows.extend(
            config
                .venues()
                .into_iter()
                .map(|(v, _)| (format!("gateway {}", v.name()), gateway_row(v))),
        );
    }
    let mut echo_ns: std::collections::BTreeMap<String, Option<i64>> =
        rows.iter().map(|(name, _)| (name.clone(), None)).collect();
    let until = Instant::now() + Duration::from_millis(5);
    while echo_ns.values().any(Option::is_none) && Instant::now() < until {
        for (name, row) in &rows {
            let echoes = page.row(*row).echo == epoch && page.is_held(*row);
            if echoes && echo_ns[name].is_none() {
                echo_ns.insert(name.clone(), Some(crate::time::now_ns() - now_ns));
            }
        }
        std::hint::spin_loop();
    }
    latch::persist(page, &config.run.state_dir, act)?;
    let until = Instant::now() + wait;
    let venues = loop {
        let venues = proofs(config, page, latched_ns);
        let settled =
            |venue: &KillVenue| venue.proof == Verdict::Clean.name() || venue.proof == "CANNOT";
        if venues.values().all(settled) || until < Instant::now() {
            break venues;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let level = LevelWord(page.level()).of(Scope::Global).name().to_owned();
    Ok(KillReport { level, echo_ns, venues })
}

fn proofs(
    config: &Config,
    page: &ControlPage,
    latched_ns: i64,
) -> std::collections::BTreeMap<String, KillVenue> {
    let stats = StatsReader::open(&config.run.dir, warden_role::STATS, Duration::ZERO).ok();
    let alive = page.is_held(WARDEN_ROW);
    let snapshot = stats.map(|stats| stats.snapshot());
    config
        .venues()
        .into_iter()
        .map(|(venue, _)| {
            let gauge = |what: &str| {
                snapshot.as_ref()?.gauge(&warden_role::gauge(venue, what)).filter(|_| alive)
            };
            let since =
                |what: &str| gauge(what).filter(|at| latched_ns <= *at).map(|at| at - latched_ns);
            let began = gauge("began_ns").is_some_and(|at| latched_ns <= at);
            let proof = match gauge("verdict").and_then(Verdict::from_tag) {
                _ if config.run.mode != Mode::Live => Verdict::Clean.name(),
                None => "CANNOT",
                Some(_) if !began => Verdict::Cancelling.name(),
                Some(verdict) => verdict.name(),
            };
            let venue_report = KillVenue {
                proof: proof.to_owned(),
                first_cancel_ns: since("first_cancel_ns"),
                proven_ns: since("proven_ns"),
                late: gauge("late").unwrap_or(0),
            };
            (venue.name().to_owned(), venue_report)
        })
        .collect()
}

fn print_kill(report: &KillReport) {
    print(format_args!("level {}", report.level));
    for (name, echo) in &report.echo_ns {
        match echo {
            Some(ns) => print(format_args!("{name}: stopped sending after {} us", ns / 1_000)),
            None => print(format_args!("{name}: no echo within 5 ms; the warden goes on alone")),
        }
    }
    let ms = |ns: Option<i64>| {
        ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1} ms", ns as f64 / 1e6))
    };
    for (name, venue) in &report.venues {
        print(format_args!(
            "{name}: {} · first cancel after {} · proven after {} · {} found late",
            venue.proof,
            ms(venue.first_cancel_ns),
            ms(venue.proven_ns),
            venue.late
        ));
        if venue.proof != Verdict::Clean.name() {
            print(format_args!(
                "  {name} is NOT proven clean: look at the venue's own page, cancel there, and if in \
                 doubt delete the API key"
            ));
        }
    }
}

/// `tandem kill`.
pub fn kill(args: &KillArgs) -> Done {
    let config = args.level.config.load()?;
    let page = args.level.page(&config)?;
    let act = Act { who: &args.level.who(), reason: &args.level.reason };
    let what = (args.level.scope()?, Cause::Operator);
    let wait = Duration::from_secs(args.wait_s);
    let report = kill_and_prove(&config, &page, what, &act, wait).map_err(Failure::failed)?;
    if args.level.json {
        print_json(&report);
    } else {
        print_kill(&report);
    }
    Ok(if report.is_clean() { Outcome::Ok } else { Outcome::Partial })
}

/// `tandem drill`.
pub fn drill(args: &KillArgs) -> Done {
    let config = args.level.config.load()?;
    let page = args.level.page(&config)?;
    let before = LevelWord(page.level()).of(Scope::Global);
    if before == Level::Armed {
        return Err(Failure::refused("a drill stops everything: `tandem pause` first"));
    }
    let act = Act { who: &args.level.who(), reason: &args.level.reason };
    let wait = Duration::from_secs(args.wait_s);
    let report = kill_and_prove(&config, &page, (Scope::Global, Cause::Drill), &act, wait)
        .map_err(Failure::failed)?;
    if report.is_clean() && before < Level::Kill {
        // What was paused is paused again; a drill that proved nothing stays killed.
        latch::lower(&page, &config.run.state_dir, (Scope::Global, before), &act)
            .map_err(Failure::failed)?;
    }
    if args.level.json {
        print_json(&report);
    } else {
        print_kill(&report);
        print(format_args!("level {}", LevelWord(page.level()).of(Scope::Global).name()));
    }
    Ok(if report.is_clean() { Outcome::Ok } else { Outcome::Partial })
}

//! The command line.
//!
//! Invariant: every reading command has `--json`; exit codes are 0 ok, 1 failed check, 2 usage,
//! 3 unreachable, 4 refused for safety, 5 partial.

pub mod account;
pub mod alerts;
pub mod backtest;
pub mod books;
pub mod check_limits;
pub mod data;
mod errors;
pub mod export;
pub mod journal;
mod keys;
pub mod latency;
pub mod level;
pub mod live;
pub mod opportunities;
pub mod orders;
pub mod postgres;
pub mod report;
pub mod roles;
pub mod sweep;
pub mod top;
mod why;
mod why_not;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, Mode};
use crate::demo;

/// What a command ended with.
#[derive(Debug)]
pub enum Outcome {
    /// As asked.
    Ok,
    /// Done, and what was checked is not right.
    Failed,
    /// Only part of what was asked could be done.
    Partial,
}

/// Why a command could not be done: the exit code and what to tell.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// A check that failed.
    #[must_use]
    pub fn failed(error: impl std::fmt::Display) -> Failure {
        Failure { code: 1, text: error.to_string() }
    }

    /// Used wrongly: arguments, configuration.
    #[must_use]
    pub fn usage(error: impl std::fmt::Display) -> Failure {
        Failure { code: 2, text: error.to_string() }
    }

    /// Refused because it would not be safe.
    #[must_use]
    pub fn refused(error: impl std::fmt::Display) -> Failure {
        Failure { code: 4, text: error.to_string() }
    }

    /// A process, a file or a venue that is not there.
    #[must_use]
    pub fn unreachable(error: impl std::fmt::Display) -> Failure {
        Failure { code: 3, text: error.to_string() }
    }
}

/// What a command gives.
pub type Done = Result<Outcome, Failure>;

/// Finds and trades price differences between crypto spot venues.
#[derive(Parser)]
#[command(
    name = "tandem",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  tandem demo --for 30s              simulated venues and everything else, no keys
  tandem config check                is deploy/tandem.toml right?
  tandem up                          run every tile of the configuration
  tandem status                      is everything in sync?
  tandem opportunities --last 20     what was found
  tandem replay --verify /dev/shm/tandem/journal

Exit codes: 0 ok, 1 failed check, 2 usage, 3 unreachable, 4 refused for safety, 5 partial."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is.
#[derive(Args, Clone, Debug)]
pub struct ConfigArg {
    /// Configuration file.
    #[arg(long, default_value = "deploy/tandem.toml", value_name = "FILE")]
    pub config: PathBuf,
}

impl ConfigArg {
    /// Reads the file.
    pub fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.config).map_err(Failure::usage)
    }

    /// Reads the file for a process that may trade: where it says `mode = "live"` and is not complete, the
    /// start is refused for safety, not for its form.
    pub fn load_to_trade(&self) -> Result<Config, Failure> {
        Config::load(&self.config).map_err(|error| match self.says_live() {
            true => Failure::refused(error),
            false => Failure::usage(error),
        })
    }

    fn says_live(&self) -> bool {
        let table: Option<toml::Table> =
            std::fs::read_to_string(&self.config).ok().and_then(|text| text.parse().ok());
        table.is_some_and(|table| {
            let mode = table.get("run").and_then(|run| run.get("mode"));
            mode.and_then(toml::Value::as_str) == Some(Mode::Live.name())
        })
    }
}

#[derive(Subcommand)]
enum Command {
    /// Simulated venues and everything else, in one command.
    #[command(after_help = "Examples:
  tandem demo --for 30s                   trades live against simulated venues
  tandem demo --for 30s --mode paper
  tandem demo --for 2m --seed 7 --json
  tandem demo --for 60s --with-services   PostgreSQL, Redis, Prometheus and an archive besides")]
    Demo {
        /// How long to run once all books are in sync: 30s, 2m, 1h.
        #[arg(long = "for", default_value = "30s", value_parser = duration)]
        run_for: Duration,
        /// Seed of the simulated market.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// What is done with opportunities: live (orders to the simulated venues), paper or observe.
        #[arg(long, default_value = "live", value_parser = mode)]
        mode: Mode,
        /// Directory of the run; default: a new one below /dev/shm.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Also PostgreSQL, Redis, Prometheus (Debian's packages) and an archive; at the end each is compared with
        /// the journal.
        #[arg(long)]
        with_services: bool,
        /// Their folder, on a disk; default: a new one below /var/tmp. The archive stays there.
        #[arg(long, value_name = "DIR", requires = "with_services")]
        services_dir: Option<PathBuf>,
        /// Print the report as one JSON object, last.
        #[arg(long)]
        json: bool,
    },
    /// Simulated venues alone: Binance, Coinbase and Kraken on loopback.
    #[command(after_help = "Examples:
  tandem sim                               prints the addresses and runs until interrupted
  tandem sim --config sim.json --seed 7
  tandem sim --capture coinbase.jsonl.gz --capture kraken.jsonl.gz --pace 4")]
    Sim(roles::SimArgs),
    /// One venue's feed tile.
    #[command(after_help = "Example:
  tandem feed binance --config deploy/tandem.toml")]
    Feed {
        /// binance, coinbase or kraken.
        venue: String,
        #[command(flatten)]
        config: ConfigArg,
        /// Stop when the process with this id is gone (the supervisor's).
        #[arg(long, hide = true, value_name = "PID")]
        while_pid: Option<u32>,
    },
    /// The engine tile.
    #[command(after_help = "Example:
  tandem engine --config deploy/tandem.toml")]
    Engine {
        #[command(flatten)]
        config: ConfigArg,
        /// Stop when the process with this id is gone (the supervisor's).
        #[arg(long, hide = true, value_name = "PID")]
        while_pid: Option<u32>,
    },
    /// One venue's order entry.
    #[command(after_help = "Example:
  tandem gateway kraken --config deploy/tandem.toml")]
    Gateway {
        /// binance, coinbase or kraken.
        venue: String,
        #[command(flatten)]
        config: ConfigArg,
        /// Stop when the process with this id is gone (the supervisor's).
        #[arg(long, hide = true, value_name = "PID")]
        while_pid: Option<u32>,
    },
    /// Cancels everything when the engine dies, hangs or is killed, and proves it.
    #[command(after_help = "Example:
  tandem warden --config deploy/tandem.toml")]
    Warden {
        #[command(flatten)]
        config: ConfigArg,
        /// Stop when the process with this id is gone (the supervisor's).
        #[arg(long, hide = true, value_name = "PID")]
        while_pid: Option<u32>,
    },
    /// Everything behind the journal: alerts and databases; needs [alerts] or [postgres].
    #[command(after_help = "Example:
  tandem drain --config deploy/tandem.toml")]
    Drain {
        #[command(flatten)]
        config: ConfigArg,
        /// Stop when the process with this id is gone (the supervisor's).
        #[arg(long, hide = true, value_name = "PID")]
        while_pid: Option<u32>,
    },
    /// Every tile of the configuration, each a process, kept alive.
    #[command(after_help = "Example:
  tandem up --config deploy/tandem.toml")]
    Up {
        #[command(flatten)]
        config: ConfigArg,
        /// Stop when the process with this id is gone (the demo's).
        #[arg(long, hide = true, value_name = "PID")]
        while_pid: Option<u32>,
    },
    /// Lets trading begin: every stage must have passed, and you must mean it.
    #[command(after_help = "Examples:
  tandem arm --reason 'morning start'              says what would be armed, and the hash to type
  tandem arm --reason 'morning start' --confirm 1f2e3d4c")]
    Arm(level::ArmArgs),
    /// No new rounds; what is left over is still hedged.
    #[command(after_help = "Examples:
  tandem pause --reason 'news at 14:30'
  tandem pause --venue kraken --reason maintenance")]
    Pause(level::LevelArgs),
    /// Stops everything, cancels everything, and proves it. Stays so until `tandem arm`.
    #[command(after_help = "Example:
  tandem kill --reason 'something is wrong'")]
    Kill(level::KillArgs),
    /// A kill for practice, from PAUSE and back to it.
    #[command(after_help = "Example:
  tandem drill --reason 'weekly drill'")]
    Drill(level::KillArgs),
    /// The run on a terminal, four times a second: venues, pairs, orders, limits, alerts.
    #[command(after_help = "Examples:
  tandem top
  tandem top --once --size 200x60

Keys: p pause, K KILL, / filter, l latency, o orders, ? help, q quit. NO_COLOR is respected.")]
    Top(top::TopArgs),
    /// Whether everything is in sync, and what was counted.
    #[command(after_help = "Example:
  tandem status --json")]
    Status {
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// The books of a running system, or those that recordings give.
    #[command(after_help = "Examples:
  tandem books                             best prices of every venue, side by side
  tandem books --depth 10 --json
  tandem books data/captures/kraken/*.jsonl.gz --json")]
    Books(books::BooksArgs),
    /// The opportunities in a journal.
    #[command(after_help = "Examples:
  tandem opportunities                     of the configured run, the last 20
  tandem opportunities --journal DIR --kind cross_quote --json
  tandem opportunities --verdict taken --venue kraken --since 10m
  tandem opportunities --min-net 5 --last 0 --csv > found.csv
  tandem opportunities --denials")]
    Opportunities(opportunities::OpportunitiesArgs),
    /// The orders in a journal and what became of them.
    #[command(after_help = "Examples:
  tandem orders                            of the configured run, the last 20
  tandem orders --open --json
  tandem orders --round 17")]
    Orders(orders::OrdersArgs),
    /// Our ledger beside what the venues say.
    #[command(after_help = "Example:
  tandem balances --json")]
    Balances(account::AccountArgs),
    /// What was gained, by day; fees and volume by venue.
    #[command(after_help = "Examples:
  tandem pnl --journal DIR
  tandem pnl --by route --since 2h         edge expected beside realised")]
    Pnl(account::PnlArgs),
    /// Reports for people.
    Report {
        #[command(subcommand)]
        command: report::ReportCommand,
    },
    /// Tables for others: fills for the taxman, disposals, audit, ledger, opportunities; CSV or Parquet.
    #[command(after_help = "Examples:
  tandem export fills --year 2026 --out fills-2026.csv
  tandem export disposals --year 2026 --lots venue --opening-cost opening.csv --out disposals.csv
  tandem export audit --since 2026-11-01 --until 2026-12-01 --out audit.csv
  tandem export ledger --journal /var/lib/tandem/archive --format parquet --out ledger.parquet

Cost is first in, first out. A trade of one asset against another disposes of one and acquires the other at
the same worth in the numeraire: the middle of a book that trades it directly, as it stood (worth_source). A
fee is a disposal of its asset, adds to what a purchase cost and takes off what a sale brought. Opening
balances are lots at their worth when a book first told one, or what --opening-cost says. Exit code 5: the
file is there, and something in it needs a look (no worth, no lot, or a difference to the ledger).")]
    Export(export::ExportArgs),
    /// The latency histograms of a running system.
    #[command(after_help = "Examples:
  tandem latency                           since the start
  tandem latency --for 5s                  of the next five seconds
  tandem latency --export hist.hlog        what HdrHistogram's own tools read")]
    Latency(latency::LatencyArgs),
    /// Journals: list, show, check, import, export.
    Journal {
        #[command(subcommand)]
        command: journal::JournalCommand,
    },
    /// A journal through the engine again.
    #[command(after_help = "Example:
  tandem replay --verify /dev/shm/tandem/journal")]
    Replay {
        /// Directory of the journal, an archive, or a journal's folder in one.
        path: PathBuf,
        /// Compare every output record; exit 0 only if all are identical.
        #[arg(long)]
        verify: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Recorded data through the live engine, with simulated venues around it.
    #[command(after_help = "Examples:
  tandem backtest --data /var/lib/tandem/archive
  tandem backtest --config deploy/backtest.toml --data DIR --out result --sensitivity
  tandem backtest --data monday tuesday --seed 7 --journal simulated --json

Exit code 1: the run is void, for what there was, what was traded and what there is do not agree.")]
    Backtest(backtest::BacktestArgs),
    /// Many backtests: every combination of a grid, on all cores, or in shards on many machines.
    #[command(after_help = "Examples:
  tandem sweep --grid deploy/sweep/grid.example.toml --data DIR --out OUT --dry-run
  tandem sweep --grid grid.toml --config backtest.toml --data monday tuesday --out OUT
  tandem sweep --grid grid.toml --data DIR --out OUT --shards 8 --shard 3
  tandem sweep merge --out results.parquet OUT

The same command goes on where it was: runs that ended are not made again. A run that fails is a row with its
error. Exit code 5: some failed or were left; 1: some are void. deploy/sweep has Kubernetes and Ray.")]
    Sweep(sweep::SweepArgs),
    /// What the venues say of our keys and of our orders.
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// The channels of alerts.
    Alerts {
        #[command(subcommand)]
        command: alerts::AlertsCommand,
    },
    /// The database that the drain writes into.
    Postgres {
        #[command(subcommand)]
        command: postgres::PostgresCommand,
    },
    /// Every stage from configuration to READY, and what differs from the venues' books.
    #[command(after_help = "Examples:
  tandem reconcile                         stages, and our ledger beside the venues'
  tandem reconcile --json")]
    Reconcile(account::AccountArgs),
    /// The story of a round or an opportunity: what was seen, decided, sent, filled and gained.
    #[command(after_help = "Examples:
  tandem why                               what stands against trading now, and what was refused for what
  tandem why --over 10s --symbol BTCUSDT
  tandem why 17                            round 17 of the last run
  tandem why 17 --run 29650123 --json
  tandem why --opportunity 1234")]
    Why(why::WhyArgs),
    /// The configuration: check, show, explain.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Reads the file and says what is wrong with it.
    #[command(after_help = "Examples:
  tandem config check --config deploy/tandem.toml
  tandem config check --against-venues
  tandem config check --against-venues --i-understand asset.BTC.order_max=3")]
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Also compares the limits with the accounts' balances and the markets' last 30 days; arming real
        /// money needs it once a day for the configuration that runs.
        #[arg(long)]
        against_venues: bool,
        /// Waives one finding: its key and the very value.
        #[arg(long, value_name = "KEY=VALUE", requires = "against_venues")]
        i_understand: Vec<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints what the file says, defaults filled in.
    #[command(after_help = "Example:
  tandem config show --json")]
    Show {
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON instead of TOML.
        #[arg(long)]
        json: bool,
    },
    /// Explains a key, or all of them.
    #[command(after_help = "Examples:
  tandem config explain
  tandem config explain edge_min_ppm")]
    Explain {
        /// The key, e.g. edge_min_ppm.
        key: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Reads `30s`, `500ms`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let wrong = || format!("`{text}` is no duration: write 500ms, 30s, 2m or 1h");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => number,
        "s" => number.saturating_mul(1_000),
        "m" => number.saturating_mul(60_000),
        "h" => number.saturating_mul(3_600_000),
        _ => return Err(wrong()),
    };
    Ok(Duration::from_millis(ms))
}

/// Prints a line; a reader that went away (`| head`) is no error of ours.
pub fn print(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a value as JSON.
pub fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => print(text),
        Err(error) => eprintln!("tandem: this report is no JSON: {error}"),
    }
}

/// Returns whether `tandem` with these words before `--help` says how it is used.
#[must_use]
pub fn is_command(words: &[&str]) -> bool {
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    let all = std::iter::once("tandem").chain(words.iter().copied()).chain(["--help"]);
    let told = Cli::command().try_get_matches_from(all);
    told.is_err_and(|error| error.kind() == ErrorKind::DisplayHelp)
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TANDEM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Before anything can go wrong: what is told of it is scrubbed, on the error stream too.
    tandem_drain::spool::catch_panics();
    let shown = tracing_subscriber::fmt::layer().with_writer(errors::Scrubbed).with_filter(filter);
    tracing_subscriber::registry().with(shown).with(errors::SpoolErrors).init();
    match dispatch(Cli::parse().command) {
        Ok(Outcome::Ok) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Partial) => ExitCode::from(5),
        Err(failure) => {
            eprintln!("tandem: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Demo { run_for, seed, mode, dir, with_services, services_dir, json } => {
            let stop = roles::stop_flag(None)?;
            let dir = dir.unwrap_or_else(|| {
                PathBuf::from(format!("/dev/shm/tandem-demo-{}", std::process::id()))
            });
            let services = with_services.then(|| {
                let place = || format!("/var/tmp/tandem-demo-{}", std::process::id()).into();
                services_dir.unwrap_or_else(place)
            });
            let quiet = false;
            demo_command(&demo::Options { run_for, seed, mode, dir, services, quiet, stop }, json)
        }
        Command::Sim(args) => roles::sim(&args),
        Command::Feed { venue, config, while_pid } => roles::feed(&config, &venue, while_pid),
        Command::Engine { config, while_pid } => roles::engine(&config, while_pid),
        Command::Gateway { venue, config, while_pid } => roles::gateway(&config, &venue, while_pid),
        Command::Warden { config, while_pid } => roles::warden(&config, while_pid),
        Command::Drain { config, while_pid } => roles::drain(&config, while_pid),
        Command::Up { config, while_pid } => roles::up(&config, while_pid),
        Command::Arm(args) => level::arm(&args),
        Command::Pause(args) => level::pause(&args),
        Command::Kill(args) => level::kill(&args),
        Command::Drill(args) => level::drill(&args),
        Command::Top(args) => top::run(&args),
        Command::Status { config, json } => live::status(&config, json),
        Command::Books(args) => books::run(&args),
        Command::Opportunities(args) => opportunities::run(&args),
        Command::Orders(args) => orders::run(&args),
        Command::Balances(args) => account::balances(&args),
        Command::Pnl(args) => account::pnl(&args),
        Command::Report { command } => report::run(&command),
        Command::Export(args) => export::run(&args),
        Command::Latency(args) => latency::run(&args),
        Command::Journal { command } => journal::run(&command),
        Command::Backtest(args) => backtest::backtest(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Replay { path, verify: _, json } => replay_command(&path, json),
        Command::Keys { command } => keys::run(&command),
        Command::Alerts { command } => alerts::run(&command),
        Command::Postgres { command } => postgres::run(&command),
        Command::Reconcile(args) => account::reconcile(&args),
        Command::Why(args) => why::run(&args),
        Command::Config { command } => config_command(&command),
    }
}

fn demo_command(options: &demo::Options, json: bool) -> Done {
    let report = demo::run(options).map_err(Failure::failed)?;
    if json {
        print_json(&report);
    } else {
        live::print_demo(&report);
    }
    Ok(if report.is_good() { Outcome::Ok } else { Outcome::Failed })
}

/// Reads a mode's name.
fn mode(text: &str) -> Result<Mode, String> {
    [Mode::Live, Mode::Paper, Mode::Observe]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or_else(|| format!("`{text}`: write live, paper or observe"))
}

fn replay_command(path: &Path, json: bool) -> Done {
    let report = crate::replay::verify(path).map_err(Failure::unreachable)?;
    if json {
        print_json(&report);
    } else {
        print(format_args!(
            "{} records, {} outputs in {} runs: {}\ndigest {}\n{} records per second",
            report.records,
            report.outputs,
            report.runs,
            if report.identical { "identical" } else { "DIFFERENT" },
            report.digest,
            report.records_per_second,
        ));
        if let Some(first) = &report.first_difference {
            print(format_args!(
                "{} differences, the first at record {}\n  journal: {}\n  replay:  {}",
                report.differences,
                first.seq,
                first.journaled.as_deref().unwrap_or("(nothing)"),
                first.replayed.as_deref().unwrap_or("(nothing)"),
            ));
        }
    }
    Ok(if report.identical { Outcome::Ok } else { Outcome::Failed })
}

/// The file with every key explained.
const EXPLAINED: &str = include_str!("../../../../deploy/tandem.toml");

/// One key of the configuration, explained.
#[derive(serde::Serialize)]
struct Explained {
    section: String,
    key: String,
    example: String,
    text: String,
}

fn explained() -> Vec<Explained> {
    let (mut all, mut section, mut text) = (Vec::new(), String::new(), Vec::new());
    for line in EXPLAINED.lines() {
        // A table that is not needed stands behind comment marks.
        if let Some(name) = line.trim_start_matches("# ").strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
            text.clear();
        } else if let Some((key, example)) = line.trim_start_matches("# ").split_once(" = ")
            && !key.contains(' ')
        {
            let (section, key) = (section.clone(), key.to_owned());
            all.push(Explained { section, key, example: example.to_owned(), text: text.join(" ") });
            text.clear();
        } else if let Some(comment) = line.strip_prefix("# ") {
            text.push(comment.to_owned());
        } else {
            text.clear();
        }
    }
    all
}

fn config_command(command: &ConfigCommand) -> Done {
    match command {
        ConfigCommand::Check { config, against_venues: true, i_understand, json } => {
            check_limits::run(config, i_understand, *json)
        }
        ConfigCommand::Check { config, json, .. } => {
            let loaded = Config::load(&config.config);
            match (&loaded, json) {
                (Ok(_), true) => print_json(&serde_json::json!({ "ok": true })),
                (Ok(_), false) => print(format_args!("{}: ok", config.config.display())),
                (Err(error), true) => {
                    print_json(&serde_json::json!({ "ok": false, "error": error.to_string() }));
                }
                (Err(error), false) => eprintln!("tandem: {error}"),
            }
            Ok(if loaded.is_ok() { Outcome::Ok } else { Outcome::Failed })
        }
        ConfigCommand::Show { config, json } => {
            let config = config.load()?;
            if *json {
                print_json(&config);
            } else {
                print(toml::to_string(&config).map_err(Failure::failed)?);
            }
            Ok(Outcome::Ok)
        }
        ConfigCommand::Explain { key, json } => {
            let mut all = explained();
            if let Some(key) = key {
                all.retain(|explained| explained.key == *key && !explained.text.is_empty());
                if all.is_empty() {
                    return Err(Failure::usage(format!(
                        "`{key}` is no key of the configuration; `tandem config explain` lists all"
                    )));
                }
            }
            if *json {
                print_json(&all);
            } else {
                for explained in &all {
                    print(format_args!(
                        "[{}] {} = {}\n    {}",
                        explained.section, explained.key, explained.example, explained.text
                    ));
                }
            }
            Ok(Outcome::Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("30").is_err() && duration("s").is_err() && duration("-1s").is_err());
    }

    #[test]
    fn every_key_is_explained() {
        let all = explained();
        assert!(40 < all.len());
        for section in ["run", "engine", "journal", "venue.binance"] {
            for explained in all.iter().filter(|e| e.section == section) {
                let own = !explained.text.is_empty();
                let before = all.iter().any(|e| e.key == explained.key && !e.text.is_empty());
                assert!(own || before || explained.key == "rest_url", "{}", explained.key);
            }
        }
    }
}

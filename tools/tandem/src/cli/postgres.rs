//! `postgres`: the database's schema, and whether the drain could write into it.

use clap::Subcommand;
use serde::Serialize;
use tandem_drain::postgres::check::{Checked, check};
use tandem_drain::postgres::{SCHEMA_VERSION, Trouble, migrate};

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::config::Config;
use crate::postgres_config::{Postgres, PostgresError};

/// What to do with the database.
#[derive(Subcommand, Debug)]
pub enum PostgresCommand {
    /// Connects as the drain does: rights, schema, and how far the journal is drained. Changes nothing.
    #[command(after_help = "Examples:
  tandem postgres check
  tandem postgres check --json

Exit code 1 where the drain could not write, 3 where the database cannot be reached.")]
    Check {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes the schema, or brings it up to date, as postgres.owner_user (else postgres.user).
    #[command(after_help = "Examples:
  tandem postgres migrate
  tandem postgres migrate --json")]
    Migrate {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    server: String,
    encrypted: bool,
    schema_version: Option<i32>,
    build_version: i32,
    can_write: bool,
    too_much: Vec<String>,
    journal: Option<String>,
    next_seq: Option<i64>,
    lag_records: Option<u64>,
    dead_letters: i64,
    problems: Vec<String>,
}

fn section(config: &Config) -> Result<&Postgres, Failure> {
    config.postgres.as_ref().ok_or_else(|| Failure::usage(PostgresError::None))
}

fn failure(trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Down(_) | Trouble::Hung(_) => Failure::unreachable(trouble),
        _ => Failure::failed(trouble),
    }
}

fn secret(error: PostgresError) -> Failure {
    match error {
        PostgresError::None => Failure::usage(error),
        PostgresError::Secrets(_) => Failure::refused(error),
    }
}

fn wait<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::failed)?;
    let done = runtime.block_on(work).map_err(|trouble| failure(&trouble));
    runtime.shutdown_background();
    done
}

/// `tandem postgres …`.
pub fn run(command: &PostgresCommand) -> Done {
    tandem_shm::forbid_dumps().map_err(Failure::failed)?;
    match command {
        PostgresCommand::Check { config, json } => run_check(&config.load()?, *json),
        PostgresCommand::Migrate { config, json } => run_migrate(&config.load()?, *json),
    }
}

fn run_migrate(config: &Config, json: bool) -> Done {
    let server = section(config)?.server(true).map_err(secret)?;
    let applied = wait(migrate::migrate(&server))?;
    if json {
        print_json(&serde_json::json!({ "applied": applied, "schema_version": SCHEMA_VERSION }));
    } else {
        print(format_args!(
            "{applied} migrations applied; the schema has version {SCHEMA_VERSION}"
        ));
    }
    Ok(Outcome::Ok)
}

fn run_check(config: &Config, json: bool) -> Done {
    let postgres = section(config)?;
    let server = postgres.server(false).map_err(secret)?;
    let found: Checked = wait(check(&server, &postgres.stream, &config.journal_dir()))?;
    let problems = found.problems();
    let report = Report {
        ok: problems.is_empty(),
        server: found.server,
        encrypted: found.encrypted,
        schema_version: found.schema_version,
        build_version: SCHEMA_VERSION,
        can_write: found.missing.is_empty(),
        too_much: found.too_much,
        journal: found.cursor.map(|place| format!("{:032x}", place.journal)),
        next_seq: found.cursor.map(|place| place.seq.cast_signed()),
        lag_records: found.lag,
        dead_letters: found.dead_letters,
        problems,
    };
    if json {
        print_json(&report);
    } else {
        let version = report.schema_version.map_or("none".to_owned(), |v| v.to_string());
        print(format_args!(
            "server        {}{}",
            report.server,
            if report.encrypted { ", TLS" } else { "" }
        ));
        print(format_args!("schema        version {version}, this build {SCHEMA_VERSION}"));
        let place =
            report.next_seq.map_or("nothing drained yet".to_owned(), |s| format!("next {s}"));
        let lag = report.lag_records.map_or(String::new(), |lag| format!(", {lag} records behind"));
        print(format_args!("journal       {place}{lag}"));
        print(format_args!("dead letters  {}", report.dead_letters));
        for problem in &report.problems {
            print(format_args!("problem       {problem}"));
        }
    }
    match report.ok {
        true => Ok(Outcome::Ok),
        false => Err(Failure::failed("the drain could not write as it should; see above")),
    }
}

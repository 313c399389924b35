//! The schema: made and brought up to date, as its owner.
//!
//! Invariant: migrations are those of `deploy/sql/migrations`, built in; each is one transaction and is applied
//! once. One that was changed after it was applied, or that this build does not know, is refused.
//!
//! Not here: whether a session may write into what is there (`session::check_version`).

use std::time::Duration;

use super::Trouble;
use super::session::Server;
use super::write::trouble;

mod embedded {
    refinery::embed_migrations!("../../deploy/sql/migrations");
}

/// Table of what was applied.
const HISTORY: &str = "schema_history";
/// All migrations together take no longer.
const LIMIT: Duration = Duration::from_secs(300);

/// Returns the version that this build writes into.
#[must_use]
pub fn newest() -> i32 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(|migration| migration.version()).max().unwrap_or(0)
}

/// Applies what is missing; returns how many were applied.
pub async fn migrate(server: &Server) -> Result<usize, Trouble> {
    let mut client = server.connect().await?;
    // The configuration lets a schema be letters, digits and underscores alone.
    let schema = server.schema.replace('"', "\"\"");
    let sql = format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"; SET statement_timeout = 0");
    let work = async {
        client.batch_execute(&sql).await.map_err(|error| trouble(&error))?;
        embedded::migrations::runner()
            .set_migration_table_name(HISTORY)
            .run_async(&mut client)
            .await
            .map_err(|error| {
                let behind = std::error::Error::source(&error).map(ToString::to_string);
                Trouble::Refused(format!("{error} {}", behind.unwrap_or_default()))
            })
    };
    match tokio::time::timeout(LIMIT, work).await {
        Err(_) => Err(Trouble::Hung(LIMIT)),
        Ok(report) => report.map(|report| report.applied_migrations().len()),
    }
}

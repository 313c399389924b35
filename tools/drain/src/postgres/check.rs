//! Whether the drain could write: what the server, its schema and our role say.
//!
//! Invariant: looking changes nothing.
//!
//! Not here: how it is shown (`tandem postgres check`).

use std::path::Path;
use std::time::Duration;

use tandem_feeds::tile::record_schema;
use tandem_shm::JournalMonitor;
use tokio_postgres::Row;

use super::session::{self, Server};
use super::write::trouble;
use super::{SCHEMA_VERSION, Trouble};
use crate::rows::Table;
use crate::tail::Position;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The server's version.
    pub server: String,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Version of the schema; nothing where there is none.
    pub schema_version: Option<i32>,
    /// Rights that the role lacks.
    pub missing: Vec<String>,
    /// Rights that the role has and does not need.
    pub too_much: Vec<String>,
    /// The cursor.
    pub cursor: Option<Position>,
    /// Records of this host's journal behind the cursor; nothing where there is no such journal here.
    pub lag: Option<u64>,
    /// Rows that the database refused.
    pub dead_letters: i64,
}

impl Checked {
    /// Returns what keeps the drain from writing, in words with what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.schema_version != Some(SCHEMA_VERSION) {
            problems.push(Trouble::Schema { found: self.schema_version }.to_string());
        }
        problems.extend(self.missing.iter().map(|right| {
            format!(
                "the role may not {right}: GRANT tandem_drain TO it, or migrate again as the owner"
            )
        }));
        problems
    }
}

/// Looks.
pub async fn check(server: &Server, stream: &str, journal: &Path) -> Result<Checked, Trouble> {
    let patience = server.patience();
    match tokio::time::timeout(patience * 2, look(server, stream, journal)).await {
        Err(_) => Err(Trouble::Hung(patience)),
        Ok(found) => found,
    }
}

async fn look(server: &Server, stream: &str, journal: &Path) -> Result<Checked, Trouble> {
    let client = server.connect().await?;
    let of = |error: tokio_postgres::Error| trouble(&error);
    let sql = "SELECT current_setting('server_version'), \
        coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false), \
        rolsuper, rolcreatedb, rolcreaterole, \
        pg_has_role(current_user, 'pg_execute_server_program', 'MEMBER'), \
        has_schema_privilege(current_schema(), 'CREATE') FROM pg_roles WHERE rolname = current_user";
    let row = client.query_one(sql, &[]).await.map_err(of)?;
    let yes =
        |row: &Row, at: usize| row.try_get::<_, Option<bool>>(at).ok().flatten() == Some(true);
    let mut found = Checked {
        server: row.try_get(0).map_err(of)?,
        encrypted: yes(&row, 1),
        schema_version: session::version(&client, server.patience()).await?,
        ..Checked::default()
    };
    let rights =
        ["be superuser", "create databases", "create roles", "run programs", "create tables"];
    for (at, right) in rights.iter().enumerate() {
        if yes(&row, 2 + at) {
            found.too_much.push((*right).to_owned());
        }
    }
    if found.schema_version.is_none() {
        return Ok(found);
    }
    for (table, changes) in tables() {
        let sql = "SELECT has_table_privilege($1, 'SELECT'), has_table_privilege($1, 'INSERT'), \
            has_table_privilege($1, 'UPDATE'), has_table_privilege($1, 'DELETE'), \
            has_table_privilege($1, 'TRUNCATE')";
        let row = client.query_one(sql, &[&table]).await.map_err(of)?;
        let needed = [("read", true), ("add to", true), ("change", changes)];
        for (at, (right, is_needed)) in needed.into_iter().enumerate() {
            if is_needed && !yes(&row, at) {
                found.missing.push(format!("{right} {table}"));
            }
        }
        for (at, right) in [(3, "delete from"), (4, "empty")] {
            if yes(&row, at) {
                found.too_much.push(format!("{right} {table}"));
            }
        }
    }
    let sql = "SELECT journal::text, next_seq FROM drain_cursor WHERE stream = $1";
    if let Some(row) = client.query_opt(sql, &[&stream]).await.map_err(of)? {
        let (uuid, seq): (String, i64) = (row.try_get(0).map_err(of)?, row.try_get(1).map_err(of)?);
        let journal = u128::from_str_radix(&uuid.replace('-', ""), 16).unwrap_or(0);
        found.cursor = Some(Position { journal, seq: seq.cast_unsigned() });
    }
    let sql = "SELECT count(*) FROM dead_letter";
    found.dead_letters =
        client.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(of)?;
    let monitor = JournalMonitor::open(journal, record_schema(), Duration::ZERO).ok();
    found.lag = monitor.map(|monitor| {
        monitor.next_seq().saturating_sub(found.cursor.map_or(1, |place| place.seq))
    });
    Ok(found)
}

fn tables() -> impl Iterator<Item = (&'static str, bool)> {
    let own = [("drain_cursor", true), ("dead_letter", false)];
    Table::ALL.into_iter().map(|table| (table.name(), table.changes())).chain(own)
}

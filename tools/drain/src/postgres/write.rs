//! One batch into the database, once.
//!
//! Invariant: rows and cursor are of one transaction, and the cursor moves only from where this drain left it, in
//! a schema of this build's version: a batch is there wholly or not at all, and never twice. What the server
//! refuses of a batch is found by halves, tried three times, and kept as a dead letter in the same transaction;
//! trouble of the server itself (full, read-only, starting, locked) is never a row's fault.
//!
//! Not here: connections (`session`), what a batch is (`mod`).

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use super::wire::{self, HEADER, TRAILER};
use super::{Counts, SCHEMA_VERSION, Trouble};
use crate::rows::{Merge, Row, Table};
use crate::tail::Position;

/// Times that a refused row is tried.
const TRIES: i16 = 3;
/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;
/// A payload of a dead letter is cut here.
const PAYLOAD_MAX: usize = 1 << 20;

/// What goes into one transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// The rows, in the journal's order.
    pub rows: Vec<Row>,
    /// Where the cursor is now; nothing before the first.
    pub from: Option<Position>,
    /// Where it is afterwards.
    pub to: Option<Position>,
    /// The engine's clock there, UNIX ns.
    pub last_ns: i64,
    /// What the projector keeps there.
    pub state: Vec<u8>,
    /// The run's configuration, where it is another one than at `from`.
    pub run_text: Option<String>,
    /// Records before it that could not be read any more.
    pub lost: u64,
    /// Records that no readable configuration came before, since the session began.
    pub skipped: u64,
}

/// Why a statement failed.
#[derive(Debug)]
pub enum Failed {
    /// The server, the connection, or the schema.
    Server(Trouble),
    /// A row: SQLSTATE and words.
    Row(String, String),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Failed {
        Failed::Server(trouble)
    }
}

/// Returns whether it is a row that was refused: data, constraints, what is too large for an index.
fn is_of_a_row(state: &SqlState) -> bool {
    ["22", "23", "54"].iter().any(|class| state.code().starts_with(class))
}

fn failed(error: &Error) -> Failed {
    match error.code() {
        Some(state) if is_of_a_row(state) => Failed::Row(state.code().to_owned(), told(error)),
        _ => Failed::Server(trouble(error)),
    }
}

/// Returns what an error of the server means for the session.
pub fn trouble(error: &Error) -> Trouble {
    match error.code() {
        Some(state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => Trouble::Refused(told(error)),
        Some(state) if state.code().starts_with("28") => Trouble::Refused(told(error)),
        _ => Trouble::Down(told(error)),
    }
}

/// Returns an error in words, with its SQLSTATE and what the server adds.
fn told(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        // The words that matter are often those of what is behind it.
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        return text;
    };
    let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{} {}{detail}", db.code().code(), db.message())
}

/// The statements of one table.
struct Statements {
    copy: Statement,
    /// For a table whose rows change: from the staging table into it, and the staging table emptied.
    merge: Option<(Statement, Statement)>,
}

/// A session that writes.
pub struct Writer {
    client: Client,
    stream: String,
    patience: Duration,
    statements: BTreeMap<Table, Statements>,
}

/// Returns what a staged row does to a row that is there.
fn merged(table: Table) -> String {
    let name = table.name();
    let sets: Vec<String> = table
        .columns()
        .iter()
        .filter_map(|column| {
            let c = column.name;
            Some(match column.merge {
                Merge::Key => return None,
                Merge::First => format!("{c} = coalesce({name}.{c}, excluded.{c})"),
                Merge::Last => format!("{c} = coalesce(excluded.{c}, {name}.{c})"),
                Merge::Sum => format!(
                    "{c} = CASE WHEN excluded.{c} IS NULL THEN {name}.{c} \
                    ELSE coalesce({name}.{c}, 0) + excluded.{c} END"
                ),
            })
        })
        .collect();
    sets.join(", ")
}

fn columns(table: Table) -> String {
    table.columns().iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

fn keys(table: Table) -> String {
    let keys = table.columns().iter().filter(|column| column.merge == Merge::Key);
    keys.map(|column| column.name).collect::<Vec<_>>().join(", ")
}

impl Writer {
    /// Takes over a connection: makes its staging tables and prepares every statement.
    pub async fn new(client: Client, stream: &str, patience: Duration) -> Result<Writer, Trouble> {
        let mut writer =
            Writer { client, stream: stream.to_owned(), patience, statements: BTreeMap::new() };
        for table in Table::ALL {
            let (name, columns) = (table.name(), columns(table));
            let target = if table.changes() { format!("stage_{name}") } else { name.to_owned() };
            if table.changes() {
                // Without constraints: a row that is told in parts is whole only where it arrives.
                let sql = format!(
                    "CREATE TEMP TABLE {target} ON COMMIT DELETE ROWS AS \
                     SELECT {columns} FROM {name} WITH NO DATA"
                );
                writer.server(writer.client.batch_execute(&sql)).await?;
            }
            let copy = format!("COPY {target} ({columns}) FROM STDIN (FORMAT binary)");
            let copy = writer.server(writer.client.prepare(&copy)).await?;
            let merge = if table.changes() {
                let merge = format!(
                    "INSERT INTO {name} ({columns}) SELECT {columns} FROM {target} \
                     ON CONFLICT ({}) DO UPDATE SET {}",
                    keys(table),
                    merged(table)
                );
                let merge = writer.server(writer.client.prepare(&merge)).await?;
                let clear = format!("DELETE FROM {target}");
                Some((merge, writer.server(writer.client.prepare(&clear)).await?))
            } else {
                None
            };
            writer.statements.insert(table, Statements { copy, merge });
        }
        Ok(writer)
    }

    /// Returns whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits for the server no longer than its patience: a server that accepts and never answers is left.
    async fn server<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
        match tokio::time::timeout(self.patience, work).await {
            Err(_) => Err(Trouble::Hung(self.patience)),
            Ok(done) => done.map_err(|error| trouble(&error)),
        }
    }

    async fn of_rows<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
        match tokio::time::timeout(self.patience, work).await {
            Err(_) => Err(Failed::Server(Trouble::Hung(self.patience))),
            Ok(done) => done.map_err(|error| failed(&error)),
        }
    }

    /// Has partitions made for these days, each as days since 1970-01-01. Where that fails rows go to the
    /// default partitions: said, and no reason to stop.
    pub async fn ensure_partitions(&self, days: &[(i32, i32)]) -> Result<(), Trouble> {
        for (day, count) in days {
            let sql = "SELECT ensure_partitions(date '1970-01-01' + $1::integer, $2)";
            let params: &[&(dyn ToSql + Sync)] = &[day, count];
            match self.of_rows(self.client.query_one(sql, params)).await {
                Ok(_) => {}
                Err(Failed::Server(Trouble::Hung(patience))) => {
                    return Err(Trouble::Hung(patience));
                }
                Err(_) if self.client.is_closed() => {
                    return Err(Trouble::Down("the connection was closed".to_owned()));
                }
                Err(failed) => tracing::warn!(?failed, day, "no partition could be made for a day"),
            }
        }
        Ok(())
    }

    /// Writes a batch.
    pub async fn write(&self, batch: &mut Batch, counts: &mut Counts) -> Result<(), Trouble> {
        let tables = by_table(std::mem::take(&mut batch.rows));
        match self.try_write(batch, &tables, false, counts).await {
            Ok(()) => Ok(()),
            Err(Failed::Server(trouble)) => Err(trouble),
            Err(Failed::Row(..)) => {
                self.server(self.client.batch_execute("ROLLBACK")).await?;
                match self.try_write(batch, &tables, true, counts).await {
                    Ok(()) => Ok(()),
                    Err(Failed::Server(trouble)) => Err(trouble),
                    Err(Failed::Row(state, why)) => Err(Trouble::Down(format!("{state} {why}"))),
                }
            }
        }
    }

    async fn try_write(
        &self,
        batch: &Batch,
        tables: &BTreeMap<Table, Vec<Row>>,
        carefully: bool,
        counts: &mut Counts,
    ) -> Result<(), Failed> {
        let mut new = Counts::default();
        self.server(self.client.batch_execute("BEGIN")).await?;
        self.claim(batch).await?;
        for (table, rows) in tables {
            if carefully {
                self.put_carefully(batch, *table, rows, &mut new).await?;
            } else {
                self.put(*table, rows).await?;
                new.add(*table, rows.len());
            }
        }
        self.server(self.client.batch_execute("COMMIT")).await?;
        counts.take(new);
        Ok(())
    }

    /// Moves the cursor from where it must be; where it is elsewhere, or the schema is another, nothing is
    /// written.
    async fn claim(&self, batch: &Batch) -> Result<(), Failed> {
        let Some(to) = batch.to else { return Ok(()) };
        let journal = format!("{:032x}", to.journal);
        let seq = to.seq.cast_signed();
        let version = SCHEMA_VERSION;
        let moved = match batch.from {
            None => {
                let run_text = batch.run_text.as_deref().unwrap_or_default();
                let sql = "INSERT INTO drain_cursor (stream, journal, next_seq, last_ns, state, run_text) \
                    SELECT $1, $2::text::uuid, $3, $4, $5, $6 \
                     WHERE (SELECT max(version) FROM schema_history) = $7 ON CONFLICT DO NOTHING";
                let params: &[&(dyn ToSql + Sync)] = &[
                    &self.stream,
                    &journal,
                    &seq,
                    &batch.last_ns,
                    &batch.state,
                    &run_text,
                    &version,
                ];
                self.server(self.client.execute(sql, params)).await?
            }
            Some(from) => {
                let (old, old_seq) = (format!("{:032x}", from.journal), from.seq.cast_signed());
                // Without another configuration the old one is not written again.
                let sql = "UPDATE drain_cursor SET journal = $2::text::uuid, next_seq = $3, last_ns = $4, \
                    state = $5, run_text = coalesce($6, run_text), at = now() \
                     WHERE stream = $1 AND journal = $7::text::uuid AND next_seq = $8 \
                       AND (SELECT max(version) FROM schema_history) = $9";
                let params: &[&(dyn ToSql + Sync)] = &[
                    &self.stream,
                    &journal,
                    &seq,
                    &batch.last_ns,
                    &batch.state,
                    &batch.run_text,
                    &old,
                    &old_seq,
                    &version,
                ];
                self.server(self.client.execute(sql, params)).await?
            }
        };
        if moved == 1 {
            return Ok(());
        }
        self.check_version().await?;
        Err(Failed::Server(Trouble::Down(
            "the cursor is not where this drain left it: another one writes, or it was moved"
                .to_owned(),
        )))
    }

    /// Refuses a schema of another version.
    pub async fn check_version(&self) -> Result<(), Trouble> {
        super::session::check_version(&self.client, self.patience).await
    }

    /// Puts rows of one table, whose keys differ where its rows change.
    async fn put(&self, table: Table, rows: &[Row]) -> Result<(), Failed> {
        let Some(statements) = self.statements.get(&table) else { return Ok(()) };
        let copied = self.of_rows(self.client.copy_in::<_, Bytes>(&statements.copy)).await?;
        let mut sink = pin!(copied);
        let mut buffer = Vec::with_capacity(CHUNK + (CHUNK >> 2));
        buffer.extend(HEADER);
        for row in rows {
            if let Err(misfit) = wire::put_row(&mut buffer, row) {
                // A fault of ours, and still only this row's.
                return Err(Failed::Row("XX000".to_owned(), misfit.to_string()));
            }
            if CHUNK <= buffer.len() {
                let chunk = Bytes::from(std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK)));
                self.of_rows(sink.send(chunk)).await?;
            }
        }
        buffer.extend(TRAILER);
        self.of_rows(sink.send(Bytes::from(buffer))).await?;
        self.of_rows(sink.finish()).await?;
        if let Some((merge, _)) = &statements.merge {
            self.of_rows(self.client.execute(merge, &[])).await?;
        }
        Ok(())
    }

    /// Puts what the server takes and keeps the rest as dead letters: halves of what is refused are tried, down
    /// to single rows.
    async fn put_carefully(
        &self,
        batch: &Batch,
        table: Table,
        rows: &[Row],
        counts: &mut Counts,
    ) -> Result<(), Failed> {
        let mut parts = vec![rows];
        while let Some(part) = parts.pop() {
            match self.put_or_undo(table, part).await? {
                None => counts.add(table, part.len()),
                Some(_) if 1 < part.len() => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Some(mut refusal) => {
                    let mut tries = 1;
                    while tries < TRIES {
                        match self.put_or_undo(table, part).await? {
                            None => break,
                            Some(again) => refusal = again,
                        }
                        tries += 1;
                    }
                    if tries == TRIES {
                        self.bury(batch, &part[0], &refusal).await?;
                        counts.dead_letters += 1;
                    } else {
                        counts.add(table, 1);
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts rows, or nothing of them and returns why.
    async fn put_or_undo(
        &self,
        table: Table,
        rows: &[Row],
    ) -> Result<Option<(String, String)>, Failed> {
        self.server(self.client.batch_execute("SAVEPOINT part")).await?;
        match self.put(table, rows).await {
            Ok(()) => {
                self.server(self.client.batch_execute("RELEASE SAVEPOINT part")).await?;
                let statements = self.statements.get(&table);
                if let Some((_, clear)) = statements.and_then(|known| known.merge.as_ref()) {
                    self.server(self.client.execute(clear, &[])).await?;
                }
                Ok(None)
            }
            Err(Failed::Row(state, why)) => {
                let undo = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";
                self.server(self.client.batch_execute(undo)).await?;
                Ok(Some((state, why)))
            }
            Err(server) => Err(server),
        }
    }

    async fn bury(
        &self,
        batch: &Batch,
        row: &Row,
        (state, why): &(String, String),
    ) -> Result<(), Failed> {
        let journal = batch.to.map_or(0, |to| to.journal);
        let journal = format!("{journal:032x}");
        let (seq, table) = (row.seq.cast_signed(), row.table.name());
        let mut payload = ascii(&row.json().to_string());
        payload.truncate(PAYLOAD_MAX);
        let why = ascii(why);
        tracing::error!(table, seq, %state, %why, "the database refuses a row: kept in dead_letter");
        let sql = "INSERT INTO dead_letter (journal, seq, table_name, sqlstate, error, payload, tries) \
            VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7)";
        let params: &[&(dyn ToSql + Sync)] =
            &[&journal, &seq, &table, state, &why, &payload, &TRIES];
        self.server(self.client.execute(sql, params)).await?;
        Ok(())
    }
}

/// Returns JSON, or words, in ASCII alone: every database holds it, whatever its encoding.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            ' '..='~' => out.push(letter),
            _ => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// Returns the rows by table; where rows change, those of one key are one.
fn by_table(rows: Vec<Row>) -> BTreeMap<Table, Vec<Row>> {
    let mut tables: BTreeMap<Table, Vec<Row>> = BTreeMap::new();
    let mut places: HashMap<(Table, String), usize> = HashMap::new();
    for row in rows {
        let of = tables.entry(row.table).or_default();
        if row.table.changes() {
            let place = *places.entry((row.table, row.key())).or_insert(of.len());
            if let Some(there) = of.get_mut(place) {
                there.merge(row);
                continue;
            }
        }
        of.push(row);
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Value;

    #[test]
    fn rows_of_one_key_become_one() {
        let part = |seq: u64| {
            Row::empty(Table::Orders, seq)
                .with("journal", Value::Uuid(1))
                .with("run", Value::Int8(2))
                .with("order_key", Value::Int8(3))
                .with("seq", Value::Int8(seq as i64))
                .with("seq_last", Value::Int8(seq as i64))
                .with("unknown_count", Value::Int8(1))
        };
        let other = part(9).with("order_key", Value::Int8(4));
        let tables = by_table(vec![part(7), other, part(8).with("sent_ns", Value::Int8(5))]);
        let orders = &tables[&Table::Orders];
        assert_eq!(orders.len(), 2);
        let value = |column| orders[0].get(column).cloned();
        assert_eq!(value("seq"), Some(Value::Int8(7)));
        assert_eq!(value("seq_last"), Some(Value::Int8(8)));
        assert_eq!(value("sent_ns"), Some(Value::Int8(5)));
        assert_eq!(value("unknown_count"), Some(Value::Int8(2)));
    }

    #[test]
    fn dead_letters_are_ascii() {
        assert_eq!(ascii("a\0\u{1F600}'é"), "a\\u0000\\ud83d\\ude00'\\u00e9");
    }

    #[test]
    fn a_full_or_read_only_server_is_no_rows_fault() {
        for state in ["22021", "23505", "23514", "54000"] {
            assert!(is_of_a_row(&SqlState::from_code(state)), "{state}");
        }
        for state in
            ["25006", "53100", "57P01", "57014", "58030", "55P03", "40001", "42501", "08006"]
        {
            assert!(!is_of_a_row(&SqlState::from_code(state)), "{state}");
        }
    }
}

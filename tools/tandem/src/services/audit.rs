//! Whether the services hold what the journal says: every table's rows, the last best prices of every book, the
//! archive's chain, and what Prometheus scraped.
//!
//! Invariant: each figure comes from two sides that share no code of the drain: the service itself, asked as
//! anybody would, and the journal's records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tandem_core::record::Record;
use tandem_drain::archive::{self, verify};
use tandem_drain::rows::Table;
use tandem_drain::run::{ConfigText, RunInfo};
use tandem_feeds::tile::record_schema;

use super::count::Counter;
use super::postgres::READER;
use super::prometheus::PrometheusServer;
use super::{Services, ServicesError};
use crate::records::{Origin, Records};
use crate::table;

/// So many books that differ are named.
const NAMED_MAX: usize = 10;

/// Rows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// In the database.
    pub postgres: i64,
    /// That the journal's records make, by another counter.
    pub journal: i64,
}

/// The database.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct PostgresAudit {
    pub tables: BTreeMap<String, Rows>,
    pub equal: bool,
    pub dead_letters: i64,
    pub gaps: i64,
    /// The last record whose rows are in.
    pub last_seq: u64,
}

/// The cache.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RedisAudit {
    /// Books that the run knows.
    pub books: u64,
    /// Of them, those whose best prices in Redis are the journal's last.
    pub equal: u64,
    /// Some that are not: book, what Redis says, what the journal says.
    pub differing: Vec<String>,
    /// Opportunities in the stream.
    pub opportunities: u64,
}

/// The archive.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct ArchiveAudit {
    pub dir: PathBuf,
    /// The last record whose chain is proven on the disk.
    pub durable_seq: u64,
    pub records: u64,
    pub bytes: u64,
    /// Every block of every file has its checksum and its place, from the first record on.
    pub chain_verified: bool,
}

/// Prometheus.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PrometheusAudit {
    /// Its API says that the target is up.
    pub up: bool,
    /// Scrapes that it made.
    pub scrapes: u64,
    /// Samples of the last one.
    pub samples: u64,
    /// Series of the target that it holds.
    pub series: u64,
    /// Why a figure is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// All of it. The field names are a contract for scripts.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct ServicesReport {
    pub dir: PathBuf,
    /// The last record of the journal.
    pub journal_seq: u64,
    pub postgres: PostgresAudit,
    pub redis: RedisAudit,
    pub archive: ArchiveAudit,
    pub prometheus: PrometheusAudit,
}

impl ServicesReport {
    /// Returns whether every service holds all that the journal says, and nothing else.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.postgres.equal
            && self.postgres.dead_letters == 0
            && self.postgres.gaps == 0
            && self.postgres.last_seq == self.journal_seq
            && self.redis.equal == self.redis.books
            && self.redis.books != 0
            && self.archive.chain_verified
            && self.archive.durable_seq == self.journal_seq
            && self.prometheus.up
            && self.prometheus.samples != 0
    }
}

/// One side of a book as prices and quantities.
type Side = BTreeMap<i64, i64>;

/// The journal's own words about rows and books.
#[derive(Default)]
pub struct Journal {
    counter: Counter,
    text: ConfigText,
    run: Option<Arc<RunInfo>>,
    /// Bids and asks by instrument.
    books: Vec<[Side; 2]>,
    last_seq: u64,
}

impl Journal {
    /// Reads all records.
    pub fn read(from: Origin) -> Result<Journal, ServicesError> {
        let wrong =
            |error: tandem_shm::JournalError| ServicesError::failed("read the journal", error);
        let mut journal = Journal::default();
        let mut records = Records::strict(from).map_err(wrong)?;
        while let Some(record) = records.next().map_err(wrong)? {
            journal.take(&record)?;
        }
        Ok(journal)
    }

    /// Takes the next record.
    pub fn take(&mut self, record: &Record) -> Result<(), ServicesError> {
        self.counter.take(record);
        self.last_seq = record.seq;
        let [a, b, c, d] = record.data;
        let book = self.books.get_mut(usize::from(record.instrument));
        match (record.kind, book) {
            (72, _) => {
                if let Some(text) = self.text.take(record) {
                    let run = text.and_then(|text| table::run_info(&text));
                    let what = "read the journal's configuration";
                    let run = run.map_err(|detail| ServicesError::failed(what, detail))?;
                    self.books = vec![Default::default(); run.instruments.len()];
                    self.run = Some(Arc::new(run));
                }
            }
            (1, Some(sides)) => {
                if let Some(side) = usize::try_from(c).ok().and_then(|idx| sides.get_mut(idx)) {
                    match b {
                        0 => side.remove(&a),
                        qty => side.insert(a, qty),
                    };
                    // A feed tells its window: what falls out of it is not told to be gone.
                    let window = self.run.as_ref().map_or(usize::MAX, |run| run.window_levels);
                    while window < side.len() {
                        if c == 0 {
                            side.pop_first()
                        } else {
                            side.pop_last()
                        };
                    }
                }
            }
            (2, Some(sides)) => *sides = Default::default(),
            (3, Some([bids, asks])) => {
                // What is better than the best is gone.
                bids.retain(|px, _| *px < a && b != 0);
                asks.retain(|px, _| c < *px && d != 0);
                bids.extend((b != 0).then_some((a, b)));
                asks.extend((d != 0).then_some((c, d)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the last record's sequence.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Returns the rows by table.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<&'static str, i64> {
        self.counter.rows()
    }

    /// Returns every book's name in Redis, and its best bid and ask as texts: price, quantity.
    #[must_use]
    pub fn best(&self) -> Vec<(String, [String; 4])> {
        let Some(run) = &self.run else { return Vec::new() };
        let of = |(idx, [bids, asks]): (usize, &[Side; 2])| {
            let id = u16::try_from(idx).unwrap_or(u16::MAX);
            let name = format!("{}:{}", run.instruments[idx].venue.name(), run.symbol(id));
            let text = |level: Option<(&i64, &i64)>| match level {
                None => [String::new(), String::new()],
                Some((px, qty)) => [run.px(id, *px), run.qty(id, *qty)],
            };
            let ([bid, bid_qty], [ask, ask_qty]) =
                (text(bids.last_key_value()), text(asks.first_key_value()));
            (name, [bid, bid_qty, ask, ask_qty])
        };
        self.books.iter().enumerate().map(of).collect()
    }
}

/// Asks PostgreSQL for every table's rows.
pub fn postgres(
    client: &mut postgres::Client,
    journal: &Journal,
) -> Result<PostgresAudit, ServicesError> {
    let wrong = |error: postgres::Error| ServicesError::failed("count rows", error);
    let mut count = |table: &str| -> Result<i64, ServicesError> {
        let row = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]);
        row.and_then(|row| row.try_get(0)).map_err(wrong)
    };
    let expected = journal.rows();
    let mut audit = PostgresAudit { equal: true, ..PostgresAudit::default() };
    // What latency was is no record of the journal.
    for table in Table::ALL.into_iter().filter(|table| *table != Table::LatencyIntervals) {
        let journal = expected.get(table.name()).copied().unwrap_or(0);
        let rows = Rows { postgres: count(table.name())?, journal };
        audit.equal &= rows.postgres == rows.journal;
        audit.tables.insert(table.name().to_owned(), rows);
    }
    audit.dead_letters = count("dead_letter")?;
    audit.gaps = count("journal_gaps")?;
    audit.last_seq = drained(client)?.saturating_sub(1);
    Ok(audit)
}

/// Returns the next sequence that the database wants.
pub fn drained(client: &mut postgres::Client) -> Result<u64, ServicesError> {
    let wrong = |error: postgres::Error| ServicesError::failed("read the cursor", error);
    let row = client.query_opt("SELECT next_seq FROM drain_cursor WHERE stream = 'main'", &[]);
    let seq: Option<i64> =
        row.and_then(|row| row.map(|row| row.try_get(0)).transpose()).map_err(wrong)?;
    Ok(seq.map_or(0, i64::cast_unsigned))
}

/// Asks Redis for the best prices of every book.
pub fn redis(
    connection: &mut redis::Connection,
    journal: &Journal,
) -> Result<RedisAudit, ServicesError> {
    let wrong = |error: redis::RedisError| ServicesError::failed("read Redis", error);
    let mut audit = RedisAudit::default();
    for (name, wanted) in journal.best() {
        let fields = ["bid", "bid_qty", "ask", "ask_qty"];
        let found: Vec<Option<String>> = redis::cmd("HMGET")
            .arg(format!("tandem:bbo:{name}"))
            .arg(&fields)
            .query(connection)
            .map_err(wrong)?;
        audit.books += 1;
        let is_equal =
            found.iter().map(Option::as_deref).eq(wanted.iter().map(|text| Some(text.as_str())));
        audit.equal += u64::from(is_equal);
        if !is_equal && audit.differing.len() < NAMED_MAX {
            audit.differing.push(format!("{name}: Redis {found:?}, the journal {wanted:?}"));
        }
    }
    audit.opportunities =
        redis::cmd("XLEN").arg("tandem:opportunities").query(connection).map_err(wrong)?;
    Ok(audit)
}

/// Proves the archive's newest journal.
pub fn archive(dir: &Path) -> Result<ArchiveAudit, ServicesError> {
    let wrong = |detail: String| ServicesError::failed("verify the archive", detail);
    let journals = archive::list_journals(dir).map_err(|error| wrong(error.to_string()))?;
    let newest = journals.last().ok_or_else(|| wrong(format!("{}: no journal", dir.display())))?;
    let found = verify::verify(newest, record_schema(), |_| {});
    let found = found.map_err(|error| wrong(error.to_string()))?;
    Ok(ArchiveAudit {
        dir: dir.to_owned(),
        durable_seq: found.last_seq,
        records: found.records,
        bytes: found.bytes,
        chain_verified: found.is_sound() && found.is_from_beginning && found.first_seq == 1,
    })
}

/// Asks Prometheus how the run's target is.
#[must_use]
pub fn prometheus(server: &PrometheusServer) -> PrometheusAudit {
    let mut audit = PrometheusAudit::default();
    let mut ask = |expr: &str| match server.number(expr) {
        Ok(number) => number,
        Err(why) => {
            audit.trouble = Some(why);
            0.0
        }
    };
    let of = |number: f64| number as u64;
    let up = ask("up{job=\"tandem\"}");
    let scrapes = ask("count_over_time(up{job=\"tandem\"}[1d])");
    let samples = ask("scrape_samples_scraped{job=\"tandem\"}");
    let series = ask("count({job=\"tandem\"})");
    PrometheusAudit {
        up: 1.0 <= up,
        scrapes: of(scrapes),
        samples: of(samples),
        series: of(series),
        ..audit
    }
}

/// Looks at all of them after the run has ended; Prometheus was asked while it still had a target.
pub fn all(
    services: &Services,
    journal: &Journal,
    prometheus: PrometheusAudit,
) -> Result<ServicesReport, ServicesError> {
    let mut client = services.postgres.client(READER, "postgres")?;
    Ok(ServicesReport {
        dir: services.dir.clone(),
        journal_seq: journal.last_seq(),
        postgres: postgres(&mut client, journal)?,
        redis: redis(&mut services.redis.client()?, journal)?,
        archive: archive(&services.archive())?,
        prometheus,
    })
}

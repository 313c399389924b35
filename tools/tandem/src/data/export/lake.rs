//! A journal as Parquet for analytics: `day=YYYY-MM-DD/venue=NAME/kind=NAME/part-N.parquet`.
//!
//! Invariant: every record is in `kind=record`, all of it, so nothing is lost; the other kinds say the same in
//! columns that can be summed: amounts are `DECIMAL(38, 18)`, moments nanoseconds UTC. A row is told once: what
//! changes after it was told (rounds, orders, fills) is written when its day and the next are over, or the journal
//! is. Memory is bounded by that and by the rows of the open files. A kind without rows has an empty file.
//!
//! Not here: the rows of orders and opportunities (`tandem_drain::rows`), files (`reports::sheet`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tandem_core::book::Book;
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::units::Side;
use tandem_drain::rows::{Projector, Row, Table};
use tandem_drain::run::RunInfo;

use super::Exported;
use super::tape::Tape;
use crate::data::error::DataError;
use crate::reports::exports::{cells, columns};
use crate::reports::period::day_name;
use crate::reports::sheet::{Cell, Column, Format, Holds, Sheet};
use crate::reports::{Exact, rows};
use crate::table;

const DAY_NS: i64 = 86_400_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;
/// Files that are open at once: some days' worth of venues and kinds.
const OPEN_MAX: usize = 96;
/// Rows that wait in memory over all files: some hundred MB of the widest kind.
const WAITING_MAX: usize = 300_000;
/// Rows of a file: large enough for a reader, small enough for many.
const PART_ROWS: u64 = 4_000_000;
/// Records between two looks at what is over.
const SWEEP: u64 = 65_536;
/// An opportunity that closed so long ago is told nothing more about.
const OVER_NS: i64 = 60_000_000_000;
/// Records of no time that wait for the first that has one.
const TIMELESS_MAX: usize = 1 << 16;
/// How far from the middle depth is counted, in parts per million.
const NEAR_PPM: [i64; 3] = [500, 1_000, 2_500];

/// A day, a venue and a kind: one folder.
type Folder = (i64, &'static str, &'static str);

struct Open {
    sheet: Sheet,
    /// When it was last added to.
    used: u64,
}

/// The files.
struct Files {
    dir: PathBuf,
    open: BTreeMap<Folder, Open>,
    parts: BTreeMap<Folder, u32>,
    clock: u64,
    files: u64,
    rows: u64,
}

impl Files {
    fn add(
        &mut self,
        folder: Folder,
        columns: impl FnOnce() -> Vec<Column>,
        row: Vec<Cell>,
    ) -> Result<(), DataError> {
        self.clock += 1;
        if !self.open.contains_key(&folder) {
            self.begin(folder, columns())?;
        }
        let Some(open) = self.open.get_mut(&folder) else { return Ok(()) };
        open.used = self.clock;
        open.sheet.add(row)?;
        if PART_ROWS <= open.sheet.rows() {
            self.close(folder)?;
        }
        if self.clock.is_multiple_of(SWEEP) {
            self.flush()?;
        }
        Ok(())
    }

    /// Begins a file of a folder.
    fn begin(&mut self, folder: Folder, columns: Vec<Column>) -> Result<(), DataError> {
        self.make_room()?;
        let part = self.parts.entry(folder).or_default();
        let (day, venue, kind) = folder;
        let dir = self.dir.join(format!("day={}", day_name(day)));
        let dir = dir.join(format!("venue={venue}")).join(format!("kind={kind}"));
        fs::create_dir_all(&dir).map_err(DataError::make(&dir, "make the directory"))?;
        let path = dir.join(format!("part-{part}.parquet"));
        *part += 1;
        let sheet = Sheet::begin(&path, (Format::Parquet, false), columns)?;
        self.open.insert(folder, Open { sheet, used: self.clock });
        Ok(())
    }

    /// Makes an empty file of a kind that has none: whoever reads all kinds finds them.
    fn fill(
        &mut self,
        day: i64,
        kind: &'static str,
        columns: Vec<Column>,
    ) -> Result<(), DataError> {
        if self.parts.keys().any(|(_, _, known)| *known == kind) {
            return Ok(());
        }
        self.begin((day, "all", kind), columns)
    }

    fn close(&mut self, folder: Folder) -> Result<(), DataError> {
        if let Some(open) = self.open.remove(&folder) {
            self.rows += open.sheet.finish()?;
            self.files += 1;
        }
        Ok(())
    }

    /// Closes the file that was not added to for longest, where too many are open.
    fn make_room(&mut self) -> Result<(), DataError> {
        if self.open.len() < OPEN_MAX {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(folder, _)| *folder);
        oldest.map_or(Ok(()), |folder| self.close(folder))
    }

    /// Writes the largest groups while too many rows wait.
    fn flush(&mut self) -> Result<(), DataError> {
        let mut waiting: usize = self.open.values().map(|open| open.sheet.waiting()).sum();
        while WAITING_MAX < waiting {
            let largest = self.open.values_mut().max_by_key(|open| open.sheet.waiting());
            let Some(open) = largest else { break };
            waiting -= open.sheet.waiting().max(1);
            open.sheet.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DataError> {
        while let Some(folder) = self.open.keys().next().copied() {
            self.close(folder)?;
        }
        Ok(())
    }
}

/// A journal's Parquet in the making.
pub struct Lake {
    files: Files,
    projector: Projector,
    rows: Vec<Row>,
    tape: Tape,
    /// Second of the last sample of depth, by instrument.
    sampled_s: Vec<i64>,
    /// Rows that may change, by table and key.
    held: BTreeMap<(Table, String), Row>,
    timeless: Vec<Record>,
    now_ns: i64,
    records: u64,
}

impl Lake {
    /// Begins in an empty directory.
    #[must_use]
    pub fn new(dir: &Path, journal: u128) -> Lake {
        Lake {
            files: Files {
                dir: dir.to_owned(),
                open: BTreeMap::new(),
                parts: BTreeMap::new(),
                clock: 0,
                files: 0,
                rows: 0,
            },
            projector: Projector::new(journal, table::run_info),
            rows: Vec::new(),
            tape: Tape::default(),
            sampled_s: Vec::new(),
            held: BTreeMap::new(),
            timeless: Vec::new(),
            now_ns: 0,
            records: 0,
        }
    }

    /// Adds a record; `run` is the one that it belongs to, where it is known.
    pub fn add(&mut self, record: &Record, run: Option<&RunInfo>) -> Result<(), DataError> {
        self.now_ns = self.now_ns.max(record.engine_ts_ns);
        if self.now_ns == 0 && self.timeless.len() < TIMELESS_MAX {
            self.timeless.push(*record);
        } else {
            for early in std::mem::take(&mut self.timeless) {
                self.raw(&early)?;
            }
            self.raw(record)?;
        }
        self.projector.take(record, &mut self.rows);
        for row in std::mem::take(&mut self.rows) {
            self.row(row)?;
        }
        if let Some(run) = run {
            self.market(record, run)?;
            self.depth(record, run)?;
        }
        self.records += 1;
        if self.records.is_multiple_of(SWEEP) {
            self.sweep()?;
        }
        Ok(())
    }

    /// Another configuration begins.
    pub fn begin_run(&mut self, run: &RunInfo) {
        self.tape.renew(run);
        self.sampled_s = vec![i64::MIN; run.instruments.len()];
    }

    /// Ends all files.
    pub fn finish(mut self, exported: &mut Exported) -> Result<(), DataError> {
        for early in std::mem::take(&mut self.timeless) {
            self.raw(&early)?;
        }
        for row in std::mem::take(&mut self.held).into_values() {
            self.write(&row)?;
        }
        let day = self.now_ns.div_euclid(DAY_NS);
        self.files.fill(day, DEPTH, depth_columns())?;
        for market in Market::ALL {
            self.files.fill(day, market.name(), market.columns())?;
        }
        for table in Table::ALL.into_iter().filter(|table| is_exported(*table)) {
            self.files.fill(day, table.name(), lake_columns(table))?;
        }
        self.files.finish()?;
        exported.files += self.files.files;
        exported.rows += self.files.rows;
        Ok(())
    }

    fn day(&self, record: &Record) -> i64 {
        let at = if record.engine_ts_ns == 0 { self.now_ns } else { record.engine_ts_ns };
        at.div_euclid(DAY_NS)
    }

    fn raw(&mut self, record: &Record) -> Result<(), DataError> {
        let venue = Venue::from_tag(record.venue).map_or("none", Venue::name);
        let cells = raw_cells(record);
        self.files.add((self.day(record), venue, RECORD), raw_columns, cells)
    }

    /// Takes a row of a table: at once, or when nothing more is told of it.
    fn row(&mut self, row: Row) -> Result<(), DataError> {
        if !is_exported(row.table) {
            return Ok(());
        }
        if !row.table.changes() {
            return self.write(&row);
        }
        match self.held.entry((row.table, row.key())) {
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(row)),
            std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().merge(row),
        }
        Ok(())
    }

    /// Writes what nothing more is told of.
    fn sweep(&mut self) -> Result<(), DataError> {
        let now_ns = self.now_ns;
        let today = now_ns.div_euclid(DAY_NS);
        let is_over = |table: Table, row: &Row| match table {
            Table::Opportunities => {
                let last = rows::number(row, "last_at").unwrap_or_default();
                rows::yes(row, "closed") && last.saturating_add(OVER_NS) < now_ns
            }
            _ => day_of(row).is_some_and(|day| day + 2 <= today),
        };
        let over: Vec<Row> = self
            .held
            .extract_if(.., |(table, _), row| is_over(*table, row))
            .map(|(_, row)| row)
            .collect();
        over.iter().try_for_each(|row| self.write(row))
    }

    fn write(&mut self, row: &Row) -> Result<(), DataError> {
        let day = day_of(row).unwrap_or(self.now_ns.div_euclid(DAY_NS));
        let name = rows::text(row, "venue");
        let venue = Venue::ALL.into_iter().find(|venue| venue.name() == name);
        let venue = venue.map_or("all", Venue::name);
        let table = row.table;
        let names = columns(table);
        let mut values = Vec::with_capacity(names.len());
        for (cell, column) in cells(row).into_iter().zip(&names) {
            if !is_in_path(&column.name) {
                values.push(cell);
            }
        }
        self.files.add((day, venue, table.name()), || lake_columns(table), values)
    }

    /// A record of the market in its own columns.
    fn market(&mut self, record: &Record, run: &RunInfo) -> Result<(), DataError> {
        let Some(kind) = record.kind() else { return Ok(()) };
        let Some(market) = Market::of(kind) else { return Ok(()) };
        let Some(listed) = run.instruments.get(usize::from(record.instrument)) else {
            return Ok(());
        };
        let px = |quanta: i64| Cell::Amount(Exact::quanta(quanta, listed.px_exponent));
        let qty = |quanta: i64| Cell::Amount(Exact::quanta(quanta, listed.qty_exponent));
        let side = |tag: i64| match Side::from_idx(tag) {
            Some(Side::Bid) => Cell::text("bid"),
            Some(Side::Ask) => Cell::text("ask"),
            None => Cell::Empty,
        };
        let moment = |ns: i64| if ns == 0 { Cell::Empty } else { Cell::Time(ns) };
        let mut row = vec![
            moment(record.engine_ts_ns),
            moment(record.recv_ts_ns),
            moment(record.venue_ts_ns),
            Cell::Unsigned(record.seq),
            Cell::text(&listed.symbol),
            Cell::Int(record.instrument.into()),
            Cell::Unsigned(record.update_id),
            Cell::Bool(record.has(flag::SNAPSHOT)),
            Cell::Bool(record.has(flag::LAST)),
        ];
        let [a, b, c, d] = record.data;
        row.extend(match market {
            Market::Level => vec![side(c), px(a), qty(b)],
            Market::Clear => Vec::new(),
            Market::Bbo => {
                let of = |p: i64, q: i64| match q {
                    0 => [Cell::Empty, Cell::Empty],
                    _ => [px(p), qty(q)],
                };
                let ([bid, bid_qty], [ask, ask_qty]) = (of(a, b), of(c, d));
                vec![bid, bid_qty, ask, ask_qty]
            }
            Market::Trade => {
                let places = listed.px_exponent + listed.qty_exponent;
                let notional = Exact::of(i128::from(a) * i128::from(b), places);
                let id = Cell::Unsigned(d.cast_unsigned());
                vec![px(a), qty(b), Cell::amount(notional), side(c), id]
            }
            Market::BookState => {
                let state = BookState::from_tag(a).map_or("?", BookState::name);
                let reason =
                    Reason::from_tag(b).map_or("?".to_owned(), |reason| format!("{reason:?}"));
                vec![Cell::text(state), Cell::Text(reason), Cell::Int(c), Cell::Int(d)]
            }
        });
        let venue = listed.venue.name();
        self.files.add((self.day(record), venue, market.name()), || market.columns(), row)
    }

    /// The first end of a batch in a new second of an instrument makes a sample of its depth.
    fn depth(&mut self, record: &Record, run: &RunInfo) -> Result<(), DataError> {
        self.tape.take::<DataError>(record, |_, _| Ok(()))?;
        let (instrument, at) = (record.instrument, record.engine_ts_ns);
        let second = at.div_euclid(SECOND_NS);
        let Some(sampled_s) = self.sampled_s.get_mut(usize::from(instrument)) else {
            return Ok(());
        };
        if !record.has(flag::LAST) || at == 0 || second <= *sampled_s {
            return Ok(());
        }
        let (Some(listed), Some((book, state))) =
            (run.instruments.get(usize::from(instrument)), self.tape.book(instrument))
        else {
            return Ok(());
        };
        *sampled_s = second;
        let state = BookState::from_tag(state.into()).map_or("?", BookState::name);
        let mut row = vec![
            Cell::Time(at),
            Cell::Unsigned(record.seq),
            Cell::text(&listed.symbol),
            Cell::text(state),
        ];
        for side in Side::BOTH {
            match book.best(side) {
                None => row.extend([Cell::Empty, Cell::Empty]),
                Some(level) => row.extend([
                    Cell::Amount(Exact::quanta(level.px.0, listed.px_exponent)),
                    Cell::Amount(Exact::quanta(level.qty.0, listed.qty_exponent)),
                ]),
            }
        }
        for ppm in NEAR_PPM {
            for side in Side::BOTH {
                let [qty, notional] = near(book, side, ppm);
                let places = listed.px_exponent + listed.qty_exponent;
                row.push(Cell::amount(qty.and_then(|qty| Exact::of(qty, listed.qty_exponent))));
                row.push(Cell::amount(notional.and_then(|worth| Exact::of(worth, places))));
            }
        }
        let venue = listed.venue.name();
        self.files.add((at.div_euclid(DAY_NS), venue, DEPTH), depth_columns, row)
    }
}

/// Quantity and worth of a side's levels within so many ppm of the middle; nothing where there is no middle.
fn near(book: &Book, side: Side, ppm: i64) -> [Option<i128>; 2] {
    let (Some(bid), Some(ask)) = (book.best(Side::Bid), book.best(Side::Ask)) else {
        return [None, None];
    };
    let twice = i128::from(bid.px.0) + i128::from(ask.px.0);
    let is_near = |px: i64| {
        let away = (2 * i128::from(px) - twice).abs();
        away * 1_000_000 <= twice * i128::from(ppm)
    };
    let (mut qty, mut worth) = (0i128, 0i128);
    for level in book.levels(side).take_while(|level| is_near(level.px.0)) {
        qty += i128::from(level.qty.0);
        worth = worth.saturating_add(i128::from(level.px.0) * i128::from(level.qty.0));
    }
    [Some(qty), Some(worth)]
}

/// Kind of the records as they are.
pub const RECORD: &str = "record";
const DEPTH: &str = "depth";

/// Records of the market that have columns of their own.
#[derive(Clone, Copy, Debug)]
enum Market {
    Level,
    Clear,
    Bbo,
    Trade,
    BookState,
}

impl Market {
    const ALL: [Market; 5] =
        [Market::Level, Market::Clear, Market::Bbo, Market::Trade, Market::BookState];

    const fn of(kind: Kind) -> Option<Market> {
        match kind {
            Kind::Level => Some(Market::Level),
            Kind::Clear => Some(Market::Clear),
            Kind::Bbo => Some(Market::Bbo),
            Kind::Trade => Some(Market::Trade),
            Kind::BookState => Some(Market::BookState),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Market::Level => "level",
            Market::Clear => "clear",
            Market::Bbo => "bbo",
            Market::Trade => "trade",
            Market::BookState => "book_state",
        }
    }

    fn columns(self) -> Vec<Column> {
        use Holds::{Amount, Bool, Int, Text, Time, Unsigned};
        let head = [
            ("moment", Time),
            ("received_at", Time),
            ("venue_at", Time),
            ("seq", Unsigned),
            ("symbol", Text),
            ("instrument", Int),
            ("update_id", Unsigned),
            ("snapshot", Bool),
            ("last", Bool),
        ];
        let rest: &[(&str, Holds)] = match self {
            Market::Level => &[("side", Text), ("px", Amount), ("qty", Amount)],
            Market::Clear => &[],
            Market::Bbo => {
                &[("bid_px", Amount), ("bid_qty", Amount), ("ask_px", Amount), ("ask_qty", Amount)]
            }
            Market::Trade => &[
                ("px", Amount),
                ("qty", Amount),
                ("notional", Amount),
                ("taken", Text),
                ("trade_id", Unsigned),
            ],
            Market::BookState => {
                &[("state", Text), ("reason", Text), ("hidden_bids", Int), ("hidden_asks", Int)]
            }
        };
        head.iter().chain(rest).map(|(name, holds)| Column::new(name, *holds)).collect()
    }
}

fn depth_columns() -> Vec<Column> {
    use Holds::{Amount, Text, Time, Unsigned};
    let head = [
        ("moment", Time),
        ("seq", Unsigned),
        ("symbol", Text),
        ("state", Text),
        ("bid_px", Amount),
        ("bid_qty", Amount),
        ("ask_px", Amount),
        ("ask_qty", Amount),
    ];
    let mut columns: Vec<Column> =
        head.iter().map(|(name, holds)| Column::new(name, *holds)).collect();
    for ppm in NEAR_PPM {
        for side in ["bid", "ask"] {
            for what in ["qty", "notional"] {
                columns.push(Column::new(&format!("{side}_{what}_{}bps", ppm / 100), Amount));
            }
        }
    }
    columns
}

/// Tables that a journal alone fills.
const fn is_exported(table: Table) -> bool {
    !matches!(table, Table::Journals | Table::LatencyIntervals | Table::JournalGaps)
}

/// Columns that the folders say.
fn is_in_path(name: &str) -> bool {
    name == "venue" || name == "day"
}

/// A table's columns: `kind` is a folder, so a column of that name has the table's before it, and `at` is a
/// reserved word of DuckDB.
fn lake_columns(table: Table) -> Vec<Column> {
    let of = columns(table).into_iter().filter(|column| !is_in_path(&column.name));
    of.map(|column| match column.name.as_str() {
        "kind" => Column::new(&format!("{}_kind", table.name()), column.holds),
        "at" => Column::new("moment", column.holds),
        _ => column,
    })
    .collect()
}

/// The day of a row by its own time.
fn day_of(row: &Row) -> Option<i64> {
    if let Some(day) = rows::number(row, "day") {
        return Some(day);
    }
    let names = ["at", "first_at", "opened_at", "made_at", "told_at", "started_at"];
    let at = names.iter().find_map(|name| rows::number(row, name));
    at.map(|at| at.div_euclid(DAY_NS))
}

/// The columns of a record as it is.
pub const RAW: [(&str, Holds); 25] = [
    ("seq", Holds::Unsigned),
    ("kind_tag", Holds::Int),
    ("kind_name", Holds::Text),
    ("flags", Holds::Int),
    ("venue_tag", Holds::Int),
    ("part", Holds::Int),
    ("instrument", Holds::Int),
    ("epoch", Holds::Int),
    ("data0", Holds::Int),
    ("data1", Holds::Int),
    ("data2", Holds::Int),
    ("data3", Holds::Int),
    ("pub_tsc", Holds::Unsigned),
    ("update_id", Holds::Unsigned),
    ("venue_ts_ns", Holds::Int),
    ("recv_ts_ns", Holds::Int),
    ("recv_tsc", Holds::Unsigned),
    ("decode_ticks", Holds::Int),
    ("bytes", Holds::Int),
    ("conn", Holds::Int),
    ("ring", Holds::Int),
    ("asset", Holds::Int),
    ("ring_seq", Holds::Unsigned),
    ("engine_ts_ns", Holds::Int),
    ("run", Holds::Int),
];

fn raw_columns() -> Vec<Column> {
    RAW.iter().map(|(name, holds)| Column::new(name, *holds)).collect()
}

fn raw_cells(record: &Record) -> Vec<Cell> {
    let int = |number: i64| Cell::Int(number);
    let name =
        record.kind().map_or("unknown".to_owned(), |kind| format!("{kind:?}").to_lowercase());
    vec![
        Cell::Unsigned(record.seq),
        int(record.kind.into()),
        Cell::Text(name),
        int(record.flags.into()),
        int(record.venue.into()),
        int(record.part.into()),
        int(record.instrument.into()),
        int(record.epoch.into()),
        int(record.data[0]),
        int(record.data[1]),
        int(record.data[2]),
        int(record.data[3]),
        Cell::Unsigned(record.pub_tsc),
        Cell::Unsigned(record.update_id),
        int(record.venue_ts_ns),
        int(record.recv_ts_ns),
        Cell::Unsigned(record.recv_tsc),
        int(record.decode_ticks.into()),
        int(record.bytes.into()),
        int(record.conn.into()),
        int(record.ring.into()),
        int(record.asset.into()),
        Cell::Unsigned(record.ring_seq),
        int(record.engine_ts_ns),
        int(record.run.into()),
    ]
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    /// More folders than files may be open: those that were closed go on in another part, and no row is lost.
    #[test]
    fn folders_that_were_closed_go_on_in_another_part() {
        let dir = std::env::temp_dir().join(format!("tandem-lake-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("room");
        let mut files = Files {
            dir: dir.clone(),
            open: BTreeMap::new(),
            parts: BTreeMap::new(),
            clock: 0,
            files: 0,
            rows: 0,
        };
        let days = OPEN_MAX as i64 + 4;
        let columns = || vec![Column::new("n", Holds::Int)];
        for n in 0..2 {
            for day in 0..days {
                files.add((day, "all", "test"), columns, vec![Cell::Int(n)]).expect("room");
                assert!(files.open.len() <= OPEN_MAX);
            }
        }
        files.finish().expect("room");
        assert_eq!(files.rows, 2 * days as u64);
        let of_first = dir.join("day=1970-01-01/venue=all/kind=test");
        let parts: Vec<_> = fs::read_dir(&of_first).expect("a folder").flatten().collect();
        assert_eq!(parts.len(), 2, "closed once");
        for part in parts {
            let file = fs::File::open(part.path()).expect("a file");
            let reader = SerializedFileReader::new(file).expect("Parquet");
            assert_eq!(reader.metadata().file_metadata().num_rows(), 1);
        }
        fs::remove_dir_all(&dir).expect("clean up");
    }
}

//! Records in, rows out.
//!
//! Invariant: what is kept between records is [`Projector::save`]'s to keep, and a group that is half taken is
//! read again from its first record ([`Projector::resume_from`]): a projector that was loaded goes on as if it
//! had never stopped. What is kept is small: the books' windows, the open opportunity of each cycle, and the
//! last word on what is told again and again.
//!
//! Not here: orders and fills (`orders`), rounds, opportunities and the rest (`told`).

use std::collections::BTreeMap;
use std::sync::Arc;

use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::units::Side;

use super::books::{Books, put, take};
use super::{Row, Table, Value};
use crate::run::{ConfigText, ReadRun, RunInfo};

/// First byte of a saved state: another one is another build's.
const STATE_VERSION: i64 = 2;
/// Records of a group that can be one.
const GROUP_MAX: usize = 16;
/// Cycles whose open opportunity is remembered; a run has fewer.
const OPEN_MAX: usize = 1 << 16;
const SECOND_NS: i64 = 1_000_000_000;

/// A kept state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not what [`Projector::save`] gave.
    #[error("the kept state is not one of this build's: it was written by another version")]
    State,
    /// The configuration that was kept beside it.
    #[error("the kept configuration cannot be read: {0}")]
    Run(String),
}

/// The last words on what is told again and again; a row is made of a change alone.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The level word.
    pub level: Option<i64>,
    /// Sessions by venue: state and code.
    pub sessions: BTreeMap<i64, [i64; 2]>,
    /// Processes by role and venue: alive and of the same build.
    pub peers: BTreeMap<i64, [i64; 2]>,
    /// Whether the host's clock is synchronised.
    pub clock: Option<i64>,
    /// Rules by instrument.
    pub rules: BTreeMap<i64, [i64; 4]>,
    /// Fees by instrument.
    pub fees: BTreeMap<i64, [i64; 2]>,
}

/// Makes rows of records.
#[derive(Debug)]
pub struct Projector {
    pub(super) journal: u128,
    read_run: ReadRun,
    run: Option<Arc<RunInfo>>,
    /// The run was read and its rows wait for its first moment: sequence of its last record.
    run_seq: Option<u64>,
    text: ConfigText,
    /// First record of a configuration that is half taken.
    text_from: Option<u64>,
    group: Vec<Record>,
    books: Books,
    /// The open opportunity of a cycle: its number and when it was first seen.
    pub(super) open: BTreeMap<u32, (i64, i64)>,
    pub(super) words: Words,
    /// The engine's clock as last told, UNIX ns.
    last_ns: i64,
    skipped: u64,
}

impl Projector {
    /// Returns one that begins at a journal's first record.
    #[must_use]
    pub fn new(journal: u128, read_run: ReadRun) -> Projector {
        Projector {
            journal,
            read_run,
            run: None,
            run_seq: None,
            text: ConfigText::default(),
            text_from: None,
            group: Vec::new(),
            books: Books::default(),
            open: BTreeMap::new(),
            words: Words::default(),
            last_ns: 0,
            skipped: 0,
        }
    }

    /// Returns the run whose records come now.
    #[must_use]
    pub fn run(&self) -> Option<&RunInfo> {
        self.run.as_deref()
    }

    /// Returns the engine's clock as last told, UNIX ns; 0 before that.
    #[must_use]
    pub const fn last_ns(&self) -> i64 {
        self.last_ns
    }

    /// Returns how many records no run was known for: nothing could be said of them.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns the first record of what is half taken: a loaded projector must be given it again.
    #[must_use]
    pub fn resume_from(&self) -> Option<u64> {
        self.text_from.or(self.group.first().map(|record| record.seq))
    }

    /// Records are missing here: half a group is none, and the books are not what they were.
    pub fn lost(&mut self) {
        self.group.clear();
        self.text = ConfigText::default();
        self.text_from = None;
        self.books = self.run.as_ref().map_or_else(Books::default, |run| {
            Books::new(run.instruments.len(), run.window_levels)
        });
        self.open.clear();
    }

    /// Takes a record; its rows are added to `rows`.
    pub fn take(&mut self, record: &Record, rows: &mut Vec<Row>) {
        if record.engine_ts_ns != 0 {
            self.last_ns = record.engine_ts_ns;
        }
        let Some(kind) = record.kind() else { return };
        if kind == Kind::Config {
            self.group.clear();
            let from = self.text_from.unwrap_or(record.seq);
            self.text_from = record.has(flag::MORE).then_some(from);
            if let Some(text) = self.text.take(record) {
                self.begin_run(text, record.seq, rows);
            }
            return;
        }
        // A configuration that was cut short goes on in no other record.
        self.text_from = None;
        let Some(run) = self.run.clone() else {
            self.skipped += 1;
            return;
        };
        if let Some(seq) = self.run_seq.take() {
            self.tell_run(&run, seq, rows);
        }
        match kind {
            Kind::Level | Kind::Bbo | Kind::Clear => self.on_book(&run, record, rows),
            Kind::BookState => {
                self.on_book_state(&run, record, rows);
                self.sample(&run, record, rows);
            }
            Kind::Opportunity | Kind::Denial | Kind::Round => {
                if record.part == 0 || self.group.first().is_some_and(|g| g.kind != record.kind) {
                    self.group.clear();
                }
                if self.group.len() < GROUP_MAX {
                    self.group.push(*record);
                }
                if !record.has(flag::MORE) {
                    let group = std::mem::take(&mut self.group);
                    self.on_group(&run, kind, &group, rows);
                } else if GROUP_MAX <= self.group.len() {
                    self.group.clear();
                }
                return;
            }
            _ => self.on_single(&run, kind, record, rows),
        }
        // Half a group whose writer died goes on nowhere.
        self.group.clear();
    }

    fn begin_run(&mut self, text: Result<String, String>, seq: u64, rows: &mut Vec<Row>) {
        match text.and_then(|text| (self.read_run)(&text)) {
            Ok(run) => {
                self.books = Books::new(run.instruments.len(), run.window_levels);
                self.open.clear();
                self.words = Words::default();
                self.run = Some(Arc::new(run));
                self.run_seq = Some(seq);
            }
            Err(why) => {
                // What follows is in the quanta of a run that nobody knows: better no rows than wrong ones.
                self.run = None;
                self.run_seq = None;
                let at = self.last_ns;
                let what =
                    format!("this run's configuration cannot be read, its rows are missing: {why}");
                rows.push(self.audit_row(seq, at, "config", &what));
            }
        }
    }

    fn tell_run(&self, run: &RunInfo, seq: u64, rows: &mut Vec<Row>) {
        let head = || vec![Value::Uuid(self.journal), int8(seq), Value::Int8(run.run.into())];
        let row = |table, rest: Vec<Value>| {
            let values = head().into_iter().chain(rest).collect();
            Row { table, seq, values }
        };
        let hash = format!("{:016x}", tandem_shm::fnv1a(run.text.as_bytes()));
        rows.push(row(
            Table::Runs,
            vec![
                Value::text(&run.mode),
                Value::Time(self.last_ns),
                Value::Int8(self.last_ns),
                run.numeraire.map_or(Value::Null, |asset| Value::text(run.asset(asset))),
                int4(run.instruments.len()),
                int4(run.cycles.len()),
                Value::text(&hash),
            ],
        ));
        rows.push(row(Table::Configuration, vec![Value::text(&hash), Value::text(&run.text)]));
        for (idx, (listed, rules)) in
            run.instruments.iter().zip(&run.universe.instruments).enumerate()
        {
            let qty = |qty: tandem_core::units::Qty| Value::amount(qty.0, listed.qty_exponent);
            let notional = run.asset_exponent(rules.quote);
            rows.push(row(
                Table::Instruments,
                vec![
                    int4(idx),
                    Value::text(listed.venue.name()),
                    Value::text(&listed.symbol),
                    Value::text(run.asset(rules.base)),
                    Value::text(run.asset(rules.quote)),
                    Value::Int2(listed.px_exponent.into()),
                    Value::Int2(listed.qty_exponent.into()),
                    Value::amount(rules.tick.0, listed.px_exponent),
                    qty(rules.lot),
                    qty(rules.qty_min),
                    qty(rules.qty_max),
                    Value::amount(rules.notional_min.0, notional),
                    Value::amount(rules.notional_max.0, notional),
                    Value::Int4(rules.taker_fee.0),
                    Value::text(super::told::status_name(rules.status as i64)),
                ],
            ));
        }
        for (idx, asset) in run.universe.assets.iter().enumerate() {
            let (name, exponent) = (Value::text(&asset.name), Value::Int2(asset.exponent.into()));
            rows.push(row(Table::Assets, vec![int4(idx), name, exponent]));
        }
    }

    fn on_book(&mut self, run: &RunInfo, record: &Record, rows: &mut Vec<Row>) {
        if self.books.take(record).is_some() {
            self.sample(run, record, rows);
        }
    }

    /// The first end of a batch in a new second of an instrument makes a sample.
    fn sample(&mut self, run: &RunInfo, record: &Record, rows: &mut Vec<Row>) {
        let second = record.engine_ts_ns.div_euclid(SECOND_NS);
        let Some(kept) = self.books.get_mut(record.instrument) else { return };
        if !record.has(flag::LAST) || record.engine_ts_ns == 0 || second <= kept.sampled_s {
            return;
        }
        kept.sampled_s = second;
        let (bid, ask) = (kept.best(Side::Bid), kept.best(Side::Ask));
        let state = super::told::book_state_name(kept.state.into());
        let level = |level: Option<tandem_core::book::Level>| {
            level.map_or([Value::Null, Value::Null], |level| {
                [px(run, record.instrument, level.px.0), qty(run, record.instrument, level.qty.0)]
            })
        };
        let [bid_px, bid_qty] = level(bid);
        let [ask_px, ask_qty] = level(ask);
        let mut values = self.head(record);
        values.extend([
            Value::text(venue_name(record.venue)),
            Value::text(run.symbol(record.instrument)),
            bid_px,
            bid_qty,
            ask_px,
            ask_qty,
            Value::text(state),
        ]);
        rows.push(Row { table: Table::BboSamples, seq: record.seq, values });
    }

    /// Notes a book's state; returns whether it is another one.
    pub(super) fn note_book_state(&mut self, record: &Record) -> bool {
        let Some(kept) = self.books.get_mut(record.instrument) else { return false };
        let state = u8::try_from(record.data[0]).unwrap_or(u8::MAX);
        std::mem::replace(&mut kept.state, state) != state
    }

    /// The journal, the record, and when, as most rows begin.
    pub(super) fn head(&self, record: &Record) -> Vec<Value> {
        let at = self.at(record);
        vec![Value::Uuid(self.journal), int8(record.seq), Value::Time(at), Value::Int8(at)]
    }

    /// When the engine took or made a record; what carries no time came with the one before.
    pub(super) fn at(&self, record: &Record) -> i64 {
        if record.engine_ts_ns == 0 { self.last_ns } else { record.engine_ts_ns }
    }

    /// Notes the open opportunity of a cycle.
    pub(super) fn note_open(&mut self, cycle: u32, opportunity: Option<(i64, i64)>) {
        match opportunity {
            Some(open) if self.open.len() < OPEN_MAX => drop(self.open.insert(cycle, open)),
            Some(_) => {}
            None => drop(self.open.remove(&cycle)),
        }
    }

    /// Writes what must be kept to go on from here, beside the run's text ([`RunInfo::text`]).
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 << 10);
        put(&mut out, STATE_VERSION);
        put(&mut out, self.last_ns);
        put(&mut out, self.run_seq.map_or(-1, |seq| seq.cast_signed()));
        put(&mut out, self.open.len() as i64);
        for (cycle, (id, first_ns)) in &self.open {
            [i64::from(*cycle), *id, *first_ns].into_iter().for_each(|n| put(&mut out, n));
        }
        let words = &self.words;
        put_option(&mut out, words.level);
        put_option(&mut out, words.clock);
        put_map(&mut out, &words.sessions);
        put_map(&mut out, &words.peers);
        put_map(&mut out, &words.rules);
        put_map(&mut out, &words.fees);
        self.books.write(&mut out);
        out
    }

    /// Goes on from what was kept.
    pub fn load(
        journal: u128,
        read_run: ReadRun,
        run_text: &str,
        state: &[u8],
    ) -> Result<Projector, StateError> {
        let mut projector = Projector::new(journal, read_run);
        if !run_text.is_empty() {
            projector.run = Some(Arc::new(read_run(run_text).map_err(StateError::Run)?));
        }
        projector.read(&mut &*state).ok_or(StateError::State)?;
        Ok(projector)
    }

    fn read(&mut self, bytes: &mut &[u8]) -> Option<()> {
        if take(bytes)? != STATE_VERSION {
            return None;
        }
        self.last_ns = take(bytes)?;
        self.run_seq = Some(take(bytes)?).filter(|seq| 0 <= *seq).map(i64::cast_unsigned);
        for _ in 0..take(bytes)? {
            let (cycle, id, first_ns) = (take(bytes)?, take(bytes)?, take(bytes)?);
            self.note_open(u32::try_from(cycle).ok()?, Some((id, first_ns)));
        }
        self.words = Words {
            level: take_option(bytes)?,
            clock: take_option(bytes)?,
            sessions: take_map(bytes)?,
            peers: take_map(bytes)?,
            rules: take_map(bytes)?,
            fees: take_map(bytes)?,
        };
        self.books = Books::read(bytes)?;
        bytes.is_empty().then_some(())
    }
}

fn put_option(out: &mut Vec<u8>, word: Option<i64>) {
    put(out, i64::from(word.is_some()));
    put(out, word.unwrap_or(0));
}

fn take_option(bytes: &mut &[u8]) -> Option<Option<i64>> {
    let (is_some, word) = (take(bytes)?, take(bytes)?);
    Some((is_some == 1).then_some(word))
}

fn put_map<const N: usize>(out: &mut Vec<u8>, map: &BTreeMap<i64, [i64; N]>) {
    put(out, map.len() as i64);
    for (key, words) in map {
        put(out, *key);
        words.iter().for_each(|word| put(out, *word));
    }
}

fn take_map<const N: usize>(bytes: &mut &[u8]) -> Option<BTreeMap<i64, [i64; N]>> {
    let mut map = BTreeMap::new();
    for _ in 0..take(bytes)? {
        let key = take(bytes)?;
        let mut words = [0; N];
        for word in &mut words {
            *word = take(bytes)?;
        }
        map.insert(key, words);
    }
    Some(map)
}

pub(super) fn int8(number: u64) -> Value {
    Value::Int8(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn int4(number: usize) -> Value {
    Value::Int4(i32::try_from(number).unwrap_or(i32::MAX))
}

pub(super) fn px(run: &RunInfo, instrument: u16, quanta: i64) -> Value {
    let found = run.instruments.get(usize::from(instrument));
    Value::amount(quanta, found.map_or(0, |found| found.px_exponent))
}

pub(super) fn qty(run: &RunInfo, instrument: u16, quanta: i64) -> Value {
    let found = run.instruments.get(usize::from(instrument));
    Value::amount(quanta, found.map_or(0, |found| found.qty_exponent))
}

pub(super) fn venue_name(tag: u8) -> &'static str {
    Venue::from_tag(tag).map_or("?", Venue::name)
}

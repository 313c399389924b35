//! A period of a recording: what is in it, after the books as they stood when it begins.
//!
//! Invariant: the engine sees at the beginning of a period what it would know then, told as a feed tells it after a
//! reconnect (clear, levels, state), and after that every record of the period as it was. Memory grows with the
//! books, not with what lies before.
//!
//! Not here: which records are read (the parent), which period is meant (`crate::sweep`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tandem_backtest::Source;
use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Kind, Record, flag};
use tandem_core::units::{Px, Qty, Side};

use crate::reports::period::Period;

/// Levels a side that are kept of a book: more than any window that a feed publishes.
const LEVELS_MAX: usize = 5_000;

/// What is known of an instrument.
struct Known {
    book: Book,
    /// Its last record: whose stamps and connection those of the snapshot are.
    last: Record,
    state: Option<Record>,
    change: Option<Record>,
}

/// A source cut to a period.
pub struct Window<S> {
    source: S,
    period: Period,
    known: BTreeMap<(u8, u16), Known>,
    /// Of venues: status; of instruments: fees.
    told: BTreeMap<(u8, u16, u8), Record>,
    /// Instruments whose message has begun and not ended.
    open: BTreeSet<(u8, u16)>,
    /// What comes before the source goes on.
    ready: VecDeque<Record>,
    has_begun: bool,
    is_over: bool,
}

impl<S: Source> Window<S> {
    /// Cuts a source to a period.
    pub fn new(source: S, period: Period) -> Window<S> {
        let has_begun = period == Period::ALL;
        let (known, told, open) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let ready = VecDeque::new();
        Window { source, period, known, told, open, ready, has_begun, is_over: false }
    }

    /// Keeps what a record before the period leaves behind.
    fn keep(&mut self, record: Record) {
        let Some(kind) = record.kind() else { return };
        let key = (record.venue, record.instrument);
        match kind {
            Kind::Status | Kind::Fee => {
                self.told.insert((record.venue, record.instrument, record.kind), record);
                return;
            }
            // What was lost may be anything: until the feed says so, nothing of the venue is live.
            Kind::Gap => {
                self.open.retain(|(venue, _)| *venue != record.venue);
                for (_, known) in self.known.iter_mut().filter(|((v, _), _)| *v == record.venue) {
                    known.state = None;
                }
                return;
            }
            Kind::Level | Kind::Clear | Kind::Bbo | Kind::BookState | Kind::InstrumentChange => {}
            _ => return,
        }
        let known = self.known.entry(key).or_insert_with(|| Known {
            book: Book::new(LEVELS_MAX),
            last: record,
            state: None,
            change: None,
        });
        let [a, b, c, d] = record.data;
        match kind {
            Kind::Level => match Side::from_idx(c) {
                Some(side) if 0 < a && 0 <= b => {
                    known.book.set(side, Px(a), Qty(b));
                }
                _ => known.state = None,
            },
            Kind::Bbo => {
                for (side, px, qty) in [(Side::Bid, a, b), (Side::Ask, c, d)] {
                    let level = (0 < px && 0 < qty).then_some(Level { px: Px(px), qty: Qty(qty) });
                    known.book.set_best(side, level);
                }
            }
            Kind::Clear => known.book.clear(),
            Kind::BookState => known.state = Some(record),
            Kind::InstrumentChange => {
                known.change = Some(record);
                return;
            }
            _ => {}
        }
        known.last = record;
        match record.has(flag::LAST) {
            true => self.open.remove(&key),
            false => self.open.insert(key),
        };
    }

    /// A record of the time before the period, or of it once it has begun.
    fn take(&mut self, record: Record) {
        let at_ns = record.engine_ts_ns;
        if self.is_over || self.period.to_ns <= at_ns {
            self.is_over = true;
            return;
        }
        // A message that reaches into the period belongs to what is before it.
        if !self.has_begun && (at_ns < self.period.from_ns || !self.open.is_empty()) {
            self.keep(record);
            return;
        }
        if !self.has_begun {
            self.begin(at_ns);
        }
        self.ready.push_back(record);
    }

    /// The books as they stand, told at a time.
    fn begin(&mut self, at_ns: i64) {
        self.has_begun = true;
        let at = |record: &Record| Record { engine_ts_ns: at_ns, ..*record };
        self.ready.extend(std::mem::take(&mut self.told).values().map(at));
        for ((venue, instrument), known) in std::mem::take(&mut self.known) {
            self.ready.extend(known.change.iter().map(at));
            let stamp =
                Record { flags: flag::SNAPSHOT, engine_ts_ns: at_ns, data: [0; 4], ..known.last };
            self.ready.push_back(Record { kind: Kind::Clear as u8, ..stamp });
            for side in Side::BOTH {
                for level in known.book.levels(side) {
                    let data = [level.px.0, level.qty.0, side.idx() as i64, 0];
                    self.ready.push_back(Record { kind: Kind::Level as u8, data, ..stamp });
                }
            }
            let stale = Record {
                kind: Kind::BookState as u8,
                data: [BookState::Stale as i64, 0, 0, 0],
                ..stamp
            };
            let state = known.state.map_or(stale, |state| Record {
                recv_ts_ns: stamp.recv_ts_ns,
                venue_ts_ns: stamp.venue_ts_ns,
                conn: stamp.conn,
                epoch: stamp.epoch,
                ..at(&state)
            });
            debug_assert_eq!((state.venue, state.instrument), (venue, instrument));
            self.ready.push_back(Record { flags: state.flags | flag::LAST, ..state });
        }
    }
}

impl<S: Source> Source for Window<S> {
    fn read(&mut self, to: &mut [Record]) -> Result<usize, String> {
        if self.has_begun && self.ready.is_empty() && !self.is_over {
            let count = self.source.read(to)?;
            let within =
                to[..count].iter().take_while(|r| r.engine_ts_ns < self.period.to_ns).count();
            self.is_over = count == 0 || within < count;
            return Ok(within);
        }
        while self.ready.is_empty() && !self.is_over {
            let count = self.source.read(to)?;
            self.is_over = count == 0;
            for record in &to[..count] {
                self.take(*record);
            }
        }
        let count = self.ready.len().min(to.len());
        to.iter_mut().zip(self.ready.drain(..count)).for_each(|(slot, record)| *slot = record);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::record::Venue;

    use super::*;

    struct List(Vec<Record>);

    impl Source for List {
        fn read(&mut self, to: &mut [Record]) -> Result<usize, String> {
            let count = self.0.len().min(to.len());
            to.iter_mut().zip(self.0.drain(..count)).for_each(|(slot, record)| *slot = record);
            Ok(count)
        }
    }

    fn level(at_ns: i64, side: Side, px: i64, qty: i64) -> Record {
        Record {
            engine_ts_ns: at_ns,
            recv_ts_ns: at_ns,
            conn: 7,
            ..Record::level(Venue::Kraken, 2, side, Px(px), Qty(qty))
        }
    }

    fn state(at_ns: i64, state: BookState) -> Record {
        let record = Record::new(Kind::BookState, Venue::Kraken as u8, 2, [state as i64, 0, 0, 0]);
        Record { engine_ts_ns: at_ns, flags: flag::LAST, ..record }
    }

    fn cut(records: Vec<Record>, from_ns: i64, to_ns: i64) -> Vec<Record> {
        let mut window = Window::new(List(records), Period { from_ns, to_ns });
        let mut found = Vec::new();
        // Three at once: what is cut lies in the middle of what was read.
        let mut to = [Record::default(); 3];
        loop {
            let count = window.read(&mut to).expect("a list");
            found.extend_from_slice(&to[..count]);
            if count == 0 {
                return found;
            }
        }
    }

    #[test]
    fn books_stand_as_they_stood() {
        let last = |record: Record| Record { flags: flag::LAST, ..record };
        let before = vec![
            state(1, BookState::Live),
            level(2, Side::Bid, 100, 5),
            level(2, Side::Bid, 99, 6),
            last(level(2, Side::Ask, 102, 7)),
            last(level(3, Side::Bid, 99, 0)),
            last(level(4, Side::Ask, 103, 1)),
            // A message that begins before the period and ends in it.
            level(9, Side::Ask, 101, 3),
            last(level(10, Side::Ask, 103, 0)),
        ];
        let within = vec![last(level(11, Side::Bid, 98, 2)), state(19, BookState::Stale)];
        let after = vec![last(level(20, Side::Bid, 97, 2))];
        let all = [before, within.clone(), after].concat();
        let found = cut(all.clone(), 10, 20);
        let of = |record: &Record| (record.kind(), record.data, record.engine_ts_ns);
        let side = |side: Side| side.idx() as i64;
        assert_eq!(
            found[..5].iter().map(of).collect::<Vec<_>>(),
            [
                (Some(Kind::Clear), [0; 4], 11),
                (Some(Kind::Level), [100, 5, side(Side::Bid), 0], 11),
                (Some(Kind::Level), [101, 3, side(Side::Ask), 0], 11),
                (Some(Kind::Level), [102, 7, side(Side::Ask), 0], 11),
                (Some(Kind::BookState), [BookState::Live as i64, 0, 0, 0], 11),
            ]
        );
        assert_eq!(found[5..], within);
        assert!(found[4].has(flag::LAST) && found[1].conn == 7 && found[1].recv_ts_ns == 10);
        // All of it, and nothing of it.
        assert_eq!(cut(all.clone(), i64::MIN, i64::MAX), all);
        assert_eq!(cut(all, 30, 40), []);
    }

    #[test]
    fn what_was_lost_is_not_live() {
        let gap = Record::new(Kind::Gap, Venue::Kraken as u8, u16::MAX, [0; 4]);
        let records = vec![
            state(1, BookState::Live),
            Record { engine_ts_ns: 2, ..gap },
            Record { flags: flag::LAST, ..level(10, Side::Bid, 98, 2) },
        ];
        let found = cut(records, 10, 20);
        let states = found.iter().filter(|record| record.kind() == Some(Kind::BookState));
        let states: Vec<i64> = states.map(|record| record.data[0]).collect();
        assert_eq!(states, [BookState::Stale as i64]);
    }
}

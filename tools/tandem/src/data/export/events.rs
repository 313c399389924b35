//! A journal as hftbacktest's arrays: one npz an instrument.
//!
//! Invariant: events with `EXCH` are in the order of the exchange's stamp, those with `LOCAL` in the order of ours;
//! one that is in its place in both has both flags, any other stands twice, as its own converters do it. What
//! comes later by the exchange's stamp than is waited for gets the stamp of the one before, and is counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use tandem_core::units::{Side, pow10};
use tandem_drain::run::RunInfo;
use zerocopy::IntoBytes;
use zip::write::SimpleFileOptions;

use super::tape::Message;
use super::{Exported, file_name};
use crate::data::error::DataError;
use crate::data::hftbacktest::{EVENT_BYTES, Event, FIELDS, flag, kind};

/// How late an event may be by the exchange's stamp.
const WAIT_NS: i64 = 10_000_000_000;
/// Events that wait at most.
const WAITING_MAX: usize = 1 << 18;
/// Bytes of an array's header, with its padding.
const HEADER_BYTES: usize = 448;

/// Puts events in both orders.
#[derive(Debug, Default)]
struct Orders {
    /// By our stamp, the next first; nothing where the exchange's half was written already.
    waiting: VecDeque<(u64, Event, bool)>,
    /// By the exchange's stamp.
    by_exch: BinaryHeap<Reverse<(i64, u64)>>,
    /// Number of the first that waits, and of the next that comes.
    first: u64,
    next: u64,
    last_exch_ts: i64,
    last_local_ts: i64,
    /// Stamps that had to be moved.
    late: u64,
}

impl Orders {
    fn push(&mut self, mut event: Event) {
        event.local_ts = event.local_ts.max(self.last_local_ts);
        self.last_local_ts = event.local_ts;
        if event.exch_ts < self.last_exch_ts {
            event.exch_ts = self.last_exch_ts;
            self.late += 1;
        }
        self.by_exch.push(Reverse((event.exch_ts, self.next)));
        self.waiting.push_back((self.next, event, false));
        self.next += 1;
    }

    /// Whether the next event can be written: nothing earlier is waited for.
    fn is_due(&self) -> bool {
        let long_ago = |event: &Event| event.local_ts.saturating_add(WAIT_NS) < self.last_local_ts;
        WAITING_MAX < self.waiting.len()
            || self.waiting.front().is_some_and(|(_, event, _)| long_ago(event))
    }

    /// Returns the next event with its flags.
    fn pop(&mut self) -> Option<Event> {
        let (order, mut event, is_told) = *self.waiting.front()?;
        if is_told {
            event.ev |= flag::LOCAL;
            self.drop_first();
            return Some(event);
        }
        let Reverse((exch_ts, earliest)) = *self.by_exch.peek()?;
        self.by_exch.pop();
        self.last_exch_ts = exch_ts;
        if earliest == order {
            event.ev |= flag::EXCH | flag::LOCAL;
            self.drop_first();
            return Some(event);
        }
        let place = usize::try_from(earliest - self.first).ok()?;
        let (_, event, is_told) = self.waiting.get_mut(place)?;
        *is_told = true;
        Some(Event { ev: event.ev | flag::EXCH, ..*event })
    }

    fn drop_first(&mut self) {
        self.waiting.pop_front();
        self.first += 1;
    }
}

/// One instrument's array in the making.
struct Array {
    path: PathBuf,
    out: BufWriter<File>,
    orders: Orders,
    rows: u64,
}

impl Array {
    fn begin(path: PathBuf) -> Result<Array, DataError> {
        let file = File::create(&path).map_err(DataError::make(&path, "make the file"))?;
        Ok(Array { path, out: BufWriter::new(file), orders: Orders::default(), rows: 0 })
    }

    fn push(&mut self, event: Event) -> Result<(), DataError> {
        self.orders.push(event);
        while self.orders.is_due() {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<bool, DataError> {
        let Some(event) = self.orders.pop() else { return Ok(false) };
        self.rows += 1;
        self.out.write_all(event.as_bytes()).map_err(DataError::make(&self.path, "write"))?;
        Ok(true)
    }

    /// Makes the npz of the events.
    fn finish(mut self) -> Result<(u64, u64), DataError> {
        while self.write()? {}
        self.out.flush().map_err(DataError::make(&self.path, "write"))?;
        let npz = self.path.with_extension("npz");
        let made = pack(&self.path, &npz, self.rows);
        made.map_err(DataError::make(&npz, "make the archive"))?;
        fs::remove_file(&self.path).map_err(DataError::make(&self.path, "remove"))?;
        Ok((self.rows, self.orders.late))
    }
}

/// Writes an archive with one array.
fn pack(events: &Path, npz: &Path, rows: u64) -> io::Result<()> {
    let out = File::create(npz)?;
    let mut zip = zip::ZipWriter::new(BufWriter::new(out));
    let is_large = u64::from(u32::MAX) / 2 < rows.saturating_mul(EVENT_BYTES as u64);
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default())
        .large_file(is_large);
    zip.start_file("data.npy", options).map_err(io::Error::other)?;
    zip.write_all(&header(rows))?;
    io::copy(&mut BufReader::new(File::open(events)?), &mut zip)?;
    let mut out = zip.finish().map_err(io::Error::other)?;
    out.flush()?;
    out.get_ref().sync_all()
}

/// The header of an array of so many events, as numpy writes it.
fn header(rows: u64) -> Vec<u8> {
    let names = FIELDS.map(|(name, kind)| format!("('{name}', '{kind}')")).join(", ");
    let text = format!("{{'descr': [{names}], 'fortran_order': False, 'shape': ({rows},), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((HEADER_BYTES - 10) as u16).to_le_bytes());
    bytes.extend(text.bytes());
    bytes.resize(HEADER_BYTES - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// A decimal as the float nearest to it.
fn float(quanta: i64, exponent: u8) -> f64 {
    // Whole numbers up to 2^53 and powers of ten up to 10^22 are exact: their quotient is the nearest float.
    if quanta.unsigned_abs() < 1 << 53 {
        return quanta as f64 / pow10(exponent) as f64;
    }
    tandem_core::units::Decimal { quanta, exponent }.to_string().parse().unwrap_or(f64::NAN)
}

/// The arrays of a journal.
pub struct Arrays {
    dir: PathBuf,
    arrays: BTreeMap<(u8, String), Array>,
}

impl Arrays {
    /// Begins in an empty directory.
    #[must_use]
    pub fn new(dir: &Path) -> Arrays {
        Arrays { dir: dir.to_owned(), arrays: BTreeMap::new() }
    }

    /// Adds a message.
    pub fn add(
        &mut self,
        run: &RunInfo,
        instrument: u16,
        message: &Message,
    ) -> Result<(), DataError> {
        let Some(listed) = run.instruments.get(usize::from(instrument)) else { return Ok(()) };
        let key = (listed.venue as u8, listed.symbol.clone());
        let array = match self.arrays.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let name = format!("{}_{}.events", listed.venue.name(), file_name(&listed.symbol));
                entry.insert(Array::begin(self.dir.join(name))?)
            }
        };
        let head = Event {
            // Where the venue told no time, ours.
            exch_ts: if message.venue_ns == 0 { message.recv_ns } else { message.venue_ns },
            local_ts: message.recv_ns,
            ..Event::default()
        };
        for (px, qty, taken, _) in &message.trades {
            // The taker's side: who takes the ask buys.
            let side = match taken {
                Some(Side::Ask) => flag::BUY,
                Some(Side::Bid) => flag::SELL,
                None => 0,
            };
            let px = float(px.0, listed.px_exponent);
            let qty = float(qty.0, listed.qty_exponent);
            array.push(Event { ev: kind::TRADE | side, px, qty, ..head })?;
        }
        if message.snapshot {
            array.push(Event { ev: kind::CLEAR, px: f64::NAN, ..head })?;
        }
        let what = if message.snapshot { kind::SNAPSHOT } else { kind::DEPTH };
        for (side, px, qty) in &message.levels {
            let side = match side {
                Side::Bid => flag::BUY,
                Side::Ask => flag::SELL,
            };
            let px = float(px.0, listed.px_exponent);
            let qty = float(qty.0, listed.qty_exponent);
            array.push(Event { ev: what | side, px, qty, ..head })?;
        }
        Ok(())
    }

    /// Ends all arrays.
    pub fn finish(self, exported: &mut Exported) -> Result<(), DataError> {
        for array in self.arrays.into_values() {
            let (rows, late) = array.finish()?;
            exported.files += 1;
            exported.rows += rows;
            exported.late += late;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_is_numpys() {
        let bytes = header(u64::MAX);
        assert_eq!((bytes.len(), bytes.len() % 64, bytes.last()), (HEADER_BYTES, 0, Some(&b'\n')));
        assert!(
            String::from_utf8_lossy(&bytes[10..]).contains("('ev', '<u8'), ('exch_ts', '<i8')")
        );
    }

    proptest! {
        /// Both orders hold, and each event is there once for the exchange and once for us.
        #[test]
        fn both_orders(stamps in proptest::collection::vec((0i64..40, 0i64..10), 0..200)) {
            let second = 1_000_000_000;
            let (mut orders, mut out, mut now) = (Orders::default(), Vec::new(), 0);
            for (n, (late, step)) in stamps.iter().enumerate() {
                now += step * second / 4;
                let (exch_ts, local_ts) = (now - late * second / 4, now);
                orders.push(Event { exch_ts, local_ts, order_id: n as u64, ..Event::default() });
                while orders.is_due() {
                    out.extend(orders.pop());
                }
            }
            while let Some(event) = orders.pop() {
                out.push(event);
            }
            for (flag, by) in [(flag::EXCH, 0), (flag::LOCAL, 1)] {
                let of: Vec<_> = out.iter().filter(|event| event.ev & flag != 0).collect();
                let stamp = |e: &Event| if by == 0 { e.exch_ts } else { e.local_ts };
                prop_assert!(of.windows(2).all(|two| stamp(two[0]) <= stamp(two[1])));
                let mut ids: Vec<u64> = of.iter().map(|event| event.order_id).collect();
                ids.sort_unstable();
                prop_assert!(ids.iter().enumerate().all(|(n, id)| n as u64 == *id));
                prop_assert_eq!(ids.len(), stamps.len());
            }
        }
    }
}

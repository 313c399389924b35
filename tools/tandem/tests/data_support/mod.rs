//! What the tests of data in and out share: folders, the command, books of a journal.

#![allow(unused, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tandem_core::book::{Book, Level};
use tandem_core::record::{Kind, Record, flag};
use tandem_core::units::{Px, Qty, Side};
use tandem_tools::records::Records;
use tandem_tools::table::{Collector, Table};

/// A directory that goes away with the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = PathBuf::from(format!("/dev/shm/tandem-data-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self.path(name)
    }

    /// Names of all that is in it, hidden ones too.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn tandem(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem")).args(args).output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Runs a command that must do what it is asked; returns the JSON of its last line.
pub fn must(args: &[&str]) -> Value {
    let output = tandem(args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{args:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
}

/// The recordings, where they are.
pub fn captures() -> Option<PathBuf> {
    let found = std::env::var_os("TANDEM_CAPTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/captures"),
        PathBuf::from,
    );
    if found.is_dir() {
        return Some(found);
    }
    println!("skipped: no recordings at {}", found.display());
    None
}

/// A book as text: side, price, quantity, best first.
pub type Told = Vec<(char, String, String)>;

/// Of each instrument the book after every message that changed it, with when that was received.
pub struct Books<T>(pub BTreeMap<String, Vec<(i64, T)>>);

impl<T: PartialEq> Books<T> {
    /// The books alone, one after the other.
    pub fn sequence(&self) -> BTreeMap<&str, Vec<&T>> {
        let of = |books: &'_ [(i64, T)]| (0..books.len()).collect::<Vec<_>>();
        self.picked(of)
    }

    /// The last book of each moment, where it is another than the one before.
    pub fn by_moment(&self) -> BTreeMap<&str, Vec<&T>> {
        self.picked(|books| {
            let mut kept: Vec<usize> = Vec::new();
            for idx in 0..books.len() {
                let is_end = books.get(idx + 1).is_none_or(|next| next.0 != books[idx].0);
                let is_new = kept.last().is_none_or(|last| books[*last].1 != books[idx].1);
                if is_end && is_new {
                    kept.push(idx);
                }
            }
            kept
        })
    }

    fn picked(&self, pick: impl Fn(&[(i64, T)]) -> Vec<usize>) -> BTreeMap<&str, Vec<&T>> {
        let of = |books: &'_ Vec<(i64, T)>| pick(books);
        self.0
            .iter()
            .map(|(name, books)| {
                (name.as_str(), of(books).into_iter().map(|idx| &books[idx].1).collect())
            })
            .collect()
    }
}

/// All records of a journal.
pub fn records(journal: &str) -> Vec<Record> {
    let mut reader = Records::strict(Path::new(journal)).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push(record);
    }
    records
}

/// The run of a journal.
pub fn table(records: &[Record]) -> Table {
    let mut collector = Collector::default();
    let configs = records.iter().filter(|record| record.kind() == Some(Kind::Config));
    configs.filter_map(|record| collector.take(record)).next().unwrap().unwrap()
}

/// Every book of a journal as text.
pub fn books(journal: &str) -> Books<Told> {
    rebuilt(journal, |table, id, book| {
        let mut told = Told::new();
        for (side, letter) in [(Side::Bid, 'b'), (Side::Ask, 'a')] {
            for level in book.levels(side) {
                told.push((letter, table.px(id, level.px.0), table.qty(id, level.qty.0)));
            }
        }
        told
    })
}

/// Every book of a journal as one number, with how many levels it has.
pub fn digests(journal: &str) -> Books<(usize, usize, u64)> {
    rebuilt(journal, |table, id, book| {
        let instrument = &table.instruments[usize::from(id)];
        let mut hasher = std::hash::DefaultHasher::new();
        for side in Side::BOTH {
            for level in book.levels(side) {
                let scaled = |quanta: i64, exponent: u8| {
                    i128::from(quanta) * 10i128.pow(u32::from(18 - exponent))
                };
                scaled(level.px.0, instrument.px_exponent).hash(&mut hasher);
                scaled(level.qty.0, instrument.qty_exponent).hash(&mut hasher);
            }
        }
        (book.len(Side::Bid), book.len(Side::Ask), hasher.finish())
    })
}

/// Rebuilds every book of a journal, message by message.
fn rebuilt<T: PartialEq>(journal: &str, told: impl Fn(&Table, u16, &Book) -> T) -> Books<T> {
    let records = records(journal);
    let table = table(&records);
    let mut kept: Vec<Book> =
        table.instruments.iter().map(|_| Book::new(table.params.window_levels)).collect();
    let (mut all, mut touched) = (BTreeMap::<String, Vec<(i64, T)>>::new(), Vec::new());
    for record in records.iter().filter(|record| !record.has(flag::OUTPUT)) {
        let id = usize::from(record.instrument);
        let [a, b, c, d] = record.data;
        match record.kind() {
            Some(Kind::Level) => {
                kept[id].set(Side::from_idx(c).unwrap(), Px(a), Qty(b));
            }
            Some(Kind::Clear) => kept[id].clear(),
            Some(Kind::Bbo) => {
                for (side, px, qty) in [(Side::Bid, a, b), (Side::Ask, c, d)] {
                    let level = (qty != 0).then_some(Level { px: Px(px), qty: Qty(qty) });
                    kept[id].set_best(side, level);
                }
            }
            _ => {}
        }
        if matches!(record.kind(), Some(Kind::Level | Kind::Clear | Kind::Bbo)) {
            touched.push(id);
        }
        if !record.has(flag::LAST) {
            continue;
        }
        for id in touched.drain(..) {
            let instrument = &table.instruments[id];
            let name = format!("{}:{}", instrument.venue.name(), instrument.symbol);
            let of = all.entry(name).or_default();
            let book = told(&table, id as u16, &kept[id]);
            let is_new = of.last().map_or(!kept[id].is_empty(), |(_, last)| *last != book);
            if is_new {
                of.push((record.recv_ts_ns, book));
            }
        }
    }
    Books(all)
}

/// Compares books and says where they differ.
pub fn assert_same<T: PartialEq + std::fmt::Debug>(
    name: &str,
    ours: &BTreeMap<&str, Vec<&T>>,
    theirs: &BTreeMap<&str, Vec<&T>>,
) {
    assert!(ours.keys().eq(theirs.keys()), "{name}: {:?} {:?}", ours.keys(), theirs.keys());
    for (instrument, books) in ours {
        let others = &theirs[instrument];
        for (n, (a, b)) in books.iter().zip(others).enumerate() {
            assert_eq!(a, b, "{name}: {instrument}: book {n}");
        }
        assert_eq!(books.len(), others.len(), "{name}: {instrument}: how many books");
    }
}

//! Tables in files: CSV and Parquet, each whole or not there.
//!
//! Invariant: a file is written beside its place under another name, synced, and then given its name; one that
//! is there already is replaced only with `force`. CSV is RFC 4180: fields with commas, quotes or line breaks
//! are quoted, lines end in CRLF; text that a spreadsheet would take for a formula gets an apostrophe in front.
//! Parquet keeps amounts as `DECIMAL(38, 18)`, moments as nanoseconds UTC, compressed with zstd.
//!
//! Not here: what the columns mean (`fills`, `exports`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::Exact;
use super::exact::PLACES;
use crate::time::utc;

/// Rows of one row group: some 20 MB of the widest table.
const GROUP: usize = 50_000;
/// Digits of an amount: 128 bits have 38 whole ones.
const DIGITS: i32 = 38;
/// Bytes of an amount.
const AMOUNT_BYTES: i32 = 16;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// A whole number without a sign.
    Unsigned,
    /// An exact amount.
    Amount,
    /// A moment, UNIX ns.
    Time,
    /// Yes or no.
    Bool,
}

/// A column; any cell may be empty.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub holds: Holds,
}

impl Column {
    /// Returns a column.
    #[must_use]
    pub fn new(name: &str, holds: Holds) -> Column {
        Column { name: name.to_owned(), holds }
    }
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    #[default]
    Empty,
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A whole number without a sign.
    Unsigned(u64),
    /// An exact amount.
    Amount(Exact),
    /// A moment, UNIX ns.
    Time(i64),
    /// Yes or no.
    Bool(bool),
}

impl Cell {
    /// Returns text.
    #[must_use]
    pub fn text(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    /// Returns an amount, or nothing.
    #[must_use]
    pub fn amount(amount: Option<Exact>) -> Cell {
        amount.map_or(Cell::Empty, Cell::Amount)
    }

    const fn is(&self, holds: Holds) -> bool {
        matches!(
            (self, holds),
            (Cell::Empty, _)
                | (Cell::Text(_), Holds::Text)
                | (Cell::Int(_), Holds::Int)
                | (Cell::Unsigned(_), Holds::Unsigned)
                | (Cell::Amount(_), Holds::Amount)
                | (Cell::Time(_), Holds::Time)
                | (Cell::Bool(_), Holds::Bool)
        )
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum SheetError {
    /// It is there already.
    #[error("{0} is there already: give another name, or --force to replace it")]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Parquet's own words.
    #[error("{path}: {error}")]
    Parquet {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: ParquetError,
    },
}

/// A file on its way to its place; dropped before [`Whole::finish`] nothing of it stays.
#[derive(Debug)]
pub struct Whole {
    path: PathBuf,
    temp: PathBuf,
    force: bool,
    is_done: bool,
}

impl Whole {
    /// Begins a file.
    pub fn begin(path: &Path, force: bool) -> Result<(Whole, File), SheetError> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(SheetError::Exists(path.to_owned()));
        }
        let io = |error| SheetError::Io { path: path.to_owned(), error };
        let name = path
            .file_name()
            .ok_or_else(|| io(io::Error::new(io::ErrorKind::InvalidInput, "names no file")))?;
        let temp = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let temp = path.with_file_name(temp);
        let file = OpenOptions::new().write(true).create_new(true).open(&temp).map_err(io)?;
        Ok((Whole { path: path.to_owned(), temp, force, is_done: false }, file))
    }

    /// Puts a written and synced file in its place.
    pub fn finish(mut self, file: &File) -> Result<(), SheetError> {
        let io = |error| SheetError::Io { path: self.path.clone(), error };
        file.sync_all().map_err(io)?;
        if self.force {
            fs::rename(&self.temp, &self.path).map_err(io)?;
            self.is_done = true;
        } else {
            // A link is refused where the name is taken: nobody's file is lost in between.
            match fs::hard_link(&self.temp, &self.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(SheetError::Exists(self.path.clone()));
                }
                // A file system without links.
                Err(_) => {
                    fs::rename(&self.temp, &self.path).map_err(io)?;
                    self.is_done = true;
                }
            }
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()).map_err(io)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.temp);
        }
    }
}

enum Out {
    Csv(BufWriter<File>),
    Parquet(Box<SerializedFileWriter<File>>, Group),
}

/// Values of a column that wait to be written.
enum Values {
    Text(Vec<ByteArray>),
    Whole(Vec<i64>),
    Bool(Vec<bool>),
    Amount(Vec<FixedLenByteArray>),
}

/// Rows that wait to be written, by column: what is there, and of each row whether it is.
struct Group {
    columns: Vec<(Values, Vec<i16>)>,
    rows: usize,
}

impl Group {
    fn new(columns: &[Column]) -> Group {
        let values = |column: &Column| match column.holds {
            Holds::Text => Values::Text(Vec::new()),
            Holds::Int | Holds::Unsigned | Holds::Time => Values::Whole(Vec::new()),
            Holds::Bool => Values::Bool(Vec::new()),
            Holds::Amount => Values::Amount(Vec::new()),
        };
        Group { columns: columns.iter().map(|c| (values(c), Vec::new())).collect(), rows: 0 }
    }

    fn add(&mut self, row: Vec<Cell>) {
        self.rows += 1;
        for (cell, (values, there)) in row.into_iter().zip(&mut self.columns) {
            let is_there = match (cell, values) {
                (Cell::Text(text), Values::Text(to)) => {
                    to.push(ByteArray::from(text.into_bytes()));
                    true
                }
                (Cell::Int(number) | Cell::Time(number), Values::Whole(to)) => {
                    to.push(number);
                    true
                }
                (Cell::Unsigned(number), Values::Whole(to)) => {
                    to.push(number.cast_signed());
                    true
                }
                (Cell::Bool(yes), Values::Bool(to)) => {
                    to.push(yes);
                    true
                }
                (Cell::Amount(amount), Values::Amount(to)) => {
                    let bytes = amount.0.to_be_bytes().to_vec();
                    to.push(FixedLenByteArray::from(ByteArray::from(bytes)));
                    true
                }
                _ => false,
            };
            there.push(i16::from(is_there));
        }
    }

    /// Writes the rows, and has none then.
    fn write(&mut self, writer: &mut SerializedFileWriter<File>) -> Result<(), ParquetError> {
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(());
        }
        let mut group = writer.next_row_group()?;
        for (values, there) in &mut self.columns {
            let Some(mut out) = group.next_column()? else { break };
            let told = Some(there.as_slice());
            match values {
                Values::Text(of) => out.typed::<ByteArrayType>().write_batch(of, told, None)?,
                Values::Whole(of) => out.typed::<Int64Type>().write_batch(of, told, None)?,
                Values::Bool(of) => out.typed::<BoolType>().write_batch(of, told, None)?,
                Values::Amount(of) => {
                    out.typed::<FixedLenByteArrayType>().write_batch(of, told, None)?
                }
            };
            out.close()?;
            there.clear();
            match values {
                Values::Text(of) => of.clear(),
                Values::Whole(of) => of.clear(),
                Values::Bool(of) => of.clear(),
                Values::Amount(of) => of.clear(),
            }
        }
        group.close().map(drop)
    }
}

/// Writes a table, row by row.
pub struct Sheet {
    columns: Vec<Column>,
    whole: Whole,
    /// The same file, to be synced.
    file: File,
    out: Out,
    rows: u64,
}

impl Sheet {
    /// Begins a table.
    pub fn begin(
        path: &Path,
        (format, force): (Format, bool),
        columns: Vec<Column>,
    ) -> Result<Sheet, SheetError> {
        let (whole, file) = Whole::begin(path, force)?;
        let io = |error| SheetError::Io { path: path.to_owned(), error };
        let synced = file.try_clone().map_err(io)?;
        let out = match format {
            Format::Csv => {
                let mut out = BufWriter::new(file);
                let names = columns.iter().map(|column| field(&column.name));
                let line = names.collect::<Vec<_>>().join(",");
                out.write_all(format!("{line}\r\n").as_bytes()).map_err(io)?;
                Out::Csv(out)
            }
            Format::Parquet => {
                let wrong = |error| SheetError::Parquet { path: path.to_owned(), error };
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_created_by(format!("tandem {}", env!("CARGO_PKG_VERSION")));
                let schema = schema(&columns).map_err(wrong)?;
                let writer =
                    SerializedFileWriter::new(file, Arc::new(schema), properties.build().into());
                Out::Parquet(Box::new(writer.map_err(wrong)?), Group::new(&columns))
            }
        };
        Ok(Sheet { columns, whole, file: synced, out, rows: 0 })
    }

    /// Returns how many rows were written.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row; a cell of another kind than its column's is left empty.
    pub fn add(&mut self, mut row: Vec<Cell>) -> Result<(), SheetError> {
        debug_assert_eq!(row.len(), self.columns.len(), "a cell a column");
        row.resize(self.columns.len(), Cell::Empty);
        for (cell, column) in row.iter_mut().zip(&self.columns) {
            debug_assert!(cell.is(column.holds), "{}: {cell:?}", column.name);
            if !cell.is(column.holds) {
                *cell = Cell::Empty;
            }
        }
        self.rows += 1;
        match &mut self.out {
            Out::Csv(out) => {
                let line = row.iter().map(csv).collect::<Vec<_>>().join(",");
                let path = &self.whole.path;
                out.write_all(format!("{line}\r\n").as_bytes())
                    .map_err(|error| SheetError::Io { path: path.clone(), error })
            }
            Out::Parquet(writer, group) => {
                group.add(row);
                if group.rows < GROUP {
                    return Ok(());
                }
                let path = &self.whole.path;
                group
                    .write(writer)
                    .map_err(|error| SheetError::Parquet { path: path.clone(), error })
            }
        }
    }

    /// Returns how many rows wait in memory.
    #[must_use]
    pub fn waiting(&self) -> usize {
        match &self.out {
            Out::Csv(_) => 0,
            Out::Parquet(_, group) => group.rows,
        }
    }

    /// Writes the rows that wait in memory.
    pub fn flush(&mut self) -> Result<(), SheetError> {
        let path = &self.whole.path;
        match &mut self.out {
            Out::Csv(_) => Ok(()),
            Out::Parquet(writer, group) => group
                .write(writer)
                .map_err(|error| SheetError::Parquet { path: path.clone(), error }),
        }
    }

    /// Ends the table: the file is in its place, and on the disk. Returns how many rows it has.
    pub fn finish(self) -> Result<u64, SheetError> {
        let path = self.whole.path.clone();
        match self.out {
            Out::Csv(mut out) => {
                out.flush().map_err(|error| SheetError::Io { path, error })?;
            }
            Out::Parquet(mut writer, mut group) => {
                group
                    .write(&mut writer)
                    .and_then(|()| writer.close().map(drop))
                    .map_err(|error| SheetError::Parquet { path, error })?;
            }
        }
        self.whole.finish(&self.file)?;
        Ok(self.rows)
    }
}

/// A cell as CSV; numbers and times are ours and need no quotes.
fn csv(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Text(text) => field(text),
        Cell::Int(number) => number.to_string(),
        Cell::Unsigned(number) => number.to_string(),
        Cell::Amount(amount) => amount.to_string(),
        Cell::Time(ns) => utc(*ns),
        Cell::Bool(yes) => yes.to_string(),
    }
}

/// Text as a CSV field.
#[must_use]
pub fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

fn schema(columns: &[Column]) -> Result<Type, ParquetError> {
    let mut fields = Vec::new();
    for column in columns {
        let (physical, logical) = match column.holds {
            Holds::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Holds::Int => (Physical::INT64, None),
            Holds::Unsigned => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Holds::Bool => (Physical::BOOLEAN, None),
            Holds::Amount => {
                let decimal = LogicalType::decimal(i32::from(PLACES), DIGITS);
                (Physical::FIXED_LEN_BYTE_ARRAY, Some(decimal))
            }
            // UTC.
            Holds::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::NANOS))),
        };
        let field = Type::primitive_type_builder(&column.name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        let field = match column.holds {
            Holds::Amount => {
                field.with_length(AMOUNT_BYTES).with_precision(DIGITS).with_scale(i32::from(PLACES))
            }
            _ => field,
        };
        fields.push(Arc::new(field.build()?));
    }
    Type::group_type_builder("tandem").with_fields(fields).build()
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tandem-sheet-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::new("symbol", Holds::Text),
            Column::new("amount", Holds::Amount),
            Column::new("at", Holds::Time),
            Column::new("n", Holds::Int),
            Column::new("yes", Holds::Bool),
        ]
    }

    fn row(text: &str, amount: Exact) -> Vec<Cell> {
        let at = Cell::Time(1_786_242_665_776_685_001);
        vec![Cell::text(text), Cell::Amount(amount), at, Cell::Int(-7), Cell::Bool(true)]
    }

    #[test]
    fn fields_are_quoted_and_no_formulas() {
        for (text, wanted) in [
            ("BTC-USD", "BTC-USD"),
            ("=cmd()", "'=cmd()"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("a,b", "\"a,b\""),
            ("=\"x\",1", "\"'=\"\"x\"\",1\""),
            ("two\nlines", "\"two\nlines\""),
            ("", ""),
        ] {
            assert_eq!(field(text), wanted);
        }
    }

    #[test]
    fn csv_is_whole_or_not_there() {
        let path = place("whole.csv");
        let mut sheet = Sheet::begin(&path, (Format::Csv, false), columns()).expect("a place");
        sheet.add(row("=cmd()", Exact(-1))).expect("room");
        assert!(!path.exists(), "not before it is whole");
        drop(sheet);
        let left = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let files = fs::read_dir(std::env::temp_dir()).expect("a folder").flatten();
            files.filter(|file| file.file_name().to_string_lossy().contains(&name)).count()
        };
        assert_eq!(left(&path), 0, "half a file stays nowhere");
        let mut sheet = Sheet::begin(&path, (Format::Csv, false), columns()).expect("a place");
        sheet.add(row("=cmd()", Exact(-1))).expect("room");
        assert_eq!(sheet.finish().expect("done"), 1);
        let text = fs::read_to_string(&path).expect("a file");
        let wanted = "symbol,amount,at,n,yes\r\n'=cmd(),-0.000000000000000001,\
                      2026-08-09T02:31:05.776685001Z,-7,true\r\n";
        assert_eq!(text, wanted);
        let again = Sheet::begin(&path, (Format::Csv, false), columns());
        assert!(matches!(again, Err(SheetError::Exists(_))));
        let forced = Sheet::begin(&path, (Format::Csv, true), columns()).expect("replaced");
        forced.finish().expect("done");
        assert_eq!(fs::read_to_string(&path).expect("a file").lines().count(), 1);
        assert_eq!(left(&path), 1);
        fs::remove_file(&path).expect("clean up");
    }

    #[test]
    fn parquet_is_read_back() {
        let path = place("back.parquet");
        let mut sheet = Sheet::begin(&path, (Format::Parquet, false), columns()).expect("a place");
        let most = 10i128.pow(38) - 1;
        for n in 0..(GROUP as i128 + 10) {
            sheet.add(row("=cmd()", Exact(n))).expect("room");
        }
        sheet.add(row("", Exact(-most))).expect("room");
        sheet.add(vec![Cell::Empty; 5]).expect("room");
        assert_eq!(sheet.finish().expect("done"), GROUP as u64 + 12);
        let reader = SerializedFileReader::new(File::open(&path).expect("a file")).expect("one");
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let rows: Vec<_> =
            reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
        assert_eq!(rows.len(), GROUP + 12);
        assert_eq!(
            rows[3].get_string(0).expect("text"),
            "=cmd()",
            "no apostrophe where none is due"
        );
        let decimal = |row: usize| {
            let decimal = rows[row].get_decimal(1).expect("a decimal");
            assert_eq!((decimal.precision(), decimal.scale()), (38, 18));
            i128::from_be_bytes(decimal.data().try_into().expect("sixteen bytes"))
        };
        assert_eq!((decimal(7), decimal(GROUP + 10)), (7, -most));
        let text = format!("{}", rows[GROUP + 11]);
        assert!(text.contains("null"), "{text}");
        fs::remove_file(&path).expect("clean up");
    }
}

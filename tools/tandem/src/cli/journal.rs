//! `journal`: list, show, count, check, import, export.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use tandem_core::record::{Kind, Record, flag};
use tandem_drain::archive;
use tandem_drain::archive::checkpoint::CHECKPOINT;
use tandem_drain::archive::verify::JournalReport;
use tandem_feeds::tile::record_schema;

use super::{Done, Failure, Outcome, print, print_json};
use crate::data::Recorded;
use crate::progress::Progress;
use crate::records::Records;
use crate::time::utc;

/// What to do with a journal.
#[derive(Subcommand, Debug)]
pub enum JournalCommand {
    /// Journals below a directory, in shared memory and in archives, with their files.
    #[command(after_help = "Examples:
  tandem journal ls /dev/shm
  tandem journal ls /var/lib/tandem/archive")]
    Ls {
        /// Where to look.
        #[arg(default_value = "/dev/shm")]
        path: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows records.
    #[command(after_help = "Examples:
  tandem journal cat DIR --from 1000 --count 20
  tandem journal cat DIR --kind opportunity --json")]
    Cat {
        /// Directory of the journal, an archive, or a journal's folder in one.
        path: PathBuf,
        /// First sequence; above 1 and of an archive: in its last journal.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many; 0 is all.
        #[arg(long, default_value_t = 100)]
        count: u64,
        /// Only this kind, e.g. level, bbo, opportunity.
        #[arg(long)]
        kind: Option<String>,
        /// As JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Counts records by kind, with time span and rate.
    #[command(after_help = "Example:
  tandem journal stat DIR --json")]
    Stat {
        /// Directory of the journal, an archive, or a journal's folder in one.
        path: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Checks every header, checksum, sequence and chain; exit 1 where anything is wrong.
    #[command(after_help = "Examples:
  tandem journal verify /dev/shm/tandem/journal
  tandem journal verify /var/lib/tandem/archive          all journals in it
  tandem journal verify /var/lib/tandem/archive/000001-* one of them")]
    Verify {
        /// Directory of the journal, an archive, or a journal's folder in one.
        path: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes a journal of recordings: messages as venues sent them, Tardis CSV, hftbacktest npz, Binance's public CSV.
    #[command(after_help = "Examples:
  tandem journal import --to DIR coinbase/tape.jsonl.gz kraken/tape.jsonl.gz
  tandem journal import --to DIR binance_incremental_book_L2_*.csv.gz binance_trades_*.csv.gz
  tandem journal import --to DIR --instrument binance:BTCUSDT=btcusdt_20261101.npz --tick binance:BTCUSDT=0.01
  tandem journal import --to DIR BTCUSDT-bookTicker-2026-11-01.zip --assume-latency-us 2000
  tandem journal import --to DIR --correct-clocks --latency-min-us 100 binance_incremental_book_L2.csv.gz

Stamps that cannot be (received before the venue's time, out of order, told twice) are refused with file and line,
exit code 1, unless --correct-clocks. A venue's stamps are moved, never our receipts: those say what was seen first.")]
    Import(super::data::ImportArgs),
    /// Makes a journal of a made-up market, for replays and benchmarks.
    #[command(after_help = "Example:
  tandem journal generate --to DIR --records 1000000 --seed 7")]
    Generate {
        /// Directory of the new journal.
        #[arg(long)]
        to: PathBuf,
        /// At least this many records.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// Seed of the market.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copies a journal, or writes what is in it for others: Parquet, Tardis' CSV, hftbacktest's npz.
    #[command(after_help = "Examples:
  tandem journal export DIR --out /var/lib/tandem/2026-11-22           segments as they are
  tandem journal export /var/lib/tandem/archive --out lake --format parquet
  tandem journal export DIR --out csv --format csv                     imported again: the same books
  tandem journal export DIR --out npz --format hftbacktest
  tandem journal export DIR --out records.jsonl --format jsonl

deploy/analytics has queries over the Parquet.")]
    Export(super::data::ExportArgs),
}

/// A record as JSON and CSV show it.
#[derive(Serialize)]
struct RecordText {
    seq: u64,
    kind: String,
    output: bool,
    last: bool,
    part: u8,
    venue: String,
    instrument: u16,
    epoch: u16,
    data: [i64; 4],
    update_id: u64,
    venue_ts_ns: i64,
    recv_ts_ns: i64,
    engine_ts_ns: i64,
    conn: u32,
    ring: u16,
    ring_seq: u64,
}

fn kind_name(record: &Record) -> String {
    record.kind().map_or_else(
        || format!("unknown-{}", record.kind),
        |kind| format!("{kind:?}").to_lowercase(),
    )
}

impl RecordText {
    fn new(record: &Record) -> RecordText {
        let venue = tandem_core::record::Venue::from_tag(record.venue);
        RecordText {
            seq: record.seq,
            kind: kind_name(record),
            output: record.has(flag::OUTPUT),
            last: record.has(flag::LAST),
            part: record.part,
            venue: venue.map_or("-", |venue| venue.name()).to_owned(),
            instrument: record.instrument,
            epoch: record.epoch,
            data: record.data,
            update_id: record.update_id,
            venue_ts_ns: record.venue_ts_ns,
            recv_ts_ns: record.recv_ts_ns,
            engine_ts_ns: record.engine_ts_ns,
            conn: record.conn,
            ring: record.ring,
            ring_seq: record.ring_seq,
        }
    }
}

/// `tandem journal …`.
pub fn run(command: &JournalCommand) -> Done {
    match command {
        JournalCommand::Ls { path, json } => ls(path, *json),
        JournalCommand::Cat { path, from, count, kind, json } => {
            cat(path, *from, *count, kind.as_deref(), *json)
        }
        JournalCommand::Stat { path, json } => stat(path, *json),
        JournalCommand::Verify { path, json } => verify(path, *json),
        JournalCommand::Import(args) => super::data::import(args),
        JournalCommand::Generate { to, records, seed, json } => {
            let report = crate::generate::generate(to, *seed, *records).map_err(Failure::failed)?;
            print_recorded(&report, *json);
            Ok(Outcome::Ok)
        }
        JournalCommand::Export(args) => super::data::export(args),
    }
}

fn print_recorded(report: &Recorded, json: bool) {
    if json {
        return print_json(report);
    }
    let [cross_venue, triangular, cross_quote] = report.opportunities;
    print(format_args!(
        "{} messages, {} records, opportunities: {cross_venue} cross-venue, {triangular} triangular, \
         {cross_quote} cross-quote",
        report.messages, report.records,
    ));
}

fn open(path: &Path) -> Result<Records, Failure> {
    Records::open(path).map_err(Failure::unreachable)
}

#[derive(Serialize)]
struct Listed {
    path: PathBuf,
    segments: u64,
    bytes: u64,
    archived: bool,
}

fn ls(path: &Path, json: bool) -> Done {
    let mut found = Vec::new();
    find(path, 0, &mut found);
    if json {
        print_json(&found);
    } else {
        for journal in &found {
            print(format_args!(
                "{:>4} {} {:>12} bytes  {}",
                journal.segments,
                if journal.archived { "files   " } else { "segments" },
                journal.bytes,
                journal.path.display()
            ));
        }
    }
    Ok(Outcome::Ok)
}

/// Looks three levels deep: `/dev/shm`, a run, its journal.
fn find(path: &Path, depth: usize, found: &mut Vec<Listed>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    let (mut segments, mut bytes, mut archived, mut folders) = (0, 0, false, Vec::new());
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if meta.is_dir() {
            folders.push(entry.path());
        } else if name.starts_with("seg-") && name.ends_with(".tj") {
            segments += 1;
            bytes += meta.len();
        } else if name.starts_with("records-") && name.ends_with(".tda") {
            segments += 1;
            bytes += meta.len();
            archived = true;
        }
    }
    if segments != 0 {
        found.push(Listed { path: path.to_owned(), segments, bytes, archived });
    }
    if depth < 3 {
        folders.sort();
        folders.iter().for_each(|folder| find(folder, depth + 1, found));
    }
}

fn cat(path: &Path, from: u64, count: u64, kind: Option<&str>, json: bool) -> Done {
    if let Some(kind) = kind
        && !Kind::ALL.iter().any(|known| format!("{known:?}").to_lowercase() == kind)
    {
        let known: Vec<String> =
            Kind::ALL.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
        return Err(Failure::usage(format!("--kind {kind}: known are {}", known.join(", "))));
    }
    let mut reader = Records::open_from(path, from).map_err(Failure::unreachable)?;
    let mut shown = 0;
    while let Some(record) = reader.next().map_err(Failure::failed)? {
        if kind.is_some_and(|kind| kind_name(&record) != kind) {
            continue;
        }
        let text = RecordText::new(&record);
        if json {
            print_json(&text);
        } else {
            print(format_args!(
                "{:>9} {} {:<16} {:<8} {:>5} {}{} {:?} id {}",
                text.seq,
                utc(text.engine_ts_ns),
                text.kind,
                text.venue,
                if text.instrument == u16::MAX {
                    "-".to_owned()
                } else {
                    text.instrument.to_string()
                },
                if text.output { "out" } else { "in " },
                if text.last { " last" } else { "" },
                text.data,
                text.update_id,
            ));
        }
        shown += 1;
        if shown == count {
            break;
        }
    }
    Ok(Outcome::Ok)
}

#[derive(Default, Serialize)]
struct Stat {
    records: u64,
    inputs: u64,
    outputs: u64,
    first: String,
    last: String,
    seconds: f64,
    records_per_second: f64,
    kinds: BTreeMap<String, u64>,
}

fn stat(path: &Path, json: bool) -> Done {
    let mut reader = open(path)?;
    let (mut stat, mut first_ns, mut last_ns) = (Stat::default(), 0, 0);
    while let Some(record) = reader.next().map_err(Failure::failed)? {
        stat.records += 1;
        if record.has(flag::OUTPUT) {
            stat.outputs += 1;
        } else {
            stat.inputs += 1;
        }
        *stat.kinds.entry(kind_name(&record)).or_default() += 1;
        if record.engine_ts_ns != 0 {
            if first_ns == 0 {
                first_ns = record.engine_ts_ns;
            }
            last_ns = record.engine_ts_ns;
        }
    }
    (stat.first, stat.last) = (utc(first_ns), utc(last_ns));
    stat.seconds = (last_ns - first_ns) as f64 / 1e9;
    stat.records_per_second = stat.records as f64 / stat.seconds.max(1e-9);
    if json {
        print_json(&stat);
    } else {
        print(format_args!(
            "{} records ({} in, {} out) from {} to {}: {:.1} s, {:.0} a second",
            stat.records,
            stat.inputs,
            stat.outputs,
            stat.first,
            stat.last,
            stat.seconds,
            stat.records_per_second
        ));
        for (kind, count) in &stat.kinds {
            print(format_args!("{kind:<18} {count:>12}"));
        }
    }
    Ok(Outcome::Ok)
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    uuid: String,
    segments: u64,
    records: u64,
    first_seq: u64,
    last_seq: u64,
    bytes: u64,
    chain_ok: bool,
    torn_tail: Option<u64>,
    faults: Vec<String>,
    fault_count: u64,
}

/// One journal of an archive as it was found.
#[derive(Serialize)]
struct VerifiedJournal {
    ok: bool,
    uuid: String,
    path: PathBuf,
    files: u64,
    blocks: u64,
    records: u64,
    first_seq: u64,
    last_seq: u64,
    bytes: u64,
    from_beginning: bool,
    torn_bytes: u64,
    faults: Vec<String>,
    fault_count: u64,
}

#[derive(Serialize)]
struct VerifiedArchive {
    ok: bool,
    records: u64,
    bytes: u64,
    journals: Vec<VerifiedJournal>,
}

impl VerifiedJournal {
    fn new(report: JournalReport) -> VerifiedJournal {
        let fault = |fault: &archive::verify::Fault| {
            format!("{}: at byte {}: {}", fault.path.display(), fault.at, fault.what)
        };
        VerifiedJournal {
            ok: report.is_sound(),
            uuid: format!("{:032x}", report.uuid),
            files: report.files,
            blocks: report.blocks,
            records: report.records,
            first_seq: report.first_seq,
            last_seq: report.last_seq,
            bytes: report.bytes,
            from_beginning: report.is_from_beginning,
            torn_bytes: report.torn_bytes,
            faults: report.faults.iter().map(fault).collect(),
            fault_count: report.fault_count,
            path: report.dir,
        }
    }

    fn print(&self) {
        print(format_args!(
            "{}: {} records ({} to {}) in {} blocks and {} files, {} bytes  {}",
            if self.ok { "sound" } else { "NOT SOUND" },
            self.records,
            self.first_seq,
            self.last_seq,
            self.blocks,
            self.files,
            self.bytes,
            self.path.display(),
        ));
        if !self.from_beginning && self.records != 0 {
            print(format_args!(
                "  the chain is proven from record {} on: what was before it was removed, by retention or \
                 by somebody",
                self.first_seq
            ));
        }
        if self.torn_bytes != 0 {
            print(format_args!(
                "  {} bytes at the end are a write under way or cut short; nothing before it is lost",
                self.torn_bytes
            ));
        }
        for fault in &self.faults {
            print(format_args!("  {fault}"));
        }
    }
}

fn verify_archive(path: &Path, json: bool) -> Done {
    let found = archive::verify::journals(path).map_err(Failure::unreachable)?;
    let total = archive::verify::total_bytes(&found).map_err(Failure::unreachable)?;
    let progress = Progress::bytes("verifying", total);
    let mut journals = Vec::new();
    for journal in &found {
        let report = archive::verify::verify(journal, record_schema(), |bytes| progress.add(bytes));
        journals.push(VerifiedJournal::new(report.map_err(Failure::unreachable)?));
    }
    progress.end();
    let verified = VerifiedArchive {
        ok: journals.iter().all(|journal| journal.ok),
        records: journals.iter().map(|journal| journal.records).sum(),
        bytes: journals.iter().map(|journal| journal.bytes).sum(),
        journals,
    };
    if json {
        print_json(&verified);
    } else {
        verified.journals.iter().for_each(VerifiedJournal::print);
    }
    Ok(if verified.ok { Outcome::Ok } else { Outcome::Failed })
}

fn verify(path: &Path, json: bool) -> Done {
    if archive::is_archive(path) {
        return verify_archive(path, json);
    }
    let report = tandem_shm::verify(path, record_schema()).map_err(Failure::unreachable)?;
    let verified = Verified {
        ok: report.is_sound(),
        uuid: format!("{:032x}", report.uuid),
        segments: report.segments,
        records: report.records,
        first_seq: report.first_seq,
        last_seq: report.last_seq,
        bytes: report.bytes,
        chain_ok: report.chain_ok,
        torn_tail: report.torn_tail.map(|torn| torn.seq),
        faults: report.faults.iter().map(ToString::to_string).collect(),
        fault_count: report.fault_count,
    };
    if json {
        print_json(&verified);
    } else {
        print(format_args!(
            "{}: {} records ({} to {}) in {} segments, {} bytes, chain {}",
            if verified.ok { "sound" } else { "NOT SOUND" },
            verified.records,
            verified.first_seq,
            verified.last_seq,
            verified.segments,
            verified.bytes,
            if verified.chain_ok { "whole" } else { "BROKEN" },
        ));
        if let Some(seq) = verified.torn_tail {
            print(format_args!(
                "the append of record {seq} was cut short; nothing before it is lost"
            ));
        }
        verified.faults.iter().for_each(print);
    }
    Ok(if verified.ok { Outcome::Ok } else { Outcome::Failed })
}

fn must_be_new(to: &Path) -> Result<(), Failure> {
    match to.exists() {
        true => Err(Failure::usage(format!("{} is there already; name a new one", to.display()))),
        false => Ok(()),
    }
}

/// Copies a journal's segments.
pub(super) fn copy(path: &Path, to: &Path) -> Done {
    let io = |error: std::io::Error| Failure::failed(format!("{}: {error}", to.display()));
    must_be_new(to)?;
    if archive::is_archive(path) {
        let rule = "an archive has no segments: copy its folder, or name another format";
        return Err(Failure::usage(format!("--format journal: {rule}")));
    }
    drop(open(path)?);
    // Made whole under another name first: a copy that was cut short is never taken for a journal.
    let partial = to.with_extension("partial");
    fs::create_dir_all(&partial).map_err(io)?;
    for entry in fs::read_dir(path).map_err(io)?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("seg-") || name == CHECKPOINT {
            fs::copy(entry.path(), partial.join(&name)).map_err(io)?;
        }
    }
    fs::rename(&partial, to).map_err(io)?;
    Ok(Outcome::Ok)
}

/// Writes every record as a line of JSON, or of CSV.
pub(super) fn lines(path: &Path, to: &Path, json: bool) -> Done {
    let io = |error: std::io::Error| Failure::failed(format!("{}: {error}", to.display()));
    must_be_new(to)?;
    let mut reader = open(path)?;
    let mut file = BufWriter::new(File::create(to).map_err(io)?);
    if !json {
        writeln!(
            file,
            "seq,kind,output,last,part,venue,instrument,epoch,data0,data1,data2,data3,update_id,\
             venue_ts_ns,recv_ts_ns,engine_ts_ns,conn,ring,ring_seq"
        )
        .map_err(io)?;
    }
    while let Some(record) = reader.next().map_err(Failure::failed)? {
        let t = RecordText::new(&record);
        if json {
            let text = serde_json::to_string(&t).map_err(Failure::failed)?;
            writeln!(file, "{text}").map_err(io)?;
        } else {
            let [a, b, c, d] = t.data;
            writeln!(
                file,
                "{},{},{},{},{},{},{},{},{a},{b},{c},{d},{},{},{},{},{},{},{}",
                t.seq,
                t.kind,
                t.output,
                t.last,
                t.part,
                t.venue,
                t.instrument,
                t.epoch,
                t.update_id,
                t.venue_ts_ns,
                t.recv_ts_ns,
                t.engine_ts_ns,
                t.conn,
                t.ring,
                t.ring_seq
            )
            .map_err(io)?;
        }
    }
    file.flush().map_err(io)?;
    Ok(Outcome::Ok)
}

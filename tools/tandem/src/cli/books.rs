//! `books`: of a running system, or of recordings.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tandem_core::record::Venue;
use tandem_feeds::capture::{CaptureError, SymbolReport, rebuild};
use tandem_feeds::page;
use tandem_feeds::tile::{page_name, page_schema};
use tandem_shm::LatestReader;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::table;
use crate::time::{now_ns, utc};

/// What to show.
#[derive(Args, Debug)]
pub struct BooksArgs {
    /// Recordings (form: one JSON object a line, plain or gzip); without any: the running system.
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
    /// Levels a side of a running system's books.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// `tandem books`.
pub fn run(args: &BooksArgs) -> Done {
    if args.files.is_empty() { live(args) } else { recorded(args) }
}

#[derive(Serialize)]
#[serde(untagged)]
enum FileReport {
    Books(BTreeMap<String, SymbolReport>),
    NotSupported { not_supported: String },
}

fn recorded(args: &BooksArgs) -> Done {
    let mut reports: BTreeMap<String, FileReport> = BTreeMap::new();
    let mut skipped = 0;
    for path in &args.files {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| Failure::unreachable(format!("{name}: {e}")))?;
        let report = match rebuild(&name, std::io::BufReader::new(file)) {
            Ok(symbols) => {
                FileReport::Books(symbols.into_iter().map(|s| (s.symbol.clone(), s)).collect())
            }
            Err(error @ CaptureError::NotSupported { .. }) => {
                skipped += 1;
                FileReport::NotSupported { not_supported: error.to_string() }
            }
            Err(error) => return Err(Failure::failed(error)),
        };
        reports.insert(name, report);
    }
    if args.json {
        print_json(&reports);
    } else {
        for (file, report) in &reports {
            print(file);
            match report {
                FileReport::NotSupported { not_supported } => {
                    print(format_args!("  {not_supported}"))
                }
                FileReport::Books(symbols) => symbols.values().for_each(print_symbol),
            }
        }
    }
    Ok(if skipped == 0 { Outcome::Ok } else { Outcome::Partial })
}

fn print_symbol(report: &SymbolReport) {
    let level = |level: &Option<[String; 2]>| match level {
        Some([px, qty]) => format!("{px} x {qty}"),
        None => "-".to_owned(),
    };
    print(format_args!(
        "  {:<10} bid {} · ask {} · levels {}/{} · applied {} · snapshots {} · gaps {} · checksums {} ok {} bad · {}",
        report.symbol,
        level(&report.best_bid),
        level(&report.best_ask),
        report.levels[0],
        report.levels[1],
        report.applied,
        report.snapshots,
        report.gaps,
        report.checksum_ok,
        report.checksum_bad,
        if report.synced_at_end { "in sync" } else { "NOT IN SYNC" },
    ));
}

#[derive(Serialize)]
struct LiveBook {
    venue: &'static str,
    symbol: String,
    base: String,
    quote: String,
    state: &'static str,
    reason: String,
    update_id: u64,
    received: String,
    age_ms: i64,
    bids: Vec<[String; 2]>,
    asks: Vec<[String; 2]>,
}

fn live(args: &BooksArgs) -> Done {
    let config = args.config.load()?;
    let table = table::load(&config.run.dir).map_err(Failure::unreachable)?;
    let mut words = vec![0; page::words(table.params.window_levels)];
    let mut books = Vec::new();
    for venue in Venue::ALL {
        let instruments = table.of_venue(venue);
        if instruments.is_empty() {
            continue;
        }
        let within = Duration::from_millis(200);
        let pages =
            LatestReader::open(&config.run.dir, &page_name(venue.name()), page_schema(), within)
                .map_err(Failure::unreachable)?;
        let entries: Vec<page::Page> = (0..instruments.len())
            .filter_map(|slot| pages.read(slot, &mut words).and_then(|n| page::decode(&words[..n])))
            .collect();
        for instrument in &instruments {
            let entry = entries.iter().find(|page| page.instrument == instrument.id);
            let rules = &table.universe.instruments[usize::from(instrument.id)];
            let side = |idx: usize| {
                let levels = entry.iter().flat_map(|page| page.sides[idx].iter()).take(args.depth);
                let id = instrument.id;
                levels.map(|l| [table.px(id, l.px.0), table.qty(id, l.qty.0)]).collect()
            };
            let recv_ns = entry.map_or(0, |page| page.position.recv_ns);
            books.push(LiveBook {
                venue: venue.name(),
                symbol: instrument.symbol.clone(),
                base: table.asset(rules.base).to_owned(),
                quote: table.asset(rules.quote).to_owned(),
                state: entry.map_or("init", |page| page.state.name()),
                reason: entry
                    .as_ref()
                    .map_or_else(String::new, |page| format!("{:?}", page.reason)),
                update_id: entry.map_or(0, |page| page.position.update_id),
                received: utc(recv_ns),
                age_ms: if recv_ns == 0 { -1 } else { (now_ns() - recv_ns) / 1_000_000 },
                bids: side(0),
                asks: side(1),
            });
        }
    }
    books.sort_by(|a, b| (&a.base, &a.quote, a.venue).cmp(&(&b.base, &b.quote, b.venue)));
    if args.json {
        print_json(&books);
    } else {
        for book in &books {
            print_live(book, args.depth);
        }
    }
    let in_sync = books.iter().all(|book| book.state == "live");
    Ok(if in_sync { Outcome::Ok } else { Outcome::Failed })
}

fn print_live(book: &LiveBook, depth: usize) {
    let level = |levels: &[[String; 2]], rank: usize| {
        levels.get(rank).map_or_else(|| "-".to_owned(), |[px, qty]| format!("{px} x {qty}"))
    };
    for rank in 0..depth.max(1) {
        let head = match rank {
            0 => format!("{}/{}", book.base, book.quote),
            _ => String::new(),
        };
        print(format_args!(
            "{head:<10} {:<9} {:>28} | {:<28} {}",
            if rank == 0 { book.venue } else { "" },
            level(&book.bids, rank),
            level(&book.asks, rank),
            if rank == 0 { format!("{} {} ms", book.state, book.age_ms) } else { String::new() },
        ));
    }
}

//! Other people's files into a journal: what is read of each format, and what is refused, with file, line and fix.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod data_support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use data_support::{Scratch, code, must, records, table, tandem};
use flate2::Compression;
use flate2::write::GzEncoder;
use tandem_core::record::{BookState, Kind, Record, flag};
use tandem_tools::data::hftbacktest::{Event, FIELDS, flag as of, kind};
use zerocopy::IntoBytes;

const BOOK: &str = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n";
const TRADES: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";
const QUOTES: &str =
    "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n";
/// 2026-01-01, µs.
const T: i64 = 1_767_225_600_000_000;

fn gzip(text: &str) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = match deflated {
        true => zip::CompressionMethod::Deflated,
        false => zip::CompressionMethod::Stored,
    };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        out.start_file(*name, options).unwrap();
        out.write_all(bytes).unwrap();
    }
    out.finish().unwrap().into_inner()
}

fn npy_of(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': ({shape}), }}");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    let length = (text.len() + 10 + 1).next_multiple_of(64) - 10;
    out.extend((length as u16).to_le_bytes());
    out.extend(text.bytes());
    out.resize(10 + length - 1, b' ');
    out.push(b'\n');
    out.extend(bytes);
    out
}

fn npy(events: &[Event]) -> Vec<u8> {
    let names = FIELDS.map(|(name, kind)| format!("('{name}', '{kind}')")).join(", ");
    npy_of(&format!("[{names}]"), &format!("{},", events.len()), events.as_bytes())
}

fn npz(events: &[Event]) -> Vec<u8> {
    zip(&[("data.npy", &npy(events))], true)
}

fn event(what: u64, at_us: i64, px: f64, qty: f64) -> Event {
    let both = of::EXCH | of::LOCAL;
    let (exch_ts, local_ts) = ((T + at_us) * 1_000, (T + at_us + 500) * 1_000);
    Event { ev: what | both, exch_ts, local_ts, px, qty, ..Event::default() }
}

/// A small book as events.
fn good_events() -> Vec<Event> {
    vec![
        event(kind::CLEAR, 0, f64::NAN, 0.0),
        event(kind::SNAPSHOT | of::BUY, 0, 100.5, 2.0),
        event(kind::SNAPSHOT | of::SELL, 0, 101.0, 3.0),
        event(kind::DEPTH | of::BUY, 1_000, 100.5, 1.25),
        event(kind::TRADE | of::SELL, 2_000, 100.5, 0.25),
    ]
}

/// Records of a kind that came from the files.
fn of_kind(records: &[Record], kind: Kind) -> Vec<Record> {
    let inputs = records.iter().filter(|record| !record.has(flag::OUTPUT));
    inputs.filter(|record| record.kind() == Some(kind)).copied().collect()
}

fn tardis_book(scratch: &Scratch) -> String {
    let text = format!(
        "{BOOK}\
         kraken,XBT/USD,{t0},{r0},false,bid,1.0,5\n\
         kraken,XBT/USD,{t0},{r1},true,bid,65000.1,1.5\n\
         kraken,XBT/USD,{t0},{r1},true,bid,65000,2\n\
         kraken,XBT/USD,{t0},{r1},true,ask,65001.2,0.75\n\
         kraken,XBT/USD,{t2},{r2},false,bid,65000.1,0\n\
         kraken,XBT/USD,{t2},{r2},false,ask,65001.1,0.00000001\n\
         kraken,XBT/USD,{r3},{r3},true,ask,65003,1\n\
         kraken,XBT/USD,{r3},{r3},true,bid,65002,1\n",
        t0 = T,
        r0 = T + 500,
        r1 = T + 1_000,
        t2 = T + 2_000,
        r2 = T + 3_000,
        r3 = T + 9_000,
    );
    scratch.write("kraken_incremental_book_L2.csv.gz", gzip(&text))
}

#[test]
fn tardis_csv_is_read_to_the_last_digit() {
    let scratch = Scratch::new("tardis");
    let book = tardis_book(&scratch);
    let trades = format!(
        "{TRADES}\
         kraken,XBT/USD,{t},{r},77,buy,65001.2,0.5\n\
         kraken,XBT/USD,{t},{r},,unknown,65001.2,0.25\n\
         kraken,XBT/USD,{t},{r},TX-1,sell,65000,0.125\n",
        t = T + 2_000,
        r = T + 3_000,
    );
    let trades = scratch.write("kraken_trades.csv", trades);
    let quotes = format!(
        "{QUOTES}\
         coinbase,BTC-USD,{T},{r},1,65010.01,65009.99,2\n\
         coinbase,BTC-USD,{t2},{r2},,,65009.98,3\n\
         coinbase,BTC-USD,{t2},{r3},4,65009.99,65009.5,1\n",
        r = T + 2_000,
        t2 = T + 2_500,
        r2 = T + 4_000,
        r3 = T + 5_000,
    );
    let quotes = scratch.write("coinbase_quotes.csv", quotes);
    let to = scratch.path("journal");
    let report = must(&["journal", "import", "--json", "--to", &to, &book, &trades, &quotes]);
    assert_eq!(report["files"][0]["before_snapshot"], 1, "{report}");
    assert_eq!(report["files"][0]["latency_min_ns"], 500_000, "{report}");
    let records = records(&to);
    let table = table(&records);
    let names: Vec<_> =
        table.setup.listings.iter().map(|l| (l.symbol.as_str(), l.base.as_str())).collect();
    assert_eq!(names, [("XBT/USD", "BTC"), ("BTC-USD", "BTC")]);
    let told: Vec<_> = of_kind(&records, Kind::Trade)
        .iter()
        .map(|r| (table.px(0, r.data[0]), table.qty(0, r.data[1]), r.data[2], r.update_id))
        .collect();
    let told: Vec<_> = told.iter().map(|(px, qty, side, id)| (&**px, &**qty, *side, *id)).collect();
    assert_eq!(told[1], ("65001.2", "0.5", 1, 77), "bought: the ask was taken");
    assert_eq!(told[0], ("65001.2", "0.25", -1, 0), "nobody knows which side");
    assert_eq!((told[2].0, told[2].2), ("65000", 0));
    assert!(1 << 63 <= told[2].3, "a text is no number of the venue");
    // Trades before the book of the same moment; the last record of a message is marked.
    let kinds: Vec<_> = records
        .iter()
        .filter(|r| r.recv_ts_ns == (T + 3_000) * 1_000 && !r.has(flag::OUTPUT))
        .map(|r| (r.kind().unwrap(), r.has(flag::LAST)))
        .collect();
    let (trade, level) = (Kind::Trade, Kind::Level);
    assert_eq!(kinds[1..], [(trade, false), (trade, true), (level, false), (level, true)]);
    // A snapshot is a whole book, and live; where the exchange told no time there is none.
    let last = records.iter().rev().find(|r| r.kind() == Some(Kind::BookState)).unwrap();
    assert_eq!((last.data[0], last.venue_ts_ns), (BookState::Live as i64, 0));
    assert!(last.has(flag::SNAPSHOT | flag::LAST));
    let books = data_support::books(&to);
    let level = |side, px: &str, qty: &str| (side, px.to_owned(), qty.to_owned());
    let kraken: Vec<_> = books.0["kraken:XBT/USD"].iter().map(|(_, book)| book.clone()).collect();
    assert_eq!(kraken.len(), 3);
    assert_eq!(
        kraken[1],
        [
            level('b', "65000", "2"),
            level('a', "65001.1", "0.00000001"),
            level('a', "65001.2", "0.75")
        ]
    );
    assert_eq!(kraken[2], [level('b', "65002", "1"), level('a', "65003", "1")]);
    // Of quotes alone the best is all that is known.
    let coinbase: Vec<_> = books.0["coinbase:BTC-USD"].iter().map(|(_, b)| b.clone()).collect();
    assert_eq!(coinbase[1], [level('b', "65009.98", "3")]);
    assert_eq!(coinbase[2], [level('b', "65009.5", "1"), level('a', "65009.99", "4")]);
    must(&["replay", "--verify", &to]);
}

#[test]
fn binance_csv_of_both_units_zipped_or_not() {
    let scratch = Scratch::new("binance");
    let (ms, us) = (T / 1_000, T);
    let ticker = format!(
        "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n\
         7,65000.10,1.5,65000.20,2,{ms},{}\n8,65000.00,1,65000.20,2,{},{}\n",
        ms + 1,
        ms + 5,
        ms + 6,
    );
    let ticker = scratch.write(
        "BTCUSDT-bookTicker-2026-01-01.zip",
        zip(&[("BTCUSDT-bookTicker-2026-01-01.csv", ticker.as_bytes())], true),
    );
    let aggregate = format!(
        "100,65000.20,0.5,1,2,{},False,True\n101,65000.1,0.5,3,3,{},True,True\n",
        us + 500,
        us + 900
    );
    let aggregate = scratch.write("BTCUSDT-aggTrades-2026-01-01.csv", aggregate);
    let plain = format!("id,price,qty,quote_qty,time,is_buyer_maker\n5,3000,1,3000,{ms},true\n");
    let plain = scratch.write("eth.csv", plain);
    let to = scratch.path("journal");
    let instrument = format!("binance:ETHUSDT={plain}");
    let words = [
        "journal",
        "import",
        "--json",
        "--to",
        &to,
        &ticker,
        &aggregate,
        "--instrument",
        &instrument,
    ];
    let report = must(&[&words[..], &["--assume-latency-us", "250"]].concat());
    let notes = report["notes"].to_string();
    assert!(notes.contains("has no receipts") && notes.contains("binance-csv (3)"), "{report}");
    let records = records(&to);
    let table = table(&records);
    let trades: Vec<_> = of_kind(&records, Kind::Trade)
        .iter()
        .map(|r| {
            (
                r.instrument,
                r.recv_ts_ns - T * 1_000,
                r.venue_ts_ns - T * 1_000,
                r.data[2],
                r.update_id,
            )
        })
        .collect();
    // A buyer who was the maker rested on the bid, and the bid was taken.
    assert_eq!(
        trades,
        [(1, 250_000, 0, 0, 5), (0, 750_000, 500_000, 1, 100), (0, 1_150_000, 900_000, 0, 101)]
    );
    let best: Vec<_> =
        of_kind(&records, Kind::Bbo).iter().map(|r| table.px(0, r.data[0])).collect();
    assert_eq!(best, ["65000.1", "65000"]);
    let books = data_support::books(&to);
    assert_eq!(books.0["binance:BTCUSDT"].last().unwrap().1.len(), 2, "one level a side");
    must(&["replay", "--verify", &to]);
}

#[test]
fn arrays_are_read_with_tick_and_lot() {
    let scratch = Scratch::new("arrays");
    let mut events = good_events();
    // Of a computed tick: a rounding off its decimal.
    events.push(event(kind::DEPTH | of::SELL, 3_000, 1_010.0 * 0.1, 0.1 + 0.2));
    // For the exchange alone: passed over.
    events.push(Event { ev: kind::DEPTH | of::SELL | of::EXCH, ..event(0, 4_000, 77.0, 1.0) });
    events.push(event(kind::BBO | of::SELL, 5_000, 101.5, 9.0));
    events.push(event(kind::CLEAR | of::BUY, 6_000, 100.5, 0.0));
    for (name, bytes) in [
        ("deflated.npz", npz(&events)),
        ("stored.npz", zip(&[("arr_0.npy", &npy(&events))], false)),
        ("bare.npy", npy(&events)),
    ] {
        let file = scratch.write(name, bytes);
        let to = scratch.path(&format!("{name}-journal"));
        let instrument = format!("binance:BTCUSDT={file}");
        let words = ["journal", "import", "--json", "--to", &to, "--instrument", &instrument];
        let steps = ["--tick", "binance:BTCUSDT=0.1", "--lot", "binance:BTCUSDT=0.01"];
        let report = must(&[&words[..], &steps].concat());
        assert_eq!(report["files"][0]["rounded"], 1, "{name}: {report}");
        assert_eq!(report["files"][0]["passed_over"], 1, "{name}: {report}");
        let books = data_support::books(&to);
        let told: Vec<_> = books.0["binance:BTCUSDT"].iter().map(|(_, book)| book).collect();
        let text: Vec<String> = told
            .iter()
            .map(|book| {
                book.iter()
                    .map(|(s, px, qty)| format!("{s}{px}x{qty}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            text,
            [
                "b100.5x2 a101x3",
                "b100.5x1.25 a101x3",
                "b100.5x1.25 a101x0.3",
                "b100.5x1.25 a101.5x9",
                "a101.5x9",
            ]
        );
        must(&["replay", "--verify", &to]);
    }
}

/// Rows of two files, out of order and told twice, come out in the order of their receipt.
#[test]
fn what_is_out_of_order_is_refused_or_put_in_order() {
    let scratch = Scratch::new("order");
    let row = |at: i64, px: i64| {
        format!("coinbase,BTC-USD,{},{},false,bid,{px},1\n", T + at, T + at + 500)
    };
    let snapshot = format!(
        "coinbase,BTC-USD,{T},{r},true,bid,100,1\ncoinbase,BTC-USD,{T},{r},true,ask,200,1\n",
        r = T + 500
    );
    let (a, b, c) = (row(1_000, 101), row(3_000, 103), row(2_000, 102));
    let text = format!("{BOOK}{snapshot}{a}{b}{c}{c}");
    let file = scratch.write("book.csv", text);
    let to = scratch.path("journal");
    let refused = tandem(&["journal", "import", "--to", &to, &file]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(code(&refused), 1);
    for wanted in
        ["line 6: received before the one above it", "line 7: told a second time", "1.000 ms"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let late =
        tandem(&["journal", "import", "--to", &to, &file, "--correct-clocks", "--reorder-ms", "0"]);
    let text = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(
        code(&late) == 1 && text.contains("line 6") && text.contains("--reorder-ms 2"),
        "{text}"
    );
    let report = must(&["journal", "import", "--json", "--to", &to, &file, "--correct-clocks"]);
    assert_eq!(report["files"][0]["repeated"]["count"], 1, "{report}");
    let prices: Vec<i64> = of_kind(&records(&to), Kind::Level).iter().map(|r| r.data[0]).collect();
    assert_eq!(prices, [100, 200, 101, 102, 103]);
    assert_eq!(scratch.names(), ["book.csv", "journal"]);
}

/// A bad input: its name, its files, options, and what the message must say besides the file's name.
struct Bad {
    name: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    words: Vec<String>,
    says: Vec<&'static str>,
}

fn bad(
    name: &'static str,
    file: &'static str,
    bytes: impl Into<Vec<u8>>,
    says: &[&'static str],
) -> Bad {
    Bad { name, files: vec![(file, bytes.into())], words: Vec::new(), says: says.to_vec() }
}

/// The same of an array, which must be told of which instrument it is.
fn bad_array(name: &'static str, bytes: Vec<u8>, says: &[&'static str]) -> Bad {
    let words = vec!["--instrument".to_owned(), "binance:BTCUSDT=FILE".to_owned()];
    Bad { words, ..bad(name, "x.npz", bytes, says) }
}

fn book_with(line: &str) -> String {
    let (t, r) = (T, T + 500);
    format!(
        "{BOOK}kraken,BTC/USD,{t},{r},true,bid,100.5,1\nkraken,BTC/USD,{t},{r},true,ask,101,1\n{line}\n"
    )
}

fn bad_inputs() -> Vec<Bad> {
    let (t, r) = (T + 1_000, T + 2_000);
    let line = |rest: &str| book_with(&format!("kraken,BTC/USD,{t},{r},{rest}"));
    let trade = |rest: &str| format!("{TRADES}kraken,BTC/USD,{t},{r},{rest}\n");
    let mut all = vec![
        bad("empty", "x.csv", "", &["is empty", "leave it out"]),
        bad("only a header", "x.csv", BOOK, &["has no rows", "leave it out"]),
        bad("something else", "x.csv", "a;b;c\n1;2;3\n", &["a;b;c", "--from"]),
        bad("binary", "x.csv", [0u8, 159, 146, 150, 10].repeat(9), &["begins with", "--from"]),
        bad(
            "derivative tickers",
            "x.csv",
            "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate\n",
            &["line 1", "the columns are", "incremental_book_L2"],
        ),
        bad("too few columns", "x.csv", line("false,bid,1"), &["line 4", "7 columns", "eight"]),
        bad("too many columns", "x.csv", line("false,bid,1,2,3"), &["line 4", "9 columns"]),
        bad("no boolean", "x.csv", line("maybe,bid,1,2"), &["line 4", "`maybe`", "true or false"]),
        bad("no side", "x.csv", line("false,buy,1,2"), &["line 4", "`buy`", "bid or ask"]),
        bad("a sign", "x.csv", line("false,bid,-1,2"), &["line 4", "`-1`", "without a sign"]),
        bad("price 0", "x.csv", line("false,bid,0.00,2"), &["line 4", "above 0"]),
        bad("no number", "x.csv", line("false,bid,1.2.3,2"), &["line 4", "`1.2.3`", "decimal"]),
        bad("no amount", "x.csv", line("false,bid,1,NaN"), &["line 4", "`NaN`", "decimal"]),
        bad(
            "too large",
            "x.csv",
            line("false,bid,99999999999999999999,1"),
            &["line 4", "18 digits"],
        ),
        bad(
            "seconds for microseconds",
            "x.csv",
            book_with("kraken,BTC/USD,1767225601,1767225602,false,bid,1,1"),
            &["line 4", "1767225602", "microseconds"],
        ),
        bad(
            "another exchange",
            "x.csv",
            book_with("bitmex,XBTUSD,1,1,false,bid,1,1"),
            &["line 4", "`bitmex`", "kraken"],
        ),
        bad(
            "two exchanges",
            "x.csv",
            book_with(&format!("coinbase,BTC-USD,{t},{r},true,bid,1,1")),
            &["line 4", "coinbase", "split the file"],
        ),
        bad(
            "assets that nobody can tell",
            "x.csv",
            format!("{TRADES}binance,ABCDEF,{t},{r},1,buy,1,1\n"),
            &["line 2", "`ABCDEF`", "--pair"],
        ),
        bad("a trade without a price", "x.csv", trade("1,buy,,2"), &["line 2", "price"]),
        bad("a trade of no side", "x.csv", trade("1,up,3,2"), &["line 2", "`up`", "buy, sell"]),
        bad(
            "received too early",
            "x.csv",
            book_with(&format!("kraken,BTC/USD,{r},{t},false,bid,100,1")),
            &["line 4", "before the venue's time", "--correct-clocks"],
        ),
        bad(
            "out of order",
            "x.csv",
            book_with(&format!("kraken,BTC/USD,{T},{},false,bid,100,1", T + 100)),
            &["line 4", "before the one above", "--reorder-ms"],
        ),
        bad(
            "told twice",
            "x.csv",
            trade("1,buy,3,2") + &trade("1,buy,3,2")[TRADES.len()..],
            &["line 3", "second time", "--correct-clocks"],
        ),
        bad(
            "no snapshot",
            "x.csv",
            format!("{BOOK}kraken,BTC/USD,{t},{r},false,bid,1,1\n"),
            &["line 2", "no snapshot", "--start-empty"],
        ),
        bad(
            "a line without end",
            "x.csv",
            BOOK.to_owned() + &"9".repeat(80_000),
            &["line 2", "longer than"],
        ),
        bad(
            "gzip cut short",
            "x.csv.gz",
            {
                let whole =
                    gzip(&(BOOK.to_owned() + &line("false,bid,1,2")[BOOK.len()..].repeat(500)));
                whole[..whole.len() / 2].to_vec()
            },
            &["line", "fetch or unpack it again"],
        ),
        bad(
            "gzip damaged",
            "x.csv.gz",
            {
                let mut whole = gzip(&line("false,bid,1,2"));
                let end = whole.len() - 6;
                whole[end] ^= 0x55;
                whole
            },
            &["cannot be read", "fetch or unpack it again"],
        ),
        bad(
            "a zip of nothing",
            "x.zip",
            zip(&[("readme.txt", b"x")], true),
            &["without an array", "--from"],
        ),
        bad(
            "a zip of two",
            "BTCUSDT-trades-1.zip",
            zip(&[("a.csv", b"1"), ("b.csv", b"2")], true),
            &["holds 2", "exactly one"],
        ),
        bad(
            "a zip cut short",
            "BTCUSDT-trades-1.zip",
            {
                let whole = zip(&[("a.csv", &[b'1'; 4_000])], false);
                whole[..2_000].to_vec()
            },
            &["no whole zip archive", "again"],
        ),
        bad(
            "a zip damaged",
            "BTCUSDT-trades-1.zip",
            {
                let text = format!("5,3000,1,3000,{T},true,true\n");
                let mut whole = zip(&[("a.csv", text.as_bytes())], false);
                let at = whole.windows(4).position(|w| w == b"3000").unwrap();
                whole[at] = b'4';
                whole
            },
            &["damaged", "fetch or unpack it again"],
        ),
        bad(
            "no unit of time",
            "BTCUSDT-trades-1.csv",
            "5,3000,1,3000,1767225600,true,true\n",
            &["line 1", "1767225600", "milliseconds or microseconds"],
        ),
        bad(
            "two units of time",
            "BTCUSDT-trades-1.csv",
            format!("5,3000,1,3000,{},true,true\n6,3000,1,3000,{T},true,true\n", T / 1_000),
            &["line 2", "counts microseconds", "one unit"],
        ),
        bad(
            "no maker",
            "BTCUSDT-aggTrades-1.csv",
            format!("5,3000,1,1,1,{T},yes,true\n"),
            &["line 1", "`yes`", "true or false"],
        ),
        bad(
            "columns of trades",
            "BTCUSDT-trades-1.csv",
            "5,3000,1\n",
            &["line 1", "3 columns", "6 or 7"],
        ),
        bad(
            "names of other columns",
            "BTCUSDT-bookTicker-1.csv",
            "open,high,low\n1,2,3\n",
            &["line 1", "the columns are", "update_id"],
        ),
        bad(
            "captures: no JSON",
            "x.jsonl",
            "{\"ts_recv_ns\":1,\n",
            &["line 1", "one JSON object a line"],
        ),
        bad(
            "captures: of nobody",
            "x.jsonl",
            "{\"venue\":\"bitstamp\",\"raw\":\"{}\"}\n",
            &["no messages of binance", "leave it out"],
        ),
        bad(
            "an array of nobody knows what",
            "x.npz",
            npz(&good_events()),
            &["of which instrument", "--instrument VENUE:SYMBOL"],
        ),
        bad_array("no rows", npz(&[]), &["has no rows"]),
        bad_array("an older array", npy_of("'<f8'", "3, 6", &[0; 144]), &["'<f8'", "migration2"]),
        bad_array(
            "an array of objects",
            npy_of("'|O'", "1,", b"\x80\x04K\x01."),
            &["'|O'", "convert"],
        ),
        bad_array(
            "a shape of nonsense",
            {
                let names = FIELDS.map(|(name, kind)| format!("('{name}', '{kind}')")).join(", ");
                npy_of(&format!("[{names}]"), "-1,", &[])
            },
            &["shape", "convert"],
        ),
        bad_array(
            "an array cut short",
            {
                let whole = npy(&good_events());
                whole[..whole.len() - 10].to_vec()
            },
            &["row 1", "array ends", "fetch or make it again"],
        ),
        bad_array("an array too long", [npy(&good_events()), vec![0]].concat(), &["more bytes"]),
        bad_array(
            "no header",
            b"\x93NUMPY\x01\x00\xff".to_vec(),
            &["header", "fetch or make it again"],
        ),
    ];
    let with = |at: usize, change: fn(&mut Event)| {
        let mut events = good_events();
        change(&mut events[at]);
        npz(&events)
    };
    all.extend([
        bad_array("no kind", with(3, |e| e.ev = 99 | of::LOCAL), &["row 4", "kind 99"]),
        bad_array(
            "single orders",
            with(3, |e| e.ev = 10 | of::LOCAL | of::BUY),
            &["row 4", "kind 10"],
        ),
        bad_array(
            "for nobody",
            with(3, |e| e.ev = kind::DEPTH | of::BUY),
            &["row 4", "neither EXCH"],
        ),
        bad_array(
            "no side",
            with(3, |e| e.ev = kind::DEPTH | of::LOCAL),
            &["row 4", "neither BUY"],
        ),
        bad_array("px is no number", with(3, |e| e.px = f64::NAN), &["row 4", "NaN", "off"]),
        bad_array(
            "px off any tick",
            with(3, |e| e.px = 100.123_456_789_012_3),
            &["row 4", "12 decimal"],
        ),
        bad_array("qty negative", with(3, |e| e.qty = -1.0), &["row 4", "qty is -1"]),
        bad_array("px 0", with(3, |e| e.px = 0.0), &["row 4", "px is 0"]),
        bad_array("milliseconds", with(3, |e| e.local_ts /= 1_000_000), &["row 4", "nanoseconds"]),
        bad_array(
            "received too early",
            with(3, |e| e.exch_ts += 600_000_000),
            &["row 4", "clocks"],
        ),
    ]);
    let option = |name: &'static str, words: &[&str], says: &[&'static str]| {
        let mut all = bad(name, "x.csv", line("false,bid,100.1,2"), says);
        all.words = words.iter().map(|word| (*word).to_owned()).collect();
        all
    };
    all.extend([
        option("off the tick", &["--tick", "kraken:BTC/USD=0.5"], &["line 4", "100.1", "tick 0.5"]),
        option("off the lot", &["--lot", "kraken:BTC/USD=1.5"], &["line 2", "lot 1.5", "--lot"]),
    ]);
    all
}

#[test]
fn bad_inputs_are_named_with_file_line_and_fix() {
    let all = bad_inputs();
    assert!(30 <= all.len(), "{}", all.len());
    for (n, bad) in all.iter().enumerate() {
        let scratch = Scratch::new(&format!("bad-{n}"));
        let mut words = vec!["journal".to_owned(), "import".to_owned()];
        words.extend(["--to".to_owned(), scratch.path("journal")]);
        let files: Vec<String> =
            bad.files.iter().map(|(name, bytes)| scratch.write(name, bytes)).collect();
        let is_named = bad.words.iter().any(|word| word.ends_with("=FILE"));
        words.extend(bad.words.iter().map(|word| word.replace("FILE", &files[0])));
        if !is_named {
            words.extend(files.iter().cloned());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = tandem(&words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 1, "{}: {text}", bad.name);
        for wanted in bad.says.iter().copied().chain([bad.files[0].0]) {
            assert!(text.contains(wanted), "{}: `{wanted}` is not said: {text}", bad.name);
        }
        assert!(text.contains("; "), "{}: no fix is told: {text}", bad.name);
        let left: Vec<String> = bad.files.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(scratch.names(), left, "{}: something was left behind", bad.name);
    }
    println!(
        "figure data: {} bad inputs refused with file, line and fix; nothing left behind",
        all.len()
    );
}

#[test]
fn wrong_options_are_usage() {
    let scratch = Scratch::new("options");
    let book = tardis_book(&scratch);
    let to = scratch.path("journal");
    let taken = scratch.path("taken");
    std::fs::create_dir_all(&taken).unwrap();
    scratch.write("taken/x", "x");
    let base = ["journal", "import", "--to"];
    let capture = scratch.write("x.jsonl", "{\"venue\":\"kraken\",\"raw\":\"{}\"}\n");
    for (words, says) in [
        (vec![taken.as_str(), &book], "is there already"),
        (vec![&to, &book, &book], "named twice"),
        (vec![&to, "--instrument", "kraken=x"], "VENUE:SYMBOL=FILE"),
        (vec![&to, "--instrument", "ftx:BTC=x"], "VENUE:SYMBOL=FILE"),
        (vec![&to, &book, "--tick", "kraken:XBT/USD=zero"], "above 0"),
        (vec![&to, &book, "--tick", "kraken:ETH/USD=0.1"], "no file has this instrument"),
        (vec![&to, &book, "--pair", "kraken:XBT/USD=BTC"], "BASE/QUOTE"),
        (vec![&to, &book, "--reorder-ms", "5"], "--correct-clocks"),
        (vec![&to, &book, "--from", "nonsense"], "possible values"),
        (vec![&to, &book, &capture], "import it apart"),
        (vec![&to], "required"),
    ] {
        let output = tandem(&[&base[..], &words].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 2, "{words:?}: {text}");
        assert!(text.contains(says), "{words:?}: {text}");
        assert!(!Path::new(&to).exists(), "{words:?}");
    }
    let missing = scratch.path("not-there.csv");
    let output = tandem(&["journal", "import", "--to", &to, &missing]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 1 && text.contains("name a file that is there"), "{text}");
}

/// A killed import leaves no journal, and what it leaves is gone after the next.
#[test]
fn a_killed_import_leaves_nothing_under_the_name() {
    let scratch = Scratch::new("killed");
    let mut text = BOOK.to_owned();
    let (t, r) = (T, T + 500);
    text +=
        &format!("kraken,BTC/USD,{t},{r},true,bid,100,1\nkraken,BTC/USD,{t},{r},true,ask,300,1\n");
    for n in 1..400_000i64 {
        let (t, px) = (T + n * 100, 101 + n % 100);
        text += &format!("kraken,BTC/USD,{t},{},false,bid,{px},{}\n", t + 500, n % 3);
    }
    let file = scratch.write("book.csv", text);
    let to = scratch.path("journal");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["journal", "import", "--to", &to, &file])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let inside = scratch.0.join(".journal.making/made");
    let until = Instant::now() + Duration::from_secs(60);
    while !inside.join("control").exists() {
        assert!(Instant::now() < until, "it writes");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scratch.names(), [".journal.making", "book.csv"]);
    must(&["journal", "import", "--json", "--to", &to, &file]);
    assert_eq!(scratch.names(), ["book.csv", "journal"]);
}

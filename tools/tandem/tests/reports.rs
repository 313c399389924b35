//! Reports and exports of small journals that were worked out by hand, and of hostile ones.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;
use tandem_core::account::{Balance, BalanceSource};
use tandem_core::instrument::AssetId;
use tandem_core::ledger::{Pnl, Posting, Tag};
use tandem_core::order::{
    Action, DoneStatus, FillTerms, NewOrder, OrderKey, Purpose, Report, Tif, UnknownCause,
};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::round::{Round, RoundLeg, RoundReport, Stage};
use tandem_core::units::{Amount, Px, Qty, parse_decimal};
use tandem_core::value::{quote_of, shift_of};
use tandem_drain::run::RunInfo;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalSpec, JournalWriter, tsc};
use tandem_tools::config::Config;
use tandem_tools::reports::exports::{self, FillTable, Target};
use tandem_tools::reports::fills::{Fills, Method, OpeningCosts};
use tandem_tools::reports::period::{Period, read_day};
use tandem_tools::reports::sheet::{Format, SheetError};
use tandem_tools::reports::{Exact, daily, page};
use tandem_tools::table::{self, ListingText, Setup};

const SAMPLE: &str = include_str!("../../../deploy/tandem.toml");
/// 2026-11-30T00:00:00Z.
const MIDNIGHT: i64 = 1_795_996_800_000_000_000;
const SECOND: i64 = 1_000_000_000;
const RUN: u32 = 7;
/// A symbol that no honest venue has.
const HOSTILE: &str = "=cmd()\"<script>";

const COINBASE_BTC: u16 = 0;
const COINBASE_USDT: u16 = 1;
const BINANCE_BTC: u16 = 2;
const KRAKEN_BTC: u16 = 3;

fn setup() -> Setup {
    let config = Config::parse(SAMPLE, Path::new("tandem.toml")).unwrap();
    let listing = |venue: &str, symbol: &str, base: &str, quote: &str, tick: &str| ListingText {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        feed_symbol: symbol.to_owned(),
        rest_symbol: symbol.to_owned(),
        base: base.to_owned(),
        quote: quote.to_owned(),
        tick: tick.to_owned(),
        lot: "0.00000001".to_owned(),
        qty_min: String::new(),
        qty_max: String::new(),
        notional_min: String::new(),
        price_precision: None,
        qty_precision: None,
        asset_precision: None,
        status: TradingStatus::Trading as u8,
        taker_fee_ppm: 1_000,
        fee_in: "quote".to_owned(),
        notional_max: "10000".to_owned(),
    };
    Setup {
        mode: "live".to_owned(),
        listings: vec![
            listing("coinbase", "BTC-USD", "BTC", "USD", "0.01"),
            listing("coinbase", "USDT-USD", "USDT", "USD", "0.0001"),
            listing("binance", "BTCUSDT", "BTC", "USDT", "0.01"),
            listing("kraken", HOSTILE, "BTC", "USD", "0.1"),
        ],
        detection: table::detection(&config),
        limits: config.limits,
        run: RUN,
    }
}

/// A journal in the making, with a ledger that books as the engine's does.
struct Made {
    run: RunInfo,
    records: Vec<Record>,
    now_ns: i64,
    balances: BTreeMap<(Venue, u16), i64>,
}

impl Made {
    fn new() -> Made {
        let setup = setup();
        let text = serde_json::to_string(&setup).unwrap();
        let run = table::run_info(&text).unwrap();
        let records = table::to_records(&setup).unwrap();
        Made { run, records, now_ns: MIDNIGHT, balances: BTreeMap::new() }
    }

    fn asset(&self, name: &str) -> u16 {
        self.run.universe.assets.iter().position(|asset| asset.name == name).unwrap() as u16
    }

    fn quanta(&self, asset: &str, text: &str) -> i64 {
        let exponent = self.run.asset_exponent(AssetId(self.asset(asset)));
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        sign * parse_decimal(digits.as_bytes(), exponent).unwrap()
    }

    fn px(&self, instrument: u16, text: &str) -> Px {
        let exponent = self.run.instruments[usize::from(instrument)].px_exponent;
        Px(parse_decimal(text.as_bytes(), exponent).unwrap())
    }

    fn at(&mut self, seconds: i64) {
        self.now_ns = MIDNIGHT + seconds * SECOND;
    }

    fn push(&mut self, record: Record) {
        self.records.push(Record { engine_ts_ns: self.now_ns, ..record });
    }

    fn post(&mut self, venue: Venue, asset: u16, delta: i64, tag: Tag, key: OrderKey) {
        let balance = self.balances.entry((venue, asset)).or_default();
        *balance += delta;
        let posting = Posting {
            venue: Some(venue),
            asset: AssetId(asset),
            delta: Amount(delta),
            after: Amount(*balance),
            tag,
            run: RUN,
            key,
        };
        let now = Record { engine_ts_ns: self.now_ns, ..Record::default() };
        self.push(posting.record(&now));
    }

    fn open(&mut self, venue: Venue, asset: &str, text: &str) {
        let (id, quanta) = (self.asset(asset), self.quanta(asset, text));
        self.post(venue, id, quanta, Tag::Opening, OrderKey(0));
    }

    fn book(&mut self, instrument: u16, bid: &str, ask: &str) {
        let venue = self.run.instruments[usize::from(instrument)].venue as u8;
        let live = [BookState::Live as i64, 0, 0, 0];
        let data = [self.px(instrument, bid).0, 1, self.px(instrument, ask).0, 1];
        for (kind, data) in [(Kind::BookState, live), (Kind::Bbo, data)] {
            self.push(Record { flags: flag::LAST, ..Record::new(kind, venue, instrument, data) });
        }
    }

    fn order(&mut self, instrument: u16, action: Action, key: OrderKey, purpose: Purpose) {
        let venue = self.run.instruments[usize::from(instrument)].venue;
        let new = NewOrder {
            run: RUN,
            key,
            venue,
            instrument,
            action,
            px: Px(1),
            qty: Qty(1),
            tif: Tif::Ioc,
            purpose,
            expires_ns: 0,
            cause: 0,
            level_epoch: 0,
        };
        let now = Record { engine_ts_ns: self.now_ns, ..Record::default() };
        self.push(new.record(&now));
    }

    fn entries(&self, instrument: u16, action: Action, is: &FillTerms) -> [(u16, i64, Tag); 3] {
        let rules = &self.run.universe.instruments[usize::from(instrument)];
        let buys = action == Action::Buy;
        let shift = shift_of(&self.run.universe, instrument);
        let quote = quote_of(is.px, is.qty.0, shift, buys) as i64;
        let sign = if buys { 1 } else { -1 };
        [
            (rules.base.0, is.qty.0 * sign, Tag::Trade),
            (rules.quote.0, -quote * sign, Tag::Trade),
            (is.asset, -is.fee.0, Tag::Fee),
        ]
    }

    fn terms(
        &self,
        instrument: u16,
        (px, qty): (&str, &str),
        (fee, of): (&str, &str),
    ) -> FillTerms {
        FillTerms {
            px: self.px(instrument, px),
            qty: Qty(self.quanta(
                self.run.asset(self.run.universe.instruments[usize::from(instrument)].base),
                qty,
            )),
            fee: Amount(self.quanta(of, fee)),
            asset: self.asset(of),
        }
    }

    fn fill(&mut self, instrument: u16, action: Action, key: OrderKey, trade: u64, is: FillTerms) {
        let venue = self.run.instruments[usize::from(instrument)].venue;
        let FillTerms { px, qty, fee, asset } = is;
        let report = Report::Fill { px, qty, fee, asset, trade_id: trade };
        self.push(report.record(venue, instrument, RUN, key));
        for (asset, delta, tag) in self.entries(instrument, action, &is) {
            if delta != 0 {
                self.post(venue, asset, delta, tag, key);
            }
        }
    }

    fn bust(
        &mut self,
        (instrument, action): (u16, Action),
        key: OrderKey,
        trade_id: u64,
        was: FillTerms,
        instead: Option<FillTerms>,
    ) {
        let venue = self.run.instruments[usize::from(instrument)].venue;
        self.push(Report::Bust { trade_id, instead }.record(venue, instrument, RUN, key));
        for (is, sign) in [(Some(was), -1), (instead, 1)] {
            let Some(is) = is else { continue };
            for (asset, delta, tag) in self.entries(instrument, action, &is) {
                if delta != 0 {
                    let tag = if sign < 0 { Tag::Bust } else { tag };
                    self.post(venue, asset, delta * sign, tag, key);
                }
            }
        }
    }

    /// Everything through the count of fills; the rows, and what is left.
    fn fills(&self, method: Method) -> (Fills, Vec<BTreeMap<String, String>>) {
        let dir = Folder::new("fills");
        let path = dir.0.join("fills.csv");
        let journal = self.write(&dir.0.join("journal"));
        let target = Target { path: &path, format: Format::Csv, force: false, period: Period::ALL };
        let exported =
            exports::fills(journal.as_path(), target, FillTable::Fills, method.clone()).unwrap();
        assert!(exported.problems.is_empty(), "{exported:?}");
        let rows = csv(&fs::read_to_string(&path).unwrap());
        let mut all = Fills::new(method);
        exports::read_fills(journal.as_path(), &mut all, |_, _| Ok(())).unwrap();
        (all, rows)
    }

    fn write(&self, place: &Path) -> PathBuf {
        let spec = JournalSpec {
            segment_bytes: 1 << 20,
            segments_max: 16,
            ..JournalSpec::new(record_schema())
        };
        let mut writer = JournalWriter::create(place, &spec).unwrap();
        for record in &self.records {
            while writer.append(record).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        writer.beat(tsc());
        place.to_owned()
    }
}

/// A folder in shared memory that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        use std::sync::atomic::{AtomicU64, Ordering};
        static MADE: AtomicU64 = AtomicU64::new(0);
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("/dev/shm/tandem-reports-{test}-{}-{n}", std::process::id());
        fs::create_dir_all(&name).unwrap();
        Folder(PathBuf::from(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// RFC 4180, read by its grammar: rows by column.
fn csv(text: &str) -> Vec<BTreeMap<String, String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                cell.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    assert!(row.is_empty() && !quoted, "the last line ends");
    let head = rows.remove(0);
    rows.into_iter()
        .map(|row: Vec<String>| {
            assert_eq!(row.len(), head.len());
            head.iter().cloned().zip(row).collect()
        })
        .collect()
}

const BUY_ONE: (OrderKey, u64) = (OrderKey::new(1, 0), 101);
const SELL_ONE: (OrderKey, u64) = (OrderKey::new(1, 1), 102);
const BUY_TWO: (OrderKey, u64) = (OrderKey::new(2, 0), 103);

/// The example of `golden_fills`.
fn example() -> Made {
    let mut made = Made::new();
    made.at(1);
    made.open(Venue::Coinbase, "USD", "10000");
    made.open(Venue::Coinbase, "BTC", "1");
    made.open(Venue::Binance, "USDT", "20000");
    made.at(2);
    made.book(COINBASE_BTC, "50000", "50010");
    made.book(COINBASE_USDT, "0.998", "1");
    made.at(10);
    made.order(COINBASE_BTC, Action::Buy, BUY_ONE.0, Purpose::Entry);
    let is = made.terms(COINBASE_BTC, ("50010", "0.1"), ("5.001", "USD"));
    made.fill(COINBASE_BTC, Action::Buy, BUY_ONE.0, BUY_ONE.1, is);
    made.at(11);
    made.order(BINANCE_BTC, Action::Sell, SELL_ONE.0, Purpose::Entry);
    let sold = made.terms(BINANCE_BTC, ("50200", "0.1"), ("5.02", "USDT"));
    made.fill(BINANCE_BTC, Action::Sell, SELL_ONE.0, SELL_ONE.1, sold);
    made.at(20);
    made.book(COINBASE_USDT, "0.999", "1.001");
    made.order(BINANCE_BTC, Action::Buy, BUY_TWO.0, Purpose::Hedge);
    let is = made.terms(BINANCE_BTC, ("50000", "0.05"), ("0.00005", "BTC"));
    made.fill(BINANCE_BTC, Action::Buy, BUY_TWO.0, BUY_TWO.1, is);
    made.at(30);
    made.bust((BINANCE_BTC, Action::Sell), SELL_ONE.0, SELL_ONE.1, sold, None);
    made
}

/// Worked out by hand, in USD. Opening: 1 BTC at (50000 + 50010) / 2, 20000 USDT at (0.998 + 1) / 2.
/// Buy 0.1 BTC: 5001 and a fee of 5.001. Sell 0.1 BTC for 5020 USDT at 0.999 = 5014.98 less the fee of
/// 5.02 × 0.999 = 5.01498; it had cost 0.1 of the opening lot. Buy 0.05 BTC with 2500 USDT at 1: they had cost
/// 0.999 each; the fee is 0.00005 BTC at 50005. Then the sale never was.
#[test]
fn golden_fills() {
    let (all, rows) = example().fills(Method::default());
    let columns = [
        "entry",
        "quantity",
        "value",
        "worth",
        "proceeds",
        "cost_basis",
        "gain",
        "acquired_cost",
        "fee",
        "fee_worth",
        "fee_cost_basis",
        "fee_gain",
    ];
    let told: Vec<String> =
        rows.iter().map(|row| columns.map(|column| row[column].as_str()).join(" | ")).collect();
    let wanted = [
        "opening |  |  |  |  |  |  | 10000 |  |  |  | ",
        "opening |  |  | 50005 |  |  |  | 50005 |  |  |  | ",
        "opening |  |  | 19980 |  |  |  | 19980 |  |  |  | ",
        "fill | 0.1 | 5001 | 5001 |  |  |  | 5006.001 | 5.001 | 5.001 |  | ",
        "fill | 0.1 | 5020 | 5014.98 | 5009.96502 | 5000.5 | 9.46502 | 5014.98 | 5.02 | 5.01498 | 5.01498 | 0",
        "fill | 0.05 | 2500 | 2500 | 2500 | 2497.5 | 2.5 | 2502.50025 | 0.00005 | 2.50025 | 2.50025 | 0",
        "bust | -0.1 | -5020 | -5014.98 | -5009.96502 | -5000.5 | -9.46502 | -5014.98 | -5.02 | -5.01498 | \
         -5.01498 | 0",
    ];
    assert_eq!(told, wanted);
    let source = &rows[4]["worth_source"];
    assert_eq!(source, "coinbase USDT-USD mid 0.999 of 2026-11-30T00:00:02.000000000Z");
    assert_eq!(rows[4]["acquired_first"], "2026-11-30T00:00:01.000000000Z");
    // What is left: 1 + 0.1 + 0.05 − 0.00005 BTC, 20000 − 2500 USDT.
    let left = |asset: &str| -> Exact {
        let lots = all.lots().left().filter(|(pool, _)| pool.asset == asset);
        lots.map(|(_, lot)| lot.qty).sum()
    };
    assert_eq!(
        (left("BTC").to_string(), left("USDT").to_string()),
        ("1.14995".into(), "17500".into())
    );
    assert_eq!(all.check.differing().count(), 0);
    assert!(all.check.flows.keys().any(|(_, _, account)| *account == "bust"));
}

#[test]
fn opening_costs_are_the_operators_word() {
    let dir = Folder::new("opening");
    let file = dir.0.join("opening.csv");
    let head = "asset,venue,quantity,cost,acquired_at\n";
    fs::write(
        &file,
        format!("{head}BTC,coinbase,0.05,1000,2020-01-01T00:00:00Z\nBTC,coinbase,0.9,36000,2021-01-01T00:00:00Z\n"),
    )
    .unwrap();
    let opening = OpeningCosts::read(&file).unwrap();
    let (_, rows) = example().fills(Method { lots_by_venue: false, opening });
    let sale = rows.iter().find(|row| row["side"] == "sell").unwrap();
    // 0.05 for 1000, and 0.05 of 0.9 that cost 36000.
    assert_eq!((sale["cost_basis"].as_str(), sale["lots"].as_str()), ("3000", "2"));
    assert_eq!((sale["held_days_max"].as_str(), sale["held_days_min"].as_str()), ("2525", "2159"));
    // The rest of the balance is worth what a book says.
    let rest =
        rows.iter().filter(|row| row["entry"] == "opening").map(|row| row["acquired_cost"].clone());
    assert!(rest.into_iter().any(|cost| cost == "2500.25"), "0.05 at 50005");
    for (line, wanted) in [
        ("BTC,coinbase,1,2\n", "4 fields"),
        ("BTC,mars,1,2,2020-01-01T00:00:00Z\n", "no venue"),
        ("BTC,coinbase,-1,2,2020-01-01T00:00:00Z\n", "no amount"),
        ("BTC,coinbase,1,2,yesterday\n", "no time"),
    ] {
        fs::write(&file, format!("{head}{line}")).unwrap();
        let error = OpeningCosts::read(&file).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains(wanted), "{error}");
    }
}

#[test]
fn lots_of_a_venue_stay_its_own() {
    let dir = Folder::new("venue");
    let journal = example().write(&dir.0.join("journal"));
    let path = dir.0.join("fills.csv");
    let target = Target { path: &path, format: Format::Csv, force: false, period: Period::ALL };
    let method = Method { lots_by_venue: true, ..Method::default() };
    let exported =
        exports::fills(journal.as_path(), target, FillTable::Fills, method.clone()).unwrap();
    // Binance had no BTC to sell: no lot covers it, and that is said.
    assert!(exported.problems.iter().any(|problem| problem.contains("no lot covers")));
    let rows = csv(&fs::read_to_string(&path).unwrap());
    let sale = rows.iter().find(|row| row["side"] == "sell").unwrap();
    assert_eq!((sale["cost_basis"].as_str(), sale["uncovered_quantity"].as_str()), ("0", "0.1"));
    let again = exports::fills(journal.as_path(), target, FillTable::Fills, method);
    assert!(matches!(
        again,
        Err(tandem_tools::reports::fills::FillsError::Sheet(SheetError::Exists(_)))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is traded: the ledger's flows to the last unit, gains are proceeds less cost, and lots in are lots
    /// out and what is left.
    #[test]
    fn fills_are_conserved(
        acts in proptest::collection::vec(
            (0u16..4, any::<bool>(), 2i64..2_000_000, 1i64..300, 0i64..5_000, 0u8..10), 1..60),
    ) {
        let mut made = Made::new();
        made.at(1);
        for (venue, asset, amount) in [
            (Venue::Coinbase, "BTC", "5"),
            (Venue::Binance, "USDT", "5000000"),
            (Venue::Coinbase, "USD", "9000000"),
        ] {
            made.open(venue, asset, amount);
        }
        made.book(COINBASE_BTC, "50000", "50010");
        made.book(COINBASE_USDT, "0.9981", "1.0002");
        let mut told: Vec<(u16, Action, OrderKey, u64, FillTerms)> = Vec::new();
        for (n, (instrument, buys, qty, px, fee, then)) in acts.into_iter().enumerate() {
            made.at(2 + n as i64);
            let action = if buys { Action::Buy } else { Action::Sell };
            let (key, trade) = (OrderKey::new(1 + n as u64, 0), 1 + n as u64);
            let quote = made.run.universe.instruments[usize::from(instrument)].quote.0;
            let base_px = if instrument == COINBASE_USDT { "1" } else { "50000.5" };
            let px = Px(made.px(instrument, base_px).0 + px);
            let is = FillTerms { px, qty: Qty(qty), fee: Amount(fee), asset: quote };
            made.order(instrument, action, key, Purpose::Entry);
            made.fill(instrument, action, key, trade, is);
            // Told twice it is true once.
            if then == 0 {
                let venue = made.run.instruments[usize::from(instrument)].venue;
                let FillTerms { px, qty, fee, asset } = is;
                let again = Report::Fill { px, qty, fee, asset, trade_id: trade };
                made.push(again.record(venue, instrument, RUN, key));
            }
            told.push((instrument, action, key, trade, is));
            if then == 1 {
                let (instrument, action, key, trade, was) = told.remove(told.len() / 2);
                let less = Qty((was.qty.0 / 2).max(1));
                let instead = (n % 2 == 0).then_some(FillTerms { qty: less, ..was });
                made.bust((instrument, action), key, trade, was, instead);
            }
        }
        let dir = Folder::new("property");
        let journal = made.write(&dir.0.join("journal"));
        let (mut all, mut gains) = (Fills::new(Method::default()), Vec::new());
        let columns: Vec<String> = tandem_tools::reports::fills::columns()
            .into_iter()
            .map(|column| column.name)
            .collect();
        let at = |name: &str| columns.iter().position(|column| column == name).unwrap();
        let mut sums: BTreeMap<String, Exact> = BTreeMap::new();
        exports::read_fills(journal.as_path(), &mut all, |entry, numeraire| {
            let cells = entry.cells(numeraire);
            let amount = |name: &str| match &cells[at(name)] {
                tandem_tools::reports::sheet::Cell::Amount(amount) => *amount,
                _ => Exact::ZERO,
            };
            let is_bust = cells[at("entry")] == tandem_tools::reports::sheet::Cell::text("bust");
            if !is_bust {
                gains.push((amount("gain"), amount("proceeds").minus(amount("cost_basis"))));
            }
            let mut add = |asset: &str, qty: Exact| {
                if let tandem_tools::reports::sheet::Cell::Text(asset) = &cells[at(asset)] {
                    let sum = sums.entry(asset.clone()).or_default();
                    *sum = sum.plus(qty);
                }
            };
            add("acquired_asset", amount("acquired_quantity"));
            add("disposed_asset", amount("disposed_quantity").negated());
            let fee = amount("fee");
            add("fee_asset", fee.negated());
            Ok(())
        })
        .unwrap();
        prop_assert_eq!(all.check.differing().count(), 0, "{:?}", all.check);
        for (gain, difference) in gains {
            prop_assert_eq!(gain, difference);
        }
        // Everything was covered by the opening lots.
        for asset in ["BTC", "USDT"] {
            let left = all.lots().left().filter(|(pool, _)| pool.asset == asset);
            let left: Exact = left.map(|(_, lot)| lot.qty).sum();
            let id = made.asset(asset);
            let exponent = made.run.asset_exponent(AssetId(id));
            let balances = made.balances.iter().filter(|((_, of), _)| *of == id);
            let ledger: Exact = balances.map(|(_, quanta)| Exact::quanta(*quanta, exponent)).sum();
            prop_assert_eq!(left, ledger, "{}", asset);
            prop_assert_eq!(sums.get(asset).copied().unwrap_or_default(), ledger, "{}", asset);
        }
    }
}

/// The example with a round, an unknown order, a balance, a level and a hostile symbol.
fn day() -> Made {
    let mut made = example();
    made.at(40);
    let key = OrderKey::new(3, 0);
    made.order(KRAKEN_BTC, Action::Buy, key, Purpose::Entry);
    made.push(Report::Unknown { cause: UnknownCause::Timeout }.record(
        Venue::Kraken,
        KRAKEN_BTC,
        RUN,
        key,
    ));
    made.at(42);
    let done = Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) };
    made.push(done.record(Venue::Kraken, KRAKEN_BTC, RUN, key));
    let usd = made.asset("USD");
    let mut round = Round::new(2, AssetId(usd), made.now_ns);
    round.expected = Amount(made.quanta("USD", "5"));
    round.push_leg(RoundLeg {
        venue: Venue::Kraken as u8,
        instrument: KRAKEN_BTC,
        action: Action::Buy,
        px: Px(1),
        qty: Qty(10),
        filled: Qty(4),
    });
    round.stage = Stage::Settled;
    let worth = Amount(made.quanta("USD", "-1.25"));
    let mut report = RoundReport::new(&round, RUN, worth, made.now_ns);
    report.realised = worth;
    let now = Record { engine_ts_ns: made.now_ns, ..Record::default() };
    let mut group = Vec::new();
    report.encode(&now, |record| group.push(record));
    group.into_iter().for_each(|record| made.push(record));
    let realised = made.quanta("USD", "-1.25");
    let pnl =
        Pnl { day: MIDNIGHT / 86_400 / SECOND, realised, marked: realised, peak: 0, rounds: 1 };
    made.push(pnl.record(AssetId(usd), &now));
    let btc = made.asset("BTC");
    let total = Amount(made.balances[&(Venue::Coinbase, btc)]);
    let source = BalanceSource::Snapshot;
    let told = Balance { venue: Venue::Coinbase, asset: btc, total, held: Amount(0), source };
    made.push(told.record(true));
    let usdt = made.asset("USDT");
    let total = Amount(made.balances[&(Venue::Binance, usdt)] - 1);
    let told = Balance { venue: Venue::Binance, asset: usdt, total, held: Amount(0), source };
    made.push(told.record(true));
    made
}

#[test]
fn a_day_is_told_and_escaped() {
    let dir = Folder::new("day");
    let journal = day().write(&dir.0.join("journal"));
    let day = read_day("2026-11-30").unwrap();
    assert_eq!(daily::last_day(journal.as_path()).unwrap(), Some(day));
    let report = daily::read(journal.as_path(), day).unwrap();
    let pnl = report.pnl.as_ref().unwrap();
    assert_eq!((pnl.realised.to_string(), pnl.asset.as_str()), ("-1.25".into(), "USD"));
    let flow = |venue: &str, asset: &str, account: &str| {
        let of =
            |f: &&daily::FlowLine| (&*f.venue, &*f.asset, &*f.account) == (venue, asset, account);
        report.flows.iter().find(of).map(|f| f.amount.to_string()).unwrap_or_default()
    };
    assert_eq!(flow("coinbase", "USD", "fee"), "-5.001");
    assert_eq!(flow("binance", "USDT", "trade"), "2520", "5020 less 2500");
    assert_eq!(flow("binance", "USDT", "bust"), "-5014.98", "5020 back, 5.02 of it a fee");
    assert_eq!(report.unknown.len(), 1);
    assert_eq!(report.unknown[0].lasted_ms, Some(2_000));
    assert!(!report.unknown[0].order.is_empty());
    assert!(report.incidents.iter().any(|i| i.what == "a fill was taken back"), "{report:?}");
    assert_eq!(report.proof.broken, 0);
    assert!(0 < report.proof.postings);
    let differing: Vec<_> =
        report.balances.iter().filter(|b| b.difference != Some(Exact::ZERO)).collect();
    assert_eq!(differing.len(), 1, "{:?}", report.balances);
    assert_eq!((differing[0].venue.as_str(), differing[0].words_equal), ("binance", 0));
    // Round 2 had a hedge that was filled.
    assert_eq!(report.one_leg_count, 1);
    assert_eq!(report.one_leg[0].outcome, "hedged");
    assert_eq!(report.one_leg[0].cost.to_string(), "6.25");

    let shown = page::of_day(&report);
    let (text, html) = (page::text(&shown), page::html(&shown));
    for word in ["Realised -1.25 USD", "6.25", "2000 ms", HOSTILE, "a fill was taken back"] {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
    for word in ["Realised -1.25 USD", "2000 ms", "=cmd()&quot;&lt;script&gt;", "<caption>", "dark"]
    {
        assert!(html.contains(word), "`{word}` is not in the page");
    }
    assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));
    for tag in ["table", "section", "tr", "td", "th", "div", "p", "main"] {
        let opened =
            html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    let other = daily::read(journal.as_path(), day - 1).unwrap();
    assert!(other.is_empty());
    assert!(page::text(&page::of_day(&other)).contains("No record of this day"));
}

fn tandem(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem")).args(words).output().unwrap()
}

#[test]
fn every_export_in_every_form() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let dir = Folder::new("exports");
    let journal = day().write(&dir.0.join("journal"));
    let journal = journal.display().to_string();
    for what in ["fills", "disposals", "audit", "ledger", "opportunities"] {
        let mut rows = Vec::new();
        for format in ["csv", "parquet"] {
            let out = dir.0.join(format!("{what}.{format}")).display().to_string();
            let words = ["export", what, "--journal", &journal, "--format", format, "--out", &out];
            let output = tandem(&[&words[..], &["--json"]].concat());
            assert!(output.status.success(), "{what}: {output:?}");
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            rows.push(told["rows"].as_u64().unwrap());
            let again = tandem(&words);
            let text = String::from_utf8_lossy(&again.stderr).into_owned();
            assert_eq!(again.status.code(), Some(2), "{text}");
            assert!(text.contains("--force") && text.contains(&out), "{text}");
            assert!(tandem(&[&words[..], &["--force"]].concat()).status.success());
            if format == "csv" {
                let text = fs::read_to_string(&out).unwrap();
                assert_eq!(csv(&text).len() as u64, rows[0]);
                assert!(
                    !text.contains("\n=") && !text.contains(",=") && !text.contains(",\"="),
                    "{text}"
                );
            } else {
                let reader = SerializedFileReader::new(fs::File::open(&out).unwrap()).unwrap();
                assert_eq!(reader.metadata().file_metadata().num_rows() as u64, rows[0]);
                assert_eq!(reader.get_row_iter(None).unwrap().count() as u64, rows[0]);
            }
        }
        assert_eq!(rows[0], rows[1], "{what}");
        assert!(what == "opportunities" || 0 < rows[0], "{what}");
    }
    let left = fs::read_dir(&dir.0).unwrap().flatten();
    assert_eq!(
        left.filter(|file| file.file_name().to_string_lossy().ends_with(".part")).count(),
        0
    );

    // A year that is another one has no rows; nonsense is refused before anything is made.
    let out = dir.0.join("2025.csv").display().to_string();
    let of_2025 = ["export", "fills", "--journal", &journal, "--out", &out, "--year", "2025"];
    assert!(tandem(&of_2025).status.success());
    assert_eq!(csv(&fs::read_to_string(&out).unwrap()).len(), 0);
    let never = dir.0.join("never.csv");
    let out = never.display().to_string();
    for words in [
        &["--since", "soon"][..],
        &["--year", "2026", "--since", "1h"],
        &["--since", "2026-12-01", "--until", "2026-11-01"],
        &["--opening-cost", "/nowhere/opening.csv"],
    ] {
        let all = [&["export", "fills", "--journal", &journal, "--out", &out], words].concat();
        let output = tandem(&all);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        assert!(!never.exists());
    }
}

#[test]
fn reports_from_the_command_line() {
    let dir = Folder::new("commands");
    let journal = day().write(&dir.0.join("journal"));
    let journal = journal.display().to_string();
    let html = dir.0.join("report.html").display().to_string();
    let words = ["report", "daily", "--journal", &journal, "--html", &html];
    assert!(tandem(&words).status.success());
    assert!(fs::read_to_string(&html).unwrap().starts_with("<!doctype html>"));
    assert_eq!(tandem(&words).status.code(), Some(2), "it is there already");
    let output = tandem(&["report", "daily", "--journal", &journal, "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["day"], "2026-11-30");
    let none = tandem(&["report", "daily", "--journal", &journal, "--day", "2026-11-29"]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(
        tandem(&["report", "daily", "--journal", &journal, "--day", "x"]).status.code(),
        Some(2)
    );
    for by in ["venue", "pair", "hour", "kind", "route"] {
        let output = tandem(&["pnl", "--journal", &journal, "--by", by, "--json"]);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let line = &told["lines"][0];
        assert_eq!(
            (&line["expected"], &line["realised"]),
            (&"5".into(), &"-1.25".into()),
            "{told}"
        );
        assert_eq!((&line["difference"], &line["worth"]), (&"-6.25".into(), &"-1.25".into()));
        assert!(tandem(&["pnl", "--journal", &journal, "--by", by]).status.success());
    }
    assert_eq!(tandem(&["pnl", "--journal", &journal, "--since", "1h"]).status.code(), Some(2));
}

/// Opportunities of a made-up market, by every filter; what one verdict leaves out another one has.
#[test]
fn opportunities_by_filter() {
    let dir = Folder::new("filters");
    let journal = dir.0.join("journal").display().to_string();
    let made = tandem(&["journal", "generate", "--to", &journal, "--records", "60000"]);
    assert!(made.status.success());
    let ask = |words: &[&str]| -> Vec<serde_json::Value> {
        let base = ["opportunities", "--journal", &journal, "--last", "0", "--json"];
        let output = tandem(&[&base[..], words].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = ask(&[]);
    assert!(100 < all.len());
    let verdicts = ["taken", "denied", "gone"].map(|verdict| ask(&["--verdict", verdict]).len());
    assert_eq!(verdicts.iter().sum::<usize>(), all.len());
    assert_eq!(verdicts[0], 0, "it only observes");
    let kraken = ask(&["--venue", "kraken"]);
    let of = |told: &serde_json::Value, key: &str, wanted: &str| {
        told["legs"].as_array().unwrap().iter().any(|leg| leg[key] == wanted)
    };
    assert!(!kraken.is_empty() && kraken.len() < all.len());
    assert!(kraken.iter().all(|told| of(told, "venue", "kraken")));
    let symbol = ask(&["--symbol", "ETH/BTC"]);
    assert!(!symbol.is_empty() && symbol.iter().all(|told| of(told, "symbol", "ETH/BTC")));
    let net = |told: &serde_json::Value| Exact::read(told["net"].as_str().unwrap()).unwrap();
    let least = Exact::read("1").unwrap();
    let rich = ask(&["--min-net", "1"]);
    assert_eq!(rich.len(), all.iter().filter(|told| least <= net(told)).count());
    let middle = all[all.len() / 2]["at"].as_str().unwrap();
    let (early, late) = (ask(&["--until", middle]), ask(&["--since", middle]));
    assert_eq!(early.len() + late.len(), all.len());
    let output = tandem(&[
        "opportunities",
        "--journal",
        &journal,
        "--last",
        "0",
        "--csv",
        "--venue",
        "kraken",
    ]);
    assert_eq!(csv(&String::from_utf8_lossy(&output.stdout)).len(), kraken.len());
    for words in [&["--verdict", "maybe"][..], &["--venue", "mars"], &["--min-net", "much"]] {
        let base = ["opportunities", "--journal", &journal];
        assert_eq!(tandem(&[&base[..], words].concat()).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn the_audit_says_who_and_in_whose_words() {
    let dir = Folder::new("audit");
    let journal = day().write(&dir.0.join("journal"));
    let (path, log) = (dir.0.join("audit.csv"), dir.0.join("level.log"));
    let at_ns = MIDNIGHT + 15 * SECOND;
    let line = format!(
        "{{\"global\":\"PAUSE\",\"venues\":{{\"kraken\":\"HALT\"}},\"cause\":\"operator\",\"who\":\"ada\",\
         \"reason\":\"=news, at noon\",\"at_ns\":{at_ns}}}\n"
    );
    fs::write(&log, format!("{line}half a li")).unwrap();
    let target = Target { path: &path, format: Format::Csv, force: false, period: Period::ALL };
    let exported = exports::audit(journal.as_path(), target, Some(&log)).unwrap();
    assert!(exported.problems.iter().any(|problem| problem.contains("1 lines")), "{exported:?}");
    let rows = csv(&fs::read_to_string(&path).unwrap());
    let at = rows.iter().position(|row| row["kind"] == "operator").unwrap();
    let act = &rows[at];
    assert_eq!((act["who"].as_str(), act["what"].as_str()), ("ada", "PAUSE"));
    assert_eq!(act["why"], "'=news, at noon", "no formula");
    assert!(act["details"].contains("HALT"));
    // In the order in which things happened: after the run's start, before the round.
    assert_eq!(rows[0]["kind"], "run");
    assert!(rows[at..].iter().any(|row| row["kind"] == "round"));
    assert!(rows.is_sorted_by_key(|row| row["at"].clone()));
}

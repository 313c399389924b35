//! Binance: ids, diffs every 100 ms, best prices at once, snapshots of any age.

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::units::Side;
use tandem_feeds::machine::Machine;
use tandem_feeds::net::backoff::Random;
use tandem_feeds::publish::Mirror;

use super::{Fake, MS, Market, Sides, ladder, padded};

pub struct Symbol {
    pub name: String,
    scale: (u8, u8),
    pub market: Market,
    pub id: u64,
    published: u64,
    touched: BTreeSet<(usize, i64)>,
    history: BTreeMap<u64, Sides>,
}

pub struct FakeBinance {
    pub symbols: Vec<Symbol>,
    random: Random,
    subscribed: BTreeMap<u32, BTreeSet<String>>,
    /// Snapshots are up to this many ids old.
    pub snapshot_age: u64,
    /// Best-price messages left out, in parts per million.
    pub ticker_skip: u64,
    /// The market stands still.
    pub quiet: bool,
    /// Symbols whose streams are acknowledged and then say nothing.
    pub mute_streams: bool,
    /// A level is damaged in what the stream says, but not in REST.
    pub lie: bool,
    /// Fewer levels may be shown than there are.
    pub partial: bool,
    /// Levels behind the best are not compared.
    pub best_only: bool,
    pub status: String,
    pub steps: u64,
}

impl Symbol {
    /// The venue's bid at a price is another one from this id on, and its stream has said so.
    pub fn adopt(&mut self, px: i64, qty: i64) {
        self.market.sides[0].insert(px, qty);
        self.published = self.id;
        self.history.insert(self.id, self.market.sides.clone());
    }
}

impl FakeBinance {
    pub fn new(names: &[&str], scale: (u8, u8), seed: u64) -> FakeBinance {
        let mut random = Random::new(seed);
        let symbols = names
            .iter()
            .map(|name| {
                let market = Market::new(&mut random, 60);
                Symbol {
                    name: (*name).to_owned(),
                    scale,
                    history: BTreeMap::from([(1_000, market.sides.clone())]),
                    market,
                    id: 1_000,
                    published: 1_000,
                    touched: BTreeSet::new(),
                }
            })
            .collect();
        FakeBinance {
            symbols,
            random,
            subscribed: BTreeMap::new(),
            snapshot_age: 0,
            ticker_skip: 0,
            quiet: false,
            mute_streams: false,
            lie: false,
            partial: false,
            best_only: false,
            status: "TRADING".into(),
            steps: 0,
        }
    }

    fn rules(&self) -> String {
        let symbols: Vec<String> = self
            .symbols
            .iter()
            .map(|symbol| {
                format!(
                    "{{\"symbol\":\"{}\",\"status\":\"{}\",\"filters\":[{{\"filterType\":\"PRICE_FILTER\",\"tickSize\":\"0.01\"}},{{\"filterType\":\"LOT_SIZE\",\"stepSize\":\"0.00001\"}}]}}",
                    symbol.name, self.status
                )
            })
            .collect();
        format!("{{\"symbols\":[{}]}}", symbols.join(","))
    }

    fn conns(&self, stream: &str) -> Vec<u32> {
        self.subscribed
            .iter()
            .filter(|(_, names)| names.contains(stream))
            .map(|(c, _)| *c)
            .collect()
    }

    pub fn diff(
        symbol: &Symbol,
        levels: &[(usize, i64, i64)],
        first: u64,
        last: u64,
        now: i64,
    ) -> String {
        let side = |idx: usize| {
            let texts: Vec<String> = levels
                .iter()
                .filter(|(side, ..)| *side == idx)
                .map(|(_, px, qty)| {
                    format!(
                        "[\"{}\",\"{}\"]",
                        padded(*px, symbol.scale.0),
                        padded(*qty, symbol.scale.1)
                    )
                })
                .collect();
            texts.join(",")
        };
        format!(
            "{{\"stream\":\"{}@depth@100ms\",\"data\":{{\"e\":\"depthUpdate\",\"E\":{},\"s\":\"{}\",\"U\":{first},\"u\":{last},\"b\":[{}],\"a\":[{}]}}}}",
            symbol.name.to_lowercase(),
            now / MS,
            symbol.name,
            side(0),
            side(1)
        )
    }

    pub fn ticker(symbol: &Symbol) -> String {
        let text = |level: Option<(i64, i64)>| {
            let (px, qty) = level.unwrap_or_default();
            (padded(px, symbol.scale.0), padded(qty, symbol.scale.1))
        };
        let [bid, ask] = symbol.market.best().map(text);
        format!(
            "{{\"stream\":\"{}@bookTicker\",\"data\":{{\"u\":{},\"s\":\"{}\",\"b\":\"{}\",\"B\":\"{}\",\"a\":\"{}\",\"A\":\"{}\"}}}}",
            symbol.name.to_lowercase(),
            symbol.id,
            symbol.name,
            bid.0,
            bid.1,
            ask.0,
            ask.1
        )
    }
}

impl Fake for FakeBinance {
    fn opened(&mut self, conn: u32, _now: i64) -> Vec<String> {
        self.subscribed.insert(conn, BTreeSet::new());
        Vec::new()
    }

    fn text(&mut self, conn: u32, text: &str, _now: i64) -> Vec<String> {
        let message: serde_json::Value = serde_json::from_str(text).expect("we send JSON");
        assert_eq!(message["method"], "SUBSCRIBE");
        assert!(text.len() < 4_096, "a frame that the venue drops");
        let names = message["params"].as_array().expect("a list");
        let of_conn = self.subscribed.entry(conn).or_default();
        if !self.mute_streams {
            of_conn.extend(names.iter().map(|name| name.as_str().expect("text").to_owned()));
        }
        vec![format!("{{\"result\":null,\"id\":{}}}", message["id"])]
    }

    fn get(&mut self, path: &str, _now: i64) -> (u16, String) {
        if path.starts_with("/api/v3/exchangeInfo") {
            return (200, self.rules());
        }
        let (_, query) = path.split_once("/api/v3/depth?symbol=").expect("a depth path");
        let (name, limit) = query.split_once("&limit=").expect("a limit");
        let limit: usize = limit.parse().expect("a number");
        let age = self.random.up_to(self.snapshot_age);
        let symbol = self.symbols.iter().find(|symbol| symbol.name == name).expect("a symbol");
        let wanted = symbol.id.saturating_sub(age);
        let oldest = symbol.history.first_key_value().map_or(0, |(id, _)| *id);
        let (id, sides) = symbol.history.range(..=wanted.max(oldest)).next_back().expect("history");
        let side = |side: Side| {
            let levels: Vec<String> = ladder(sides, side)
                .into_iter()
                .take(limit)
                .map(|(px, qty)| {
                    format!(
                        "[\"{}\",\"{}\"]",
                        padded(px, symbol.scale.0),
                        padded(qty, symbol.scale.1)
                    )
                })
                .collect();
            levels.join(",")
        };
        let (bids, asks) = (side(Side::Bid), side(Side::Ask));
        (200, format!("{{\"lastUpdateId\":{id},\"bids\":[{bids}],\"asks\":[{asks}]}}"))
    }

    fn step(&mut self, now: i64) -> Vec<(u32, String)> {
        let mut out = Vec::new();
        self.steps += 1;
        for idx in 0..self.symbols.len() {
            let name = self.symbols[idx].name.to_lowercase();
            let depth = self.conns(&format!("{name}@depth@100ms"));
            let tickers = self.conns(&format!("{name}@bookTicker"));
            let changes = if self.quiet { 0 } else { self.random.up_to(3) };
            for _ in 0..changes {
                let symbol = &mut self.symbols[idx];
                let before = symbol.market.best();
                let (side, px) = symbol.market.change(&mut self.random);
                symbol.id += 1;
                symbol.touched.insert((side.idx(), px));
                symbol.history.insert(symbol.id, symbol.market.sides.clone());
                if 3_000 < symbol.history.len() {
                    symbol.history.pop_first();
                }
                let told = self.ticker_skip <= self.random.up_to(999_999);
                if before != symbol.market.best() && told {
                    let text = FakeBinance::ticker(symbol);
                    out.extend(tickers.iter().map(|conn| (*conn, text.clone())));
                }
            }
            // Not all symbols in the same step.
            if (self.steps + idx as u64 * 7).is_multiple_of(20) {
                let symbol = &mut self.symbols[idx];
                if symbol.touched.is_empty() {
                    continue;
                }
                // An id of its own, so that a position tells whether this diff is in the book.
                symbol.id += 1;
                symbol.history.insert(symbol.id, symbol.market.sides.clone());
                let mut levels: Vec<(usize, i64, i64)> = std::mem::take(&mut symbol.touched)
                    .into_iter()
                    .map(|(side, px)| {
                        (side, px, symbol.market.sides[side].get(&px).copied().unwrap_or(0))
                    })
                    .collect();
                if self.lie {
                    // A level that the venue's book does not have, deep enough not to cross.
                    levels.push((0, 99_000, 77));
                }
                let text = FakeBinance::diff(symbol, &levels, symbol.published + 1, symbol.id, now);
                symbol.published = symbol.id;
                out.extend(depth.iter().map(|conn| (*conn, text.clone())));
            }
        }
        out
    }

    fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    fn closed(&mut self, conn: u32) {
        self.subscribed.remove(&conn);
    }

    fn check(&mut self, machine: &dyn Machine, slot: usize, mirror: &Mirror) -> Result<(), String> {
        if self.lie {
            return Ok(());
        }
        let name = &machine.instruments()[slot].symbol;
        let symbol = self.symbols.iter().find(|symbol| symbol.name == *name).ok_or("a symbol")?;
        let id = machine.position(slot).update_id;
        let truth = symbol.history.get(&id).ok_or(format!("no history of {id}"))?;
        for side in Side::BOTH {
            let ours: Vec<_> = mirror.book.levels(side).map(|l| (l.px.0, l.qty.0)).collect();
            let theirs = ladder(truth, side);
            // A ticker may be ahead of the levels behind it, so the best level is always judged, and the
            // others where the position is a diff's.
            if ours.first() != theirs.first() {
                return Err(format!(
                    "best {side:?} at {id}: {:?} {:?}",
                    ours.first(),
                    theirs.first()
                ));
            }
            let whole = symbol.published == id && !self.best_only;
            if whole && ours != theirs[..ours.len().min(theirs.len())] {
                return Err(format!("{side:?} at {id}: ours {ours:?}, theirs {theirs:?}"));
            }
            if whole
                && !self.partial
                && ours.len() < mirror.book.capacity().min(theirs.len()).min(20)
            {
                return Err(format!("only {} of {} levels shown", ours.len(), theirs.len()));
            }
        }
        Ok(())
    }

    fn has_checksum(&self) -> bool {
        false
    }
}

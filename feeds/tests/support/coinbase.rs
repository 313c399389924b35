//! Coinbase: one sequence a connection, whole-book snapshots, several events a frame.

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::units::Side;
use tandem_feeds::machine::Machine;
use tandem_feeds::net::backoff::Random;
use tandem_feeds::publish::Mirror;

use super::{Fake, Market, SECOND, Sides, ladder, plain};

pub struct Product {
    pub name: String,
    scale: (u8, u8),
    pub market: Market,
    touched: BTreeSet<(usize, i64)>,
}

#[derive(Default)]
struct Conn {
    sequence: u64,
    products: BTreeSet<String>,
    heartbeats: bool,
    next_heartbeat: i64,
    counter: u64,
}

pub struct FakeCoinbase {
    pub products: Vec<Product>,
    random: Random,
    conns: BTreeMap<u32, Conn>,
    /// What a product's book was at a frame.
    history: BTreeMap<(u32, u64, String), Sides>,
    pub steps: u64,
    pub text_counters: bool,
    pub no_snapshots: bool,
    pub lie: bool,
    /// The market stands still.
    pub quiet: bool,
    /// Levels behind the best are not compared.
    pub best_only: bool,
    /// Products that are not traded.
    pub offline: BTreeSet<String>,
    /// REST books are of this many steps ago.
    pub cached: Option<Vec<Sides>>,
}

pub fn time(now: i64) -> String {
    let seconds = now / SECOND;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // All tests run within one day from 2026-11-22.
    assert!((20_779..20_790).contains(&days), "{days}");
    format!(
        "2026-11-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        22 + days - 20_779,
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        now % SECOND
    )
}

impl FakeCoinbase {
    pub fn new(names: &[&str], scale: (u8, u8), seed: u64) -> FakeCoinbase {
        let mut random = Random::new(seed);
        let products = names
            .iter()
            .map(|name| Product {
                name: (*name).to_owned(),
                scale,
                market: Market::new(&mut random, 80),
                touched: BTreeSet::new(),
            })
            .collect();
        FakeCoinbase {
            products,
            random,
            conns: BTreeMap::new(),
            history: BTreeMap::new(),
            steps: 0,
            text_counters: false,
            no_snapshots: false,
            lie: false,
            quiet: false,
            best_only: false,
            offline: BTreeSet::new(),
            cached: None,
        }
    }

    fn frame(&mut self, conn: u32, channel: &str, events: &str, now: i64) -> String {
        let of_conn = self.conns.entry(conn).or_default();
        let sequence = of_conn.sequence;
        of_conn.sequence += 1;
        for product in self.products.iter().filter(|p| of_conn.products.contains(&p.name)) {
            self.history
                .insert((conn, sequence, product.name.clone()), product.market.sides.clone());
        }
        let old = sequence.saturating_sub(600);
        self.history.retain(|(of, number, _), _| *of != conn || old <= *number);
        format!(
            "{{\"channel\":\"{channel}\",\"client_id\":\"\",\"timestamp\":\"{}\",\"sequence_num\":{sequence},\"events\":[{events}]}}",
            time(now)
        )
    }

    fn event(product: &Product, kind: &str, levels: &[(usize, i64, i64)]) -> String {
        let updates: Vec<String> = levels
            .iter()
            .map(|(side, px, qty)| {
                format!(
                    "{{\"side\":\"{}\",\"event_time\":\"1970-01-01T00:00:00Z\",\"price_level\":\"{}\",\"new_quantity\":\"{}\"}}",
                    ["bid", "offer"][*side],
                    plain(*px, product.scale.0),
                    plain(*qty, product.scale.1)
                )
            })
            .collect();
        format!(
            "{{\"type\":\"{kind}\",\"product_id\":\"{}\",\"updates\":[{}]}}",
            product.name,
            updates.join(",")
        )
    }
}

impl Fake for FakeCoinbase {
    fn opened(&mut self, conn: u32, _now: i64) -> Vec<String> {
        self.conns.insert(conn, Conn::default());
        Vec::new()
    }

    fn text(&mut self, conn: u32, text: &str, now: i64) -> Vec<String> {
        let message: serde_json::Value = serde_json::from_str(text).expect("we send JSON");
        let channel = message["channel"].as_str().expect("one channel");
        let names: Vec<String> = message["product_ids"]
            .as_array()
            .map(|ids| ids.iter().map(|id| id.as_str().expect("text").to_owned()).collect())
            .unwrap_or_default();
        let subscribe = message["type"] == "subscribe";
        let mut out = Vec::new();
        if channel == "heartbeats" {
            let of_conn = self.conns.entry(conn).or_default();
            of_conn.heartbeats = true;
            of_conn.next_heartbeat = now + SECOND;
        } else if subscribe {
            let mut events = Vec::new();
            for name in &names {
                let product = self.products.iter().find(|p| p.name == *name).expect("a product");
                let levels: Vec<(usize, i64, i64)> = Side::BOTH
                    .into_iter()
                    .flat_map(|side| {
                        let of_side = ladder(&product.market.sides, side);
                        of_side.into_iter().map(move |(px, qty)| (side.idx(), px, qty))
                    })
                    .collect();
                events.push(FakeCoinbase::event(product, "snapshot", &levels));
            }
            if self.no_snapshots {
                events.clear();
            }
            for (name, event) in names.iter().zip(&events) {
                self.conns.entry(conn).or_default().products.insert(name.clone());
                let text = self.frame(conn, "l2_data", event, now);
                out.push(text);
            }
        } else {
            for name in &names {
                self.conns.entry(conn).or_default().products.remove(name);
            }
        }
        let ids: Vec<String> =
            self.conns[&conn].products.iter().map(|name| format!("\"{name}\"")).collect();
        let event = format!("{{\"subscriptions\":{{\"level2\":[{}]}}}}", ids.join(","));
        out.push(self.frame(conn, "subscriptions", &event, now));
        out
    }

    fn get(&mut self, path: &str, _now: i64) -> (u16, String) {
        if let Some((_, name)) = path.split_once("/market/products/") {
            let online = !self.offline.contains(name);
            return (
                200,
                format!(
                    "{{\"product_id\":\"{name}\",\"price_increment\":\"0.01\",\"base_increment\":\"0.00000001\",\"status\":\"{}\"}}",
                    if online { "online" } else { "offline" }
                ),
            );
        }
        let (_, query) = path.split_once("product_book?product_id=").expect("a book path");
        let (name, limit) = query.split_once("&limit=").expect("a limit");
        let limit: usize = limit.parse().expect("a number");
        let at = self.products.iter().position(|p| p.name == name).expect("a product");
        let product = &self.products[at];
        let sides = self.cached.as_ref().map_or(&product.market.sides, |cached| &cached[at]);
        let side = |side: Side| {
            let levels: Vec<String> = ladder(sides, side)
                .into_iter()
                .take(limit)
                .map(|(px, qty)| {
                    let (px, qty) = (plain(px, product.scale.0), plain(qty, product.scale.1));
                    format!("{{\"price\":\"{px}\",\"size\":\"{qty}\"}}")
                })
                .collect();
            levels.join(",")
        };
        let (bids, asks) = (side(Side::Bid), side(Side::Ask));
        (
            200,
            format!(
                "{{\"pricebook\":{{\"product_id\":\"{name}\",\"bids\":[{bids}],\"asks\":[{asks}]}}}}"
            ),
        )
    }

    fn step(&mut self, now: i64) -> Vec<(u32, String)> {
        self.steps += 1;
        let mut out = Vec::new();
        let due: Vec<u32> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.heartbeats && conn.next_heartbeat <= now)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in due {
            let of_conn = self.conns.entry(conn).or_default();
            of_conn.next_heartbeat += SECOND;
            of_conn.counter += 1;
            let quote = if self.text_counters { "\"" } else { "" };
            let counter = of_conn.counter;
            let event = format!(
                "{{\"current_time\":\"2026-11-22 00:00:00 +0000 UTC m=+1.5\",\"heartbeat_counter\":{quote}{counter}{quote}}}"
            );
            let text = self.frame(conn, "heartbeats", &event, now);
            out.push((conn, text));
        }
        for product in &mut self.products {
            let changes = if self.quiet { 0 } else { self.random.up_to(2) };
            for _ in 0..changes {
                let (side, px) = product.market.change(&mut self.random);
                product.touched.insert((side.idx(), px));
            }
        }
        if !self.steps.is_multiple_of(8) {
            return out;
        }
        let touched: Vec<BTreeSet<(usize, i64)>> =
            self.products.iter_mut().map(|p| std::mem::take(&mut p.touched)).collect();
        let conns: Vec<u32> = self.conns.keys().copied().collect();
        for conn in conns {
            let mut events = Vec::new();
            for (product, touched) in self.products.iter().zip(&touched) {
                if !self.conns[&conn].products.contains(&product.name) || touched.is_empty() {
                    continue;
                }
                let mut levels: Vec<(usize, i64, i64)> = touched
                    .iter()
                    .map(|(side, px)| {
                        (*side, *px, product.market.sides[*side].get(px).copied().unwrap_or(0))
                    })
                    .collect();
                if self.lie {
                    levels.push((1, 100_500, 5));
                }
                // Two events of one product in a frame, now and then.
                let cut = levels.len() / 2;
                events.push(FakeCoinbase::event(product, "update", &levels[..cut]));
                events.push(FakeCoinbase::event(product, "update", &levels[cut..]));
            }
            if !events.is_empty() {
                let text = self.frame(conn, "l2_data", &events.join(","), now);
                out.push((conn, text));
            }
        }
        out
    }

    fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    fn closed(&mut self, conn: u32) {
        self.conns.remove(&conn);
        self.history.retain(|(of, ..), _| *of != conn);
    }

    fn check(&mut self, machine: &dyn Machine, slot: usize, mirror: &Mirror) -> Result<(), String> {
        if self.lie {
            return Ok(());
        }
        let name = machine.instruments()[slot].feed_symbol.clone();
        let position = machine.position(slot);
        let key = (position.conn, position.update_id, name);
        let truth = self.history.get(&key).ok_or(format!("no history of {key:?}"))?;
        for side in Side::BOTH {
            let ours: Vec<_> = mirror.book.levels(side).map(|l| (l.px.0, l.qty.0)).collect();
            let theirs = ladder(truth, side);
            let count = mirror.book.capacity().min(theirs.len());
            let is_right = match self.best_only {
                true => ours.first() == theirs.first(),
                false => ours == theirs[..count],
            };
            if !is_right {
                return Err(format!("{side:?} at {key:?}: ours {ours:?}, theirs {theirs:?}"));
            }
        }
        Ok(())
    }

    fn has_checksum(&self) -> bool {
        false
    }
}

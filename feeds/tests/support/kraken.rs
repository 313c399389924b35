//! Kraken v2: depth, checksums from text, one acknowledgement a symbol.

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::units::Side;
use tandem_feeds::machine::Machine;
use tandem_feeds::net::backoff::Random;
use tandem_feeds::publish::Mirror;

use super::coinbase::time;
use super::{Fake, Market, SECOND, START, Sides, ladder, padded};

pub struct Pair {
    pub name: String,
    scale: (u8, u8),
    pub market: Market,
    /// When it last changed.
    changed: i64,
    shown: [Vec<(i64, i64)>; 2],
    /// Every state that was ever published.
    history: Vec<[Vec<(i64, i64)>; 2]>,
    /// The state that our book was last seen in.
    seen: usize,
}

pub struct FakeKraken {
    pub pairs: Vec<Pair>,
    random: Random,
    subscribed: BTreeMap<u32, BTreeSet<String>>,
    next_heartbeat: i64,
    pub steps: u64,
    pub status: String,
    /// Symbols that are refused.
    pub refused: BTreeSet<String>,
    /// The next update of every symbol has a wrong checksum.
    pub bad_checksum: bool,
    /// The next update has this level twice.
    pub crossed_inside: bool,
    pub stall: bool,
    /// Books that the venue never had are no error.
    pub lie: bool,
    /// One symbol says nothing more on one connection.
    pub stopped: Option<(u32, String)>,
}

pub const DEPTH: usize = 10;

/// The checksum of the sheet, on text.
pub fn checksum(sides: &[Vec<(i64, i64)>; 2], scale: (u8, u8)) -> u32 {
    let part = |text: String| text.replace('.', "").trim_start_matches('0').to_owned();
    let mut text = String::new();
    for side in [1, 0] {
        for (px, qty) in sides[side].iter().take(10) {
            text += &part(padded(*px, scale.0));
            text += &part(padded(*qty, scale.1));
        }
    }
    crc32fast::hash(text.as_bytes())
}

fn top(sides: &Sides) -> [Vec<(i64, i64)>; 2] {
    Side::BOTH.map(|side| ladder(sides, side).into_iter().take(DEPTH).collect())
}

impl Pair {
    pub fn message(&self, kind: &str, levels: [&[(i64, i64)]; 2], sum: u32, now: i64) -> String {
        let side = |levels: &[(i64, i64)]| {
            let texts: Vec<String> = levels
                .iter()
                .map(|(px, qty)| {
                    let (px, qty) = (padded(*px, self.scale.0), padded(*qty, self.scale.1));
                    format!("{{\"price\":{px},\"qty\":{qty}}}")
                })
                .collect();
            texts.join(",")
        };
        format!(
            "{{\"channel\":\"book\",\"type\":\"{kind}\",\"data\":[{{\"symbol\":\"{}\",\"bids\":[{}],\"asks\":[{}],\"checksum\":{sum},\"timestamp\":\"{}\"}}]}}",
            self.name,
            side(levels[0]),
            side(levels[1]),
            time(now)
        )
    }
}

impl FakeKraken {
    pub fn new(names: &[&str], scale: (u8, u8), seed: u64) -> FakeKraken {
        let mut random = Random::new(seed);
        let pairs = names
            .iter()
            .map(|name| {
                let market = Market::new(&mut random, 30);
                let shown = top(&market.sides);
                Pair {
                    name: (*name).to_owned(),
                    scale,
                    market,
                    changed: START,
                    history: vec![shown.clone()],
                    shown,
                    seen: 0,
                }
            })
            .collect();
        FakeKraken {
            pairs,
            random,
            subscribed: BTreeMap::new(),
            next_heartbeat: 0,
            steps: 0,
            status: "online".into(),
            refused: BTreeSet::new(),
            bad_checksum: false,
            crossed_inside: false,
            stall: false,
            lie: false,
            stopped: None,
        }
    }

    pub fn instrument(&self, status: &str) -> String {
        let pairs: Vec<String> = self
            .pairs
            .iter()
            .map(|pair| {
                format!(
                    "{{\"symbol\":\"{}\",\"base\":\"B\",\"quote\":\"Q\",\"status\":\"{status}\",\"qty_precision\":{},\"qty_increment\":1e-0{},\"price_precision\":{},\"cost_min\":0.5,\"qty_min\":0.0001,\"tick_size\":0.1,\"price_increment\":0.1}}",
                    pair.name, pair.scale.1, pair.scale.1, pair.scale.0
                )
            })
            .collect();
        format!(
            "{{\"channel\":\"instrument\",\"type\":\"snapshot\",\"data\":{{\"assets\":[],\"pairs\":[{}]}}}}",
            pairs.join(",")
        )
    }

    pub fn status_message(&self) -> String {
        format!(
            "{{\"channel\":\"status\",\"type\":\"update\",\"data\":[{{\"version\":\"2.0.0\",\"system\":\"{}\",\"api_version\":\"v2\",\"connection_id\":12393906104898154338}}]}}",
            self.status
        )
    }
}

impl Fake for FakeKraken {
    fn opened(&mut self, conn: u32, _now: i64) -> Vec<String> {
        self.subscribed.insert(conn, BTreeSet::new());
        vec![self.status_message()]
    }

    fn text(&mut self, conn: u32, text: &str, _now: i64) -> Vec<String> {
        let message: serde_json::Value = serde_json::from_str(text).expect("we send JSON");
        let method = message["method"].as_str().expect("a method");
        let req = &message["req_id"];
        if method == "ping" {
            return vec![format!("{{\"method\":\"pong\",\"req_id\":{req}}}")];
        }
        if message["params"]["channel"] == "instrument" {
            let ack = format!(
                "{{\"method\":\"subscribe\",\"req_id\":{req},\"success\":true,\"result\":{{\"channel\":\"instrument\",\"snapshot\":true,\"warnings\":[\"tick_size is deprecated\"]}}}}"
            );
            return vec![ack, self.instrument("online")];
        }
        let mut out = Vec::new();
        for name in message["params"]["symbol"].as_array().expect("symbols") {
            let name = name.as_str().expect("text");
            if self.refused.contains(name) {
                out.push(format!(
                    "{{\"method\":\"subscribe\",\"req_id\":{req},\"success\":false,\"symbol\":\"{name}\",\"error\":\"Currency pair not supported {name}\"}}"
                ));
                continue;
            }
            let ack = format!(
                "{{\"method\":\"{method}\",\"req_id\":{req},\"success\":true,\"result\":{{\"channel\":\"book\",\"symbol\":\"{name}\",\"depth\":10,\"snapshot\":true}}}}"
            );
            let of_conn = self.subscribed.entry(conn).or_default();
            if method == "unsubscribe" {
                of_conn.remove(name);
                out.push(ack);
                continue;
            }
            of_conn.insert(name.to_owned());
            let pair = self.pairs.iter().find(|pair| pair.name == name).expect("a pair");
            // What was published last, so that the next update fits.
            let [bids, asks] = &pair.shown;
            let sum = checksum(&pair.shown, pair.scale);
            let snapshot = pair.message("snapshot", [bids, asks], sum, pair.changed);
            // The snapshot may come before or after the acknowledgement.
            if self.random.up_to(1) == 0 {
                out.extend([ack, snapshot]);
            } else {
                out.extend([snapshot, ack]);
            }
        }
        out
    }

    fn get(&mut self, path: &str, _now: i64) -> (u16, String) {
        let (_, query) = path.split_once("Depth?pair=").expect("a depth path");
        let (name, _) = query.split_once("&count=").expect("a count");
        let pair = self.pairs.iter().find(|pair| pair.name == name).expect("a pair");
        let side = |levels: &[(i64, i64)]| {
            let texts: Vec<String> = levels
                .iter()
                .map(|(px, qty)| {
                    format!(
                        "[\"{}0000\",\"{}\",1]",
                        padded(*px, pair.scale.0),
                        padded(*qty, pair.scale.1)
                    )
                })
                .collect();
            texts.join(",")
        };
        let [bids, asks] = &pair.shown;
        (
            200,
            format!(
                "{{\"error\":[],\"result\":{{\"XWHATEVER\":{{\"asks\":[{}],\"bids\":[{}]}}}}}}",
                side(asks),
                side(bids)
            ),
        )
    }

    fn step(&mut self, now: i64) -> Vec<(u32, String)> {
        self.steps += 1;
        let mut out = Vec::new();
        if self.stall {
            return out;
        }
        if self.next_heartbeat <= now {
            self.next_heartbeat = now + SECOND;
            let conns = self.subscribed.iter().filter(|(_, names)| !names.is_empty());
            out.extend(conns.map(|(conn, _)| (*conn, "{\"channel\":\"heartbeat\"}".to_owned())));
        }
        for pair in &mut self.pairs {
            for _ in 0..self.random.up_to(2) {
                pair.market.change(&mut self.random);
            }
            if self.random.up_to(3) != 0 {
                continue;
            }
            let now_shown = top(&pair.market.sides);
            if now_shown == pair.shown {
                continue;
            }
            let mut changes: [Vec<(i64, i64)>; 2] = Default::default();
            for side in 0..2 {
                for (px, qty) in &now_shown[side] {
                    if !pair.shown[side].contains(&(*px, *qty)) {
                        // The same level twice in one message: the last one wins.
                        if self.random.up_to(9) == 0 {
                            changes[side].push((*px, qty + 1));
                        }
                        changes[side].push((*px, *qty));
                    }
                }
                for (px, _) in &pair.shown[side] {
                    // No delete is sent for a level that was pushed beyond the depth.
                    if !pair.market.sides[side].contains_key(px) {
                        changes[side].push((*px, 0));
                    }
                }
                // A delete of a level that nobody holds.
                if self.random.up_to(19) == 0 {
                    changes[side].push(([50_000, 150_000][side], 0));
                }
            }
            pair.shown = now_shown;
            pair.changed = now;
            pair.history.push(pair.shown.clone());
            let sum = checksum(&pair.shown, pair.scale) ^ u32::from(self.bad_checksum);
            let [bids, asks] = &changes;
            let text = pair.message("update", [bids, asks], sum, now);
            for (conn, names) in &self.subscribed {
                let stopped = self
                    .stopped
                    .as_ref()
                    .is_some_and(|(of, name)| of == conn && *name == pair.name);
                if names.contains(&pair.name) && !stopped {
                    out.push((*conn, text.clone()));
                }
            }
        }
        self.bad_checksum = false;
        out
    }

    fn set_quiet(&mut self, quiet: bool) {
        self.stall = quiet;
    }

    fn closed(&mut self, conn: u32) {
        self.subscribed.remove(&conn);
    }

    fn check(&mut self, machine: &dyn Machine, slot: usize, mirror: &Mirror) -> Result<(), String> {
        if self.lie {
            return Ok(());
        }
        let name = &machine.instruments()[slot].symbol;
        let pair = self.pairs.iter_mut().find(|pair| pair.name == *name).ok_or("a pair")?;
        let ours = Side::BOTH
            .map(|side| mirror.book.levels(side).map(|l| (l.px.0, l.qty.0)).collect::<Vec<_>>());
        // A book that the venue had, and not an earlier one than before.
        let found = pair.history[pair.seen..].iter().position(|state| *state == ours);
        match found {
            Some(ahead) => {
                pair.seen += ahead;
                Ok(())
            }
            None => {
                let before = pair.history.iter().rposition(|state| *state == ours);
                let (seen, at) = (pair.seen, machine.position(slot));
                Err(format!("not a book after {seen} but {before:?} ({at:?}): {ours:?}"))
            }
        }
    }

    fn has_checksum(&self) -> bool {
        true
    }
}

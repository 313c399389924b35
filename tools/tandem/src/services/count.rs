//! How many rows each table must hold, counted from the raw words of the journal's records.
//!
//! Invariant: it shares nothing with the drain's projector but the kinds' numbers, so that a mistake there is
//! not made here a second time. What cannot be read is not counted, and so becomes a difference.

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::record::{Record, flag};

/// A configuration's text beyond this is not believed.
const TEXT_MAX: usize = 64 << 20;
/// Nanoseconds of a day.
const DAY_NS: i64 = 86_400_000_000_000;

/// Counts as records come, in the journal's order.
#[derive(Debug, Default)]
pub struct Counter {
    counts: BTreeMap<&'static str, i64>,
    sets: BTreeMap<&'static str, BTreeSet<Vec<i64>>>,
    /// What was told last of something that is told again and again.
    last: BTreeMap<(i64, u8, i64), Vec<i64>>,
    text: Vec<u8>,
    run: i64,
    generation: i64,
    opportunity: i64,
    round: i64,
}

impl Counter {
    fn add(&mut self, table: &'static str, rows: usize) {
        *self.counts.entry(table).or_default() += i64::try_from(rows).unwrap_or(i64::MAX);
    }

    fn set(&mut self, table: &'static str, key: &[i64]) {
        self.sets.entry(table).or_default().insert(key.to_vec());
    }

    /// Whether something is another than it was; a run begins anew.
    fn changed(&mut self, kind: u8, key: i64, word: &[i64]) -> bool {
        let before = self.last.insert((self.generation, kind, key), word.to_vec());
        before.unwrap_or_else(|| vec![if kind == 5 { 0 } else { i64::MIN }]) != word
    }

    fn add_if(&mut self, changed: bool, table: &'static str) {
        self.add(table, usize::from(changed));
    }

    /// Takes the next record.
    pub fn take(&mut self, r: &Record) {
        let [a, b, c, d] = r.data;
        let (venue, instrument) = (i64::from(r.venue), i64::from(r.instrument));
        let of = i64::from(r.run);
        match r.kind {
            72 => self.take_text(r),
            64 => match r.part {
                0 => self.opportunity = b,
                1 => {}
                2 => self.set("opportunities", &[self.run, self.opportunity, a]),
                _ => self.add("opportunity_legs", 1),
            },
            65 => self.add_if(r.part == 0, "denials"),
            47 if r.part == 0 => {
                self.round = b;
                self.set("rounds", &[of, b]);
                self.add("round_stages", 1);
            }
            47 if 2 <= r.part => self.set("round_legs", &[of, self.round, i64::from(r.part)]),
            32 if r.flags & flag::OUTPUT == 0 => {}
            32 | 33 | 35 | 36 | 38..=42 => {
                self.set("orders", &[of, a]);
                self.add("order_events", 1);
            }
            34 => self.add("order_events", 1),
            37 | 55 => {
                self.set("orders", &[of, a]);
                self.add("order_events", 1);
                self.set("fills", &[venue, instrument, r.update_id.cast_signed()]);
            }
            44 => self.add("balances", 1),
            48 => {
                self.add("ledger", 1);
                let day = r.engine_ts_ns.div_euclid(DAY_NS);
                self.set("pnl_venue_day", &[day, venue, i64::from(r.asset), c]);
            }
            49 => self.set("pnl_day", &[a, i64::from(r.asset)]),
            53 | 54 | 68 | 70 => self.add("audit", 1),
            16 | 43 | 71 => self.add("venue_events", 1),
            50 => {
                let changed = self.changed(r.kind, 0, &[a]);
                self.add_if(changed, "audit");
            }
            _ => {
                let changed = match r.kind {
                    46 => self.changed(r.kind, venue, &[a, b]),
                    51 => self.changed(r.kind, a << 8 | venue, &[b, d]),
                    52 => self.changed(r.kind, 0, &[c]),
                    18 => self.changed(r.kind, instrument, &[a, b, c, d]),
                    45 => self.changed(r.kind, instrument, &[a, b]),
                    5 => self.changed(r.kind, instrument, &[a]),
                    _ => false,
                };
                self.add_if(changed, "venue_events");
            }
        }
        if matches!(r.kind, 1 | 2 | 3 | 5) && r.flags & flag::LAST != 0 {
            self.set("bbo_samples", &[self.generation, instrument, r.engine_ts_ns / 1_000_000_000]);
        }
    }

    fn take_text(&mut self, r: &Record) {
        if self.text.len() < TEXT_MAX {
            self.text.extend(r.data.into_iter().flat_map(i64::to_le_bytes));
        }
        if r.flags & flag::MORE != 0 {
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        text.truncate(usize::try_from(r.update_id).unwrap_or(usize::MAX));
        let Ok(setup) = serde_json::from_slice::<serde_json::Value>(&text) else { return };
        self.run = setup["run"].as_i64().unwrap_or(-1);
        self.generation += 1;
        self.add("runs", 1);
        self.add("configuration", 1);
        let empty = Vec::new();
        let listed = setup["listings"].as_array().unwrap_or(&empty);
        self.add("instruments", listed.len());
        let assets: BTreeSet<String> = ["base", "quote"]
            .into_iter()
            .flat_map(|key| listed.iter().map(move |listed| listed[key].to_string()))
            .collect();
        self.add("assets", assets.len());
    }

    /// Returns the rows by table; a table that is not named has none.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<&'static str, i64> {
        let mut counts = self.counts.clone();
        let sets = self.sets.iter();
        counts.extend(sets.map(|(table, keys)| (*table, i64::try_from(keys.len()).unwrap_or(0))));
        counts.insert("journals", 1);
        counts
    }
}

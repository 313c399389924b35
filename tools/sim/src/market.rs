//! The seeded market: latent prices, each venue's order flow around them, and dislocations.
//!
//! Invariant: the sequence of [`Event`]s depends on the configuration and its seed alone; the wall
//! clock only decides when [`Market::next`] is asked. After each event both sides of the book are
//! uncrossed and not empty, unless [`Market::cross`] asked for the opposite.
//!
//! One event is one atomic change of one book. Every changed price takes one update id, as on
//! Binance; the other venues ignore the id.
//!
//! Orders of clients rest in the public [`Instrument::book`] on top of what the flow put there. The flow sees
//! only its own quantities (a shadow book that exists while any client order rests), so that its events are
//! the same with and without clients until one of them trades with it.
//!
//! Not here: what clients are sent (`binance`, `coinbase`, `kraken`), how faults bend it (`faults`), and who
//! owns which order (`exchange`).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::SimError;
use crate::book::{Book, Level, Side};
use crate::config::{SimConfig, Source, Venue};
use crate::units::Grid;

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// One changed price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Side of the book.
    pub side: Side,
    /// Price in ticks.
    pub px: i64,
    /// Quantity before, in lots.
    pub old: i64,
    /// Quantity after, in lots.
    pub new: i64,
}

/// One trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trade {
    /// Trade id, one more than the last of the instrument.
    pub id: u64,
    /// Price in ticks.
    pub px: i64,
    /// Quantity in lots.
    pub qty: i64,
    /// Side of the resting order; the aggressor was on the other.
    pub maker: Side,
}

/// One atomic change of one book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Market time, nanoseconds since the start of the run.
    pub at_ns: u64,
    /// Index into [`Market::instruments`].
    pub inst: usize,
    /// Changed prices in order; a price occurs at most once.
    pub changes: Vec<Change>,
    /// Trades in order.
    pub trades: Vec<Trade>,
    /// Update id of the first change.
    pub first_id: u64,
    /// Update id of the last change: the book's id after the event.
    pub last_id: u64,
    /// Whether the best price or quantity of a side changed.
    pub bbo_changed: bool,
}

/// What an instrument is, on its venue's grids.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Venue.
    pub venue: Venue,
    /// The venue's symbol.
    pub symbol: String,
    /// Base asset.
    pub base: String,
    /// Quote asset.
    pub quote: String,
    /// Price step.
    pub tick: Grid,
    /// Quantity step.
    pub lot: Grid,
    /// Smallest order quantity, decimal text.
    pub min_qty: String,
    /// Smallest order worth, decimal text.
    pub min_notional: String,
    /// The price step in force, in ticks: a venue may make it coarser while it runs.
    pub step_ticks: i64,
    /// The quantity step in force, in lots.
    pub step_lots: i64,
}

impl Spec {
    /// Returns the price step in force, as the venue's rules print it.
    #[must_use]
    pub fn tick_rule(&self) -> Grid {
        Grid { mantissa: self.tick.mantissa * self.step_ticks, ..self.tick }.reduced()
    }

    /// Returns the quantity step in force, as the venue's rules print it.
    #[must_use]
    pub fn lot_rule(&self) -> Grid {
        Grid { mantissa: self.lot.mantissa * self.step_lots, ..self.lot }.reduced()
    }
}

/// Whether an instrument trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Normal trading.
    Online,
    /// Halted: the book stands still.
    Halted,
}

/// One instrument of one venue with its book.
#[derive(Debug)]
pub struct Instrument {
    /// What it is.
    pub spec: Arc<Spec>,
    /// Its book now.
    pub book: Book,
    /// Update id of the last change.
    pub update_id: u64,
    /// Id of the last trade.
    pub trade_id: u64,
    /// Whether it trades.
    pub status: Status,
    flow: Flow,
    /// The book without clients' orders, while there are any.
    shadow: Option<Book>,
    /// Quantity of clients' orders by price.
    resting: BTreeMap<(Side, i64), i64>,
}

/// Changes of one book that are to become one event.
#[derive(Debug)]
pub(crate) struct Batch {
    changes: Vec<Change>,
    before: [Option<Level>; 2],
    trades: Vec<(i64, i64, Side)>,
}

impl Batch {
    /// Notes a print.
    pub fn trade(&mut self, px: i64, qty: i64, maker: Side) {
        self.trades.push((px, qty, maker));
    }
}

/// Order-flow state of one instrument.
#[derive(Debug)]
struct Flow {
    rng: ChaCha8Rng,
    base: Option<usize>,
    quote: Option<usize>,
    lag_steps: usize,
    half_spread: f64,
    /// Median worth of a level near the top, in USD.
    size_usd: f64,
    rate_per_s: f64,
    next_ns: u64,
    offset: f64,
    /// Set when the next event is a push or its removal: it trades through what is stale.
    forced: bool,
    dislocated_until: u64,
    crossed: Option<(u64, Side, i64)>,
}

/// Kinds of dislocation; each has its own clock so that each kind keeps occurring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Outright,
    CrossRate,
    Conversion,
}

/// Latent log prices and their recent past.
#[derive(Debug)]
struct Latent {
    rng: ChaCha8Rng,
    log: Vec<f64>,
    home: Vec<f64>,
    vol: Vec<f64>,
    jump: Vec<f64>,
    /// Ring of past states, newest at `newest`.
    past: Vec<Vec<f64>>,
    newest: usize,
    next_ns: u64,
}

/// All instruments, and what moves them.
#[derive(Debug)]
pub struct Market {
    instruments: Vec<Instrument>,
    latent: Latent,
    dislocations: Vec<(Class, u64)>,
    dislocation_rng: ChaCha8Rng,
    step_ns: u64,
    /// Levels a side that take part in the flow, and still ones below, by venue index.
    levels: usize,
    deep: [usize; 3],
    every_ns: u64,
    bps: [f64; 2],
    hold_ms: [u64; 2],
    rate: f64,
    /// By venue index.
    burst: [f64; 3],
    moving: bool,
}

const PAST_STEPS: usize = 256;

impl Market {
    /// Builds all instruments of the enabled venues, with full books if the source is the model.
    ///
    /// # Errors
    /// Returns a [`SimError::Config`] for a configuration that does not validate.
    pub fn new(cfg: &SimConfig) -> Result<Self, SimError> {
        cfg.validate()?;
        let assets: Vec<&String> = cfg.market.assets.keys().collect();
        let home: Vec<f64> = cfg.market.assets.values().map(|a| a.usd.ln()).collect();
        let step_s = to_f64(cfg.market.step_ms) / 1e3;
        let latent = Latent {
            rng: rng(cfg.seed, 0),
            log: home.clone(),
            vol: cfg.market.assets.values().map(|a| a.vol_bps / 1e4 * step_s.sqrt()).collect(),
            jump: cfg.market.assets.values().map(|a| a.jump_bps / 1e4).collect(),
            past: vec![home.clone(); PAST_STEPS],
            home,
            newest: 0,
            next_ns: 0,
        };
        let mut market = Self {
            instruments: Vec::new(),
            latent,
            dislocations: Vec::new(),
            dislocation_rng: rng(cfg.seed, 1),
            step_ns: cfg.market.step_ms * MS,
            levels: cfg.market.levels,
            deep: Venue::ALL.map(|v| cfg.deep_levels(v)),
            every_ns: cfg.market.dislocation_every_ms * MS,
            bps: cfg.market.dislocation_bps,
            hold_ms: cfg.market.dislocation_ms,
            rate: cfg.market.rate,
            burst: [1.0; 3],
            moving: matches!(cfg.source, Source::Model),
        };
        for venue in Venue::ALL.into_iter().filter(|v| cfg.enabled(*v)) {
            for one in cfg.instruments(venue) {
                let grid = |key: &str, text: &str| {
                    Grid::parse_step(text).ok_or_else(|| SimError::Config {
                        key: format!("{venue}.instruments.{}.{key}", one.symbol),
                        why: "is not a positive step".to_owned(),
                    })
                };
                let spec = Spec {
                    venue,
                    symbol: one.symbol.clone(),
                    base: one.base.clone(),
                    quote: one.quote.clone(),
                    tick: grid("tick", &one.tick)?,
                    lot: grid("lot", &one.lot)?,
                    min_qty: one.min_qty.clone(),
                    min_notional: one.min_notional.clone(),
                    step_ticks: 1,
                    step_lots: 1,
                };
                let find = |name: &str| assets.iter().position(|a| *a == name);
                let stream = 16 + market.instruments.len() as u64;
                let lag = cfg.lag_ms(venue) / cfg.market.step_ms;
                let lag = usize::try_from(lag).unwrap_or(0).min(PAST_STEPS - 1);
                let flow = Flow::new(
                    &spec,
                    rng(cfg.seed, stream),
                    [find(&spec.base), find(&spec.quote)],
                    lag,
                );
                market.add(spec, flow);
            }
        }
        if market.moving {
            market.open();
        }
        Ok(market)
    }

    fn add(&mut self, spec: Spec, mut flow: Flow) {
        let update_id = 40_000_000_000 + u64::from(flow.rng.random::<u32>());
        let trade_id = 1_000_000_000 + u64::from(flow.rng.random::<u32>() >> 4);
        self.instruments.push(Instrument {
            spec: Arc::new(spec),
            book: Book::default(),
            update_id,
            trade_id,
            status: Status::Online,
            flow,
            shadow: None,
            resting: BTreeMap::new(),
        });
    }

    /// Fills all books and sets all clocks.
    fn open(&mut self) {
        for class in [Class::Outright, Class::CrossRate, Class::Conversion] {
            if self.every_ns > 0 {
                let first = self.dislocation_rng.random_range(self.every_ns / 4..=self.every_ns);
                self.dislocations.push((class, first));
            }
        }
        for inst in &mut self.instruments {
            let fair = inst.flow.fair(&self.latent, &inst.spec);
            let deep = self.deep[inst.spec.venue.idx()];
            let mut work = Work::new(&mut inst.book, true, [1, 1]);
            inst.flow.fill(&mut work, &inst.spec, fair, self.levels, deep);
            inst.flow.next_ns = inst.flow.gap(self.rate);
        }
    }

    /// All instruments, by index.
    #[must_use]
    pub fn instruments(&self) -> &[Instrument] {
        &self.instruments
    }

    /// Returns the index of a symbol at a venue.
    #[must_use]
    pub fn find(&self, venue: Venue, symbol: &str) -> Option<usize> {
        self.instruments.iter().position(|i| i.spec.venue == venue && i.spec.symbol == symbol)
    }

    /// Returns the next event up to `until_ns`, or `None` when there is none left before it.
    ///
    /// The event is already applied to the book when it is returned.
    pub fn next(&mut self, until_ns: u64) -> Option<Event> {
        while self.moving {
            let (flow_at, inst) = self
                .instruments
                .iter()
                .enumerate()
                .map(|(i, inst)| (inst.flow.next_ns, i))
                .min()
                .unwrap_or((u64::MAX, 0));
            let (push_at, class) = self
                .dislocations
                .iter()
                .enumerate()
                .map(|(i, (_, at))| (*at, i))
                .min()
                .unwrap_or((u64::MAX, 0));
            // Latent first, then pushes, then flow: the order at equal times is part of the seed.
            let due = self.latent.next_ns.min(push_at).min(flow_at);
            if due > until_ns {
                return None;
            }
            if due == self.latent.next_ns {
                self.latent.step();
                self.latent.next_ns += self.step_ns;
            } else if due == push_at {
                self.dislocate(class, due);
            } else if let Some(event) = self.flow_event(inst, due) {
                return Some(event);
            }
        }
        None
    }

    fn dislocate(&mut self, which: usize, now: u64) {
        let (class, _) = self.dislocations[which];
        let rng = &mut self.dislocation_rng;
        let mean = to_f64(self.every_ns);
        self.dislocations[which].1 = now + to_u64(mean * rng.random_range(0.5..1.5)).max(MS);
        let of_class: Vec<usize> = (0..self.instruments.len())
            .filter(|i| Class::of(&self.instruments[*i].spec) == class)
            .collect();
        let magnitude =
            (self.bps[0].ln() + rng.random::<f64>() * (self.bps[1].ln() - self.bps[0].ln())).exp();
        let sign = if rng.random::<bool>() { 1.0 } else { -1.0 };
        let hold = rng.random_range(self.hold_ms[0]..=self.hold_ms[1]) * MS;
        if of_class.is_empty() {
            return;
        }
        let inst = of_class[rng.random_range(0..of_class.len())];
        let free = self.instruments[inst].flow.dislocated_until <= now;
        if free && self.instruments[inst].status == Status::Online {
            self.push(inst, now, sign * magnitude, hold);
        }
    }

    fn push(&mut self, inst: usize, now: u64, bps: f64, hold_ns: u64) {
        let flow = &mut self.instruments[inst].flow;
        flow.offset = bps / 1e4;
        flow.dislocated_until = now + hold_ns;
        flow.forced = true;
        flow.next_ns = now;
    }

    /// Pushes an instrument off by `bps` until competitors remove it after `hold_ns`.
    pub fn spike(&mut self, inst: usize, now_ns: u64, bps: f64, hold_ns: u64) {
        self.push(inst, now_ns, bps, hold_ns);
    }

    /// Crosses a book by one bid above the best ask, until `hold_ns` later.
    pub fn cross(&mut self, inst: usize, now_ns: u64, hold_ns: u64) -> Option<Event> {
        let it = &mut self.instruments[inst];
        if it.flow.crossed.is_some() {
            return None;
        }
        let ask = it.flow_book().best(Side::Ask)?;
        let px = ask.px + 2 * it.spec.step_ticks;
        it.flow.crossed = Some((now_ns + hold_ns, Side::Bid, px));
        it.flow.next_ns = now_ns + hold_ns;
        let done = it.work(false, |work, _, _| work.set(Side::Bid, px, ask.qty.max(1)));
        Some(it.event(inst, now_ns, done))
    }

    /// Multiplies a venue's order-flow rate until called again.
    pub fn set_burst(&mut self, venue: Venue, factor: f64, now_ns: u64) {
        self.burst[venue.idx()] = factor.clamp(0.01, 1_000.0);
        for inst in self.instruments.iter_mut().filter(|i| i.spec.venue == venue) {
            inst.flow.next_ns = inst.flow.next_ns.min(now_ns + 50 * MS);
        }
    }

    /// Halts or resumes an instrument. A halted book stands still.
    pub fn set_status(&mut self, inst: usize, status: Status) {
        self.instruments[inst].status = status;
    }

    /// Applies given quantities (a recorded message) as one event; crossing is the data's business.
    pub fn apply(&mut self, inst: usize, at_ns: u64, levels: &[(Side, i64, i64)]) -> Option<Event> {
        let it = &mut self.instruments[inst];
        let done = it.work(false, |work, _, _| {
            for (side, px, qty) in levels {
                work.set(*side, *px, *qty);
            }
        });
        (!done.changes.is_empty()).then(|| it.event(inst, at_ns, done))
    }

    /// Empties a book and fills it with a recorded snapshot.
    pub fn replace(
        &mut self,
        inst: usize,
        at_ns: u64,
        levels: &[(Side, i64, i64)],
    ) -> Option<Event> {
        let it = &self.instruments[inst];
        let mut all = Vec::new();
        for side in [Side::Bid, Side::Ask] {
            all.extend(it.flow_book().levels(side).map(|l| (side, l.px, 0)));
        }
        all.extend_from_slice(levels);
        self.apply(inst, at_ns, &all)
    }

    /// Returns whether the seeded model moves the books: only then do clients' orders leave a mark on them. A
    /// recorded stream cannot be changed after the fact.
    #[must_use]
    pub fn is_model(&self) -> bool {
        self.moving
    }

    /// Opens a batch of changes of one book.
    pub(crate) fn begin(&self, inst: usize) -> Batch {
        let book = &self.instruments[inst].book;
        let before = [book.best(Side::Bid), book.best(Side::Ask)];
        Batch { changes: Vec::new(), before, trades: Vec::new() }
    }

    /// Changes one price by what the flow and the clients have there.
    pub(crate) fn nudge(
        &mut self,
        batch: &mut Batch,
        inst: usize,
        side: Side,
        px: i64,
        [flow, clients]: [i64; 2],
    ) {
        if !self.moving {
            return;
        }
        let it = &mut self.instruments[inst];
        if it.shadow.is_none() && clients != 0 {
            it.shadow = Some(it.book.clone());
        }
        if let Some(shadow) = &mut it.shadow {
            let qty = (shadow.get(side, px) + flow).max(0);
            shadow.set(side, px, qty);
        }
        if clients != 0 {
            let total = it.resting.get(&(side, px)).copied().unwrap_or(0) + clients;
            if total > 0 {
                it.resting.insert((side, px), total);
            } else {
                it.resting.remove(&(side, px));
            }
            if it.resting.is_empty() {
                it.shadow = None;
            }
        }
        let old = it.book.get(side, px);
        let new = (old + flow + clients).max(0);
        it.book.set(side, px, new);
        batch.changes.push(Change { side, px, old, new });
    }

    /// Makes one event of a batch, joined to `event` if that was not published yet.
    pub(crate) fn end(
        &mut self,
        inst: usize,
        at_ns: u64,
        batch: Batch,
        event: Option<Event>,
    ) -> Option<Event> {
        let it = &mut self.instruments[inst];
        let after = [it.book.best(Side::Bid), it.book.best(Side::Ask)];
        let mut done = Done {
            changes: merge_changes(batch.changes),
            bbo_changed: after != batch.before,
            trades: batch.trades,
        };
        let Some(mut event) = event else {
            let nothing = done.changes.is_empty() && done.trades.is_empty();
            return (!nothing).then(|| it.event(inst, at_ns, done));
        };
        // The event took its ids when it was made; nothing was made of this book since.
        it.update_id = event.first_id - 1;
        event.changes.append(&mut done.changes);
        done.changes = merge_changes(std::mem::take(&mut event.changes));
        done.bbo_changed |= event.bbo_changed;
        let mut joined = it.event(inst, event.at_ns, done);
        event.trades.append(&mut joined.trades);
        joined.trades = event.trades;
        Some(joined)
    }

    /// Takes the next trade id of an instrument, for a trade that is not printed.
    pub(crate) fn claim_trade_id(&mut self, inst: usize) -> u64 {
        self.instruments[inst].trade_id += 1;
        self.instruments[inst].trade_id
    }

    /// Quantity the flow has at a price.
    #[must_use]
    pub fn flow_qty(&self, inst: usize, side: Side, px: i64) -> i64 {
        self.instruments[inst].flow_book().get(side, px)
    }

    /// Best level of the flow.
    #[must_use]
    pub fn flow_best(&self, inst: usize, side: Side) -> Option<Level> {
        self.instruments[inst].flow_book().best(side)
    }

    /// Quantity of clients' orders at a price.
    #[must_use]
    pub fn client_qty(&self, inst: usize, side: Side, px: i64) -> i64 {
        self.instruments[inst].resting.get(&(side, px)).copied().unwrap_or(0)
    }

    /// Makes the steps of an instrument coarser or as fine as configured, and the least worth of an order
    /// another. Levels off the new price step move to the next worse price; returns that event.
    ///
    /// # Errors
    /// Returns why the steps cannot be used.
    pub fn set_rules(
        &mut self,
        inst: usize,
        at_ns: u64,
        tick: Option<Grid>,
        lot: Option<Grid>,
        min_notional: Option<String>,
    ) -> Result<Option<Event>, String> {
        let spec = Arc::make_mut(&mut self.instruments[inst].spec);
        let multiple = |wanted: Grid, grid: Grid| {
            let text = wanted.trimmed(1);
            grid.parse(&text).ok_or_else(|| format!("{text} is no multiple of {}", grid.trimmed(1)))
        };
        let ticks = tick.map_or(Ok(spec.step_ticks), |wanted| multiple(wanted, spec.tick))?;
        let lots = lot.map_or(Ok(spec.step_lots), |wanted| multiple(wanted, spec.lot))?;
        (spec.step_ticks, spec.step_lots) = (ticks, lots);
        if let Some(least) = min_notional {
            spec.min_notional = least;
        }
        let mut batch = self.begin(inst);
        for side in [Side::Bid, Side::Ask] {
            let off: Vec<Level> = self.instruments[inst]
                .flow_book()
                .levels(side)
                .filter(|l| l.px % ticks != 0)
                .collect();
            for level in off {
                self.nudge(&mut batch, inst, side, level.px, [-level.qty, 0]);
                let px = on_step(side, level.px, ticks);
                if px > 0 {
                    self.nudge(&mut batch, inst, side, px, [level.qty, 0]);
                }
            }
        }
        Ok(self.end(inst, at_ns, batch, None))
    }

    /// Sets the update id of a book rebuilt from recorded messages.
    pub fn set_update_id(&mut self, inst: usize, id: u64) {
        self.instruments[inst].update_id = id;
    }

    fn flow_event(&mut self, inst: usize, now: u64) -> Option<Event> {
        let it = &mut self.instruments[inst];
        it.flow.next_ns = now + it.flow.gap(self.rate * self.burst[it.spec.venue.idx()]);
        if let Some((_, side, px)) = it.flow.crossed.take() {
            let done = it.work(false, |work, _, _| work.set(side, px, 0));
            return Some(it.event(inst, now, done));
        }
        if it.flow.offset != 0.0 {
            if it.flow.dislocated_until <= now {
                it.flow.offset = 0.0;
                it.flow.forced = true;
            } else {
                // The removal happens when it is due, however slow the flow.
                it.flow.next_ns = it.flow.next_ns.min(it.flow.dislocated_until);
            }
        }
        if it.status == Status::Halted {
            return None;
        }
        let fair = it.flow.fair(&self.latent, &it.spec);
        let levels = self.levels;
        let done = it.work(true, |work, flow, spec| flow.trade(work, spec, fair, levels));
        (!done.changes.is_empty()).then(|| it.event(inst, now, done))
    }
}

impl Instrument {
    /// The book as the flow knows it.
    fn flow_book(&self) -> &Book {
        self.shadow.as_ref().unwrap_or(&self.book)
    }

    /// Lets the flow work on its book, and brings the public one after it.
    fn work(&mut self, guard: bool, act: impl FnOnce(&mut Work<'_>, &mut Flow, &Spec)) -> Done {
        let steps = [self.spec.step_ticks, self.spec.step_lots];
        let Some(shadow) = &mut self.shadow else {
            let mut work = Work::new(&mut self.book, guard, steps);
            act(&mut work, &mut self.flow, &self.spec);
            return work.finish();
        };
        let mut work = Work::new(shadow, guard, steps);
        act(&mut work, &mut self.flow, &self.spec);
        let mut done = work.finish();
        let before = [self.book.best(Side::Bid), self.book.best(Side::Ask)];
        for change in &mut done.changes {
            let ours = self.resting.get(&(change.side, change.px)).copied().unwrap_or(0);
            change.old += ours;
            change.new += ours;
            self.book.set(change.side, change.px, change.new);
        }
        let after = [self.book.best(Side::Bid), self.book.best(Side::Ask)];
        done.bbo_changed = before != after;
        done
    }

    fn event(&mut self, inst: usize, at_ns: u64, done: Done) -> Event {
        let first_id = self.update_id + 1;
        self.update_id += done.changes.len() as u64;
        let trades = done
            .trades
            .iter()
            .map(|(px, qty, maker)| {
                self.trade_id += 1;
                Trade { id: self.trade_id, px: *px, qty: *qty, maker: *maker }
            })
            .collect();
        Event {
            at_ns,
            inst,
            changes: done.changes,
            trades,
            first_id,
            last_id: self.update_id,
            bbo_changed: done.bbo_changed,
        }
    }
}

impl Class {
    fn of(spec: &Spec) -> Self {
        let stable = |a: &str| matches!(a, "USD" | "USDT" | "USDC");
        match (stable(&spec.base), stable(&spec.quote)) {
            (true, _) => Self::Conversion,
            (false, true) => Self::Outright,
            (false, false) => Self::CrossRate,
        }
    }
}

impl Latent {
    fn step(&mut self) {
        for i in 0..self.log.len() {
            let mut moved = self.vol[i] * gauss(&mut self.rng);
            if self.jump[i] > 0.0 {
                // A jump about every five seconds and asset, at the default step of 5 ms.
                if self.rng.random::<f64>() < 0.001 {
                    moved += self.jump[i] * gauss(&mut self.rng);
                }
                // Keeps a week-long run within a factor of its start.
                moved += (self.home[i] - self.log[i]) * 1e-7;
            } else {
                moved += (self.home[i] - self.log[i]) * 2e-4;
            }
            self.log[i] += moved;
        }
        self.newest = (self.newest + 1) % PAST_STEPS;
        self.past[self.newest].copy_from_slice(&self.log);
    }

    fn at(&self, asset: Option<usize>, lag_steps: usize) -> f64 {
        let when = (self.newest + PAST_STEPS - lag_steps) % PAST_STEPS;
        asset.map_or(0.0, |a| self.past[when][a])
    }
}

/// Distance of the `i`-th level from the top in basis points: dense near the top, thin below.
fn profile_bps(i: f64) -> f64 {
    0.3 * (i + i * i / 20.0)
}

impl Flow {
    fn new(spec: &Spec, rng: ChaCha8Rng, assets: [Option<usize>; 2], lag_steps: usize) -> Self {
        let venue = [1.2, 1.1, 0.8][spec.venue.idx()];
        let (rate, half_bps, size_usd) = match (Class::of(spec), spec.base.as_str()) {
            (Class::Conversion, _) => (15.0, 0.4, 40_000.0),
            (Class::CrossRate, "ETH") => (20.0, 1.2, 3_000.0),
            (Class::CrossRate, _) => (12.0, 2.0, 2_000.0),
            (Class::Outright, "BTC") => (60.0, 0.3, 6_000.0),
            (Class::Outright, "ETH") => (45.0, 0.5, 5_000.0),
            (Class::Outright, _) => (30.0, 0.8, 3_000.0),
        };
        Self {
            rng,
            base: assets[0],
            quote: assets[1],
            lag_steps,
            half_spread: half_bps / 1e4,
            size_usd,
            rate_per_s: rate * venue,
            next_ns: u64::MAX,
            offset: 0.0,
            forced: false,
            dislocated_until: 0,
            crossed: None,
        }
    }

    /// Time to the next event of this instrument.
    fn gap(&mut self, rate: f64) -> u64 {
        let mean = 1e9 / (self.rate_per_s * rate).max(1e-3);
        let u: f64 = 1.0 - self.rng.random::<f64>();
        to_u64(-u.ln() * mean).clamp(1, 3_600_000_000_000)
    }

    /// Fair price in ticks, as this venue sees it.
    fn fair(&self, latent: &Latent, spec: &Spec) -> f64 {
        let log = latent.at(self.base, self.lag_steps) - latent.at(self.quote, self.lag_steps);
        (log + self.offset).exp() / spec.tick.step()
    }

    fn half(&self, fair: f64) -> f64 {
        (fair * self.half_spread).max(0.5)
    }

    /// Price of a side's first level when it quotes around `fair`.
    fn target(&self, side: Side, fair: f64) -> f64 {
        let half = self.half(fair);
        match side {
            Side::Bid => (fair - half).floor(),
            Side::Ask => (fair + half).ceil(),
        }
    }

    /// Price `bps` behind `top`, in ticks.
    fn behind(side: Side, top: f64, bps: f64) -> i64 {
        let away = top * bps / 1e4;
        to_i64(match side {
            Side::Bid => (top - away).floor(),
            Side::Ask => (top + away).ceil(),
        })
    }

    /// Quantity in lots of a level `bps` behind the top.
    fn size(&mut self, spec: &Spec, fair: f64, bps: f64) -> i64 {
        let worth =
            self.size_usd * (0.9 * gauss(&mut self.rng)).exp() * (1.0 + bps / 25.0).min(8.0);
        // Quote currencies other than BTC are dollars, near enough for a size.
        let quote_usd = if spec.quote == "BTC" { 65_000.0 } else { 1.0 };
        let lots = worth / (fair * spec.tick.step() * quote_usd * spec.lot.step());
        to_i64(lots).max(1)
    }

    /// Builds a whole book around `fair`.
    fn fill(&mut self, work: &mut Work<'_>, spec: &Spec, fair: f64, levels: usize, deep: usize) {
        for side in [Side::Bid, Side::Ask] {
            let top = self.target(side, fair);
            for i in 0..levels {
                let bps = profile_bps(to_f64(i as u64)).min(4_000.0);
                let qty = self.size(spec, fair, bps);
                work.set(side, Self::behind(side, top, bps), qty);
            }
            // The still levels lie between the last flowing one and 80 % of the price.
            let first = profile_bps(to_f64(levels as u64)).min(4_000.0);
            for i in 1..=deep {
                let share = to_f64(i as u64) / to_f64(deep as u64);
                let bps = first + share * (8_000.0 - first);
                let qty = self.size(spec, fair, bps);
                work.set(side, Self::behind(side, top, bps), qty);
            }
        }
    }

    /// One event of order flow.
    fn trade(&mut self, work: &mut Work<'_>, spec: &Spec, fair: f64, levels: usize) {
        let forced = std::mem::take(&mut self.forced);
        let mut acted = false;
        for stale in [Side::Ask, Side::Bid] {
            acted |= self.requote(work, spec, fair, stale, forced);
        }
        for side in [Side::Ask, Side::Bid] {
            if work.book.len(side) < 40 {
                self.fill_side(work, spec, fair, side, 40);
            }
        }
        if !acted {
            self.idle(work, spec, fair, levels);
        }
    }

    /// Removes what `stale` offers through the fair price, then brings the other side up to it.
    fn requote(
        &mut self,
        work: &mut Work<'_>,
        spec: &Spec,
        fair: f64,
        stale: Side,
        forced: bool,
    ) -> bool {
        let half = self.half(fair);
        let edge = match stale {
            Side::Ask => to_i64((fair + 0.2 * half).ceil()),
            Side::Bid => to_i64((fair - 0.2 * half).floor()),
        };
        let trades = forced || self.rng.random::<f64>() < 0.35;
        let mut removed = 0;
        while let Some(level) = work.book.best(stale)
            && stale.key(level.px) > stale.key(edge)
        {
            if trades && removed < 60 {
                work.trades.push((level.px, level.qty, stale));
            }
            work.set(stale, level.px, 0);
            removed += 1;
        }
        let side = stale.other();
        let top = self.target(side, fair);
        let best = work.book.best(side).map_or(0, |l| l.px);
        let behind = match side {
            Side::Bid => top - to_f64_i(best),
            Side::Ask => to_f64_i(best) - top,
        };
        if best != 0 && behind <= 1.5 * half {
            return removed > 0;
        }
        // A ladder from the new top down to the old best: a move comes with depth.
        for k in 0..24u64 {
            let px = Self::behind(side, top, profile_bps(to_f64(k) * 1.7));
            if best != 0 && side.key(px) <= side.key(best) {
                break;
            }
            let qty = self.size(spec, fair, 0.0);
            work.set(side, px, qty);
        }
        true
    }

    /// Adds levels until a side has `count`.
    fn fill_side(&mut self, work: &mut Work<'_>, spec: &Spec, fair: f64, side: Side, count: usize) {
        let top = self.target(side, fair);
        for i in 0..count * 2 {
            if work.book.len(side) >= count {
                break;
            }
            let bps = profile_bps(to_f64(i as u64));
            let qty = self.size(spec, fair, bps);
            work.set(side, Self::behind(side, top, bps), qty);
        }
    }

    /// Adds, changes, cancels and small takes while the quotes are right.
    fn idle(&mut self, work: &mut Work<'_>, spec: &Spec, fair: f64, levels: usize) {
        let many = 1
            + usize::from(self.rng.random::<f64>() < 0.35)
            + usize::from(self.rng.random::<f64>() < 0.15);
        for _ in 0..many {
            let side = if self.rng.random::<bool>() { Side::Bid } else { Side::Ask };
            let depth = -(1.0 - self.rng.random::<f64>()).ln() * 14.0;
            // Above the wanted number of levels cancels win, below it adds do.
            let near = self.near(work.book, side, fair, levels);
            let add = if near > levels { 0.35 } else { 0.58 };
            let draw: f64 = self.rng.random();
            if draw < add {
                // What moves swept away grows again over the whole profile, not only near the top.
                let thin = work.book.len(side) < levels && self.rng.random::<bool>();
                let place =
                    if thin { self.rng.random::<f64>() * to_f64(levels as u64) } else { depth };
                let bps = profile_bps(place).min(4_000.0);
                let px = Self::behind(side, self.target(side, fair), bps);
                let qty = self.size(spec, fair, bps);
                work.set(side, px, qty);
            } else if draw < 0.92 {
                let rank = usize::try_from(to_u64(depth)).unwrap_or(0);
                if work.book.len(side) > 40
                    && let Some(level) = work.book.at(side, rank)
                {
                    work.set(side, level.px, 0);
                }
            } else if let Some(level) = work.book.best(side)
                && work.book.len(side) > 40
            {
                let part = self.rng.random_range(0.05..1.2);
                let qty = to_i64(to_f64_i(level.qty) * part).clamp(1, level.qty);
                work.trades.push((level.px, qty, side));
                work.set(side, level.px, level.qty - qty);
            }
        }
    }

    /// How many levels take part in the flow, found without counting.
    fn near(&self, book: &Book, side: Side, fair: f64, levels: usize) -> usize {
        let far = Self::behind(side, fair, profile_bps(to_f64(levels as u64)).min(4_000.0));
        match book.at(side, levels) {
            Some(level) if side.key(level.px) > side.key(far) => levels + 1,
            _ => levels,
        }
    }
}

/// Collects the changes of one event and keeps the book uncrossed.
struct Work<'a> {
    book: &'a mut Book,
    changes: Vec<Change>,
    trades: Vec<(i64, i64, Side)>,
    before: [Option<Level>; 2],
    guard: bool,
    /// Ticks and lots a price and a quantity must be multiples of.
    steps: [i64; 2],
}

struct Done {
    changes: Vec<Change>,
    trades: Vec<(i64, i64, Side)>,
    bbo_changed: bool,
}

impl<'a> Work<'a> {
    fn new(book: &'a mut Book, guard: bool, steps: [i64; 2]) -> Self {
        let before = [book.best(Side::Bid), book.best(Side::Ask)];
        Self { book, changes: Vec::new(), trades: Vec::new(), before, guard, steps }
    }

    fn set(&mut self, side: Side, mut px: i64, mut qty: i64) {
        if qty > 0 && self.steps != [1, 1] {
            px = on_step(side, px, self.steps[0]);
            qty = qty.div_euclid(self.steps[1]).max(1) * self.steps[1];
        }
        if px <= 0 {
            return;
        }
        if self.guard
            && qty > 0
            && let Some(opposite) = self.book.best(side.other())
            && side.reaches(px, opposite.px)
        {
            return;
        }
        let old = self.book.set(side, px, qty);
        if old != qty {
            self.changes.push(Change { side, px, old, new: qty });
        }
    }

    fn finish(self) -> Done {
        let after = [self.book.best(Side::Bid), self.book.best(Side::Ask)];
        let changes = merge_changes(self.changes);
        Done { changes, trades: self.trades, bbo_changed: after != self.before }
    }
}

/// The price itself, or the next worse one on a step.
fn on_step(side: Side, px: i64, step: i64) -> i64 {
    match side {
        Side::Bid => px.div_euclid(step) * step,
        Side::Ask => -(-px).div_euclid(step) * step,
    }
}

/// Merges several changes of one price into one, in the place of the first.
fn merge_changes(all: Vec<Change>) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::with_capacity(all.len());
    let small = all.len() <= 64;
    let mut seen = std::collections::HashMap::new();
    for change in all {
        let earlier = if small {
            changes.iter().position(|c| c.side == change.side && c.px == change.px)
        } else {
            seen.get(&(change.side, change.px)).copied()
        };
        match earlier {
            Some(at) => changes[at].new = change.new,
            None => {
                if !small {
                    seen.insert((change.side, change.px), changes.len());
                }
                changes.push(change);
            }
        }
    }
    changes.retain(|c| c.old != c.new);
    changes
}

pub(crate) fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// One standard normal number (Box and Muller).
fn gauss(rng: &mut ChaCha8Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[expect(clippy::cast_precision_loss, reason = "model arithmetic")]
fn to_f64(x: u64) -> f64 {
    x as f64
}

#[expect(clippy::cast_precision_loss, reason = "model arithmetic")]
fn to_f64_i(x: i64) -> f64 {
    x as f64
}

#[expect(clippy::cast_possible_truncation, reason = "saturating by definition of the cast")]
fn to_i64(x: f64) -> i64 {
    x as i64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating cast")]
fn to_u64(x: f64) -> u64 {
    x as u64
}

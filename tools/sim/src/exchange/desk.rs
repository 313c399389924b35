//! The desk: accounts, orders and matching against the books.
//!
//! Invariant: price-time. A taking order meets the best price first, and at one price the flow that was there
//! before a resting order, then that order, then the flow that came later. Money is conserved: for every asset,
//! all accounts and [`House`] add up to the openings. No clock, no I/O: time is an argument.
//!
//! The flow is as large as what it meets: when it trades at a price, resting orders in front of it and behind what
//! it consumed fill in addition, up to the flow's own quantity. When it quotes through a resting order without
//! trading, the quote is an incoming order and trades with it at the resting price.

use std::collections::{BTreeMap, HashMap};

use rand::Rng;

use super::account::{Account, Balance, FeeTier, House};
use super::order::{
    Ended, Fill, Mode, NewOrder, Order, OrderType, Reject, Report, Size, Status, Stp, Tif, What,
};
use crate::amount::Amount;
use crate::book::Side;
use crate::config::Venue;
use crate::market::{Event, Market, rng};

/// Orders one account may have open at once and instrument (Binance's MAX_NUM_ORDERS, Kraken's Pro tier).
const OPEN_MAX: usize = 200;

/// All accounts and orders of a run.
#[derive(Debug)]
pub struct Desk {
    pub(super) accounts: Vec<Account>,
    pub(super) orders: Vec<Order>,
    pub(super) fills: Vec<Fill>,
    /// Resting orders of an instrument, bids then asks, best first.
    pub(super) resting: BTreeMap<usize, [Vec<usize>; 2]>,
    by_ext: HashMap<(Venue, String), usize>,
    by_client: HashMap<(usize, String), usize>,
    pub(super) house: BTreeMap<(Venue, String), House>,
    modes: [Mode; 3],
    pub(super) late: Vec<(u64, usize)>,
    pub(super) gtd: Vec<(u64, usize)>,
    reports: Vec<Report>,
    pub(super) events: Vec<Event>,
    /// What one unit of a fee asset is worth in a quote asset.
    fee_price: Amount,
    salt: u64,
}

/// One piece of what a taking order meets.
#[derive(Debug)]
enum Step {
    Flow { px: i64, lots: i64 },
    Client { order: usize, px: i64, lots: i64 },
    Prevent { order: usize, lots: i64, mode: Stp },
}

/// Digits a venue keeps of an asset.
#[must_use]
pub fn money_decimals(venue: Venue, asset: &str) -> u8 {
    match (venue, asset) {
        (Venue::Binance, _) => 8,
        (Venue::Coinbase, _) => 16,
        (Venue::Kraken, "USD" | "EUR") => 4,
        (Venue::Kraken, "USDT" | "USDC") => 8,
        (Venue::Kraken, _) => 10,
    }
}

pub(super) fn at(side: Side) -> usize {
    usize::from(side == Side::Ask)
}

impl Step {
    fn traded(&self) -> i64 {
        match self {
            Self::Flow { lots, .. } | Self::Client { lots, .. } => *lots,
            Self::Prevent { .. } => 0,
        }
    }
}

/// Keeps the first `most` lots of a plan.
fn cut(steps: &mut Vec<Step>, mut most: i64) {
    steps.retain_mut(|step| match step {
        Step::Flow { lots, .. } | Step::Client { lots, .. } => {
            *lots = (*lots).min(most);
            most -= *lots;
            *lots > 0
        }
        Step::Prevent { .. } => most > 0,
    });
}

impl Desk {
    /// Returns a desk without accounts.
    #[must_use]
    pub fn new(seed: u64, fee_price: Amount) -> Self {
        let mut rng = rng(seed, 7);
        Self {
            accounts: Vec::new(),
            orders: Vec::new(),
            fills: Vec::new(),
            resting: BTreeMap::new(),
            by_ext: HashMap::new(),
            by_client: HashMap::new(),
            house: BTreeMap::new(),
            modes: [Mode::Online; 3],
            late: Vec::new(),
            gtd: Vec::new(),
            reports: Vec::new(),
            events: Vec::new(),
            fee_price,
            salt: rng.random(),
        }
    }

    /// Opens an account and returns its index.
    pub fn open_account(
        &mut self,
        name: &str,
        venue: Venue,
        fees: FeeTier,
        opening: BTreeMap<String, Amount>,
    ) -> usize {
        let balances = opening
            .iter()
            .map(|(asset, total)| (asset.clone(), Balance { total: *total, held: Amount::ZERO }));
        self.accounts.push(Account {
            name: name.to_owned(),
            venue,
            balances: balances.collect(),
            opening,
            external: BTreeMap::new(),
            fees,
            open: Default::default(),
            updated_ns: 0,
            dead_man_ns: None,
        });
        self.accounts.len() - 1
    }

    /// All accounts by index.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Returns an account's index.
    #[must_use]
    pub fn find_account(&self, name: &str, venue: Venue) -> Option<usize> {
        self.accounts.iter().position(|a| a.venue == venue && a.name == name)
    }

    /// One account, to change its tier or its switch.
    pub fn account_mut(&mut self, account: usize) -> &mut Account {
        &mut self.accounts[account]
    }

    /// All orders ever accepted, by index.
    #[must_use]
    pub fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// All fills in order.
    #[must_use]
    pub fn fills(&self) -> &[Fill] {
        &self.fills
    }

    /// The other side of the books.
    #[must_use]
    pub fn house(&self) -> &BTreeMap<(Venue, String), House> {
        &self.house
    }

    /// What a venue takes now.
    #[must_use]
    pub fn mode(&self, venue: Venue) -> Mode {
        self.modes[venue.idx()]
    }

    /// Changes what a venue takes.
    pub fn set_mode(&mut self, venue: Venue, mode: Mode) {
        self.modes[venue.idx()] = mode;
    }

    /// Takes what owners are to be told.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Takes the events of the books that orders made.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Finds an order by the venue's name for it.
    #[must_use]
    pub fn by_ext(&self, venue: Venue, ext: &str) -> Option<usize> {
        self.by_ext.get(&(venue, ext.to_owned())).copied()
    }

    /// Finds the newest order of an account with a client id.
    #[must_use]
    pub fn by_client(&self, account: usize, client_id: &str) -> Option<usize> {
        self.by_client.get(&(account, client_id.to_owned())).copied()
    }

    /// Returns an order as its venue shows it: a cancel that was acknowledged shows, though it may still fill.
    #[must_use]
    pub fn view(&self, id: usize) -> Order {
        let mut order = self.orders[id].clone();
        if order.canceling && !order.status.is_done() {
            order.status = Status::Canceled;
            order.ended = Some(Ended::User);
        }
        order
    }

    /// A fixed random-looking number for an id.
    #[must_use]
    pub fn scramble(&self, n: u64) -> u64 {
        // SplitMix64.
        let mut z = (self.salt ^ n).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns the venue's name of the `n`-th order, or of something else that `kind` tells apart.
    #[must_use]
    pub fn ext_id(&self, venue: Venue, kind: char, n: usize) -> String {
        let n = n as u64;
        match venue {
            Venue::Binance => (28_000_000_000 + n).to_string(),
            Venue::Coinbase => {
                let (a, b) = (self.scramble(n << 8 | kind as u64), self.scramble(!n));
                format!(
                    "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
                    a >> 32,
                    a >> 16 & 0xffff,
                    a & 0xfff,
                    b >> 52,
                    (b & 0xffff) << 32 | n & 0xffff_ffff
                )
            }
            Venue::Kraken => {
                const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
                let mut rest =
                    u128::from(self.scramble(n << 8 | kind as u64)) << 32 | u128::from(n);
                let mut text = String::with_capacity(19);
                text.push(kind);
                for i in 0..16 {
                    if i == 5 || i == 10 {
                        text.push('-');
                    }
                    text.push(char::from(DIGITS[usize::try_from(rest % 32).unwrap_or(0)]));
                    rest /= 32;
                }
                text
            }
        }
    }

    fn base<'a>(market: &'a Market, ask: &NewOrder) -> &'a str {
        &market.instruments()[ask.inst].spec.base
    }

    fn quote<'a>(market: &'a Market, ask: &'a NewOrder) -> &'a str {
        ask.quote.as_deref().unwrap_or(&market.instruments()[ask.inst].spec.quote)
    }

    /// What `lots` of a limit order hold.
    fn reserve(&self, market: &Market, account: usize, ask: &NewOrder, lots: i64) -> Amount {
        let spec = &market.instruments()[ask.inst].spec;
        let fees = &self.accounts[account].fees;
        let margin_ppm = match spec.venue {
            Venue::Binance => 0,
            Venue::Coinbase | Venue::Kraken => fees.taker_ppm.max(fees.maker_ppm).max(0),
        };
        match (ask.side, ask.px) {
            (Side::Bid, Some(px)) => {
                let decimals = money_decimals(spec.venue, Self::quote(market, ask));
                let worth = Amount::worth(spec.tick, px, spec.lot, lots).ceil(decimals);
                let fee =
                    if ask.fee_in_base { Amount::ZERO } else { worth.rate(margin_ppm, decimals) };
                worth + fee
            }
            (Side::Bid, None) => Amount::ZERO,
            (Side::Ask, _) => {
                let base = Amount::of(spec.lot, lots);
                let ppm = if ask.fee_in_base { margin_ppm } else { 0 };
                base + base.rate(ppm, 10)
            }
        }
    }

    fn check_rules(&self, market: &Market, ask: &NewOrder, lots: i64) -> Result<(), Reject> {
        let it = &market.instruments()[ask.inst];
        let spec = &it.spec;
        let best = |side| market.flow_best(ask.inst, side).map(|l| l.px);
        if let Some(px) = ask.px {
            if px <= 0 || px % spec.step_ticks != 0 {
                return Err(Reject::Tick);
            }
            let middle = best(Side::Bid).or(best(Side::Ask)).unwrap_or(px);
            // Binance: five times and a fifth of the reference. The others have bands of their own kind.
            if spec.venue == Venue::Binance && (px > middle * 5 || px < middle / 5) {
                return Err(Reject::PriceBand);
            }
        }
        let qty = Amount::of(spec.lot, lots);
        let least = |text: &str| Amount::parse(text).unwrap_or_default();
        if lots % spec.step_lots != 0 {
            return Err(Reject::Lot);
        }
        if qty < least(&spec.min_qty) || lots <= 0 {
            return Err(Reject::MinQty);
        }
        if qty > least("9000000") {
            return Err(Reject::MaxQty);
        }
        let px = ask.px.or_else(|| best(ask.side.other())).ok_or(Reject::NoLiquidity)?;
        let worth = Amount::worth(spec.tick, px, spec.lot, lots);
        if worth < least(&spec.min_notional) {
            return Err(Reject::MinNotional);
        }
        let most = if spec.quote == "BTC" { "9000" } else { "9000000" };
        if spec.venue == Venue::Binance && ask.px.is_some() && worth > least(most) {
            return Err(Reject::MaxNotional);
        }
        Ok(())
    }

    fn check_mode(&self, market: &Market, ask: &NewOrder) -> Result<(), Reject> {
        let it = &market.instruments()[ask.inst];
        if it.status != crate::market::Status::Online {
            return Err(Reject::Closed(Mode::CancelOnly));
        }
        let mode = self.mode(it.spec.venue);
        let fits = match mode {
            Mode::Online => true,
            Mode::PostOnly => ask.kind == OrderType::PostOnly,
            Mode::LimitOnly => ask.kind != OrderType::Market,
            Mode::CancelOnly | Mode::Maintenance => false,
        };
        if fits { Ok(()) } else { Err(Reject::Closed(mode)) }
    }

    /// Lots an order is for: those asked, or what its money comes to.
    fn lots(&self, market: &Market, account: usize, ask: &NewOrder) -> Result<i64, Reject> {
        let spec = &market.instruments()[ask.inst].spec;
        let money = match ask.size {
            Size::Base(lots) => return Ok(lots),
            Size::Quote(money) => money,
        };
        let step = spec.step_lots;
        if let Some(px) = ask.px {
            let one = Amount::worth(spec.tick, px, spec.lot, 1);
            return Ok(i64::try_from(money.0 / one.0.max(1)).unwrap_or(i64::MAX) / step * step);
        }
        // What the venue takes from the quote asset must fit into the money as well.
        let ppm = if spec.venue == Venue::Binance || ask.side == Side::Ask {
            0
        } else {
            self.accounts[account].fees.taker_ppm
        };
        let mut left = Amount(money.0 * 1_000_000 / (1_000_000 + i128::from(ppm)));
        let mut lots = 0;
        for level in market.instruments()[ask.inst].book.levels(ask.side.other()) {
            let one = Amount::worth(spec.tick, level.px, spec.lot, 1);
            let fits = i64::try_from(left.0 / one.0.max(1)).unwrap_or(i64::MAX);
            let take = fits.min(level.qty);
            lots += take;
            left -= Amount::worth(spec.tick, level.px, spec.lot, take);
            if take < level.qty {
                break;
            }
        }
        Ok(lots / step * step)
    }

    /// What an order of `want` lots meets now, in order, and what of it self-trade prevention takes away.
    fn plan(
        &self,
        market: &Market,
        account: usize,
        ask: &NewOrder,
        want: i64,
    ) -> (Vec<Step>, bool) {
        let side = ask.side.other();
        let (mut steps, mut want) = (Vec::new(), want);
        let none = [Vec::new(), Vec::new()];
        let makers = &self.resting.get(&ask.inst).unwrap_or(&none)[at(side)];
        for level in market.instruments()[ask.inst].book.levels(side) {
            if want <= 0 || ask.px.is_some_and(|px| !ask.side.reaches(px, level.px)) {
                break;
            }
            let mut flow = if market.is_model() {
                market.flow_qty(ask.inst, side, level.px)
            } else {
                level.qty
            };
            let mut passed = 0;
            let here = makers.iter().filter(|id| self.orders[**id].ask.px == Some(level.px));
            for id in here.filter(|_| market.is_model()) {
                let maker = &self.orders[*id];
                let first = (maker.ahead - passed).clamp(0, flow).min(want);
                if first > 0 {
                    steps.push(Step::Flow { px: level.px, lots: first });
                    (flow, want, passed) = (flow - first, want - first, passed + first);
                }
                let lots = maker.left().min(want);
                if lots == 0 {
                    continue;
                }
                if maker.account != account || ask.stp == Stp::None {
                    steps.push(Step::Client { order: *id, px: level.px, lots });
                    want -= lots;
                    continue;
                }
                steps.push(Step::Prevent { order: *id, lots, mode: ask.stp });
                match ask.stp {
                    Stp::Maker | Stp::None => {}
                    Stp::Decrement => want -= lots,
                    Stp::Taker | Stp::Both => return (steps, true),
                }
            }
            let rest = flow.min(want);
            if rest > 0 {
                steps.push(Step::Flow { px: level.px, lots: rest });
                want -= rest;
            }
        }
        (steps, false)
    }

    /// Takes an order: checks it, matches it, and rests what is left of it.
    ///
    /// # Errors
    /// Returns why it was refused; nothing happened then.
    pub fn place(
        &mut self,
        market: &mut Market,
        now: u64,
        account: usize,
        ask: NewOrder,
    ) -> Result<usize, Reject> {
        let lots = self.check(market, account, &ask)?;
        let venue = self.accounts[account].venue;
        let id = self.orders.len();
        let ext = self.ext_id(venue, 'O', id);
        let reduced = i128::from(lots) * i128::from(ask.quirks.reduce_ppm) / 1_000_000;
        let order = Order {
            id,
            ext: ext.clone(),
            account,
            venue,
            lots,
            filled: 0,
            prevented: i64::try_from(reduced).unwrap_or(0),
            cost: Amount::ZERO,
            fees: Vec::new(),
            fill_count: 0,
            status: Status::Open,
            ended: None,
            accepted_ns: now,
            updated_ns: now,
            done_ns: None,
            reserved: Amount::ZERO,
            ahead: 0,
            visible_ns: now + ask.quirks.hidden_ns,
            canceling: false,
            base: Self::base(market, &ask).to_owned(),
            quote: Self::quote(market, &ask).to_owned(),
            ask,
        };
        self.by_ext.insert((venue, ext), id);
        if !order.ask.client_id.is_empty() {
            self.by_client.insert((account, order.ask.client_id.clone()), id);
        }
        self.accounts[account].open.insert(id);
        self.orders.push(order);
        self.hold(market, id);
        self.tell(now, account, What::New(Box::new(self.orders[id].clone())));
        self.enter(market, now, id);
        Ok(id)
    }

    /// Checks an order without placing it; returns its lots.
    ///
    /// # Errors
    /// Returns why it would be refused.
    pub fn check(&self, market: &Market, account: usize, ask: &NewOrder) -> Result<i64, Reject> {
        let venue = self.accounts[account].venue;
        self.check_mode(market, ask)?;
        let lots = self.lots(market, account, ask)?;
        self.check_rules(market, ask, lots)?;
        let same = self.by_client(account, &ask.client_id).map(|id| &self.orders[id]);
        if venue != Venue::Coinbase && same.is_some_and(|o| !o.status.is_done()) {
            return Err(Reject::DuplicateId);
        }
        let open = &self.accounts[account].open;
        if open.len() >= OPEN_MAX
            && open.iter().filter(|id| self.orders[**id].ask.inst == ask.inst).count() >= OPEN_MAX
        {
            return Err(Reject::TooManyOrders);
        }
        let base = Self::base(market, ask);
        let quote = Self::quote(market, ask);
        let (asset, need) = match (ask.side, ask.px) {
            (Side::Ask, _) => (base, self.reserve(market, account, ask, lots)),
            (Side::Bid, Some(_)) => (quote, self.reserve(market, account, ask, lots)),
            (Side::Bid, None) => (quote, self.market_cost(market, account, ask, lots)),
        };
        if self.accounts[account].balance(asset).free() < need {
            return Err(Reject::Funds);
        }
        if ask.kind == OrderType::PostOnly
            && venue != Venue::Kraken
            && let Some(px) = ask.px
            && let Some(best) = market.instruments()[ask.inst].book.best(ask.side.other())
            && ask.side.reaches(px, best.px)
        {
            return Err(Reject::WouldTake);
        }
        Ok(lots)
    }

    /// What a market buy would cost now, its fee included where the venue takes it from the quote asset.
    fn market_cost(&self, market: &Market, account: usize, ask: &NewOrder, lots: i64) -> Amount {
        let spec = &market.instruments()[ask.inst].spec;
        let (steps, _) = self.plan(market, account, ask, lots);
        let cost: Amount = steps
            .iter()
            .map(|step| match step {
                Step::Flow { px, lots } | Step::Client { px, lots, .. } => {
                    Amount::worth(spec.tick, *px, spec.lot, *lots)
                }
                Step::Prevent { .. } => Amount::ZERO,
            })
            .sum();
        let in_quote = spec.venue != Venue::Binance && !ask.fee_in_base;
        let ppm = if in_quote { self.accounts[account].fees.taker_ppm } else { 0 };
        cost + cost.rate(ppm, 16)
    }

    /// Matches an accepted order and rests or ends what is left.
    pub(super) fn enter(&mut self, market: &mut Market, now: u64, id: usize) {
        let order = &self.orders[id];
        let (inst, account, ask) = (order.ask.inst, order.account, order.ask.clone());
        let left = order.left();
        let mut want = left;
        if ask.quirks.overfill_ppm > 0 {
            let more = i128::from(left) * i128::from(ask.quirks.overfill_ppm) / 1_000_000;
            want += i64::try_from(more).unwrap_or(0).max(1);
        }
        let (mut steps, mut stopped) = self.plan(market, account, &ask, want);
        let available: i64 = steps.iter().map(Step::traded).sum();
        let post = ask.kind == OrderType::PostOnly && !steps.is_empty();
        let short = ask.tif == Tif::Fok && available < left;
        if post || short {
            steps.clear();
            stopped = false;
        }
        if let Some(ppm) = ask.quirks.fraction_ppm {
            let most = i128::from(available) * i128::from(ppm) / 1_000_000;
            let spec = &market.instruments()[inst].spec;
            cut(&mut steps, i64::try_from(most).unwrap_or(0) / spec.step_lots * spec.step_lots);
        }
        let mut touched = self.execute(market, now, id, steps);
        let order = &self.orders[id];
        let left = order.left();
        if !order.status.is_done() {
            if stopped || left == 0 {
                self.finish(now, id, Status::Prevented, Ended::Stp);
            } else {
                let end = match (ask.kind, ask.tif) {
                    _ if post => Some(Ended::PostOnly),
                    (OrderType::Market, _) => Some(Ended::NoLiquidity),
                    (_, Tif::Ioc) => Some(Ended::Ioc),
                    (_, Tif::Fok) => Some(Ended::Fok),
                    // It would rest through what it was not allowed to take.
                    _ if ask.quirks.fraction_ppm.is_some() && available > 0 => {
                        Some(Ended::NoLiquidity)
                    }
                    _ => None,
                };
                match end {
                    Some(why) => self.finish(now, id, Status::Expired, why),
                    None => self.rest(market, now, id),
                }
            }
        }
        touched.push(account);
        self.tell_balances(market, now, inst, touched);
    }

    /// Carries out what a taking order met, as one event of the book; returns whom it concerned.
    fn execute(
        &mut self,
        market: &mut Market,
        now: u64,
        id: usize,
        steps: Vec<Step>,
    ) -> Vec<usize> {
        let order = &self.orders[id];
        let (inst, side) = (order.ask.inst, order.ask.side.other());
        let mut batch = market.begin(inst);
        let mut prints = Vec::new();
        let mut touched = Vec::new();
        for step in steps {
            match step {
                Step::Flow { px, lots } => {
                    market.nudge(&mut batch, inst, side, px, [-lots, 0]);
                    batch.trade(px, lots, side);
                    prints.push((px, lots, None));
                    self.advance_queue(inst, side, px, lots);
                }
                Step::Client { order, px, lots } => {
                    market.nudge(&mut batch, inst, side, px, [0, -lots]);
                    batch.trade(px, lots, side);
                    prints.push((px, lots, Some(order)));
                }
                Step::Prevent { order: maker, lots, mode } => {
                    touched.push(self.orders[maker].account);
                    match mode {
                        Stp::Maker | Stp::Both => {
                            let (px, left) = (self.orders[maker].ask.px, self.orders[maker].left());
                            market.nudge(&mut batch, inst, side, px.unwrap_or(0), [0, -left]);
                            self.prevent(now, maker, left);
                            self.finish(now, maker, Status::Prevented, Ended::Stp);
                        }
                        Stp::Decrement => {
                            let px = self.orders[maker].ask.px.unwrap_or(0);
                            market.nudge(&mut batch, inst, side, px, [0, -lots]);
                            self.prevent(now, maker, lots);
                            self.prevent(now, id, lots);
                            self.hold(market, maker);
                            if self.orders[maker].left() == 0 {
                                self.finish(now, maker, Status::Prevented, Ended::Stp);
                            }
                        }
                        Stp::Taker | Stp::None => {}
                    }
                    if matches!(mode, Stp::Taker | Stp::Both) {
                        let left = self.orders[id].left();
                        self.prevent(now, id, left.min(lots));
                    }
                }
            }
        }
        let event = market.end(inst, now, batch, None);
        let ids: Vec<u64> = event.iter().flat_map(|e| e.trades.iter().map(|t| t.id)).collect();
        self.events.extend(event.filter(|_| market.is_model()));
        for ((px, lots, maker), trade_id) in prints.into_iter().zip(ids) {
            self.fill(market, now, id, [px, lots], trade_id, false);
            if let Some(maker) = maker {
                touched.push(self.orders[maker].account);
                self.fill(market, now, maker, [px, lots], trade_id, true);
            }
        }
        touched
    }

    /// The flow in front of resting orders of one price became less.
    pub(super) fn advance_queue(&mut self, inst: usize, side: Side, px: i64, lots: i64) {
        let Some(resting) = self.resting.get(&inst) else { return };
        for id in &resting[at(side)] {
            let order = &mut self.orders[*id];
            if order.ask.px == Some(px) {
                order.ahead = (order.ahead - lots).max(0);
            }
        }
    }

    fn prevent(&mut self, now: u64, id: usize, lots: i64) {
        let order = &mut self.orders[id];
        order.prevented += lots;
        order.updated_ns = now;
        let (account, order) = (order.account, Box::new(order.clone()));
        self.tell(now, account, What::Prevented(order, lots));
    }

    /// Puts what is left of an order into the book.
    fn rest(&mut self, market: &mut Market, now: u64, id: usize) {
        let order = &self.orders[id];
        let (inst, side, left) = (order.ask.inst, order.ask.side, order.left());
        let Some(px) = order.ask.px else { return };
        self.orders[id].ahead = market.flow_qty(inst, side, px);
        if let Tif::Gtd(until) = self.orders[id].ask.tif {
            self.gtd.push((until, id));
        }
        self.queue(inst, side, id);
        let mut batch = market.begin(inst);
        market.nudge(&mut batch, inst, side, px, [0, left]);
        self.events.extend(market.end(inst, now, batch, None).filter(|_| market.is_model()));
        self.hold(market, id);
    }

    pub(super) fn queue(&mut self, inst: usize, side: Side, id: usize) {
        let key = side.key(self.orders[id].ask.px.unwrap_or(0));
        let orders = &self.orders;
        let list = &mut self.resting.entry(inst).or_default()[at(side)];
        let place = list.partition_point(|o| side.key(orders[*o].ask.px.unwrap_or(0)) >= key);
        list.insert(place, id);
    }

    /// Brings what an order holds up to what is left of it.
    pub(super) fn hold(&mut self, market: &Market, id: usize) {
        let order = &self.orders[id];
        let account = order.account;
        let needed = match order.left() {
            0 => Amount::ZERO,
            left => self.reserve(market, account, &order.ask, left),
        };
        let asset = order.hold_asset().to_owned();
        let change = needed - order.reserved;
        self.orders[id].reserved = needed;
        self.accounts[account].hold(&asset, change);
    }

    /// Books one fill of one order.
    pub(super) fn fill(
        &mut self,
        market: &Market,
        now: u64,
        id: usize,
        [px, lots]: [i64; 2],
        trade_id: u64,
        maker: bool,
    ) {
        let order = &self.orders[id];
        let (account, inst, side, venue) =
            (order.account, order.ask.inst, order.ask.side, order.venue);
        let spec = &market.instruments()[inst].spec;
        let (base, quote) = (order.base.clone(), order.quote.clone());
        let worse = order.ask.quirks.worse_ppm;
        let px = if worse == 0 {
            px
        } else {
            let away = i64::try_from(i128::from(px) * i128::from(worse) / 1_000_000).unwrap_or(0);
            px + if side == Side::Bid { away } else { -away }
        };
        let decimals = money_decimals(venue, &quote);
        let cost = Amount::worth(spec.tick, px, spec.lot, lots).round(decimals);
        let qty = Amount::of(spec.lot, lots);
        let tier = self.accounts[account].fees.clone();
        let ppm = if maker { tier.maker_ppm } else { tier.taker_ppm };
        let in_base = match venue {
            Venue::Binance => side == Side::Bid,
            Venue::Coinbase => false,
            Venue::Kraken => order.ask.fee_in_base,
        };
        let (mut fee, mut fee_asset) = if in_base {
            (qty.rate(ppm, money_decimals(venue, &base)), base.clone())
        } else {
            (cost.rate(ppm, decimals), quote.clone())
        };
        if let Some(asset) = &tier.asset
            && matches!(quote.as_str(), "USD" | "USDT" | "USDC")
        {
            let other = cost.rate(ppm, 8).over(self.fee_price, 8);
            if self.accounts[account].balance(asset).free() >= other {
                (fee, fee_asset) = (other, asset.clone());
            }
        }
        let sign = if side == Side::Bid { 1 } else { -1 };
        let moved = [(base, Amount(qty.0 * sign)), (quote, Amount(-cost.0 * sign))];
        for (asset, amount) in moved {
            self.accounts[account].credit(&asset, amount);
            self.house.entry((venue, asset)).or_default().market -= amount;
        }
        self.accounts[account].credit(&fee_asset, -fee);
        self.house.entry((venue, fee_asset.clone())).or_default().fees += fee;
        self.accounts[account].updated_ns = now;

        let order = &mut self.orders[id];
        order.filled += lots;
        order.cost += cost;
        order.fill_count += 1;
        order.updated_ns = now;
        match order.fees.iter_mut().find(|(a, _)| *a == fee_asset) {
            Some((_, sum)) => *sum += fee,
            None => order.fees.push((fee_asset.clone(), fee)),
        }
        order.status = Status::PartiallyFilled;
        let full = order.left() == 0;
        let fill = Fill {
            id: self.fills.len(),
            order: id,
            account,
            inst,
            side,
            trade_id,
            px,
            lots,
            qty,
            cost,
            fee,
            fee_asset,
            maker,
            at_ns: now,
            busted: false,
        };
        self.fills.push(fill.clone());
        self.hold(market, id);
        if full {
            self.finish_quietly(now, id, Status::Filled);
        }
        let order = Box::new(self.orders[id].clone());
        self.tell(now, account, What::Trade(order, Box::new(fill)));
    }

    /// Ends an order and says so, unless a fill said it already.
    pub(super) fn finish(&mut self, now: u64, id: usize, status: Status, why: Ended) {
        if self.orders[id].status.is_done() {
            return;
        }
        self.orders[id].ended = (status != Status::Filled).then_some(why);
        self.finish_quietly(now, id, status);
        if status != Status::Filled {
            let order = Box::new(self.orders[id].clone());
            self.tell(now, order.account, What::Ended(order, why));
        }
    }

    pub(super) fn finish_quietly(&mut self, now: u64, id: usize, status: Status) {
        let order = &mut self.orders[id];
        order.status = status;
        (order.done_ns, order.updated_ns) = (Some(now), now);
        let (account, inst, side) = (order.account, order.ask.inst, order.ask.side);
        let held = std::mem::take(&mut order.reserved);
        let asset = order.hold_asset().to_owned();
        self.accounts[account].hold(&asset, -held);
        self.accounts[account].open.remove(&id);
        if let Some(lists) = self.resting.get_mut(&inst) {
            lists[at(side)].retain(|o| *o != id);
            if lists.iter().all(Vec::is_empty) {
                self.resting.remove(&inst);
            }
        }
        self.gtd.retain(|(_, o)| *o != id);
    }

    pub(super) fn tell(&mut self, at_ns: u64, account: usize, what: What) {
        self.accounts[account].updated_ns = at_ns;
        self.reports.push(Report { at_ns, account, what });
    }

    pub(super) fn tell_balances(
        &mut self,
        market: &Market,
        now: u64,
        inst: usize,
        mut whom: Vec<usize>,
    ) {
        whom.sort_unstable();
        whom.dedup();
        for account in whom {
            let spec = &market.instruments()[inst].spec;
            let mut assets = vec![spec.base.clone(), spec.quote.clone()];
            assets.extend(self.accounts[account].fees.asset.clone());
            self.tell(now, account, What::Balances(assets));
        }
    }
}

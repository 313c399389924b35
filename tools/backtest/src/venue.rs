//! One venue's side of our account: what it takes, what it refuses, what it charges, what it owes us.
//!
//! Invariant: an order is looked at once, when it arrives, and ends there: takers only. A balance changes by a
//! fill, a fee or a transfer and by nothing else, never below zero by an order. Every amount is rounded once and
//! against us. Refusals come in the order in which venues look: session, rate, market, filters, funds.
//!
//! Not here: when anything arrives (`world`), what depth there is (`books`).

use std::collections::{BTreeMap, VecDeque};

use tandem_core::instrument::{AssetId, FeeIn, Instrument, Universe};
use tandem_core::market::Market;
use tandem_core::order::{Action, DoneStatus, NewOrder, RejectClass, Report, Tif};
use tandem_core::record::{BookState, TradingStatus, Venue};
use tandem_core::units::{Amount, PPM_PER_UNIT, Px, Qty, Side, pow10};
use tandem_core::value::{quote_of, shift_of};

use crate::books::Books;
use crate::config::VenueModel;
use crate::dice::{Dice, For};

/// Levels that one order may walk; a fill each.
const FILLS_MAX: usize = 256;
const RATE_NS: i64 = 10_000_000_000;
const MINUTE_NS: i64 = 60_000_000_000;
const DAY_NS: i64 = 86_400_000_000_000;

/// A fee tier in quanta.
#[derive(Clone, Copy, Debug)]
pub struct TierQuanta {
    /// From this volume on, numeraire quanta.
    pub volume: i128,
    /// Taker's fee.
    pub taker_ppm: i32,
}

/// What became of an order at the venue.
#[derive(Clone, Debug)]
pub struct Met {
    /// Everything the venue says about it, in order.
    pub reports: Vec<Report>,
    /// What it moved, by asset.
    pub moved: Vec<(AssetId, i128)>,
    /// Wanted quantity that competitors had taken, of the levels within the limit.
    pub taken_by_others: i64,
}

/// What a test changes in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    #[default]
    Nothing,
    /// A fault that conservation finds: every hundredth fill is credited one quantum too much.
    Quantum,
    /// Another one: a fee is told and not taken.
    Fee,
    /// No fault: the venues' books take every message themselves, at its own time. The outcome is the same.
    Attentive,
}

/// One venue.
#[derive(Debug)]
pub struct VenueSim {
    venue: Venue,
    model: VenueModel,
    seed: u64,
    balances: Vec<i128>,
    tiers: Vec<TierQuanta>,
    fee_asset: Option<AssetId>,
    /// By instrument: what the venue charges takers when no tier says otherwise.
    fees: Vec<i32>,
    /// Volume of the last thirty days: at the start, then a day each, numeraire quanta.
    volume_start: i128,
    volume_days: VecDeque<(i64, i128)>,
    sent: VecDeque<i64>,
    refusals: VecDeque<i64>,
    /// Until when we are banned.
    pub banned_until_ns: i64,
    /// Until when it takes nothing.
    pub gone_until_ns: i64,
    next_trade: u64,
    /// Counts, for the outcome.
    pub counts: Counts,
    plant: Plant,
}

/// What a venue counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Orders that arrived or were lost.
    pub orders: u64,
    /// Filled whole.
    pub filled: u64,
    /// Filled in part.
    pub partial: u64,
    /// Expired without a fill.
    pub missed: u64,
    /// Refused, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Orders that met a book in quarantine.
    pub quarantined: u64,
    /// Wanted quantity and, of it, what others had taken, each as a share of its order, ppm summed.
    pub wanted: u64,
    /// See `wanted`.
    pub others_ppm: u64,
    /// Bans.
    pub bans: u64,
}

impl VenueSim {
    /// Returns a venue that holds nothing of ours.
    #[must_use]
    pub fn new(
        venue: Venue,
        model: &VenueModel,
        (tiers, volume, fee_asset): (Vec<TierQuanta>, i128, Option<AssetId>),
        universe: &Universe,
        (seed, plant): (u64, Plant),
    ) -> VenueSim {
        let fee = |rules: &Instrument| model.taker_fee_ppm.unwrap_or(rules.taker_fee.0);
        VenueSim {
            venue,
            model: model.clone(),
            seed,
            balances: vec![0; universe.assets.len()],
            tiers,
            fee_asset,
            fees: universe.instruments.iter().map(fee).collect(),
            volume_start: volume,
            volume_days: VecDeque::new(),
            sent: VecDeque::new(),
            refusals: VecDeque::new(),
            banned_until_ns: i64::MIN,
            gone_until_ns: i64::MIN,
            next_trade: (venue as u64) << 56,
            counts: Counts::default(),
            plant,
        }
    }

    /// Returns what it owes us.
    #[must_use]
    pub fn balance(&self, asset: AssetId) -> i128 {
        self.balances[usize::from(asset.0)]
    }

    /// A deposit, or with a negative amount a withdrawal.
    pub fn deposit(&mut self, asset: AssetId, amount: i128) {
        self.balances[usize::from(asset.0)] += amount;
    }

    /// The venue's own word about its fee, where the configuration says nothing else.
    pub fn told_fee(&mut self, instrument: u16, taker_ppm: i64) {
        let is_ours = self.model.taker_fee_ppm.is_none() && self.tiers.is_empty();
        if let (true, Some(fee), Ok(ppm)) =
            (is_ours, self.fees.get_mut(usize::from(instrument)), i32::try_from(taker_ppm))
        {
            *fee = ppm;
        }
    }

    /// Returns what it charges a taker now, ppm, before a discount.
    #[must_use]
    pub fn taker_ppm(&self, instrument: u16, now_ns: i64) -> i32 {
        let volume = self.volume(now_ns);
        let tier = self.tiers.iter().rfind(|tier| tier.volume <= volume);
        tier.map_or(self.fees[usize::from(instrument)], |tier| tier.taker_ppm)
    }

    /// Returns what an order of ours is expected to pay, the discount included, ppm.
    #[must_use]
    pub fn effective_ppm(&self, instrument: u16, now_ns: i64) -> i64 {
        let ppm = i64::from(self.taker_ppm(instrument, now_ns));
        let has_some = self.fee_asset.is_some_and(|asset| 0 < self.balance(asset));
        if !has_some {
            return ppm;
        }
        let left =
            i64::from(crate::config::PPM - self.model.fee_discount_ppm.min(crate::config::PPM));
        -((-ppm * left).div_euclid(i64::from(crate::config::PPM)))
    }

    fn volume(&self, now_ns: i64) -> i128 {
        let oldest = now_ns.div_euclid(DAY_NS) - 30;
        let recent = self.volume_days.iter().filter(|(day, _)| oldest < *day);
        self.volume_start + recent.map(|(_, volume)| *volume).sum::<i128>()
    }

    /// Notes the worth of fills, for the tiers.
    pub fn traded(&mut self, worth: i128, now_ns: i64) {
        let day = now_ns.div_euclid(DAY_NS);
        match self.volume_days.back_mut() {
            Some((last, volume)) if *last == day => *volume += worth,
            _ => self.volume_days.push_back((day, worth)),
        }
        while self.volume_days.front().is_some_and(|(first, _)| *first <= day - 30) {
            self.volume_days.pop_front();
        }
    }

    /// Returns whether it is in an outage.
    #[must_use]
    pub fn is_gone(&self, now_ns: i64) -> bool {
        now_ns < self.gone_until_ns
    }

    fn reject(&mut self, class: RejectClass, why: &'static str) -> Met {
        *self.counts.rejected.entry(why).or_default() += 1;
        Met {
            reports: vec![Report::Reject { class, code: 0 }],
            moved: Vec::new(),
            taken_by_others: 0,
        }
    }

    /// An order arrives; nothing where the venue is gone: then it never was there.
    pub fn arrive(
        &mut self,
        terms: &NewOrder,
        universe: &Universe,
        books: &mut Books,
        (others_ppm, now_ns): (u32, i64),
    ) -> Option<Met> {
        self.counts.orders += 1;
        if self.is_gone(now_ns) {
            return None;
        }
        let met = match self.refusal(terms, universe, books, now_ns) {
            Some((class, why)) => self.reject(class, why),
            None => self.fill(terms, universe, books, (others_ppm, now_ns)),
        };
        Some(met)
    }

    fn refusal(
        &mut self,
        terms: &NewOrder,
        universe: &Universe,
        books: &Books,
        now_ns: i64,
    ) -> Option<(RejectClass, &'static str)> {
        if now_ns < self.banned_until_ns {
            return Some((RejectClass::RateLimit, "banned"));
        }
        if self.is_too_many(now_ns) {
            return Some((RejectClass::RateLimit, "rate"));
        }
        let name = u64::from(terms.run) << 48 ^ terms.key.0 as u64;
        if Dice::new(self.seed, For::Reject, name).chance(self.model.reject_ppm) {
            return Some((RejectClass::Other, "venue"));
        }
        let rules = &universe.instruments[usize::from(terms.instrument)];
        let market = books.market();
        let trades = market.get(terms.instrument).trading == TradingStatus::Trading
            && market.venue_trades(self.venue);
        if !trades || matches!(terms.tif, Tif::Gtc | Tif::PostOnly) {
            return Some((RejectClass::Market, "market"));
        }
        let shift = shift_of(universe, terms.instrument);
        let notional = quote_of(terms.px, terms.qty.0, shift, false);
        let is_off = terms.px.0 % rules.tick.0 != 0
            || terms.qty.0 % rules.lot.0 != 0
            || terms.qty < rules.qty_min
            || rules.qty_max < terms.qty
            || notional < i128::from(rules.notional_min.0);
        if is_off {
            return Some((RejectClass::Filter, "filter"));
        }
        if self.model.price_band_ppm != 0
            && let Some(mid) = market.get(terms.instrument).mid()
        {
            let apart = (i128::from(terms.px.0) - i128::from(mid)).abs();
            let band = i128::from(mid) * i128::from(self.model.price_band_ppm);
            if band < apart * i128::from(PPM_PER_UNIT) {
                return Some((RejectClass::Filter, "band"));
            }
        }
        let (spent, need) = self.need(terms, rules, (shift, now_ns));
        (self.balance(spent) < need).then_some((RejectClass::Funds, "funds"))
    }

    fn is_too_many(&mut self, now_ns: i64) -> bool {
        if self.model.orders_per_10s == 0 {
            return false;
        }
        while self.sent.front().is_some_and(|at| *at <= now_ns - RATE_NS) {
            self.sent.pop_front();
        }
        if self.sent.len() < self.model.orders_per_10s as usize {
            self.sent.push_back(now_ns);
            return false;
        }
        self.refusals.push_back(now_ns);
        while self.refusals.front().is_some_and(|at| *at <= now_ns - MINUTE_NS) {
            self.refusals.pop_front();
        }
        if self.model.ban_after != 0 && self.model.ban_after as usize <= self.refusals.len() {
            self.refusals.clear();
            self.banned_until_ns = now_ns + i64::from(self.model.ban_s) * 1_000_000_000;
            self.counts.bans += 1;
        }
        true
    }

    fn fee_of(amount: i128, ppm: i128) -> i128 {
        -((-amount * ppm).div_euclid(PPM_PER_UNIT.into()))
    }

    /// What must be there for an order: asset and amount.
    fn need(
        &self,
        terms: &NewOrder,
        rules: &Instrument,
        (shift, now_ns): (u8, i64),
    ) -> (AssetId, i128) {
        match terms.action {
            Action::Sell => (rules.base, terms.qty.0.into()),
            Action::Buy => {
                let cost = quote_of(terms.px, terms.qty.0, shift, true);
                let ppm = i128::from(self.taker_ppm(terms.instrument, now_ns));
                let fee =
                    if rules.fee_in == FeeIn::Quote { Self::fee_of(cost, ppm).max(0) } else { 0 };
                (rules.quote, cost + fee)
            }
        }
    }

    fn fill(
        &mut self,
        terms: &NewOrder,
        universe: &Universe,
        books: &mut Books,
        (others_ppm, now_ns): (u32, i64),
    ) -> Met {
        let rules = &universe.instruments[usize::from(terms.instrument)];
        let shift = shift_of(universe, terms.instrument);
        let side = terms.action.takes();
        let mut taken: Vec<(Px, i64)> = Vec::new();
        let (mut rest, mut others) = (terms.qty.0, 0);
        let is_usable = books.is_usable(terms.instrument, now_ns);
        if is_usable {
            books.offers((terms.instrument, side), (others_ppm, now_ns), true, |offer| {
                if rest == 0
                    || terms.action.is_worse(offer.px, terms.px)
                    || taken.len() == FILLS_MAX
                {
                    return false;
                }
                let qty = rest.min(offer.qty.0);
                let qty = qty - qty % rules.lot.0;
                others += offer.others.0.min(rest - qty);
                if qty != 0 {
                    rest -= qty;
                    taken.push((offer.px, qty));
                }
                true
            });
        }
        if rest != 0 && terms.tif == Tif::Fok {
            taken.clear();
        }
        let filled: i64 = taken.iter().map(|(_, qty)| qty).sum();
        let venue_id = u128::from(terms.key.0 as u64);
        let mut met = Met {
            reports: vec![Report::Ack { venue_id }],
            moved: Vec::new(),
            taken_by_others: others.min(terms.qty.0 - filled),
        };
        for (px, qty) in taken {
            books.took(terms.instrument, side, px, Qty(qty), now_ns);
            let fill = self.book(
                terms,
                (rules, shift),
                (px, qty),
                (universe, books.market()),
                now_ns,
                &mut met,
            );
            met.reports.push(fill);
        }
        let is_whole = filled == terms.qty.0;
        let status = if is_whole { DoneStatus::Filled } else { DoneStatus::Expired };
        met.reports.push(Report::Done { status, qty: Qty(filled) });
        let count = match (is_whole, filled) {
            (true, _) => &mut self.counts.filled,
            (false, 0) => &mut self.counts.missed,
            (false, _) => &mut self.counts.partial,
        };
        *count += 1;
        self.counts.quarantined += u64::from(!is_usable);
        self.counts.wanted += 1;
        let lost = i128::from(met.taken_by_others) * i128::from(PPM_PER_UNIT);
        self.counts.others_ppm += (lost / i128::from(terms.qty.0)) as u64;
        met
    }

    /// Books one fill and returns its report.
    fn book(
        &mut self,
        terms: &NewOrder,
        (rules, shift): (&Instrument, u8),
        (px, qty): (Px, i64),
        (universe, market): (&Universe, &Market),
        now_ns: i64,
        met: &mut Met,
    ) -> Report {
        let buys = terms.action == Action::Buy;
        let quote = quote_of(px, qty, shift, buys);
        let sign = if buys { 1 } else { -1 };
        self.next_trade += 1;
        let (fee, asset) =
            self.fee((terms, rules, universe, market), (qty.into(), quote, buys), now_ns);
        let mut by = |balances: &mut Vec<i128>, asset: AssetId, delta: i128| {
            balances[usize::from(asset.0)] += delta;
            met.moved.push((asset, delta));
        };
        by(&mut self.balances, rules.base, i128::from(qty) * sign);
        by(&mut self.balances, rules.quote, -quote * sign);
        if self.plant != Plant::Fee {
            by(&mut self.balances, asset, -fee);
        }
        if self.plant == Plant::Quantum && self.next_trade.is_multiple_of(100) {
            self.balances[usize::from(rules.quote.0)] += 1;
        }
        let fee = Amount(i64::try_from(fee).unwrap_or(i64::MAX));
        Report::Fill { px, qty: Qty(qty), fee, asset: asset.0, trade_id: self.next_trade }
    }

    /// Returns a fill's fee and its asset.
    fn fee(
        &self,
        (terms, rules, universe, market): (&NewOrder, &Instrument, &Universe, &Market),
        (qty, quote, buys): (i128, i128, bool),
        now_ns: i64,
    ) -> (i128, AssetId) {
        let ppm = i128::from(self.taker_ppm(terms.instrument, now_ns));
        if let Some(asset) = self.fee_asset {
            let left = i128::from(
                crate::config::PPM - self.model.fee_discount_ppm.min(crate::config::PPM),
            );
            // Of a millionth of a millionth, so that it is rounded once.
            let scaled = quote * ppm * left;
            let in_quote = -((-scaled).div_euclid(i128::from(PPM_PER_UNIT).pow(2)));
            let fee = match asset == rules.quote {
                true => Some(in_quote),
                false => into_asset(universe, market, self.venue, (rules.quote, in_quote), asset),
            };
            if let Some(fee) = fee
                && fee <= self.balance(asset)
            {
                return (fee, asset);
            }
        }
        match buys && rules.fee_in == FeeIn::Received {
            true => (Self::fee_of(qty, ppm), rules.base),
            false => (Self::fee_of(quote, ppm), rules.quote),
        }
    }
}

/// What an amount of one asset costs in another at a venue: as much of it as its best bid takes for the amount;
/// nothing where no live book there tells it.
fn into_asset(
    universe: &Universe,
    market: &Market,
    venue: Venue,
    (from, amount): (AssetId, i128),
    into: AssetId,
) -> Option<i128> {
    let (id, _) = universe
        .instruments
        .iter()
        .enumerate()
        .find(|(_, rules)| rules.venue == venue && rules.base == into && rules.quote == from)?;
    let state = market.get(id as u16);
    if state.state != BookState::Live {
        return None;
    }
    let bid = i128::from(state.book.best(Side::Bid)?.px.0);
    let shift = pow10(shift_of(universe, id as u16));
    // quote = base * px / 10^shift, so base = quote * 10^shift / px, rounded up: we pay it.
    Some(-((-amount * i128::from(shift)).div_euclid(bid)))
}

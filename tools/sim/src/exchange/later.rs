//! What happens to orders after they were taken: cancels, changes, time, the flow, and the outside.
//!
//! Invariant: as [`super::desk`]. Every function leaves the books, the balances and the orders in step, so it may be
//! followed by any other.

use super::desk::{Desk, at};
use super::order::{Ended, NewOrder, OrderType, Reject, Size, Status, Tif, What};
use crate::amount::Amount;
use crate::book::Side;
use crate::market::{Batch, Event, Market};

impl Desk {
    /// Ends an open order.
    ///
    /// # Errors
    /// Returns [`Reject::UnknownOrder`] if it is done, or acknowledged as cancelled.
    pub fn cancel(
        &mut self,
        market: &mut Market,
        now: u64,
        id: usize,
        why: Ended,
    ) -> Result<(), Reject> {
        let order = self.orders.get(id).ok_or(Reject::UnknownOrder)?;
        if order.status.is_done() || (order.canceling && why == Ended::User) {
            return Err(Reject::UnknownOrder);
        }
        let (inst, account) = (order.ask.inst, order.account);
        self.withdraw(market, now, id);
        let status = match why {
            Ended::Gtd => Status::Expired,
            _ => Status::Canceled,
        };
        if self.orders[id].canceling {
            // It was told when the cancel was acknowledged.
            self.orders[id].ended = Some(why);
            self.finish_quietly(now, id, status);
        } else {
            self.finish(now, id, status, why);
        }
        self.tell_balances(market, now, inst, vec![account]);
        Ok(())
    }

    /// Acknowledges a cancel of an order that will fill at `due_ns` all the same (a fault, OE-08).
    ///
    /// # Errors
    /// As [`Desk::cancel`].
    pub fn cancel_late(&mut self, now: u64, id: usize, due_ns: u64) -> Result<(), Reject> {
        let order = self.orders.get_mut(id).ok_or(Reject::UnknownOrder)?;
        if order.status.is_done() || order.canceling {
            return Err(Reject::UnknownOrder);
        }
        order.canceling = true;
        order.updated_ns = now;
        let account = order.account;
        self.late.push((due_ns, id));
        let shown = Box::new(self.view(id));
        self.tell(now, account, What::Ended(shown, Ended::User));
        Ok(())
    }

    /// Takes what is left of a resting order out of the book, without ending it.
    fn withdraw(&mut self, market: &mut Market, now: u64, id: usize) {
        let order = &self.orders[id];
        let (inst, side, left) = (order.ask.inst, order.ask.side, order.left());
        let mut batch = market.begin(inst);
        market.nudge(&mut batch, inst, side, order.ask.px.unwrap_or(0), [0, -left]);
        self.events.extend(market.end(inst, now, batch, None).filter(|_| market.is_model()));
    }

    /// Changes the quantity (in all, what has filled included) and the price of a resting order. A smaller quantity
    /// at the same price keeps its place; anything else goes to the end.
    ///
    /// # Errors
    /// Returns why not; nothing changed then.
    pub fn amend(
        &mut self,
        market: &mut Market,
        now: u64,
        id: usize,
        lots: i64,
        px: i64,
    ) -> Result<(), Reject> {
        let order = self.orders.get(id).ok_or(Reject::UnknownOrder)?;
        if order.status.is_done() || order.canceling {
            return Err(Reject::UnknownOrder);
        }
        let spec = &market.instruments()[order.ask.inst].spec;
        if px <= 0 || px % spec.step_ticks != 0 {
            return Err(Reject::Tick);
        }
        if lots <= 0 || lots % spec.step_lots != 0 {
            return Err(Reject::Lot);
        }
        let (inst, account, side) = (order.ask.inst, order.account, order.ask.side);
        if lots <= order.filled {
            return self.cancel(market, now, id, Ended::User);
        }
        let keeps = Some(px) == order.ask.px && lots <= order.lots;
        let mut wanted = order.ask.clone();
        wanted.px = Some(px);
        wanted.client_id = String::new();
        wanted.size = Size::Base(lots - order.filled);
        let reserved = order.reserved;
        let asset = order.hold_asset().to_owned();
        // The money it holds now is its own to use again.
        self.accounts[account].hold(&asset, -reserved);
        let checked = self.check(market, account, &wanted);
        self.accounts[account].hold(&asset, reserved);
        checked?;
        self.withdraw(market, now, id);
        let order = &mut self.orders[id];
        order.lots = lots;
        order.ask.px = Some(px);
        order.ask.size = Size::Base(lots);
        order.updated_ns = now;
        let shown = Box::new(order.clone());
        self.tell(now, account, What::Amended(shown));
        if keeps {
            let left = self.orders[id].left();
            let mut batch = market.begin(inst);
            market.nudge(&mut batch, inst, side, px, [0, left]);
            self.events.extend(market.end(inst, now, batch, None).filter(|_| market.is_model()));
            self.hold(market, id);
            self.tell_balances(market, now, inst, vec![account]);
        } else {
            if let Some(lists) = self.resting.get_mut(&inst) {
                lists[at(side)].retain(|o| *o != id);
            }
            self.hold(market, id);
            self.enter(market, now, id);
        }
        Ok(())
    }

    /// Ends all open orders of an account, of one instrument or of all; returns which.
    pub fn cancel_all(
        &mut self,
        market: &mut Market,
        now: u64,
        account: usize,
        inst: Option<usize>,
        why: Ended,
    ) -> Vec<usize> {
        let open: Vec<usize> = self.accounts[account].open.iter().copied().collect();
        let mut ended = Vec::new();
        for id in open {
            let concerned = inst.is_none_or(|i| self.orders[id].ask.inst == i);
            if concerned && self.cancel(market, now, id, why).is_ok() {
                ended.push(id);
            }
        }
        ended
    }

    /// Does what is due: expiries, dead-man switches, fills after an acknowledged cancel.
    pub fn advance(&mut self, market: &mut Market, now: u64) {
        for id in take_due(&mut self.gtd, now) {
            // It may have ended since it was noted.
            let _ = self.cancel(market, now, id, Ended::Gtd);
        }
        for id in take_due(&mut self.late, now) {
            self.fill_late(market, now, id);
        }
        for account in 0..self.accounts.len() {
            if self.accounts[account].dead_man_ns.is_some_and(|when| when <= now) {
                self.accounts[account].dead_man_ns = None;
                self.cancel_all(market, now, account, None, Ended::DeadMan);
            }
        }
    }

    /// Fills a resting order whole at its price, whatever the market does.
    fn fill_late(&mut self, market: &mut Market, now: u64, id: usize) {
        let order = &self.orders[id];
        let (Some(px), lots, inst) = (order.ask.px, order.left(), order.ask.inst) else { return };
        if lots == 0 {
            return;
        }
        let (side, account) = (order.ask.side, order.account);
        let mut batch = market.begin(inst);
        market.nudge(&mut batch, inst, side, px, [0, -lots]);
        batch.trade(px, lots, side);
        let event = market.end(inst, now, batch, None);
        let trade_id = event.as_ref().and_then(|e| e.trades.first()).map_or(0, |t| t.id);
        self.events.extend(event.filter(|_| market.is_model()));
        self.fill(market, now, id, [px, lots], trade_id, true);
        self.tell_balances(market, now, inst, vec![account]);
    }

    /// Lets an event of the flow, not yet published, trade with resting orders; returns the event that includes it.
    pub fn react(&mut self, market: &mut Market, now: u64, event: Event) -> Event {
        let inst = event.inst;
        if !self.resting.contains_key(&inst) {
            return event;
        }
        let mut batch = market.begin(inst);
        let mut prints: Vec<(usize, i64, i64)> = Vec::new();
        for trade in &event.trades {
            self.meet(market, &mut batch, &mut prints, inst, [trade.px, trade.qty], trade.maker);
        }
        for change in &event.changes {
            let flow = market.flow_qty(inst, change.side, change.px);
            self.cap_queue(inst, change.side, change.px, flow);
        }
        for side in [Side::Bid, Side::Ask] {
            self.cross(market, &mut batch, &mut prints, inst, side);
        }
        if prints.is_empty() {
            return event;
        }
        let earlier = event.trades.len();
        let (event, ids) = if market.is_model() {
            let kept = event.clone();
            let event = market.end(inst, now, batch, Some(event)).unwrap_or(kept);
            let ids: Vec<u64> = event.trades.iter().skip(earlier).map(|t| t.id).collect();
            (event, ids)
        } else {
            // A recorded event stays as it was recorded.
            let ids = prints.iter().map(|_| market.claim_trade_id(inst)).collect();
            (event, ids)
        };
        let mut touched = Vec::new();
        for (n, (id, px, lots)) in prints.into_iter().enumerate() {
            touched.push(self.orders[id].account);
            let trade_id = ids.get(n).copied().unwrap_or(0);
            self.fill(market, now, id, [px, lots], trade_id, true);
        }
        self.tell_balances(market, now, inst, touched);
        event
    }

    /// A trade of the flow at `px` also meets orders at better prices, and those it reaches at its own.
    fn meet(
        &mut self,
        market: &mut Market,
        batch: &mut Batch,
        prints: &mut Vec<(usize, i64, i64)>,
        inst: usize,
        [px, lots]: [i64; 2],
        side: Side,
    ) {
        let Some(lists) = self.resting.get(&inst) else { return };
        let ids = lists[at(side)].clone();
        let mut rest = lots;
        let mut passed = 0;
        for id in ids {
            let order = &self.orders[id];
            let own = order.ask.px.unwrap_or(0);
            if rest <= 0 || side.key(own) < side.key(px) {
                break;
            }
            if own == px {
                let first = (order.ahead - passed).clamp(0, rest);
                (rest, passed) = (rest - first, passed + first);
            }
            let taken: i64 = prints.iter().filter(|p| p.0 == id).map(|p| p.2).sum();
            let fill = (order.left() - taken).min(rest);
            if fill > 0 {
                rest -= fill;
                market.nudge(batch, inst, side, own, [0, -fill]);
                batch.trade(own, fill, side);
                prints.push((id, own, fill));
            }
        }
        self.advance_queue(inst, side, px, lots);
    }

    /// The flow at a price is at most `flow`: nobody has more in front of him.
    fn cap_queue(&mut self, inst: usize, side: Side, px: i64, flow: i64) {
        let Some(lists) = self.resting.get(&inst) else { return };
        for id in &lists[at(side)] {
            let order = &mut self.orders[*id];
            if order.ask.px == Some(px) {
                order.ahead = order.ahead.min(flow);
            }
        }
    }

    /// Quotes of the flow that reach resting orders of `side` trade with them.
    fn cross(
        &mut self,
        market: &mut Market,
        batch: &mut Batch,
        prints: &mut Vec<(usize, i64, i64)>,
        inst: usize,
        side: Side,
    ) {
        let Some(lists) = self.resting.get(&inst) else { return };
        for id in lists[at(side)].clone() {
            let order = &self.orders[id];
            let px = order.ask.px.unwrap_or(0);
            let taken: i64 = prints.iter().filter(|p| p.0 == id).map(|p| p.2).sum();
            let mut left = order.left() - taken;
            while left > 0
                && let Some(quote) = market.flow_best(inst, side.other())
                && side.reaches(px, quote.px)
            {
                let lots = left.min(quote.qty);
                market.nudge(batch, inst, side.other(), quote.px, [-lots, 0]);
                market.nudge(batch, inst, side, px, [0, -lots]);
                if !market.is_model() {
                    // A recorded book keeps its quantity: the order is filled by what reached it, once.
                    left = lots;
                }
                batch.trade(px, lots, side);
                prints.push((id, px, lots));
                left -= lots;
            }
        }
    }

    /// Money comes (or goes, if negative) from outside.
    pub fn deposit(&mut self, now: u64, account: usize, asset: &str, amount: Amount) {
        let venue = self.accounts[account].venue;
        self.accounts[account].credit(asset, amount);
        *self.accounts[account].external.entry(asset.to_owned()).or_default() += amount;
        self.house.entry((venue, asset.to_owned())).or_default().outside -= amount;
        self.tell(now, account, What::External(asset.to_owned(), amount));
        self.tell(now, account, What::Balances(vec![asset.to_owned()]));
    }

    /// Takes a fill back: money and fee return, the record stays and is marked.
    ///
    /// # Errors
    /// Returns [`Reject::UnknownOrder`] for no fill, or one that was taken back before.
    pub fn bust(&mut self, now: u64, fill: usize) -> Result<(), Reject> {
        let one = self.fills.get_mut(fill).filter(|f| !f.busted).ok_or(Reject::UnknownOrder)?;
        one.busted = true;
        let one = one.clone();
        let order = &self.orders[one.order];
        let (base, quote, venue) = (order.base.clone(), order.quote.clone(), order.venue);
        let sign = if one.side == Side::Bid { 1 } else { -1 };
        let back = [
            (base, Amount(-one.qty.0 * sign)),
            (quote, Amount(one.cost.0 * sign)),
            (one.fee_asset.clone(), one.fee),
        ];
        for (asset, amount) in back {
            self.accounts[one.account].credit(&asset, amount);
            *self.accounts[one.account].external.entry(asset.clone()).or_default() += amount;
            self.house.entry((venue, asset.clone())).or_default().outside -= amount;
            self.tell(now, one.account, What::External(asset.clone(), amount));
            self.tell(now, one.account, What::Balances(vec![asset]));
        }
        Ok(())
    }

    /// Places an order for an account as somebody else would: by hand, outside of its client.
    ///
    /// # Errors
    /// As [`Desk::place`].
    pub fn place_foreign(
        &mut self,
        market: &mut Market,
        now: u64,
        account: usize,
        mut ask: NewOrder,
    ) -> Result<usize, Reject> {
        ask.foreign = true;
        ask.arrived_ns = now;
        self.place(market, now, account, ask)
    }
}

/// Takes what is due off a list.
fn take_due(list: &mut Vec<(u64, usize)>, now: u64) -> Vec<usize> {
    let mut due = Vec::new();
    list.retain(|(when, id)| {
        let is_due = *when <= now;
        if is_due {
            due.push(*id);
        }
        !is_due
    });
    due
}

impl NewOrder {
    /// Returns a market order by quantity.
    #[must_use]
    pub fn market(inst: usize, side: Side, lots: i64) -> Self {
        let limit = Self::limit(inst, side, 0, lots, Tif::Ioc);
        Self { kind: OrderType::Market, px: None, ..limit }
    }
}

//! Which order brings what a round has left over back to its start asset.
//!
//! Invariant: a hedge lowers what is left over and never turns it around; its limit is within the
//! allowed slippage of its book's middle, and at that limit the round as a whole loses no more than its
//! budget. Completing a missing leg and taking back a filled one are the same question: which live book,
//! at any venue, gives most for it. The start asset is preferred; another numeraire serves where no
//! book leads to the start.
//!
//! Not here: when to hedge and when to give up (`trading`).

use crate::controls::{View, Wish};
use crate::instrument::{AssetId, FeeIn, Instrument};
use crate::mutation::{Mute, muted};
use crate::order::{Action, Purpose};
use crate::round::{Flows, Round};
use crate::units::{PPM_PER_UNIT, Px, Qty, pow10};
use crate::value::{Bias, quote_of, shift_of};

const PPM: i128 = PPM_PER_UNIT as i128;

/// What can be done about a leftover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is too little for any instrument, or nothing leads anywhere from it: it is kept.
    TooLittle,
    /// This order.
    Send(Wish),
    /// Nothing now: no live book, no funds, too dear.
    Wait,
}

/// One way, with what it gives.
#[derive(Clone, Copy)]
struct Way {
    wish: Wish,
    /// In the numeraire; negative is paid.
    gain: i128,
    /// Of the leftover's asset.
    size: i128,
    to_start: bool,
}

/// Returns the best order for `amount` of `asset` left over. `left` is everything that is left over,
/// `not` are instruments that were refused just now.
#[must_use]
pub fn choose(
    view: &View<'_>,
    (round, left): (&Round, &Flows),
    (asset, amount): (AssetId, i128),
    slippage_ppm: i64,
    not: &[u16],
) -> Choice {
    let mut best: Option<Way> = None;
    let mut tradeable = false;
    for (id, rules) in view.universe.instruments.iter().enumerate() {
        let id = id as u16;
        let other = match (rules.base == asset, rules.quote == asset) {
            (true, _) => rules.quote,
            (_, true) => rules.base,
            _ => continue,
        };
        let to_start = other == round.start;
        if !to_start && (!view.params.numeraires.contains(&other) || is_numeraire(view, asset)) {
            continue;
        }
        if !is_enough(view, id, rules, asset, amount) {
            continue;
        }
        tradeable = true;
        if not.contains(&id) {
            continue;
        }
        let Some(way) = way(view, (round, left), (asset, amount), id, slippage_ppm) else {
            continue;
        };
        let better = |best: &Way| {
            let (ours, theirs) =
                (way.gain.saturating_mul(best.size), best.gain.saturating_mul(way.size));
            (best.to_start, theirs) < (to_start, ours)
        };
        if best.as_ref().is_none_or(better) {
            best = Some(Way { to_start, ..way });
        }
    }
    match best {
        Some(way) => Choice::Send(way.wish),
        None if tradeable => Choice::Wait,
        None => Choice::TooLittle,
    }
}

fn is_numeraire(view: &View<'_>, asset: AssetId) -> bool {
    view.params.numeraires.contains(&asset)
}

fn action(rules: &Instrument, asset: AssetId, amount: i128) -> Action {
    // What there is too much of is sold, or spent where it is the quote.
    if (rules.base == asset) == (0 < amount) { Action::Sell } else { Action::Buy }
}

/// Returns the whole lots of base that `amount` is at a price, never more.
fn lots(view: &View<'_>, id: u16, asset: AssetId, amount: i128, px: i64) -> i64 {
    let rules = &view.universe.instruments[usize::from(id)];
    let fee = i128::from(rules.taker_fee.0);
    let size = amount.unsigned_abs().min(i64::MAX as u128) as i128;
    let scale = i128::from(pow10(shift_of(view.universe, id)));
    let action = action(rules, asset, amount);
    let keep = (PPM - fee).max(1);
    let qty = match (rules.base == asset, action, rules.fee_in) {
        (true, Action::Sell, _) | (true, Action::Buy, FeeIn::Quote) => size,
        (true, Action::Buy, FeeIn::Received) => size * PPM / keep,
        (false, Action::Buy, FeeIn::Quote) => size * scale / i128::from(px) * PPM / (PPM + fee),
        (false, Action::Buy, FeeIn::Received) => size * scale / i128::from(px),
        (false, Action::Sell, _) => size * scale / i128::from(px) * PPM / keep,
    };
    let qty = i64::try_from(qty).unwrap_or(i64::MAX);
    qty - qty % rules.lot.0
}

/// Returns whether a leftover is as much as an instrument takes. Where no price is known it is.
fn is_enough(view: &View<'_>, id: u16, rules: &Instrument, asset: AssetId, amount: i128) -> bool {
    let side = action(rules, asset, amount).takes();
    let Some(best) = view.market.get(id).book.best(side) else {
        return rules.lot.0 as u128 <= amount.unsigned_abs();
    };
    let qty = lots(view, id, asset, amount, best.px.0);
    qty != 0 && smallest(view, id, rules, best.px) <= qty
}

/// Returns the smallest quantity that an instrument takes at a price, buffer included.
#[must_use]
pub fn smallest(view: &View<'_>, id: u16, rules: &Instrument, px: Px) -> i64 {
    let notional =
        i128::from(rules.notional_min.0) * (PPM + i128::from(view.limits.notional_min_buffer_ppm));
    let scale = i128::from(pow10(shift_of(view.universe, id)));
    let by_notional = -(-notional.saturating_mul(scale)).div_euclid(PPM * i128::from(px.0));
    let least = by_notional.max(rules.qty_min.0.into()).max(rules.lot.0.into());
    let lots = -(-least).div_euclid(rules.lot.0.into());
    i64::try_from(lots.saturating_mul(rules.lot.0.into())).unwrap_or(i64::MAX)
}

fn way(
    view: &View<'_>,
    (round, left): (&Round, &Flows),
    (asset, amount): (AssetId, i128),
    id: u16,
    slippage_ppm: i64,
) -> Option<Way> {
    let rules = &view.universe.instruments[usize::from(id)];
    let action = action(rules, asset, amount);
    view.market
        .usable(rules.venue, id, &view.params.venues[rules.venue.idx()], view.now_ns)
        .ok()?;
    let state = view.market.get(id);
    let mid = i128::from(state.mid()?);
    let bound = match action {
        Action::Buy => mid * (PPM + i128::from(slippage_ppm)) / PPM,
        Action::Sell => -(-mid * (PPM - i128::from(slippage_ppm))).div_euclid(PPM),
    };
    let bound = Px(i64::try_from(bound).ok()?);
    let most = view.limits.instruments[usize::from(id)].qty_max.min(rules.qty_max).0;
    let (mut qty, mut px) = (0i64, Px(0));
    for level in state.depth().levels(action.takes()) {
        if action.is_worse(level.px, bound) {
            break;
        }
        let want = lots(view, id, asset, amount, level.px.0).min(most - most % rules.lot.0);
        if want <= qty {
            break;
        }
        let part = (want - qty).min(level.qty.0);
        (qty, px) = (qty + part, level.px);
    }
    let shift = shift_of(view.universe, id);
    qty -= qty % rules.lot.0;
    let purpose = if round.plans(id, action) { Purpose::Hedge } else { Purpose::Unwind };
    let wish = |qty: i64| Wish {
        venue: rules.venue,
        instrument: id,
        action,
        px,
        qty: Qty(qty),
        purpose,
        cause: round.cause,
        edge_ppm: 0,
    };
    if qty == 0 {
        return None;
    }
    // Cut to what there is to spend and to the largest notional.
    let (spent, need) = view.spends(&wish(qty));
    let available = view.available(rules.venue, spent, &[])?;
    if available < need {
        let part = i128::from(qty).saturating_mul(available.max(0)) / need.max(1);
        qty = part as i64 - part as i64 % rules.lot.0;
    }
    let quote = quote_of(px, qty, shift, true);
    let notional = view.worth(rules.quote, quote, Bias::High)?;
    let notional_max = i128::from(view.limits.notional_max);
    if notional_max < notional {
        let part = i128::from(qty).saturating_mul(notional_max) / notional.max(1);
        qty = part as i64 - part as i64 % rules.lot.0;
    }
    if qty == 0 || qty < smallest(view, id, rules, px) {
        return None;
    }
    // At the limit, and with the fee: what the round then is worth.
    let quote = quote_of(px, qty, shift, action == Action::Buy);
    let sign = if action == Action::Buy { 1 } else { -1 };
    let fee_of = |amount: i128| -(-amount * i128::from(rules.taker_fee.0)).div_euclid(PPM);
    let mut after = *left;
    let mut base_change = i128::from(qty) * sign;
    let mut quote_change = -quote * sign;
    match (action, rules.fee_in) {
        (Action::Buy, FeeIn::Received) => base_change -= fee_of(qty.into()),
        _ => quote_change -= fee_of(quote),
    }
    let fits = after.add(rules.venue, rules.base, base_change)
        & after.add(rules.venue, rules.quote, quote_change);
    let loss = -worth_of(view, &after)?;
    if !fits || (i128::from(view.limits.round_loss_max) < loss && !muted(Mute::HedgeBudget)) {
        return None;
    }
    let (other, change, size) = if rules.base == asset {
        (rules.quote, quote_change, i128::from(qty))
    } else {
        (rules.base, base_change, quote)
    };
    let gain = view.worth(other, change, Bias::Low)?;
    Some(Way { wish: wish(qty), gain, size: size.max(1), to_start: false })
}

/// Returns what flows are worth with the worse side; nothing where an asset has no worth.
#[must_use]
pub fn worth_of(view: &View<'_>, flows: &Flows) -> Option<i128> {
    let mut sum = Some(0i128);
    flows.each_asset(|asset, amount| {
        let worth = view.worth(asset, amount, Bias::Low);
        sum = sum.zip(worth).and_then(|(sum, worth)| sum.checked_add(worth));
    });
    sum
}

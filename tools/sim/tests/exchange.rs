//! The matching core without sockets: conservation, price-time, order types, self-trade prevention.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tandem_sim::SimConfig;
use tandem_sim::amount::Amount;
use tandem_sim::book::Side;
use tandem_sim::config::Venue;
use tandem_sim::exchange::{
    Exchange, NewOrder, OrderType, Quirks, Reject, Size, Status, Stp, Tif, What,
};

const MS: u64 = 1_000_000;

fn quiet(seed: u64) -> Exchange {
    let mut cfg = SimConfig::demo(seed);
    cfg.market.dislocation_every_ms = 0;
    Exchange::new(cfg, seed).unwrap()
}

fn inst(exchange: &Exchange, venue: Venue, symbol: &str) -> usize {
    exchange.market.find(venue, symbol).unwrap()
}

fn best(exchange: &Exchange, inst: usize, side: Side) -> (i64, i64) {
    let level = exchange.market.instruments()[inst].book.best(side).unwrap();
    (level.px, level.qty)
}

fn check(exchange: &Exchange) {
    let tally = exchange.truth();
    let zero = |all: Vec<Amount>| all.iter().all(|a| *a == Amount::ZERO);
    assert!(zero(tally.imbalance.values().copied().collect()), "{:?}", tally.imbalance);
    assert!(zero(tally.held.values().copied().collect()), "{:?}", tally.held);
    let mut fills: std::collections::BTreeMap<usize, i64> = Default::default();
    for fill in exchange.desk.fills() {
        *fills.entry(fill.order).or_default() += fill.lots;
    }
    for order in exchange.desk.orders() {
        assert!(order.filled <= order.lots || order.ask.quirks.overfill_ppm > 0);
        assert!(!order.status.is_done() || order.reserved == Amount::ZERO);
        assert_eq!(fills.get(&order.id).copied().unwrap_or(0), order.filled);
    }
}

/// A public book is the flow's plus the resting orders', never crossed, and its ids run on.
fn check_books(exchange: &Exchange) {
    let mut resting: std::collections::BTreeMap<(usize, Side, i64), i64> = Default::default();
    for order in exchange.desk.orders().iter().filter(|o| o.left() > 0) {
        let key = (order.ask.inst, order.ask.side, order.ask.px.unwrap());
        *resting.entry(key).or_default() += order.left();
    }
    for (index, it) in exchange.market.instruments().iter().enumerate() {
        assert!(!it.book.is_crossed_or_locked(), "{} is crossed", it.spec.symbol);
        for side in [Side::Bid, Side::Ask] {
            for level in it.book.levels(side) {
                let flow = exchange.market.flow_qty(index, side, level.px);
                let ours = resting.get(&(index, side, level.px)).copied().unwrap_or(0);
                assert_eq!(level.qty, flow + ours, "{} at {}", it.spec.symbol, level.px);
            }
        }
    }
}

#[test]
fn random_orders_conserve_money_and_keep_the_books_sound() {
    for seed in 1..=6u64 {
        let mut exchange = quiet(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let venues = [Venue::Binance, Venue::Coinbase, Venue::Kraken];
        let accounts: Vec<usize> =
            (0..6).map(|i| exchange.open_account(&format!("a{}", i / 3), venues[i % 3])).collect();
        let mut ids: std::collections::BTreeMap<usize, u64> = Default::default();
        let mut now = 0;
        for round in 0..600 {
            now += rng.random_range(1..20) * MS;
            let account = accounts[rng.random_range(0..accounts.len())];
            let venue = exchange.desk.accounts()[account].venue;
            let of_venue: Vec<usize> = (0..exchange.market.instruments().len())
                .filter(|i| exchange.market.instruments()[*i].spec.venue == venue)
                .collect();
            let inst = of_venue[rng.random_range(0..of_venue.len())];
            let side = if rng.random::<bool>() { Side::Bid } else { Side::Ask };
            let (top, qty) = best(&exchange, inst, side.other());
            let away = rng.random_range(-30..30);
            let step = exchange.market.instruments()[inst].spec.step_lots;
            let lots = (qty * rng.random_range(1..30) / 10).max(1) / step * step;
            let mut order = NewOrder::limit(inst, side, (top + away).max(1), lots, Tif::Gtc);
            order.tif = [Tif::Gtc, Tif::Gtc, Tif::Ioc, Tif::Fok, Tif::Gtd(now + 50 * MS)]
                [rng.random_range(0..5)];
            order.stp = [Stp::None, Stp::Taker, Stp::Maker, Stp::Both, Stp::Decrement]
                [rng.random_range(0..5)];
            match rng.random_range(0..10) {
                0 => order = NewOrder { stp: order.stp, ..NewOrder::market(inst, side, lots) },
                1 => order.kind = OrderType::PostOnly,
                2 => order.quirks = Quirks { fraction_ppm: Some(300_000), ..Quirks::default() },
                _ => {}
            }
            let (placed, outcome) = exchange.place(now, account, order);
            let mut events = outcome.events;
            if let Ok(id) = placed
                && rng.random_range(0..4) == 0
            {
                let (_, outcome) = exchange.cancel(now + 1, id);
                events.extend(outcome.events);
            }
            events.extend(exchange.advance(now).events);
            for event in events {
                let last = ids.insert(event.inst, event.last_id);
                assert!(last.is_none_or(|l| event.first_id == l + 1), "ids run on");
                assert_eq!(event.last_id + 1 - event.first_id, event.changes.len() as u64);
            }
            if round % 10 == 0 {
                check_books(&exchange);
            }
        }
        check_books(&exchange);
        check(&exchange);
        let makers = exchange.desk.fills().iter().filter(|f| f.maker).count();
        assert!(makers > 10, "seed {seed}: {makers} resting orders were met");
    }
}

#[test]
fn a_taker_walks_the_book_at_the_makers_prices() {
    let mut exchange = quiet(1);
    let account = exchange.open_account("a", Venue::Binance);
    let inst = inst(&exchange, Venue::Binance, "BTCUSDT");
    let levels: Vec<(i64, i64)> = exchange.market.instruments()[inst]
        .book
        .levels(Side::Ask)
        .take(3)
        .map(|l| (l.px, l.qty))
        .collect();
    let want = levels[0].1 + levels[1].1 + 1;
    let order = NewOrder::limit(inst, Side::Bid, levels[2].0, want, Tif::Ioc);
    let (id, outcome) = exchange.place(1, account, order);
    let order = &exchange.desk.orders()[id.unwrap()];
    assert_eq!((order.status, order.filled), (Status::Filled, want));
    let prices: Vec<(i64, i64)> = exchange.desk.fills().iter().map(|f| (f.px, f.lots)).collect();
    assert_eq!(prices, vec![levels[0], levels[1], (levels[2].0, 1)]);
    assert_eq!(outcome.events.len(), 1, "one order, one event");
    assert_eq!(outcome.events[0].trades.len(), 3);
    assert_eq!(best(&exchange, inst, Side::Ask), (levels[2].0, levels[2].1 - 1));
    let kinds: Vec<&str> = outcome
        .reports
        .iter()
        .map(|r| match r.what {
            What::New(_) => "new",
            What::Trade(..) => "trade",
            What::Balances(_) => "balances",
            _ => "else",
        })
        .collect();
    assert_eq!(kinds, ["new", "trade", "trade", "trade", "balances"]);
    // Binance takes the fee from what was bought.
    let fill = &exchange.desk.fills()[0];
    assert_eq!(fill.fee_asset, "BTC");
    assert_eq!(fill.fee, fill.qty.rate(1_000, 8));
    check(&exchange);
}

#[test]
fn resting_orders_fill_in_time_order_behind_the_flow() {
    let mut exchange = quiet(2);
    let (a, b) =
        (exchange.open_account("a", Venue::Kraken), exchange.open_account("b", Venue::Kraken));
    let inst = inst(&exchange, Venue::Kraken, "BTC/USD");
    let (px, flow) = best(&exchange, inst, Side::Bid);
    let lots = 100_000;
    let first = exchange.place(1, a, NewOrder::limit(inst, Side::Bid, px, lots, Tif::Gtc)).0;
    let second = exchange.place(2, b, NewOrder::limit(inst, Side::Bid, px, lots, Tif::Gtc)).0;
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(best(&exchange, inst, Side::Bid), (px, flow + 2 * lots));
    // A seller of the flow's quantity and half of the first order's.
    let seller = exchange.open_account("s", Venue::Kraken);
    exchange.desk.deposit(3, seller, "BTC", Amount::parse("1000").unwrap());
    let sell = NewOrder::limit(inst, Side::Ask, px, flow + lots / 2, Tif::Ioc);
    exchange.place(3, seller, sell).0.unwrap();
    let left = |id: usize| exchange.desk.orders()[id].left();
    assert_eq!((left(first), left(second)), (lots / 2, lots));
    assert_eq!(best(&exchange, inst, Side::Bid), (px, 2 * lots - lots / 2));
    check(&exchange);
}

#[test]
fn the_flow_fills_what_it_trades_through() {
    let mut exchange = quiet(3);
    let account = exchange.open_account("a", Venue::Binance);
    let inst = inst(&exchange, Venue::Binance, "BTCUSDT");
    let (px, _) = best(&exchange, inst, Side::Bid);
    let order = NewOrder::limit(inst, Side::Bid, px, 500, Tif::Gtc);
    let id = exchange.place(1, account, order).0.unwrap();
    let mut now = 0;
    while exchange.desk.orders()[id].left() > 0 && now < 600_000 * MS {
        now += 100 * MS;
        exchange.advance(now);
        check_books(&exchange);
    }
    let order = &exchange.desk.orders()[id];
    assert_eq!(order.status, Status::Filled, "the market comes to it within ten minutes");
    let fills: Vec<_> = exchange.desk.fills().iter().filter(|f| f.order == id).collect();
    assert!(fills.iter().all(|f| f.maker && f.px == px), "at its own price, as a maker");
    check(&exchange);
}

#[test]
fn order_types_do_what_they_say() {
    let mut exchange = quiet(4);
    let account = exchange.open_account("a", Venue::Binance);
    let inst = inst(&exchange, Venue::Binance, "ETHUSDT");
    let (ask, qty) = best(&exchange, inst, Side::Ask);
    let limit = |px, lots, tif| NewOrder::limit(inst, Side::Bid, px, lots, tif);
    let mut status = |order: NewOrder| -> (Status, i64) {
        let id = exchange.place(1, account, order).0.unwrap();
        let order = &exchange.desk.orders()[id];
        (order.status, order.filled)
    };
    assert_eq!(status(limit(ask - 1, 1_000, Tif::Ioc)), (Status::Expired, 0));
    assert_eq!(status(limit(ask, qty + 1_000, Tif::Fok)), (Status::Expired, 0));
    let (state, filled) = status(limit(ask, qty + 1_000, Tif::Ioc));
    assert_eq!((state, filled), (Status::Expired, qty));
    let post = |px, lots| NewOrder { kind: OrderType::PostOnly, ..limit(px, lots, Tif::Gtc) };
    assert_eq!(status(post(ask - 1, 1_000)), (Status::Open, 0));
    let (ask, _) = best(&exchange, inst, Side::Ask);
    assert_eq!(exchange.place(1, account, post(ask, 1_000)).0, Err(Reject::WouldTake));
    let money = NewOrder {
        size: Size::Quote(Amount::parse("1000").unwrap()),
        ..NewOrder::market(inst, Side::Bid, 0)
    };
    let id = exchange.place(1, account, money).0.unwrap();
    let order = &exchange.desk.orders()[id];
    assert_eq!(order.status, Status::Filled);
    let (least, most) = (Amount::parse("995").unwrap(), Amount::parse("1000").unwrap());
    assert!(order.cost > least && order.cost <= most, "{}", order.cost);
    let gtd = limit(ask / 2, 1_000, Tif::Gtd(50 * MS));
    let id = exchange.place(2, account, gtd).0.unwrap();
    exchange.desk.advance(&mut exchange.market, 49 * MS);
    assert_eq!(exchange.desk.orders()[id].status, Status::Open);
    exchange.desk.advance(&mut exchange.market, 50 * MS);
    assert_eq!(exchange.desk.orders()[id].status, Status::Expired);
    check(&exchange);
}

#[test]
fn rules_are_enforced() {
    let mut exchange = quiet(5);
    let account = exchange.open_account("a", Venue::Binance);
    let inst = inst(&exchange, Venue::Binance, "BTCUSDT");
    let (px, _) = best(&exchange, inst, Side::Bid);
    let mut refused = |order: NewOrder| exchange.place(1, account, order).0.unwrap_err();
    let limit = |px, lots| NewOrder::limit(inst, Side::Bid, px, lots, Tif::Gtc);
    assert_eq!(refused(limit(0, 1_000)), Reject::Tick);
    assert_eq!(refused(limit(px, 0)), Reject::MinQty);
    assert_eq!(refused(limit(px / 2, 10)), Reject::MinNotional);
    assert_eq!(refused(limit(px * 6, 1_000)), Reject::PriceBand);
    assert_eq!(refused(limit(px / 6, 100_000)), Reject::PriceBand);
    assert_eq!(refused(limit(px, 8_000_000)), Reject::Funds);
    assert_eq!(refused(limit(px, 80_000_000)), Reject::MaxNotional);
    let named = NewOrder { client_id: "x".to_owned(), ..limit(px / 2, 1_000) };
    let first = exchange.place(1, account, named.clone()).0.unwrap();
    assert_eq!(exchange.place(1, account, named.clone()).0, Err(Reject::DuplicateId));
    exchange.cancel(2, first).0.unwrap();
    assert_eq!(exchange.cancel(2, first).0, Err(Reject::UnknownOrder));
    assert!(exchange.place(3, account, named).0.is_ok(), "unique among open orders only");
    let tick = tandem_sim::units::Grid::parse_step("0.5").unwrap();
    exchange.market.set_rules(inst, 4, Some(tick), None, None).unwrap();
    let off = NewOrder::limit(inst, Side::Bid, px / 2 / 50 * 50 + 1, 1_000, Tif::Gtc);
    assert_eq!(exchange.place(4, account, off).0, Err(Reject::Tick));
    exchange.advance(2_000 * MS);
    let it = &exchange.market.instruments()[inst];
    let off = |side| it.book.levels(side).filter(|l| l.px % 50 != 0).count();
    assert!(off(Side::Bid) <= 1 && off(Side::Ask) == 0, "the flow quotes on the new step");
    check(&exchange);
}

#[test]
fn self_trade_prevention_ends_whom_it_says() {
    for (stp, resting, taking) in [
        (Stp::Taker, Status::Open, Status::Prevented),
        (Stp::Maker, Status::Prevented, Status::Open),
        (Stp::Both, Status::Prevented, Status::Prevented),
        (Stp::Decrement, Status::Prevented, Status::Prevented),
        (Stp::None, Status::Filled, Status::Filled),
    ] {
        let mut exchange = quiet(6);
        let account = exchange.open_account("a", Venue::Binance);
        let inst = inst(&exchange, Venue::Binance, "ETHUSDT");
        let (bid, _) = best(&exchange, inst, Side::Bid);
        let (ask, _) = best(&exchange, inst, Side::Ask);
        assert!(ask - bid > 1, "room for an order between");
        let own = NewOrder::limit(inst, Side::Bid, bid + 1, 1_000, Tif::Gtc);
        let own = exchange.place(1, account, own).0.unwrap();
        let mut sell = NewOrder::limit(inst, Side::Ask, bid + 1, 1_000, Tif::Gtc);
        sell.stp = stp;
        let taker = exchange.place(2, account, sell).0.unwrap();
        let orders = exchange.desk.orders();
        assert_eq!((orders[own].status, orders[taker].status), (resting, taking), "{stp:?}");
        check(&exchange);
        check_books(&exchange);
    }
}

#[test]
fn lies_and_corrections_keep_the_books_balanced() {
    let mut exchange = quiet(7);
    let account = exchange.open_account("a", Venue::Coinbase);
    let inst = inst(&exchange, Venue::Coinbase, "BTC-USD");
    let (ask, qty) = best(&exchange, inst, Side::Ask);
    let mut order = NewOrder::limit(inst, Side::Bid, ask, qty / 4, Tif::Ioc);
    order.quirks.worse_ppm = 5_000;
    let id = exchange.place(1, account, order.clone()).0.unwrap();
    assert!(exchange.desk.fills()[0].px > ask, "worse than the limit");
    order.quirks = Quirks { overfill_ppm: 500_000, ..Quirks::default() };
    let over = exchange.place(2, account, order.clone()).0.unwrap();
    assert!(exchange.desk.orders()[over].filled > exchange.desk.orders()[over].lots);
    order.quirks = Quirks { reduce_ppm: 500_000, ..Quirks::default() };
    let less = exchange.place(3, account, order).0.unwrap();
    assert!(exchange.desk.orders()[less].filled < exchange.desk.orders()[less].lots);
    check(&exchange);
    let before = exchange.desk.accounts()[account].balance("BTC").total;
    exchange.desk.bust(4, 0).unwrap();
    assert!(exchange.desk.bust(4, 0).is_err(), "once");
    let after = exchange.desk.accounts()[account].balance("BTC").total;
    assert_eq!(before - after, exchange.desk.fills()[0].qty);
    exchange.desk.deposit(5, account, "USD", Amount::parse("-10").unwrap());
    assert_eq!(exchange.desk.orders()[id].status, Status::Filled);
    check(&exchange);

    let (bid, _) = best(&exchange, inst, Side::Bid);
    let rest = NewOrder::limit(inst, Side::Bid, bid - 100, 100_000, Tif::Gtc);
    let rest = exchange.place(6, account, rest).0.unwrap();
    exchange.desk.cancel_late(7, rest, 10).unwrap();
    assert_eq!(exchange.desk.view(rest).status, Status::Canceled, "as shown");
    exchange.desk.advance(&mut exchange.market, 10);
    assert_eq!(exchange.desk.orders()[rest].status, Status::Filled, "as it is");
    check(&exchange);
}

#[test]
fn amendments_keep_or_lose_their_place() {
    let mut exchange = quiet(8);
    let account = exchange.open_account("a", Venue::Kraken);
    let inst = inst(&exchange, Venue::Kraken, "ETH/USD");
    let (bid, flow) = best(&exchange, inst, Side::Bid);
    let order = NewOrder::limit(inst, Side::Bid, bid, 10_000_000, Tif::Gtc);
    let id = exchange.place(1, account, order).0.unwrap();
    exchange.desk.amend(&mut exchange.market, 2, id, 5_000_000, bid).unwrap();
    assert_eq!(best(&exchange, inst, Side::Bid), (bid, flow + 5_000_000));
    exchange.desk.amend(&mut exchange.market, 3, id, 5_000_000, bid - 1).unwrap();
    assert_eq!(best(&exchange, inst, Side::Bid), (bid, flow));
    let (ask, _) = best(&exchange, inst, Side::Ask);
    exchange.desk.amend(&mut exchange.market, 4, id, 5_000_000, ask).unwrap();
    assert_eq!(exchange.desk.orders()[id].status, Status::Filled, "an amendment may take");
    check(&exchange);
    check_books(&exchange);
}

#[test]
fn the_flow_is_untouched_by_accounts_and_by_far_orders() {
    let events = |with: bool| {
        let mut exchange = quiet(9);
        let account = exchange.open_account("a", Venue::Binance);
        if with {
            let inst = inst(&exchange, Venue::Binance, "BTCUSDT");
            let (bid, _) = best(&exchange, inst, Side::Bid);
            let far = NewOrder::limit(inst, Side::Bid, bid / 2, 1_000, Tif::Gtc);
            let id = exchange.place(0, account, far).0.unwrap();
            exchange.advance(2_000 * MS);
            exchange.cancel(2_000 * MS, id).0.unwrap();
        }
        let mut all = Vec::new();
        for event in exchange.advance(4_000 * MS).events {
            if event.at_ns > 2_000 * MS {
                all.push((event.inst, event.changes, event.trades.len()));
            }
        }
        all
    };
    assert_eq!(events(false), events(true));
}

#[test]
fn a_hundred_thousand_orders_stay_balanced() {
    let mut exchange = quiet(10);
    let account = exchange.open_account("a", Venue::Binance);
    for (asset, amount) in [("USDT", "1000000000"), ("BTC", "100000")] {
        exchange.desk.deposit(0, account, asset, Amount::parse(amount).unwrap());
    }
    let inst = inst(&exchange, Venue::Binance, "BTCUSDT");
    let mut now = 0;
    for n in 0..100_000 {
        // A tenth of a millisecond an order; the flow goes on meanwhile.
        now += MS / 10;
        let side = if n % 2 == 0 { Side::Bid } else { Side::Ask };
        let (px, _) = best(&exchange, inst, side.other());
        let mut order = NewOrder::limit(inst, side, px, 100, Tif::Ioc);
        order.client_id = format!("n{n}");
        exchange.place(now, account, order).0.unwrap();
        if n % 100 == 0 {
            exchange.advance(now);
        }
    }
    assert_eq!(exchange.desk.orders().len(), 100_000);
    check(&exchange);
    check_books(&exchange);
}

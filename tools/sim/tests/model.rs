//! The seeded market itself: repeatable, never crossed, and worth trading.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use tandem_sim::SimConfig;
use tandem_sim::book::Side;
use tandem_sim::config::Venue;
use tandem_sim::market::Market;

const S: u64 = 1_000_000_000;

#[test]
fn the_same_seed_gives_the_same_events_however_often_it_is_asked() {
    let events = |seed: u64, step_ns: u64| {
        let mut market = Market::new(&SimConfig::demo(seed)).unwrap();
        let mut all = Vec::new();
        let mut until = 0;
        while until < 5 * S {
            until += step_ns;
            while let Some(event) = market.next(until.min(5 * S)) {
                all.push(event);
            }
        }
        all
    };
    let once = events(3, 5_000_000);
    assert!(once.len() > 3_000, "{}", once.len());
    assert!(once == events(3, 333_000_000), "the pace of asking must not matter");
    assert!(once != events(4, 5_000_000), "another seed is another market");
}

#[test]
fn books_are_never_crossed_locked_or_thin_and_ids_run_on() {
    for seed in [1, 2, 3] {
        let mut market = Market::new(&SimConfig::demo(seed)).unwrap();
        let mut ids: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let (mut trades, mut events) = (0usize, 0usize);
        while let Some(event) = market.next(20 * S) {
            events += 1;
            let it = &market.instruments()[event.inst];
            let symbol = &it.spec.symbol;
            assert!(!it.book.is_crossed_or_locked(), "seed {seed}: {symbol} at {}", event.at_ns);
            for side in [Side::Bid, Side::Ask] {
                assert!(it.book.len(side) >= 30, "seed {seed}: {symbol} has {}", it.book.len(side));
                assert!(it.book.len(side) <= 3_000, "seed {seed}: {symbol} grows");
            }
            let (last_id, last_trade) =
                ids.get(&event.inst).copied().unwrap_or((event.first_id - 1, 0));
            assert_eq!(event.first_id, last_id + 1);
            assert_eq!(event.last_id, last_id + event.changes.len() as u64);
            let mut trade_id = last_trade;
            for trade in &event.trades {
                assert!(trade_id == 0 || trade.id == trade_id + 1);
                assert!(trade.qty > 0);
                trade_id = trade.id;
                trades += 1;
            }
            ids.insert(event.inst, (event.last_id, trade_id));
            let mut seen: Vec<(Side, i64)> = event.changes.iter().map(|c| (c.side, c.px)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), event.changes.len(), "a price occurs once in an event");
        }
        assert!((12_000..30_000).contains(&events), "{events} events in 20 s");
        assert!(trades > 1_000, "{trades}");
    }
}

/// Moves sweep levels away; they must grow again, else a day's run ends with empty books.
#[test]
fn books_keep_their_depth() {
    let mut market = Market::new(&SimConfig::demo(5)).unwrap();
    while market.next(600 * S).is_some() {}
    for it in market.instruments() {
        for side in [Side::Bid, Side::Ask] {
            let levels = it.book.len(side);
            assert!((200..=1_500).contains(&levels), "{} {side:?}: {levels}", it.spec.symbol);
        }
    }
}

/// Best prices in everyday units, by venue and assets.
type Tops = BTreeMap<(Venue, String, String), (f64, f64)>;

/// Gain of each kind of round now, in basis points before fees.
fn edges(tops: &Tops) -> [f64; 3] {
    let mut best = [f64::MIN; 3];
    let top = |v: Venue, b: &str, q: &str| tops.get(&(v, b.to_owned(), q.to_owned())).copied();
    let bps = |ratio: f64| (ratio - 1.0) * 1e4;
    for base in ["BTC", "ETH", "SOL"] {
        for quote in ["USD", "USDT"] {
            for (buy, sell) in Venue::ALL.iter().flat_map(|a| Venue::ALL.map(|b| (*a, b))) {
                if let (Some((_, ask)), Some((bid, _))) =
                    (top(buy, base, quote), top(sell, base, quote))
                {
                    best[0] = best[0].max(bps(bid / ask));
                }
                // Across quotes: USD at one venue, USDT at another, converted on Kraken.
                let (Some(usd), Some(usdt), Some(rate)) = (
                    top(buy, base, "USD"),
                    top(sell, base, "USDT"),
                    top(Venue::Kraken, "USDT", "USD"),
                ) else {
                    continue;
                };
                best[2] =
                    best[2].max(bps(usdt.0 * rate.0 / usd.1)).max(bps(usd.0 / (usdt.1 * rate.1)));
            }
        }
    }
    for venue in Venue::ALL {
        let quote = if venue == Venue::Coinbase { "USD" } else { "USDT" };
        for coin in ["ETH", "SOL"] {
            if let (Some(btc), Some(alt), Some(cross)) =
                (top(venue, "BTC", quote), top(venue, coin, quote), top(venue, coin, "BTC"))
            {
                let there = alt.0 / (btc.1 * cross.1);
                let back = cross.0 * btc.0 / alt.1;
                best[1] = best[1].max(bps(there)).max(bps(back));
            }
        }
    }
    best
}

/// With 10 bp a leg, each kind of round appears several times in every ten seconds.
#[test]
fn opportunities_of_every_kind_keep_coming() {
    const FEES_BPS: [f64; 3] = [20.0, 30.0, 30.0];
    const KINDS: [&str; 3] = ["cross-venue", "triangular", "cross-quote"];
    for seed in [1, 7] {
        let mut market = Market::new(&SimConfig::demo(seed)).unwrap();
        let mut tops = Tops::new();
        let mut open = [false; 3];
        let mut episodes = vec![[0u32; 3]; 6];
        while let Some(event) = market.next(60 * S) {
            if !event.bbo_changed {
                continue;
            }
            let it = &market.instruments()[event.inst];
            let spec = &it.spec;
            let px = |side| spec.tick.as_f64(it.book.best(side).unwrap().px);
            let key = (spec.venue, spec.base.clone(), spec.quote.clone());
            tops.insert(key, (px(Side::Bid), px(Side::Ask)));
            if event.at_ns < S {
                continue;
            }
            let window = usize::try_from(event.at_ns / (10 * S)).unwrap().min(5);
            for (kind, edge) in edges(&tops).into_iter().enumerate() {
                let is_open = edge > FEES_BPS[kind];
                if is_open && !open[kind] {
                    episodes[window][kind] += 1;
                }
                open[kind] = is_open;
            }
        }
        for (window, counts) in episodes.iter().enumerate() {
            for (kind, count) in counts.iter().enumerate() {
                assert!(
                    *count >= 2,
                    "seed {seed}: {} {} in window {window}: {episodes:?}",
                    count,
                    KINDS[kind]
                );
            }
        }
    }
}

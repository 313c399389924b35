//! Each thing that a venue, others or the way there may do, alone: what it does to a run that is known without it.

mod support;

use std::collections::BTreeMap;

use support::{late, market, plan, run};
use tandem_backtest::config::{Arm, Competition, Config, Outage, Resting, Tier, Transfer};
use tandem_backtest::{Outcome, Plan};
use tandem_core::instrument::AssetId;
use tandem_core::record::Venue;
use tandem_core::units::Amount;

fn with(change: impl FnOnce(&mut Config)) -> Plan {
    let mut config = late(1_000);
    change(&mut config);
    plan(config)
}

fn every_venue(config: &mut Config, change: impl Fn(&mut tandem_backtest::config::VenueModel)) {
    config.venue.values_mut().for_each(change);
}

fn sound(found: &Outcome) -> &Outcome {
    assert!(found.summary.is_conserved, "{:?}", found.conservation);
    found
}

fn rejected(found: &Outcome, why: &str) -> u64 {
    found.venues.values().filter_map(|venue| venue.rejected.get(why)).sum()
}

/// Peers, section 5, points 3 to 14, each against the same market.
#[test]
fn each_assumption_does_what_it_says() {
    let records = market(77, 6_000);
    let base = run(&with(|_| {}), &records);
    let summary = &sound(&base).summary;
    assert!(50 < summary.rounds && 0 < summary.pnl, "{summary:?}");
    assert!(base.data.quarantines != 0 && base.data.records == records.len() as u64);

    // All of it goes to others: nothing is earned, and nothing is left over.
    let share_ppm = 1_000_000;
    let found = run(&with(|c| c.competition = Competition { share_ppm, ramp_us: 0 }), &records);
    assert_eq!((sound(&found).summary.fills, found.summary.pnl), (0, 0));
    assert_eq!(found.summary.rounds_missed, found.summary.rounds);
    assert!(found.venues.values().all(|v| 500_000 < v.taken_by_others_ppm), "{:?}", found.venues);
    // A ramp that has hardly begun takes little.
    let ramp_us = 10_000_000;
    let found = run(&with(|c| c.competition = Competition { share_ppm, ramp_us }), &records);
    assert!(0 < sound(&found).summary.pnl && found.summary.pnl <= summary.pnl);

    // Refused: orders, no fills, no result.
    let found = run(&with(|c| every_venue(c, |v| v.reject_ppm = 1_000_000)), &records);
    assert_eq!((sound(&found).summary.fills, found.summary.pnl), (0, 0));
    assert!(0 < rejected(&found, "venue"), "{:?}", found.venues);

    // Answers are lost: orders are asked for, and all fills are found.
    let found = run(&with(|c| every_venue(c, |v| v.lost_ppm = 300_000)), &records);
    let lost: u64 = sound(&found).venues.values().map(|venue| venue.unknown).sum();
    assert!(0 < lost && 0 < found.summary.fills);
    assert!(found.levels.keys().any(|name| name.contains("PAUSE")), "{:?}", found.levels);

    // Rates and bans.
    let found = run(
        &with(|c| {
            every_venue(c, |v| (v.orders_per_10s, v.ban_after, v.ban_s) = (2, 2, 1));
        }),
        &records,
    );
    assert!(0 < rejected(sound(&found), "rate"));
    assert!(found.venues.values().any(|venue| 0 < venue.bans), "{:?}", found.venues);

    // A band no order fits in.
    let found = run(&with(|c| every_venue(c, |v| v.price_band_ppm = 1)), &records);
    assert!(0 < rejected(sound(&found), "band") && found.summary.fills < summary.fills);

    // Outages: books are quarantined and told anew, trading goes on after each.
    let outage = Some(Outage { every_s: 3, lasts_ms: 300 });
    let found = run(&with(|c| every_venue(c, |v| v.outage = outage)), &records);
    assert!(sound(&found).venues.values().all(|venue| 2 < venue.outages), "{:?}", found.venues);
    assert!(0 < found.summary.rounds_filled && found.summary.opportunities < summary.opportunities);

    // Fees: a tier that is reached makes the rest cheaper.
    let tier =
        |volume: &str, taker_ppm| Tier { volume: volume.to_owned(), taker_ppm, maker_ppm: 0 };
    let dear = run(&with(|c| every_venue(c, |v| v.taker_fee_ppm = Some(300))), &records);
    let tiers = vec![tier("0", 300), tier("200000", 30)];
    let cheaper = run(&with(|c| every_venue(c, |v| v.tiers.clone_from(&tiers))), &records);
    assert!(sound(&cheaper).venues.values().any(|venue| venue.taker_fee_ppm == 30));
    let rate = |found: &Outcome| found.summary.fees as f64 / found.summary.turnover.max(1) as f64;
    assert!(rate(&cheaper) < rate(sound(&dear)), "{} {}", rate(&cheaper), rate(&dear));
    // Fees from another asset, at its book's price and with a discount.
    let found = run(
        &with(|c| {
            let kraken = c.venue.get_mut("kraken").expect("there");
            (kraken.fee_asset, kraken.fee_discount_ppm) = (Some("ETH".to_owned()), 250_000);
        }),
        &records,
    );
    let fees = |found: &Outcome, asset: &str| {
        let row = found.conservation.iter().find(|row| row.asset == asset).expect("a row");
        row.fees.parse::<f64>().expect("a number")
    };
    assert!(fees(&base, "ETH") < fees(sound(&found), "ETH"), "{:?}", found.conservation);

    // Depth that was taken: the longer it stays away, the less there is.
    let found = run(&with(|c| c.recovery_ms = 60_000), &records);
    assert!(sound(&found).summary.turnover < summary.turnover);

    // Not armed: seen, not traded.
    let found = run(&with(|c| c.arm = Arm::Recorded), &records);
    assert_eq!((found.summary.rounds, found.summary.orders), (0, 0));
    assert!(found.funnel.denials.contains_key("C1 level"), "{:?}", found.funnel.denials);
    // Without looks the rest is the same.
    let found = run(&with(|c| c.counterfactual = false), &records);
    assert_eq!((&found.summary.digest, found.decay.len()), (&summary.digest, 0));
    // Orders that rest are followed, and change nothing.
    let resting = Resting { is_on: true, ..Resting::default() };
    let found = run(&with(|c| c.resting = resting), &records);
    assert_eq!(found.summary.digest, summary.digest);
    assert!(found.resting.iter().any(|figures| 0 < figures.filled), "{:?}", found.resting);
}

/// Balances run out, and transfers bring them back: with fees, after a time.
#[test]
fn balances_are_the_capacity_and_transfers_restore_it() {
    let records = market(78, 8_000);
    let poor = |transfer: Vec<Transfer>| {
        let mut plan = with(|c| c.transfer = transfer);
        // Coinbase can buy but not sell, Binance sell but not buy, each a little.
        plan.opening = vec![
            (Venue::Binance, AssetId(1), Amount(3_000_000)),
            (Venue::Coinbase, AssetId(0), Amount(150_000_000_000)),
        ];
        plan
    };
    let without = run(&poor(Vec::new()), &records);
    assert!(sound(&without).funnel.denials.contains_key("C11 funds"), "{:?}", without.funnel);
    let rule = Transfer {
        asset: "BTC".to_owned(),
        from: "coinbase".to_owned(),
        to: "binance".to_owned(),
        below: "2".to_owned(),
        amount: "0.5".to_owned(),
        fee: "0.001".to_owned(),
        delay_s: 1,
        fail_ppm: 0,
        day_max: "100".to_owned(),
    };
    let usd = Transfer {
        asset: "USD".to_owned(),
        from: "binance".to_owned(),
        to: "coinbase".to_owned(),
        below: "100000".to_owned(),
        amount: "30000".to_owned(),
        fee: "5".to_owned(),
        delay_s: 1,
        fail_ppm: 0,
        day_max: "100000000".to_owned(),
    };
    let with_transfers = run(&poor(vec![rule.clone(), usd]), &records);
    let row = |found: &Outcome| {
        found.conservation.iter().find(|row| row.asset == "BTC").expect("a row").clone()
    };
    assert!(0 < with_transfers.venues["binance"].transfers, "{:?}", with_transfers.venues);
    assert_ne!(row(sound(&with_transfers)).transfer_fees, "0");
    assert!(0 < with_transfers.summary.transfer_fees);
    // One that always comes back costs its fee and brings nothing.
    let failing = run(&poor(vec![Transfer { fail_ppm: 1_000_000, ..rule }]), &records);
    assert_eq!(sound(&failing).venues["binance"].transfers, 0);
    assert_ne!(row(&failing).transfer_fees, "0");
}

/// The counterfactuals: later is worth less, a venue without legs has no value, and the sums are of one set.
#[test]
fn a_millisecond_has_a_price() {
    let mut worth = BTreeMap::new();
    for seed in 0..20 {
        let found = run(&with(|_| {}), &market(400 + seed, 3_000));
        let count = found.decay[0].count;
        assert!(found.decay.iter().all(|point| point.count == count), "{:?}", found.decay);
        for (venue, value) in &found.value_of_ms {
            assert!(value.points.iter().all(|point| point.count == count));
            let punctual = value.points.iter().find(|point| point.late_us == 0).expect("punctual");
            assert_eq!(punctual.net, found.decay[0].net, "{venue}");
            *worth.entry(venue.clone()).or_insert(0) += value.per_ms_day;
        }
        for point in &found.decay {
            *worth.entry(format!("late {:>6} us", point.late_us)).or_insert(0) += point.net;
        }
    }
    println!("{worth:#?}");
    let late = |us: i64| worth[&format!("late {us:>6} us")];
    assert!(0 < late(0) && late(20_000) < late(0) && late(200_000) < late(20_000) / 2);
    assert!(Venue::ALL.iter().all(|venue| 0 < worth[venue.name()]), "{worth:?}");
}

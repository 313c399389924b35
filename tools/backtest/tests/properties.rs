//! What must hold of every backtest, whatever is assumed.

mod support;

use std::collections::BTreeMap;

use support::desk::Dice;
use support::{late, market, plan, run, troubled};
use tandem_backtest::config::{
    Competition, Config, Latency, Outage, Resting, Tier, Transfer, VenueModel, VenueTime,
};
use tandem_backtest::{Outcome, Plant};
use tandem_core::record::Venue;

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn latency(dice: &mut Dice) -> Latency {
    let us = dice.below(30_000) as u32;
    match dice.below(3) {
        0 => Latency::Constant { us },
        1 => Latency::Empirical {
            samples_us: (0..1 + dice.below(20)).map(|_| dice.below(40_000) as u32).collect(),
            correlation_ppm: dice.below(1_000_000) as u32,
            shift_us: dice.below(10_000) as i32 - 5_000,
        },
        _ => Latency::Bursty {
            us,
            jitter_us: dice.below(3_000) as u32,
            burst_us: dice.below(200_000) as u32,
            burst_every_ms: 1 + dice.below(2_000) as u32,
            burst_lasts_ms: dice.below(400) as u32,
        },
    }
}

fn venue(dice: &mut Dice) -> VenueModel {
    let fee = dice.below(2_000) as i32;
    let tiers = [("0", fee), ("100000", fee / 2), ("5000000", fee / 4)];
    let tier = |(volume, taker_ppm): (&str, i32)| Tier {
        volume: volume.to_owned(),
        taker_ppm,
        maker_ppm: 0,
    };
    VenueModel {
        feed: if dice.chance(50) { latency(dice) } else { Latency::Constant { us: 0 } },
        venue_time: [VenueTime::Offset, VenueTime::Trusted, VenueTime::Engine]
            [dice.below(3) as usize],
        feed_base_us: dice.below(3_000) as u32,
        entry: latency(dice),
        response: latency(dice),
        taker_fee_ppm: dice.chance(50).then_some(fee),
        maker_fee_ppm: 0,
        tiers: if dice.chance(50) { tiers.map(tier).to_vec() } else { Vec::new() },
        volume_30d: dice.below(1_000_000).to_string(),
        fee_asset: dice.chance(30).then(|| "ETH".to_owned()),
        fee_discount_ppm: dice.below(500_000) as u32,
        reject_ppm: if dice.chance(50) { dice.below(200_000) as u32 } else { 0 },
        lost_ppm: if dice.chance(50) { dice.below(100_000) as u32 } else { 0 },
        orders_per_10s: if dice.chance(30) { 1 + dice.below(20) as u32 } else { 0 },
        ban_after: dice.below(5) as u32,
        ban_s: 1 + dice.below(3) as u32,
        price_band_ppm: if dice.chance(30) { dice.below(20_000) as u32 } else { 0 },
        outage: dice.chance(40).then(|| Outage {
            every_s: 1 + dice.below(4) as u32,
            lasts_ms: 1 + dice.below(1_500) as u32,
        }),
    }
}

fn transfer(dice: &mut Dice) -> Transfer {
    let [from, to] = [["binance", "kraken"], ["kraken", "coinbase"]][dice.below(2) as usize];
    Transfer {
        asset: ["USD", "BTC", "ETH"][dice.below(3) as usize].to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        below: "20000000".to_owned(),
        amount: "5".to_owned(),
        fee: "0.01".to_owned(),
        delay_s: dice.below(3) as u32,
        fail_ppm: dice.below(500_000) as u32,
        day_max: "50".to_owned(),
    }
}

fn any(dice: &mut Dice) -> Config {
    let mut opening = BTreeMap::new();
    for venue in Venue::ALL {
        let amount = |dice: &mut Dice, most: i64| dice.below(most).to_string();
        let assets = [("USD", 2_000_000), ("BTC", 40), ("ETH", 400)];
        let assets = assets.map(|(name, most)| (name.to_owned(), amount(dice, most)));
        opening.insert(venue.name().to_owned(), assets.into());
    }
    Config {
        seed: dice.roll(),
        latency_ppm: dice.below(4_000_000) as u32,
        decision_us: dice.below(2_000) as u32,
        timer_ms: 5 + dice.below(20) as u32,
        timer_idle_ms: 50 + dice.below(100) as u32,
        rearm_s: dice.below(3) as u32,
        recovery_ms: dice.below(2_000) as u32,
        competition: Competition {
            share_ppm: dice.below(1_000_001) as u32,
            ramp_us: if dice.chance(50) { 0 } else { dice.below(50_000) as u32 },
        },
        venue: Venue::ALL.map(|name| (name.name().to_owned(), venue(dice))).into(),
        transfer: (0..dice.below(3)).map(|_| transfer(dice)).collect(),
        resting: Resting { is_on: dice.chance(30), for_ms: 500, cancels_ahead_ppm: 300_000 },
        opening,
        ..Config::default()
    }
}

fn opened(config: &Config) -> tandem_backtest::Plan {
    let mut plan = plan(config.clone());
    plan.opening.clear();
    for venue in Venue::ALL {
        for (id, asset) in plan.universe.assets.iter().enumerate() {
            let text = &config.opening[venue.name()][&asset.name];
            let amount = tandem_core::units::parse_decimal(text.as_bytes(), asset.exponent);
            let amount = tandem_core::units::Amount(amount.expect("a number"));
            plan.opening.push((venue, tandem_core::instrument::AssetId(id as u16), amount));
        }
    }
    plan
}

/// Peers, section 5, point 12: per asset, what there was and what was traded is what there is, in every world.
#[test]
fn nothing_comes_from_nowhere() {
    let cases = environment("TANDEM_BACKTEST_CASES", 1_000);
    let seed = environment("TANDEM_SEED", 20_261_130);
    println!("TANDEM_SEED={seed} TANDEM_BACKTEST_CASES={cases}");
    let markets: Vec<_> = (0..8).map(|n| market(seed + n, 600)).collect();
    let mut dice = Dice(seed);
    let (mut fills, mut rejected, mut unknown, mut transfers, mut outages) = (0, 0, 0, 0, 0);
    let (mut bans, mut quarantined, mut hedged, mut resting) = (0, 0, 0, 0);
    for case in 0..cases {
        let config = any(&mut dice);
        let plan = opened(&config);
        let found = run(&plan, &markets[dice.below(8) as usize]);
        assert!(found.summary.is_conserved, "case {case}: {:?}\n{config:?}", found.conservation);
        fills += found.summary.fills;
        rejected += found.summary.orders_rejected;
        hedged += found.summary.rounds_hedged;
        resting += found.resting.iter().map(|figures| figures.orders).sum::<u64>();
        for venue in found.venues.values() {
            unknown += venue.unknown;
            transfers += venue.transfers;
            outages += venue.outages;
            bans += venue.bans;
            quarantined += venue.quarantined;
        }
    }
    println!(
        "figure BT-01: {cases} configurations, {fills} fills, {rejected} refused, {unknown} answers lost, \
         {transfers} transfers, {outages} outages, {bans} bans, {quarantined} in quarantine, {hedged} hedged, \
         {resting} resting: differences 0"
    );
    // A world in which nothing of a kind happened shows nothing about it.
    for seen in [fills, rejected, unknown, transfers, outages, bans, quarantined, hedged, resting] {
        assert!(cases < 200 || 0 < seen, "a kind of event never happened");
    }
}

/// The venues' books are brought up to date when somebody looks. In every world, also in one full of trouble, that is
/// the same as taking every message at its time.
#[test]
fn books_that_catch_up_are_those_that_kept_up() {
    let cases = environment("TANDEM_BACKTEST_CASES", 1_000) / 2;
    let seed = environment("TANDEM_SEED", 20_261_130);
    println!("TANDEM_SEED={seed}, {cases} configurations");
    let markets: Vec<_> = (0..8).map(|n| troubled(n, &market(seed + n, 600))).collect();
    let mut dice = Dice(seed);
    let (mut fills, mut outages, mut looks) = (0, 0, 0);
    for case in 0..cases {
        let mut config = any(&mut dice);
        // Rests are watched: with them nothing is put off.
        config.resting.is_on &= dice.chance(30);
        let plan = opened(&config);
        let records = &markets[dice.below(8) as usize];
        let text = |found: &Outcome| serde_json::to_string(found).expect("text");
        let found = run(&plan, records);
        let kept_up = run(&tandem_backtest::Plan { plant: Plant::Attentive, ..plan }, records);
        assert!(found.summary.is_conserved, "case {case}");
        assert!(text(&found) == text(&kept_up), "case {case} of seed {seed} differs:\n{config:?}");
        fills += found.summary.fills;
        outages += found.venues.values().map(|venue| venue.outages).sum::<u64>();
        looks += found.summary.opportunities;
    }
    println!("{fills} fills, {outages} outages, {looks} opportunities: differences 0");
    assert!(0 < fills && 0 < outages && 0 < looks, "nothing happened");
}

#[test]
fn a_fault_in_the_accounts_voids_the_run() {
    let records = market(3, 3_000);
    let sound = plan(late(1_000));
    let found = run(&sound, &records);
    assert!(found.summary.is_conserved && 200 < found.summary.fills, "{:?}", found.summary);
    for plant in [Plant::Quantum, Plant::Fee] {
        let found = run(&tandem_backtest::Plan { plant, ..sound.clone() }, &records);
        assert!(!found.summary.is_conserved, "{plant:?} was not found");
        assert!(found.conservation.iter().any(|row| row.difference != "0"));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let records = market(5, 2_000);
    let mut dice = Dice(11);
    for _ in 0..20 {
        let config = any(&mut dice);
        let first = run(&opened(&config), &records);
        let again = run(&opened(&config), &records);
        let text = |found: &Outcome| serde_json::to_string(found).expect("text");
        assert_eq!(text(&first), text(&again));
        assert_eq!(first.summary.digest.len(), 64);
    }
    let digest = |config: Config| run(&plan(config), &records).summary.digest;
    let drawn = |seed| {
        let mut config = late(1_000);
        config.seed = seed;
        for venue in config.venue.values_mut() {
            venue.entry = Latency::Empirical {
                samples_us: (0..1_000).map(|n| n * 20).collect(),
                correlation_ppm: 0,
                shift_us: 0,
            };
        }
        config
    };
    assert_ne!(digest(drawn(1)), digest(drawn(2)), "another seed is another run");
}

/// Peers, section 5, points 2 to 4: on average over seeds, being later or more contested never pays.
#[test]
fn latency_and_competition_never_pay_on_average() {
    let seeds = environment("TANDEM_BACKTEST_SEEDS", 100);
    let mut by_latency = [0i64; 4];
    let mut by_share = [0i64; 3];
    for seed in 0..seeds {
        let records = market(1_000 + seed, 800);
        for (sum, us) in by_latency.iter_mut().zip([0u32, 10_000, 30_000, 80_000]) {
            *sum += run(&plan(late(us)), &records).summary.pnl_marked;
        }
        for (sum, share_ppm) in by_share.iter_mut().zip([0, 500_000, 900_000]) {
            let competition = Competition { share_ppm, ramp_us: 0 };
            let config = Config { competition, ..late(2_000) };
            *sum += run(&plan(config), &records).summary.pnl_marked;
        }
    }
    let mean = |sum: &i64| sum / seeds as i64 / 1_000_000;
    let (latency, share): (Vec<_>, Vec<_>) =
        (by_latency.iter().map(mean).collect(), by_share.iter().map(mean).collect());
    println!(
        "figure BT-02: mean result over {seeds} seeds, USD: orders 0, 10, 30, 80 ms late {latency:?}; \
         competition 0, 50, 90 % {share:?}"
    );
    assert!(by_latency.is_sorted_by(|a, b| a > b), "{latency:?}");
    assert!(by_share.is_sorted_by(|a, b| a > b), "{share:?}");
    assert!(0 < by_latency[0], "{latency:?}");
}

//! Paper against live: the same market twice, once with orders at the simulated venues and once with the
//! engine's own paper venues, as far away as the live ones were measured to be.
//!
//! What is proven: in both runs every balance is the sum of its postings, the live one is the simulator's to
//! the last fill, and every round that only one of the two took, or that came to something else, has a
//! reason that is printed.
//!
//! The market is the same until our own live orders change it: rounds are compared by cycle and by the time
//! since the simulator's start.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use support::{RunDir, Up, wait_for};
use tandem_core::controls::Control;
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_core::round::{RoundReport, Stage};
use tandem_sim::SimConfig;
use tandem_tools::accounts::Accounts;
use tandem_tools::config::{Config, Mode};
use tandem_tools::demo::{self, RunStats};
use tandem_tools::engine_tile::metric;
use tandem_tools::latch::{self, Act};
use tandem_tools::time::now_ns;
use tandem_tools::trades::Trades;
use tandem_tools::{demo_config, demo_keys, replay, stages, truth};

const SEED: u64 = 31;
const MS: i64 = 1_000_000;
/// From the simulator's start to the pause; the same in both runs.
const UNTIL: Duration = Duration::from_secs(38);
const READY_WITHIN: Duration = Duration::from_secs(34);
/// Two rounds of one cycle that began within this time of each other are of one dislocation.
const WINDOW_NS: i64 = 600 * MS;

/// A round, with times since the simulator's start.
struct Round {
    report: RoundReport,
    at_ns: i64,
}

/// How far away a venue is, µs: to its book and back.
type Distance = BTreeMap<Venue, (i64, i64)>;

struct Run {
    rounds: Vec<Round>,
    /// Control by cycle and time.
    denials: Vec<(u32, i64, String)>,
    /// Cycle, and from when to when it was there.
    seen: Vec<(u32, i64, i64)>,
    distance: Distance,
    realised: String,
    fills: usize,
    fills_differ: u64,
    armed_ns: i64,
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn run(mode: Mode, distance: Option<&Distance>) -> Run {
    let dir = RunDir::new(&format!("pl-{}", mode.name()));
    let keys = demo_keys::make(dir.path()).unwrap();
    let mut sim_config = SimConfig::demo(SEED);
    sim_config.ca_path = Some(dir.path().join("sim-ca.pem"));
    demo_config::set_fees(&mut sim_config);
    demo_config::set_keys(&mut sim_config, &keys).unwrap();
    let symbols = demo::sim_symbols(&sim_config);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let start_ns = now_ns();
    let sim = runtime.block_on(tandem_sim::start(sim_config.clone())).unwrap();
    let control = sim.addresses().control;
    let with = Some((mode, &keys));
    let mut text = demo_config::text(
        dir.path(),
        sim.addresses(),
        &sim_config,
        &symbols,
        with,
        &demo_config::Dashboard::make(dir.path()).unwrap(),
    );
    for (venue, (there, back)) in distance.into_iter().flatten() {
        let head = format!("[limits.venue.{}]", venue.name());
        let (before, after) = text.split_once(&head).unwrap();
        let after = after
            .replacen("paper_latency_us = 1000", &format!("paper_latency_us = {there}"), 1)
            .replacen("paper_response_us = 1000", &format!("paper_response_us = {back}"), 1);
        text = format!("{before}{head}{after}");
    }
    let mut up = Up::start(&dir, &text);
    let config = Config::load(&dir.path().join("tandem.toml")).unwrap();
    let is_ready = || stages::is_ready(&stages::check(&config));
    assert!(wait_for(READY_WITHIN, is_ready), "{:#?}", stages::check(&config));
    let stats = RunStats::open(&config, Duration::from_secs(5)).unwrap();
    let page = latch::open(&config.run.dir, &config.run.state_dir).unwrap();
    let act = Act { who: "test", reason: "paper against live" };
    latch::lower(&page, &config.run.state_dir, (Scope::Global, Level::Armed), &act).unwrap();
    let armed_ns = now_ns() - start_ns;
    assert!(wait_for(UNTIL, || UNTIL.as_nanos() as i64 <= now_ns() - start_ns));
    let pause = (Scope::Global, Level::Pause, Cause::Operator);
    latch::raise(&page, &config.run.state_dir, pause, &act).unwrap();
    let over = || stats.engine().gauge(metric::ROUNDS_OPEN) == Some(0);
    assert!(wait_for(Duration::from_secs(20), over), "rounds did not end");
    up.stop();

    let journal = config.journal_dir();
    let (mut rounds, mut denials) = (BTreeMap::new(), Vec::new());
    let mut seen: BTreeMap<i64, (u32, i64, i64)> = BTreeMap::new();
    let mut group: Vec<Record> = Vec::new();
    let trades = Trades::read_with(&journal, |record, _| {
        if !matches!(record.kind(), Some(Kind::Round | Kind::Denial | Kind::Opportunity)) {
            return;
        }
        if record.part == 0 {
            group.clear();
        }
        group.push(*record);
        if record.has(flag::MORE) {
            return;
        }
        if let Some(report) = RoundReport::decode(&group) {
            rounds.insert(report.id, Round { at_ns: report.opened_ns - start_ns, report });
        } else if let Some(denial) = Denial::decode(&group) {
            let control = denial.breach.and_then(|breach| Control::from_tag(breach.control));
            let name = control.map_or(denial.verdict.name(), Control::name).to_owned();
            denials.push((denial.cycle, denial.at_ns - start_ns, name));
        } else if let Some(told) = Opportunity::decode(&group)
            && told.phase != Phase::After
        {
            let (from, to) = (told.first_ns - start_ns, told.last_ns - start_ns);
            let window = seen.entry(told.id).or_insert((told.cycle, from, to));
            window.2 = window.2.max(to);
        }
    })
    .unwrap();
    rounds.retain(|_, round| !round.report.is_orphan);

    // Conservation: every balance is the sum of what was posted, to the last quantum.
    let accounts = Accounts::read(&journal).unwrap();
    assert!(!accounts.holdings.is_empty());
    for ((venue, asset), holding) in &accounts.holdings {
        let sum: i128 = holding.by_tag.iter().sum();
        assert_eq!(sum, i128::from(holding.ledger), "{} {asset}", venue.name());
    }
    assert!(replay::verify(&journal).unwrap().identical, "the replay differs");
    let (mut measured, mut fills_differ) = (Distance::new(), 0);
    if mode == Mode::Live {
        let told = truth::compare(&journal, control, demo_keys::ACCOUNT).unwrap();
        assert!(told.is_clean(), "{told:#?}");
        fills_differ = told.missing_fills + told.extra_fills;
        let arrived: HashMap<String, i64> = truth::orders(control, demo_keys::ACCOUNT)
            .unwrap()
            .into_iter()
            .map(|order| (order.client_id, order.arrived_ns))
            .collect();
        for venue in Venue::ALL {
            let of = |order: &tandem_tools::trades::Order| {
                let at = arrived.get(order.client_id().as_str())?;
                Some((at - order.made_ns, order.acked_ns? - at))
            };
            let (there, back): (Vec<i64>, Vec<i64>) = trades.at(venue).filter_map(of).unzip();
            let us = |values| (median(values) / 1_000).max(1);
            measured.insert(venue, (us(there), us(back)));
        }
    }
    let currency = accounts.days.values().last().map_or("USD", |(_, name)| name).to_owned();
    let realised = accounts.days.values().map(|(pnl, _)| pnl.realised).sum();
    runtime.block_on(sim.shutdown());
    Run {
        rounds: rounds.into_values().collect(),
        denials,
        seen: seen.into_values().collect(),
        distance: measured,
        realised: format!("{} {currency}", accounts.text(&currency, realised)),
        fills: trades.orders.values().map(|order| order.fills.len()).sum(),
        fills_differ,
        armed_ns,
    }
}

/// Why a round of one run has none in the other.
fn absent(round: &Round, other: &Run) -> String {
    let near = |at_ns: i64| (at_ns - round.at_ns).abs() <= WINDOW_NS;
    let cycle = round.report.cycle;
    if round.at_ns < other.armed_ns {
        return "not armed yet".to_owned();
    }
    let shares = |one: &&Round| {
        let legs = |r: &Round| -> Vec<_> {
            r.report.legs().iter().map(|leg| (leg.instrument, leg.action)).collect()
        };
        near(one.at_ns)
            && one.report.cycle != cycle
            && legs(one).iter().any(|leg| legs(round).contains(leg))
    };
    let is_seen = other.seen.iter().any(|(of, from, to)| {
        *of == cycle && from - WINDOW_NS <= round.at_ns && round.at_ns <= to + WINDOW_NS
    });
    if let Some((_, _, control)) = other
        .denials
        .iter()
        .filter(|(of, at, _)| *of == cycle && near(*at))
        .min_by_key(|(_, at, _)| (at - round.at_ns).abs())
        && is_seen
    {
        return format!("denied by {control}");
    }
    if other.rounds.iter().any(|one| shares(&one)) {
        return "another order of ours took it".to_owned();
    }
    if is_seen {
        return "seen there, another cycle was better".to_owned();
    }
    "never seen there: the market had gone another way".to_owned()
}

/// What is different between two rounds of one window.
fn apart(live: &Round, paper: &Round) -> &'static str {
    let pairs = || live.report.legs().iter().zip(paper.report.legs());
    if pairs().any(|(l, p)| l.qty != p.qty) {
        "size: the books showed other quantities"
    } else if pairs().any(|(l, p)| l.px != p.px) {
        "price: the books showed other prices"
    } else if pairs().any(|(l, p)| l.filled != p.filled) {
        "latency: the book had changed when the order came"
    } else if live.report.worth != paper.report.worth {
        "fills at other prices, or hedged another way"
    } else {
        "none"
    }
}

#[test]
fn paper_and_live_differ_for_reasons() {
    let live = run(Mode::Live, None);
    let paper = run(Mode::Paper, Some(&live.distance));
    let mut taken = vec![false; paper.rounds.len()];
    let mut totals: BTreeMap<String, (u64, i128)> = BTreeMap::new();
    let mut matched = 0u64;
    let mut add = |reason: &str, worth: i128| {
        let total = totals.entry(reason.to_owned()).or_default();
        *total = (total.0 + 1, total.1 + worth);
    };
    println!("paper's distance, µs there and back: {:?}", live.distance);
    println!("{:>9} {:>6} {:>16} {:>16}  difference", "ms", "cycle", "live", "paper");
    for round in &live.rounds {
        let nearest = paper
            .rounds
            .iter()
            .enumerate()
            .filter(|(at, p)| !taken[*at] && p.report.cycle == round.report.cycle)
            .map(|(at, p)| (at, (p.at_ns - round.at_ns).abs()))
            .filter(|(_, away)| *away <= WINDOW_NS)
            .min_by_key(|(_, away)| *away);
        let worth = i128::from(round.report.worth.0);
        let (theirs, reason, by) = match nearest {
            Some((at, _)) => {
                taken[at] = true;
                matched += 1;
                let other = &paper.rounds[at];
                let by = worth - i128::from(other.report.worth.0);
                (other.report.worth.0.to_string(), format!("both: {}", apart(round, other)), by)
            }
            None => ("-".to_owned(), format!("live only: {}", absent(round, &paper)), worth),
        };
        println!(
            "{:>9} {:>6} {:>16} {:>16}  {reason}",
            round.at_ns / MS,
            round.report.cycle,
            round.report.worth.0,
            theirs
        );
        add(&reason, by);
    }
    for (round, _) in paper.rounds.iter().zip(&taken).filter(|(_, taken)| !**taken) {
        let reason = format!("paper only: {}", absent(round, &live));
        println!(
            "{:>9} {:>6} {:>16} {:>16}  {reason}",
            round.at_ns / MS,
            round.report.cycle,
            "-",
            round.report.worth.0
        );
        add(&reason, -i128::from(round.report.worth.0));
    }
    for (reason, (count, worth)) in &totals {
        println!("{count:>4} rounds, live less paper {worth:>16}: {reason}");
    }
    let sum = |run: &Run| -> i128 { run.rounds.iter().map(|r| i128::from(r.report.worth.0)).sum() };
    let explained: i128 = totals.values().map(|(_, worth)| worth).sum();
    println!(
        "figure 7: live {} rounds, {} fills, realised {}; paper {} rounds, {} fills, realised {}; {matched} in the \
         same window; live fills that the simulator tells otherwise: {}",
        live.rounds.len(),
        live.fills,
        live.realised,
        paper.rounds.len(),
        paper.fills,
        paper.realised,
        live.fills_differ
    );
    // Every quantum of the difference stands in a line above.
    assert_eq!(explained, sum(&live) - sum(&paper));
    assert!(live.rounds.iter().chain(&paper.rounds).all(|r| r.report.stage == Stage::Settled));
    assert!(5 <= live.rounds.len() && 5 <= paper.rounds.len(), "nothing was shown");
}

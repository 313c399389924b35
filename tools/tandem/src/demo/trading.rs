//! What a demo traded: rounds, orders, money, and whether the simulator agrees.
//!
//! Invariant: rounds, orders and money are read from the journal; what they are compared with is read
//! from the simulator. A figure that nothing was measured for is absent, never 0.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use serde::Serialize;
use tandem_core::instrument::AssetId;
use tandem_core::order::Purpose;
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::report::Denial;
use tandem_core::round::{RoundReport, Stage};
use tandem_drain::model::views::denial_code;
use tandem_gateway::stats::metric as gateway_metric;

use super::{DemoError, Percentiles, Report, RunStats, percentiles};
use crate::accounts::Accounts;
use crate::config::{Config, Mode};
use crate::demo_keys::ACCOUNT;
use crate::records::Origin;
use crate::trades::Trades;
use crate::{echo, sim_control, truth};

/// Rounds by how they ended.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Rounds {
    pub sent: u64,
    pub both_filled: u64,
    pub hedged: u64,
    pub unwound: u64,
    pub missed: u64,
    pub one_legged_open: u64,
}

/// Orders by how they ended.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Orders {
    pub sent: u64,
    pub filled: u64,
    pub partial: u64,
    pub expired: u64,
    pub rejected: u64,
    pub unknown_open: u64,
}

/// Results in one currency.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Money {
    pub realised: String,
    pub fees: String,
    pub currency: String,
}

/// Denials by control.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Controls {
    /// By the control's name.
    pub denials: BTreeMap<String, u64>,
}

/// One round's story, from its reports.
struct Story {
    last: RoundReport,
    entry_filled: bool,
    entry_missed: bool,
    hedge: bool,
    unwind: bool,
}

/// Adds what was traded to a report.
pub fn add(report: &mut Report, config: &Config, control: SocketAddr) -> Result<(), DemoError> {
    let journal = Origin::of(config);
    let (mut stories, mut denials, mut group) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut triggers: HashMap<(u16, u64), Record> = HashMap::new();
    let trades = Trades::read_with(journal.clone(), |record, _| {
        match record.kind() {
            Some(Kind::Round | Kind::Denial) => {
                if record.part == 0 {
                    group.clear();
                }
                group.push(*record);
                if record.has(flag::MORE) {
                    return;
                }
                if let Some(round) = RoundReport::decode(&group) {
                    tell(&mut stories, round);
                } else if let Some(denial) = Denial::decode(&group) {
                    *denials.entry(denial_code(&denial)).or_insert(0) +=
                        denial.times.unsigned_abs();
                }
            }
            // Every record of a message has its number; the order names the last one.
            // What has no sequence is no message: a book taken over from its page, or the timer.
            Some(Kind::Level | Kind::Bbo | Kind::Trade)
                if !record.has(flag::OUTPUT) && record.ring_seq != 0 =>
            {
                triggers.insert((record.ring, record.ring_seq), *record);
            }
            _ => {}
        }
    })?;
    let mut rounds = Rounds::default();
    for order in trades.orders.values() {
        let key = (order.new.run, order.new.key.round());
        if let Some(story) = stories.get_mut(&key) {
            let filled = 0 < order.filled().0;
            match order.new.purpose {
                Purpose::Entry => {
                    story.entry_missed &= !filled;
                    story.entry_filled &= order.filled() == order.new.qty;
                }
                Purpose::Hedge => story.hedge |= filled,
                Purpose::Unwind => story.unwind |= filled,
                Purpose::Operator => {}
            }
        }
    }
    for story in stories.values().filter(|story| !story.last.is_orphan) {
        rounds.sent += 1;
        let settled = story.last.stage == Stage::Settled;
        rounds.one_legged_open += u64::from(!settled);
        rounds.both_filled += u64::from(settled && story.entry_filled);
        rounds.missed += u64::from(settled && story.entry_missed);
        rounds.unwound += u64::from(settled && story.unwind);
        rounds.hedged += u64::from(settled && story.hedge && !story.unwind);
    }
    report.rounds = Some(rounds);
    report.orders = Some(orders(&trades));
    report.controls = Some(Controls { denials });
    let accounts = Accounts::read(journal.clone())?;
    report.pnl = Some(money(&accounts, control));
    if config.run.mode == Mode::Live {
        let mut found = truth::compare(journal.clone(), control, ACCOUNT)?;
        if let Some(limits) = &config.limits {
            let price = |asset: &str| price(&accounts, control, asset, &limits.numeraire);
            truth::limits(limits, control, ACCOUNT, price, &mut found)?;
        }
        report.truth = Some(found);
        report.wire_to_wire_ns = wire_to_wire(&trades, &triggers, control)?;
        report.tcp_echo_ns = Some(echo::tcp(4_000)?);
    }
    Ok(())
}

fn tell(stories: &mut BTreeMap<(u32, u64), Story>, round: RoundReport) {
    let key = (round.run, round.id);
    let story = stories.entry(key).or_insert(Story {
        last: round,
        entry_filled: true,
        entry_missed: true,
        hedge: false,
        unwind: false,
    });
    story.last = round;
}

fn orders(trades: &Trades) -> Orders {
    let mut orders = Orders::default();
    for order in trades.orders.values() {
        orders.sent += 1;
        match order.state() {
            "filled" => orders.filled += 1,
            "partial" => orders.partial += 1,
            "rejected" => orders.rejected += 1,
            "expired" | "cancelled" | "self_trade_prevented" | "never_accepted" => {
                orders.expired += 1;
            }
            _ => orders.unknown_open += 1,
        }
    }
    orders
}

/// Realised result and fees, both in the numeraire; fees in other assets at the simulator's last middle.
fn money(accounts: &Accounts, control: SocketAddr) -> Money {
    let currency =
        accounts.days.values().last().map_or("USD", |(_, name)| name.as_str()).to_owned();
    let realised: i64 = accounts.days.values().map(|(pnl, _)| pnl.realised).sum();
    let mut fees: BTreeMap<String, f64> = BTreeMap::new();
    for order in accounts.trades.orders.values() {
        for fill in order.kept() {
            let asset = AssetId(fill.fee_asset);
            let amount = order.table.amount(asset, fill.fee.0).parse::<f64>().unwrap_or(0.0);
            *fees.entry(order.table.asset(asset).to_owned()).or_default() += amount;
        }
    }
    let worth: f64 =
        fees.iter().map(|(asset, sum)| sum * price(accounts, control, asset, &currency)).sum();
    Money { realised: accounts.text(&currency, realised), fees: format!("{worth:.2}"), currency }
}

/// Middle price of an asset in the numeraire, from the simulator's own books; for display only.
fn price(accounts: &Accounts, control: SocketAddr, asset: &str, currency: &str) -> f64 {
    if asset == currency {
        return 1.0;
    }
    let Some(table) = &accounts.table else { return 0.0 };
    let listing = table
        .setup
        .listings
        .iter()
        .find(|listing| listing.base == asset && listing.quote == currency);
    let Some(listing) = listing else { return 0.0 };
    let symbol = listing.symbol.replace('/', "%2F");
    let path = format!("/truth/book?venue={}&symbol={symbol}&depth=1", listing.venue);
    let Ok(book) = sim_control::get(control, &path) else { return 0.0 };
    let best = |side: &str| {
        book[side][0][0].as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0)
    };
    (best("bids") + best("asks")) / 2.0
}

/// From the trigger's bytes leaving the simulator to the order's bytes arriving there.
fn wire_to_wire(
    trades: &Trades,
    triggers: &HashMap<(u16, u64), Record>,
    control: SocketAddr,
) -> Result<Option<Percentiles>, DemoError> {
    let arrived: HashMap<String, i64> = truth::orders(control, ACCOUNT)?
        .into_iter()
        .map(|order| (order.client_id, order.arrived_ns))
        .collect();
    let mut left: HashMap<(Venue, String), HashMap<u64, Vec<i64>>> = HashMap::new();
    let mut times = hdrhistogram::Histogram::<u64>::new(3)
        .map_err(|error| DemoError::Io(std::io::Error::other(error)))?;
    let entries = trades.orders.values().filter(|order| order.new.purpose == Purpose::Entry);
    for order in entries {
        let (Some(trigger), Some(arrived)) =
            (triggers.get(&order.trigger), arrived.get(order.client_id().as_str()))
        else {
            continue;
        };
        let Some(venue) = Venue::from_tag(trigger.venue) else { continue };
        let Some(listed) = order.table.instruments.get(usize::from(trigger.instrument)) else {
            continue;
        };
        let key = (venue, listed.symbol.clone());
        if !left.contains_key(&key) {
            let sent = truth::sent(control, venue, &listed.symbol)?;
            left.insert(key.clone(), sent);
        }
        // The last copy of the message that can be the one we received.
        let copies = left[&key].get(&truth::sent_name(trigger)).into_iter().flatten();
        if let Some(sent) = copies.filter(|sent| **sent <= trigger.recv_ts_ns).max()
            && let Ok(ns) = u64::try_from(arrived - sent)
        {
            let _ = times.record(ns);
        }
    }
    Ok((!times.is_empty()).then(|| percentiles(&times)))
}

/// Returns the time from the market message at the socket to the order's bytes handed to the socket, of all
/// gateways together.
#[must_use]
pub fn tick_to_order(stats: &RunStats) -> Percentiles {
    let sum = stats
        .gateways()
        .iter()
        .filter_map(|(_, gateway)| {
            gateway.histogram(gateway_metric::TICK_TO_ORDER).map(|h| h.to_hdr())
        })
        .reduce(|mut sum, one| {
            // Both have the same precision: adding cannot fail.
            let _ = sum.add(one);
            sum
        });
    sum.map_or_else(Percentiles::default, |histogram| percentiles(&histogram))
}

//! `balances` and `pnl`: the ledger beside the venues' own words, and what was gained.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tandem_core::ledger::Tag;
use tandem_core::record::Venue;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::accounts::Accounts;
use crate::records::Origin;
use crate::reports::period::{Period, PeriodArgs};
use crate::reports::pnl_by::{self, By};
use crate::time::{now_ns, utc};

/// Where to read.
#[derive(Args, Debug)]
pub struct AccountArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Directory of a journal; default: the configured run's.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl AccountArgs {
    fn origin(&self) -> Result<Origin, Failure> {
        Ok(match &self.journal {
            Some(journal) => Origin::from(journal),
            None => Origin::of(&self.config.load()?),
        })
    }

    fn read(&self) -> Result<Accounts, Failure> {
        Accounts::read(self.origin()?).map_err(Failure::unreachable)
    }
}

/// One balance for people and scripts.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct HoldingText {
    pub venue: String,
    pub asset: String,
    pub ledger: String,
    pub venue_total: Option<String>,
    pub venue_held: Option<String>,
    pub difference: Option<String>,
    pub postings: BTreeMap<String, String>,
}

/// Returns the balances in words.
#[must_use]
pub fn holdings(accounts: &Accounts) -> Vec<HoldingText> {
    let mut all = Vec::new();
    for ((venue, asset), holding) in &accounts.holdings {
        let text = |quanta: i64| accounts.text(asset, quanta);
        let sum = |at: usize| i64::try_from(holding.by_tag[at]).unwrap_or(i64::MAX);
        let postings = Tag::ALL
            .iter()
            .enumerate()
            .filter(|(at, _)| holding.by_tag[*at] != 0)
            .map(|(at, tag)| (tag.name().to_owned(), text(sum(at))));
        all.push(HoldingText {
            venue: venue.name().to_owned(),
            asset: asset.clone(),
            ledger: text(holding.ledger),
            venue_total: holding.venue.map(|(total, _)| text(total)),
            venue_held: holding.venue.map(|(_, held)| text(held)),
            difference: holding.venue.map(|(total, _)| text(holding.ledger - total)),
            postings: postings.collect(),
        });
    }
    all
}

/// `tandem balances`.
pub fn balances(args: &AccountArgs) -> Done {
    let accounts = args.read()?;
    let all = holdings(&accounts);
    if args.json {
        print_json(&all);
        return Ok(Outcome::Ok);
    }
    if all.is_empty() {
        print("no balances: this run observes, or no venue has told any yet");
    }
    for holding in &all {
        let venue = match (&holding.venue_total, &holding.venue_held, &holding.difference) {
            (Some(total), Some(held), Some(difference)) => {
                format!("venue {total} ({held} held), difference {difference}")
            }
            _ => "the venue has not told".to_owned(),
        };
        print(format_args!(
            "{:<9} {:<5} {:>18} · {venue}",
            holding.venue, holding.asset, holding.ledger
        ));
    }
    Ok(Outcome::Ok)
}

/// One day's result for people and scripts.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct DayText {
    pub day: String,
    pub currency: String,
    pub realised: String,
    pub marked: String,
    pub peak: String,
    pub rounds: u64,
}

/// Results for people and scripts.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct PnlText {
    pub days: Vec<DayText>,
    /// By venue and asset.
    pub fees: BTreeMap<String, BTreeMap<String, String>>,
    /// Traded base quantity by venue and symbol: bought, sold.
    pub volume: BTreeMap<String, BTreeMap<String, [String; 2]>>,
}

/// Returns the results in words.
#[must_use]
pub fn pnl_text(accounts: &Accounts) -> PnlText {
    let mut told = PnlText::default();
    for (day, (pnl, currency)) in &accounts.days {
        let money = |quanta: i64| accounts.text(currency, quanta);
        told.days.push(DayText {
            day: utc(day * 86_400_000_000_000).chars().take(10).collect(),
            currency: currency.clone(),
            realised: money(pnl.realised),
            marked: money(pnl.marked),
            peak: money(pnl.peak),
            rounds: pnl.rounds,
        });
    }
    let mut fees: BTreeMap<(Venue, String), i64> = BTreeMap::new();
    let mut volume: BTreeMap<(Venue, u16), [i64; 2]> = BTreeMap::new();
    for order in accounts.trades.orders.values() {
        for fill in order.kept() {
            let asset = order.table.universe.assets.get(usize::from(fill.fee_asset));
            let asset = asset.map_or("?", |asset| asset.name.as_str()).to_owned();
            *fees.entry((order.new.venue, asset)).or_default() += fill.fee.0;
            volume.entry((order.new.venue, order.new.instrument)).or_default()
                [order.new.action as usize] += fill.qty.0;
        }
    }
    for ((venue, asset), sum) in fees {
        let text = accounts.text(&asset, sum);
        told.fees.entry(venue.name().to_owned()).or_default().insert(asset, text);
    }
    if let Some(table) = &accounts.table {
        for ((venue, instrument), [bought, sold]) in volume {
            let Some(listed) = table.instruments.get(usize::from(instrument)) else { continue };
            let texts = [table.qty(instrument, bought), table.qty(instrument, sold)];
            let of_venue = told.volume.entry(venue.name().to_owned()).or_default();
            of_venue.insert(listed.symbol.clone(), texts);
        }
    }
    told
}

/// What to sum, and by what.
#[derive(Args, Debug)]
pub struct PnlArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// Settled rounds by this, edge expected beside realised; without it: days, fees and volume.
    #[arg(long)]
    by: Option<By>,
    #[command(flatten)]
    period: PeriodArgs,
}

fn pnl_by(args: &PnlArgs, by: By) -> Done {
    let period = Period::read(&args.period, now_ns()).map_err(Failure::usage)?;
    let told = pnl_by::read(args.account.origin()?, by, period).map_err(Failure::unreachable)?;
    if args.account.json {
        print_json(&told);
        return Ok(Outcome::Ok);
    }
    for flow in &told.flows {
        print(format_args!("{} {} {}: {}", flow.venue, flow.asset, flow.account, flow.amount));
    }
    if by == By::Venue {
        print(
            "rounds that touched a venue; others touched them too, so these lines do not add up:",
        );
    }
    if told.lines.is_empty() {
        print("no round has been settled");
    }
    for line in &told.lines {
        print(format_args!(
            "{:<24} {:>6} rounds ({} filled on every leg) · expected {} {a} · realised {} {a} ({}) · worth {} {}",
            line.group,
            line.rounds,
            line.filled,
            line.expected,
            line.realised,
            line.difference,
            line.worth,
            told.numeraire,
            a = line.asset,
        ));
    }
    if told.unsettled != 0 {
        print(format_args!("{} rounds are not settled", told.unsettled));
    }
    Ok(Outcome::Ok)
}

/// `tandem pnl`.
pub fn pnl(args: &PnlArgs) -> Done {
    if let Some(by) = args.by {
        return pnl_by(args, by);
    }
    if args.period.since.is_some() || args.period.until.is_some() {
        return Err(Failure::usage("--since and --until need --by: without it days are shown"));
    }
    let args = &args.account;
    let told = pnl_text(&args.read()?);
    if args.json {
        print_json(&told);
        return Ok(Outcome::Ok);
    }
    if told.days.is_empty() {
        print("no round has been settled");
    }
    for day in &told.days {
        print(format_args!(
            "{}  realised {} {c} · marked {} {c} (peak {}) · {} rounds",
            day.day,
            day.realised,
            day.marked,
            day.peak,
            day.rounds,
            c = day.currency
        ));
    }
    for (venue, fees) in &told.fees {
        let fees: Vec<String> = fees.iter().map(|(asset, sum)| format!("{sum} {asset}")).collect();
        print(format_args!("{venue}: fees {}", fees.join(", ")));
    }
    for (venue, symbols) in &told.volume {
        for (symbol, [bought, sold]) in symbols {
            print(format_args!("{venue} {symbol}: bought {bought}, sold {sold}"));
        }
    }
    Ok(Outcome::Ok)
}

/// `tandem reconcile`.
pub fn reconcile(args: &AccountArgs) -> Done {
    let config = args.config.load()?;
    let stages = crate::stages::check(&config);
    let accounts = args.read()?;
    let holdings = holdings(&accounts);
    let differing = |holding: &&HoldingText| {
        holding
            .difference
            .as_ref()
            .is_some_and(|text| text.bytes().any(|c| (b'1'..=b'9').contains(&c)))
    };
    let differences: Vec<&HoldingText> = holdings.iter().filter(differing).collect();
    let open: Vec<super::orders::OrderText> = accounts
        .trades
        .orders
        .values()
        .filter(|order| order.end.is_none())
        .map(super::orders::text)
        .collect();
    let ready = crate::stages::is_ready(&stages);
    if args.json {
        print_json(&serde_json::json!({
            "ready": ready,
            "stages": stages,
            "differences": differences,
            "open_orders": open,
            "strange_reports": accounts.trades.strangers.len(),
        }));
    } else {
        for stage in &stages {
            print(format_args!(
                "{:<4} {:<28} {:?}: {}",
                stage.id, stage.name, stage.verdict, stage.detail
            ));
        }
        for holding in &differences {
            print(format_args!(
                "{} {}: ledger {}, venue {}: a fill or event under way, the venue's rounding, a deposit, a \
                 withdrawal, or a fee in another asset",
                holding.venue,
                holding.asset,
                holding.ledger,
                holding.venue_total.as_deref().unwrap_or("?")
            ));
        }
        for order in &open {
            print(format_args!(
                "{} {} {}: no end yet ({})",
                order.venue, order.symbol, order.client_id, order.state
            ));
        }
        print(if ready { "READY" } else { "NOT READY" });
    }
    Ok(if ready { Outcome::Ok } else { Outcome::Failed })
}

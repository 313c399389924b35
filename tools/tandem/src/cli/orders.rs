//! `orders`: every order of a journal, what became of it, and how long it took.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::records::Origin;
use crate::time::utc;
use crate::trades::{End, Order, Trades};

/// What to show.
#[derive(Args, Debug)]
pub struct OrdersArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Directory of a journal; default: the configured run's.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// How many, the latest ones; 0 is all.
    #[arg(long, default_value_t = 20)]
    last: usize,
    /// Only those without an end.
    #[arg(long)]
    open: bool,
    /// Only this round.
    #[arg(long)]
    round: Option<u64>,
    /// As JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// One fill for people and scripts.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of Fill")]
pub struct FillText {
    pub trade_id: u64,
    pub px: String,
    pub qty: String,
    pub fee: String,
    pub fee_asset: String,
    pub at: String,
    pub late: bool,
    /// The venue took it back.
    pub busted: bool,
}

/// One order for people and scripts.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of Order")]
pub struct OrderText {
    pub client_id: String,
    pub run: u32,
    pub round: u64,
    pub leg: u16,
    pub opportunity: u64,
    pub venue: String,
    pub symbol: String,
    pub action: String,
    pub purpose: String,
    pub px: String,
    pub qty: String,
    pub filled: String,
    pub state: String,
    pub reason: String,
    pub at: String,
    pub at_ns: i64,
    pub sent_after_ns: Option<i64>,
    pub answered_after_ns: Option<i64>,
    pub fills: Vec<FillText>,
}

/// Returns an order in words.
#[must_use]
pub fn text(order: &Order) -> OrderText {
    let (table, new) = (&order.table, &order.new);
    let symbol = table.instruments.get(usize::from(new.instrument));
    OrderText {
        client_id: order.client_id().as_str().to_owned(),
        run: new.run,
        round: new.key.round(),
        leg: new.key.n(),
        opportunity: new.cause,
        venue: new.venue.name().to_owned(),
        symbol: symbol.map_or("?", |instrument| instrument.symbol.as_str()).to_owned(),
        action: order.action().to_owned(),
        purpose: order.purpose().to_owned(),
        px: table.px(new.instrument, new.px.0),
        qty: table.qty(new.instrument, new.qty.0),
        filled: table.qty(new.instrument, order.filled().0),
        state: order.state().to_owned(),
        reason: match order.end {
            Some(End::Rejected(class, code)) => format!("{} {code}", class.name()),
            _ => String::new(),
        },
        at: utc(order.made_ns),
        at_ns: order.made_ns,
        sent_after_ns: order.sent_ns.map(|sent| sent - order.made_ns),
        answered_after_ns: order.acked_ns.map(|acked| acked - order.made_ns),
        fills: order
            .fills
            .iter()
            .map(|fill| FillText {
                trade_id: fill.trade_id,
                px: table.px(new.instrument, fill.px.0),
                qty: table.qty(new.instrument, fill.qty.0),
                fee: table.amount(tandem_core::instrument::AssetId(fill.fee_asset), fill.fee.0),
                fee_asset: table.asset(tandem_core::instrument::AssetId(fill.fee_asset)).to_owned(),
                at: utc(fill.at_ns),
                late: fill.late,
                busted: fill.busted,
            })
            .collect(),
    }
}

/// `tandem orders`.
pub fn run(args: &OrdersArgs) -> Done {
    let journal = match &args.journal {
        Some(journal) => Origin::from(journal),
        None => Origin::of(&args.config.load()?),
    };
    let trades = Trades::read(journal).map_err(Failure::unreachable)?;
    let mut wanted: Vec<&Order> = trades
        .orders
        .values()
        .filter(|order| !args.open || order.end.is_none())
        .filter(|order| args.round.is_none_or(|round| round == order.new.key.round()))
        .collect();
    wanted.sort_by_key(|order| order.made_ns);
    let skip = if args.last == 0 { 0 } else { wanted.len().saturating_sub(args.last) };
    for order in &wanted[skip..] {
        let order = text(order);
        if args.json {
            print_json(&order);
            continue;
        }
        let ms = |ns: Option<i64>| {
            ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.2} ms", ns as f64 / 1e6))
        };
        print(format_args!(
            "{} round {} leg {} {:<6} {} {} {} @ {} {}: {} {} {} (sent after {}, answered after {})",
            order.at,
            order.round,
            order.leg,
            order.purpose,
            order.action,
            order.qty,
            order.symbol,
            order.px,
            order.venue,
            order.state,
            order.filled,
            order.reason,
            ms(order.sent_after_ns),
            ms(order.answered_after_ns),
        ));
    }
    if !args.json && wanted.is_empty() {
        print("no orders");
    }
    Ok(Outcome::Ok)
}

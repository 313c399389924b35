//! What we believe against what the simulator knows: balances, fills, open orders.
//!
//! Invariant: our side is read from the journal alone, the other from the simulator's own books alone. A
//! fill is compared whole: price, quantity, and fee, which we round up to our quanta; one that was taken
//! back is none, on either side: taken back there and believed here is one that only we have. A venue keeps money
//! in decimals of its own (Coinbase sixteen, Kraken four of USD) and rounds each fill to them, our ledger
//! in 64-bit quanta: so a balance may differ by one unit of each for a fill's worth and one for its fee.
//! What is within is shown as rounding, what is beyond is a difference.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;
use tandem_core::instrument::AssetId;
use tandem_core::record::{Record, Venue};

use crate::accounts::Accounts;
use crate::limits::Limits;
use crate::records::Origin;
use crate::sim_control::get;
use crate::trades::TradesError;

/// Entries of one answer of the control port.
const PAGE: usize = 2_000;

/// Why the comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// The journal.
    #[error(transparent)]
    Trades(#[from] TradesError),
    /// The simulator.
    #[error("the simulator's control port: {0}")]
    Control(#[from] io::Error),
    /// An answer that is not what it should be.
    #[error("the simulator's control port: `{0}` is missing")]
    Form(&'static str),
}

/// What differs. All must be 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Balances of venue and asset that differ.
    pub balance_differences: u64,
    /// Fills that the simulator made and we do not know.
    pub missing_fills: u64,
    /// Fills that we believe in and the simulator did not make.
    pub extra_fills: u64,
    /// Orders that are still open at the simulator.
    pub open_orders_left: u64,
    /// Limits that the simulator saw exceeded: exposure, order worth, orders a second.
    pub limits_exceeded: u64,
    /// What the venues' own rounding of fills makes of balances, by venue and asset: simulator less ledger.
    pub rounding: BTreeMap<String, String>,
    /// Each difference in words, at most a hundred.
    pub differences: Vec<String>,
}

impl Truth {
    /// Returns whether nothing differs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.balance_differences == 0
            && self.missing_fills == 0
            && self.extra_fills == 0
            && self.open_orders_left == 0
            && self.limits_exceeded == 0
    }

    fn tell(&mut self, text: String) {
        if self.differences.len() < 100 {
            self.differences.push(text);
        }
    }
}

/// One order of the simulator.
#[derive(Clone, Debug)]
pub struct TrueOrder {
    /// Venue by name.
    pub venue: String,
    /// The client's own id.
    pub client_id: String,
    /// The venue's word for its state.
    pub status: String,
    /// When its bytes were read from the socket, UNIX ns.
    pub arrived_ns: i64,
}

fn text<'a>(value: &'a Value, key: &'static str) -> Result<&'a str, TruthError> {
    value[key].as_str().ok_or(TruthError::Form(key))
}

/// Decimal text without trailing zeros, so that texts compare.
fn plain(text: &str) -> String {
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn pages(
    control: SocketAddr,
    what: &'static str,
    account: &str,
    mut each: impl FnMut(&Value) -> Result<(), TruthError>,
) -> Result<(), TruthError> {
    let mut after = String::new();
    loop {
        let path = format!("/truth/{what}?account={account}&limit={PAGE}{after}");
        let answer = get(control, &path)?;
        let rows = answer[what].as_array().ok_or(TruthError::Form(what))?;
        for row in rows {
            each(row)?;
        }
        match rows.last() {
            Some(last) if answer["more"] == true => after = format!("&after={}", last["seq"]),
            _ => return Ok(()),
        }
    }
}

/// Returns when the messages about a symbol were handed to sockets, UNIX ns, by the venue's own number
/// of the message (see [`sent_name`]); a number may have gone over several connections.
pub fn sent(
    control: SocketAddr,
    venue: Venue,
    symbol: &str,
) -> Result<HashMap<u64, Vec<i64>>, TruthError> {
    let symbol = symbol.replace('/', "%2F");
    let path = format!("/truth/sent?venue={}&symbol={symbol}&limit=100000", venue.name());
    let answer = get(control, &path)?;
    let rows = answer["sent"].as_array().ok_or(TruthError::Form("sent"))?;
    let mut all: HashMap<u64, Vec<i64>> = HashMap::new();
    for row in rows {
        if let (Some(id), Some(sent_ns)) = (row["id"].as_u64(), row["sent_ns"].as_i64()) {
            all.entry(id).or_default().push(sent_ns);
        }
    }
    Ok(all)
}

/// Returns the number that [`sent`] knows a market record's message by: Kraken has no update ids, there it
/// is the event's time.
#[must_use]
pub fn sent_name(record: &Record) -> u64 {
    match Venue::from_tag(record.venue) {
        Some(Venue::Kraken) => record.venue_ts_ns as u64,
        _ => record.update_id,
    }
}

/// Returns every order of an account.
pub fn orders(control: SocketAddr, account: &str) -> Result<Vec<TrueOrder>, TruthError> {
    let mut all = Vec::new();
    pages(control, "orders", account, |row| {
        all.push(TrueOrder {
            venue: text(row, "venue")?.to_owned(),
            client_id: row["client_id"].as_str().unwrap_or_default().to_owned(),
            status: text(row, "status")?.to_owned(),
            arrived_ns: row["arrived_ns"].as_i64().unwrap_or(0),
        });
        Ok(())
    })?;
    Ok(all)
}

/// Compares a journal with the simulator.
pub fn compare(
    journal: impl Into<Origin>,
    control: SocketAddr,
    account: &str,
) -> Result<Truth, TruthError> {
    let accounts = Accounts::read(journal)?;
    let mut truth = Truth::default();
    balances(&accounts, control, account, &mut truth)?;
    fills(&accounts, control, account, &mut truth)?;
    let open = orders(control, account)?;
    for order in
        open.iter().filter(|order| ["open", "partially_filled"].contains(&order.status.as_str()))
    {
        truth.open_orders_left += 1;
        truth.tell(format!("{}: {} is still open", order.venue, order.client_id));
    }
    Ok(truth)
}

/// Compares what the simulator saw of an account with the limits: its worst net position of each asset, its
/// largest order in each quote, its orders in any one second. `price` gives an asset in the numeraire, for
/// orders in other quotes; prices move, so those may be a hundredth above.
pub fn limits(
    limits: &Limits,
    control: SocketAddr,
    account: &str,
    price: impl Fn(&str) -> f64,
    truth: &mut Truth,
) -> Result<(), TruthError> {
    let seen = get(control, &format!("/truth/limits?account={account}"))?;
    let number = |text: &Value| text.as_str().and_then(|text| text.parse::<f64>().ok());
    let allowed = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    let exposures =
        seen["net_exposure_max"].as_object().ok_or(TruthError::Form("net_exposure_max"))?;
    for (asset, most) in exposures {
        let (Some(most), Some(limit)) = (number(most), limits.asset.get(asset)) else { continue };
        if allowed(&limit.exposure_max) < most {
            truth.limits_exceeded += 1;
            truth.tell(format!("{asset}: net position {most}, allowed {}", limit.exposure_max));
        }
    }
    let venues = seen["venues"].as_object().ok_or(TruthError::Form("venues"))?;
    for (venue, seen) in venues {
        let quotes = seen["notional_max_by_quote"].as_object();
        for (quote, most) in quotes.into_iter().flatten() {
            let Some(most) = number(most) else { continue };
            let (worth, slack) = match *quote == limits.numeraire {
                true => (most, 1.0),
                false => (most * price(quote), 1.01),
            };
            if allowed(&limits.notional_max) * slack < worth {
                truth.limits_exceeded += 1;
                truth.tell(format!(
                    "{venue}: an order of {most} {quote}, allowed {}",
                    limits.notional_max
                ));
            }
        }
        let Some(limit) = limits.venue.get(venue) else { continue };
        let rate = seen["orders_per_s_max"].as_i64().unwrap_or(0);
        if limit.orders_per_s + limit.orders_burst < rate {
            truth.limits_exceeded += 1;
            truth.tell(format!("{venue}: {rate} orders in one second"));
        }
    }
    Ok(())
}

/// Decimals that both sides are compared in.
const DECIMALS: u8 = 16;

/// Reads a decimal in units of 10^-16.
fn fine(text: &str) -> Option<i128> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if usize::from(DECIMALS) < part.len() {
        return None;
    }
    let part = format!("{part:0<width$}", width = usize::from(DECIMALS));
    let whole = whole.parse::<i128>().ok()?;
    Some(sign * (whole * 10i128.pow(DECIMALS.into()) + part.parse::<i128>().ok()?))
}

/// Returns a decimal rounded up to fewer decimals.
fn ceil_to(text: &str, decimals: u8) -> Option<String> {
    let unit = 10i128.pow(u32::from(DECIMALS.saturating_sub(decimals)));
    let quanta = fine(text)?.div_euclid(unit) + i128::from(fine(text)?.rem_euclid(unit) != 0);
    let decimal =
        tandem_core::units::Decimal { quanta: i64::try_from(quanta).ok()?, exponent: decimals };
    Some(plain(&decimal.to_string()))
}

fn balances(
    accounts: &Accounts,
    control: SocketAddr,
    account: &str,
    truth: &mut Truth,
) -> Result<(), TruthError> {
    // How many fills have moved an asset at a venue.
    let mut moved: HashMap<(&str, &str), i128> = HashMap::new();
    for order in accounts.trades.orders.values() {
        let instrument = &order.table.universe.instruments[usize::from(order.new.instrument)];
        for asset in [instrument.base, instrument.quote] {
            let key = (order.new.venue.name(), order.table.asset(asset));
            // What was taken back was reversed to the last unit of both.
            *moved.entry(key).or_default() += order.kept().count() as i128;
        }
    }
    let answer = get(control, "/truth/accounts")?;
    let rows = answer["accounts"].as_array().ok_or(TruthError::Form("accounts"))?;
    if !rows.iter().any(|row| row["name"] == account) {
        return Err(TruthError::Form("an account of this name"));
    }
    for row in rows.iter().filter(|row| row["name"] == account) {
        let venue = text(row, "venue")?;
        let assets = row["balances"].as_object().ok_or(TruthError::Form("balances"))?;
        for (asset, balance) in assets {
            let theirs = text(balance, "total")?;
            // An asset that no symbol of ours trades is not in our ledger.
            let holding =
                accounts.holdings.iter().find(|((v, a), _)| v.name() == venue && a == asset);
            let Some((_, holding)) = holding else { continue };
            let ours = accounts.text(asset, holding.ledger);
            let (Some(fine_ours), Some(fine_theirs)) = (fine(&ours), fine(theirs)) else {
                return Err(TruthError::Form("total"));
            };
            let fills = moved.get(&(venue, asset.as_str())).copied().unwrap_or(0);
            let unit = |decimals: u8| 10i128.pow(u32::from(DECIMALS.saturating_sub(decimals)));
            let own = accounts.exponent(asset).unwrap_or(0);
            // Both roundings of a fill: its worth and its fee; and what the venue keeps finer than we do was
            // cut from the opening.
            let allowed = unit(own) + 2 * fills * (unit(money_decimals(venue, asset)) + unit(own));
            let differs = fine_theirs - fine_ours;
            if allowed < differs.abs() {
                truth.balance_differences += 1;
                truth.tell(format!("{venue} {asset}: ledger {ours}, simulator {theirs}"));
            } else if differs != 0 {
                let sign = if differs < 0 { "-" } else { "" };
                let scale = 10i128.pow(DECIMALS.into());
                let (whole, part) = (differs.abs() / scale, differs.abs() % scale);
                truth.rounding.insert(
                    format!("{venue} {asset}"),
                    plain(&format!("{sign}{whole}.{part:016}")),
                );
            }
        }
    }
    Ok(())
}

/// Decimals in which a venue keeps an asset (`protocols/`; the simulator does the same).
fn money_decimals(venue: &str, asset: &str) -> u8 {
    match (venue, asset) {
        ("kraken", "USD" | "EUR") => 4,
        ("kraken", "USDT" | "USDC") | ("binance", _) => 8,
        ("kraken", _) => 10,
        _ => DECIMALS,
    }
}

fn fills(
    accounts: &Accounts,
    control: SocketAddr,
    account: &str,
    truth: &mut Truth,
) -> Result<(), TruthError> {
    let mut rows = Vec::new();
    pages(control, "fills", account, |row| {
        rows.push(row.clone());
        Ok(())
    })?;
    compare_fills(accounts, &rows, truth)
}

fn compare_fills(accounts: &Accounts, rows: &[Value], truth: &mut Truth) -> Result<(), TruthError> {
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    for order in accounts.trades.orders.values() {
        let table = &order.table;
        for fill in order.kept() {
            let fee_asset = AssetId(fill.fee_asset);
            let name = format!(
                "{} {} {} {} @ {} fee {} {}",
                order.new.venue.name(),
                order.client_id().as_str(),
                order.action(),
                plain(&table.qty(order.new.instrument, fill.qty.0)),
                plain(&table.px(order.new.instrument, fill.px.0)),
                plain(&table.amount(fee_asset, fill.fee.0)),
                table.asset(fee_asset),
            );
            *open.entry(name).or_default() += 1;
        }
    }
    for row in rows {
        if row["busted"].as_bool().ok_or(TruthError::Form("busted"))? {
            continue;
        }
        let (fee, fee_asset) = (text(row, "fee")?, text(row, "fee_asset")?);
        let decimals = accounts.exponent(fee_asset).unwrap_or(DECIMALS);
        let name = format!(
            "{} {} {} {} @ {} fee {} {}",
            text(row, "venue")?,
            row["client_id"].as_str().unwrap_or_default(),
            text(row, "side")?,
            plain(text(row, "qty")?),
            plain(text(row, "price")?),
            ceil_to(fee, decimals).ok_or(TruthError::Form("fee"))?,
            fee_asset,
        );
        *open.entry(name).or_default() -= 1;
    }
    for (name, count) in open {
        match count {
            0 => {}
            1.. => {
                truth.extra_fills += count.unsigned_abs();
                truth.tell(format!("only we have: {name}"));
            }
            _ => {
                truth.missing_fills += count.unsigned_abs();
                truth.tell(format!("only the simulator has: {name}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_up_and_compared_exactly() {
        assert_eq!(ceil_to("0.0000152381", 8).as_deref(), Some("0.00001524"));
        assert_eq!(ceil_to("1.5", 8).as_deref(), Some("1.5"));
        assert_eq!(ceil_to("0", 4).as_deref(), Some("0"));
        assert_eq!(fine("-0.0000000000000001"), Some(-1));
        assert_eq!(fine("2"), Some(20_000_000_000_000_000));
        assert_eq!(fine("0.00000000000000001"), None);
        assert_eq!(plain("10.500"), "10.5");
        assert_eq!(plain("100"), "100");
    }

    /// Row OE-20. A fill that was taken back is none on either side; taken back on one side alone it is a
    /// difference, whichever side that is, and a corrected one is compared as what it is now.
    #[test]
    fn busted_fills_are_none_on_either_side() {
        use std::rc::Rc;
        use tandem_core::order::{Action, FillTerms, NewOrder, OrderKey, Purpose, Report, Tif};
        use tandem_core::units::{Amount, Px, Qty};
        let table = crate::table::Table::build(crate::table::plain_setup(), "test");
        let table = Rc::new(table.expect("a plain setup"));
        let order = NewOrder {
            run: 3,
            key: OrderKey::new(1, 0),
            venue: Venue::Coinbase,
            instrument: 0,
            action: Action::Buy,
            px: Px(6_000_000),
            qty: Qty(2_000_000),
            tif: Tif::Ioc,
            purpose: Purpose::Entry,
            expires_ns: 0,
            cause: 1,
            level_epoch: 0,
        };
        let (px, qty, fee, asset) = (order.px, Qty(1_000_000), Amount(0), 1);
        let fill = |trade_id| Report::Fill { px, qty, fee, asset, trade_id };
        let bust = Report::Bust { trade_id: 2, instead: None };
        let less = FillTerms { px, qty: Qty(500_000), fee, asset };
        let corrected = Report::Bust { trade_id: 2, instead: Some(less) };
        let row = |qty: &str, busted: bool| {
            serde_json::json!({
                "venue": "coinbase", "client_id": order_id(&order), "side": "buy", "qty": qty,
                "price": "60000", "fee": "0", "fee_asset": "USD", "busted": busted,
            })
        };
        let compared = |reports: &[Report], rows: &[Value]| {
            let mut accounts = Accounts { table: Some(Rc::clone(&table)), ..Accounts::default() };
            accounts.trades.take(&order.record(&Record::default()), &table);
            for report in reports {
                let record = report.record(order.venue, 0, order.run, order.key);
                accounts.trades.take(&record, &table);
            }
            let mut truth = Truth::default();
            compare_fills(&accounts, rows, &mut truth).expect("rows");
            (truth.extra_fills, truth.missing_fills)
        };
        let (first, second) = (row("0.01", false), row("0.01", true));
        // Both know it, in whatever sequence we learned of it.
        assert_eq!(compared(&[fill(1), fill(2), bust], &[first.clone(), second.clone()]), (0, 0));
        assert_eq!(compared(&[bust, fill(2), fill(1)], &[first.clone(), second.clone()]), (0, 0));
        assert_eq!(compared(&[fill(1), fill(2)], &[first.clone(), second]), (1, 0), "not told");
        assert_eq!(compared(&[fill(1), fill(2), bust], &[first.clone(), first.clone()]), (0, 1));
        let part = row("0.005", false);
        assert_eq!(compared(&[fill(1), fill(2), corrected], &[first.clone(), part]), (0, 0));
        assert_eq!(compared(&[fill(1), fill(2), corrected], &[first.clone(), first]), (1, 1));
    }

    fn order_id(order: &tandem_core::order::NewOrder) -> String {
        tandem_core::order::ClientId::new(order.run, order.key).as_str().to_owned()
    }
}

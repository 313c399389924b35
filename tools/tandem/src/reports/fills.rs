//! Every fill as the taxman asks for it: what was disposed of, what it brought, what it had cost.
//!
//! Invariant: quantities, values in quote and fees are those that the ledger booked, to the last unit, and at
//! the end they are compared with its postings ([`Check`]). Cost is first in, first out. A trade of one asset
//! against another disposes of one and acquires the other at the same worth; a fee disposes of its asset, adds
//! its worth to the cost of what was bought, or takes it off the proceeds of what was sold; the numeraire is
//! money and has no lots. A fill that the venue took back is reversed by a row of its own, with the lots that it
//! had used; a corrected one is reversed and told anew. What the lots do not cover had no cost.
//!
//! Opening balances are lots at their worth at the first moment a book says one (or what the operator's file
//! says). What differs after a restart, and deposits, are lots at their worth then; withdrawals take lots at
//! cost, without a gain.
//!
//! Not here: lots (`lots`), worth (`rates`), files (`sheet`).

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use tandem_core::instrument::AssetId;
use tandem_core::ledger::{Posting, Tag};
use tandem_core::order::{Action, ClientId, FillTerms, NewOrder, OrderKey, Report};
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::value::{quote_of, shift_of};
use tandem_drain::run::RunInfo;

use super::Exact;
use super::lots::{Lot, LotId, Lots, Pool, Taken};
use super::period::DAY_NS;
use super::rates::{Rates, Worth};
use super::sheet::{Cell, Column, Holds};

/// Which fill: venue, its symbol, and the venue's trade id.
type Trade = (Venue, String, u64);

/// Why fills cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FillsError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] tandem_shm::JournalError),
    /// The file.
    #[error(transparent)]
    Sheet(#[from] super::sheet::SheetError),
    /// Results are counted in two currencies.
    #[error(
        "the numeraire was {before} and is {after} from run {run} on: export each of the archives apart"
    )]
    Numeraire {
        /// Before.
        before: String,
        /// From then on.
        after: String,
        /// Which run.
        run: u32,
    },
    /// A line of the operator's file.
    #[error("{place}: {why}")]
    Opening {
        /// File and line.
        place: String,
        /// What is wrong, and how to mend it.
        why: String,
    },
}

/// What an opening balance cost, by the operator's word.
#[derive(Clone, Debug, Default)]
pub struct OpeningCosts {
    by_account: BTreeMap<(String, String), VecDeque<Lot>>,
}

impl OpeningCosts {
    /// Reads `asset,venue,quantity,cost,acquired_at`, one lot a line, with that head line.
    pub fn read(path: &Path) -> Result<OpeningCosts, FillsError> {
        let place = path.display().to_string();
        let wrong = |place: String, why: String| FillsError::Opening { place, why };
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(place.clone(), error.to_string()))?;
        let mut costs = OpeningCosts::default();
        for (idx, line) in text.lines().enumerate() {
            let at = || format!("{place}: line {}", idx + 1);
            let line = line.trim_end();
            if idx == 0 {
                if line != "asset,venue,quantity,cost,acquired_at" {
                    let why = "the first line must be `asset,venue,quantity,cost,acquired_at`";
                    return Err(wrong(at(), why.to_owned()));
                }
                continue;
            }
            if line.is_empty() {
                continue;
            }
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let [asset, venue, qty, cost, acquired] = cells[..] else {
                return Err(wrong(at(), format!("{} fields, five are needed", cells.len())));
            };
            if !Venue::ALL.iter().any(|known| known.name() == venue) {
                return Err(wrong(at(), format!("`{venue}` is no venue")));
            }
            let amount = |what: &str, text: &str| {
                let read = Exact::read(text).filter(|amount| Exact::ZERO <= *amount);
                read.ok_or_else(|| wrong(at(), format!("{what} `{text}` is no amount: write 0.5")))
            };
            let (qty, cost) = (amount("quantity", qty)?, amount("cost", cost)?);
            let acquired_ns = tandem_feeds::stamp::unix_ns(acquired.as_bytes());
            let acquired_ns = acquired_ns.ok_or_else(|| {
                wrong(at(), format!("`{acquired}` is no time: write 2026-11-30T08:00:00Z"))
            })?;
            let lot = Lot { qty, cost: Some(cost), acquired_ns };
            let account = (venue.to_owned(), asset.to_owned());
            costs.by_account.entry(account).or_default().push_back(lot);
        }
        Ok(costs)
    }
}

/// How cost is counted.
#[derive(Clone, Debug, Default)]
pub struct Method {
    /// Each venue's lots apart, instead of all of an asset together.
    pub lots_by_venue: bool,
    /// What opening balances cost.
    pub opening: OpeningCosts,
}

/// What was disposed of, with what it had cost.
#[derive(Clone, Debug, Default)]
struct Disposal {
    asset: String,
    qty: Exact,
    proceeds: Option<Exact>,
    pool: Option<Pool>,
    taken: Taken,
}

impl Disposal {
    /// What no lot covers had no cost: the gain is the larger for it.
    fn gain(&self) -> Option<Exact> {
        self.proceeds.zip(self.taken.cost()).map(|(proceeds, cost)| proceeds.minus(cost))
    }
}

/// What was acquired, and which lot it became.
#[derive(Clone, Debug, Default)]
struct Acquired {
    asset: String,
    qty: Exact,
    cost: Option<Exact>,
    pool: Option<Pool>,
    lot: Option<LotId>,
}

/// A row of the export of fills; see [`columns`].
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Sequence of the record.
    pub seq: u64,
    /// When, UNIX ns.
    pub at_ns: i64,
    /// `fill`, `bust`, `correction`, `opening`, `carried` or `external`.
    pub entry: &'static str,
    venue: String,
    symbol: String,
    side: &'static str,
    qty: Option<Exact>,
    px: Option<Exact>,
    value: Option<Exact>,
    base: String,
    quote: String,
    fee: Option<Exact>,
    fee_asset: String,
    is_fee_known: bool,
    client_order_id: String,
    venue_order_id: String,
    trade_id: String,
    run: Option<u32>,
    round: Option<u64>,
    worth: Option<Worth>,
    fee_worth: Option<Worth>,
    disposed: Option<Disposal>,
    acquired: Option<Acquired>,
    fee_disposed: Option<Disposal>,
    fee_acquired: Option<Acquired>,
    /// Reversed: every quantity and amount with the other sign.
    is_reversed: bool,
    /// A reversal gave back less, or more, than the lot still had: gain beside the disposal's.
    extra_gain: Option<Exact>,
}

/// The columns of [`Entry::cells`].
#[must_use]
pub fn columns() -> Vec<Column> {
    use Holds::{Amount, Int, Text, Time};
    [
        ("seq", Int),
        ("at", Time),
        ("entry", Text),
        ("venue", Text),
        ("symbol", Text),
        ("side", Text),
        ("quantity", Amount),
        ("price", Amount),
        ("value", Amount),
        ("quote_asset", Text),
        ("fee", Amount),
        ("fee_asset", Text),
        ("client_order_id", Text),
        ("venue_order_id", Text),
        ("trade_id", Text),
        ("run", Int),
        ("round", Int),
        ("numeraire", Text),
        ("worth", Amount),
        ("worth_source", Text),
        ("disposed_asset", Text),
        ("disposed_quantity", Amount),
        ("proceeds", Amount),
        ("cost_basis", Amount),
        ("gain", Amount),
        ("acquired_first", Time),
        ("acquired_last", Time),
        ("held_days_max", Int),
        ("held_days_min", Int),
        ("lots", Int),
        ("uncovered_quantity", Amount),
        ("acquired_asset", Text),
        ("acquired_quantity", Amount),
        ("acquired_cost", Amount),
        ("fee_worth", Amount),
        ("fee_worth_source", Text),
        ("fee_cost_basis", Amount),
        ("fee_gain", Amount),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// The columns of [`Entry::disposals`].
#[must_use]
pub fn disposal_columns() -> Vec<Column> {
    use Holds::{Amount, Int, Text, Time};
    [
        ("seq", Int),
        ("disposed_at", Time),
        ("acquired_at", Time),
        ("held_days", Int),
        ("entry", Text),
        ("why", Text),
        ("venue", Text),
        ("symbol", Text),
        ("trade_id", Text),
        ("asset", Text),
        ("quantity", Amount),
        ("proceeds", Amount),
        ("cost_basis", Amount),
        ("gain", Amount),
        ("numeraire", Text),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

fn text(text: &str) -> Cell {
    if text.is_empty() { Cell::Empty } else { Cell::text(text) }
}

fn source(worth: &Option<Worth>) -> Cell {
    worth.as_ref().map_or(Cell::Empty, |worth| text(&worth.source))
}

fn whole(number: Option<impl TryInto<i64>>) -> Cell {
    number.map_or(Cell::Empty, |number| Cell::Int(number.try_into().unwrap_or(i64::MAX)))
}

impl Entry {
    fn signed(&self, amount: Option<Exact>) -> Option<Exact> {
        amount.map(|amount| if self.is_reversed { amount.negated() } else { amount })
    }

    /// Returns the gain of the disposal of what was traded.
    #[must_use]
    pub fn gain(&self) -> Option<Exact> {
        let gain = match &self.disposed {
            Some(disposed) => Some(disposed.gain()?),
            None => None,
        };
        let gain = self.signed(gain);
        match (gain, self.extra_gain) {
            (Some(gain), Some(extra)) => Some(gain.plus(extra)),
            (gain, extra) => gain.or(extra),
        }
    }

    /// Returns whether something of it has no worth that a book told.
    #[must_use]
    pub fn is_unvalued(&self) -> bool {
        let disposed = [&self.disposed, &self.fee_disposed];
        let acquired = [&self.acquired, &self.fee_acquired];
        disposed.into_iter().flatten().any(|disposed| disposed.gain().is_none())
            || acquired.into_iter().flatten().any(|acquired| acquired.cost.is_none())
    }

    /// Returns whether lots were missing for it.
    #[must_use]
    pub fn is_uncovered(&self) -> bool {
        let all = [&self.disposed, &self.fee_disposed];
        all.into_iter().flatten().any(|disposed| disposed.taken.missing != Exact::ZERO)
    }

    /// Returns the row.
    #[must_use]
    pub fn cells(&self, numeraire: &str) -> Vec<Cell> {
        let amount = |amount: Option<Exact>| Cell::amount(self.signed(amount));
        let disposed = self.disposed.as_ref();
        let acquired = self.acquired.as_ref();
        let fee = self.fee_disposed.as_ref();
        let times = disposed.map(|d| d.taken.parts.iter().map(|part| part.acquired_ns));
        let first = times.clone().and_then(Iterator::min);
        let last = times.and_then(Iterator::max);
        let held = |acquired: Option<i64>| {
            acquired.map(|acquired| self.at_ns.saturating_sub(acquired).div_euclid(DAY_NS))
        };
        let time = |at: Option<i64>| at.map_or(Cell::Empty, Cell::Time);
        vec![
            whole(Some(self.seq)),
            Cell::Time(self.at_ns),
            Cell::text(self.entry),
            text(&self.venue),
            text(&self.symbol),
            text(self.side),
            amount(self.qty),
            Cell::amount(self.px),
            amount(self.value),
            text(&self.quote),
            amount(self.fee),
            text(&self.fee_asset),
            text(&self.client_order_id),
            text(&self.venue_order_id),
            text(&self.trade_id),
            whole(self.run),
            whole(self.round),
            Cell::text(numeraire),
            amount(self.worth.as_ref().map(|worth| worth.amount)),
            source(&self.worth),
            text(disposed.map_or("", |d| &d.asset)),
            amount(disposed.map(|d| d.qty)),
            amount(disposed.and_then(|d| d.proceeds)),
            amount(disposed.and_then(|d| d.taken.cost())),
            Cell::amount(self.gain()),
            time(first),
            time(last),
            whole(held(first)),
            whole(held(last)),
            whole(disposed.map(|d| d.taken.parts.len())),
            amount(disposed.map(|d| d.taken.missing).filter(|missing| *missing != Exact::ZERO)),
            text(acquired.map_or("", |a| &a.asset)),
            amount(acquired.map(|a| a.qty)),
            amount(acquired.and_then(|a| a.cost)),
            amount(self.fee_worth.as_ref().map(|worth| worth.amount)),
            source(&self.fee_worth),
            amount(fee.and_then(|d| d.taken.cost())),
            amount(fee.and_then(Disposal::gain)),
        ]
    }

    /// Returns a row for each lot that was used; proceeds are split by quantity, the last lot has the rest.
    #[must_use]
    pub fn disposals(&self, numeraire: &str) -> Vec<Vec<Cell>> {
        let mut rows = Vec::new();
        for (why, disposed) in [("trade", &self.disposed), ("fee", &self.fee_disposed)] {
            let Some(disposed) = disposed else { continue };
            // What was withdrawn was sold to nobody.
            if matches!(self.entry, "external" | "carried") {
                continue;
            }
            let mut parts: Vec<(Lot, Option<i64>)> =
                disposed.taken.parts.iter().map(|part| (*part, Some(part.acquired_ns))).collect();
            if disposed.taken.missing != Exact::ZERO {
                let (qty, cost) = (disposed.taken.missing, Some(Exact::ZERO));
                parts.push((Lot { qty, cost, acquired_ns: 0 }, None));
            }
            let mut rest = disposed.proceeds;
            for (idx, (part, acquired_ns)) in parts.iter().enumerate() {
                let proceeds = match idx + 1 < parts.len() {
                    true => {
                        disposed.proceeds.map(|all| super::lots::share(all, part.qty, disposed.qty))
                    }
                    false => rest,
                };
                rest = rest.zip(proceeds).map(|(rest, part)| rest.minus(part));
                let gain = proceeds.zip(part.cost).map(|(proceeds, cost)| proceeds.minus(cost));
                let held = acquired_ns.map(|at| self.at_ns.saturating_sub(at).div_euclid(DAY_NS));
                let amount = |amount| Cell::amount(self.signed(amount));
                rows.push(vec![
                    whole(Some(self.seq)),
                    Cell::Time(self.at_ns),
                    acquired_ns.map_or(Cell::Empty, Cell::Time),
                    whole(held),
                    Cell::text(self.entry),
                    Cell::text(why),
                    text(&self.venue),
                    text(&self.symbol),
                    text(&self.trade_id),
                    text(&disposed.asset),
                    amount(Some(part.qty)),
                    amount(proceeds),
                    amount(part.cost),
                    amount(gain),
                    Cell::text(numeraire),
                ]);
            }
        }
        rows
    }
}

/// What fills moved by our count, and by the ledger's postings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// By venue, asset and account: of the fills, of the ledger.
    pub flows: BTreeMap<(String, String, &'static str), (Exact, Exact)>,
}

impl Check {
    fn add(&mut self, (venue, asset, tag): (&str, &str, Tag), fills: Exact, ledger: Exact) {
        let flow = self.flows.entry((venue.to_owned(), asset.to_owned(), tag.name())).or_default();
        *flow = (flow.0.plus(fills), flow.1.plus(ledger));
    }

    /// Returns what differs.
    pub fn differing(&self) -> impl Iterator<Item = (&(String, String, &'static str), Exact)> {
        let differ = self.flows.iter().filter(|(_, (fills, ledger))| fills != ledger);
        differ.map(|(name, (fills, ledger))| (name, fills.minus(*ledger)))
    }
}

/// Goes through a journal and tells its fills.
#[derive(Debug, Default)]
pub struct Fills {
    method: Method,
    numeraire: String,
    run: u32,
    lots: Lots,
    rates: Rates,
    orders: BTreeMap<(u32, OrderKey), (Action, String)>,
    booked: BTreeMap<Trade, (FillTerms, Option<Entry>)>,
    /// What the venue made of fills before they were told.
    early: BTreeMap<Trade, Option<FillTerms>>,
    balances: BTreeMap<(String, String), Exact>,
    /// Lots that wait for the first word on what they were worth.
    waiting: Vec<Entry>,
    /// What fills and ledger moved.
    pub check: Check,
    /// Fills whose order is not in the journal: their side is not known.
    pub unknown_orders: u64,
}

impl Fills {
    /// Returns one that begins at a journal's first record.
    #[must_use]
    pub fn new(method: Method) -> Fills {
        Fills { method, ..Fills::default() }
    }

    /// Returns the numeraire; empty where the runs only observe.
    #[must_use]
    pub fn numeraire(&self) -> &str {
        &self.numeraire
    }

    /// Returns the lots that are left.
    #[must_use]
    pub const fn lots(&self) -> &Lots {
        &self.lots
    }

    /// Takes a record; what it completes is given to `tell`.
    pub fn take(
        &mut self,
        record: &Record,
        run: Option<&RunInfo>,
        mut tell: impl FnMut(Entry) -> Result<(), FillsError>,
    ) -> Result<(), FillsError> {
        let Some(run) = run else { return Ok(()) };
        if record.kind() == Some(Kind::Config) {
            if !record.has(flag::MORE) {
                self.begin(run)?;
            }
            return Ok(());
        }
        if self.rates.minds(record) {
            self.rates.take(record);
            if !self.waiting.is_empty() && record.has(flag::LAST) {
                for entry in self.settle() {
                    tell(entry)?;
                }
            }
            return Ok(());
        }
        match record.kind() {
            Some(Kind::OrderNew) => {
                if let Some(new) = NewOrder::read(record) {
                    let order = || (new.action, String::new());
                    self.orders.entry((new.run, new.key)).or_insert_with(order);
                }
            }
            Some(Kind::OrderAck | Kind::OrderFill | Kind::OrderBust) => {
                let Some((of, key, report)) = Report::read(record) else { return Ok(()) };
                match report {
                    Report::Ack { venue_id } => {
                        if let Some(order) = self.orders.get_mut(&(of, key)) {
                            order.1 = format!("{venue_id:032x}");
                        }
                    }
                    Report::Fill { px, qty, fee, asset, trade_id } => {
                        let terms = FillTerms { px, qty, fee, asset };
                        if let Some(entry) = self.fill(record, run, (of, key), trade_id, terms) {
                            tell(entry)?;
                        }
                    }
                    Report::Bust { trade_id, instead } => {
                        for entry in self.bust(record, run, (of, key), trade_id, instead) {
                            tell(entry)?;
                        }
                    }
                    _ => {}
                }
            }
            Some(Kind::Ledger) => {
                if let Some(posting) = Posting::read(record) {
                    for entry in self.posting(record, run, &posting)? {
                        tell(entry)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns accounts of the operator's file that no opening balance was told for.
    pub fn unused_costs(&self) -> impl Iterator<Item = &(String, String)> {
        self.method.opening.by_account.keys()
    }

    /// Returns what still waits for a worth when the journal ends.
    pub fn end(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.waiting)
    }

    fn begin(&mut self, run: &RunInfo) -> Result<(), FillsError> {
        if let Some(numeraire) = run.numeraire {
            let after = run.asset(numeraire).to_owned();
            if !self.numeraire.is_empty() && self.numeraire != after {
                let before = self.numeraire.clone();
                return Err(FillsError::Numeraire { before, after, run: run.run });
            }
            self.numeraire = after;
        }
        self.run = run.run;
        let numeraire = self.numeraire.clone();
        self.rates.begin(run, &numeraire);
        Ok(())
    }

    fn pool(&self, venue: &str, asset: &str) -> Option<Pool> {
        let venue = if self.method.lots_by_venue { venue } else { "" }.to_owned();
        (asset != self.numeraire).then(|| Pool { asset: asset.to_owned(), venue })
    }

    fn dispose(
        &mut self,
        venue: &str,
        asset: &str,
        qty: Exact,
        proceeds: Option<Exact>,
    ) -> Option<Disposal> {
        let pool = self.pool(venue, asset)?;
        let taken = self.lots.take(&pool, qty);
        Some(Disposal { asset: asset.to_owned(), qty, proceeds, pool: Some(pool), taken })
    }

    fn acquire(
        &mut self,
        (venue, at_ns): (&str, i64),
        asset: &str,
        qty: Exact,
        cost: Option<Exact>,
    ) -> Option<Acquired> {
        let pool = self.pool(venue, asset)?;
        let lot = self.lots.add(&pool, Lot { qty, cost, acquired_ns: at_ns });
        Some(Acquired { asset: asset.to_owned(), qty, cost, pool: Some(pool), lot })
    }

    /// A fill is told for the first time.
    fn fill(
        &mut self,
        record: &Record,
        run: &RunInfo,
        name: (u32, OrderKey),
        trade_id: u64,
        terms: FillTerms,
    ) -> Option<Entry> {
        let trade = trade_of(record, run, trade_id)?;
        if self.booked.contains_key(&trade) {
            return None;
        }
        let terms = match self.early.remove(&trade) {
            // Taken back before it was told: it moved nothing.
            Some(None) => {
                self.booked.insert(trade, (terms, None));
                return None;
            }
            Some(Some(instead)) => instead,
            None => terms,
        };
        let entry = self.book(record, run, name, trade_id, &terms, "fill");
        self.booked.insert(trade, (terms, entry.clone()));
        entry
    }

    /// The venue says what a fill is from now on.
    fn bust(
        &mut self,
        record: &Record,
        run: &RunInfo,
        name: (u32, OrderKey),
        trade_id: u64,
        instead: Option<FillTerms>,
    ) -> Vec<Entry> {
        let Some(trade) = trade_of(record, run, trade_id) else { return Vec::new() };
        let Some((was, entry)) = self.booked.get(&trade).cloned() else {
            self.early.insert(trade, instead);
            return Vec::new();
        };
        // Said twice it is true once.
        if (entry.is_none() && instead.is_none()) || (entry.is_some() && instead == Some(was)) {
            return Vec::new();
        }
        let mut told = Vec::new();
        if let Some(entry) = entry {
            told.push(self.reverse(record, entry));
        }
        let now = instead.and_then(|is| self.book(record, run, name, trade_id, &is, "correction"));
        told.extend(now.clone());
        self.booked.insert(trade, (instead.unwrap_or(was), now));
        told
    }

    fn book(
        &mut self,
        record: &Record,
        run: &RunInfo,
        name: (u32, OrderKey),
        trade_id: u64,
        terms: &FillTerms,
        kind: &'static str,
    ) -> Option<Entry> {
        let instrument = record.instrument;
        let rules = run.universe.instruments.get(usize::from(instrument))?;
        let Some((action, venue_order_id)) = self.orders.get(&name).cloned() else {
            self.unknown_orders += 1;
            return None;
        };
        let venue = rules.venue.name();
        let (base, quote) = (run.asset(rules.base).to_owned(), run.asset(rules.quote).to_owned());
        let buys = action == Action::Buy;
        let shift = shift_of(&run.universe, instrument);
        let value = quote_of(terms.px, terms.qty.0, shift, buys);
        let value = Exact::of(value, run.asset_exponent(rules.quote))?;
        let qty = Exact::quanta(terms.qty.0, run.asset_exponent(rules.base));
        let px_exponent = run.instruments.get(usize::from(instrument)).map_or(0, |i| i.px_exponent);
        // A fee in an asset that we do not know moved nothing in the ledger.
        let is_known = usize::from(terms.asset) < run.universe.assets.len();
        let fee_asset = run.asset(AssetId(terms.asset)).to_owned();
        let fee = Exact::quanta(terms.fee.0, run.asset_exponent(AssetId(terms.asset)));

        let sign = |amount: Exact, adds: bool| if adds { amount } else { amount.negated() };
        self.check.add((venue, &base, Tag::Trade), sign(qty, buys), Exact::ZERO);
        self.check.add((venue, &quote, Tag::Trade), sign(value, !buys), Exact::ZERO);
        if is_known && fee != Exact::ZERO {
            self.check.add((venue, &fee_asset, Tag::Fee), fee.negated(), Exact::ZERO);
        }

        let worth = match base == self.numeraire {
            true => Some(Worth { amount: qty, source: "is the numeraire".to_owned() }),
            false => self.rates.worth(&quote, value).or_else(|| self.rates.worth(&base, qty)),
        };
        let fee_worth = match fee {
            Exact::ZERO => Some(Worth { amount: Exact::ZERO, source: String::new() }),
            _ if !is_known => None,
            _ => self.rates.worth(&fee_asset, fee),
        };
        let traded = worth.as_ref().map(|worth| worth.amount);
        let fees = fee_worth.as_ref().map(|worth| worth.amount);
        let ((gone, gone_qty), (got, got_qty)) =
            if buys { ((&quote, value), (&base, qty)) } else { ((&base, qty), (&quote, value)) };
        // A purchase costs its fee as well; a sale brings that much less. Money has no cost of its own.
        let is_purchase = *gone == self.numeraire || (buys && *got != self.numeraire);
        let (mut proceeds, mut cost) = (traded, traded);
        if is_purchase {
            cost = cost.zip(fees).map(|(cost, fee)| cost.plus(fee));
        } else {
            proceeds = proceeds.zip(fees).map(|(proceeds, fee)| proceeds.minus(fee));
        }
        let at_ns = record.engine_ts_ns;
        let disposed = self.dispose(venue, gone, gone_qty, proceeds);
        let acquired = self.acquire((venue, at_ns), got, got_qty, cost);
        let (mut fee_disposed, mut fee_acquired) = (None, None);
        if is_known && Exact::ZERO < fee {
            fee_disposed = self.dispose(venue, &fee_asset, fee, fees);
        } else if is_known && fee < Exact::ZERO {
            // A rebate: it made the trade cheaper by its worth, which is what it cost.
            let paid = fees.map(Exact::negated);
            fee_acquired = self.acquire((venue, at_ns), &fee_asset, fee.negated(), paid);
        }
        Some(Entry {
            seq: record.seq,
            at_ns,
            entry: kind,
            venue: venue.to_owned(),
            symbol: run.symbol(instrument).to_owned(),
            side: if buys { "buy" } else { "sell" },
            qty: Some(qty),
            px: Some(Exact::quanta(terms.px.0, px_exponent)),
            value: Some(value),
            base,
            quote,
            fee: Some(fee),
            fee_asset,
            is_fee_known: is_known,
            client_order_id: ClientId::new(name.0, name.1).as_str().to_owned(),
            venue_order_id,
            trade_id: trade_id.to_string(),
            run: Some(name.0),
            round: Some(name.1.round()),
            worth,
            fee_worth,
            disposed,
            acquired,
            fee_disposed,
            fee_acquired,
            ..Entry::default()
        })
    }

    /// Takes back what a fill moved: what it acquired goes, what it disposed of is there again as it was.
    fn reverse(&mut self, record: &Record, was: Entry) -> Entry {
        let (buys, venue) = (was.side == "buy", was.venue.clone());
        for (asset, amount, came) in [
            (&was.base, was.qty, buys),
            (&was.quote, was.value, !buys),
            (&was.fee_asset, was.fee.filter(|_| was.is_fee_known), false),
        ] {
            let amount = amount.unwrap_or_default();
            let back = if came { amount.negated() } else { amount };
            self.check.add((&venue, asset, Tag::Bust), back, Exact::ZERO);
        }
        let mut extra: Option<Exact> = None;
        for acquired in [&was.acquired, &was.fee_acquired].into_iter().flatten() {
            let Some(pool) = &acquired.pool else { continue };
            let taken = self.lots.take_first(pool, acquired.lot, acquired.qty);
            // Where the lot was used meanwhile others are, at their cost: the difference is a gain or a loss.
            let gain = acquired.cost.zip(taken.cost()).map(|(cost, gone)| cost.minus(gone));
            extra = extra.zip(gain).map(|(a, b)| a.plus(b)).or(gain).or(extra);
        }
        for disposed in [&was.disposed, &was.fee_disposed].into_iter().flatten() {
            let Some(pool) = &disposed.pool else { continue };
            for part in &disposed.taken.parts {
                self.lots.add(pool, *part);
            }
        }
        let extra_gain = extra.filter(|extra| *extra != Exact::ZERO);
        let (seq, at_ns) = (record.seq, record.engine_ts_ns);
        Entry { seq, at_ns, entry: "bust", is_reversed: true, extra_gain, ..was }
    }

    fn posting(
        &mut self,
        record: &Record,
        run: &RunInfo,
        posting: &Posting,
    ) -> Result<Vec<Entry>, FillsError> {
        let Some(venue) = posting.venue.map(Venue::name) else { return Ok(Vec::new()) };
        let asset = run.asset(posting.asset).to_owned();
        let exponent = run.asset_exponent(posting.asset);
        let (delta, after) =
            (Exact::quanta(posting.delta.0, exponent), Exact::quanta(posting.after.0, exponent));
        let account = (venue.to_owned(), asset.clone());
        let before = self.balances.insert(account.clone(), after);
        let (entry, change) = match posting.tag {
            Tag::Trade | Tag::Fee | Tag::Bust => {
                self.check.add((venue, &asset, posting.tag), Exact::ZERO, delta);
                return Ok(Vec::new());
            }
            Tag::Dust => return Ok(Vec::new()),
            Tag::External => ("external", delta),
            // A ledger that begins anew says what there is, not what came.
            Tag::Opening | Tag::Carried => match before {
                None => ("opening", after),
                Some(before) => ("carried", after.minus(before)),
            },
        };
        if change == Exact::ZERO {
            return Ok(Vec::new());
        }
        let head = Entry {
            seq: record.seq,
            at_ns: record.engine_ts_ns,
            entry,
            venue: venue.to_owned(),
            run: Some(run.run),
            ..Entry::default()
        };
        if change < Exact::ZERO {
            // What went away was sold to nobody: the lots go, no gain is made.
            let disposed = self.dispose(venue, &asset, change.negated(), None);
            let disposed = disposed.map(|gone| Disposal { proceeds: gone.taken.cost(), ..gone });
            return Ok(vec![Entry { disposed, ..head }]);
        }
        let told = self.method.opening.by_account.remove(&account);
        let mut rest = change;
        for lot in told.filter(|_| entry == "opening").unwrap_or_default() {
            let Some(pool) = self.pool(venue, &asset) else { break };
            if rest < lot.qty {
                let place = format!("opening balance of {asset} at {venue}");
                let why = format!(
                    "the file has lots of more than the {change} that are there: correct quantities"
                );
                return Err(FillsError::Opening { place, why });
            }
            rest = rest.minus(lot.qty);
            let lot_id = self.lots.add(&pool, lot);
            let (qty, cost) = (lot.qty, lot.cost);
            let acquired =
                Acquired { asset: asset.clone(), qty, cost, pool: Some(pool), lot: lot_id };
            let amount = cost.unwrap_or_default();
            let source =
                format!("the file of opening costs, {}", crate::time::utc(lot.acquired_ns));
            let worth = Some(Worth { amount, source });
            self.waiting.push(Entry { acquired: Some(acquired), worth, ..head.clone() });
        }
        let acquired = match self.acquire((venue, head.at_ns), &asset, rest, None) {
            // It is money: worth what it is.
            None => Acquired { asset, qty: rest, cost: Some(rest), ..Acquired::default() },
            Some(acquired) => acquired,
        };
        if rest != Exact::ZERO {
            self.waiting.push(Entry { acquired: Some(acquired), ..head });
        }
        // What a book already knows need not wait.
        Ok(self.settle())
    }

    /// Values what waits, as far as books can say it by now.
    fn settle(&mut self) -> Vec<Entry> {
        let mut ready = Vec::new();
        for mut entry in std::mem::take(&mut self.waiting) {
            let Some(acquired) = &mut entry.acquired else { continue };
            if acquired.cost.is_some() {
                ready.push(entry);
                continue;
            }
            let Some(worth) = self.rates.worth(&acquired.asset, acquired.qty) else {
                self.waiting.push(entry);
                continue;
            };
            acquired.cost = Some(worth.amount);
            if let (Some(pool), Some(lot)) = (&acquired.pool, acquired.lot) {
                let whole = acquired.qty;
                let cost = |left: Exact| Some(super::lots::share(worth.amount, left, whole));
                self.lots.price(pool, lot, cost);
            }
            entry.worth = Some(worth);
            ready.push(entry);
        }
        ready
    }
}

fn trade_of(record: &Record, run: &RunInfo, trade_id: u64) -> Option<Trade> {
    let listed = run.instruments.get(usize::from(record.instrument))?;
    Some((listed.venue, listed.symbol.clone(), trade_id))
}
